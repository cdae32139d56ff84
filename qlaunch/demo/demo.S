# The qlaunch demo guest: a PC program without an operating system.
#
# It boots from any BIOS disk, shows a screen, talks on COM1 (115200 8n1), keeps a counter in
# memory and a note on its disk, and obeys the ACPI power button. Real mode, 386 or later.
# Built by "python -m qlaunch.demo.build"; the image is committed beside this file.
#
# On COM1 every message is a line of its own that ends in CR LF:
#
#   start        qlaunch demo / boots=N count=N note=TEXT / keys: ... / READY
#   +            count=N                            one more, in memory only
#   ?            up=N boots=N count=N note=TEXT     up: seconds since READY
#   Enter        saved | disk error                 writes note and count
#   Backspace    deletes in the note
#   r            reset                              by port 0xcf9
#   q            power off                          by ACPI S5
#   (power)      power button                       then ACPI S5
#   other keys   are appended to the note and echoed
#
# The disk: sector 0 boots, the sectors after it hold the rest, STATE_LBA holds the state.
#
# DS, ES and SS are 0 throughout. A routine keeps every register that its comment does not
# name as a result, and the direction flag is always clear.

        .code16
        .text
        .globl  _start

        .equ    LOAD, 0x7c00            # where the BIOS puts sector 0; the rest follows it
        .equ    SECTOR, 512
        .equ    STATE_LBA, 64           # build.py and the tests know this number too

        .equ    BDA_COM1, 0x400         # BIOS data area: port of the first serial port
        .equ    BDA_KEY_HEAD, 0x41a     # keyboard queue: empty when head equals tail
        .equ    BDA_KEY_TAIL, 0x41c
        .equ    BDA_TICKS, 0x46c        # timer ticks, 18.2065 a second

        .equ    CR, 13
        .equ    LF, 10
        .equ    BS, 8
        .equ    DEL, 127


# ---- Boot sector: load the rest ----------------------------------------------------------

_start: ljmp    $0, $boot               # some BIOSes start us at 07c0:0000
        .ascii  " qlaunch demo "

boot:   cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $LOAD, %sp
        sti
        cld
        movw    $bss_start, %di         # memory keeps its contents over a reset
        movw    $bss_size, %cx
        rep stosb
        movb    %dl, drive
        call    serial_init
        movw    $4, %cx                 # a first read may fail while a disk spins up
1:      movw    $dap_code, %si
        movb    $(code_end - _start) / SECTOR - 1, %al
        movb    $0x42, %ah
        call    disk
        jnc     main
        loop    1b
        movw    $t_disk_error, %si
        call    serial_line
2:      lodsb                           # no screen code yet: the BIOS teletype will do
        testb   %al, %al
        jz      3f
        movb    $0x0e, %ah
        movw    $7, %bx
        int     $0x10
        jmp     2b
3:      hlt
        jmp     3b

# disk: AH=0x42 reads, AH=0x43 writes AL sectors as the address packet at SI says. Result: carry
# on error. An error leaves the number of sectors done in the packet: SeaBIOS then calls a second
# attempt with that packet, none of none, a success. So the number is written each time.
disk:   pushal
        movb    %al, 2(%si)
        movb    $0, %al                 # no verification
        movb    drive, %dl
        int     $0x13
        popal
        ret

dap_code:
        .byte   16, 0
        .word   0
        .word   LOAD + SECTOR, 0
        .quad   1
dap_state:
        .byte   16, 0
        .word   0
        .word   state, 0
        .quad   STATE_LBA


# ---- Serial port: COM1, its FIFO on, an interrupt only to wake us --------------------------

        .equ    COM1, 0x3f8
        .equ    COM1_LSR, COM1 + 5
        .equ    LSR_DATA, 0x01          # a byte has come
        .equ    LSR_THRE, 0x20          # the transmitter takes a byte
        .equ    LSR_EMPTY, 0x40         # everything has left
        .equ    COM1_VECTOR, 0x0c * 4   # IRQ 4
        .equ    SEND_TICKS, 18          # how long a stalled reader may stop us: a second

