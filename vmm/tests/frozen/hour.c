/* What has a time is over when the program goes on an hour later, by the monotonic clock: nothing starts its time anew, nothing is late by the
 * time that passed, nothing comes more often than on a machine that slept. */
#include "frozen.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>

/* Of every wait: longer than the test, shorter than the hour. */
#define WAIT_S 600

static struct timespec wait_time = {WAIT_S, 0};
static int quiet[2];

static struct timespec later(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    time.tv_sec += WAIT_S;
    return time;
}
static uint32_t word;
static long over_futex(void) { return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &wait_time, NULL, 0); }
static long over_futex_absolute(void)
{
    struct timespec time = later(CLOCK_MONOTONIC);
    return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &time, NULL, FUTEX_BITSET_MATCH_ANY);
}
static long over_condition(void)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t condition;
    pthread_condattr_t monotonic;
    struct timespec time = later(CLOCK_MONOTONIC);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&condition, &monotonic);
    pthread_mutex_lock(&mutex);
    errno = pthread_cond_timedwait(&condition, &mutex, &time);
    pthread_mutex_unlock(&mutex);
    return errno ? -1 : 0;
}
static long over_epoll(void)
{
    struct epoll_event got;
    return epoll_wait(epoll_create1(0), &got, 1, WAIT_S * 1000);
}
static long over_poll(void)
{
    struct pollfd one = {quiet[0], POLLIN, 0};
    return poll(&one, 1, WAIT_S * 1000);
}
static long over_select(void)
{
    struct timeval time = {WAIT_S, 0};
    long result = select(0, NULL, NULL, NULL, &time);
    return result * 1000 + time.tv_sec;
}
static long over_nanosleep(void) { return nanosleep(&wait_time, NULL); }
static long over_clock_nanosleep(void)
{
    struct timespec time = later(CLOCK_MONOTONIC);
    errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
    return errno ? -1 : 0;
}
static long over_sigtimedwait(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    return sigtimedwait(&set, NULL, &wait_time);
}

struct one {
    const char *name;
    long (*wait)(void);
    pthread_t thread;
    char said[64];
};
#define ONE(name) {#name, over_##name, 0, ""}
static struct one all[] = {
    ONE(futex), ONE(futex_absolute), ONE(condition), ONE(epoll), ONE(poll), ONE(select), ONE(nanosleep), ONE(clock_nanosleep), ONE(sigtimedwait),
};
#define COUNT (sizeof all / sizeof all[0])

static void *run(void *argument)
{
    struct one *one = argument;
    strcpy(one->said, result_of(one->wait()));
    return NULL;
}

static volatile sig_atomic_t alarms, made, overrun;
static void on_alarm(int signal)
{
    (void)signal;
    alarms++;
}
static timer_t posix;
static void on_made(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    (void)info;
    made++;
    overrun = timer_getoverrun(posix);
}

int main(void)
{
    sigset_t blocked, before;
    struct itimerspec once = {{0, 0}, {WAIT_S, 0}}, often = {{WAIT_S, 0}, {WAIT_S, 0}}, left;
    struct itimerval alarm = {{WAIT_S, 0}, {WAIT_S, 0}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct sigaction action = {.sa_handler = on_alarm}, queued = {.sa_sigaction = on_made, .sa_flags = SA_SIGINFO};
    uint64_t count;

    NEED(pipe(quiet) == 0);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGALRM);
    sigaddset(&blocked, SIGRTMIN);
    NEED(sigprocmask(SIG_BLOCK, &blocked, &before) == 0);
    NEED(sigaction(SIGALRM, &action, NULL) == 0 && sigaction(SIGRTMIN, &queued, NULL) == 0);
    int single = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), repeated = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK);
    NEED(timerfd_settime(single, 0, &once, NULL) == 0 && timerfd_settime(repeated, 0, &often, NULL) == 0);
    NEED(setitimer(ITIMER_REAL, &alarm, NULL) == 0);
    NEED(timer_create(CLOCK_MONOTONIC, &event, &posix) == 0 && timer_settime(posix, 0, &often, NULL) == 0);
    for (size_t index = 0; index < COUNT; index++)
        NEED(pthread_create(&all[index].thread, NULL, run, &all[index]) == 0);
    int64_t monotonic = now_ns(CLOCK_MONOTONIC), boot = now_ns(CLOCK_BOOTTIME), wall = now_ns(CLOCK_REALTIME);
    be_frozen_here();

    monotonic = now_ns(CLOCK_MONOTONIC) - monotonic;
    boot = now_ns(CLOCK_BOOTTIME) - boot;
    wall = now_ns(CLOCK_REALTIME) - wall;
    printf("monotonic: %s\n", monotonic >= 3600000000000 ? "an hour later" : "too early");
    printf("boottime: %s\n", boot >= 3600000000000 ? "an hour later" : "too early");
    printf("realtime: %s\n", wall >= 0 && wall < 600000000000 ? "that of the host" : "wrong");
    for (size_t index = 0; index < COUNT; index++) {
        NEED(pthread_join(all[index].thread, NULL) == 0);
        printf("%s: %s\n", all[index].name, all[index].said);
    }
    count = 0;
    printf("timerfd: %s", result_of(read(single, &count, 8)));
    printf(" %lu\n", (unsigned long)count);
    printf("again: %s\n", result_of(read(single, &count, 8)));
    count = 0;
    printf("repeated timerfd: %s", result_of(read(repeated, &count, 8)));
    printf(" %lu\n", (unsigned long)count);
    NEED(timerfd_gettime(repeated, &left) == 0);
    printf("next: %s\n", left.it_value.tv_sec < WAIT_S ? "within its interval" : "too late");
    NEED(sigprocmask(SIG_SETMASK, &before, NULL) == 0);
    printf("itimer: %d signal\n", (int)alarms);
    printf("timer: %d signal, overrun %d\n", (int)made, (int)overrun);
    NEED(timer_gettime(posix, &left) == 0);
    printf("next: %s\n", left.it_value.tv_sec < WAIT_S ? "within its interval" : "too late");
    return 0;
}
