# The guest of the campaign: it writes numbered blocks to two disks and says what it has flushed.
#
# Block n is a sector full of the pair (epoch, n). It goes to slot n % 32 of the first disk, then to
# the same slot of the second. What was written is also kept in memory, for each disk. On COM1:
#
#   g h          write (three blocks at every tick of the timer), do not
#   eXXXX        the epoch from now on, 4 hexadecimal digits
#   v            read all slots and say them
#   ?  q         say where we are, power off (the ACPI button does that, too)
#
# Every line is a letter and words of 8 hexadecimal digits, of which the last is the complement of
# the sum of the others: what was lost on the way is noticed.
#
#   B E H S epoch n flushed                   boot, epoch, halted, state
#   F epoch n                                 everything up to n is flushed, on both disks
#   D slot (epoch n) of disk 0, of disk 1, of memory for disk 0, of memory for disk 1
#   V epoch n flushed                         the end of those lines
#   X n                                       the disk said no

        .code16
        .text
        .globl  _start

        .equ    LOAD, 0x7c00
        .equ    COM1, 0x3f8
        .equ    SLOTS, 32
        .equ    FLUSH_EVERY, 8
        .equ    PM1, 0x600
        .equ    BUTTON, 0x100

_start: ljmp    $0, $begin
begin:  cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $LOAD, %sp
        sti
        cld
        movw    $4, %cx                 # a first read may fail while a disk spins up
1:      movw    $(code_end - _start) / 512 - 1, packet_code + 2
        movw    $packet_code, %si
        movw    $0x4200, %ax
        movb    $0x80, %dl
        int     $0x13
        jnc     main
        loop    1b
2:      hlt
        jmp     2b

packet_code:
        .byte   16, 0
        .word   0, LOAD + 512, 0
        .quad   1
packet: .byte   16, 0
        .word   1, block, 0
lba:    .quad   0

        # QEMU guesses a disk's geometry from these 64 bytes: no code here.
        .org    446
        .fill   64, 1, 0
        .word   0xaa55

main:   movw    $bss_start, %di         # memory keeps its contents over a reset
        movw    $bss_size, %cx
        xorw    %ax, %ax
        rep stosb
        movw    $BUTTON, %ax
        movw    $PM1, %dx
        outw    %ax, %dx
        movw    $PM1 + 2, %dx
        outw    %ax, %dx

        xorw    %bx, %bx                # what is on the disks is what was written
1:      call    read_both
        movw    %bx, %di
        shlw    $4, %di
        addw    $memory, %di
        movw    $found, %si
        movw    $8, %cx
        rep movsw
        movl    found + 4, %eax
        call    highest
        movl    found + 12, %eax
        call    highest
        incw    %bx
        cmpw    $SLOTS, %bx
        jb      1b
        movl    number, %eax
        movl    %eax, flushed
        movb    $'B', %al
        call    state

again:  call    power
        call    listen
        cmpb    $0, running
        je      1f
        movw    $3, %cx
2:      call    write_one
        loop    2b
1:      hlt
        jmp     again

highest:
        cmpl    number, %eax
        jbe     1f
        movl    %eax, number
1:      ret

# Write the next block to both disks, and flush now and then.
write_one:
        pushal
        movl    number, %eax
        incl    %eax
        movl    %eax, number
        movw    %ax, %bx
        andw    $SLOTS - 1, %bx
        movl    epoch, %edx
        movw    $block, %di
        movw    $64, %cx
1:      movl    %edx, (%di)
        movl    %eax, 4(%di)
        addw    $8, %di
        loop    1b
        movw    %bx, %di
        shlw    $4, %di
        movl    %edx, memory(%di)       # in memory first: a write that is under way may be done
        movl    %eax, memory + 4(%di)
        movw    $0x4300, %ax
        movb    $0x80, %dl
        call    disk
        movl    epoch, %edx
        movl    number, %eax
        movl    %edx, memory + 8(%di)
        movl    %eax, memory + 12(%di)
        movw    $0x4300, %ax
        movb    $0x81, %dl
        call    disk
        testl   $FLUSH_EVERY - 1, number
        jnz     2f
        movb    $0xe0, %al
        call    flush
        movb    $0xf0, %al
        call    flush
        cmpb    $0, failed
        jne     2f
        movl    number, %eax
        movl    %eax, flushed
        movb    $'F', %al
        call    begin_line
        movl    epoch, %eax
        call    word
        movl    number, %eax
        call    word
        call    end_line
2:      popal
        ret

# Read (0x42) or write (0x43) slot BX of the drive DL.
disk:   pushal
        movzwl  %bx, %ecx
        incl    %ecx
        shll    $7, %ecx                # each slot is a cluster of its own
        movl    %ecx, lba
        movw    $1, packet + 2          # SeaBIOS leaves the number done here
        movw    $packet, %si
        int     $0x13
        jnc     1f
        movb    $1, failed
        movb    $'X', %al
        call    begin_line
        movl    number, %eax
        call    word
        call    end_line
