/* Timers that send signals: alarm, the interval timer, POSIX timers; and what a clock says of itself. */
#include "guests.h"
#include <pthread.h>
#include <sys/time.h>
#include <sys/times.h>

static volatile sig_atomic_t rings, rung_value, rung_code;

static void ring(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    rings++;
    rung_value = info->si_value.sival_int;
    rung_code = info->si_code;
}

/* Sleeps until `count` more signals have come; they are blocked but here. */
static void wait_for_rings(int count) {
    sigset_t none;
    sigemptyset(&none);
    for (int until = rings + count; rings < until;)
        sigsuspend(&none);
}

/* Takes what came after the last wait and before the timer was stopped, so that no later wait ends by it. */
static void forget_the_rest(void) {
    sigset_t all;
    sigfillset(&all);
    for (struct timespec moment = milliseconds(0); sigtimedwait(&all, NULL, &moment) > 0;) {
    }
}

static void alarms(void) {
    value("alarm, none before", alarm(100));
    value("alarm, what was left", alarm(1) > 90);
    int64_t began = clock_ns(CLOCK_MONOTONIC);
    wait_for_rings(1);
    holds("not too early", clock_ns(CLOCK_MONOTONIC) - began >= 900000000);
    value("alarm(0), none left", alarm(0));
    struct itimerval long_one = {{5, 0}, {70, 500000}}, old = {0};
    value("setitimer", setitimer(ITIMER_REAL, &long_one, NULL));
    value("getitimer", getitimer(ITIMER_REAL, &old));
    text("interval and rest", "%ld.%06ld %d", (long)old.it_interval.tv_sec, (long)old.it_interval.tv_usec, old.it_value.tv_sec == 70);
    value("alarm sees the same timer", alarm(0) > 60);
    value("getitimer after it", (getitimer(ITIMER_REAL, &old), old.it_value.tv_sec + old.it_value.tv_usec));
    struct itimerval quick = {{0, 2000}, {0, 2000}}, off = {0};
    value("setitimer repeating", setitimer(ITIMER_REAL, &quick, NULL));
    wait_for_rings(3);
    value("setitimer off", setitimer(ITIMER_REAL, &off, &old));
    forget_the_rest();
    text("what it replaced", "interval %ld", (long)old.it_interval.tv_usec);
    struct itimerval bad = {{0, 0}, {0, 1000000}};
    value("setitimer bad microseconds", setitimer(ITIMER_REAL, &bad, NULL));
    value("setitimer unknown", setitimer(77, &off, NULL));
    value("getitimer unknown", getitimer(77, &old));
    value("setitimer wild", syscall(SYS_setitimer, ITIMER_REAL, wild(), NULL));
    value("getitimer wild", syscall(SYS_getitimer, ITIMER_REAL, wild()));
}

static void posix_timers(void) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 41};
    timer_t timer, silent;
    value("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec once = {{0, 0}, milliseconds(3)}, repeat = {milliseconds(1), milliseconds(1)}, off = {0}, now;
    value("timer_gettime, not armed", timer_gettime(timer, &now));
    value("nothing is left", now.it_value.tv_sec + now.it_value.tv_nsec);
    value("timer_settime", timer_settime(timer, 0, &once, NULL));
    wait_for_rings(1);
    text("value and code", "%d %d", (int)rung_value, rung_code == SI_TIMER);
    value("timer_getoverrun", timer_getoverrun(timer));
    value("timer_settime repeating", timer_settime(timer, 0, &repeat, NULL));
    wait_for_rings(1);
    struct timespec rest = milliseconds(20);
    sigset_t all, pending;
    while (nanosleep(&rest, &rest)) {
    }
    sigfillset(&all);
    holds("one is pending", sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1));
    wait_for_rings(1);
    /* Also when the next one waits already. */
    while (sigpending(&pending) == 0 && !sigismember(&pending, SIGUSR1))
        brief_rest();
    holds("those missed are counted", timer_getoverrun(timer) >= 15);
    value("timer_settime off", timer_settime(timer, 0, &off, &now));
    text("what it replaced", "interval %ld", now.it_interval.tv_nsec);
    int64_t due = clock_ns(CLOCK_MONOTONIC) + 5000000;
    struct itimerspec absolute = {{0, 0}, {due / 1000000000, due % 1000000000}};
    value("timer_settime absolute", timer_settime(timer, TIMER_ABSTIME, &absolute, NULL));
    rings = 0;
    forget_the_rest();
    if (clock_ns(CLOCK_MONOTONIC) < due)
        wait_for_rings(1);
    holds("not before its time", clock_ns(CLOCK_MONOTONIC) >= due);
    event.sigev_notify = SIGEV_NONE;
    value("timer_create without signal", timer_create(CLOCK_REALTIME, &event, &silent));
    struct itimerspec hour = {{0, 0}, {3600, 0}};
    value("timer_settime", timer_settime(silent, 0, &hour, NULL));
    holds("timer_gettime counts down", timer_gettime(silent, &now) == 0 && now.it_value.tv_sec > 3590 && now.it_value.tv_sec <= 3600);
    value("timer_delete", timer_delete(silent));
    value("timer_delete", timer_delete(timer));
}

