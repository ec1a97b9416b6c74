/* A wild write without a handler: ends by SIGSEGV. */
#include "guests.h"

int main(void) {
    puts("write to nowhere");
    *(volatile int *)wild() = 1;
    return 0;
}
