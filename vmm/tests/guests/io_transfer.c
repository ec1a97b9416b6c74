/* Moving bytes: read, write, readv, writev, pread, pwrite, preadv2, lseek, sendfile, copy_file_range, splice, devices. */
#include "guests.h"
#include <limits.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

static char buffer[8192];

static void show(const char *name, long got) {
    if (got == -1)
        value(name, got);
    else
        text(name, "%ld '%.*s'", got, (int)got, buffer);
}

static void plain(int fd) {
    value("write", write(fd, "hello, world", 12));
    value("read at the end", read(fd, buffer, 10));
    value("lseek SEEK_SET", lseek(fd, 7, SEEK_SET));
    show("read from 7", read(fd, buffer, 100));
    value("lseek SEEK_CUR back", lseek(fd, -5, SEEK_CUR));
    value("lseek SEEK_END", lseek(fd, -2, SEEK_END));
    value("lseek before 0", lseek(fd, -100, SEEK_CUR));
    value("offset unchanged after it", lseek(fd, 0, SEEK_CUR));
    value("lseek bad whence", lseek(fd, 0, 99));
    value("lseek past the end", lseek(fd, 20, SEEK_SET));
    value("read past the end", read(fd, buffer, 10));
    value("write past the end", write(fd, "end", 3));
    value("size with the gap", lseek(fd, 0, SEEK_END));
    value("pread of the gap", pread(fd, buffer, 8, 12));
    holds("the gap is zero", !memcmp(buffer, "\0\0\0\0\0\0\0\0", 8));
    show("pread", pread(fd, buffer, 5, 7));
    value("pread does not move", lseek(fd, 0, SEEK_CUR));
    value("pread negative offset", pread(fd, buffer, 5, -1));
    value("pwrite", pwrite(fd, "W", 1, 7));
    value("pwrite negative offset", pwrite(fd, "W", 1, -5));
    show("pread after pwrite", pread(fd, buffer, 5, 7));
    value("write of 0 bytes", write(fd, buffer, 0));
    value("read to a wild address", syscall(SYS_pread64, fd, wild(), 5, 0));
    value("write from a wild address", syscall(SYS_write, fd, wild(), 5));
    value("read with a negative length", syscall(SYS_pread64, fd, buffer, -1L, 0));
}

static void vectors(int fd) {
    char one[3], two[4], three[64];
    need("truncate", ftruncate(fd, 0));
    lseek(fd, 0, SEEK_SET);
    struct iovec out[] = {{"abc", 3}, {"", 0}, {"defg", 4}, {"hi", 2}};
    value("writev", writev(fd, out, 4));
    lseek(fd, 0, SEEK_SET);
    struct iovec in[] = {{one, 3}, {two, 4}, {three, 64}};
    value("readv", readv(fd, in, 3));
    text("readv parts", "%.3s %.4s %.2s", one, two, three);
    value("readv at the end", readv(fd, in, 3));
    value("preadv", preadv(fd, in, 2, 2));
    text("preadv parts", "%.3s %.4s", one, two);
    value("pwritev", pwritev(fd, out, 1, 6));
    value("preadv2 at -1 uses the offset", preadv2(fd, in, 1, -1, 0));
    value("preadv2 unknown flag", preadv2(fd, in, 1, 0, 0x10000000));
    value("preadv negative offset", preadv(fd, in, 1, -2));
    value("readv of no parts", readv(fd, in, 0));
    value("readv negative count", syscall(SYS_readv, fd, in, -1));
    value("readv IOV_MAX + 1 parts", syscall(SYS_readv, fd, in, IOV_MAX + 1));
    value("readv wild vector", syscall(SYS_readv, fd, wild(), 1));
    struct iovec negative[] = {{one, 3}, {two, (size_t)-1}};
    lseek(fd, 0, SEEK_SET);
    value("readv with a negative length", readv(fd, negative, 2));
    struct iovec bad_second[] = {{one, 3}, {wild(), 4}};
    value("readv up to a wild part", readv(fd, bad_second, 2));
    struct iovec bad_first[] = {{wild(), 3}, {two, 4}};
    value("readv with a wild first part", readv(fd, bad_first, 2));
    lseek(fd, 0, SEEK_END);
    value("writev up to a wild part", writev(fd, bad_second, 2) > 0);
}

