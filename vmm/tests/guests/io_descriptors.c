/* Descriptors: dup, dup2, dup3, fcntl, close, close_range, flags, and what is refused. */
#include "guests.h"
#include <sys/ioctl.h>
#include <sys/resource.h>

static int lowest_free(void) {
    int fd = (int)need("dup", dup(0));
    close(fd);
    return fd;
}

static void duplication(void) {
    int fd = (int)need("open", open("data", O_RDWR | O_CREAT, 0600));
    need("write", write(fd, "0123456789", 10));
    int copy = (int)done("dup", dup(fd));
    value("offset is shared by a dup", lseek(copy, 0, SEEK_CUR));
    lseek(fd, 3, SEEK_SET);
    value("seek on one moves the other", lseek(copy, 0, SEEK_CUR));
    value("FD_CLOEXEC of a dup", fcntl(copy, F_GETFD));
    value("dup2 to itself", dup2(fd, fd) == fd);
    value("dup2 to 100", dup2(fd, 100));
    value("dup2 over an open one", dup2(fd, 100));
    value("dup3 O_CLOEXEC to 101", dup3(fd, 101, O_CLOEXEC));
    value("FD_CLOEXEC after dup3", fcntl(101, F_GETFD));
    value("dup3 to itself", dup3(fd, fd, 0));
    value("dup3 bad flags", dup3(fd, 102, O_APPEND));
    value("dup of a closed one", dup(900));
    value("dup2 from a closed one", dup2(900, 5));
    value("dup2 to -1", dup2(fd, -1));
    value("dup2 closed to itself", dup2(900, 900));
    value("F_DUPFD 200", fcntl(fd, F_DUPFD, 200));
    value("F_DUPFD 200 again", fcntl(fd, F_DUPFD, 200));
    value("F_DUPFD_CLOEXEC 300", fcntl(fd, F_DUPFD_CLOEXEC, 300));
    value("FD_CLOEXEC after it", fcntl(300, F_GETFD));
    value("F_DUPFD negative", fcntl(fd, F_DUPFD, -1));
    value("F_DUPFD over the limit", fcntl(fd, F_DUPFD, 1 << 30));
    value("close", close(copy));
    value("close again", close(copy));
    value("close -1", close(-1));
    holds("lowest number is reused", lowest_free() == copy);
    close(fd);
    value("a dup outlives the original", pread(100, (char[4]){0}, 4, 0));
}

