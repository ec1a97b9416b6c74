/* A fault while its signal is blocked and has a handler: ends by SIGSEGV, the handler does not run. */
#include "guests.h"

static void caught(int number) { printf("must not run %d\n", number); }

int main(void) {
    sigset_t set;
    sigemptyset(&set), sigaddset(&set, SIGSEGV);
    signal(SIGSEGV, caught);
    sigprocmask(SIG_BLOCK, &set, NULL);
    puts("blocked");
    *(volatile int *)wild() = 1;
    return 0;
}
