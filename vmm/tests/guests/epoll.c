/* epoll: level, edge and one-shot, what can be added, nested, exclusive, timeouts, wake-ups between threads, dup and close. */
#include "guests.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static int epoll, ends[2];

static long control(int operation, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll, operation, fd, &event);
}

static void show(const char *name, int timeout) {
    struct epoll_event events[8];
    int got = epoll_wait(epoll, events, 8, timeout);
    if (got <= 0)
        value(name, got);
    else
        text(name, "%d, first %x data %llu", got, events[0].events, (unsigned long long)events[0].data.u64);
}

static void drain(void) {
    char bytes[64];
    (void)!read(ends[0], bytes, sizeof bytes);
}

static void refusals(void) {
    struct epoll_event event;
    int file = open("f", O_CREAT | O_RDWR, 0600), folder = open(".", O_RDONLY);
    value("create size 0", epoll_create(0));
    value("create1 bad flags", epoll_create1(1));
    value("CLOEXEC", fcntl(epoll_create1(EPOLL_CLOEXEC), F_GETFD));
    value("add", control(EPOLL_CTL_ADD, ends[0], EPOLLIN, 1));
    value("add again", control(EPOLL_CTL_ADD, ends[0], EPOLLIN, 1));
    int copy = dup(ends[0]);
    value("add a dup", control(EPOLL_CTL_ADD, copy, EPOLLIN, 1));
    value("del the dup", control(EPOLL_CTL_DEL, copy, 0, 0));
    close(copy);
    value("mod of one not there", control(EPOLL_CTL_MOD, ends[1], EPOLLIN, 1));
    value("del of one not there", control(EPOLL_CTL_DEL, ends[1], 0, 0));
    value("add a file", control(EPOLL_CTL_ADD, file, EPOLLIN, 1));
    value("add a folder", control(EPOLL_CTL_ADD, folder, EPOLLIN, 1));
    value("add a closed one", control(EPOLL_CTL_ADD, 900, EPOLLIN, 1));
    value("add itself", control(EPOLL_CTL_ADD, epoll, EPOLLIN, 1));
    value("unknown operation", control(9, ends[0], EPOLLIN, 1));
    value("wild event", syscall(SYS_epoll_ctl, epoll, EPOLL_CTL_MOD, ends[0], wild()));
    value("del needs no event", epoll_ctl(epoll, EPOLL_CTL_DEL, ends[0], NULL));
    value("ctl of a pipe", epoll_ctl(ends[0], EPOLL_CTL_ADD, ends[1], &event));
    value("wait for 0 events", epoll_wait(epoll, &event, 0, 0));
    value("wait for -1 events", syscall(SYS_epoll_wait, epoll, &event, -1, 0));
    value("wait on a pipe", epoll_wait(ends[0], &event, 1, 0));
    value("wait on a closed one", epoll_wait(900, &event, 1, 0));
    value("wait with nothing added", epoll_wait(epoll, &event, 1, 0));
    value("wait 3 ms", epoll_wait(epoll, &event, 1, 3));
    control(EPOLL_CTL_ADD, ends[1], EPOLLOUT, 1);
    value("wait into a wild address", syscall(SYS_epoll_wait, epoll, wild(), 1, 0));
    control(EPOLL_CTL_DEL, ends[1], 0, 0);
    value("pwait2", syscall(SYS_epoll_pwait2, epoll, &event, 1, &(struct timespec){0, 1000000}, NULL, 8));
    value("pwait2 bad time", syscall(SYS_epoll_pwait2, epoll, &event, 1, &(struct timespec){0, -1}, NULL, 8));
    value("read of an epoll", read(epoll, &event, 1));
}

static void triggers(void) {
    control(EPOLL_CTL_ADD, ends[0], EPOLLIN, 11);
    show("level, empty", 0);
    need("write", write(ends[1], "abc", 3));
    show("level, data", 0);
    show("level, still data", 0);
    drain();
    show("level, drained", 0);
    control(EPOLL_CTL_MOD, ends[0], EPOLLIN | EPOLLET, 12);
    need("write", write(ends[1], "abc", 3));
    show("edge, data", 0);
    show("edge, not again", 0);
    need("write", write(ends[1], "d", 1));
    show("edge, more data", 0);
    drain();
    show("edge, drained", 0);
    need("write", write(ends[1], "e", 1));
    control(EPOLL_CTL_MOD, ends[0], EPOLLIN | EPOLLET, 13);
    show("edge, mod arms it", 0);
    control(EPOLL_CTL_MOD, ends[0], EPOLLIN | EPOLLONESHOT, 14);
    show("one-shot", 0);
    show("one-shot is spent", 0);
    need("write", write(ends[1], "f", 1));
    show("one-shot, more data", 0);
    control(EPOLL_CTL_MOD, ends[0], EPOLLIN | EPOLLONESHOT, 15);
    show("one-shot armed again", 0);
    control(EPOLL_CTL_DEL, ends[0], 0, 0);
    show("deleted", 0);
    control(EPOLL_CTL_ADD, ends[0], EPOLLIN | EPOLLET, 16);
    show("added with data there, edge", 0);
    drain();
    control(EPOLL_CTL_MOD, ends[0], 0, 17);
    need("write", write(ends[1], "g", 1));
    show("no events asked", 0);
    drain();
    control(EPOLL_CTL_ADD, ends[1], EPOLLOUT | EPOLLET, 18);
    show("writable edge", 0);
    show("writable edge, not again", 0);
    control(EPOLL_CTL_DEL, ends[1], 0, 0);
    control(EPOLL_CTL_DEL, ends[0], 0, 0);
}

