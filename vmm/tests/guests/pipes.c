/* Pipes and FIFOs: capacity, ends that close, SIGPIPE, nonblocking, atomic writes, poll, ppoll, select, FIONREAD, tee. */
#include "guests.h"
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/uio.h>

static char block[1 << 17];
static volatile sig_atomic_t broken;
static void count(int number) { broken += number == SIGPIPE; }

static int state(int fd, short events) {
    struct pollfd one = {.fd = fd, .events = events};
    poll(&one, 1, 0);
    return one.revents;
}

static void ends_of_it(void) {
    int ends[2];
    char bytes[16] = {0};
    value("pipe", pipe(ends));
    value("write", write(ends[1], "hello", 5));
    int waiting = 0;
    value("FIONREAD", (ioctl(ends[0], FIONREAD, &waiting), waiting));
    value("read part", read(ends[0], bytes, 2));
    value("read rest", read(ends[0], bytes, 16));
    text("rest", "%.3s", bytes);
    value("write on the reading end", write(ends[0], "x", 1));
    value("read on the writing end", read(ends[1], bytes, 1));
    value("lseek", lseek(ends[0], 0, SEEK_SET));
    value("pread", pread(ends[0], bytes, 1, 0));
    need("write", write(ends[1], "last", 4));
    close(ends[1]);
    value("read after the writer closed", read(ends[0], bytes, 16));
    value("then the end", read(ends[0], bytes, 16));
    close(ends[0]);
    need("pipe", pipe(ends));
    close(ends[0]);
    signal(SIGPIPE, count);
    value("write without a reader", write(ends[1], "x", 1));
    value("SIGPIPE came", broken);
    value("write of 0 bytes without a reader", write(ends[1], "x", 0));
    signal(SIGPIPE, SIG_IGN);
    value("ignored, still EPIPE", write(ends[1], "x", 1));
    value("writev", writev(ends[1], &(struct iovec){bytes, 1}, 1));
    close(ends[1]);
    value("pipe2 flags", pipe2(ends, O_CLOEXEC | O_NONBLOCK));
    text("CLOEXEC and NONBLOCK", "%d %d", fcntl(ends[0], F_GETFD), !!(fcntl(ends[1], F_GETFL) & O_NONBLOCK));
    value("pipe2 bad flags", pipe2(ends, O_CREAT));
    value("pipe2 wild", syscall(SYS_pipe2, wild(), 0));
}

static void capacity(void) {
    int ends[2];
    need("pipe", pipe2(ends, O_NONBLOCK));
    value("F_GETPIPE_SZ", fcntl(ends[0], F_GETPIPE_SZ));
    value("read of nothing", read(ends[0], block, 10));
    value("a large write is partial", write(ends[1], block, sizeof block));
    value("then it is full", write(ends[1], block, 1));
    text("poll when full", "%x %x", state(ends[1], POLLOUT), state(ends[0], POLLIN));
    value("read 4096", read(ends[0], block, 4096));
    text("poll with room for PIPE_BUF", "%x", state(ends[1], POLLOUT));
    value("PIPE_BUF fits", write(ends[1], block, PIPE_BUF));
    value("drain", read(ends[0], block, sizeof block));
    for (int i = 0; i < 15; i++)
        need("write", write(ends[1], block, 4096));
    need("write", write(ends[1], block, 100));
    value("PIPE_BUF does not fit: all or nothing", write(ends[1], block, PIPE_BUF));
    value("set the size", fcntl(ends[1], F_SETPIPE_SZ, 1 << 17));
    value("now it fits", write(ends[1], block, PIPE_BUF));
    value("shrink below what is in it", fcntl(ends[1], F_SETPIPE_SZ, 4096));
    while (read(ends[0], block, sizeof block) > 0)
        continue;
    value("shrink", fcntl(ends[1], F_SETPIPE_SZ, 100));
    value("F_GETPIPE_SZ of a file", fcntl(open("/dev/null", O_RDONLY), F_GETPIPE_SZ));
    int others[2];
    need("pipe", pipe(others));
    need("write", write(ends[1], "tee", 3));
    value("tee", tee(ends[0], others[1], 10, 0));
    value("both have it", read(ends[0], block, 10) + read(others[0], block, 10));
}

static int shared[2];

static void *write_records(void *argument) {
    char record[512];
    memset(record, 'a' + (int)(intptr_t)argument, sizeof record);
    for (int i = 0; i < 200; i++)
        need("write", write(shared[1], record, sizeof record));
    return NULL;
}

static void *write_much(void *argument) {
    size_t left = *(size_t *)argument;
    unsigned char byte = 0;
    static unsigned char data[100000];
    while (left) {
        size_t now = left < sizeof data ? left : sizeof data;
        for (size_t i = 0; i < now; i++)
            data[i] = byte++;
        long got = write(shared[1], data, now);
        need("write", got);
        left -= (size_t)got;
    }
    close(shared[1]);
    return NULL;
}

