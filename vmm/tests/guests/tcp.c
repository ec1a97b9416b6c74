/* Loopback TCP, IPv4 and IPv6: listen, connect, accept, names, nonblocking connect, large data, halves, options, refusals. */
#include "guests.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

union address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
};

static int family;
static socklen_t address_length;
static char bytes[1 << 16];

static union address loopback(unsigned port) {
    union address address;
    memset(&address, 0, sizeof address);
    address.any.sa_family = (sa_family_t)family;
    if (family == AF_INET)
        address.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK), address.four.sin_port = htons((uint16_t)port);
    else
        address.six.sin6_addr = in6addr_loopback, address.six.sin6_port = htons((uint16_t)port);
    return address;
}

static unsigned port_of(const union address *address) { return ntohs(family == AF_INET ? address->four.sin_port : address->six.sin6_port); }

static union address own_name(int fd) {
    union address address;
    socklen_t length = sizeof address;
    need("getsockname", getsockname(fd, &address.any, &length));
    return address;
}

static int tcp(int flags) { return (int)need("socket", socket(family, SOCK_STREAM | flags, 0)); }

static int listening(int backlog) {
    int fd = tcp(0);
    union address any = loopback(0);
    need("bind", bind(fd, &any.any, address_length));
    need("listen", listen(fd, backlog));
    return fd;
}

static int state(int fd) {
    struct pollfd one = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
    poll(&one, 1, 0);
    return one.revents;
}

static int wait_for(int fd, short events) {
    struct pollfd one = {.fd = fd, .events = events};
    poll(&one, 1, -1);
    return one.revents;
}

static int option(int fd, int level, int name) {
    int number = -1;
    socklen_t length = sizeof number;
    return getsockopt(fd, level, name, &number, &length) ? -1 : number;
}

static void connecting(void) {
    int listener = tcp(SOCK_CLOEXEC);
    union address address = loopback(0), got;
    socklen_t length = sizeof got;
    value("bind to port 0", bind(listener, &address.any, address_length));
    address = own_name(listener);
    holds("a port is chosen", port_of(&address) > 0);
    value("bind again", bind(listener, &address.any, address_length));
    int other = tcp(0);
    value("connect before listen", connect(other, &address.any, address_length));
    close(other);
    value("accept before listen", accept(listener, NULL, NULL));
    value("SO_ACCEPTCONN before", option(listener, SOL_SOCKET, SO_ACCEPTCONN));
    value("listen", listen(listener, 8));
    value("SO_ACCEPTCONN", option(listener, SOL_SOCKET, SO_ACCEPTCONN));
    value("the same port again", bind(tcp(0), &address.any, address_length));
    int client = tcp(0);
    value("connect", connect(client, &address.any, address_length));
    value("connect again", connect(client, &address.any, address_length));
    text("listener is readable", "%x", wait_for(listener, POLLIN));
    int server = (int)done("accept4", accept4(listener, &got.any, &length, SOCK_CLOEXEC | SOCK_NONBLOCK));
    value("address length", length == address_length);
    union address client_name = own_name(client);
    holds("peer is the client", port_of(&got) == port_of(&client_name) && got.any.sa_family == family);
    length = sizeof got;
    value("getpeername", getpeername(client, &got.any, &length));
    holds("client's peer is the listener", port_of(&got) == port_of(&address));
    text("flags of accept4", "%d %d", fcntl(server, F_GETFD), !!(fcntl(server, F_GETFL) & O_NONBLOCK));
    value("read of nothing", read(server, bytes, 1));
    text("poll of both", "%x %x", state(server), state(client));
    need("write", write(client, "hello", 5));
    wait_for(server, POLLIN);
    value("MSG_PEEK", recv(server, bytes, 100, MSG_PEEK));
    int waiting = 0;
    value("FIONREAD", (ioctl(server, FIONREAD, &waiting), waiting));
    value("read", read(server, bytes, 2));
    value("rest", read(server, bytes, 100));
    value("write wild", syscall(SYS_write, client, wild(), 5));
    value("accept of nothing", (fcntl(listener, F_SETFL, O_NONBLOCK), accept(listener, NULL, NULL)));
    value("accept on a connected one", accept(client, NULL, NULL));
    value("listen on a connected one", listen(client, 1));
    value("shutdown write", shutdown(client, SHUT_WR));
    wait_for(server, POLLRDHUP);
    text("poll after it", "%x", state(server));
    value("read the end", read(server, bytes, 1));
    value("write on the shut half", send(client, "x", 1, MSG_NOSIGNAL));
    value("the other way works", write(server, "late", 4));
    value("it comes", recv(client, bytes, 4, MSG_WAITALL));
    close(server);
    value("read the end of the other half", read(client, bytes, 1));
    text("poll when both are shut", "%x", wait_for(client, POLLIN));
    close(client), close(listener);
    client = tcp(0);
    value("connect to a closed port", connect(client, &address.any, address_length));
    value("SO_ERROR was taken by connect", option(client, SOL_SOCKET, SO_ERROR));
    close(client);
}