serial_init:
        cmpw    $COM1, BDA_COM1         # without a port every read gives 0xff
        jne     2f
        pushaw
        movw    $serial_setup, %si
        movw    $(serial_setup_end - serial_setup) / 2, %cx
        movw    $COM1, %dx
1:      lodsw
        movb    %al, %dl
        movb    %ah, %al
        outb    %al, %dx
        loop    1b
        cli
        movw    $serial_irq, COM1_VECTOR
        movw    $0, COM1_VECTOR + 2
        inb     $0x21, %al
        andb    $0xef, %al
        outb    %al, $0x21
        sti
        movb    $1, serial_here
        movb    $1, serial_mid_line     # who knows what the BIOS has written
        popaw
2:      ret

serial_setup:                           # low byte of the port, value
        .byte   0xfb, 0x80              # divisor latch:
        .byte   0xf8, 1                 #   115200
        .byte   0xf9, 0
        .byte   0xfb, 0x03              # 8n1
        .byte   0xfa, 0x07              # FIFO on and empty, interrupt at the first byte
        .byte   0xfc, 0x0b              # DTR, RTS, OUT2: lets the interrupt through
        .byte   0xf9, 0x01              # interrupt when a byte has come
serial_setup_end:

# The interrupt ends a hlt; the main loop reads the bytes.
serial_irq:
        pushw   %ax
        movb    $0x20, %al
        outb    %al, $0x20
        popw    %ax
        iret

# serial_wait: wait for a bit of AH in the line status. Result: zero flag set if it timed out.
serial_wait:
        pushaw
        movw    BDA_TICKS, %bx
        movw    $COM1_LSR, %dx
1:      inb     %dx, %al
        testb   %ah, %al
        jnz     2f
        cmpb    $0, serial_stalled      # wait once, then drop until the reader is back
        jne     2f
        movw    BDA_TICKS, %cx
        subw    %bx, %cx
        cmpw    $SEND_TICKS, %cx
        jb      1b
        movb    $1, serial_stalled
2:      testb   %ah, %al
        jz      3f
        movb    $0, serial_stalled
        testb   %ah, %al
3:      popaw
        ret

# serial_putc: send AL.
serial_putc:
        pushaw
        cmpb    $0, serial_here
        je      1f
        movb    $LSR_THRE, %ah
        call    serial_wait
        jz      1f
        movw    $COM1, %dx
        outb    %al, %dx
1:      movb    $1, serial_mid_line
        popaw
        ret

# serial_puts: send the string at SI.
serial_puts:
        pushaw
1:      lodsb
        testb   %al, %al
        jz      2f
        call    serial_putc
        jmp     1b
2:      popaw
        ret

# serial_line: send the string at SI as a line of its own.
serial_line:
        cmpb    $0, serial_mid_line     # an echoed note stands on the current line
        je      1f
        call    serial_newline
1:      call    serial_puts
serial_newline:
        pushw   %si
        movw    $t_newline, %si
        call    serial_puts
        popw    %si
        movb    $0, serial_mid_line
        ret

# serial_flush: wait until the last byte has left.
serial_flush:
        pushaw
        cmpb    $0, serial_here
        je      1f
        movb    $LSR_EMPTY, %ah
        call    serial_wait
1:      popaw
        ret

t_disk_error:
        .asciz  "disk error"
t_newline:
        .asciz  "\r\n"

        # QEMU guesses a disk's geometry from these 64 bytes: no code here.
        .org    446
        .fill   64, 1, 0
        .word   0xaa55


# ---- Main: start, then wait for something to happen ----------------------------------------

main:   call    acpi_init
        call    state_boot
        call    screen_init             # first: a BIOS may copy the screen to COM1
        movw    $t_title, %si
        call    serial_line
        movw    $t_disk_error, %si
        cmpb    $0, state_touched
        je      1f
        call    serial_line
1:      call    compose_state
        call    serial_line
        movw    $t_keys, %si
        call    serial_line
        movw    BDA_TICKS, %ax
        movw    %ax, clock_last
        movw    $t_ready, %si
        movb    $0, say_failed
        call    say

main_loop:
        call    clock_poll
        call    acpi_poll
        call    serial_poll
        call    keyboard_poll
        cli                             # what comes from here on is seen by the tests or ends the hlt
        call    input_pending
        jne     1f
        sti
        hlt
