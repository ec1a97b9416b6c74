// Signals to oneself without end: queued, nested, timed, to threads that are not there.
#include "hostile.h"
#include <time.h>

static volatile long handled;
static void count(int number) { handled += number != 0; }

// Neither those that nobody can catch, nor the two that the C library keeps for itself.
static int usable(int number) { return number == SIGKILL || number == SIGSTOP || number == 32 || number == 33 ? SIGUSR1 : number; }

int main(void) {
    struct sigaction action = {.sa_handler = count};
    for (int number = 1; number <= 64; number++) sigaction(number, &action, NULL);
    for (int i = 0; i < 20000; i++) kill(getpid(), usable(1 + i % 64));
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    // As many as the queue takes; then EAGAIN, not more memory.
    long queued = 0;
    union sigval value = {.sival_int = 7};
    while (queued < 3000000 && sigqueue(getpid(), SIGRTMIN + queued % 30, value) == 0) queued++;
    MUST(queued < 3000000 && errno == EAGAIN);
    for (int i = 0; i < 5000; i++) {
        syscall(SYS_rt_sigqueueinfo, (int)random_number(), (int)random_number() % 70, random_number());
        syscall(SYS_tgkill, (int)random_number(), (int)random_number(), (int)random_number() % 70);
        syscall(SYS_tkill, (int)random_number() | 0x10000, (int)random_number() % 70);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    MUST(handled > queued);
    // Timers, as many as there may be, all due at once.
    timer_t timer;
    long timers = 0;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
    struct itimerspec once = {{0, 0}, {0, 1}}, often = {{0, 1000000}, {0, 1}};
    while (timers < 100000 && timer_create(CLOCK_MONOTONIC, &event, &timer) == 0) timers++, timer_settime(timer, 0, &once, NULL);
    MUST(timers < 100000 && errno == EAGAIN);
    timer_settime(timer, 0, &often, NULL);
    long since = handled;
    while (handled < since + 100) sched_yield();
    // Handlers and masks while the storm goes on.
    for (int i = 0; i < 2000; i++) {
        action.sa_flags = (int)random_number() & ~SA_RESETHAND & ~4;
        action.sa_flags &= SA_NODEFER | SA_RESTART;
        sigaction(SIGUSR2, &action, NULL);
        sigprocmask(i % 2 ? SIG_BLOCK : SIG_UNBLOCK, &all, NULL);
        struct timespec none = {0, 0};
        sigset_t some;
        memset(&some, 0, sizeof some);
        sigaddset(&some, SIGUSR2);
        if (i % 7 == 0) sigtimedwait(&some, NULL, &none);
    }
    return still_here();
}
