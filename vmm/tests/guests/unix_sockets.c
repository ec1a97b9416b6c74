/* Unix sockets: pairs of all three types, names, listen and accept, halves, passing descriptors, credentials, peeking. */
#include "guests.h"
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static char bytes[1 << 18];

static void show(const char *name, long got) {
    if (got <= 0)
        value(name, got);
    else
        text(name, "%ld '%.*s'", got, (int)got, bytes);
}

static int state(int fd) {
    struct pollfd one = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
    poll(&one, 1, 0);
    return one.revents;
}

static void stream(void) {
    int pair[2];
    value("socketpair", socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    value("CLOEXEC", fcntl(pair[0], F_GETFD));
    value("write", write(pair[0], "hello", 5));
    value("send", send(pair[0], " there", 6, 0));
    show("MSG_PEEK", recv(pair[1], bytes, 100, MSG_PEEK));
    show("a stream has no borders", recv(pair[1], bytes, 8, 0));
    show("rest", read(pair[1], bytes, 100));
    value("MSG_DONTWAIT", recv(pair[1], bytes, 1, MSG_DONTWAIT));
    value("read of 0 bytes, of none", read(pair[1], bytes, 0));
    need("write", write(pair[0], "abc", 3));
    value("read of 0 bytes", read(pair[1], bytes, 0));
    int waiting = 0;
    value("FIONREAD", (ioctl(pair[1], FIONREAD, &waiting), waiting));
    value("recv of 0 bytes", recv(pair[1], bytes, 0, 0));
    need("write", write(pair[0], "def", 3));
    show("MSG_WAITALL", recv(pair[1], bytes, 6, MSG_WAITALL));
    text("poll", "%x", state(pair[1]));
    value("shutdown write", shutdown(pair[0], SHUT_WR));
    value("read the end", read(pair[1], bytes, 1));
    text("poll then", "%x", state(pair[1]));
    value("write on the shut half", send(pair[0], "x", 1, MSG_NOSIGNAL));
    value("the other way works", write(pair[1], "back", 4));
    show("it comes", read(pair[0], bytes, 10));
    value("shutdown read", shutdown(pair[0], SHUT_RD));
    value("write to one that shut reading", send(pair[1], "x", 1, MSG_NOSIGNAL));
    value("shutdown nonsense", shutdown(pair[0], 7));
    close(pair[0]);
    text("poll of a closed peer", "%x", state(pair[1]));
    value("write to a closed peer", send(pair[1], "x", 1, MSG_NOSIGNAL));
    need("pair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    need("write", write(pair[0], "unread", 6));
    close(pair[1]);
    value("closed with unread data: write", send(pair[0], "x", 1, MSG_NOSIGNAL));
    value("closed with unread data: read", read(pair[0], bytes, 1));
    need("pair", socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
    long total = 0;
    for (long got; (got = write(pair[0], bytes, 4096)) > 0;)
        total += got;
    value("full", errno == EAGAIN ? 0 : 1);
    holds("between 64 KiB and 1 MiB fit", total >= 65536 && total <= 1 << 20);
    text("poll when full", "%x", state(pair[0]) & POLLOUT);
    for (long got; (got = read(pair[1], bytes, sizeof bytes)) > 0;)
        total -= got;
    value("all came", total);
}

static void messages(int type, const char *name) {
    int pair[2];
    need(name, socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, pair));
    printf("-- %s\n", name);
    value("send", send(pair[0], "first message", 13, 0));
    value("send", send(pair[0], "second", 6, 0));
    value("send of 0 bytes", send(pair[0], "", 0, 0));
    value("read of 0 bytes takes no message", read(pair[1], bytes, 0));
    show("MSG_PEEK", recv(pair[1], bytes, 100, MSG_PEEK));
    show("cut short", recv(pair[1], bytes, 5, 0));
    value("MSG_TRUNC tells the length", recv(pair[1], bytes, 2, MSG_TRUNC));
    value("empty message", recv(pair[1], bytes, 100, 0));
    value("nothing", recv(pair[1], bytes, 100, 0));
    struct iovec part = {bytes, 4};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    send(pair[0], "longer", 6, 0);
    value("recvmsg", recvmsg(pair[1], &message, 0));
    holds("MSG_TRUNC is set", message.msg_flags & MSG_TRUNC);
    struct mmsghdr many[3] = {{.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}}};
    value("sendmmsg", sendmmsg(pair[0], many, 2, 0));
    value("recvmmsg", recvmmsg(pair[1], many, 2, 0, NULL));
    value("too large a message", syscall(SYS_sendto, pair[0], bytes, 1 << 30, 0, NULL, 0));
    close(pair[0]);
    value("send to a closed peer", send(pair[1], "x", 1, MSG_NOSIGNAL));
    if (type == SOCK_SEQPACKET)
        value("recv from a closed peer", recv(pair[1], bytes, 1, 0));
    close(pair[1]);
}

static struct sockaddr_un named(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, name);
    return address;
}