1:      sti
        jmp     main_loop

# input_pending: Result: zero flag set if neither port nor keyboard has a byte.
input_pending:
        pushaw
        cmpb    $0, serial_here
        je      1f
        movw    $COM1_LSR, %dx
        inb     %dx, %al
        testb   $LSR_DATA, %al
        jnz     2f
1:      movw    BDA_KEY_HEAD, %ax
        cmpw    %ax, BDA_KEY_TAIL
2:      popaw
        ret


# ---- Input: bytes from COM1 and keys from the BIOS, until there are none --------------------

serial_poll:
        pushaw
        cmpb    $0, serial_here
        je      2f
1:      movw    $COM1_LSR, %dx
        inb     %dx, %al
        testb   $LSR_DATA, %al
        jz      2f
        movw    $COM1, %dx
        inb     %dx, %al
        call    key
        movb    $0, writing             # on the wire r and q are commands always
        jmp     1b
2:      popaw
        ret

keyboard_poll:
        pushaw
1:      movw    BDA_KEY_HEAD, %ax       # a look at the queue spares an idle machine the call
        cmpw    %ax, BDA_KEY_TAIL
        je      3f
        movb    $0x01, %ah
        int     $0x16
        jz      3f
        movb    $0x00, %ah
        int     $0x16
        cmpb    $0, writing             # people write words: r and q are letters inside a note
        je      2f
        cmpb    $'r', %al
        je      4f
        cmpb    $'q', %al
        je      4f
2:      call    key
        jmp     1b
4:      call    note_append
        jmp     1b
3:      popaw
        ret

# key: do what the key AL says.
key:    pushaw
        movb    %al, %ah
        xchgb   %ah, key_last
        cmpb    $LF, %al                # CR LF is one Enter
        jne     1f
        cmpb    $CR, %ah
        je      4f
1:      movw    $key_table, %si
2:      cmpb    $0, (%si)
        je      3f
        cmpb    %al, (%si)
        leaw    3(%si), %si
        jne     2b
        movb    $0, writing
        call    *-2(%si)
        jmp     4f
3:      cmpb    $' ', %al
        jb      4f
        cmpb    $'~', %al
        ja      4f
        call    note_append
4:      popaw
        ret

        .macro  on_key char, routine
        .byte   \char
        .word   \routine
        .endm
key_table:
        on_key  '+', count_one
        on_key  '?', show_state
        on_key  CR, save
        on_key  LF, save
        on_key  BS, note_delete
        on_key  DEL, note_delete
        on_key  'r', reset
        on_key  'q', power_off
        .byte   0


# ---- Commands -------------------------------------------------------------------------------
# They are called by "key", which keeps the registers.

count_one:
        incl    state_count
        call    touch
        call    draw_count
        movw    $line, %di
        movw    $t_count, %si
        call    add_text
        movl    state_count, %eax
        call    add_number
        movw    $line, %si
        jmp     say_ok

show_state:
        movw    $line, %di
        movw    $t_up, %si
        call    add_text
        movl    clock_up, %eax
        call    add_number
        movb    $' ', (%di)
        incw    %di
        call    add_state
        movw    $line, %si
        jmp     say_ok

save:   movw    $t_disk_error, %si
        call    state_write
        jc      say_error
        movb    $0, state_touched
        call    draw_saved
        movw    $t_saved, %si
        jmp     say_ok

note_append:
        call    note_end
        cmpw    $state_note + NOTE_MAX, %di
        jae     1f
        movb    %al, (%di)              # the byte after it is 0 already
        call    serial_putc
        movb    $1, writing
        call    touch
        call    draw_note
1:      ret

note_delete:
        call    note_end
        cmpw    $state_note, %di
        je      1f
        movb    $0, -1(%di)
        movw    $t_rubout, %si
        call    serial_puts
        movb    $1, writing
        call    touch
        call    draw_note
1:      ret

reset:  movw    $t_reset, %si
        call    say_ok
        call    serial_flush
        movw    $0xcf9, %dx
        movb    $0x02, %al
        outb    %al, %dx
        movb    $0x06, %al
        outb    %al, %dx
        call    pause                   # QEMU resets a moment after the write
        movb    $0xfe, %al              # a chipset without 0xcf9: ask the keyboard controller
        outb    %al, $0x64
