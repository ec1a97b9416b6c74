/* Endless recursion without another stack: ends by SIGSEGV. */
#include "guests.h"

static volatile int stop_at = -1;

static int deeper(int level) {
    volatile char frame[4096];
    frame[level & 4095] = 1;
    return level == stop_at ? 0 : deeper(level + 1) + frame[level & 4095];
}

int main(void) {
    puts("deeper and deeper");
    return deeper(0);
}
