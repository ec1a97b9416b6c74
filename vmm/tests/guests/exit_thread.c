/* Exit by a thread while the first one and others are blocked: ends with 7. */
#include "guests.h"
#include <pthread.h>
#include <semaphore.h>

static sem_t never, entered;

static void *blocked(void *argument) {
    sem_post(&entered);
    sem_wait(&never);
    return argument;
}

static void *spinning(void *argument) {
    sem_post(&entered);
    for (volatile int i = 0;; i++)
        continue;
    return argument;
}

static void *leaving(void *argument) {
    (void)argument;
    for (int i = 0; i < 3; i++)
        sem_wait(&entered);
    puts("a thread exits");
    exit(7);
}

int main(void) {
    pthread_t thread;
    sem_init(&never, 0, 0), sem_init(&entered, 0, 0);
    pthread_create(&thread, NULL, blocked, NULL);
    pthread_create(&thread, NULL, blocked, NULL);
    pthread_create(&thread, NULL, spinning, NULL);
    pthread_create(&thread, NULL, leaving, NULL);
    for (;;)
        pause();
}
