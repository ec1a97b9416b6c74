# The vDSO that guests see: one read-only page of data, kept by the monitor, then one page that is a
# whole ELF file. Offsets in the data page are those of `ClockPage` in vdso.rs. Where its rate is 0 there is no
# counter to read, and the functions make the system call that they stand for.

    .section .rodata.cloister_vdso, "a"
    .balign 4096
    .globl cloister_vdso_start
    .globl cloister_vdso_end
cloister_vdso_start:
.Ldata:
    .skip 4096

.Limage:
    # Elf64_Ehdr
    .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
    .short 3, 62                    # ET_DYN, EM_X86_64
    .long 1
    .quad 0                         # no entry
    .quad .Lphdr - .Limage
    .quad 0
    .long 0
    .short 64, 56, 2, 64, 0, 0

.Lphdr:
    .long 1, 5                      # PT_LOAD, R|X
    .quad 0, 0, 0, .Lend - .Limage, .Lend - .Limage, 4096
    .long 2, 4                      # PT_DYNAMIC, R: glibc ignores a writable one
    .quad .Ldynamic - .Limage, .Ldynamic - .Limage, .Ldynamic - .Limage
    .quad .Ldynamic_end - .Ldynamic, .Ldynamic_end - .Ldynamic, 8

    .balign 8
.Ldynamic:
    .quad 4, .Lhash - .Limage       # DT_HASH
    .quad 5, .Lstrings - .Limage    # DT_STRTAB
    .quad 6, .Lsymbols - .Limage    # DT_SYMTAB
    .quad 10, .Lstrings_end - .Lstrings
    .quad 11, 24                    # DT_SYMENT
    .quad 14, .Lsoname - .Lstrings  # DT_SONAME
    .quad 0x6ffffff0, .Lversions - .Limage     # DT_VERSYM
    .quad 0x6ffffffc, .Ldefinitions - .Limage  # DT_VERDEF
    .quad 0x6ffffffd, 2                        # DT_VERDEFNUM
    .quad 0, 0
.Ldynamic_end:

.Lstrings:
    .byte 0
.Lsoname:
    .asciz "linux-vdso.so.1"
.Lname1:
    .asciz "__vdso_clock_gettime"
.Lname2:
    .asciz "__vdso_gettimeofday"
.Lname3:
    .asciz "__vdso_time"
.Lname4:
    .asciz "__vdso_getcpu"
.Lname5:
    .asciz "__vdso_clock_getres"
.Lversion:
    .asciz "LINUX_2.6"
.Lstrings_end:

    .macro symbol name, code, code_end
    .long \name - .Lstrings
    .byte 0x12, 0                   # STB_GLOBAL, STT_FUNC; default visibility
    .short 1                        # any section but SHN_UNDEF
    .quad \code - .Limage, \code_end - \code
    .endm

    .balign 8
.Lsymbols:
    .quad 0, 0, 0
    symbol .Lname1, .Lclock_gettime, .Lgettimeofday
    symbol .Lname2, .Lgettimeofday, .Ltime
    symbol .Lname3, .Ltime, .Lgetcpu
    symbol .Lname4, .Lgetcpu, .Lclock_getres
    symbol .Lname5, .Lclock_getres, .Ltext_end

    # Go reads versions without asking whether there are any. Hashes are those of the names (gABI).
    .balign 8
.Lversions:
    .short 0, 2, 2, 2, 2, 2
    .balign 8
.Ldefinitions:
    .short 1, 1, 1, 1               # revision, VER_FLG_BASE, index, one name
    .long 0xdeebfa1, 20, 28
    .long .Lsoname - .Lstrings, 0
    .short 1, 0, 2, 1
    .long 0x3ae75f6, 20, 0
    .long .Lversion - .Lstrings, 0

    # One bucket holds all symbols: there are only five.
    .balign 8
.Lhash:
    .long 1, 6, 1
    .long 0, 2, 3, 4, 5, 0

    # Reads a clock whose base lies at r8; answers nanoseconds in rax. Clobbers rcx, rdx, r9 - r11.
    .balign 16
.Lread:
    lea .Ldata(%rip), %r9
1:  mov (%r9), %r10d
    test $1, %r10d
    jnz 2f
    lfence
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    sub 8(%r9), %rax
    jae 3f
    xor %eax, %eax
3:  mulq 16(%r9)
    shrd $32, %rdx, %rax
    add (%r8), %rax
    lfence
    cmp (%r9), %r10d
    jne 1b
    ret
2:  pause
    jmp 1b

    .balign 16
.Lclock_gettime:
    cmpq $0, .Ldata+16(%rip)
    je 8f
    # CLOCK_REALTIME 0, its coarse form 5 and TAI 11; MONOTONIC 1, RAW 4, coarse 6, BOOTTIME 7.
    cmp $11, %edi
    ja 8f
    mov $1, %eax
    mov %edi, %ecx
    shl %cl, %eax
    lea .Ldata+32(%rip), %r8
    test $0x821, %eax
    jnz 4f
    lea .Ldata+24(%rip), %r8
    test $0xd2, %eax
    jz 8f
4:  call .Lread
    mov $1000000000, %ecx
    xor %edx, %edx
    div %rcx
    mov %rax, (%rsi)
    mov %rdx, 8(%rsi)
    xor %eax, %eax
    ret
8:  mov $228, %eax
    syscall
    ret

    .balign 16
.Lgettimeofday:
    cmpq $0, .Ldata+16(%rip)
    je 7f
    test %rdi, %rdi
    jz 5f
    lea .Ldata+32(%rip), %r8
    call .Lread
    mov $1000000000, %ecx
    xor %edx, %edx
    div %rcx
    mov %rax, (%rdi)
    mov %rdx, %rax
    xor %edx, %edx
    mov $1000, %ecx
    div %rcx
    mov %rax, 8(%rdi)
5:  test %rsi, %rsi
    jz 6f
    movq $0, (%rsi)
6:  xor %eax, %eax
    ret
7:  mov $96, %eax
    syscall
    ret

    .balign 16
.Ltime:
    cmpq $0, .Ldata+16(%rip)
    je 8f
    lea .Ldata+32(%rip), %r8
    call .Lread
    mov $1000000000, %ecx
    xor %edx, %edx
    div %rcx
    test %rdi, %rdi
    jz 7f
    mov %rax, (%rdi)
7:  ret
8:  mov $201, %eax
    syscall
    ret

    .balign 16
.Lgetcpu:
    test %rdi, %rdi
    jz 8f
    movl $0, (%rdi)
8:  test %rsi, %rsi
    jz 9f
    movl $0, (%rsi)
9:  xor %eax, %eax
    ret

    .balign 16
.Lclock_getres:
    mov $229, %eax
    syscall
    ret
.Ltext_end:
    .balign 4096
.Lend:
cloister_vdso_end:
    .text