static void names(void) {
    struct sockaddr_un address = named("here"), got;
    socklen_t length = sizeof got;
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    value("connect to no name", connect(client, (void *)&address, sizeof address));
    value("listen without a name", listen(listener, 1));
    value("bind", bind(listener, (void *)&address, sizeof address));
    value("bind again", bind(listener, (void *)&address, sizeof address));
    value("bind over a name", bind(client, (void *)&address, sizeof address));
    struct stat status;
    holds("the name is a socket", stat("here", &status) == 0 && S_ISSOCK(status.st_mode));
    value("open of it", open("here", O_RDWR));
    value("connect before listen", connect(client, (void *)&address, sizeof address));
    value("accept before listen", accept(listener, NULL, NULL));
    value("listen", listen(listener, 2));
    value("connect", connect(client, (void *)&address, sizeof address));
    value("connect again", connect(client, (void *)&address, sizeof address));
    value("write before accept", write(client, "early", 5));
    int server = (int)done("accept4", accept4(listener, (void *)&got, &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    text("peer without a name", "%d", (int)length);
    text("flags", "%d %d", fcntl(server, F_GETFD), !!(fcntl(server, F_GETFL) & O_NONBLOCK));
    show("read", read(server, bytes, 100));
    length = sizeof got;
    value("getpeername", getpeername(client, (void *)&got, &length));
    text("name", "%s %d", got.sun_path, (int)length - (int)offsetof(struct sockaddr_un, sun_path));
    length = sizeof got;
    value("getsockname of the server", getsockname(server, (void *)&got, &length));
    text("name", "%s", got.sun_path);
    struct ucred who;
    length = sizeof who;
    value("SO_PEERCRED", getsockopt(client, SOL_SOCKET, SO_PEERCRED, &who, &length));
    holds("is this process", who.pid == getpid() && who.uid == geteuid() && who.gid == getegid() && length == sizeof who);
    value("accept nonblocking", (fcntl(listener, F_SETFL, O_NONBLOCK), accept(listener, NULL, NULL)));
    value("accept4 bad flags", accept4(listener, NULL, NULL, 1));
    close(listener);
    value("connect after close", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, sizeof address));
    value("the name stays", unlink("here"));
    value("established ones stay", write(client, "x", 1));
    address = named("nowhere/here");
    value("bind below nothing", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, sizeof address));
    value("bind too short", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, 1));
    value("bind too long", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, 200));
    address.sun_family = AF_INET;
    value("bind of another family", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, sizeof address));
    struct sockaddr_un hidden = {.sun_family = AF_UNIX};
    length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + sprintf(hidden.sun_path + 1, "guest-%d", getpid()));
    listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    value("abstract bind", bind(listener, (void *)&hidden, length));
    value("abstract bind twice", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&hidden, length));
    value("abstract listen", listen(listener, 1));
    value("abstract connect", connect(client, (void *)&hidden, length));
    value("another length is another name", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&hidden, length - 1));
    close(listener);
    value("abstract name is free again", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&hidden, length));
    value("autobind", bind(socket(AF_UNIX, SOCK_DGRAM, 0), (void *)&hidden, sizeof(sa_family_t)));
}

static void datagrams(void) {
    int a = socket(AF_UNIX, SOCK_DGRAM, 0), b = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct sockaddr_un at = named("dgram-a"), bt = named("dgram-b"), from;
    socklen_t length = sizeof from;
    value("bind both", bind(a, (void *)&at, sizeof at) | bind(b, (void *)&bt, sizeof bt));
    value("sendto", sendto(a, "to b", 4, 0, (void *)&bt, sizeof bt));
    show("recvfrom", recvfrom(b, bytes, 100, 0, (void *)&from, &length));
    text("from", "%s", from.sun_path);
    value("send unconnected", send(a, "x", 1, 0));
    value("connect", connect(a, (void *)&bt, sizeof bt));
    value("send", send(a, "again", 5, 0));
    show("recv", recv(b, bytes, 100, 0));
    value("connect a stream to it", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&bt, sizeof bt));
    value("listen", listen(a, 1));
    close(b);
    value("send to a closed one", send(a, "x", 1, 0));
}