static void appending(void) {
    file_with("log", "one ");
    int fd = (int)need("open", open("log", O_RDWR | O_APPEND));
    lseek(fd, 0, SEEK_SET);
    value("O_APPEND write", write(fd, "two ", 4));
    value("offset behind it", lseek(fd, 0, SEEK_CUR));
    value("pwrite on O_APPEND appends", pwrite(fd, "six", 3, 0));
    show("content", pread(fd, buffer, 100, 0));
    close(fd);
}

static void between_files(void) {
    file_with("source", "0123456789abcdefghij");
    int in = (int)need("open", open("source", O_RDONLY)), out = (int)need("open", open("target", O_RDWR | O_CREAT, 0600));
    off_t offset = 5;
    value("sendfile with an offset", sendfile(out, in, &offset, 6));
    value("its offset", offset);
    value("in is not moved", lseek(in, 0, SEEK_CUR));
    value("sendfile without an offset", sendfile(out, in, NULL, 100));
    value("in is moved", lseek(in, 0, SEEK_CUR));
    value("sendfile at the end", sendfile(out, in, NULL, 100));
    show("target", pread(out, buffer, 100, 0));
    value("sendfile from a write-only", sendfile(out, open("target", O_WRONLY), NULL, 1));
    value("sendfile negative offset", sendfile(out, in, &(off_t){-1}, 1));
    loff_t from = 2, to = 0;
    value("copy_file_range", copy_file_range(in, &from, out, &to, 4, 0));
    value("copy_file_range bad flags", copy_file_range(in, &from, out, &to, 4, 1));
    value("copy_file_range to a read-only", copy_file_range(out, &from, in, &to, 4, 0));
    value("copy_file_range past the end", copy_file_range(in, &(loff_t){100}, out, &to, 4, 0));
    show("target after it", pread(out, buffer, 8, 0));
    int ends[2];
    need("pipe", pipe(ends));
    value("splice file to pipe", splice(in, &(loff_t){3}, ends[1], NULL, 5, 0));
    show("pipe", read(ends[0], buffer, 100));
    value("splice between files", splice(in, NULL, out, NULL, 5, 0));
    value("sendfile to a pipe", sendfile(ends[1], in, &(off_t){0}, 4));
    show("pipe again", read(ends[0], buffer, 100));
}

static void devices(void) {
    int null = (int)done("/dev/null", open("/dev/null", O_RDWR));
    value("write to null", write(null, "abc", 3));
    value("read from null", read(null, buffer, 3));
    int zero = (int)done("/dev/zero", open("/dev/zero", O_RDWR));
    memset(buffer, 1, sizeof buffer);
    value("read from zero", read(zero, buffer, sizeof buffer));
    holds("all zero", buffer[0] == 0 && !memcmp(buffer, buffer + 1, sizeof buffer - 1));
    value("write to zero", write(zero, "abc", 3));
    int full = (int)done("/dev/full", open("/dev/full", O_RDWR));
    value("write to full", write(full, "abc", 3));
    int random = (int)done("/dev/urandom", open("/dev/urandom", O_RDONLY));
    char other[32];
    value("read from urandom", read(random, buffer, 32));
    value("read again", read(random, other, 32));
    holds("they differ", memcmp(buffer, other, 32));
    value("/dev/random", read(open("/dev/random", O_RDONLY), buffer, 16));
    struct stat status;
    need("fstat", fstat(null, &status));
    holds("null is a character device 1:3", S_ISCHR(status.st_mode) && status.st_rdev == 0x103);
    value("isatty of null", isatty(null) ? 1 : -1);
}

static void large(int fd) {
    static char block[1 << 20];
    need("truncate", ftruncate(fd, 0));
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)(i * 31 >> 3);
    lseek(fd, 0, SEEK_SET);
    for (int i = 0; i < 8; i++)
        need("write", write(fd, block, sizeof block) == sizeof block ? 0 : -1);
    value("8 MiB written", lseek(fd, 0, SEEK_END));
    unsigned long sum = 0;
    lseek(fd, 0, SEEK_SET);
    for (long got; (got = read(fd, block, 65537)) > 0;)
        for (long i = 0; i < got; i++)
            sum = sum * 31 + (unsigned char)block[i];
    text("checksum by odd blocks", "%lx", sum);
}

int main(void) {
    scratch();
    int fd = (int)need("open", open("data", O_RDWR | O_CREAT, 0600));
    plain(fd);
    vectors(fd);
    appending();
    between_files();
    devices();
    large(fd);
    value("fsync", fsync(fd));
    value("fdatasync", fdatasync(fd));
    return 0;
}
