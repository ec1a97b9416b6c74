// Never leaves guest mode again, in several threads. Only from outside can that be ended.
#include "hostile.h"

static void *spin(void *unused) {
    for (;;) __asm__ volatile("");
    return unused;
}

int main(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    pthread_t thread;
    for (int i = 0; i < 3; i++) MUST(pthread_create(&thread, NULL, spin, NULL) == 0);
    dprintf(1, "spinning\n");
    spin(NULL);
}