static void nonblocking(void) {
    int listener = listening(8), client = tcp(SOCK_NONBLOCK);
    union address address = own_name(listener);
    long got = connect(client, &address.any, address_length);
    holds("nonblocking connect is in progress or done", got == 0 || errno == EINPROGRESS);
    text("writable", "%x", wait_for(client, POLLOUT));
    value("SO_ERROR", option(client, SOL_SOCKET, SO_ERROR));
    int server = (int)need("accept", accept(listener, NULL, NULL));
    close(listener), close(server);
    int refused = tcp(SOCK_NONBLOCK);
    got = connect(refused, &address.any, address_length);
    if (got == -1 && errno == EINPROGRESS) {
        wait_for(refused, POLLOUT);
        errno = option(refused, SOL_SOCKET, SO_ERROR);
    }
    text("nonblocking connect to a closed port", "%s", error_name(errno));
    close(refused), close(client);
}

static void resets(void) {
    int listener = listening(8), client = tcp(0);
    union address address = own_name(listener);
    need("connect", connect(client, &address.any, address_length));
    int server = (int)need("accept", accept(listener, NULL, NULL));
    need("write", write(client, "unread", 6));
    wait_for(server, POLLIN);
    close(server);
    wait_for(client, POLLIN);
    text("closed with unread data: poll", "%x", state(client));
    value("read", read(client, bytes, 1));
    value("write then", send(client, "x", 1, MSG_NOSIGNAL));
    close(client);
    client = tcp(0);
    need("connect", connect(client, &address.any, address_length));
    server = (int)need("accept", accept(listener, NULL, NULL));
    struct linger hard = {1, 0};
    value("SO_LINGER 0", setsockopt(server, SOL_SOCKET, SO_LINGER, &hard, sizeof hard));
    close(server);
    wait_for(client, POLLIN);
    value("SO_ERROR", option(client, SOL_SOCKET, SO_ERROR));
    value("SO_ERROR is taken", option(client, SOL_SOCKET, SO_ERROR));
    value("read after it was taken", read(client, bytes, 1));
    close(client), close(listener);
}

static void queue(void) {
    int listener = listening(16), clients[5];
    union address address = own_name(listener);
    for (int i = 0; i < 5; i++) {
        clients[i] = tcp(0);
        need("connect", connect(clients[i], &address.any, address_length));
        need("write", write(clients[i], &(char){(char)('a' + i)}, 1));
    }
    char order[6] = {0};
    for (int i = 0; i < 5; i++) {
        int server = (int)need("accept", accept(listener, NULL, NULL));
        need("read", read(server, order + i, 1));
        close(server), close(clients[i]);
    }
    text("accepted in order", "%s", order);
    close(listener);
}

static void *echo(void *argument) {
    int server = (int)need("accept", accept(*(int *)argument, NULL, NULL));
    static char data[30011];
    for (long got; (got = read(server, data, sizeof data)) > 0;)
        for (long sent = 0, now; sent < got; sent += now)
            now = need("write", write(server, data + sent, (size_t)(got - sent)));
    close(server);
    return NULL;
}

enum { LARGE = 4 << 20 };

static void *send_all(void *argument) {
    unsigned char byte = 0;
    static unsigned char data[65536];
    for (long sent = 0; sent < LARGE; sent += (long)sizeof data) {
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = (unsigned char)(byte++ * 7);
        for (size_t at = 0; at < sizeof data;)
            at += (size_t)need("send", send(*(int *)argument, data + at, sizeof data - at, MSG_NOSIGNAL));
    }
    shutdown(*(int *)argument, SHUT_WR);
    return NULL;
}

