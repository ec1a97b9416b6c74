/* Loopback UDP, IPv4 and IPv6: sendto, recvfrom, connected sockets, borders of messages, refusals, both families in one socket. */
#include "guests.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

union address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
};

static char bytes[70000];

static union address name_of(int fd) {
    union address address;
    socklen_t length = sizeof address;
    need("getsockname", getsockname(fd, &address.any, &length));
    return address;
}

static void show(const char *name, long got) {
    if (got <= 0)
        value(name, got);
    else
        text(name, "%ld '%.*s'", got, (int)got, bytes);
}

static void talk(int family) {
    union address any = {.any.sa_family = (sa_family_t)family}, from;
    socklen_t length = family == AF_INET ? sizeof any.four : sizeof any.six, got = sizeof from;
    if (family == AF_INET)
        any.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        any.six.sin6_addr = in6addr_loopback;
    int a = (int)need("socket", socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0)), b = (int)need("socket", socket(family, SOCK_DGRAM, 0));
    value("bind", bind(a, &any.any, length));
    value("bind", bind(b, &any.any, length));
    union address at_a = name_of(a), at_b = name_of(b);
    holds("two ports", memcmp(&at_a, &at_b, length));
    value("bind again", bind(a, &any.any, length));
    value("bind to a used port", bind(socket(family, SOCK_DGRAM, 0), &at_b.any, length));
    value("sendto", sendto(a, "first", 5, 0, &at_b.any, length));
    value("sendto", sendto(a, "second", 6, 0, &at_b.any, length));
    value("sendto of 0 bytes", sendto(a, "", 0, 0, &at_b.any, length));
    int waiting = 0;
    value("FIONREAD is the first", (ioctl(b, FIONREAD, &waiting), waiting));
    value("read of 0 bytes takes no message", read(b, bytes, 0));
    show("MSG_PEEK", recv(b, bytes, 100, MSG_PEEK));
    show("recvfrom", recvfrom(b, bytes, 100, 0, &from.any, &got));
    holds("from", got == length && !memcmp(&from, &at_a, family == AF_INET ? 8 : 4));
    value("cut short with MSG_TRUNC", recv(b, bytes, 3, MSG_TRUNC));
    value("empty message", recv(b, bytes, 3, 0));
    value("MSG_DONTWAIT", recv(b, bytes, 3, MSG_DONTWAIT));
    value("send without a peer", send(a, "x", 1, 0));
    value("connect", connect(a, &at_b.any, length));
    value("send", send(a, "connected", 9, 0));
    show("recv", recv(b, bytes, 100, 0));
    value("getpeername", getpeername(a, &from.any, &(socklen_t){sizeof from}));
    int stranger = socket(family, SOCK_DGRAM, 0);
    need("sendto", sendto(stranger, "strange", 7, 0, &at_a.any, length));
    need("sendto", sendto(b, "known", 5, 0, &at_a.any, length));
    show("a connected one hears only its peer", recv(a, bytes, 100, 0));
    value("nothing else", recv(a, bytes, 100, MSG_DONTWAIT));
    value("a stranger that sent has a port", ntohs(name_of(stranger).four.sin_port) > 0);
    value("largest message", sendto(b, bytes, 65507, 0, &at_a.any, length));
    value("it comes whole", recv(a, bytes, sizeof bytes, 0));
    value("too large a message", sendto(b, bytes, 65536, 0, &at_a.any, length));
    close(b);
    value("send to a closed port", send(a, "x", 1, 0));
    struct pollfd one = {.fd = a, .events = POLLIN};
    poll(&one, 1, -1);
    value("then it is refused", send(a, "x", 1, 0));
    any.any.sa_family = AF_UNSPEC;
    while (recv(a, bytes, 1, MSG_DONTWAIT) == -1 && errno == ECONNREFUSED)
        continue;
    value("disconnect", connect(a, &any.any, length));
    value("getpeername then", getpeername(a, &from.any, &(socklen_t){sizeof from}));
    value("listen", listen(a, 1));
    value("accept", accept(a, NULL, NULL));
    value("shutdown without a peer", shutdown(a, SHUT_RD));
    value("sendto too short an address", sendto(a, "x", 1, 0, &at_b.any, 3));
    value("sendto wild address", syscall(SYS_sendto, a, "x", 1, 0, wild(), length));
    close(a), close(stranger);
}

static void both(void) {
    union address any = {.six = {.sin6_family = AF_INET6}}, at, from;
    socklen_t length = sizeof from;
    int six = socket(AF_INET6, SOCK_DGRAM, 0), four = socket(AF_INET, SOCK_DGRAM, 0);
    value("V6ONLY off", setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int)));
    value("bind to any", bind(six, &any.any, sizeof any.six));
    at.four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = name_of(six).six.sin6_port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    value("IPv4 sends to it", sendto(four, "mapped", 6, 0, &at.any, sizeof at.four));
    show("it comes", recvfrom(six, bytes, 100, 0, &from.any, &length));
    char name[64];
    text("from", "%s", inet_ntop(AF_INET6, &from.six.sin6_addr, name, sizeof name));
}

int main(void) {
    puts("-- IPv4");
    talk(AF_INET);
    puts("-- IPv6");
    talk(AF_INET6);
    puts("-- both");
    both();
    return 0;
}
