/* A thread in every system call that waits; each is woken after the program went on, and says what the call answered. */
#include "frozen.h"

#include <arpa/inet.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>

/* Far away: nothing here is over by its time. */
#define LONG_S 300

static uint32_t words[3];
static int pipes[10][2], pairs[2][2], full_pipe[2], full_pair[2];
static int event, epoll_event, epoll_set, timer, listener, datagram, signals;
static int locked, ranged;
static int fifo_ready;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int flag;

static struct timespec in_long(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    time.tv_sec += LONG_S;
    return time;
}

static long futex(uint32_t *word, int operation, uint32_t value, struct timespec *time)
{
    long result = syscall(SYS_futex, word, operation, value, time, NULL, FUTEX_BITSET_MATCH_ANY);
    /* A call that is asked again after the word has changed has been woken as well: whoever waits for a futex looks at its word in any case. */
    return result < 0 && errno == EAGAIN ? 0 : result;
}

static long wait_futex(void) { return futex(&words[0], FUTEX_WAIT_PRIVATE, 0, NULL); }
static long wait_futex_relative(void)
{
    struct timespec time = {LONG_S, 0};
    return futex(&words[1], FUTEX_WAIT_PRIVATE, 0, &time);
}
static long wait_futex_absolute(void)
{
    struct timespec time = in_long(CLOCK_MONOTONIC);
    return futex(&words[2], FUTEX_WAIT_BITSET_PRIVATE, 0, &time);
}
static long wait_condition(void)
{
    pthread_mutex_lock(&mutex);
    while (!flag)
        pthread_cond_wait(&condition, &mutex);
    pthread_mutex_unlock(&mutex);
    return flag;
}
static long wait_epoll(void)
{
    struct epoll_event got = {0};
    long count = epoll_wait(epoll_set, &got, 1, LONG_S * 1000);
    return count * 1000 + (long)got.data.u64;
}
/* Without a time: by pipes and eventfds of the program's own, through a set in a set, beside a file of the host's, and by what is added later. */
static int forever[4], inner;
static long wait_for_ever(int set)
{
    struct epoll_event got = {0};
    long count = epoll_pwait(set, &got, 1, -1, NULL);
    return count * 1000 + (long)got.data.u64;
}
static long wait_epoll_forever(void) { return wait_for_ever(forever[0]); }
static long wait_epoll_nested(void) { return wait_for_ever(forever[1]); }
static long wait_epoll_host(void) { return wait_for_ever(forever[2]); }
static long wait_epoll_added(void) { return wait_for_ever(forever[3]); }
static void watch(int set, int fd, uint64_t data)
{
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLET, .data.u64 = data};
    NEED(epoll_ctl(set, EPOLL_CTL_ADD, fd, &wanted) == 0);
}
static long wait_poll(void)
{
    struct pollfd one = {pipes[0][0], POLLIN, 0};
    return poll(&one, 1, -1) * 100 + one.revents;
}
static long wait_ppoll(void)
{
    struct pollfd one = {pipes[1][0], POLLIN, 0};
    struct timespec time = {LONG_S, 0};
    sigset_t mask;
    sigfillset(&mask);
    return ppoll(&one, 1, &time, &mask) * 100 + one.revents;
}
static long wait_select(void)
{
    fd_set set;
    struct timeval time = {LONG_S, 0};
    FD_ZERO(&set);
    FD_SET(pipes[2][0], &set);
    return select(pipes[2][0] + 1, &set, NULL, NULL, &time);
}
static long wait_pselect(void)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pipes[3][0], &set);
    return pselect(pipes[3][0] + 1, &set, NULL, NULL, NULL, NULL);
}
static long wait_pipe(void)
{
    char byte = 0;
    return read(pipes[4][0], &byte, 1) * 1000 + byte;
}
static long wait_event(void)
{
    uint64_t count = 0;
    return read(event, &count, 8) * 1000 + (long)count;
}
static long wait_timer(void)
{
    uint64_t count = 0;
    return read(timer, &count, 8) * 1000 + (long)count;
}
static long wait_stream(void)
{
    char bytes[8];
    return recv(pairs[0][0], bytes, 8, MSG_WAITALL);
}
static long wait_message(void)
{
    char bytes[16];
    struct iovec vector = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    return recvmsg(datagram, &message, 0);
}
static long wait_room_in_pipe(void)
{
    static char bytes[20000];
    return write(full_pipe[1], bytes, sizeof bytes);
}
static long wait_room_in_socket(void)
{
    static char bytes[100000];
    return send(full_pair[1], bytes, sizeof bytes, 0);
}
static long wait_accept(void) { return accept4(listener, NULL, NULL, SOCK_CLOEXEC) > 0; }
static long wait_signal_queued(void)
{
    sigset_t set;
    siginfo_t info = {0};
    struct timespec time = {LONG_S, 0};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    return sigtimedwait(&set, &info, &time) * 1000 + info.si_value.sival_int;
}
static long wait_sigsuspend(void)
{
    sigset_t mask;
    sigemptyset(&mask);
    return sigsuspend(&mask);
}
static long wait_signalfd(void)
{
    struct signalfd_siginfo info = {0};
    return read(signals, &info, sizeof info) * 1000 + info.ssi_signo;
}
static long wait_nanosleep(void)
{
    struct timespec time = {LONG_S, 0}, left = {0, 0};
    long result = nanosleep(&time, &left);
    int kept = errno;
    if (left.tv_sec < LONG_S / 2 || left.tv_sec >= LONG_S)
        return left.tv_sec;
    errno = kept;
    return result;
}
static long wait_clock_nanosleep(void)
{
    struct timespec time = in_long(CLOCK_MONOTONIC);
    errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
    return errno ? -1 : 0;
}
static long wait_realtime_nanosleep(void)
{
    struct timespec time = in_long(CLOCK_REALTIME);
    errno = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &time, NULL);
    return errno ? -1 : 0;
}
static long wait_flock(void)
{
    int own = open("/tmp/frozen-lock", O_RDWR);
    long result = flock(own, LOCK_EX);
    close(own);
    return result;
}
static long wait_range(void)
{
    int own = open("/tmp/frozen-lock", O_RDWR);
    struct flock lock = {.l_type = F_WRLCK, .l_start = 10, .l_len = 5};
    long result = fcntl(own, F_OFD_SETLKW, &lock);
    close(own);
    return result;
}
static long wait_fifo(void)
{
    char bytes[8];
    int own = open("/tmp/frozen-fifo", O_RDONLY);
    __atomic_store_n(&fifo_ready, own, __ATOMIC_SEQ_CST);
    return read(own, bytes, sizeof bytes);
}

