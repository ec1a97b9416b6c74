/* Reads from the socket at 3, whose other end sends back what it gets, in the cases that decide whether a micro-VM does so without leaving its guest
   (vmm/crates/kernel/src/inside.s). With an argument the socket is the standard input. Run by monitor/tests/inlet.rs on Linux, too. */
#include "../guests/guests.h"
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

enum { PAGE = 4096, GIVEN = 3, MANY = 100000 };

static unsigned char sent, expected, buffer[MANY];
static int set;

/* Has so many bytes come, each one more than the one before it; all are there. */
static void come(size_t count) {
    static unsigned char bytes[MANY];
    for (size_t at = 0; at < count; at++)
        bytes[at] = sent++;
    for (size_t at = 0; at < count;) {
        ssize_t wrote = write(GIVEN, bytes + at, count - at);
        if (wrote > 0)
            at += (size_t)wrote;
        else if (errno == EAGAIN)
            poll(&(struct pollfd){.fd = GIVEN, .events = POLLOUT}, 1, -1);
        else if (errno != EINTR)
            need("bytes", -1);
    }
}

static void wait_for(int fd) {
    struct pollfd one = {.fd = fd, .events = POLLIN};
    while (poll(&one, 1, -1) != 1) {
    }
}

/* Whether the next bytes are those that are due. */
static int are_due(const unsigned char *bytes, ssize_t count) {
    for (ssize_t at = 0; at < count; at++)
        if (bytes[at] != expected++)
            return 0;
    return 1;
}

static long at_once(int fd) {
    struct epoll_event events[8];
    return epoll_wait(fd, events, 8, 0);
}

static long waited(int fd) {
    struct epoll_event events[8];
    long got;
    while ((got = epoll_wait(fd, events, 8, -1)) == -1 && errno == EINTR) {
    }
    return got;
}

/* Reads until so many have been read. */
static void gather(size_t count) {
    for (size_t got = 0; got < count;) {
        wait_for(GIVEN);
        ssize_t more = read(GIVEN, buffer, count - got);
        if (more <= 0 || !are_due(buffer, more)) {
            text("not what is due", "after %zu of %zu: %zd", got, count, more);
            return;
        }
        got += (size_t)more;
    }
}

/* As runners do. */
static void answers(void) {
    long wrong = 0;
    for (int turn = 0; turn < 500; turn++) {
        come(440);
        for (size_t got = 0; got < 440;) {
            wrong += waited(set) != 1;
            ssize_t more = turn % 2 ? read(GIVEN, buffer, 65536) : recv(GIVEN, buffer, 65536, 0);
            wrong += more <= 0 || !are_due(buffer, more);
            got += more > 0 ? (size_t)more : 440;
        }
        wrong += at_once(set) != 0;
        wrong += at_once(set) != 0;
    }
    value("wrong answers", wrong);
}

static void pieces(char *edge) {
    come(20);
    value("something is there", waited(set));
    gather(20);
    value("all was taken", at_once(set));
    for (int size = 1; size < 10; size++) {
        come(1);
        gather(1);
        come((size_t)size * 3);
        gather(1);
        gather(1);
        gather((size_t)size * 3 - 2);
    }
    come(10);
    wait_for(GIVEN);
    value("none", read(GIVEN, buffer, 0));
    value("to nowhere", read(GIVEN, wild(), 10));
    value("to a place that no address space has", read(GIVEN, (void *)(1UL << 63), 10));
    value("more than there can be", syscall(SYS_read, GIVEN, buffer, 1UL << 63));
    value("still there", at_once(set));
    value("one", read(GIVEN, buffer, 1));
    holds("the first", are_due(buffer, 1));
    value("still there", at_once(set));
    struct iovec ranges[] = {{buffer, 2}, {buffer + 2, 3}};
    value("two ranges", readv(GIVEN, ranges, 2));
    holds("the next", are_due(buffer, 5));
    value("with an unknown flag", recv(GIVEN, buffer, 2, MSG_DONTWAIT));
    holds("the next", are_due(buffer, 2));
    struct sockaddr from;
    socklen_t length = sizeof from;
    value("with an address", recvfrom(GIVEN, buffer, 1, 0, &from, &length));
    holds("the next", are_due(buffer, 1));
    value("the last", read(GIVEN, buffer, 5));
    holds("the next", are_due(buffer, 1));
    value("nothing more", at_once(set));
    come(6);
    wait_for(GIVEN);
    ssize_t over = read(GIVEN, edge - 3, 6);
    /* Linux gives what fits, or nothing. */
    holds("over the edge of what is mapped", over == 3 || (over == -1 && errno == EFAULT));
    if (over == 3)
        holds("the next", are_due((unsigned char *)edge - 3, 3));
    gather(over == 3 ? 3 : 6);
    value("nothing more", at_once(set));
    static const size_t sizes[] = {4095, 4096, 4097, 8192, 65536, MANY};
    for (int at = 0; at < 6; at++) {
        come(sizes[at]);
        gather(sizes[at]);
    }
    value("nothing more", at_once(set));
    value("would wait", recv(GIVEN, buffer, 1, MSG_DONTWAIT));
    value("none of nothing", read(GIVEN, buffer, 0));
    value("nonblocking", fcntl(GIVEN, F_SETFL, O_NONBLOCK));
    value("would wait", read(GIVEN, buffer, 1));
    value("blocking", fcntl(GIVEN, F_SETFL, 0));
    /* The call waits, and not for all. */
    come(3);
    ssize_t got = read(GIVEN, buffer, 100);
    holds("some", got > 0 && are_due(buffer, got));
    gather(3 - (size_t)got);
}

