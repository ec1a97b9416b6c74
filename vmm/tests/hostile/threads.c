// More threads than there may be, again and again; all of them end with the process, whatever they wait for.
#include "hostile.h"
#include <linux/futex.h>

static volatile int word;
static int started;

static void *wait_for_ever(void *unused) {
    __atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
    for (;;) syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0);
    return unused;
}

static void *nothing(void *argument) { return argument; }

int main(void) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16384);
    for (int round = 0; round < 1500; round++) {
        pthread_t thread;
        MUST(pthread_create(&thread, &attributes, nothing, NULL) == 0);
        pthread_join(thread, NULL);
    }
    int count = 0, error;
    pthread_t thread;
    while ((error = pthread_create(&thread, &attributes, wait_for_ever, NULL)) == 0) MUST(++count < 5000);
    MUST(error == EAGAIN && count > 100);
    for (int i = 0; i < 200; i++) MUST(pthread_create(&thread, &attributes, nothing, NULL) == EAGAIN);
    // Raw ones, with what clone(2) takes in registers gone wild.
    for (int i = 0; i < 5000; i++) {
        uint64_t flags = random_number() & 0xffffffff, wild = random_number();
        if ((flags & 0x50f00) == 0x50f00) continue; // this might work, and nobody would be at home there
        MUST(syscall(SYS_clone, flags, wild, wild, wild, wild) == -1);
    }
    while (__atomic_load_n(&started, __ATOMIC_SEQ_CST) < count) sched_yield();
    return still_here();
}