1:      popal
        ret

# FLUSH CACHE of the drive that AL selects on the first IDE port.
flush:  pushal
        movw    $0x1f6, %dx
        outb    %al, %dx
        incw    %dx
        movb    $0xe7, %al
        outb    %al, %dx
1:      inb     %dx, %al
        testb   $0x80, %al
        jnz     1b
        testb   $0x01, %al
        jz      2f
        movb    $1, failed
2:      popal
        ret

# Read slot BX of both disks: `found` has their pairs, 0xffffffff for a block that is not whole.
read_both:
        pushal
        movb    $0x80, %dl
        movw    $found, %di
1:      movw    $0x4200, %ax
        call    disk
        movl    block, %eax
        movl    block + 4, %ecx
        movw    $block, %si
2:      cmpl    (%si), %eax
        jne     3f
        cmpl    4(%si), %ecx
        jne     3f
        addw    $8, %si
        cmpw    $block + 512, %si
        jb      2b
        jmp     4f
3:      movl    $0xffffffff, %eax
4:      movl    %eax, (%di)
        movl    %ecx, 4(%di)
        addw    $8, %di
        incb    %dl
        cmpb    $0x82, %dl
        jb      1b
        popal
        ret

power:  movw    $PM1, %dx
        inw     %dx, %ax
        testw   $BUTTON, %ax
        jz      1f
off:    movb    $0xe0, %al              # a guest that shuts down flushes
        call    flush
        movb    $0xf0, %al
        call    flush
        movw    $PM1, %dx
        movw    $BUTTON, %ax
        outw    %ax, %dx
        movw    $PM1 + 4, %dx
        movw    $0x2000, %ax
        outw    %ax, %dx
1:      ret

listen: movw    $COM1 + 5, %dx
        inb     %dx, %al
        testb   $1, %al
        jz      9f
        call    hear
        cmpb    $'g', %al
        jne     1f
        movb    $1, running
        jmp     listen
1:      cmpb    $'h', %al
        jne     2f
        movb    $0, running
        movb    $'H', %al
        call    state
        jmp     listen
2:      cmpb    $'?', %al
        jne     3f
        movb    $'S', %al
        call    state
        jmp     listen
3:      cmpb    $'q', %al
        je      off
        cmpb    $'v', %al
        jne     4f
        call    dump
        jmp     listen
4:      cmpb    $'e', %al
        jne     listen
        xorl    %ebx, %ebx
        movw    $4, %cx
5:      call    hear
        subb    $'0', %al
        cmpb    $10, %al
        jb      6f
        subb    $39, %al
6:      shlw    $4, %bx
        orb     %al, %bl
        loop    5b
        movl    %ebx, epoch
        movb    $'E', %al
        call    state
        jmp     listen
9:      ret

# Wait for a byte. Result: AL.
hear:   movw    $COM1 + 5, %dx
1:      inb     %dx, %al
        testb   $1, %al
        jz      1b
        movw    $COM1, %dx
        inb     %dx, %al
        ret

dump:   xorw    %bx, %bx
1:      call    read_both
        movb    $'D', %al
        call    begin_line
        movzwl  %bx, %eax
        call    word
        movw    $found, %si
        call    four
        movw    %bx, %si
        shlw    $4, %si
        addw    $memory, %si
        call    four
        call    end_line
        incw    %bx
        cmpw    $SLOTS, %bx
        jb      1b
        movb    $'V', %al
state:  call    begin_line
        movl    epoch, %eax
        call    word
        movl    number, %eax
        call    word
        movl    flushed, %eax
        call    word
        jmp     end_line

four:   movw    $4, %cx
1:      lodsl
        call    word
        loop    1b
        ret

begin_line:
        movl    $0, sum
        jmp     say

# A word of the line: EAX.
word:   addl    %eax, sum
digits: pushal
        movl    %eax, %ebx
        movw    $8, %cx
1:      roll    $4, %ebx
        movb    %bl, %al
        andb    $15, %al
        addb    $'0', %al
        cmpb    $'9', %al
        jbe     2f
        addb    $39, %al
2:      call    say
        loop    1b
        popal
        ret

end_line:
        movl    sum, %eax
        notl    %eax
        call    digits
        movb    $13, %al
        call    say
        movb    $10, %al

# Print AL.
say:    pushaw
        movb    %al, %ah
        movw    $COM1 + 5, %dx
1:      inb     %dx, %al
        testb   $0x20, %al
        jz      1b
        movw    $COM1, %dx
        movb    %ah, %al
        outb    %al, %dx
        popaw
        ret

        .balign 512
        .globl  code_end
code_end:

        .bss
        .balign 16
bss_start:
number: .skip   4
epoch:  .skip   4
flushed: .skip  4
sum:    .skip   4
running: .skip  1
failed: .skip   1
        .balign 16
found:  .skip   16
memory: .skip   SLOTS * 16
block:  .skip   512
        .equ    bss_size, . - bss_start
