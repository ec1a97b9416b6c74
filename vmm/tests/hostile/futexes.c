// Futexes everywhere, also where nothing is, moved and woken by many threads while their pages come and go.
#include "hostile.h"
#include <linux/futex.h>
#include <time.h>

static uint32_t *words;
static volatile int over;

static void *storm(void *seed) {
    uint64_t state = (uintptr_t)seed * 0x9e3779b97f4a7c15ULL + 1;
    struct timespec brief = {0, 1000};
    while (!over) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        uint32_t *word = words + state % 4096, *other = words + (state >> 20) % 4096;
        switch ((state >> 40) % 8) {
        case 0: case 1: syscall(SYS_futex, word, FUTEX_WAIT, 0, &brief, NULL, 0); break;
        case 2: syscall(SYS_futex, word, FUTEX_WAKE, (int)(state >> 44), NULL, NULL, 0); break;
        case 3: syscall(SYS_futex, word, FUTEX_REQUEUE, 1, (void *)100, other, 0); break;
        case 4: syscall(SYS_futex, word, FUTEX_CMP_REQUEUE, -1, (void *)-1, other, (int)state); break;
        case 5: syscall(SYS_futex, word, FUTEX_WAKE_BITSET, 1, NULL, NULL, (int)state); break;
        case 6: syscall(SYS_futex, (char *)word + state % 4, (int)(state >> 8) & 0x1ff & ~1, 0, &brief, other, 0); break;
        default: syscall(SYS_futex, state, FUTEX_WAKE, 1, NULL, NULL, 0);
        }
    }
    return NULL;
}

static void *leave_a_loop(void *argument) {
    // A robust list that leads back to itself, and one that leads nowhere.
    static struct { void *next; long offset; void *pending; } list;
    list.next = argument ? (void *)&list.pending : (void *)0x10;
    list.pending = &list.pending;
    list.offset = (long)0x7fffffffffffff00;
    syscall(SYS_set_robust_list, argument ? (void *)&list : (void *)random_number(), 24L);
    return NULL;
}

int main(void) {
    words = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_t threads[32];
    for (long i = 0; i < 32; i++) MUST(pthread_create(threads + i, NULL, storm, (void *)(i + 1)) == 0);
    for (int round = 0; round < 2000; round++) {
        char *page = (char *)words + round % 4 * 4096;
        if (round % 3 == 0) mprotect(page, 4096, round % 2 ? PROT_NONE : PROT_READ | PROT_WRITE);
        else if (round % 3 == 1) mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        else madvise(page, 4096, MADV_DONTNEED);
    }
    over = 1;
    for (int i = 0; i < 32; i++) pthread_join(threads[i], NULL);
    for (long i = 0; i < 20; i++) {
        MUST(pthread_create(threads, NULL, leave_a_loop, (void *)(i % 2)) == 0);
        pthread_join(*threads, NULL);
    }
    return still_here();
}
