// rt_sigreturn with forged frames: whatever they hold, only this program may suffer.
#include "hostile.h"
#include <ucontext.h>

static volatile int mode;
static char page[8192] __attribute__((aligned(4096)));

static void forge(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    ucontext_t *frame = context;
    uint64_t *state = (uint64_t *)frame->uc_mcontext.fpregs;
    greg_t *general = frame->uc_mcontext.gregs;
    static const uint64_t wild[] = {0, 8, STUB_PAGE, STUB_PAGE + 2, STUB_PAGE + 4096, STUB_PAGE + 8192, (1ULL << 47) - 1, 1ULL << 47, 1ULL << 63, ~0ULL, ~0ULL << 12};
    uint64_t value = wild[random_number() % (sizeof wild / sizeof *wild)];
    switch (mode % 16) {
    case 0: general[REG_RIP] = value; break;
    case 1: general[REG_RSP] = value, general[REG_RIP] = (greg_t)8; break;
    case 2: general[REG_EFL] = value; break;
    case 3: general[REG_EFL] = random_number(); break;
    case 4: general[REG_CSGSFS] = random_number(); break;
    case 5: frame->uc_mcontext.fpregs = (void *)value; break;
    case 6: frame->uc_mcontext.fpregs = (void *)(page + 4096 - random_number() % 64); break;
    case 7: for (int i = 0; i < 512 / 8; i++) state[i] = random_number(); break;
    case 8: for (int i = 512 / 8; i < 576 / 8; i++) state[i] = random_number(); break;
    case 9: for (int i = 0; i < 2048 / 8; i++) state[i] = random_number(); break;
    case 10: memset(state, 0xff, 832); break;
    case 11: ((uint32_t *)state)[6] = ~0U; break; // MXCSR
    case 12: for (unsigned i = 0; i < 464 / 4; i++) ((uint32_t *)state)[i] = 0; ((uint32_t *)state)[116] = random_number(), ((uint32_t *)state)[117] = random_number(); break;
    case 13: memset(&frame->uc_stack, 0xff, sizeof frame->uc_stack); break;
    case 14: frame->uc_flags = random_number(); break;
    case 15: for (unsigned i = 0; i < sizeof *general * NGREG / 8; i++) general[i] = random_number(); break;
    }
}

int main(void) {
    catch_faults();
    mprotect(page + 4096, 4096, PROT_NONE);
    struct sigaction action = {.sa_sigaction = forge, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    for (mode = 0; mode < 3000; mode++) {
        FAULTS(raise(SIGUSR1));
        __asm__ volatile("pushq $0x202; popfq; cld; fninit" ::: "cc", "memory");
        uint32_t control = 0x1f80;
        __asm__ volatile("ldmxcsr %0" ::"m"(control));
        static char stack[64 << 10];
        stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
        sigaltstack(&alternate, NULL);
    }
    // Without any frame, at stacks that are not there, too.
    for (int round = 0; round < 200; round++) {
        uint64_t stacks[] = {0, 8, STUB_PAGE, (uint64_t)page + 4096 - 8, (uint64_t)page, 1ULL << 63, ~0ULL - 7};
        uint64_t at = stacks[round % 7];
        if (round % 7 == 4) for (int i = 0; i < 4096; i += 8) memcpy(page + i, &(uint64_t){random_number()}, 8);
        // A frame that blocks SIGSEGV would have this program killed by the next fault.
        memset(((ucontext_t *)page)->uc_sigmask.__val, 0, 8);
        FAULTS(__asm__ volatile("movq %0, %%rsp; movl $15, %%eax; syscall" ::"r"(at) : "rax", "rcx", "r11", "memory"));
        __asm__ volatile("pushq $0x202; popfq; cld" ::: "cc", "memory");
    }
    return still_here();
}