1:      hlt
        jmp     1b

power_off:
        movw    $t_power_off, %si
        call    say_ok
        jmp     acpi_off

# note_end: Result: DI at the 0 that ends the note.
note_end:
        movw    $state_note - 1, %di
1:      incw    %di
        cmpb    $0, (%di)
        jne     1b
        ret

# touch: what is in memory is no longer what is on the disk.
touch:  movb    $1, state_touched
        jmp     draw_saved

# say_ok, say_error: the message at SI to COM1 and to the bottom line of the screen.
say_error:
        movb    $1, say_failed
        jmp     say
say_ok: movb    $0, say_failed
say:    call    serial_line
        jmp     draw_message


# ---- State: one sector with a magic and a checksum ------------------------------------------

        .equ    NOTE_MAX, 60
        .equ    MAGIC_SIZE, 8

# state_boot: read the state, count this boot and write it back. If the disk does not do its part,
# the state counts as touched.
state_boot:
        pushaw
        movw    $0x4201, %ax
        movw    $dap_state, %si
        call    disk
        jc      1f                      # unreadable is not foreign: do not write over it
        call    state_verify
        incl    state_boots
        call    state_write
        jnc     3f
        jmp     2f
1:      call    state_clear
        incl    state_boots
2:      movb    $1, state_touched
3:      popaw
        ret

# state_verify: start afresh if what was read is blank, foreign or torn.
state_verify:
        pushaw
        movw    $t_magic, %si
        movw    $state, %di
        movw    $MAGIC_SIZE, %cx
        repe cmpsb
        jne     1f
        call    state_sum
        cmpw    %ax, state_check
        je      2f
1:      call    state_clear
2:      popaw
        ret

state_clear:
        pushaw
        movw    $state, %di
        movw    $SECTOR, %cx
        xorb    %al, %al
        rep stosb
        movw    $t_magic, %si
        movw    $state, %di
        movw    $MAGIC_SIZE, %cx
        rep movsb
        popaw
        ret

# state_write: write the state. Result: carry on error.
state_write:
        pushaw
        call    state_sum
        movw    %ax, state_check
        movw    $0x4301, %ax
        movw    $dap_state, %si
        call    disk
        popaw
        ret

# state_sum: Result: AX is the checksum of all words but the last.
state_sum:
        pushw   %cx
        pushw   %si
        movw    $state, %si
        movw    $SECTOR / 2 - 1, %cx
        xorw    %ax, %ax
1:      rolw    $1, %ax
        addw    (%si), %ax
        addw    $2, %si
        loop    1b
        popw    %si
        popw    %cx
        ret


# ---- Power: the ACPI button and S5, at the same ports on pc and q35 --------------------------

        .equ    PM1_STATUS, 0x600
        .equ    PM1_ENABLE, 0x602
        .equ    PM1_CONTROL, 0x604
        .equ    PM1_BUTTON, 0x0100
        .equ    PM1_SLEEP_S5, 0x2000

acpi_init:
        pushaw
        movw    $PM1_BUTTON, %ax        # writing the status bit clears it
        movw    $PM1_STATUS, %dx
        outw    %ax, %dx
        movw    $PM1_ENABLE, %dx
        outw    %ax, %dx
        inw     %dx, %ax
        cmpw    $PM1_BUTTON, %ax        # 0xffff: a machine without ACPI
        sete    acpi_here
        popaw
        ret

acpi_poll:
        pushaw
        cmpb    $0, acpi_here
        je      1f
        movw    $PM1_STATUS, %dx
        inw     %dx, %ax
        testw   $PM1_BUTTON, %ax
        jz      1f
        movw    $PM1_BUTTON, %ax
        outw    %ax, %dx
        movw    $t_button, %si
        call    say_ok
        call    acpi_off
1:      popaw
        ret

# acpi_off: power off; comes back only if the machine cannot.
acpi_off:
        pushaw
        cmpb    $0, acpi_here
        je      1f
        call    serial_flush
        movw    $PM1_CONTROL, %dx
        movw    $PM1_SLEEP_S5, %ax
        outw    %ax, %dx
        call    pause
