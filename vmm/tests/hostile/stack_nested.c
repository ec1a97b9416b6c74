// A handler that its own signal interrupts, for ever: its stack ends some time.
#include "hostile.h"

static void again(int number) { raise(number); }

int main(void) {
    struct sigaction action = {.sa_handler = again, .sa_flags = SA_NODEFER};
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    return still_here();
}