static void descriptors(void) {
    come(10);
    wait_for(GIVEN);
    int other = dup(GIVEN);
    value("by the other", read(other, buffer, 4));
    holds("the first", are_due(buffer, 4));
    value("by the one", read(GIVEN, buffer, 2));
    holds("the next", are_due(buffer, 2));
    value("close", close(GIVEN));
    value("closed", read(GIVEN, buffer, 2));
    value("by the other", read(other, buffer, 2));
    holds("the next", are_due(buffer, 2));
    int one = eventfd(7, 0);
    need("a descriptor", one == GIVEN ? 0 : -1);
    unsigned long count = 0;
    value("another file", read(GIVEN, &count, 8));
    value("its value", (long)count);
    value("back", dup2(other, GIVEN));
    value("the rest", read(GIVEN, buffer, 9));
    holds("the last", are_due(buffer, 2));
    come(5);
    wait_for(other);
    value("by the one", read(GIVEN, buffer, 3));
    holds("the next", are_due(buffer, 3));
    value("by the other", read(other, buffer, 3));
    holds("the next", are_due(buffer, 2));
    need("close", close(other));
    /* The set watched the description by a number that stood for another meanwhile. */
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1};
    epoll_ctl(set, EPOLL_CTL_DEL, GIVEN, NULL);
    need("the set", epoll_ctl(set, EPOLL_CTL_ADD, GIVEN, &event));
}

static void sets(void) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 2}, got[4];
    int counter = eventfd(0, EFD_NONBLOCK), ends[2];
    need("pipe", pipe2(ends, O_NONBLOCK));
    unsigned long one = 1;
    value("nothing", at_once(set));
    value("a counter", epoll_ctl(set, EPOLL_CTL_ADD, counter, &event));
    value("a pipe", epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event));
    for (int turn = 0; turn < 3; turn++) {
        value("nothing", at_once(set));
        value("the counter", write(counter, &one, 8));
        value("something", at_once(set));
        value("the counter", read(counter, &one, 8));
        value("nothing", at_once(set));
        value("the pipe", write(ends[1], "x", 1));
        value("something", at_once(set));
        value("the pipe", read(ends[0], &one, 1));
        one = 1;
        value("nothing", at_once(set));
        come(2);
        value("the socket", waited(set));
        value("with the counter", write(counter, &one, 8));
        value("two", at_once(set));
        gather(2);
        value("the counter", at_once(set));
        value("the counter", read(counter, &one, 8));
        value("nothing", at_once(set));
    }
    value("places for none", epoll_wait(set, got, 0, 0));
    value("places for -1", syscall(SYS_epoll_wait, set, got, -1, 0));
    value("places for very many", syscall(SYS_epoll_wait, set, got, INT32_MAX, 0));
    value("places nowhere", epoll_wait(set, (void *)(1UL << 63), 1, 0));
    value("places that are not mapped", epoll_wait(set, wild(), 1, 0));
    sigset_t none;
    sigemptyset(&none);
    value("with a mask", epoll_pwait(set, got, 1, 0, &none));
    value("with a wild mask", syscall(SYS_epoll_pwait, set, got, 1, 0, wild(), 8));
    value("no set", epoll_wait(GIVEN, got, 1, 0));
    value("no descriptor", epoll_wait(-1, got, 1, 0));
    value("for a millisecond", epoll_wait(set, got, 1, 1));
    event.events = EPOLLIN | EPOLLOUT;
    value("room, too", epoll_ctl(set, EPOLL_CTL_MOD, GIVEN, &event));
    value("there is", at_once(set));
    event.events = EPOLLIN | EPOLLET;
    value("edges", epoll_ctl(set, EPOLL_CTL_MOD, GIVEN, &event));
    value("none", at_once(set));
    come(2);
    value("one", waited(set));
    value("once", at_once(set));
    gather(2);
    value("none", at_once(set));
    event.events = EPOLLIN | EPOLLONESHOT;
    value("once", epoll_ctl(set, EPOLL_CTL_MOD, GIVEN, &event));
    come(2);
    value("once", waited(set));
    value("no more", at_once(set));
    event.events = EPOLLIN;
    value("again", epoll_ctl(set, EPOLL_CTL_MOD, GIVEN, &event));
    value("again", at_once(set));
    gather(2);
    value("nothing", at_once(set));
    int other = epoll_create1(0);
    value("another set", epoll_ctl(other, EPOLL_CTL_ADD, ends[1], &(struct epoll_event){.events = EPOLLOUT}));
    int number = dup(set);
    value("the same set", at_once(number));
    value("nothing", at_once(number));
    value("the other in its place", dup2(other, number) == number);
    value("something", at_once(number));
    value("close", close(number));
    value("closed", at_once(number));
    value("the set in a set", epoll_ctl(other, EPOLL_CTL_MOD, ends[1], &(struct epoll_event){.events = EPOLLIN}));
    value("the set in a set", epoll_ctl(other, EPOLL_CTL_ADD, set, &event));
    value("nothing", at_once(other));
    come(1);
    value("something", waited(other));
    gather(1);
    value("nothing", at_once(other));
    close(other);
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(GIVEN, &readable);
    struct timeval now = {0, 0};
    value("select", select(GIVEN + 1, &readable, NULL, NULL, &now));
    come(1);
    wait_for(GIVEN);
    FD_SET(GIVEN, &readable);
    value("select", select(GIVEN + 1, &readable, NULL, NULL, &now));
    gather(1);
    value("no counter", epoll_ctl(set, EPOLL_CTL_DEL, counter, NULL));
    close(counter);
    close(ends[0]);
    close(ends[1]);
}