1:      movw    $t_off_failed, %si
        call    say_error
        popaw
        ret


# ---- Clock: seconds from timer ticks ---------------------------------------------------------

        .equ    PIT_HZ, 1193182         # a tick is 65536 of these
        .equ    PAUSE_TICKS, 36

clock_poll:
        pushal
        movw    BDA_TICKS, %ax
        movw    %ax, %bx
        subw    clock_last, %ax
        jz      3f
        movw    %bx, clock_last
        jns     1f
        movw    $1, %ax                 # the BIOS starts again from 0 at midnight
1:      shll    $16, %eax
        addl    %eax, clock_parts
2:      cmpl    $PIT_HZ, clock_parts
        jb      3f
        subl    $PIT_HZ, clock_parts
        incl    clock_up
        call    draw_uptime
        jmp     2b
3:      popal
        ret

# pause: two seconds without work.
pause:  pushw   %cx
        movw    $PAUSE_TICKS, %cx
1:      hlt
        loop    1b
        popw    %cx
        ret


# ---- Text: building a line at DI ---------------------------------------------------------------
# They leave DI at the 0 that ends what they have added.

# add_text: add the string at SI.
add_text:
        pushw   %ax
        pushw   %si
1:      lodsb
        stosb
        testb   %al, %al
        jnz     1b
        decw    %di
        popw    %si
        popw    %ax
        ret

# add_two: add EAX in decimal, at least two digits.
add_two:
        cmpl    $10, %eax
        jae     add_number
        movb    $'0', (%di)
        incw    %di
# add_number: add EAX in decimal.
add_number:
        pushal
        movl    $10, %ebx
        xorw    %cx, %cx
1:      xorl    %edx, %edx
        divl    %ebx
        pushw   %dx
        incw    %cx
        testl   %eax, %eax
        jnz     1b
2:      popw    %ax
        addb    $'0', %al
        stosb
        loop    2b
        movb    $0, (%di)
        movw    %di, text_end
        popal
        movw    text_end, %di
        ret

# add_state: add "boots=N count=N note=TEXT".
add_state:
        pushal
        movw    $t_boots, %si
        call    add_text
        movl    state_boots, %eax
        call    add_number
        movb    $' ', (%di)
        incw    %di
        movw    $t_count, %si
        call    add_text
        movl    state_count, %eax
        call    add_number
        movw    $t_note, %si
        call    add_text
        movw    $state_note, %si
        call    add_text
        popal
        ret

# compose_state: Result: SI at the state as a line.
compose_state:
        movw    $line, %di
        call    add_state
        movw    $line, %si
        ret


# ---- Screen: colours, boxes and the fields that change ------------------------------------------
# A place on the screen is the offset of its cell in video memory. Without a display adapter all
# of this writes to nowhere.

        .equ    VIDEO, 0xb800
        .equ    ROW, 160

        .equ    BACK, 0                 # our palette: 0 to 5 and 7 to 15
        .equ    FRAME, 1
        .equ    LABEL, 2
        .equ    BRIGHT, 3
        .equ    ACCENT, 4
        .equ    AMBER, 5
        .equ    PLAIN, 7
        .equ    LOGO, 8                 # to 13, from the top to the bottom
        .equ    GREEN, 14
        .equ    RED, 15
        .equ    BAR, FRAME << 4

        .equ    AT_LOGO, 2 * ROW + 15 * 2
        .equ    AT_CARDS, 10 * ROW + 6 * 2
        .equ    CARD_INSIDE, 20
        .equ    CARD_STEP, 23 * 2
        .equ    AT_VALUES, AT_CARDS + ROW + 3 * 2
        .equ    VALUE_WIDTH, 17
        .equ    AT_NOTE_BOX, 14 * ROW + 6 * 2
        .equ    NOTE_INSIDE, 66
        .equ    AT_NOTE, AT_NOTE_BOX + ROW + 3 * 2
        .equ    AT_SAVED, AT_NOTE_BOX + 54 * 2
        .equ    SAVED_WIDTH, 11
        .equ    AT_LAMPS, 18 * ROW + 6 * 2
        .equ    AT_MESSAGE, 24 * ROW + 6 * 2
        .equ    MESSAGE_WIDTH, 68

