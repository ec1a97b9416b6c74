/* Futex operations in which the kernel itself changes the word (priority inheritance, WAKE_OP), and waiting for several at once. Compared with .expected. */
#include "guests.h"
#include <linux/futex.h>
#include <pthread.h>

static long futex(volatile void *word, int operation, unsigned number, volatile void *word2, unsigned number3) {
    return syscall(SYS_futex, word, operation, number, 1L, word2, number3);
}

int main(void) {
    volatile uint32_t from = 0, to = 0;
    value("WAKE_OP", futex(&from, FUTEX_WAKE_OP_PRIVATE, 1, &to, FUTEX_OP(FUTEX_OP_SET, 7, FUTEX_OP_CMP_EQ, 0)));
    value("the word", to);
    const int inheriting[] = {FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, FUTEX_WAIT_REQUEUE_PI, FUTEX_CMP_REQUEUE_PI, FUTEX_LOCK_PI2};
    for (size_t i = 0; i < sizeof inheriting / sizeof *inheriting; i++)
        value("priority inheritance", syscall(SYS_futex, &from, inheriting[i] | FUTEX_PRIVATE_FLAG, 0, NULL, &to, 0));
    value("the word", from);
    pthread_mutexattr_t kind;
    pthread_mutex_t mutex;
    pthread_mutexattr_init(&kind);
    returned("PTHREAD_PRIO_INHERIT", pthread_mutexattr_setprotocol(&kind, PTHREAD_PRIO_INHERIT));
    returned("a mutex of it", pthread_mutex_init(&mutex, &kind));
    struct futex_waitv both[2] = {{.val = 1, .uaddr = (uintptr_t)&from, .flags = FUTEX_32}, {.val = 1, .uaddr = (uintptr_t)&to, .flags = FUTEX_32}};
    value("futex_waitv", syscall(449, both, 2, 0, NULL, 0));
    return 0;
}