static atomic_long left, sum;

/* Takes its share in pieces of its own size. */
static void *shares(void *argument) {
    size_t size = (size_t)argument;
    unsigned char bytes[64];
    while (atomic_load(&left) > 0) {
        ssize_t got = read(GIVEN, bytes, size);
        if (got <= 0)
            continue;
        long total = 0;
        for (ssize_t at = 0; at < got; at++)
            total += bytes[at];
        atomic_fetch_add(&sum, total);
        atomic_fetch_sub(&left, got);
        at_once(set);
    }
    return NULL;
}

static void shared(void) {
    need("nonblocking", fcntl(GIVEN, F_SETFL, O_NONBLOCK));
    pthread_t threads[3];
    long total = 0;
    atomic_store(&left, 300 * 200);
    for (size_t at = 0; at < 3; at++)
        returned("pthread_create", pthread_create(&threads[at], NULL, shares, (void *)(at * 5 + 1)));
    for (int turn = 0; turn < 300; turn++) {
        for (int at = 0; at < 200; at++)
            total += (unsigned char)(sent + at);
        come(200);
    }
    for (int at = 0; at < 3; at++)
        returned("pthread_join", pthread_join(threads[at], NULL));
    value("more than there was", -atomic_load(&left));
    value("what was read less than what was sent", total - atomic_load(&sum));
    expected = sent;
    need("blocking", fcntl(GIVEN, F_SETFL, 0));
}

static atomic_int alarms;

static void alarmed(int signal) {
    (void)signal;
    atomic_fetch_add(&alarms, 1);
}

/* Interrupted at any instruction, nothing is lost and nothing comes twice. */
static void interrupted(void) {
    struct sigaction action = {.sa_handler = alarmed, .sa_flags = SA_RESTART};
    need("a handler", sigaction(SIGALRM, &action, NULL));
    struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    need("a timer", setitimer(ITIMER_REAL, &often, NULL));
    long wrong = 0;
    while (atomic_load(&alarms) < 200) {
        come(3000);
        for (size_t got = 0; got < 3000;) {
            waited(set);
            ssize_t more = read(GIVEN, buffer, got % 7 + 1);
            wrong += more <= 0 || !are_due(buffer, more);
            got += more > 0 ? (size_t)more : 0;
        }
        long now = at_once(set);
        wrong += now > 0;
    }
    need("no timer", setitimer(ITIMER_REAL, &never, NULL));
    value("wrong answers between signals", wrong);
}

int main(int count, char **arguments) {
    (void)arguments;
    if (count > 1) {
        need("the socket", dup2(0, GIVEN));
        need("no input", dup2(need("nothing", open("/dev/null", O_RDONLY)), 0));
    }
    set = (int)need("a set", epoll_create1(0));
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1};
    need("the socket in it", epoll_ctl(set, EPOLL_CTL_ADD, GIVEN, &event));
    char *pages = mapped("two pages", mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    value("the second is gone", munmap(pages + PAGE, PAGE));
    answers();
    pieces(pages + PAGE);
    descriptors();
    sets();
    answers();
    shared();
    interrupted();
    answers();
    come(4);
    wait_for(GIVEN);
    value("no more is said", shutdown(GIVEN, SHUT_WR));
    gather(4);
    value("the end", waited(set));
    value("the end", read(GIVEN, buffer, 1));
    value("the end", read(GIVEN, buffer, 1));
    value("the end", at_once(set));
    return 0;
}
