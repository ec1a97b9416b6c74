/* Pthread_exit in main: the process lives on until its last thread ends, then ends with 0. */
#include "guests.h"
#include <pthread.h>

static void *later(void *main_thread) {
    pthread_join(*(pthread_t *)main_thread, NULL);
    puts("main has ended, the process has not");
    return NULL;
}

int main(void) {
    static pthread_t self, thread;
    self = pthread_self();
    pthread_create(&thread, NULL, later, &self);
    puts("main ends");
    pthread_exit(NULL);
}