struct one {
    const char *name;
    long (*wait)(void);
    pthread_t thread;
    char said[64];
};

#define ONE(name) {#name, wait_##name, 0, ""}
static struct one all[] = {
    ONE(futex), ONE(futex_relative), ONE(futex_absolute), ONE(condition), ONE(epoll), ONE(epoll_forever), ONE(epoll_nested), ONE(epoll_host), ONE(epoll_added), ONE(poll), ONE(ppoll), ONE(select), ONE(pselect),
    ONE(pipe), ONE(event), ONE(timer), ONE(stream), ONE(message), ONE(room_in_pipe), ONE(room_in_socket), ONE(accept), ONE(signal_queued),
    ONE(sigsuspend), ONE(signalfd), ONE(nanosleep), ONE(clock_nanosleep), ONE(realtime_nanosleep), ONE(flock), ONE(range), ONE(fifo),
};
#define COUNT (sizeof all / sizeof all[0])

static void *run(void *argument)
{
    struct one *one = argument;
    strcpy(one->said, result_of(one->wait()));
    return NULL;
}

static pthread_t thread_of(const char *name)
{
    for (size_t index = 0; index < COUNT; index++)
        if (strcmp(all[index].name, name) == 0)
            return all[index].thread;
    abort();
}

static void nothing(int signal) { (void)signal; }

