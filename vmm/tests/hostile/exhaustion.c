// Whatever a process may have many of, until it has no more: it is told so, and what it had comes back.
#include "hostile.h"
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <netinet/in.h>

enum { EMPTY = 1024 };
static char block[1 << 20];
static struct mmsghdr empty[EMPTY];

static void close_all(void) { MUST(syscall(SYS_close_range, 3, ~0U, 0) == 0); }

static void descriptors(void) {
    int count = 0, fd;
    while ((fd = dup(1)) >= 0) count++;
    MUST(errno == EMFILE && count > 500);
    MUST(open("/dev/null", O_RDONLY) == -1 && errno == EMFILE && socket(AF_INET, SOCK_STREAM, 0) == -1 && eventfd(0, 0) == -1);
    int pair[2];
    MUST(pipe(pair) == -1 && epoll_create1(0) == -1 && timerfd_create(CLOCK_MONOTONIC, 0) == -1 && memfd_create("m", 0) == -1);
    close_all();
}

// Bytes that are on their way, in as many pipes and sockets as there may be.
static void filled(void) {
    int pair[2];
    while (pipe2(pair, O_NONBLOCK) == 0) {
        fcntl(pair[1], F_SETPIPE_SZ, 1 << 20);
        while (write(pair[1], block, sizeof block) > 0) ;
    }
    close_all();
    struct rlimit fewer = {100, 4096};
    MUST(setrlimit(RLIMIT_NOFILE, &fewer) == 0);
    int kinds[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    for (int kind = 0; kind < 3; kind++) {
        while (socketpair(AF_UNIX, kinds[kind] | SOCK_NONBLOCK, 0, pair) == 0) {
            int large = 1 << 30;
            setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &large, sizeof large), setsockopt(pair[1], SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
            for (int i = 0; i < 2; i++) while (send(pair[i], block, kind == 0 ? sizeof block : 60000, 0) > 0) ;
            // Small messages cost more than their bytes. Many by one call: there are a quarter of a million.
            for (int i = 0; i < 2 && kind != 0; i++) while (sendmmsg(pair[i], empty, EMPTY, 0) == EMPTY) ;
        }
        close_all();
    }
    MUST(setrlimit(RLIMIT_NOFILE, &(struct rlimit){4096, 4096}) == 0);
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in here = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
    socklen_t length = sizeof here;
    bind(udp, (struct sockaddr *)&here, length), getsockname(udp, (struct sockaddr *)&here, &length);
    for (int i = 0; i < 20000; i++) sendto(udp, block, i % 3, 0, (struct sockaddr *)&here, length);
    for (int i = 0; i < 2000; i++) sendto(udp, block, 60000, 0, (struct sockaddr *)&here, length);
    close_all();
}

// Sockets that hold each other on their way: Linux needs a collector for these.
static void in_flight(void) {
    for (int round = 0; round < 2000; round++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) != 0) break;
        struct { struct cmsghdr header; int descriptors[2]; } control = {{sizeof control, SOL_SOCKET, SCM_RIGHTS}, {pair[0], pair[1]}};
        struct msghdr message = {.msg_iov = &(struct iovec){block, 40000}, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        sendmsg(pair[0], &message, 0), sendmsg(pair[1], &message, 0);
        close(pair[0]), close(pair[1]);
    }
    close_all();
}

static void names(void) {
    for (int i = 0; i < 3000; i++) {
        int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
        struct sockaddr_un name = {AF_UNIX, {0}};
        snprintf(name.sun_path + 1, 90, "%d", i);
        bind(fd, (struct sockaddr *)&name, sizeof name);
        if (fd < 0 || i % 2) close(fd);
    }
    close_all();
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    MUST(listen(listener, 1 << 30) == 0);
    struct sockaddr_in here;
    socklen_t length = sizeof here;
    getsockname(listener, (struct sockaddr *)&here, &length);
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < 5000; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fd, (struct sockaddr *)&here, length);
        send(fd, block, sizeof block, MSG_NOSIGNAL);
        close(fd);
    }
    close_all();
}

