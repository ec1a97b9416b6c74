/* _exit flushes nothing: ends with 4. */
#include "guests.h"

int main(void) {
    puts("before");
    setvbuf(stdout, NULL, _IOFBF, 4096);
    printf("never seen\n");
    _exit(4);
}
