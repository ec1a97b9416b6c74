/* A fault in a thread ends the whole process by SIGSEGV. */
#include "guests.h"
#include <pthread.h>

static void *faulting(void *argument) {
    puts("a thread faults");
    *(volatile int *)wild() = 1;
    return argument;
}

int main(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, faulting, NULL);
    for (;;)
        pause();
}
