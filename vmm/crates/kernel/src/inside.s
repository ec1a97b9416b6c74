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
.macro SPAN_ENDS call, midst=0
78:
    .pushsection .rodata.vmm_inside_spans, "a"
    .long 77b - vmm_inside, 78b - vmm_inside, \call, \midst
    .popsection
.endm
// How a thread stands there (Midst): plain is 0.
.set ASKED, 1
.set LOCKED, 2
.set SAVED, 3
.set CLAIMED, 4
.set OVER, 5
.set LEAVING, 6

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

// read(fd, to, count), and recvfrom without flags and address, of what lies in the inlet. One thread at a time: registers are saved in words that the
// guest may write, so that what stands there counts for no more than what it may do to its registers anyway.
.macro INLET_IS_READ number
    cmp eax, \number
    jne 2f
    .if \number == 45
    test r10d, r10d
    jnz vmm_inside - {STUB}
    test r8, r8
    jnz vmm_inside - {STUB}
    .endif
    test edi, edi
    js vmm_inside - {STUB}
    cmp edi, dword ptr [rip + vmm_inside + {INLET}]
    jne vmm_inside - {STUB}
    test rdx, rdx
    jz vmm_inside - {STUB}
    cmp word ptr [rip + vmm_inside + {CLAIMS}], 0
    je vmm_inside - {STUB}
    mov rax, rsi
    SPAN_BEGINS
    or rax, rdx
    shr rax, {PLAIN_BITS}
    jnz 3f
    mov eax, 1
    xchg dword ptr [rip + vmm_inside + {LOCK}], eax
    SPAN_ENDS \number
    SPAN_BEGINS
    test eax, eax
    jnz 3f
    SPAN_ENDS \number, ASKED
    SPAN_BEGINS
    mov qword ptr [rip + vmm_inside + {SAVED}], rcx
    mov qword ptr [rip + vmm_inside + {SAVED} + 8], rdx
    mov qword ptr [rip + vmm_inside + {SAVED} + 16], rsi
    mov qword ptr [rip + vmm_inside + {SAVED} + 24], rdi
    SPAN_ENDS \number, LOCKED
    SPAN_BEGINS
    mov rdi, rsi
    mov rax, qword ptr [rip + vmm_inside + {CLAIMS}]
    movzx ecx, ax
    lea rsi, [rip + vmm_inside + {INLET_END}]
    sub rsi, rcx
    cmp rdx, rcx
    cmovb rcx, rdx
    jbe 5f
    // As many bytes as are asked for, if there are, and not only those that lie here.
    bt eax, {NOT_ALL_BIT}
    jc 4f
5:
    jrcxz 4f
    mov qword ptr [rip + vmm_inside + {RESULT}], rcx
    mov rdx, rax
    sub rdx, rcx
    rep movsb
    lock cmpxchg qword ptr [rip + vmm_inside + {CLAIMS}], rdx
    SPAN_ENDS \number, SAVED
    SPAN_BEGINS
    jne 4f
    SPAN_ENDS \number, CLAIMED
    SPAN_BEGINS
    mov rcx, qword ptr [rip + vmm_inside + {SAVED}]
    mov rdx, qword ptr [rip + vmm_inside + {SAVED} + 8]
    mov rsi, qword ptr [rip + vmm_inside + {SAVED} + 16]
    mov rdi, qword ptr [rip + vmm_inside + {SAVED} + 24]
    GIVE_FLAGS_BACK_IN_SPAN
    mov rax, qword ptr [rip + vmm_inside + {RESULT}]
    mov dword ptr [rip + vmm_inside + {LOCK}], 0
    SPAN_ENDS \number, OVER
    SPAN_BEGINS
    jmp rcx
    SPAN_ENDS \number, LEAVING
4:
    SPAN_BEGINS
    mov rcx, qword ptr [rip + vmm_inside + {SAVED}]
    mov rdx, qword ptr [rip + vmm_inside + {SAVED} + 8]
    mov rsi, qword ptr [rip + vmm_inside + {SAVED} + 16]
    mov rdi, qword ptr [rip + vmm_inside + {SAVED} + 24]
    mov dword ptr [rip + vmm_inside + {LOCK}], 0
    SPAN_ENDS \number, SAVED
3:
    SPAN_BEGINS
    OUTSIDE_AGAIN \number
    SPAN_ENDS \number
2:
.endm
    INLET_IS_READ 0

// epoll_pwait and epoll_wait that do not wait, where nothing is ready. Calm is looked at first: whatever could make something ready ends it before.
.macro NOTHING_IS_READY number
    cmp eax, \number
    jne 2f
    .if \number == 281
    test r8, r8
    jnz vmm_inside - {STUB}
    .endif
    test r10d, r10d
    jnz vmm_inside - {STUB}
    lea eax, [rdx - 1]
    SPAN_BEGINS
    cmp eax, {MOST_EVENTS}
    jae 3f
    mov rax, rsi
    shr rax, {PLAIN_BITS}
    jnz 3f
    mov eax, dword ptr [rip + vmm_inside + {CALM}]
    sub eax, 1
    jb 3f
    cmp eax, edi
    jne 3f
    cmp dword ptr [rip + vmm_inside + {UNREAD}], 0
    jne 3f
    cmp word ptr [rip + vmm_inside + {CLAIMS}], 0
    jne 3f
    GIVE_FLAGS_BACK_IN_SPAN
    mov eax, 0
    jmp rcx
3:
    OUTSIDE_AGAIN \number
    SPAN_ENDS \number
2:
.endm
    NOTHING_IS_READY 281
    NOTHING_IS_READY 232
    INLET_IS_READ 45

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
