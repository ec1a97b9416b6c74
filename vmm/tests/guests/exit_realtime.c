/* A real-time signal's default: ends by SIGRTMIN. */
#include "guests.h"

int main(void) {
    puts("raise");
    raise(SIGRTMIN);
    puts("must not be seen");
    return 0;
}
