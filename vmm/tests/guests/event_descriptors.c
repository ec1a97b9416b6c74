/* eventfd, timerfd and signalfd. */
#include "guests.h"
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static int ready(int fd) {
    struct pollfd one = {.fd = fd, .events = POLLIN | POLLOUT};
    poll(&one, 1, 0);
    return one.revents;
}

static uint64_t number;
static long take(int fd) { return read(fd, &number, sizeof number) == 8 ? (long)number : -1; }
static long give(int fd, uint64_t count) { return write(fd, &count, sizeof count); }

static void *give_later(void *argument) {
    brief_rest();
    give(*(int *)argument, 6);
    return NULL;
}

static void counters(void) {
    int fd = (int)done("eventfd", eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC));
    value("CLOEXEC", fcntl(fd, F_GETFD));
    value("ready", ready(fd));
    value("read", take(fd));
    value("read again", take(fd));
    value("ready then", ready(fd));
    value("write 5", give(fd, 5));
    value("write 7", give(fd, 7));
    value("sum", take(fd));
    value("write 2^64 - 1", give(fd, -1UL));
    value("write 2^64 - 2", give(fd, -2UL));
    value("ready when full", ready(fd));
    value("one more overflows", give(fd, 1));
    value("write 0 when full", give(fd, 0));
    take(fd);
    holds("read of the full one", number == -2UL);
    value("read 7 bytes", read(fd, &number, 7));
    value("write 7 bytes", write(fd, &number, 7));
    value("read 16 bytes", (give(fd, 1), read(fd, (uint64_t[2]){0}, 16)));
    value("write from a wild address", syscall(SYS_write, fd, wild(), 8));
    value("pread", pread(fd, &number, 8, 0));
    value("lseek", lseek(fd, 0, SEEK_CUR));
    value("bad flags", eventfd(0, 12345));
    int semaphore = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
    for (int i = 0; i < 4; i++)
        value("semaphore", take(semaphore));
    int blocking = eventfd(0, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, give_later, &blocking);
    value("a read blocks until a write", take(blocking));
    pthread_join(thread, NULL);
}

