/* Main's return while threads spin and sleep: ends with 5. */
#include "guests.h"
#include <pthread.h>
#include <semaphore.h>

static sem_t entered;

static void *busy(void *argument) {
    struct timespec hour = {3600, 0};
    sem_post(&entered);
    while (!argument)
        continue;
    nanosleep(&hour, NULL);
    return NULL;
}

int main(void) {
    pthread_t thread;
    sem_init(&entered, 0, 0);
    pthread_create(&thread, NULL, busy, NULL);
    pthread_create(&thread, NULL, busy, "sleeps");
    sem_wait(&entered), sem_wait(&entered);
    puts("main returns");
    return 5;
}
