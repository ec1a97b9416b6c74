/* Registers across a handler: general, x87, SSE, AVX and flags come back; a handler may change them, also the instruction pointer. */
#include "faults.h"
#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>

static volatile sig_atomic_t handled;
static volatile unsigned handler_mxcsr, handler_x87, handler_flags;
static volatile uintptr_t handler_stack;

/* Spoils as much as it can. */
static void spoil(int number) {
    unsigned short control = 0;
    __asm__ volatile("stmxcsr %0" : "=m"(*(unsigned *)&handler_mxcsr));
    __asm__ volatile("fnstcw %0" : "=m"(control));
    handler_x87 = control;
    handler_flags = (unsigned)__builtin_ia32_readeflags_u64() & 0x400;
    handler_stack = (uintptr_t)__builtin_frame_address(0);
    __asm__ volatile("pxor %%xmm0, %%xmm0; pxor %%xmm7, %%xmm7; pxor %%xmm15, %%xmm15; fninit; fldz; fldz" ::: "xmm0", "xmm7", "xmm15");
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroall" ::: "memory");
    handled += number > 0;
}

static void set_mxcsr(unsigned bits) { __asm__ volatile("ldmxcsr %0" ::"m"(bits)); }

static long tgkill_self(void) { return syscall(SYS_tgkill, getpid(), thread_id(), SIGUSR1); }

static void general(void) {
    static unsigned long got[14];
    pid_t pid = getpid(), tid = thread_id();
    long result;
    __asm__ volatile("mov $0x1111, %%rbx; mov $0x2222, %%r8; mov $0x3333, %%r9; mov $0x4444, %%r10\n"
                     "mov $0x5555, %%r12; mov $0x6666, %%r13; mov $0x7777, %%r14; mov $0x8888, %%r15; std; stc\n"
                     "syscall\n"
                     "mov %%rbx, 0+%[got]; mov %%r8, 8+%[got]; mov %%r9, 16+%[got]; mov %%r10, 24+%[got]\n"
                     "mov %%r12, 32+%[got]; mov %%r13, 40+%[got]; mov %%r14, 48+%[got]; mov %%r15, 56+%[got]\n"
                     "pushf; popq 64+%[got]; cld\n"
                     "mov %%rdi, 72+%[got]; mov %%rsi, 80+%[got]; mov %%rdx, 88+%[got]\n"
                     : "=a"(result), [got] "+m"(got) : "0"(SYS_tgkill), "D"((long)pid), "S"((long)tid), "d"((long)SIGUSR1)
                     : "memory", "cc", "rcx", "rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15");
    text("general registers", "%lx %lx %lx %lx %lx %lx %lx %lx", got[0], got[1], got[2], got[3], got[4], got[5], got[6], got[7]);
    text("carry and direction flag", "%lu %lu", got[8] & 1, got[8] >> 10 & 1);
    holds("arguments kept", got[9] == (unsigned long)pid && got[10] == (unsigned long)tid && got[11] == SIGUSR1);
    value("result", result);
    value("direction flag in the handler", handler_flags);
}

static void floating(void) {
    static unsigned char in[16][32] __attribute__((aligned(32))), out[16][32] __attribute__((aligned(32)));
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 32; j++)
            in[i][j] = (unsigned char)(i * 32 + j + 1);
    long result;
    pid_t pid = getpid(), tid = thread_id();
    int wide = __builtin_cpu_supports("avx");
    if (wide)
        __asm__ volatile("vmovdqa 0+%[in], %%ymm0; vmovdqa 224+%[in], %%ymm7; vmovdqa 480+%[in], %%ymm15; syscall\n"
                         "vmovdqa %%ymm0, 0+%[out]; vmovdqa %%ymm7, 224+%[out]; vmovdqa %%ymm15, 480+%[out]; vzeroupper"
                         : "=a"(result), [out] "+m"(out) : "0"(SYS_tgkill), "D"((long)pid), "S"((long)tid), "d"((long)SIGUSR1), [in] "m"(in)
                         : "memory", "rcx", "r11", "xmm0", "xmm7", "xmm15");
    else
        memcpy(out, in, sizeof in);
    holds("ymm registers", !memcmp(out[0], in[0], 32) && !memcmp(out[7], in[7], 32) && !memcmp(out[15], in[15], 32));
    memset(out, 0, sizeof out);
    __asm__ volatile("movdqa 0+%[in], %%xmm0; movdqa 224+%[in], %%xmm7; movdqa 480+%[in], %%xmm15; syscall\n"
                     "movdqa %%xmm0, 0+%[out]; movdqa %%xmm7, 224+%[out]; movdqa %%xmm15, 480+%[out]"
                     : "=a"(result), [out] "+m"(out) : "0"(SYS_tgkill), "D"((long)pid), "S"((long)tid), "d"((long)SIGUSR1), [in] "m"(in)
                     : "memory", "rcx", "r11", "xmm0", "xmm7", "xmm15");
    holds("xmm registers", !memcmp(out[0], in[0], 16) && !memcmp(out[7], in[7], 16) && !memcmp(out[15], in[15], 16));
    value("result", result);
    long double left;
    __asm__ volatile("fld1; fldpi; syscall; faddp; fstpt %[left]" : "=a"(result), [left] "=m"(left) : "0"(SYS_tgkill), "D"((long)pid), "S"((long)tid), "d"((long)SIGUSR1) : "memory", "rcx", "r11");
    text("x87 stack", "%.6Lf", left);
    unsigned short upward = 0x0b7f, control;
    __asm__ volatile("fldcw %0" ::"m"(upward));
    unsigned odd = 0x1f80 | 0x8000 | 0x4000, now;
    __asm__ volatile("ldmxcsr %0" ::"m"(odd));
    tgkill_self();
    __asm__ volatile("stmxcsr %0" : "=m"(now));
    text("MXCSR", "%x, in the handler %x", now & 0xffc0, handler_mxcsr & 0xffc0);
    __asm__ volatile("fnstcw %0" : "=m"(control));
    text("x87 control word", "%x, in the handler %x", control, handler_x87);
    __asm__ volatile("fninit");
    set_mxcsr(0x1f80);
}

