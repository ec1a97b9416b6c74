/* Ud2 without a handler: ends by SIGILL. */
#include "guests.h"

int main(void) {
    puts("ud2");
    __asm__ volatile("ud2");
    return 0;
}