static void threads(void) {
    pthread_t writers[4];
    need("pipe", pipe(shared));
    for (intptr_t i = 0; i < 4; i++)
        pthread_create(&writers[i], NULL, write_records, (void *)i);
    int torn = 0;
    char record[512];
    for (int i = 0; i < 800; i++) {
        need("read", read(shared[0], record, sizeof record));
        torn += memcmp(record, record + 1, sizeof record - 1) != 0;
    }
    for (int i = 0; i < 4; i++)
        pthread_join(writers[i], NULL);
    value("torn records of 4 writers", torn);
    size_t much = 3000000;
    pthread_create(&writers[0], NULL, write_much, &much);
    long total = 0, wrong = 0;
    unsigned char byte = 0;
    for (long got; (got = read(shared[0], block, 30001)) > 0; total += got)
        for (long i = 0; i < got; i++)
            wrong += (unsigned char)block[i] != byte++;
    pthread_join(writers[0], NULL);
    text("3 MB through a pipe", "%ld wrong %ld", total, wrong);
}

static void polling(void) {
    int ends[2];
    need("pipe", pipe(ends));
    struct pollfd many[4] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}, {-1, POLLIN, 0}, {900, POLLIN, 0}};
    value("poll", poll(many, 4, 0));
    text("events", "%x %x %x %x", many[0].revents, many[1].revents, many[2].revents, many[3].revents);
    value("poll nothing, 2 ms", poll(NULL, 0, 2));
    value("poll times out", poll(many, 1, 2));
    value("poll wild", syscall(SYS_poll, wild(), 1, 0));
    value("poll too many", syscall(SYS_poll, many, 1 << 30, 0));
    value("ppoll bad time", ppoll(many, 1, &(struct timespec){0, -1}, NULL));
    int file = open("/dev/null", O_RDWR);
    text("a device is always ready", "%x", state(file, POLLIN | POLLOUT));
    fd_set in, out;
    struct timeval zero = {0, 0};
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(ends[0], &in);
    FD_SET(ends[1], &out);
    value("select", select(ends[1] + 1, &in, &out, NULL, &zero));
    text("sets", "%d %d", !!FD_ISSET(ends[0], &in), !!FD_ISSET(ends[1], &out));
    need("write", write(ends[1], "x", 1));
    FD_SET(ends[0], &in);
    value("select with data", select(ends[1] + 1, &in, &out, NULL, &zero));
    FD_ZERO(&in);
    FD_SET(50, &in);
    value("select of a closed one", select(51, &in, NULL, NULL, &zero));
    value("select negative count", select(-1, NULL, NULL, NULL, &zero));
    value("select negative time", select(0, NULL, NULL, NULL, &(struct timeval){0, -1}));
    struct timeval two = {0, 2000};
    value("select as a sleep", select(0, NULL, NULL, NULL, &two));
    holds("the rest is zero", two.tv_sec == 0 && two.tv_usec == 0);
    value("pselect", pselect(0, NULL, NULL, NULL, &(struct timespec){0, 1000}, NULL));
    close(ends[1]);
    text("hang-up with data", "%x", state(ends[0], POLLIN));
    need("read", read(ends[0], block, 1));
    text("hang-up", "%x", state(ends[0], POLLIN));
    need("pipe", pipe(ends));
    close(ends[0]);
    text("no reader", "%x", state(ends[1], POLLOUT));
}

static void *open_writer(void *argument) {
    int fd = (int)need("open", open(argument, O_WRONLY));
    need("write", write(fd, "by name", 7));
    close(fd);
    return NULL;
}

static void fifos(void) {
    char bytes[16] = {0};
    value("mkfifo", mkfifo("fifo", 0600));
    value("mkfifo again", mkfifo("fifo", 0600));
    value("open for writing, nobody reads", open("fifo", O_WRONLY | O_NONBLOCK));
    int reader = (int)done("open for reading", open("fifo", O_RDONLY | O_NONBLOCK));
    value("read without a writer", read(reader, bytes, 1));
    int writer = (int)done("open for writing", open("fifo", O_WRONLY | O_NONBLOCK));
    value("read with a writer", read(reader, bytes, 1));
    need("write", write(writer, "x", 1));
    value("read", read(reader, bytes, 4));
    close(reader), close(writer);
    pthread_t thread;
    pthread_create(&thread, NULL, open_writer, "fifo");
    reader = (int)need("open", open("fifo", O_RDONLY));
    value("opens meet", read(reader, bytes, sizeof bytes));
    pthread_join(thread, NULL);
    value("then the end", read(reader, bytes + 8, 1));
    text("content", "%s", bytes);
    done("O_RDWR does not wait", open("fifo", O_RDWR));
}

int main(void) {
    scratch();
    ends_of_it();
    capacity();
    threads();
    polling();
    fifos();
    return 0;
}
