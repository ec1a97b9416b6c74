/* Division by zero without a handler: ends by SIGFPE. */
#include "guests.h"

int main(void) {
    volatile int zero = 0;
    puts("division");
    return 7 / zero;
}