/* The 128 bytes below the stack pointer belong to a leaf function, also across a signal. */
static void red_zone(void) {
    unsigned long kept;
    long result;
    __asm__ volatile("movq $0x1234567, -64(%%rsp); movq $0x89, -128(%%rsp); syscall; mov -64(%%rsp), %1; add -128(%%rsp), %1"
                     : "=a"(result), "=&r"(kept) : "0"(SYS_tgkill), "D"((long)getpid()), "S"((long)thread_id()), "d"((long)SIGUSR1) : "memory", "rcx", "r11");
    text("red zone", "%lx, result %ld", kept, result);
    holds("the handler's frame is 16-byte aligned", handler_stack % 16 == 0);
}

static void skip(int number, siginfo_t *info, void *context) {
    (void)number;
    mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;
    fault_code = info->si_code, fault_address = info->si_addr;
    handled = (int)machine->gregs[REG_TRAPNO];
    handler_x87 = (unsigned)machine->gregs[REG_ERR] & ~1U; /* whether the page was present is the kernel's own affair */
    handler_flags = (void *)machine->gregs[REG_CR2] == info->si_addr;
    machine->gregs[REG_RAX] = 4242;
    machine->gregs[REG_RIP] = machine->gregs[REG_R8];
    machine->fpregs->_xmm[3].element[0] = 0xabcdef;
}

static void changes(void) {
    struct sigaction action = {.sa_sigaction = skip, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long result;
    unsigned vector;
    __asm__ volatile("lea 1f(%%rip), %%r8; movl $1, (%[at]); 1: movd %%xmm3, %[vector]" : "=a"(result), [vector] "=r"(vector) : [at] "r"(page), "0"(0L) : "r8", "xmm3", "memory");
    text("write to read-only: handler sets RAX, RIP and XMM3", "%ld %x", result, vector);
    text("trap, error code, CR2", "%d %x %u", handled, handler_x87, handler_flags);
    __asm__ volatile("lea 1f(%%rip), %%r8; mov 8(%[at]), %%eax; 1:" : "=a"(result) : [at] "r"(wild()), "0"(0L) : "r8", "xmm3", "memory");
    text("read of nothing", "%ld trap %d error %x CR2 %u", result, handled, handler_x87, handler_flags);
    __asm__ volatile("lea 1f(%%rip), %%r8; mov (%[at]), %%eax; 1:" : "=a"(result) : [at] "r"((char *)wild() + (1L << 62)), "0"(0L) : "r8", "xmm3", "memory");
    text("non-canonical", "%ld trap %d error %x code %s", result, handled, handler_x87, fault_code == SI_KERNEL ? "SI_KERNEL" : "?");
    sigaction(SIGILL, &action, NULL);
    __asm__ volatile("lea 1f(%%rip), %%r8; ud2; 1:" : "=a"(result) : "0"(0L) : "r8", "xmm3", "memory");
    text("ud2", "%ld trap %d code %s", result, handled, fault_code == ILL_ILLOPN ? "ILL_ILLOPN" : "?");
    sigaction(SIGFPE, &action, NULL);
    __asm__ volatile("lea 1f(%%rip), %%r8; xor %%ecx, %%ecx; xor %%edx, %%edx; div %%ecx; 1:" : "=a"(result) : "0"(1L) : "r8", "rcx", "rdx", "xmm3", "memory");
    text("div by zero", "%ld trap %d code %s", result, handled, fault_code == FPE_INTDIV ? "FPE_INTDIV" : "?");
    sigaction(SIGTRAP, &action, NULL);
    __asm__ volatile("lea 1f(%%rip), %%r8; int3; 1:" : "=a"(result) : "0"(1L) : "r8", "xmm3", "memory");
    text("int3", "%ld trap %d code %s", result, handled, fault_code == SI_KERNEL ? "SI_KERNEL" : "?");
    faults_begin();
    volatile double zero = 0, one = 1;
    if (sigsetjmp(fault_return, 1) == 0) {
        set_mxcsr(0x1f80 & ~0x200U);
        one = one / zero;
    }
    text("SSE division by zero", "%s", fault_name());
    if (sigsetjmp(fault_return, 1) == 0) {
        set_mxcsr(0x1f80 & ~0x80U);
        one = zero / zero;
    }
    text("SSE invalid operation", "%s", fault_name());
    set_mxcsr(0x1f80);
}

static volatile int stop, wrong;

static void *compute(void *argument) {
    double seed = (double)(intptr_t)argument, sum;
    while (!stop) {
        sum = 0;
        for (int i = 1; i < 200; i++)
            sum += seed / i;
        double again = 0;
        for (int i = 1; i < 200; i++)
            again += seed / i;
        if (sum != again)
            wrong++;
    }
    return NULL;
}

static void under_fire(void) {
    pthread_t threads[3];
    for (intptr_t i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, compute, (void *)(i + 3));
    for (int i = 0; i < 300; i++) {
        pthread_kill(threads[i % 3], SIGUSR1);
        if (i % 16 == 0)
            brief_rest();
    }
    stop = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    value("wrong sums under 300 signals", wrong);
}

int main(void) {
    struct sigaction action = {.sa_handler = spoil};
    sigaction(SIGUSR1, &action, NULL);
    general();
    floating();
    red_zone();
    value("handlers ran", handled);
    changes();
    under_fire();
    return 0;
}
