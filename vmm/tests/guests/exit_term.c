/* SIGTERM to oneself: ends by it. */
#include "guests.h"

int main(void) {
    puts("kill");
    kill(getpid(), SIGTERM);
    puts("must not be seen");
    return 0;
}
