/* SA_RESETHAND: the second SIGUSR1 ends the program. */
#include "guests.h"

static void caught(int number) { printf("handler %d\n", number == SIGUSR1); }

int main(void) {
    struct sigaction action = {.sa_handler = caught, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    puts("once");
    raise(SIGUSR1);
    puts("must not be seen");
    return 0;
}
