/* Abort with a handler that returns still ends by SIGABRT. */
#include "guests.h"

static void caught(int number) { printf("handler %d\n", number == SIGABRT); }

int main(void) {
    signal(SIGABRT, caught);
    abort();
}
