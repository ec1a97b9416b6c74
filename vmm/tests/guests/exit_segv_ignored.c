/* A fault while its signal is ignored: ends by SIGSEGV. */
#include "guests.h"

int main(void) {
    signal(SIGSEGV, SIG_IGN);
    puts("ignored");
    *(volatile int *)wild() = 1;
    return 0;
}