static void flags(void) {
    int fd = (int)need("open", open("data", O_RDWR | O_CLOEXEC | O_NONBLOCK));
    value("F_GETFD of O_CLOEXEC", fcntl(fd, F_GETFD));
    value("F_SETFD 0", fcntl(fd, F_SETFD, 0));
    value("F_GETFD after it", fcntl(fd, F_GETFD));
    int status = fcntl(fd, F_GETFL);
    holds("F_GETFL access mode is O_RDWR", (status & O_ACCMODE) == O_RDWR);
    holds("F_GETFL O_NONBLOCK", status & O_NONBLOCK);
    holds("F_GETFL has no O_CREAT or O_CLOEXEC", !(status & (O_CREAT | O_CLOEXEC)));
    value("F_SETFL O_APPEND", fcntl(fd, F_SETFL, O_APPEND));
    holds("F_GETFL O_APPEND", fcntl(fd, F_GETFL) & O_APPEND);
    holds("O_NONBLOCK is gone", !(fcntl(fd, F_GETFL) & O_NONBLOCK));
    int copy = dup(fd);
    fcntl(copy, F_SETFL, 0);
    holds("status flags are shared by a dup", !(fcntl(fd, F_GETFL) & O_APPEND));
    value("F_SETFL cannot change the access mode", fcntl(fd, F_SETFL, O_RDONLY));
    holds("still O_RDWR", (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR);
    value("FIONBIO on", ioctl(fd, FIONBIO, &(int){1}));
    holds("O_NONBLOCK by FIONBIO", fcntl(fd, F_GETFL) & O_NONBLOCK);
    value("FIOCLEX", ioctl(fd, FIOCLEX));
    value("FD_CLOEXEC by FIOCLEX", fcntl(fd, F_GETFD));
    value("FIONCLEX", ioctl(fd, FIONCLEX));
    value("FD_CLOEXEC after FIONCLEX", fcntl(fd, F_GETFD));
    value("TCGETS on a file", ioctl(fd, 0x5401, wild()));
    value("unknown ioctl", ioctl(fd, 0x12345678, 0));
    value("ioctl on a closed one", ioctl(900, FIONBIO, &(int){1}));
    value("isatty of a file", isatty(fd) ? 1 : -1);
    value("fcntl unknown", fcntl(fd, 9999));
    value("fcntl on a closed one", fcntl(900, F_GETFD));
    close(copy);
    close(fd);
}

static void access_modes(void) {
    char byte = 0;
    int reader = (int)need("open", open("data", O_RDONLY)), writer = (int)need("open", open("data", O_WRONLY));
    value("write on O_RDONLY", write(reader, "x", 1));
    value("read on O_WRONLY", read(writer, &byte, 1));
    value("ftruncate on O_RDONLY", ftruncate(reader, 1));
    value("read a closed one", read(900, &byte, 1));
    value("write a closed one", write(900, "x", 1));
    value("lseek a closed one", lseek(900, 0, SEEK_SET));
    value("fsync a closed one", fsync(900));
    value("fstat a closed one", fstat(900, &(struct stat){0}));
    value("read of 0 bytes on O_WRONLY", read(writer, &byte, 0));
    close(reader);
    close(writer);
    int path_only = (int)done("open O_PATH", open("data", O_PATH));
    value("read on O_PATH", read(path_only, &byte, 1));
    value("write on O_PATH", write(path_only, "x", 1));
    value("lseek on O_PATH", lseek(path_only, 0, SEEK_SET));
    value("fchmod on O_PATH", fchmod(path_only, 0600));
    value("fstat on O_PATH", fstat(path_only, &(struct stat){0}));
    value("dup of O_PATH", close(dup(path_only)));
    holds("F_GETFL shows O_PATH", fcntl(path_only, F_GETFL) & O_PATH);
    close(path_only);
}

static void opening(void) {
    value("O_EXCL on an existing file", open("data", O_CREAT | O_EXCL | O_RDWR, 0600));
    value("open of nothing", open("absent", O_RDONLY));
    value("open of the empty path", open("", O_RDONLY));
    value("open a directory for writing", open(".", O_WRONLY));
    value("O_DIRECTORY on a file", open("data", O_RDONLY | O_DIRECTORY));
    value("O_CREAT on a directory", open(".", O_CREAT | O_RDWR, 0600));
    value("O_CREAT with a trailing slash", open("absent/", O_CREAT | O_RDWR, 0600));
    value("file as a directory", open("data/x", O_RDONLY));
    value("file with a trailing slash", open("data/", O_RDONLY));
    value("wild path", syscall(SYS_openat, AT_FDCWD, wild(), O_RDONLY, 0));
    value("O_TRUNC empties", close(open("data", O_RDWR | O_TRUNC)));
    struct stat status;
    stat("data", &status);
    value("size after O_TRUNC", status.st_size);
}

static void ranges(void) {
    for (int fd = 400; fd < 410; fd++)
        need("dup2", dup2(1, fd));
    value("close_range CLOEXEC", syscall(SYS_close_range, 400, 403, 4));
    value("FD_CLOEXEC in the range", fcntl(403, F_GETFD));
    value("FD_CLOEXEC behind it", fcntl(404, F_GETFD));
    value("close_range", syscall(SYS_close_range, 400, 408, 0));
    value("closed in the range", fcntl(408, F_GETFD));
    value("open behind it", fcntl(409, F_GETFD));
    value("close_range reversed", syscall(SYS_close_range, 20, 10, 0));
    value("close_range bad flags", syscall(SYS_close_range, 500, 600, 128));
    value("close_range of nothing", syscall(SYS_close_range, 500, ~0U, 0));
}

static void limit(void) {
    struct rlimit old, small = {.rlim_cur = 16, .rlim_max = 0};
    need("getrlimit", getrlimit(RLIMIT_NOFILE, &old));
    small.rlim_max = old.rlim_max;
    value("RLIMIT_NOFILE to 16", setrlimit(RLIMIT_NOFILE, &small));
    long last = 0;
    while (last != -1 && last < 64)
        last = dup(0);
    value("dup at the limit", last);
    value("open at the limit", open("data", O_RDONLY));
    value("dup2 behind the limit", dup2(0, 16));
    value("limit back", setrlimit(RLIMIT_NOFILE, &old));
    value("dup works again", dup(0) == -1 ? -1 : 0);
}

int main(void) {
    scratch();
    duplication();
    flags();
    access_modes();
    opening();
    ranges();
    limit();
    return 0;
}