screen_init:
        pushal
        movw    $0x0003, %ax            # 80 x 25 text
        int     $0x10
        movw    $0x1003, %ax            # 16 backgrounds, nothing blinks
        xorw    %bx, %bx
        int     $0x10
        call    palette
        pushw   %es
        pushw   $VIDEO
        popw    %es
        xorw    %di, %di
        movw    $BAR << 8 | ' ', %ax
        movw    $80, %cx
        rep stosw
        movb    $BACK << 4 | PLAIN, %ah
        movw    $80 * 23, %cx
        rep stosw
        movb    $BAR, %ah
        movw    $80, %cx
        rep stosw
        popw    %es
        call    logo
        movw    $CARD_INSIDE, %cx
        movw    $AT_CARDS, %di
        call    box
        movw    $AT_CARDS + CARD_STEP, %di
        call    box
        movw    $AT_CARDS + 2 * CARD_STEP, %di
        call    box
        movw    $NOTE_INSIDE, %cx
        movw    $AT_NOTE_BOX, %di
        call    box
        call    labels
        call    lamps
        call    draw_uptime
        call    draw_boots
        call    draw_count
        call    draw_note
        call    draw_saved
        popal
        ret

# palette: 16 colours of our own; attribute n shows DAC entry n, or 0x30 + n from 8 on.
palette:
        pushaw
        movw    $colours, %si
        xorb    %bl, %bl
1:      movb    %bl, %al
        cmpb    $8, %al
        jb      2f
        addb    $0x30, %al
2:      movw    $0x3c8, %dx
        outb    %al, %dx
        incw    %dx
        movw    $3, %cx
3:      lodsb
        outb    %al, %dx
        loop    3b
        incb    %bl
        cmpb    $16, %bl
        jb      1b
        popaw
        ret

# logo: two rows of the bitmap make one row of half blocks.
logo:   pushaw
        pushw   %es
        pushw   $VIDEO
        popw    %es
        movw    $bitmap, %si
        movw    $AT_LOGO, %di
        movb    $LOGO, %ah
1:      movw    $BITMAP_WIDTH - 1, %cx  # bit 0 is the rightmost dot
2:      xorw    %bx, %bx
        btw     %cx, (%si)
        rclw    $1, %bx
        btw     %cx, 8(%si)
        rclw    $1, %bx
        movb    half_blocks(%bx), %al
        stosw
        decw    %cx
        jns     2b
        addw    $16, %si
        addw    $ROW - BITMAP_WIDTH * 2, %di
        incb    %ah
        cmpw    $bitmap_end, %si
        jb      1b
        popw    %es
        popaw
        ret

# box: a frame at DI, three rows high and CX cells wide inside.
box:    pushaw
        movw    $box_parts, %si
1:      call    box_row
        addw    $ROW, %di
        cmpw    $box_parts_end, %si
        jb      1b
        popaw
        ret

# box_row: left, middle and right from SI, which moves on.
box_row:
        pushw   %cx
        pushw   %di
        pushw   %es
        pushw   $VIDEO
        popw    %es
        movb    $FRAME, %ah
        lodsb
        stosw
        lodsb
        rep stosw
        lodsb
        stosw
        popw    %es
        popw    %di
        popw    %cx
        ret

# labels: all the text that stays.
labels: pushaw
        movw    $label_table, %si
1:      lodsw
        movw    %ax, %di
        testw   %ax, %ax
        jz      2f
        lodsb
        movb    %al, %ah
        call    print
        jmp     1b
2:      popaw
        ret

# lamps: a green dot for what this machine has, a dim one for what it lacks.
lamps:  pushaw
        movw    $AT_LAMPS, %di
        movb    $1, %bl
        movw    $t_lamp_disk, %si
        call    lamp
        movw    $AT_LAMPS + CARD_STEP, %di
        movb    serial_here, %bl
        movw    $t_lamp_serial, %si
        call    lamp
        movw    $AT_LAMPS + 2 * CARD_STEP, %di
        movb    acpi_here, %bl
        movw    $t_lamp_acpi, %si
        call    lamp
        popaw
        ret

lamp:   pushw   %si
        movb    $GREEN, %ah
        testb   %bl, %bl
        jnz     1f
        movb    $FRAME, %ah
