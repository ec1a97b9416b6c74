/* A handler in a blocked call: EINTR or restarted, by call and by SA_RESTART; sleeps keep their rest; a handler's siglongjmp. */
#include "guests.h"
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>

static volatile sig_atomic_t handled;
static void counting(int number) { handled += number > 0; }

enum kind { READ, WRITE, RECV, ACCEPT, POLL, PPOLL, SELECT, EPOLL, NANOSLEEP, CLOCK_ABSOLUTE, FUTEX, PAUSE, SIGTIMEDWAIT, OPEN_FIFO, KINDS };
static const char *const names[] = {"read of a pipe", "write of a full pipe", "recv", "accept", "poll", "ppoll", "select", "epoll_wait", "nanosleep", "clock_nanosleep absolute", "futex wait", "pause", "sigtimedwait", "open of a FIFO"};

static int ends[2], full[2], sockets[2], listener, epoll;
static volatile uint32_t word;
static volatile int blocked, over;
static pthread_t sleeper;

static long call(enum kind kind) {
    char byte;
    struct pollfd one = {.fd = ends[0], .events = POLLIN};
    struct epoll_event event;
    struct timespec long_time = {100, 0}, until;
    fd_set set;
    sigset_t usr2;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    sigemptyset(&usr2), sigaddset(&usr2, SIGUSR2);
    clock_gettime(CLOCK_MONOTONIC, &until), until.tv_sec += 100;
    switch (kind) {
    case READ: return read(ends[0], &byte, 1);
    case WRITE: return write(full[1], &byte, 1);
    case RECV: return recv(sockets[0], &byte, 1, 0);
    case ACCEPT: return accept(listener, NULL, NULL) == -1 ? -1 : 0;
    case POLL: return poll(&one, 1, -1);
    case PPOLL: return ppoll(&one, 1, &long_time, NULL);
    case SELECT: return select(ends[0] + 1, &set, NULL, NULL, NULL);
    case EPOLL: return epoll_wait(epoll, &event, 1, -1);
    case NANOSLEEP: return nanosleep(&long_time, NULL);
    case CLOCK_ABSOLUTE: errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL); return errno ? -1 : 0;
    /* A call that is restarted between the change of the word and the wake-up is right to say EAGAIN. */
    case FUTEX: return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0) == -1 && (errno != EAGAIN || !word) ? -1 : 0;
    case PAUSE: return pause();
    case SIGTIMEDWAIT: return sigtimedwait(&usr2, NULL, &long_time);
    default: return open("fifo", O_RDONLY) == -1 ? -1 : 0;
    }
}

/* What lets a restarted call end. */
static void release(enum kind kind) {
    static char drain[65536];
    struct sockaddr address;
    socklen_t length = sizeof address;
    switch (kind) {
    case READ: (void)!write(ends[1], "x", 1); break;
    case WRITE: (void)!read(full[0], drain, sizeof drain); break;
    case RECV: (void)!write(sockets[1], "x", 1); break;
    case ACCEPT: getsockname(listener, &address, &length), connect(socket(AF_UNIX, SOCK_STREAM, 0), &address, length); break;
    case FUTEX: word = 1, syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); break;
    case OPEN_FIFO: open("fifo", O_WRONLY); break;
    default: break;
    }
}

struct job {
    enum kind kind;
    long result;
    int error;
};

static void *block(void *argument) {
    struct job *job = argument;
    blocked = 1;
    job->result = call(job->kind);
    job->error = errno;
    over = 1;
    return NULL;
}

/* A signal may come before the call blocks, so without SA_RESTART it is sent again until the call ends. */
static void run(enum kind kind, int flags, int restarts) {
    struct sigaction action = {.sa_handler = counting, .sa_flags = flags};
    struct job job = {.kind = kind};
    sigaction(SIGUSR1, &action, NULL);
    handled = blocked = over = 0;
    pthread_create(&sleeper, NULL, block, &job);
    while (!blocked)
        brief_rest();
    for (int sent = 0; !over && !(restarts && handled >= 5); sent++) {
        pthread_kill(sleeper, SIGUSR1);
        brief_rest();
    }
    if (restarts)
        release(kind);
    pthread_join(sleeper, NULL);
    errno = job.error;
    char name[64];
    snprintf(name, sizeof name, "%s, %s", names[kind], flags ? "SA_RESTART" : "no SA_RESTART");
    value(name, job.result);
}