static void timer_refusals(void) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    int id;
    value("timer_create unknown clock", syscall(SYS_timer_create, 77, &event, &id));
    value("timer_create wild event", syscall(SYS_timer_create, CLOCK_MONOTONIC, wild(), &id));
    value("timer_create wild id", syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, wild()));
    event.sigev_signo = 77;
    value("timer_create unknown signal", syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
    struct itimerspec spec = {{0, 0}, {0, 1000000000}};
    value("timer_settime unknown", syscall(SYS_timer_settime, 123456, 0, &(struct itimerspec){0}, NULL));
    value("timer_gettime unknown", syscall(SYS_timer_gettime, 123456, &spec));
    value("timer_getoverrun unknown", syscall(SYS_timer_getoverrun, 123456));
    value("timer_delete unknown", syscall(SYS_timer_delete, 123456));
    event.sigev_signo = SIGUSR1;
    need("timer_create", syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
    value("timer_settime bad nanoseconds", syscall(SYS_timer_settime, id, 0, &spec, NULL));
    value("timer_settime wild", syscall(SYS_timer_settime, id, 0, wild(), NULL));
    value("timer_gettime wild", syscall(SYS_timer_gettime, id, wild()));
    value("timer_delete", syscall(SYS_timer_delete, id));
    value("timer_delete again", syscall(SYS_timer_delete, id));
}

static void clocks(void) {
    struct timespec unit = {7, 7};
    const clockid_t ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        text("clock_getres", "%ld %ld.%09ld", syscall(SYS_clock_getres, ids[i], &unit), (long)unit.tv_sec, unit.tv_nsec);
    value("clock_getres without a place", syscall(SYS_clock_getres, CLOCK_MONOTONIC, NULL));
    value("clock_getres unknown", syscall(SYS_clock_getres, 77, &unit));
    value("clock_getres wild", syscall(SYS_clock_getres, CLOCK_MONOTONIC, wild()));
    long told = 0, given = syscall(SYS_time, &told);
    holds("time", given == told && time(NULL) - given <= 1);
    value("time wild", syscall(SYS_time, wild()));
    struct timeval day;
    value("gettimeofday", syscall(SYS_gettimeofday, &day, NULL));
    holds("it agrees", day.tv_sec - given <= 1);
    value("gettimeofday wild", syscall(SYS_gettimeofday, wild(), NULL));
    struct tms use;
    holds("times", times(&use) != -1 && use.tms_cutime == 0);
    value("times wild", syscall(SYS_times, wild()));
}

int main(void) {
    struct sigaction action = {.sa_sigaction = ring, .sa_flags = SA_SIGINFO};
    sigset_t both;
    sigemptyset(&both);
    sigaddset(&both, SIGALRM), sigaddset(&both, SIGUSR1);
    sigprocmask(SIG_BLOCK, &both, NULL);
    sigaction(SIGALRM, &action, NULL), sigaction(SIGUSR1, &action, NULL);
    alarms();
    posix_timers();
    timer_refusals();
    clocks();
    return 0;
}
