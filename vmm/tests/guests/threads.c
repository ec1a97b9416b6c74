// Threads, mutexes, condition variables, thread-local data, robust mutexes.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn, total;
static __thread int own = 5;
static pthread_mutex_t robust;
static sem_t sem;

static void *add(void *arg) {
    own += (int)(long)arg;
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&lock);
        total++;
        pthread_mutex_unlock(&lock);
    }
    return (void *)(long)own;
}
static void *play(void *arg) {
    int me = (int)(long)arg;
    for (int i = 0; i < 200; i++) {
        pthread_mutex_lock(&lock);
        while (turn % 3 != me) pthread_cond_wait(&changed, &lock);
        turn++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}
static void *leave(void *arg) {
    pthread_mutex_lock(&robust);
    return arg;
}
static void *post(void *arg) {
    sem_post(&sem);
    return arg;
}

int main(void) {
    pthread_t threads[8];
    for (long i = 0; i < 8; i++) pthread_create(&threads[i], NULL, add, (void *)i);
    for (int i = 0; i < 8; i++) {
        void *result;
        pthread_join(threads[i], &result);
        printf("thread %d own %ld\n", i, (long)result);
    }
    printf("total %d own %d\n", total, own);
    for (long i = 0; i < 3; i++) pthread_create(&threads[i], NULL, play, (void *)i);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    printf("turns %d\n", turn);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&robust, &attributes);
    pthread_create(&threads[0], NULL, leave, NULL);
    pthread_join(threads[0], NULL);
    printf("robust %s\n", pthread_mutex_lock(&robust) == EOWNERDEAD ? "owner died" : "?");
    pthread_mutex_consistent(&robust);
    printf("unlock %d\n", pthread_mutex_unlock(&robust));
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_nsec += 20000000;
    if (at.tv_nsec >= 1000000000) { at.tv_nsec -= 1000000000; at.tv_sec++; }
    pthread_mutex_lock(&lock);
    printf("timed wait %s\n", pthread_cond_timedwait(&changed, &lock, &at) == ETIMEDOUT ? "over" : "?");
    pthread_mutex_unlock(&lock);
    sem_init(&sem, 0, 0);
    pthread_create(&threads[0], NULL, post, NULL);
    printf("semaphore %d\n", sem_wait(&sem));
    pthread_join(threads[0], NULL);
    printf("try %d %d\n", sem_trywait(&sem), errno == EAGAIN);
    char name[16];
    pthread_setname_np(pthread_self(), "first");
    pthread_getname_np(pthread_self(), name, sizeof name);
    printf("name %s\n", name);
    return 3;
}
