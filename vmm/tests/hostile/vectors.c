// Vectors of buffers, messages and events: too many, too long, overlapping, pointing nowhere.
#include "hostile.h"
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <poll.h>

int main(void) {
    static struct iovec vectors[4096];
    int in = open("/dev/zero", O_RDONLY), out = open("/dev/null", O_WRONLY), pair[2];
    int file = open("/tmp/vectors", O_RDWR | O_CREAT, 0600);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    fcntl(pair[0], F_SETFL, O_NONBLOCK), fcntl(pair[1], F_SETFL, O_NONBLOCK);
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    MUST(writev(out, vectors, 1024) == 0 && readv(in, vectors, 1024) == 0);
    for (int count = 1025; count <= 4096; count += 3071) MUST(writev(out, vectors, count) == -1 && errno == EINVAL);
    MUST(syscall(SYS_readv, in, vectors, -1L) == -1 && errno == EINVAL);
    for (int i = 0; i < 1024; i++) vectors[i] = (struct iovec){page, 1L << 62};
    writev(out, vectors, 1024);
    MUST(preadv(in, vectors, 2, 0) == -1);
    for (int i = 0; i < 1024; i++) vectors[i] = (struct iovec){page, 4096};
    for (int i = 0; i < 10; i++) MUST(pwritev(file, vectors, 1024, 0) == 4096 * 1024 && preadv(file, vectors, 1024, 0) == 4096 * 1024);
    uint64_t lengths[] = {0, 1, 4096, 4097, 1ULL << 31, 1ULL << 47, 0x7ffffffffffff000, 1ULL << 63, ~0ULL};
    uint64_t places[] = {0, (uint64_t)page, (uint64_t)page + 4095, (uint64_t)page + 4096, STUB_PAGE, 1ULL << 47, ~0ULL};
    int descriptors[] = {in, out, file, pair[0], pair[1], 1000, -1};
    for (int round = 0; round < 20000; round++) {
        int count = random_number() % 6;
        for (int i = 0; i < count; i++) vectors[i] = (struct iovec){(void *)places[random_number() % 7], lengths[random_number() % 9]};
        int fd = descriptors[random_number() % 7];
        struct msghdr message = {(void *)places[random_number() % 7], (socklen_t)lengths[random_number() % 9], vectors, lengths[random_number() % 9] % 5000, (void *)places[random_number() % 7], lengths[random_number() % 9], 0};
        struct { struct msghdr header; unsigned length; } several[4] = {{message, 0}, {message, 0}};
        switch (random_number() % 12) {
        case 0: readv(fd, vectors, count); break;
        case 1: if (fd != 1) writev(fd, vectors, count); break;
        case 2: sendmsg(fd, &message, (int)random_number() | MSG_DONTWAIT | MSG_NOSIGNAL); break;
        case 3: recvmsg(fd, &message, (int)random_number() | MSG_DONTWAIT); break;
        case 4: syscall(SYS_sendmmsg, fd, several, random_number() % 5, MSG_DONTWAIT | MSG_NOSIGNAL); break;
        case 5: syscall(SYS_recvmmsg, fd, several, random_number(), MSG_DONTWAIT, NULL); break;
        case 6: syscall(SYS_preadv, fd, vectors, count, lengths[random_number() % 9], 0L); break;
        case 7: syscall(SYS_poll, places[random_number() % 7], lengths[random_number() % 9], 0); break;
        case 8: syscall(SYS_select, (int)random_number(), places[random_number() % 7], places[random_number() % 7], 0L, &(long[2]){0, 0}); break;
        case 9: syscall(SYS_sendfile, descriptors[random_number() % 7], fd, places[random_number() % 7], lengths[random_number() % 3]); break;
        case 10: syscall(SYS_copy_file_range, file, places[random_number() % 7], file, places[random_number() % 7], lengths[random_number() % 9], 0L); break;
        default: syscall(SYS_setsockopt, pair[0], SOL_SOCKET, (int)random_number() % 64, places[random_number() % 7], lengths[random_number() % 9]);
        }
        if (round % 64 == 0) ftruncate(file, 0);
    }
    int set = epoll_create1(0);
    MUST(epoll_wait(set, (void *)page, 0x7fffffff, 0) == -1 && syscall(SYS_epoll_wait, set, page, -1L, 0L) == -1);
    // Control messages that claim more than there is.
    struct { struct cmsghdr header; int descriptors[300]; } control = {{sizeof control, SOL_SOCKET, SCM_RIGHTS}, {0}};
    struct msghdr message = {.msg_iov = &(struct iovec){page, 1}, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    MUST(sendmsg(pair[0], &message, 0) == -1);
    for (size_t length = 0; length < 64; length++)
        for (size_t claimed = 0; claimed < 80; claimed++) {
            control.header.cmsg_len = claimed == 79 ? ~0UL : claimed;
            message.msg_controllen = length;
            char drained[4096];
            sendmsg(pair[0], &message, MSG_DONTWAIT);
            while (read(pair[1], drained, sizeof drained) > 0) ;
        }
    return still_here();
}