static struct sockaddr_in loopback(int fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    if (fd >= 0)
        NEED(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    return address;
}

static void fill(int fd)
{
    static char bytes[4096];
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    while (write(fd, bytes, sizeof bytes) > 0)
        ;
    fcntl(fd, F_SETFL, flags);
}

/* Takes what is there and what comes, until `more` bytes beyond what was there have come. */
static void drain(int fd, size_t total)
{
    static char bytes[65536];
    while (total > 0) {
        ssize_t count = read(fd, bytes, total < sizeof bytes ? total : sizeof bytes);
        NEED(count > 0);
        total -= (size_t)count;
    }
}

static size_t waiting_in(int fd, int request)
{
    int count = 0;
    NEED(syscall(SYS_ioctl, fd, request, &count) == 0);
    return (size_t)count;
}

int main(void)
{
    struct sockaddr_in address = loopback(-1);
    sigset_t blocked;
    struct flock range = {.l_type = F_WRLCK, .l_start = 0, .l_len = 100};

    for (int index = 0; index < 10; index++)
        NEED(pipe(pipes[index]) == 0);
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[0]) == 0);
    NEED(pipe(full_pipe) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, full_pair) == 0);
    fill(full_pipe[1]);
    fill(full_pair[1]);
    event = eventfd(0, 0);
    epoll_event = eventfd(0, 0);
    epoll_set = epoll_create1(0);
    struct epoll_event wanted = {.events = EPOLLIN, .data.u64 = 42};
    NEED(epoll_ctl(epoll_set, EPOLL_CTL_ADD, epoll_event, &wanted) == 0);
    for (int index = 0; index < 4; index++)
        NEED((forever[index] = epoll_create1(0)) >= 0);
    NEED((inner = epoll_create1(0)) >= 0);
    watch(forever[0], pipes[6][0], 6);
    watch(inner, pipes[7][0], 7);
    watch(forever[1], inner, 70);
    watch(forever[2], pipes[8][0], 8);
    watch(forever[2], 1, 80);
    timer = timerfd_create(CLOCK_MONOTONIC, 0);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    NEED(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 1) == 0);
    datagram = socket(AF_INET, SOCK_DGRAM, 0);
    NEED(bind(datagram, (struct sockaddr *)&address, sizeof address) == 0);
    unlink("/tmp/frozen-lock");
    unlink("/tmp/frozen-fifo");
    locked = open("/tmp/frozen-lock", O_CREAT | O_RDWR, 0600);
    ranged = open("/tmp/frozen-lock", O_RDWR);
    NEED(flock(locked, LOCK_EX) == 0 && fcntl(ranged, F_OFD_SETLK, &range) == 0);
    NEED(mkfifo("/tmp/frozen-fifo", 0600) == 0);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGUSR2);
    sigaddset(&blocked, SIGHUP);
    NEED(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGHUP);
    signals = signalfd(-1, &blocked, 0);
    struct sigaction action = {.sa_handler = nothing};
    NEED(sigaction(SIGUSR2, &action, NULL) == 0 && sigaction(SIGALRM, &action, NULL) == 0);

    for (size_t index = 0; index < COUNT; index++)
        NEED(pthread_create(&all[index].thread, NULL, run, &all[index]) == 0);
    be_frozen_here();

    words[0] = words[1] = words[2] = 1;
    for (int index = 0; index < 3; index++)
        syscall(SYS_futex, &words[index], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    pthread_mutex_lock(&mutex);
    flag = 7;
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&mutex);
    uint64_t five = 5;
    NEED(write(epoll_event, &five, 8) == 8 && write(event, &five, 8) == 8);
    for (int index = 0; index < 5; index++)
        NEED(write(pipes[index][1], "x", 1) == 1);
    for (int index = 6; index < 10; index++)
        NEED(write(pipes[index][1], "x", 1) == 1);
    watch(forever[3], pipes[9][0], 9);
    struct itimerspec soon = {.it_value = {0, 1000000}};
    NEED(timerfd_settime(timer, 0, &soon, NULL) == 0);
    NEED(write(pairs[0][1], "1234", 4) == 4 && write(pairs[0][1], "5678", 4) == 4);
    int sender = socket(AF_INET, SOCK_DGRAM, 0);
    address = loopback(datagram);
    NEED(sendto(sender, "message", 7, 0, (struct sockaddr *)&address, sizeof address) == 7);
    drain(full_pipe[0], waiting_in(full_pipe[0], 0x541b) + 20000);
    drain(full_pair[0], waiting_in(full_pair[0], 0x541b) + 100000);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    address = loopback(listener);
    NEED(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    union sigval value = {.sival_int = 33};
    NEED(pthread_sigqueue(thread_of("signal_queued"), SIGUSR1, value) == 0);
    NEED(pthread_kill(thread_of("sigsuspend"), SIGUSR2) == 0);
    NEED(pthread_kill(thread_of("signalfd"), SIGHUP) == 0);
    NEED(pthread_kill(thread_of("nanosleep"), SIGALRM) == 0);
    NEED(pthread_kill(thread_of("clock_nanosleep"), SIGALRM) == 0);
    NEED(pthread_kill(thread_of("realtime_nanosleep"), SIGALRM) == 0);
    NEED(flock(locked, LOCK_UN) == 0);
    range.l_type = F_UNLCK;
    NEED(fcntl(ranged, F_OFD_SETLK, &range) == 0);
    int writer = open("/tmp/frozen-fifo", O_WRONLY);
    NEED(writer >= 0 && write(writer, "fifo", 4) == 4);

    for (size_t index = 0; index < COUNT; index++) {
        NEED(pthread_join(all[index].thread, NULL) == 0);
        printf("%s: %s\n", all[index].name, all[index].said);
    }
    unlink("/tmp/frozen-lock");
    unlink("/tmp/frozen-fifo");
    return 0;
}
