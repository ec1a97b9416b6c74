/* Mutexes of all kinds, condition variables, read-write locks, barriers, spin locks, semaphores: use, refusals, timeouts. */
#include "guests.h"
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long counter;

static struct timespec from_now(clockid_t clock, long ms) {
    int64_t at = clock_ns(clock) + ms * 1000000;
    struct timespec until = {at / 1000000000, at % 1000000000};
    return until;
}

static void run(int count, void *(*body)(void *)) {
    pthread_t threads[16];
    for (int i = 0; i < count; i++)
        need("thread", pthread_create(&threads[i], NULL, body, (void *)(intptr_t)i) ? -1 : 0);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void *add_locked(void *argument) {
    (void)argument;
    for (int i = 0; i < 5000; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static pthread_mutex_t *other_mutex;
static int other_result;

static void *try_other(void *argument) {
    (void)argument;
    other_result = pthread_mutex_trylock(other_mutex);
    return NULL;
}

static void *unlock_other(void *argument) {
    (void)argument;
    other_result = pthread_mutex_unlock(other_mutex);
    return NULL;
}

static void mutexes(void) {
    run(8, add_locked);
    value("8 threads added", counter);
    other_mutex = &mutex;
    pthread_mutex_lock(&mutex);
    run(1, try_other);
    returned("trylock by another", other_result);
    struct timespec soon = from_now(CLOCK_REALTIME, 5);
    returned("timedlock of a held one", pthread_mutex_timedlock(&mutex, &soon));
    soon = from_now(CLOCK_MONOTONIC, 5);
    returned("clocklock of a held one", pthread_mutex_clocklock(&mutex, CLOCK_MONOTONIC, &soon));
    pthread_mutex_unlock(&mutex);
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_t recursive, checked;
    pthread_mutex_init(&recursive, &kind);
    returned("recursive lock", pthread_mutex_lock(&recursive));
    returned("recursive again", pthread_mutex_lock(&recursive));
    pthread_mutex_unlock(&recursive);
    other_mutex = &recursive;
    run(1, try_other);
    returned("another after one unlock", other_result);
    pthread_mutex_unlock(&recursive);
    returned("recursive one unlock too many", pthread_mutex_unlock(&recursive));
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&checked, &kind);
    pthread_mutex_lock(&checked);
    returned("errorcheck lock again", pthread_mutex_lock(&checked));
    other_mutex = &checked;
    run(1, unlock_other);
    returned("errorcheck unlock by another", other_result);
    returned("errorcheck unlock", pthread_mutex_unlock(&checked));
    returned("errorcheck unlock again", pthread_mutex_unlock(&checked));
}

static int turn, finished;

static void *take_turns(void *argument) {
    int mine = (int)(intptr_t)argument;
    for (int round = 0; round < 200; round++) {
        pthread_mutex_lock(&mutex);
        while (turn % 4 != mine)
            pthread_cond_wait(&changed, &mutex);
        turn++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void *wait_for_start(void *argument) {
    (void)argument;
    pthread_mutex_lock(&mutex);
    finished++;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void conditions(void) {
    run(4, take_turns);
    value("turns taken in order", turn);
    pthread_t thread;
    pthread_mutex_lock(&mutex);
    pthread_create(&thread, NULL, wait_for_start, NULL);
    while (!finished)
        pthread_cond_wait(&changed, &mutex);
    text("woken by a signal", "%d", finished);
    pthread_join(thread, NULL);
    struct timespec soon = from_now(CLOCK_REALTIME, 5);
    returned("timedwait", pthread_cond_timedwait(&changed, &mutex, &soon));
    holds("not before its time", clock_ns(CLOCK_REALTIME) >= nanoseconds_of(soon));
    soon = from_now(CLOCK_MONOTONIC, 5);
    returned("clockwait monotonic", pthread_cond_clockwait(&changed, &mutex, CLOCK_MONOTONIC, &soon));
    holds("not before its time either", clock_ns(CLOCK_MONOTONIC) >= nanoseconds_of(soon));
    soon = from_now(CLOCK_REALTIME, -1000);
    returned("timedwait in the past", pthread_cond_timedwait(&changed, &mutex, &soon));
    soon.tv_nsec = 1000000000;
    returned("timedwait bad nanoseconds", pthread_cond_timedwait(&changed, &mutex, &soon));
    returned("still held", pthread_mutex_unlock(&mutex));
}

static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static long pair[2], torn;

static void *reads_and_writes(void *argument) {
    for (int i = 0; i < 2000; i++)
        if ((i + (int)(intptr_t)argument) % 8) {
            pthread_rwlock_rdlock(&rwlock);
            if (pair[0] != pair[1])
                __atomic_fetch_add(&torn, 1, __ATOMIC_RELAXED);
            pthread_rwlock_unlock(&rwlock);
        } else {
            pthread_rwlock_wrlock(&rwlock);
            pair[0]++, pair[1]++;
            pthread_rwlock_unlock(&rwlock);
        }
    return NULL;
}

static void rwlocks(void) {
    run(8, reads_and_writes);
    text("8 threads read and wrote", "%ld %ld torn %ld", pair[0], pair[1], torn);
    pthread_rwlock_rdlock(&rwlock);
    returned("a second reader", pthread_rwlock_tryrdlock(&rwlock));
    returned("a writer while read", pthread_rwlock_trywrlock(&rwlock));
    struct timespec soon = from_now(CLOCK_REALTIME, 5);
    returned("timedwrlock while read", pthread_rwlock_timedwrlock(&rwlock, &soon));
    pthread_rwlock_unlock(&rwlock), pthread_rwlock_unlock(&rwlock);
    pthread_rwlock_wrlock(&rwlock);
    returned("a reader while written", pthread_rwlock_tryrdlock(&rwlock));
    returned("wrlock again", pthread_rwlock_wrlock(&rwlock));
    returned("unlock", pthread_rwlock_unlock(&rwlock));
}

static pthread_barrier_t barrier;
static int phases[8], serial, disorder;

static void *in_phases(void *argument) {
    int mine = (int)(intptr_t)argument;
    for (int phase = 0; phase < 50; phase++) {
        phases[mine] = phase;
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
            __atomic_fetch_add(&serial, 1, __ATOMIC_RELAXED);
        for (int i = 0; i < 8; i++)
            if (phases[i] != phase)
                __atomic_fetch_add(&disorder, 1, __ATOMIC_RELAXED);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static pthread_spinlock_t spin;

static void *add_spinning(void *argument) {
    (void)argument;
    for (int i = 0; i < 2000; i++) {
        pthread_spin_lock(&spin);
        counter++;
        pthread_spin_unlock(&spin);
    }
    return NULL;
}

static sem_t items, spaces;
static long consumed;

static void *produce_or_consume(void *argument) {
    for (int i = 0; i < 500; i++)
        if ((intptr_t)argument & 1) {
            sem_wait(&spaces);
            sem_post(&items);
        } else {
            while (sem_wait(&items))
                continue;
            __atomic_fetch_add(&consumed, 1, __ATOMIC_RELAXED);
            sem_post(&spaces);
        }
    return NULL;
}

static void others(void) {
    returned("barrier of 0", pthread_barrier_init(&barrier, NULL, 0));
    returned("barrier of 8", pthread_barrier_init(&barrier, NULL, 8));
    run(8, in_phases);
    text("50 phases", "serial %d, disorder %d", serial, disorder);
    pthread_spin_init(&spin, 0);
    counter = 0;
    run(4, add_spinning);
    value("4 threads added by spinning", counter);
    returned("spin trylock", pthread_spin_trylock(&spin));
    returned("spin trylock again", pthread_spin_trylock(&spin));
    sem_init(&items, 0, 0), sem_init(&spaces, 0, 3);
    run(4, produce_or_consume);
    value("consumed", consumed);
    int left;
    sem_getvalue(&spaces, &left);
    value("spaces left", left);
    value("trywait of 0", sem_trywait(&items));
    struct timespec soon = from_now(CLOCK_REALTIME, 5);
    value("timedwait of 0", sem_timedwait(&items, &soon));
    value("post and trywait", (sem_post(&items), sem_trywait(&items)));
    value("sem_init above the limit", sem_init(&items, 0, 0x80000000U));
    value("post at the limit", (sem_init(&items, 0, 0x7fffffff), sem_post(&items)));
}

int main(void) {
    mutexes();
    conditions();
    rwlocks();
    others();
    return 0;
}
