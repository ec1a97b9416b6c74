// System calls that are served within the guest (inside.rs). Entered by `syscall` at CPL 3: rcx is where to go on, r11 the flags; the arguments are in
// rdi, rsi, rdx, r10, r8 and r9. Nothing but rax may change. Everything that is not plain goes to the stub with rax as it was.
//
// A fault on a guest's pointer, and a kick, may come anywhere: rax is then put back by the spans, and the call is served outside.

.pushsection .rodata.vmm_inside_spans, "a"
.balign 4
vmm_inside_spans:
.popsection

.pushsection .rodata.vmm_inside, "a"
.balign 16
vmm_inside:

// From here on rax is not the number `call` any more; `call` with bit 31 is a place among the constants.
.macro SPAN_BEGINS
77:
.endm
.macro SPAN_ENDS call
78:
    .pushsection .rodata.vmm_inside_spans, "a"
    .long 77b - vmm_inside, 78b - vmm_inside, \call
    .popsection
.endm

// SF, ZF, AF, PF and CF become those of r11. OF is clear: calls with it, or another flag that cannot be given back, are left to the stub.
.macro GIVE_FLAGS_BACK_IN_SPAN
    mov eax, r11d
    xchg al, ah
    test al, 0
    sahf
.endm
.macro GIVE_FLAGS_BACK
    mov eax, r11d
    SPAN_BEGINS
    xchg al, ah
    test al, 0
    sahf
.endm

.macro OUTSIDE_AGAIN call
    mov eax, \call
    jmp vmm_inside - {STUB}
.endm

    test r11d, {OTHER_FLAGS}
    jnz vmm_inside - {STUB}

// Calls whose result is always the same.
.set place, 0
.rept {CONSTANTS}
    cmp eax, dword ptr [rip + vmm_inside + {NUMBERS} + 8 * place]
    jne 2f
    GIVE_FLAGS_BACK
    mov rax, qword ptr [rip + vmm_inside + {RESULTS} + 8 * place]
    jmp rcx
    SPAN_ENDS (0x80000000 + place)
2:
.set place, place + 1
.endr

// futex(FUTEX_WAKE | FUTEX_PRIVATE_FLAG) where nobody waits.
    cmp eax, 202
    jne 2f
    cmp esi, 129
    jne vmm_inside - {STUB}
    test dil, 3
    jnz vmm_inside - {STUB}
    // The guest's own stores come first, as whoever begins to wait counts himself before he looks at the word.
    mfence
    lea eax, [rdi + rdi]
    SPAN_BEGINS
    and eax, 8 * ({BUCKETS} - 1)
    add rax, qword ptr [rip + vmm_inside + {ADDRESS}]
    cmp qword ptr [rax + {FIRST_BUCKET}], 0
    jne 3f
    GIVE_FLAGS_BACK_IN_SPAN
    mov eax, 0
    jmp rcx
3:
    OUTSIDE_AGAIN 202
    SPAN_ENDS 202
2:

// madvise(MADV_DONTFORK) on exactly what was mapped last: there is no fork.
    cmp eax, 28
    jne 2f
    cmp edx, 10
    jne vmm_inside - {STUB}
    cmp rsi, {LONGEST}
    ja vmm_inside - {STUB}
    mov rax, rdi
    SPAN_BEGINS
    shr rax, 39
    jnz 3f
    mov rax, rdi
    shl rax, 20
    add rax, rsi
    cmp rax, qword ptr [rip + vmm_inside + {MAPPED}]
    jne 3f
    GIVE_FLAGS_BACK_IN_SPAN
    mov eax, 0
    jmp rcx
3:
    OUTSIDE_AGAIN 28
    SPAN_ENDS 28
2:

// rt_sigaction(signal, NULL, old) of a signal whose action is the default.
    cmp eax, 13
    jne 2f
    test rsi, rsi
    jnz vmm_inside - {STUB}
    cmp r10, 8
    jne vmm_inside - {STUB}
    lea eax, [rdi - 1]
    SPAN_BEGINS
    cmp eax, 63
    ja 3f
    bt qword ptr [rip + vmm_inside + {DEFAULTS}], rax
    jnc 3f
    test rdx, rdx
    jz 4f
    mov qword ptr [rdx], 0
    mov qword ptr [rdx + 8], 0
    mov qword ptr [rdx + 16], 0
    mov qword ptr [rdx + 24], 0
4:
    GIVE_FLAGS_BACK_IN_SPAN
    mov eax, 0
    jmp rcx
3:
    OUTSIDE_AGAIN 13
    SPAN_ENDS 13
2:

// capget(version 3, set): no capabilities.
    cmp eax, 125
    jne 2f
    cmp dword ptr [rdi], 0x20080522
    jne vmm_inside - {STUB}
    test rsi, rsi
    jz 4f
    mov qword ptr [rsi], 0
    mov qword ptr [rsi + 8], 0
    mov qword ptr [rsi + 16], 0
4:
    GIVE_FLAGS_BACK
    mov eax, 0
    jmp rcx
    SPAN_ENDS 125
2:

// prlimit64(0, resource, NULL, old): limits that are as they were when the process began.
    cmp eax, 302
    jne 2f
    test edi, edi
    jnz vmm_inside - {STUB}
    cmp esi, {LIMITS} - 1
    ja vmm_inside - {STUB}
    test rdx, rdx
    jnz vmm_inside - {STUB}
    test r10, r10
    jz vmm_inside - {STUB}
    cmp qword ptr [rip + vmm_inside + {LIMITS_KNOWN}], 1
    jne vmm_inside - {STUB}
    mov eax, esi
    SPAN_BEGINS
    shl eax, 3
    add rax, qword ptr [rip + vmm_inside + {ADDRESS}]
    mov rax, qword ptr [rax + {CURRENT}]
    mov qword ptr [r10], rax
    mov eax, esi
    shl eax, 3
    add rax, qword ptr [rip + vmm_inside + {ADDRESS}]
    mov rax, qword ptr [rax + {MAXIMUM}]
    mov qword ptr [r10 + 8], rax
    GIVE_FLAGS_BACK_IN_SPAN
    mov eax, 0
    jmp rcx
    SPAN_ENDS 302
2:

// fcntl of a descriptor beyond all that were ever open.
    cmp eax, 72
    jne vmm_inside - {STUB}
    cmp edi, dword ptr [rip + vmm_inside + {DESCRIPTORS}]
    jb vmm_inside - {STUB}
    GIVE_FLAGS_BACK
    mov rax, {EBADF}
    jmp rcx
    SPAN_ENDS 72

    // Traps, as in the rest of the page; whole words.
    .balign 8, 0xcc
vmm_inside_end:
.popsection

.pushsection .rodata.vmm_inside_spans, "a"
vmm_inside_spans_end:
.popsection
