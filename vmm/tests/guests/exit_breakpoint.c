/* Int3 without a handler: ends by SIGTRAP. */
#include "guests.h"

int main(void) {
    puts("int3");
    __asm__ volatile("int3");
    return 0;
}
