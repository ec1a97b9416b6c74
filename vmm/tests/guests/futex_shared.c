/* A futex that lies in a shared file is one futex, whatever the addresses it is mapped at. */
#include "guests.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>

static long futex(volatile uint32_t *word, int operation, unsigned number) { return syscall(SYS_futex, word, operation, number, NULL, NULL, 0); }

static void *wait_on(void *word) {
    value("waited", futex(word, FUTEX_WAIT, 0));
    return NULL;
}

int main(void) {
    int fd = (int)need("memfd", memfd_create("word", 0));
    need("ftruncate", ftruncate(fd, 4096));
    volatile uint32_t *one = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    volatile uint32_t *two = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    pthread_t thread;
    need("thread", pthread_create(&thread, NULL, wait_on, (void *)one) ? -1 : 0);
    long woken = 0;
    /* The waiter may not sleep yet. Not without end, for where the two are not one. */
    for (int tries = 0; tries < 2000 && woken == 0; tries++, brief_rest())
        woken = futex(two, FUTEX_WAKE, 1);
    value("woken through the other map", woken);
    while (woken == 0 && futex(one, FUTEX_WAKE, 1) == 0)
        brief_rest();
    pthread_join(thread, NULL);
    return 0;
}