static void timers(void) {
    int fd = (int)done("timerfd", timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    // So late that no machine is so slow; what has gone off before it is read would not be there for the poll.
    struct itimerspec setting = {.it_value = {1000, 0}}, old;
    value("read before it is set", take(fd));
    value("set one-shot", timerfd_settime(fd, 0, &setting, NULL));
    value("read at once", take(fd));
    setting.it_value = milliseconds(5);
    value("set again", timerfd_settime(fd, 0, &setting, NULL));
    struct pollfd one = {.fd = fd, .events = POLLIN};
    value("poll", poll(&one, 1, -1));
    value("expired", take(fd));
    value("read again", take(fd));
    value("gettime when over", timerfd_gettime(fd, &old));
    holds("is zero", nanoseconds_of(old.it_value) == 0 && nanoseconds_of(old.it_interval) == 0);
    setting = (struct itimerspec){.it_value = {100, 0}, .it_interval = {7, 5}};
    timerfd_settime(fd, 0, &setting, NULL);
    timerfd_gettime(fd, &old);
    holds("gettime of a running one", old.it_value.tv_sec <= 100 && old.it_value.tv_sec > 90 && old.it_interval.tv_sec == 7 && old.it_interval.tv_nsec == 5);
    setting = (struct itimerspec){0};
    value("disarm gives the old one", timerfd_settime(fd, 0, &setting, &old));
    holds("old one", old.it_interval.tv_sec == 7 && old.it_value.tv_sec > 90);
    setting = (struct itimerspec){.it_value = milliseconds(2), .it_interval = milliseconds(2)};
    // Before the timer is set: it goes on while this thread waits for a processor.
    int64_t start = clock_ns(CLOCK_MONOTONIC);
    timerfd_settime(fd, 0, &setting, NULL);
    long total = 0;
    while (total < 10) {
        poll(&one, 1, -1);
        total += take(fd);
    }
    holds("10 intervals of 2 ms take at least 18", clock_ns(CLOCK_MONOTONIC) - start >= 18000000);
    timerfd_settime(fd, 0, &(struct itimerspec){.it_value = milliseconds(1), .it_interval = milliseconds(1)}, NULL);
    struct timespec pause_time = milliseconds(12);
    nanosleep(&pause_time, NULL);
    holds("missed ones are counted", take(fd) >= 10);
    setting = (struct itimerspec){.it_value = {1, 0}};
    value("absolute in the past", timerfd_settime(fd, TFD_TIMER_ABSTIME, &setting, NULL));
    value("expires at once", (poll(&one, 1, -1), take(fd)));
    int64_t at = clock_ns(CLOCK_MONOTONIC) + 5000000;
    setting.it_value = (struct timespec){at / 1000000000, at % 1000000000};
    timerfd_settime(fd, TFD_TIMER_ABSTIME, &setting, NULL);
    poll(&one, 1, -1);
    holds("absolute is not early", clock_ns(CLOCK_MONOTONIC) >= at);
    value("and once", take(fd));
    int real = timerfd_create(CLOCK_REALTIME, 0), boot = timerfd_create(CLOCK_BOOTTIME, 0);
    setting = (struct itimerspec){.it_value = milliseconds(2)};
    timerfd_settime(real, 0, &setting, NULL), timerfd_settime(boot, 0, &setting, NULL);
    text("blocking reads, real and boot time", "%ld %ld", take(real), take(boot));
    value("bad clock", timerfd_create(77, 0));
    value("bad flags", timerfd_create(CLOCK_MONOTONIC, 1));
    setting.it_value.tv_nsec = 1000000000;
    value("bad nanoseconds", timerfd_settime(fd, 0, &setting, NULL));
    value("bad settime flags", timerfd_settime(fd, 77, &(struct itimerspec){0}, NULL));
    value("settime of another kind", timerfd_settime(eventfd(0, 0), 0, &(struct itimerspec){0}, NULL));
    value("read 4 bytes", read(fd, &number, 4));
    value("write", give(fd, 1));
    value("settime wild", syscall(SYS_timerfd_settime, fd, 0, wild(), NULL));
}

static void signals(void) {
    sigset_t set, hup;
    struct signalfd_siginfo infos[4];
    sigemptyset(&set), sigaddset(&set, SIGUSR1), sigaddset(&set, SIGUSR2);
    sigemptyset(&hup), sigaddset(&hup, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL), sigprocmask(SIG_BLOCK, &hup, NULL);
    int fd = (int)done("signalfd", signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    value("read of nothing", read(fd, infos, sizeof infos));
    value("ready", ready(fd));
    raise(SIGUSR1), kill(getpid(), SIGUSR2), raise(SIGHUP);
    value("ready with two", ready(fd));
    value("read gives both", read(fd, infos, sizeof infos) / (long)sizeof *infos);
    text("numbers", "%u %u", infos[0].ssi_signo, infos[1].ssi_signo);
    text("codes", "%d %d own pid %d", infos[0].ssi_code, infos[1].ssi_code, infos[1].ssi_pid == (uint32_t)getpid());
    value("they are gone", read(fd, infos, sizeof infos));
    sigset_t pending;
    sigpending(&pending);
    value("HUP is still pending", sigismember(&pending, SIGHUP));
    value("change the set", signalfd(fd, &hup, 0) == fd);
    value("read HUP", read(fd, infos, sizeof *infos) / (long)sizeof *infos);
    value("number", infos[0].ssi_signo);
    sigqueue(getpid(), SIGHUP, (union sigval){.sival_int = 99});
    value("queued value", (read(fd, infos, sizeof *infos), infos[0].ssi_int));
    value("too small a buffer", read(fd, infos, 100));
    value("bad flags", signalfd(-1, &set, 7));
    value("change of another kind", signalfd(eventfd(0, 0), &set, 0));
    value("wrong size", syscall(SYS_signalfd4, -1, &set, 4, 0));
    value("write", write(fd, infos, 8));
}

int main(void) {
    counters();
    timers();
    signals();
    return 0;
}
