/* Cancellation at blocking calls, deferred and asynchronous, disabled; cleanup; robust mutexes whose owner ended. */
#include "guests.h"
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/socket.h>

static sem_t entered, go_on;
static int ends[2], sockets[2];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;

static void count_up(void *count) { ++*(int *)count; }
static int cleanups;

static void block(intptr_t kind) {
    char byte;
    struct pollfd poll_for = {.fd = ends[0], .events = POLLIN};
    struct timespec hour = {3600, 0};
    switch (kind) {
    case 0: (void)!read(ends[0], &byte, 1); break;
    case 1: poll(&poll_for, 1, -1); break;
    case 2: nanosleep(&hour, NULL); break;
    case 3: pause(); break;
    case 4: recv(sockets[0], &byte, 1, 0); break;
    case 5: pthread_cond_wait(&never, &mutex); break;
    case 6: sem_wait(&go_on); break;
    case 7: sigsuspend(&(sigset_t){0}); break;
    case 8: clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, NULL); break;
    default: for (;;) pthread_testcancel();
    }
}

static void *blocked(void *argument) {
    if ((intptr_t)argument == 5)
        pthread_mutex_lock(&mutex);
    pthread_cleanup_push(count_up, &cleanups);
    sem_post(&entered);
    for (;;)
        block((intptr_t)argument);
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancels(void) {
    static const char *names[] = {"read", "poll", "nanosleep", "pause", "recv", "cond_wait", "sem_wait", "sigsuspend", "clock_nanosleep", "testcancel"};
    for (intptr_t kind = 0; kind < 10; kind++) {
        pthread_t thread;
        void *result;
        pthread_create(&thread, NULL, blocked, (void *)kind);
        sem_wait(&entered);
        if (kind & 1)
            brief_rest();
        pthread_cancel(thread);
        pthread_join(thread, &result);
        text(names[kind], "%s", result == PTHREAD_CANCELED ? "cancelled" : "not cancelled");
    }
    value("cleanups", cleanups);
    returned("a cancelled cond_wait held the mutex", pthread_mutex_trylock(&mutex));
}

static void *guarded(void *argument) {
    int old;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
    sem_post(&entered);
    sem_wait(&go_on);
    *(int *)argument = 1;
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
    pthread_testcancel();
    *(int *)argument = 2;
    return NULL;
}

static void *spinning(void *argument) {
    int old;
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
    sem_post(&entered);
    for (volatile int *at = argument;; ++*at)
        continue;
    return NULL;
}

static void states(void) {
    pthread_t thread;
    void *result;
    int reached = 0;
    pthread_create(&thread, NULL, guarded, &reached);
    sem_wait(&entered);
    pthread_cancel(thread);
    sem_post(&go_on);
    pthread_join(thread, &result);
    text("disabled, then enabled", "%d %s", reached, result == PTHREAD_CANCELED ? "cancelled" : "not cancelled");
    pthread_create(&thread, NULL, spinning, &reached);
    sem_wait(&entered);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    text("asynchronous in a busy loop", "%s", result == PTHREAD_CANCELED ? "cancelled" : "not cancelled");
}

static pthread_mutex_t robust, second;

static void *die_holding(void *argument) {
    pthread_mutex_lock(&robust);
    if (argument)
        pthread_mutex_lock(&second);
    sem_post(&entered);
    if (argument)
        sem_wait(&go_on);
    return NULL;
}

static void *lock_later(void *argument) {
    (void)argument;
    sem_post(&entered);
    return (void *)(intptr_t)pthread_mutex_lock(&robust);
}

static void robust_mutexes(void) {
    pthread_mutexattr_t kind;
    pthread_t thread, waiter;
    void *result;
    pthread_mutexattr_init(&kind);
    returned("setrobust", pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST));
    pthread_mutex_init(&robust, &kind), pthread_mutex_init(&second, &kind);
    pthread_create(&thread, NULL, die_holding, NULL);
    pthread_join(thread, NULL), sem_wait(&entered);
    returned("lock after its owner ended", pthread_mutex_lock(&robust));
    returned("make consistent", pthread_mutex_consistent(&robust));
    returned("unlock", pthread_mutex_unlock(&robust));
    returned("lock as usual", pthread_mutex_lock(&robust));
    pthread_mutex_unlock(&robust);
    pthread_create(&thread, NULL, die_holding, "both");
    sem_wait(&entered);
    returned("trylock while the owner lives", pthread_mutex_trylock(&robust));
    pthread_create(&waiter, NULL, lock_later, NULL);
    sem_wait(&entered);
    brief_rest();
    sem_post(&go_on);
    pthread_join(thread, NULL), pthread_join(waiter, &result);
    returned("a waiter is woken by the death", (int)(intptr_t)result);
    returned("the second mutex too", pthread_mutex_trylock(&second));
    returned("unlock without making it consistent", pthread_mutex_unlock(&second));
    returned("lock then", pthread_mutex_lock(&second));
    returned("the waiter ended holding it as well", pthread_mutex_lock(&robust));
    returned("consistent of a consistent one", (pthread_mutex_consistent(&robust), pthread_mutex_consistent(&robust)));
    pthread_mutexattr_setprotocol(&kind, PTHREAD_PRIO_NONE);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&robust, &kind);
    pthread_create(&thread, NULL, die_holding, NULL);
    pthread_join(thread, NULL), sem_wait(&entered);
    returned("process-shared, owner ended", pthread_mutex_lock(&robust));
}

int main(void) {
    need("pipe", pipe(ends));
    need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
    sem_init(&entered, 0, 0), sem_init(&go_on, 0, 0);
    cancels();
    states();
    robust_mutexes();
    return 0;
}