static void large(void) {
    int listener = listening(4), client = tcp(0);
    union address address = own_name(listener);
    pthread_t echoing, sending;
    pthread_create(&echoing, NULL, echo, &listener);
    need("connect", connect(client, &address.any, address_length));
    pthread_create(&sending, NULL, send_all, &client);
    long total = 0, wrong = 0;
    unsigned char byte = 0;
    for (long got; (got = read(client, bytes, sizeof bytes)) > 0; total += got)
        for (long i = 0; i < got; i++)
            wrong += (unsigned char)bytes[i] != (unsigned char)(byte++ * 7);
    pthread_join(sending, NULL), pthread_join(echoing, NULL);
    text("4 MiB there and back", "%ld wrong %ld", total, wrong);
    close(client), close(listener);
    client = tcp(0), listener = listening(4), address = own_name(listener);
    need("connect", connect(client, &address.any, address_length));
    fcntl(client, F_SETFL, O_NONBLOCK);
    long sent = 0;
    for (long got; (got = write(client, bytes, sizeof bytes)) > 0;)
        sent += got;
    value("buffers fill up", errno == EAGAIN ? 0 : -1);
    int server = (int)need("accept", accept(listener, NULL, NULL));
    shutdown(client, SHUT_WR);
    for (long got; (got = read(server, bytes, sizeof bytes)) > 0;)
        sent -= got;
    value("all that was taken comes", sent);
    close(client), close(server), close(listener);
}

static void options(void) {
    int fd = tcp(0), one = 1;
    value("SO_TYPE", option(fd, SOL_SOCKET, SO_TYPE));
    value("SO_PROTOCOL", option(fd, SOL_SOCKET, SO_PROTOCOL));
    value("SO_DOMAIN is the family", option(fd, SOL_SOCKET, SO_DOMAIN) == family);
    value("TCP_NODELAY before", option(fd, IPPROTO_TCP, TCP_NODELAY));
    value("set TCP_NODELAY", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    value("TCP_NODELAY", option(fd, IPPROTO_TCP, TCP_NODELAY));
    value("SO_KEEPALIVE", (setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one), option(fd, SOL_SOCKET, SO_KEEPALIVE)));
    value("TCP_KEEPIDLE", (setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &(int){77}, sizeof one), option(fd, IPPROTO_TCP, TCP_KEEPIDLE)));
    value("SO_REUSEADDR", (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), option(fd, SOL_SOCKET, SO_REUSEADDR)));
    holds("SO_RCVBUF", setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){65536}, sizeof one) == 0 && option(fd, SOL_SOCKET, SO_RCVBUF) >= 65536);
    holds("SO_SNDBUF", option(fd, SOL_SOCKET, SO_SNDBUF) > 0);
    if (family == AF_INET6)
        value("IPV6_V6ONLY", (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one), option(fd, IPPROTO_IPV6, IPV6_V6ONLY)));
    value("too short a value", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, 1));
    value("wild value", syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_REUSEADDR, wild(), 4));
    value("unknown option", setsockopt(fd, SOL_SOCKET, 9999, &one, sizeof one));
    value("unknown TCP option", setsockopt(fd, IPPROTO_TCP, 9999, &one, sizeof one));
    value("recv unconnected", recv(fd, bytes, 1, 0));
    value("send unconnected", send(fd, "x", 1, MSG_NOSIGNAL));
    value("shutdown unconnected", shutdown(fd, SHUT_WR));
    value("getpeername unconnected", getpeername(fd, (void *)bytes, &(socklen_t){100}));
    union address wrong = loopback(0);
    value("bind too short", bind(fd, &wrong.any, 2));
    wrong.any.sa_family = 77;
    value("bind of a wrong family", bind(fd, &wrong.any, address_length));
    value("connect of a wrong family", connect(fd, &wrong.any, address_length));
    value("getsockname wild", syscall(SYS_getsockname, fd, wild(), wild()));
    int listener = listening(4);
    union address address = own_name(listener);
    close(listener);
    listener = tcp(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    value("the port of a closed listener is free", bind(listener, &address.any, address_length));
    close(listener), close(fd);
}

int main(void) {
    for (int round = 0; round < 2; round++) {
        family = round ? AF_INET6 : AF_INET;
        address_length = round ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
        printf("-- IPv%d\n", round ? 6 : 4);
        connecting();
        nonblocking();
        resets();
        queue();
        large();
        options();
    }
    return 0;
}
