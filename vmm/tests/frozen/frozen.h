/* What programs that are frozen and brought back share. The test reads the line "here", freezes the program, brings it back, and lets it go on
 * by a byte on the standard input. On Linux it merely goes on. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* What the cases stand on must be there: another status than any case has. */
#define NEED(condition)                                                        \
    do {                                                                       \
        if (!(condition)) {                                                    \
            printf("line %d cannot be set up: %s (%s)\n", __LINE__,            \
                   #condition, strerror(errno));                               \
            fflush(stdout);                                                    \
            _exit(99);                                                         \
        }                                                                      \
    } while (0)

/* Where the program is frozen. */
static void be_frozen_here(void)
{
    char byte;
    NEED(write(1, "here\n", 5) == 5);
    NEED(read(0, &byte, 1) == 1);
}

static inline int64_t now_ns(clockid_t clock)
{
    struct timespec time;
    NEED(clock_gettime(clock, &time) == 0);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* A result as a program sees it: the value, or the name of the error. */
static inline const char *result_of(long value)
{
    static char text[8][64];
    static int turn;
    char *place = text[turn++ % 8];
    if (value < 0)
        snprintf(place, sizeof text[0], "%s", strerrorname_np(errno));
    else
        snprintf(place, sizeof text[0], "%ld", value);
    return place;
}
