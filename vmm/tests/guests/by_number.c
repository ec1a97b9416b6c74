/* Calls that C libraries make no more, or make in another form, and older programs still do. */
#include "guests.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/time.h>
#include <utime.h>

enum { PAGE = 4096 };

static void files(void) {
    struct stat status;
    int fd = (int)done("creat", syscall(SYS_creat, "f", 0640));
    value("write", write(fd, "hello", 5));
    value("read of a created one", read(fd, &status, 1));
    value("stat", syscall(SYS_stat, "f", &status));
    text("it is", "%o %ld", status.st_mode, (long)status.st_size);
    value("stat of nothing", syscall(SYS_stat, "absent", &status));
    value("stat wild", syscall(SYS_stat, "f", wild()));
    value("symlink", syscall(SYS_symlink, "f", "link"));
    value("lstat", syscall(SYS_lstat, "link", &status));
    text("it is", "%o %ld", status.st_mode & S_IFMT, (long)status.st_size);
    value("lstat wild name", syscall(SYS_lstat, wild(), &status));
    int again = (int)done("open", syscall(SYS_open, "link", O_RDONLY));
    char content[8] = {0};
    value("read", read(again, content, 8));
    value("open of nothing", syscall(SYS_open, "absent", O_RDONLY));
    value("open exclusively", syscall(SYS_open, "f", O_CREAT | O_EXCL, 0600));
    value("open wild", syscall(SYS_open, wild(), O_RDONLY));
    value("creat cuts", (close((int)syscall(SYS_creat, "f", 0600)), fstat(fd, &status), status.st_size));
    value("creat of a folder", syscall(SYS_creat, ".", 0600));
    value("mknod", syscall(SYS_mknod, "fifo", S_IFIFO | 0600, 0));
    value("mknod again", syscall(SYS_mknod, "fifo", S_IFIFO | 0600, 0));
    text("it is", "%d", stat("fifo", &status) == 0 && S_ISFIFO(status.st_mode));
    value("mknod of a folder", syscall(SYS_mknod, "folder", S_IFDIR | 0600, 0));
    value("rename", syscall(SYS_rename, "f", "g"));
    value("link", syscall(SYS_link, "g", "h"));
    value("chmod", syscall(SYS_chmod, "g", 0400));
    value("readlink", syscall(SYS_readlink, "link", content, 8));
    value("unlink", syscall(SYS_unlink, "h"));
    value("mkdir", syscall(SYS_mkdir, "folder", 0700));
    value("rmdir", syscall(SYS_rmdir, "folder"));
    value("access", syscall(SYS_access, "g", R_OK));
    value("access with unknown bits", syscall(SYS_access, "g", 77));
    close(fd), close(again);
}

