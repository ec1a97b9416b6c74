// The stack is full, and so is the one for that case: nothing is left but to end.
#include "hostile.h"

static int deeper(int n) {
    volatile char room[1024];
    room[n % 1024] = 1;
    return deeper(n + 1) + room[0];
}

int main(void) {
    static char small[2048];
    stack_t alternate = {.ss_sp = small, .ss_size = sizeof small};
    MUST(sigaltstack(&alternate, NULL) == 0);
    struct sigaction action = {.sa_handler = jump_out, .sa_flags = SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    mprotect((void *)((uintptr_t)small & ~4095UL), 4096, PROT_NONE);
    return deeper(0);
}
