# A guest that writes to its disk without a pause and knows how long it ever had to wait.
#
# After the boot it touches every page of as many MiB as `mib` says, from 16 MiB on, and says R on
# COM1. Then it writes one sector again and again. For every m on COM1 it prints, in 8 hexadecimal
# digits and a newline, the longest time between two writes since the last m, in 1024 cycles.

        .code16
        .text
        .globl  _start

        .equ    PORT, 0x3f8
        .equ    FIRST, 0x1000000        # 16 MiB

_start: ljmp    $0, $begin
        .org    8
mib:    .long   0                       # written by travel.py

begin:  cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        movb    %dl, drive
        lgdt    table                   # "unreal" mode: FS reaches 4 GiB
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        movw    $8, %bx
        movw    %bx, %fs
        andb    $0xfe, %al
        movl    %eax, %cr0
        sti

        movl    mib, %ecx
        shll    $8, %ecx                # pages
        movl    $FIRST, %edi
        jecxz   ready
fill:   movl    %edi, %fs:(%edi)
        addl    $4096, %edi
        decl    %ecx
        jnz     fill
ready:  movb    $'R', %al
        call    say
        call    gap
        movl    $0, longest

again:  movw    $packet, %si
        movb    drive, %dl
        movw    $0x4300, %ax
        int     $0x13
        call    gap
        movw    $PORT + 5, %dx
        inb     %dx, %al
        testb   $1, %al
        jz      again
        movw    $PORT, %dx
        inb     %dx, %al
        cmpb    $'m', %al
        jne     again
        movl    longest, %ebx
        movw    $8, %cx
digit:  roll    $4, %ebx
        movb    %bl, %al
        andb    $15, %al
        addb    $'0', %al
        cmpb    $'9', %al
        jbe     1f
        addb    $39, %al
1:      call    say
        loop    digit
        movb    $'\n', %al
        call    say
        call    gap
        movl    $0, longest
        jmp     again

# The time since the last call goes to `longest` if none was longer.
gap:    rdtsc
        shrdl   $10, %edx, %eax
        movl    %eax, %ebx
        subl    last, %eax
        movl    %ebx, last
        cmpl    longest, %eax
        jbe     1f
        movl    %eax, longest
1:      ret

# Print AL.
say:    movb    %al, %ah
        movw    $PORT + 5, %dx
1:      inb     %dx, %al
        testb   $0x20, %al
        jz      1b
        movw    $PORT, %dx
        movb    %ah, %al
        outb    %al, %dx
        ret

        .balign 4
last:   .long   0
longest: .long  0
drive:  .byte   0
        .balign 4
packet: .byte   16, 0
        .word   1, 0x7c00, 0            # one sector, from here
        .quad   64
        .balign 8
flat:   .quad   0, 0x00cf92000000ffff
table:  .word   15
        .long   flat
        .org    510
        .word   0xaa55