static void show_times(const char *name, const char *path) {
    struct stat status;
    need("stat", stat(path, &status));
    text(name, "%ld.%09ld %ld.%09ld", (long)status.st_atim.tv_sec, status.st_atim.tv_nsec, (long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
}

static void file_times(void) {
    struct utimbuf seconds = {1000, 2000};
    value("utime", syscall(SYS_utime, "g", &seconds));
    show_times("after utime", "g");
    struct timeval micro[2] = {{3000, 5}, {4000, 999999}};
    value("utimes", syscall(SYS_utimes, "g", micro));
    show_times("after utimes", "g");
    micro[0].tv_sec = 5000;
    value("futimesat", syscall(SYS_futimesat, AT_FDCWD, "g", micro));
    show_times("after futimesat", "g");
    int fd = (int)need("open", open("g", O_RDONLY));
    value("futimesat of a descriptor", syscall(SYS_futimesat, fd, NULL, micro));
    close(fd);
    micro[1].tv_usec = 1000000;
    value("utimes bad microseconds", syscall(SYS_utimes, "g", micro));
    value("futimesat bad microseconds", syscall(SYS_futimesat, AT_FDCWD, "g", micro));
    value("utime of nothing", syscall(SYS_utime, "absent", NULL));
    value("utimes wild", syscall(SYS_utimes, "g", wild()));
    value("utime, now", syscall(SYS_utime, "g", NULL));
    struct stat status;
    holds("now is now", stat("g", &status) == 0 && time(NULL) - status.st_mtim.tv_sec < 1000);
}

static void ownership(void) {
    value("chown to none", syscall(SYS_chown, "g", -1, -1));
    value("lchown to none", syscall(SYS_lchown, "link", -1, -1));
    value("fchownat to none", fchownat(AT_FDCWD, "link", (uid_t)-1, (gid_t)-1, AT_SYMLINK_NOFOLLOW));
    value("fchownat to oneself", fchownat(AT_FDCWD, "g", getuid(), getgid(), 0));
    value("fchownat of nothing", fchownat(AT_FDCWD, "absent", (uid_t)-1, (gid_t)-1, 0));
    value("fchownat unknown flag", syscall(SYS_fchownat, AT_FDCWD, "g", -1, -1, 1));
}

static void events(void) {
    int ends[2];
    value("pipe", syscall(SYS_pipe, ends));
    text("flags", "%d %d", fcntl(ends[0], F_GETFL) & O_NONBLOCK, fcntl(ends[1], F_GETFD));
    value("pipe wild", syscall(SYS_pipe, wild()));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    struct timeval moment = {0, 1000};
    value("select, time over", syscall(SYS_select, ends[0] + 1, &set, NULL, NULL, &moment));
    text("set and rest", "%d %ld", FD_ISSET(ends[0], &set), (long)moment.tv_usec);
    need("write", write(ends[1], "x", 1));
    FD_SET(ends[0], &set);
    value("select, readable", syscall(SYS_select, ends[0] + 1, &set, NULL, NULL, NULL));
    value("in the set", FD_ISSET(ends[0], &set));
    close(ends[1]);
    FD_ZERO(&set);
    FD_SET(ends[1], &set);
    value("select of a closed one", syscall(SYS_select, ends[1] + 1, &set, NULL, NULL, NULL));
    value("select negative count", syscall(SYS_select, -1, NULL, NULL, NULL, NULL));
    int counter = (int)done("eventfd", syscall(SYS_eventfd, 3));
    uint64_t count = 0;
    value("read", read(counter, &count, 8));
    value("counted", (long)count);
    sigset_t usr;
    sigemptyset(&usr);
    sigaddset(&usr, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr, NULL);
    int signals = (int)done("signalfd", syscall(SYS_signalfd, -1, &usr, 8));
    struct pollfd poll_it = {signals, POLLIN, 0};
    value("poll", syscall(SYS_poll, &poll_it, 1, 0));
    value("tkill", syscall(SYS_tkill, thread_id(), SIGUSR1));
    value("poll then", syscall(SYS_poll, &poll_it, 1, -1));
    value("tkill of nobody", syscall(SYS_tkill, 0x3fffffff, SIGUSR1));
    value("tkill of id 0", syscall(SYS_tkill, 0, SIGUSR1));
    value("tkill unknown signal", syscall(SYS_tkill, thread_id(), 77));
    value("signalfd bad size", syscall(SYS_signalfd, -1, &usr, 7));
    int set_fd = (int)done("epoll_create", syscall(SYS_epoll_create, 1));
    value("epoll_create of none", syscall(SYS_epoll_create, 0));
    struct epoll_event event = {EPOLLIN, {.u32 = 5}}, got = {0};
    value("epoll_ctl", epoll_ctl(set_fd, EPOLL_CTL_ADD, signals, &event));
    value("epoll_wait", syscall(SYS_epoll_wait, set_fd, &got, 1, -1));
    value("epoll_pwait", syscall(SYS_epoll_pwait, set_fd, &got, 1, -1, &usr, 8));
    value("its data", got.data.u32);
    value("epoll_pwait bad size", syscall(SYS_epoll_pwait, set_fd, &got, 1, -1, &usr, 7));
    value("dup2", syscall(SYS_dup2, counter, counter) == counter);
    close(ends[0]), close(counter), close(signals), close(set_fd);
}

static void limits(void) {
    struct rlimit old, now;
    value("getrlimit", syscall(SYS_getrlimit, RLIMIT_NOFILE, &old));
    now = old, now.rlim_cur = 100;
    value("setrlimit", syscall(SYS_setrlimit, RLIMIT_NOFILE, &now));
    value("it is set", (syscall(SYS_getrlimit, RLIMIT_NOFILE, &now), now.rlim_cur));
    value("dup beyond it", fcntl(0, F_DUPFD, 100));
    now.rlim_cur = now.rlim_max + 1;
    value("setrlimit soft above hard", now.rlim_cur == 0 ? -1 : syscall(SYS_setrlimit, RLIMIT_NOFILE, &now));
    value("getrlimit unknown", syscall(SYS_getrlimit, 77, &now));
    value("getrlimit wild", syscall(SYS_getrlimit, RLIMIT_NOFILE, wild()));
    value("setrlimit wild", syscall(SYS_setrlimit, RLIMIT_NOFILE, wild()));
    value("setrlimit back", syscall(SYS_setrlimit, RLIMIT_NOFILE, &old));
}

static void memory(void) {
    char *at = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    value("mlock2", syscall(SYS_mlock2, at, 2 * PAGE, 0));
    value("mlock2 on fault", syscall(SYS_mlock2, at, 2 * PAGE, MLOCK_ONFAULT));
    value("mlock2 unknown flag", syscall(SYS_mlock2, at, PAGE, 77));
    value("mlock2 of a hole", (munmap(at, PAGE), syscall(SYS_mlock2, at, PAGE, 0)));
    value("munlock", munlock(at + PAGE, PAGE));
}

int main(void) {
    scratch();
    files();
    file_times();
    ownership();
    events();
    limits();
    memory();
    return 0;
}