1:      movw    $t_dot, %si
        call    print
        popw    %si
        movb    $LABEL, %ah
        jmp     print

# print: the string at SI at the place DI with attribute AH. Result: SI and DI after it.
print:  pushw   %ax
        pushw   %es
        pushw   $VIDEO
        popw    %es
1:      lodsb
        testb   %al, %al
        jz      2f
        stosw
        jmp     1b
2:      popw    %es
        popw    %ax
        ret

# field: like print, but CX cells wide: cut or filled. Result: DI after the text.
field:  pushaw
        pushw   %es
        pushw   $VIDEO
        popw    %es
1:      lodsb
        testb   %al, %al
        jz      2f
        stosw
        loop    1b
2:      movw    %di, text_end
        movb    $' ', %al
        rep stosw
        popw    %es
        popaw
        movw    text_end, %di
        ret

draw_uptime:
        pushal
        movw    $value, %di
        movl    clock_up, %eax
        movl    $60, %ebx
        xorl    %edx, %edx
        divl    %ebx
        pushl   %edx                    # seconds
        xorl    %edx, %edx
        divl    %ebx
        pushl   %edx                    # minutes
        call    add_two                 # hours
        movw    $2, %cx
1:      movb    $':', (%di)
        incw    %di
        popl    %eax
        call    add_two
        loop    1b
        movw    $AT_VALUES, %di
        call    draw_value
        popal
        ret

draw_boots:
        pushal
        movl    state_boots, %eax
        movw    $AT_VALUES + CARD_STEP, %di
        jmp     draw_number

draw_count:
        pushal
        movl    state_count, %eax
        movw    $AT_VALUES + 2 * CARD_STEP, %di
draw_number:
        pushw   %di
        movw    $value, %di
        call    add_number
        popw    %di
        call    draw_value
        popal
        ret

# draw_value: the number in "value" at DI.
draw_value:
        movw    $value, %si
        movw    $VALUE_WIDTH, %cx
        movb    $BRIGHT, %ah
        jmp     field

# draw_note: the note, and the cursor after it.
draw_note:
        pushaw
        movw    $state_note, %si
        movw    $AT_NOTE, %di
        movw    $NOTE_MAX, %cx
        movb    $BRIGHT, %ah
        call    field
        movw    %di, %ax
        movb    $ROW, %bl
        divb    %bl                     # AL row, AH twice the column
        movb    %al, %dh
        movb    %ah, %dl
        shrb    $1, %dl
        movb    $0x02, %ah
        movb    $0, %bh
        int     $0x10
        popaw
        ret

# draw_saved: does the disk hold what the screen shows?
draw_saved:
        pushaw
        movw    $t_on_disk, %si
        movb    $GREEN, %ah
        cmpb    $0, state_touched
        je      1f
        movw    $t_not_saved, %si
        movb    $AMBER, %ah
1:      movw    $AT_SAVED, %di
        movw    $SAVED_WIDTH, %cx
        call    field
        popaw
        ret

# draw_message: the message at SI in the bottom bar.
draw_message:
        pushaw
        movb    $BAR | BRIGHT, %ah
        cmpb    $0, say_failed
        je      1f
        movb    $BAR | RED, %ah
1:      movw    $AT_MESSAGE, %di
        movw    $MESSAGE_WIDTH, %cx
        call    field
        popaw
        ret


# ---- Texts and pictures -----------------------------------------------------------------------

t_magic:        .ascii  "QLDEMO1\n"
t_title:        .asciz  "qlaunch demo"
t_keys:         .ascii  "keys: + counts, ? shows, Enter saves, Backspace deletes, r restarts, "
                .asciz  "q switches off, others write the note"