static void fill(int fd) {
    static char block[4096];
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (write(fd, block, sizeof block) > 0)
        continue;
    fcntl(fd, F_SETFL, 0);
}

static void *interrupt_main(void *argument) {
    pthread_t *main_thread = argument;
    while (!over) {
        pthread_kill(*main_thread, SIGUSR1);
        brief_rest();
    }
    return NULL;
}

static void rest_of_sleep(void) {
    struct sigaction action = {.sa_handler = counting, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    struct timespec asked = {50, 0}, left = {0, 0};
    pthread_t self = pthread_self(), thread;
    over = 0;
    pthread_create(&thread, NULL, interrupt_main, &self);
    value("interrupted nanosleep", nanosleep(&asked, &left));
    over = 1;
    pthread_join(thread, NULL);
    /* The kernel's timer slack (50 us) may show in the rest. */
    holds("rest is not above what was asked and above half", left.tv_sec <= 50 && left.tv_sec >= 25);
    over = 0, handled = 0;
    pthread_create(&thread, NULL, interrupt_main, &self);
    /* The other thread may take longer to begin than one sleep lasts. */
    int interruptions = 0, whole = 1;
    while (interruptions == 0) {
        struct timespec short_sleep = milliseconds(30);
        int64_t start = clock_ns(CLOCK_MONOTONIC);
        for (; nanosleep(&short_sleep, &short_sleep) == -1 && errno == EINTR; interruptions++)
            continue;
        whole &= clock_ns(CLOCK_MONOTONIC) - start >= 30000000;
    }
    over = 1;
    pthread_join(thread, NULL);
    holds("sleeping on the rest takes the whole time", whole);
    holds("and was interrupted", interruptions > 0 && handled > 0);
}

static sigjmp_buf back;
static void jump(int number) { siglongjmp(back, number); }

static void jumping(void) {
    struct sigaction action = {.sa_handler = jump};
    sigaction(SIGALRM, &action, NULL);
    static volatile int round;
    for (; round < 3; round++) {
        char byte;
        struct timespec hour = {3600, 0};
        struct itimerspec soon = {.it_value = milliseconds(2)};
        timer_t timer;
        need("timer_create", timer_create(CLOCK_MONOTONIC, NULL, &timer));
        int got = sigsetjmp(back, 1);
        if (got == 0) {
            timer_settime(timer, 0, &soon, NULL);
            if (round == 0)
                (void)!read(ends[0], &byte, 1);
            else if (round == 1)
                nanosleep(&hour, NULL);
            else
                for (;;)
                    continue;
        }
        value("jumped out of a call or loop", got == SIGALRM);
    }
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    value("mask is restored by siglongjmp", sigismember(&mask, SIGALRM));
}

static void *send_many(void *argument) {
    for (int i = 0; i < 200; i++) {
        pthread_kill(*(pthread_t *)argument, SIGUSR1);
        sched_yield();
    }
    over = 1;
    return NULL;
}

/* Many signals while data flows: nothing may be lost or doubled. */
static void under_fire(void) {
    struct sigaction action = {.sa_handler = counting, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    pthread_t self = pthread_self(), thread;
    over = 0;
    pthread_create(&thread, NULL, send_many, &self);
    long sent = 0, got = 0, wrong = 0;
    for (unsigned char byte = 0; !over || sent < 1000; byte++) {
        unsigned char back_byte;
        sent += write(ends[1], &byte, 1);
        got += read(ends[0], &back_byte, 1);
        wrong += byte != back_byte;
    }
    pthread_join(thread, NULL);
    text("bytes under fire", "lost %ld wrong %ld", sent - got, wrong);
}

int main(void) {
    scratch();
    struct sockaddr_un_short { sa_family_t family; } name = {AF_UNIX};
    need("pipes", pipe(ends) | pipe(full) | socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) | mkfifo("fifo", 0600));
    listener = (int)need("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    need("bind", bind(listener, (struct sockaddr *)&name, sizeof name));
    need("listen", listen(listener, 4));
    epoll = (int)need("epoll", epoll_create1(0));
    need("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &(struct epoll_event){.events = EPOLLIN}));
    for (enum kind kind = 0; kind < KINDS; kind++) {
        if (kind == WRITE)
            fill(full[1]);
        run(kind, 0, 0);
        run(kind, SA_RESTART, kind <= ACCEPT || kind == FUTEX || kind == OPEN_FIFO);
    }
    rest_of_sleep();
    jumping();
    under_fire();
    return 0;
}
