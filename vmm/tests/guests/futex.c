/* The futex call itself: WAIT, WAKE, BITSET, REQUEUE, CMP_REQUEUE, timeouts, refusals, robust lists. */
#include "guests.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>

static long futex(volatile void *word, int operation, unsigned number, const void *timeout, volatile void *word2, unsigned number3) {
    return syscall(SYS_futex, word, operation, number, timeout, word2, number3);
}

struct waiter {
    volatile uint32_t *word;
    int operation;
    unsigned bits;
    long result;
};

static void *wait_on(void *argument) {
    struct waiter *waiter = argument;
    waiter->result = futex(waiter->word, waiter->operation, 0, NULL, NULL, waiter->bits);
    return NULL;
}

/* The waiters may not sleep yet: wakes until so many were woken. */
static void wake_until(volatile uint32_t *word, int operation, unsigned count, unsigned bits) {
    for (unsigned woken = 0; woken < count; brief_rest()) {
        long got = futex(word, operation, count - woken, NULL, NULL, bits);
        woken += got > 0 ? (unsigned)got : 0;
    }
}

static void refusals(void) {
    volatile uint32_t word = 5;
    struct timespec tiny = {0, 1000}, bad = {0, 1000000000}, negative = {-1, 0};
    value("WAIT other value", futex(&word, FUTEX_WAIT, 4, NULL, NULL, 0));
    value("WAIT other value private", futex(&word, FUTEX_WAIT_PRIVATE, 4, NULL, NULL, 0));
    value("WAIT times out", futex(&word, FUTEX_WAIT_PRIVATE, 5, &tiny, NULL, 0));
    value("WAIT bad nanoseconds", futex(&word, FUTEX_WAIT_PRIVATE, 5, &bad, NULL, 0));
    value("WAIT negative timeout", futex(&word, FUTEX_WAIT_PRIVATE, 5, &negative, NULL, 0));
    value("WAIT wild timeout", futex(&word, FUTEX_WAIT_PRIVATE, 5, wild(), NULL, 0));
    value("WAIT unaligned", futex((char *)&word + 1, FUTEX_WAIT_PRIVATE, 5, NULL, NULL, 0));
    value("WAIT wild", futex(wild(), FUTEX_WAIT_PRIVATE, 5, NULL, NULL, 0));
    value("WAKE nobody", futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    value("WAKE unaligned", futex((char *)&word + 2, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    value("WAKE wild private", futex(wild(), FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    value("WAKE wild shared", futex(wild(), FUTEX_WAKE, 1, NULL, NULL, 0));
    value("WAIT_BITSET no bits", futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 5, NULL, NULL, 0));
    value("WAKE_BITSET no bits", futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 1, NULL, NULL, 0));
    value("unknown operation", futex(&word, 99, 0, NULL, NULL, 0));
    value("CMP_REQUEUE other value", futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)1, (uint32_t[1]){0}, 4));
    value("CMP_REQUEUE nobody", futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)1, (uint32_t[1]){0}, 5));
    value("REQUEUE negative count", futex(&word, FUTEX_REQUEUE_PRIVATE, -1U, (void *)1, (uint32_t[1]){0}, 0));
}

static void timeouts(void) {
    volatile uint32_t word = 0;
    struct timespec relative = milliseconds(5), absolute, past = {1, 0};
    int64_t start = clock_ns(CLOCK_MONOTONIC);
    value("relative", futex(&word, FUTEX_WAIT_PRIVATE, 0, &relative, NULL, 0));
    holds("not too early", clock_ns(CLOCK_MONOTONIC) - start >= 5000000);
    int64_t until = clock_ns(CLOCK_MONOTONIC) + 5000000;
    absolute = (struct timespec){until / 1000000000, until % 1000000000};
    value("absolute monotonic", futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &absolute, NULL, -1U));
    holds("not too early either", clock_ns(CLOCK_MONOTONIC) >= until);
    until = clock_ns(CLOCK_REALTIME) + 5000000;
    absolute = (struct timespec){until / 1000000000, until % 1000000000};
    value("absolute realtime", futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &absolute, NULL, -1U));
    holds("nor this one", clock_ns(CLOCK_REALTIME) >= until);
    value("absolute in the past", futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &past, NULL, -1U));
    value("relative zero", futex(&word, FUTEX_WAIT_PRIVATE, 0, &(struct timespec){0, 0}, NULL, 0));
    value("WAKE with CLOCK_REALTIME", futex(&word, FUTEX_WAKE_PRIVATE | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0));
}

static void start(struct waiter *waiters, pthread_t *threads, int count) {
    for (int i = 0; i < count; i++)
        need("thread", pthread_create(&threads[i], NULL, wait_on, &waiters[i]) ? -1 : 0);
}

