/* Sockets inside the guest: who listens, who is connected, what lies in them, descriptors on their way. */
#include "frozen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_in loopback(int fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    if (fd >= 0)
        NEED(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    return address;
}

static int connected_to(int listener)
{
    struct sockaddr_in address = loopback(listener);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    NEED(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    return client;
}

static void say(const char *name, int fd)
{
    char bytes[64] = "";
    ssize_t count = recv(fd, bytes, sizeof bytes - 1, MSG_DONTWAIT);
    printf("%s: %s %s\n", name, result_of(count), bytes);
}

static void send_file(int socket, int file, const char *text)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec vector = {(void *)text, strlen(text)};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(header), &file, sizeof file);
    NEED(sendmsg(socket, &message, 0) == (ssize_t)strlen(text));
}

static int receive_file(int socket, const char *name)
{
    char control[CMSG_SPACE(sizeof(int))] = {0}, bytes[64] = "";
    struct iovec vector = {bytes, sizeof bytes - 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t count = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int file = -1;
    if (header)
        memcpy(&file, CMSG_DATA(header), sizeof file);
    printf("%s: %s %s, %s\n", name, result_of(count), bytes, file >= 0 ? "a descriptor" : "no descriptor");
    return file;
}

static ino_t ino(int fd)
{
    struct stat stat;
    NEED(fstat(fd, &stat) == 0);
    return stat.st_ino;
}

static struct sockaddr_un unix_name(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strcpy(name.sun_path, path);
    return name;
}

int main(void)
{
    int yes = 1;
    struct sockaddr_in any = loopback(-1);
    /* Listens, with a connection that has been accepted, and one with bytes that has not. */
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    NEED(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
    NEED(bind(listener, (struct sockaddr *)&any, sizeof any) == 0 && listen(listener, 8) == 0);
    int client = connected_to(listener), server = accept(listener, NULL, NULL);
    int early = connected_to(listener);
    NEED(send(client, "to server", 9, 0) == 9 && send(server, "to client", 9, 0) == 9 && send(early, "early", 5, 0) == 5);
    NEED(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0);
    struct timeval patience = {3, 0};
    NEED(setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
    /* Half closed, and reset. */
    int other = socket(AF_INET, SOCK_STREAM, 0);
    NEED(bind(other, (struct sockaddr *)&any, sizeof any) == 0 && listen(other, 8) == 0);
    int shut = connected_to(other), shut_server = accept(other, NULL, NULL);
    NEED(send(shut_server, "last words", 10, 0) == 10 && shutdown(shut_server, SHUT_WR) == 0);
    int reset = connected_to(other), reset_server = accept(other, NULL, NULL);
    struct linger hard = {1, 0};
    NEED(setsockopt(reset_server, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0 && close(reset_server) == 0);
    /* Unix sockets: a pair with descriptors on their way, one of which is a socket with one on its way. */
    int pair[2], inner[2], pipe_ends[2];
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, inner) == 0 && pipe(pipe_ends) == 0);
    NEED(write(pipe_ends[1], "in the pipe", 11) == 11 && close(pipe_ends[1]) == 0);
    send_file(inner[0], pipe_ends[0], "pipe");
    send_file(pair[0], inner[1], "socket");
    NEED(send(pair[0], " and more", 9, 0) == 9);
    NEED(close(pipe_ends[0]) == 0 && close(inner[1]) == 0);
    /* Names: a path and an abstract one. */
    struct sockaddr_un path = unix_name("/tmp/frozen.sock"), hidden = {.sun_family = AF_UNIX, .sun_path = "\0frozen"};
    socklen_t hidden_len = offsetof(struct sockaddr_un, sun_path) + 7;
    unlink(path.sun_path);
    int named = socket(AF_UNIX, SOCK_STREAM, 0), abstract = socket(AF_UNIX, SOCK_DGRAM, 0), talker = socket(AF_UNIX, SOCK_DGRAM, 0);
    NEED(bind(named, (struct sockaddr *)&path, sizeof path) == 0 && listen(named, 4) == 0);
    NEED(bind(abstract, (struct sockaddr *)&hidden, hidden_len) == 0 && connect(talker, (struct sockaddr *)&hidden, hidden_len) == 0);
    NEED(send(talker, "one", 3, 0) == 3 && send(talker, "two", 3, 0) == 3);
    /* UDP. */
    int udp = socket(AF_INET, SOCK_DGRAM, 0), from = socket(AF_INET, SOCK_DGRAM, 0);
    NEED(bind(udp, (struct sockaddr *)&any, sizeof any) == 0 && bind(from, (struct sockaddr *)&any, sizeof any) == 0);
    struct sockaddr_in to = loopback(udp), source = loopback(from), got = {0};
    NEED(sendto(from, "datagram", 8, 0, (struct sockaddr *)&to, sizeof to) == 8);
    /* An epoll set that watches, for edges, what it has told already, and what it has not. */
    int set = epoll_create1(0);
    struct epoll_event told = {.events = EPOLLIN | EPOLLET, .data.u64 = 1}, fresh = {.events = EPOLLIN | EPOLLET, .data.u64 = 2}, events[4];
    NEED(epoll_ctl(set, EPOLL_CTL_ADD, udp, &told) == 0 && epoll_wait(set, events, 4, 0) == 1);
    NEED(epoll_ctl(set, EPOLL_CTL_ADD, server, &fresh) == 0);
    struct sockaddr_in name = loopback(listener), peer = {0};
    ino_t inodes[] = {ino(listener), ino(client), ino(pair[0])};
    be_frozen_here();

    printf("inodes: %s\n", inodes[0] == ino(listener) && inodes[1] == ino(client) && inodes[2] == ino(pair[0]) ? "the same" : "others");
    printf("epoll: %d", epoll_wait(set, events, 4, 0));
    printf(" of %d\n", (int)events[0].data.u64);
    struct sockaddr_in now = loopback(listener);
    printf("port: %s\n", now.sin_port == name.sin_port ? "the same" : "another");
    socklen_t len = sizeof peer;
    NEED(getpeername(client, (struct sockaddr *)&peer, &len) == 0);
    printf("peer: %s\n", peer.sin_port == name.sin_port ? "the listener's" : "another");
    int taken = socket(AF_INET, SOCK_STREAM, 0);
    printf("bind: %s\n", result_of(bind(taken, (struct sockaddr *)&now, sizeof now)));
    say("server", server);
    say("client", client);
    say("nothing more", client);
    NEED(send(server, "again", 5, 0) == 5);
    say("client again", client);
    int value = 0;
    len = sizeof value;
    NEED(getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &value, &len) == 0);
    struct timeval shown = {0};
    socklen_t time_len = sizeof shown;
    NEED(getsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &shown, &time_len) == 0);
    printf("options: %d %ld.%06ld\n", value, (long)shown.tv_sec, (long)shown.tv_usec);
    say("shut", shut);
    say("end", shut);
    printf("write back: %s\n", result_of(send(shut, "still", 5, 0)));
    say("shut server", shut_server);
    say("reset", reset);
    int late = connected_to(listener);
    NEED(send(late, "late", 4, 0) == 4);
    int accepted = accept(listener, NULL, NULL);
    say("accepted first", accepted);
    int passed = receive_file(pair[1], "pair");
    say("rest", pair[1]);
    int pipe_end = receive_file(passed, "passed socket");
    char bytes[32] = "";
    printf("passed pipe: %s", result_of(read(pipe_end, bytes, 31)));
    printf(" %s", bytes);
    printf(" then %s\n", result_of(read(pipe_end, bytes, 31)));
    int unix_client = socket(AF_UNIX, SOCK_STREAM, 0);
    printf("path: %s\n", result_of(connect(unix_client, (struct sockaddr *)&path, sizeof path)));
    int unix_server = accept(named, NULL, NULL);
    NEED(send(unix_client, "by path", 7, 0) == 7);
    say("by path", unix_server);
    say("abstract", abstract);
    NEED(send(talker, "three", 5, 0) == 5);
    say("abstract", abstract);
    say("abstract", abstract);
    len = sizeof got;
    memset(bytes, 0, sizeof bytes);
    printf("udp: %s", result_of(recvfrom(udp, bytes, 31, MSG_DONTWAIT, (struct sockaddr *)&got, &len)));
    printf(" %s from %s\n", bytes, got.sin_port == source.sin_port ? "its sender" : "another");
    NEED(sendto(from, "second", 6, 0, (struct sockaddr *)&to, sizeof to) == 6);
    say("udp", udp);
    unlink(path.sun_path);
    return 0;
}
