// Pipes, eventfd, epoll, poll.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static void *late(void *arg) {
    struct timespec t = {0, 30000000};
    nanosleep(&t, NULL);
    write(*(int *)arg, "later", 5);
    return NULL;
}

int main(void) {
    int fds[2];
    char text[70000];
    pipe2(fds, O_NONBLOCK | O_CLOEXEC);
    printf("empty %ld %d\n", (long)read(fds[0], text, 9), errno);
    long filled = 0, n;
    while ((n = write(fds[1], text, 4096)) > 0) filled += n;
    printf("full %ld %d\n", filled, errno);
    while (read(fds[0], text, sizeof text) > 0) {}
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77}, got[4];
    printf("add %d\n", epoll_ctl(ep, EPOLL_CTL_ADD, fds[0], &event));
    printf("add %d %d\n", epoll_ctl(ep, EPOLL_CTL_ADD, fds[0], &event), errno);
    printf("none %d\n", epoll_wait(ep, got, 4, 0));
    printf("timeout %d\n", epoll_wait(ep, got, 4, 20));
    pthread_t thread;
    pthread_create(&thread, NULL, late, &fds[1]);
    printf("woken %d", epoll_wait(ep, got, 4, -1));
    printf(" %x %lu\n", got[0].events, (unsigned long)got[0].data.u64);
    pthread_join(thread, NULL);
    printf("level %d\n", epoll_wait(ep, got, 4, 0));
    event.events = EPOLLIN | EPOLLET;
    epoll_ctl(ep, EPOLL_CTL_MOD, fds[0], &event);
    printf("edge %d", epoll_wait(ep, got, 4, 0));
    printf(" %d\n", epoll_wait(ep, got, 4, 0));
    write(fds[1], "x", 1);
    printf("edge %d\n", epoll_wait(ep, got, 4, 0));
    event.events = EPOLLIN | EPOLLONESHOT;
    epoll_ctl(ep, EPOLL_CTL_MOD, fds[0], &event);
    printf("once %d", epoll_wait(ep, got, 4, 0));
    printf(" %d\n", epoll_wait(ep, got, 4, 0));
    int ev = eventfd(3, EFD_NONBLOCK);
    uint64_t value = 4;
    write(ev, &value, 8);
    read(ev, &value, 8);
    printf("eventfd %lu", (unsigned long)value);
    printf(" %ld %d", (long)read(ev, &value, 8), errno);
    printf(" %ld %d\n", (long)read(ev, &value, 4), errno);
    int sem = eventfd(2, EFD_SEMAPHORE);
    read(sem, &value, 8);
    printf("semaphore %lu\n", (unsigned long)value);
    event = (struct epoll_event){.events = EPOLLIN | EPOLLOUT, .data.fd = 5};
    epoll_ctl(ep, EPOLL_CTL_ADD, sem, &event);
    printf("both %d", epoll_wait(ep, got, 4, 0));
    printf(" %x\n", got[0].events);
    close(sem);
    printf("closed %d\n", epoll_wait(ep, got, 4, 0));
    struct pollfd list[3] = {{fds[0], POLLIN | POLLOUT, 0}, {fds[1], POLLOUT, 0}, {-1, POLLIN, 0}};
    printf("poll %d", poll(list, 3, 0));
    printf(" %x %x %x\n", list[0].revents, list[1].revents, list[2].revents);
    close(fds[1]);
    list[1].fd = 99;
    while (read(fds[0], text, sizeof text) > 0) {}
    printf("poll %d", poll(list, 2, -1));
    printf(" %x %x\n", list[0].revents, list[1].revents);
    printf("end %ld\n", (long)read(fds[0], text, 1));
    printf("bad %d %d\n", epoll_ctl(ep, EPOLL_CTL_DEL, 99, &event), errno);
    printf("bad %d %d\n", epoll_wait(ep, got, 0, 0), errno);
    return 0;
}
