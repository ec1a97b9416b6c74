// Clocks agree with each other and with the kernel's own, and never go back.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t ns(struct timespec t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }
static int64_t by_library(int id) { struct timespec t; clock_gettime(id, &t); return ns(t); }
static int64_t by_kernel(int id) { struct timespec t; syscall(SYS_clock_gettime, id, &t); return ns(t); }

int main(void) {
    int ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW};
    for (int i = 0; i < 3; i++) {
        int64_t gap = by_library(ids[i]) - by_kernel(ids[i]);
        printf("clock %d agrees %d\n", ids[i], gap < 50000000 && gap > -50000000);
    }
    for (int i = 0; i < 4; i++) {
        int64_t last = 0;
        int back = 0;
        for (int n = 0; n < 20000; n++) {
            int64_t now = by_library(ids[i]);
            back += now < last;
            last = now;
        }
        printf("clock %d went back %d times\n", ids[i], back);
    }
    struct timeval tv;
    gettimeofday(&tv, NULL);
    int64_t gap = by_library(CLOCK_REALTIME) / 1000 - (tv.tv_sec * 1000000LL + tv.tv_usec);
    printf("gettimeofday %d\n", gap >= 0 && gap < 1000000);
    printf("time %d\n", time(NULL) - tv.tv_sec < 2);
    int64_t start = by_library(CLOCK_MONOTONIC);
    struct timespec t = {0, 20000000};
    nanosleep(&t, NULL);
    printf("slept enough %d\n", by_library(CLOCK_MONOTONIC) - start >= 20000000);
    struct timespec bad = {0, 1000000000};
    printf("bad %ld\n", syscall(SYS_nanosleep, &bad, NULL));
    printf("bad %d\n", clock_gettime(99, &t));
    struct timespec past = {1, 0};
    printf("past %d\n", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &past, NULL));
    return 0;
}
