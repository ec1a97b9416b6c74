/* Abort: ends by SIGABRT. */
#include "guests.h"

int main(void) {
    puts("abort");
    abort();
}
