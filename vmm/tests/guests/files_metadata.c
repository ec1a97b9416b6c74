/* What a file is: stat, fstatat, statx, chmod, umask, utimensat, chown to oneself, access, faccessat2. */
#include "guests.h"
#include <sys/time.h>

static int mode_of(const char *path) {
    struct stat status;
    need(path, stat(path, &status));
    return status.st_mode & 07777;
}

static void modes(void) {
    file_with("f", "12345");
    text("mode by umask 022", "%o", mode_of("f"));
    value("umask gives the old one", umask(077));
    close(open("private", O_CREAT | O_RDWR, 0666));
    mkdir("private-d", 0777);
    text("mode by umask 077", "%o", mode_of("private"));
    text("folder's mode by umask 077", "%o", mode_of("private-d"));
    value("umask back", umask(022));
    value("umask keeps nine bits", (umask(07777), umask(022)));
    value("chmod", chmod("f", 0640));
    text("mode", "%o", mode_of("f"));
    int fd = (int)need("open", open("f", O_RDWR));
    value("fchmod", fchmod(fd, 0604));
    text("mode by fchmod", "%o", mode_of("f"));
    value("fchmodat", fchmodat(AT_FDCWD, "f", 0600, 0));
    value("sticky folder", chmod("private-d", 01755));
    text("its mode", "%o", mode_of("private-d"));
    value("chmod of nothing", chmod("absent", 0600));
    value("chmod of the empty path", chmod("", 0600));
    symlink("f", "link");
    value("chmod through a symlink", chmod("link", 0644));
    text("mode of its target", "%o", mode_of("f"));
    value("fchmod of a closed one", fchmod(900, 0600));
    value("chown to oneself", chown("f", getuid(), getgid()));
    value("chown of -1", chown("f", -1, -1));
    value("lchown of nothing", lchown("absent", -1, -1));
    value("fchown", fchown(fd, -1, getgid()));
    close(fd);
}