static void event_sets(void) {
    struct epoll_event event = {EPOLLIN, {0}};
    int sets[40];
    for (int i = 0; i < 40; i++) sets[i] = epoll_create1(0);
    MUST(epoll_ctl(sets[0], EPOLL_CTL_ADD, sets[0], &event) == -1 && errno == EINVAL);
    int linked = 0;
    while (linked < 39 && epoll_ctl(sets[linked], EPOLL_CTL_ADD, sets[linked + 1], &event) == 0) linked++;
    MUST(linked < 39 && linked > 0 && (errno == EINVAL || errno == ELOOP));
    MUST(epoll_ctl(sets[linked], EPOLL_CTL_ADD, sets[0], &event) == -1);
    for (int i = 0; i < 40; i++) for (int j = 0; j < 40; j++) epoll_ctl(sets[i], EPOLL_CTL_ADD, sets[j], &event);
    int wake = eventfd(1, 0);
    for (int i = 0; i < 40; i++) epoll_ctl(sets[i], EPOLL_CTL_ADD, wake, &event);
    for (int i = 0; i < 40; i++) epoll_wait(sets[i], &event, 1, 0), lseek(sets[i], 0, SEEK_SET);
    for (int i = 0; i < 2000; i++) write(wake, &(uint64_t){1}, 8);
    close_all();
    struct itimerspec often = {{0, 1}, {0, 1}};
    int timer;
    while ((timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)) >= 0) timerfd_settime(timer, 0, &often, NULL);
    uint64_t ticks;
    while (read(4, &ticks, 8) != 8) sched_yield();
    close_all();
}

static void temporary(void) {
    int fd = open("/tmp/full", O_CREAT | O_RDWR, 0600);
    long written = 0, more;
    while ((more = write(fd, block, sizeof block)) > 0) written += more;
    MUST(errno == ENOSPC && written > 1 << 20);
    MUST(fallocate(fd, 0, 0, 1L << 40) == -1);
    // Larger without being written: no bytes are there, so none are counted, nor given.
    MUST(ftruncate(fd, 1L << 40) == 0 || errno == EFBIG || errno == ENOSPC);
    MUST(pwrite(fd, block, 1, (1L << 40) - 1) == -1);
    MUST(pwrite(fd, block, 1, 0x7ffffffffffffffeL) == -1);
    ftruncate(fd, 0), close(fd);
    MUST((fd = open("/tmp/full", O_RDWR)) >= 0 && write(fd, block, 4096) == 4096);
    unlink("/tmp/full");
    int nodes = 0;
    char name[64];
    for (;; nodes++) {
        snprintf(name, sizeof name, "/tmp/n%d", nodes);
        if (mkdir(name, 0700) != 0) break;
        MUST(nodes < 1000000);
    }
    MUST(errno == ENOSPC && nodes > 1000);
    MUST(symlink("x", "/tmp/one-more") == -1 && open("/tmp/one-more", O_CREAT | O_RDWR, 0600) == -1 && mkfifo("/tmp/one-more", 0600) == -1);
    while (nodes-- > 0) {
        snprintf(name, sizeof name, "/tmp/n%d", nodes);
        MUST(rmdir(name) == 0);
    }
    MUST(mkdir("/tmp/again", 0700) == 0);
    // Files without names, and shared memory, are counted like others.
    int hidden = 0;
    written = 0;
    while ((fd = hidden % 2 ? memfd_create("m", 0) : open("/tmp", O_TMPFILE | O_RDWR, 0600)) >= 0) {
        hidden++;
        while ((more = write(fd, block, sizeof block)) > 0) written += more;
    }
    MUST(hidden > 100 && written < 200L << 20);
    close_all();
    // Links: names without nodes.
    close(open("/tmp/linked", O_CREAT | O_RDWR, 0600));
    int links = 0;
    for (;; links++) {
        snprintf(name, sizeof name, "/tmp/l%d-------------------------------", links);
        if (link("/tmp/linked", name) != 0) break;
        MUST(links < 1000000);
    }
    MUST(errno == EMLINK || errno == ENOSPC);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    descriptors();
    filled();
    in_flight();
    names();
    event_sets();
    temporary();
    return still_here();
}
