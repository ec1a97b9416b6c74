/* A write to a pipe without a reader: ends by SIGPIPE. */
#include "guests.h"

int main(void) {
    int ends[2];
    need("pipe", pipe(ends));
    close(ends[0]);
    puts("write");
    need("write", write(ends[1], "x", 1));
    puts("must not be seen");
    return 0;
}