static void stats(void) {
    struct stat a, b;
    need("stat", stat("f", &a));
    holds("a regular file", S_ISREG(a.st_mode));
    value("size", a.st_size);
    value("links", (long)a.st_nlink);
    holds("owner is this user", a.st_uid == geteuid() && a.st_gid == getegid());
    holds("block size is a power of two >= 512", a.st_blksize >= 512 && !(a.st_blksize & (a.st_blksize - 1)));
    need("lstat", lstat("link", &b));
    holds("symlink is another inode", a.st_ino != b.st_ino);
    need("fstatat", fstatat(AT_FDCWD, "link", &b, 0));
    holds("followed it is the same inode and device", a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    value("fstatat AT_SYMLINK_NOFOLLOW", fstatat(AT_FDCWD, "link", &b, AT_SYMLINK_NOFOLLOW));
    holds("is a symlink", S_ISLNK(b.st_mode));
    int fd = open("f", O_RDONLY);
    value("fstatat AT_EMPTY_PATH", fstatat(fd, "", &b, AT_EMPTY_PATH));
    holds("same inode", a.st_ino == b.st_ino);
    value("fstatat of the empty path", fstatat(fd, "", &b, 0));
    value("fstatat bad flags", fstatat(fd, "", &b, 1));
    value("fstatat relative to a file", fstatat(fd, "x", &b, 0));
    value("fstatat relative to a closed one", fstatat(900, "x", &b, 0));
    value("absolute path ignores the folder", fstatat(900, "/dev/null", &b, 0));
    holds("/dev/null is a character device", S_ISCHR(b.st_mode));
    value("stat to a wild address", syscall(SYS_newfstatat, AT_FDCWD, "f", wild(), 0));
    need("stat", stat(".", &a));
    holds("folder", S_ISDIR(a.st_mode));
    need("stat", stat("private-d/..", &b));
    holds(".. is the same inode", a.st_ino == b.st_ino);
    need("stat", stat("/", &a));
    need("stat", stat("/..", &b));
    holds("/.. is /", a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    int ends[2];
    need("pipe", pipe(ends));
    fstat(ends[0], &a);
    holds("a pipe is a FIFO", S_ISFIFO(a.st_mode));
    close(ends[0]), close(ends[1]), close(fd);
}

static void extended(void) {
    struct statx x;
    memset(&x, 0, sizeof x);
    value("statx", statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &x));
    holds("all basic fields are there", (x.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    text("mode and size", "%o %llu", x.stx_mode, (unsigned long long)x.stx_size);
    struct stat s;
    need("stat", stat("f", &s));
    holds("inode as by stat", s.st_ino == x.stx_ino);
    holds("mtime as by stat", s.st_mtim.tv_sec == x.stx_mtime.tv_sec && s.st_mtim.tv_nsec == x.stx_mtime.tv_nsec);
    value("statx AT_SYMLINK_NOFOLLOW", statx(AT_FDCWD, "link", AT_SYMLINK_NOFOLLOW, STATX_TYPE, &x));
    holds("symlink", S_ISLNK(x.stx_mode));
    value("statx AT_EMPTY_PATH", statx(1, "", AT_EMPTY_PATH, STATX_TYPE, &x));
    value("statx both sync flags", statx(AT_FDCWD, "f", 0x6000, STATX_TYPE, &x));
    value("statx reserved mask", statx(AT_FDCWD, "f", 0, 0x80000000U, &x));
    value("statx of nothing", statx(AT_FDCWD, "absent", 0, STATX_TYPE, &x));
    value("statx of the empty path", statx(AT_FDCWD, "", 0, STATX_TYPE, &x));
    value("statx to a wild address", syscall(SYS_statx, AT_FDCWD, "f", 0, STATX_TYPE, wild()));
}

static void show_times(const char *name, const char *path) {
    struct stat s;
    need(path, lstat(path, &s));
    text(name, "%lld.%09ld %lld.%09ld", (long long)s.st_atim.tv_sec, s.st_atim.tv_nsec, (long long)s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
}

static void times(void) {
    struct timespec both[2] = {{1000000000, 123456789}, {1500000000, 987654321}};
    value("utimensat", utimensat(AT_FDCWD, "f", both, 0));
    show_times("times", "f");
    struct timespec one[2] = {{0, UTIME_OMIT}, {7, 8}};
    value("utimensat UTIME_OMIT", utimensat(AT_FDCWD, "f", one, 0));
    show_times("times after it", "f");
    struct timespec bad[2] = {{0, 0}, {0, 1000000000}};
    value("utimensat bad nanoseconds", utimensat(AT_FDCWD, "f", bad, 0));
    value("utimensat of nothing", utimensat(AT_FDCWD, "absent", both, 0));
    value("utimensat on a symlink", utimensat(AT_FDCWD, "link", both, AT_SYMLINK_NOFOLLOW));
    show_times("times of the symlink", "link");
    show_times("its target is untouched", "f");
    int fd = open("f", O_RDWR);
    value("futimens", futimens(fd, both));
    show_times("times by futimens", "f");
    value("futimens now", futimens(fd, NULL));
    struct stat s;
    fstat(fd, &s);
    int64_t age = clock_ns(CLOCK_REALTIME) - nanoseconds_of(s.st_mtim);
    holds("now is now", age > -1000000000 && age < 10000000000);
    struct timeval micro[2] = {{5, 6}, {7, 8}};
    value("utimes", utimes("f", micro));
    show_times("times by utimes", "f");
    value("write moves mtime", write(fd, "x", 1));
    fstat(fd, &s);
    holds("mtime moved, atime did not", s.st_mtim.tv_sec > 1000 && s.st_atim.tv_sec == 5);
    holds("ctime moved too", s.st_ctim.tv_sec > 1000);
    close(fd);
}

static void permission(void) {
    value("access F_OK", access("f", F_OK));
    value("access R_OK and W_OK", access("f", R_OK | W_OK));
    value("access X_OK without any x", access("f", X_OK));
    chmod("f", 0700);
    value("access X_OK with x", access("f", X_OK));
    value("access of nothing", access("absent", F_OK));
    value("access below a file", access("f/x", F_OK));
    value("access bad mode", access("f", 99));
    value("access of the empty path", access("", F_OK));
    value("access of a folder", access(".", R_OK | W_OK | X_OK));
    unlink("link"), symlink("absent", "link");
    value("access of a dangling symlink", access("link", F_OK));
    value("faccessat2 AT_SYMLINK_NOFOLLOW", syscall(SYS_faccessat2, AT_FDCWD, "link", F_OK, AT_SYMLINK_NOFOLLOW));
    value("faccessat2 AT_EACCESS", syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK, AT_EACCESS));
    value("faccessat2 bad flags", syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK, 1));
    value("faccessat of a wild path", syscall(SYS_faccessat, AT_FDCWD, wild(), R_OK));
    value("faccessat of a closed folder", faccessat(900, "f", R_OK, 0));
}

int main(void) {
    scratch();
    modes();
    stats();
    extended();
    times();
    permission();
    return 0;
}