static void sockets(void) {
    int pair[2], event_fd = eventfd(0, EFD_NONBLOCK);
    need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    control(EPOLL_CTL_ADD, pair[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 21);
    show("socket", 0);
    need("write", write(pair[1], "x", 1));
    show("socket readable", 0);
    shutdown(pair[1], SHUT_WR);
    show("half closed", 0);
    close(pair[1]);
    show("closed", 0);
    close(pair[0]);
    show("a closed one is gone from the set", 0);
    control(EPOLL_CTL_ADD, event_fd, EPOLLIN | EPOLLET, 22);
    eventfd_write(event_fd, 1);
    show("eventfd", 0);
    eventfd_write(event_fd, 1);
    show("eventfd edge, each write counts", 0);
    int copy = dup(event_fd);
    close(event_fd);
    eventfd_write(copy, 1);
    show("registered and closed, but a dup is open", 0);
    close(copy);
    show("the dup is closed too", 0);
    int others[2];
    need("pipe", pipe(others));
    control(EPOLL_CTL_ADD, others[0], EPOLLIN, 23);
    close(others[1]);
    show("pipe without a writer", 0);
    close(others[0]);
    need("pipe", pipe(others));
    control(EPOLL_CTL_ADD, others[1], EPOLLOUT, 24);
    close(others[0]);
    show("pipe without a reader", 0);
    close(others[1]);
}

static void nesting(void) {
    int inner = epoll, outer = epoll_create1(0), third = epoll_create1(0);
    epoll = outer;
    value("nest", control(EPOLL_CTL_ADD, inner, EPOLLIN, 31));
    epoll = inner;
    value("a loop", control(EPOLL_CTL_ADD, outer, EPOLLIN, 31));
    control(EPOLL_CTL_ADD, ends[0], EPOLLIN, 32);
    epoll = outer;
    show("nested, nothing", 0);
    need("write", write(ends[1], "x", 1));
    show("nested, data", 0);
    struct pollfd one = {.fd = outer, .events = POLLIN};
    value("poll of an epoll", poll(&one, 1, 0));
    drain();
    show("nested, drained", 0);
    value("poll then", poll(&one, 1, 0));
    epoll = third;
    value("exclusive", control(EPOLL_CTL_ADD, ends[0], EPOLLIN | EPOLLEXCLUSIVE, 33));
    value("exclusive cannot be changed", control(EPOLL_CTL_MOD, ends[0], EPOLLIN, 33));
    value("exclusive and one-shot", (control(EPOLL_CTL_DEL, ends[0], 0, 0), control(EPOLL_CTL_ADD, ends[0], EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 33)));
    value("exclusive by mod", (control(EPOLL_CTL_ADD, ends[0], EPOLLIN, 33), control(EPOLL_CTL_MOD, ends[0], EPOLLIN | EPOLLEXCLUSIVE, 33)));
    close(third), close(outer);
    epoll = inner;
    control(EPOLL_CTL_DEL, ends[0], 0, 0);
}

static void *write_later(void *argument) {
    brief_rest();
    need("write", write(*(int *)argument, "y", 1));
    return NULL;
}

static void *add_later(void *argument) {
    brief_rest();
    control(EPOLL_CTL_ADD, *(int *)argument, EPOLLIN, 42);
    return NULL;
}

static void *take_one(void *argument) {
    struct epoll_event event;
    long got = epoll_wait(epoll, &event, 1, -1);
    char byte;
    if (got == 1 && read(ends[0], &byte, 1) == 1)
        __atomic_fetch_add((int *)argument, 1, __ATOMIC_RELAXED);
    control(EPOLL_CTL_MOD, ends[0], EPOLLIN | EPOLLONESHOT, 43);
    return NULL;
}

static void threads(void) {
    pthread_t thread, takers[4];
    control(EPOLL_CTL_ADD, ends[0], EPOLLIN, 41);
    pthread_create(&thread, NULL, write_later, &ends[1]);
    show("woken by another thread", -1);
    pthread_join(thread, NULL);
    control(EPOLL_CTL_DEL, ends[0], 0, 0);
    pthread_create(&thread, NULL, add_later, &ends[0]);
    show("woken by an add", -1);
    pthread_join(thread, NULL);
    drain();
    control(EPOLL_CTL_MOD, ends[0], EPOLLIN | EPOLLONESHOT, 43);
    int taken = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&takers[i], NULL, take_one, &taken);
    for (int i = 0; i < 4; i++)
        need("write", write(ends[1], "z", 1));
    for (int i = 0; i < 4; i++)
        pthread_join(takers[i], NULL);
    value("4 threads took one each", taken);
    struct epoll_event events[2];
    int many = epoll_create1(0), fds[20];
    epoll = many;
    for (int i = 0; i < 20; i++)
        fds[i] = eventfd(1, 0), control(EPOLL_CTL_ADD, fds[i], EPOLLIN, (uint64_t)i);
    unsigned seen = 0;
    for (int i = 0; i < 10; i++)
        for (int got = epoll_wait(many, events, 2, 0); got-- > 0;)
            seen |= 1U << events[got].data.u64;
    text("20 ready, two at a time, all are seen", "%x", seen);
}

int main(void) {
    scratch();
    epoll = (int)need("epoll", epoll_create1(0));
    need("pipe", pipe2(ends, O_NONBLOCK));
    refusals();
    triggers();
    sockets();
    nesting();
    threads();
    return 0;
}
