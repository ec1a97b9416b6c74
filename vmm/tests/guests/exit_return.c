/* Main's return: buffers are flushed, atexit functions run in reverse: ends with 3. */
#include "guests.h"

static void first(void) { puts("registered first"); }
static void second(void) { puts("registered second"); }

int main(void) {
    atexit(first), atexit(second);
    setvbuf(stdout, NULL, _IOFBF, 4096);
    printf("buffered until exit\n");
    return 3;
}