t_ready:        .asciz  "READY"
t_up:           .asciz  "up="
t_boots:        .asciz  "boots="
t_count:        .asciz  "count="
t_note:         .asciz  " note="
t_saved:        .asciz  "saved"
t_reset:        .asciz  "reset"
t_button:       .asciz  "power button"
t_power_off:    .asciz  "power off"
t_off_failed:   .asciz  "power off failed"
t_rubout:       .asciz  "\b \b"
t_on_disk:      .asciz  " \373 on disk "
t_not_saved:    .asciz  " not saved "
t_dot:          .asciz  "\376 "
t_lamp_disk:    .asciz  "BIOS disk"
t_lamp_serial:  .asciz  "COM1 115200 8n1"
t_lamp_acpi:    .asciz  "ACPI power button"

        .macro  label row, column, attribute, text:vararg
        .word   \row * ROW + \column * 2
        .byte   \attribute
        .asciz  \text
        .endm
        .equ    CAP, FRAME << 4 | BRIGHT
label_table:
        label   0, 6, BAR | BRIGHT, "qlaunch demo"
        label   0, 44, BAR | PLAIN, "a machine with nothing but itself"
        label   10, 8, LABEL, " uptime "
        label   10, 31, LABEL, " boots "
        label   10, 54, LABEL, " count "
        label   14, 8, LABEL, " note "
        label   20, 6, CAP, " + "
        label   20, 10, PLAIN, "count"
        label   20, 19, CAP, " ? "
        label   20, 23, PLAIN, "show"
        label   20, 31, CAP, " Enter "
        label   20, 39, PLAIN, "save"
        label   20, 47, CAP, " r "
        label   20, 51, PLAIN, "reset"
        label   20, 60, CAP, " q "
        label   20, 64, PLAIN, "power off"
        label   22, 6, LABEL, "Other keys write the note. Inside a note, r and q are letters too."
        .word   0

colours:                                # red, green, blue; 0 to 63
        .byte    3,  5, 10
        .byte   12, 18, 29
        .byte   33, 40, 50
        .byte   62, 62, 63
        .byte   20, 50, 60
        .byte   63, 50, 22
        .byte    0,  0,  0              # attribute 6 shows DAC entry 20: we leave it alone
        .byte   50, 54, 59
        .byte   20, 55, 63              # logo
        .byte   22, 49, 63
        .byte   25, 43, 63
        .byte   30, 37, 63
        .byte   36, 32, 62
        .byte   42, 28, 60
        .byte   20, 54, 36
        .byte   63, 30, 30

box_parts:                              # left, middle, right in code page 437
        .byte   0xda, 0xc4, 0xbf
        .byte   0xb3, 0x20, 0xb3
        .byte   0xc0, 0xc4, 0xd9
box_parts_end:

half_blocks:                            # nothing, lower, upper, both
        .byte   0x20, 0xdc, 0xdf, 0xdb

        .equ    BITMAP_WIDTH, 50
bitmap: .quad   0b00000000110000000000000000000000000000000000110000
        .quad   0b00000000110000000000000000000000000000000000110000
        .quad   0b01111100110001111100110011001111100001111100111110
        .quad   0b11111100110011111100110011001111110011111100111111
        .quad   0b11001100110011001100110011001100110011000000110011
        .quad   0b11001100110011001100110011001100110011000000110011
        .quad   0b11001100110011001100110011001100110011000000110011
        .quad   0b11111100110011111100111111001100110011111100110011
        .quad   0b01111100110001111100011111001100110001111100110011
        .quad   0b00001100000000000000000000000000000000000000000000
        .quad   0b00001100000000000000000000000000000000000000000000
        .quad   0b00001100000000000000000000000000000000000000000000
bitmap_end:

        .balign SECTOR
code_end:


# ---- Memory -------------------------------------------------------------------------------------

        .bss
bss_start:
drive:          .skip   1
serial_here:    .skip   1
serial_stalled: .skip   1
serial_mid_line: .skip  1
acpi_here:      .skip   1
key_last:       .skip   1
writing:        .skip   1               # the last key from the keyboard went into the note
say_failed:     .skip   1
state_touched:  .skip   1
        .balign 4
clock_up:       .skip   4               # seconds
clock_parts:    .skip   4               # of a second, in 1 / PIT_HZ
clock_last:     .skip   2
text_end:       .skip   2
value:          .skip   32
line:           .skip   192
        .balign 16
state:          .skip   SECTOR
        .equ    state_boots, state + MAGIC_SIZE
        .equ    state_count, state_boots + 4
        .equ    state_note, state_count + 4
        .equ    state_check, state + SECTOR - 2
        .equ    bss_size, . - bss_start