static void passing(void) {
    int pair[2], ends[2], got[4];
    need("setup", socketpair(AF_UNIX, SOCK_STREAM, 0, pair) | pipe(ends));
    union {
        char room[CMSG_SPACE(sizeof(int) * 4)];
        struct cmsghdr align;
    } control = {.room = {0}};
    struct iovec part = {(char[1]){'f'}, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(sizeof ends)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof ends), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(header), ends, sizeof ends);
    value("send two descriptors", sendmsg(pair[0], &message, 0));
    close(ends[0]), close(ends[1]);
    memset(&control, 0, sizeof control);
    message.msg_controllen = sizeof control;
    value("receive them", recvmsg(pair[1], &message, MSG_CMSG_CLOEXEC));
    header = CMSG_FIRSTHDR(&message);
    text("control", "length %zu, rights %d", (size_t)header->cmsg_len, header->cmsg_type == SCM_RIGHTS);
    memcpy(got, CMSG_DATA(header), sizeof ends);
    value("CLOEXEC", fcntl(got[0], F_GETFD));
    value("write by the received one", write(got[1], "passed", 6));
    show("read by the other", read(got[0], bytes, 10));
    message.msg_controllen = CMSG_SPACE(sizeof(int));
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &(int){900}, sizeof(int));
    value("a closed one", sendmsg(pair[0], &message, 0));
    memcpy(CMSG_DATA(header), &got[0], sizeof(int));
    need("sendmsg", sendmsg(pair[0], &message, 0));
    message.msg_controllen = 0;
    value("received without room", recvmsg(pair[1], &message, 0));
    holds("MSG_CTRUNC", message.msg_flags & MSG_CTRUNC);
    value("SO_PASSCRED", setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)));
    need("write", write(pair[0], "c", 1));
    message.msg_controllen = sizeof control;
    need("recvmsg", recvmsg(pair[1], &message, 0));
    header = CMSG_FIRSTHDR(&message);
    struct ucred who;
    memcpy(&who, CMSG_DATA(header), sizeof who);
    holds("credentials came", header->cmsg_type == SCM_CREDENTIALS && who.pid == getpid());
}

static void options(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), number = 0;
    socklen_t length = sizeof number;
    value("SO_TYPE", (getsockopt(fd, SOL_SOCKET, SO_TYPE, &number, &length), number));
    value("SO_DOMAIN", (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &number, &length), number));
    value("SO_ACCEPTCONN", (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &number, &length), number));
    value("SO_ERROR", (getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &length), number));
    struct timeval wait = {0, 3000};
    value("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait));
    int pair[2];
    need("pair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    value("recv times out", recv(pair[0], bytes, 1, 0));
    value("unknown option", getsockopt(fd, SOL_SOCKET, 9999, &number, &length));
    value("TCP option", setsockopt(fd, 6, 1, &number, length));
    value("recv unconnected", recv(fd, bytes, 1, 0));
    value("send unconnected", send(fd, "x", 1, MSG_NOSIGNAL));
    value("getpeername unconnected", getpeername(fd, (void *)bytes, &length));
    value("recv on a file", recv(open("/dev/null", O_RDWR), bytes, 1, 0));
    value("listen on a file", listen(open("/dev/null", O_RDWR), 1));
    value("unknown family", socket(99, SOCK_STREAM, 0));
    value("unknown type", socket(AF_UNIX, 99, 0));
    value("unknown protocol", socket(AF_UNIX, SOCK_STREAM, 99));
    value("pair of TCP", socketpair(AF_INET, SOCK_STREAM, 0, pair));
    value("pair to a wild address", syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, wild()));
    value("sendmsg wild", syscall(SYS_sendmsg, fd, wild(), 0));
}

int main(void) {
    scratch();
    stream();
    messages(SOCK_DGRAM, "datagram pair");
    messages(SOCK_SEQPACKET, "seqpacket pair");
    names();
    datagrams();
    passing();
    options();
    return 0;
}