static void finish(const char *name, struct waiter *waiters, pthread_t *threads, int count) {
    long failed = 0;
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        failed += waiters[i].result != 0;
    }
    value(name, failed);
}

static void waking(void) {
    volatile uint32_t word = 0, elsewhere = 0;
    pthread_t threads[8];
    struct waiter waiters[8];
    for (int i = 0; i < 8; i++)
        waiters[i] = (struct waiter){&word, FUTEX_WAIT_PRIVATE, 0, -1};
    start(waiters, threads, 8);
    wake_until(&word, FUTEX_WAKE_PRIVATE, 8, 0);
    finish("8 woken, failures", waiters, threads, 8);
    for (int i = 0; i < 8; i++)
        waiters[i] = (struct waiter){&word, i & 1 ? FUTEX_WAIT : FUTEX_WAIT_BITSET, i & 1 ? 0 : -1U, -1};
    start(waiters, threads, 8);
    wake_until(&word, FUTEX_WAKE, 8, 0);
    finish("8 woken shared, failures", waiters, threads, 8);
    waiters[0] = (struct waiter){&word, FUTEX_WAIT_BITSET_PRIVATE, 1, -1};
    waiters[1] = (struct waiter){&word, FUTEX_WAIT_BITSET_PRIVATE, 2, -1};
    start(waiters, threads, 2);
    wake_until(&word, FUTEX_WAKE_BITSET_PRIVATE, 1, 2);
    pthread_join(threads[1], NULL);
    value("bit 2 is gone", futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 9, NULL, NULL, 2));
    wake_until(&word, FUTEX_WAKE_BITSET_PRIVATE, 1, 5);
    pthread_join(threads[0], NULL);
    text("bitset waits", "%ld %ld", waiters[0].result, waiters[1].result);
    waiters[0] = (struct waiter){&word, FUTEX_WAIT_PRIVATE, 0, -1};
    start(waiters, threads, 1);
    value("another word wakes nobody", futex(&elsewhere, FUTEX_WAKE_PRIVATE, 9, NULL, NULL, 0));
    wake_until(&word, FUTEX_WAKE_PRIVATE, 1, 0);
    finish("then woken, failures", waiters, threads, 1);
}

static void requeueing(void) {
    volatile uint32_t from = 0, to = 0;
    pthread_t threads[6];
    struct waiter waiters[6];
    for (int i = 0; i < 6; i++)
        waiters[i] = (struct waiter){&from, FUTEX_WAIT_PRIVATE, 0, -1};
    start(waiters, threads, 6);
    for (long moved = 0; moved < 6; brief_rest()) {
        long got = futex(&from, FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)(6 - moved), &to, 0);
        moved += got > 0 ? got : 0;
    }
    value("nobody is left on the first", futex(&from, FUTEX_WAKE_PRIVATE, 9, NULL, NULL, 0));
    value("requeued to the second, 2 woken", futex(&to, FUTEX_WAKE_PRIVATE, 2, NULL, NULL, 0));
    value("4 moved back, 1 of them woken", futex(&to, FUTEX_REQUEUE_PRIVATE, 1, (void *)9, &from, 0));
    value("3 are left", futex(&from, FUTEX_WAKE_PRIVATE, 9, NULL, NULL, 0));
    finish("failures", waiters, threads, 6);
}

static void read_only_words(void) {
    uint32_t *read_only = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    value("WAIT on a read-only page", futex(read_only, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0));
}

static struct robust_list_head head;
static struct {
    struct robust_list list;
    volatile uint32_t word;
} held;

static void *end_with_list(void *argument) {
    (void)argument;
    head.list.next = &held.list;
    held.list.next = &head.list;
    head.futex_offset = (char *)&held.word - (char *)&held.list;
    value("set_robust_list", syscall(SYS_set_robust_list, &head, sizeof head));
    value("set_robust_list wrong size", syscall(SYS_set_robust_list, &head, 3));
    struct robust_list_head *got = NULL;
    size_t size = 0;
    value("get_robust_list", syscall(SYS_get_robust_list, 0, &got, &size));
    holds("as it was set", got == &head && size == sizeof head);
    held.word = (uint32_t)thread_id() | FUTEX_WAITERS;
    syscall(SYS_exit, 0);
    return NULL;
}

static void robust(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, end_with_list, NULL);
    pthread_join(thread, NULL);
    text("word after its owner ended", "%x", held.word & ~FUTEX_TID_MASK);
}

int main(void) {
    refusals();
    timeouts();
    waking();
    requeueing();
    read_only_words();
    robust();
    return 0;
}
