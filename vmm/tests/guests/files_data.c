/* A file's bytes and locks: truncate, holes, fallocate, O_TMPFILE, memfd with seals, flock, record locks. */
#include "guests.h"
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>

static long size_of(int fd) {
    struct stat status;
    return fstat(fd, &status) ? -1 : status.st_size;
}

static void truncation(void) {
    char content[16];
    file_with("t", "0123456789");
    int fd = (int)need("open", open("t", O_RDWR));
    value("ftruncate shorter", ftruncate(fd, 4));
    value("ftruncate longer", ftruncate(fd, 8));
    value("size", size_of(fd));
    value("read", pread(fd, content, 16, 0));
    holds("the cut part comes back as zero", !memcmp(content, "0123\0\0\0\0", 8));
    value("truncate", truncate("t", 2));
    value("size by truncate", size_of(fd));
    value("ftruncate negative", ftruncate(fd, -1));
    value("truncate negative", truncate("t", -1));
    value("truncate of nothing", truncate("absent", 0));
    value("truncate of a folder", truncate(".", 0));
    lseek(fd, 6, SEEK_SET);
    need("ftruncate", ftruncate(fd, 0));
    value("offset is not moved by it", lseek(fd, 0, SEEK_CUR));
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old, small.rlim_cur = 100;
    signal(SIGXFSZ, SIG_IGN);
    value("RLIMIT_FSIZE", setrlimit(RLIMIT_FSIZE, &small));
    value("write across the limit", pwrite(fd, "0123456789", 10, 95));
    value("write behind the limit", pwrite(fd, "0123456789", 10, 100));
    value("ftruncate behind the limit", ftruncate(fd, 101));
    setrlimit(RLIMIT_FSIZE, &old);
    close(fd);
}

static void holes(void) {
    int fd = (int)need("open", open("sparse", O_RDWR | O_CREAT, 0600));
    static char page[4096];
    memset(page, 'p', sizeof page);
    need("write", pwrite(fd, page, sizeof page, 0));
    need("write", pwrite(fd, page, sizeof page, 1 << 20));
    value("SEEK_HOLE", lseek(fd, 0, SEEK_HOLE));
    value("SEEK_DATA in data", lseek(fd, 100, SEEK_DATA));
    value("SEEK_DATA in the hole", lseek(fd, 8192, SEEK_DATA));
    value("SEEK_HOLE in the last data", lseek(fd, 1 << 20, SEEK_HOLE));
    value("SEEK_DATA past the end", lseek(fd, 2 << 20, SEEK_DATA));
    value("size of 8 MiB", ftruncate(fd, 8 << 20));
    value("SEEK_DATA finds none", lseek(fd, 2 << 20, SEEK_DATA));
    char byte = 1;
    value("read in the hole", pread(fd, &byte, 1, 4 << 20));
    value("is zero", byte);
    struct stat status;
    fstat(fd, &status);
    holds("few blocks are used", status.st_blocks < 1000);
    value("fallocate", fallocate(fd, 0, 0, 65536));
    value("size unchanged", size_of(fd));
    need("ftruncate", ftruncate(fd, 4096));
    value("fallocate grows", fallocate(fd, 0, 0, 10000));
    value("size", size_of(fd));
    value("FALLOC_FL_KEEP_SIZE", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20));
    value("size kept", size_of(fd));
    value("FALLOC_FL_PUNCH_HOLE", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 50));
    value("before the hole", (pread(fd, &byte, 1, 99), byte));
    value("in the hole", (pread(fd, &byte, 1, 100), byte));
    value("behind the hole", (pread(fd, &byte, 1, 150), byte));
    value("PUNCH_HOLE without KEEP_SIZE", fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
    value("fallocate length 0", fallocate(fd, 0, 0, 0));
    value("fallocate negative", fallocate(fd, 0, -1, 10));
    value("fallocate on O_RDONLY", fallocate(open("sparse", O_RDONLY), 0, 0, 10));
    int ends[2];
    need("pipe", pipe(ends));
    value("fallocate on a pipe", fallocate(ends[1], 0, 0, 10));
    value("ftruncate on a pipe", ftruncate(ends[1], 0));
    close(ends[0]), close(ends[1]);
    returned("posix_fallocate", posix_fallocate(fd, 0, 20000));
    value("size by it", size_of(fd));
    returned("posix_fadvise", posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
    returned("posix_fadvise unknown", posix_fadvise(fd, 0, 0, 77));
    close(fd);
}

static void nameless(void) {
    int fd = (int)done("O_TMPFILE", open(".", O_TMPFILE | O_RDWR, 0600));
    value("write", write(fd, "nameless", 8));
    struct stat status;
    fstat(fd, &status);
    value("links", (long)status.st_nlink);
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    value("linkat gives it a name", linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    value("size by name", (stat("named", &status), status.st_size));
    value("O_TMPFILE read-only", open(".", O_TMPFILE | O_RDONLY, 0600));
    value("O_TMPFILE on a file", open("named", O_TMPFILE | O_RDWR, 0600));
    value("reopened by /proc/self/fd", read(open(path, O_RDONLY), path, 40));
    close(fd);
}

static void memory_files(void) {
    int fd = (int)done("memfd_create", memfd_create("name", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    value("write", write(fd, "0123456789", 10));
    value("size", size_of(fd));
    value("F_GET_SEALS", fcntl(fd, F_GET_SEALS));
    value("F_ADD_SEALS SHRINK", fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    value("shrink", ftruncate(fd, 5));
    value("grow", ftruncate(fd, 8192));
    value("F_ADD_SEALS GROW", fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    value("grow when sealed", ftruncate(fd, 10000));
    value("write behind the end", pwrite(fd, "x", 1, 9000));
    void *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    value("F_SEAL_WRITE while mapped", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    munmap(map, 8192);
    value("F_SEAL_WRITE", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
    value("write when sealed", pwrite(fd, "x", 1, 0));
    mapped("shared writable map when sealed", mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    mapped("private map when sealed", mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    value("more seals when sealed", fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    value("F_GET_SEALS at last", fcntl(fd, F_GET_SEALS));
    value("F_ADD_SEALS without ALLOW_SEALING", fcntl(memfd_create("n", 0), F_ADD_SEALS, F_SEAL_GROW));
    value("memfd bad flags", memfd_create("n", 0x8000));
    value("memfd wild name", syscall(SYS_memfd_create, wild(), 0));
}

static struct flock range(short type, off_t start, off_t length) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return lock;
}

static void locks(void) {
    int a = (int)need("open", open("named", O_RDWR)), b = (int)need("open", open("named", O_RDWR)), c = dup(a);
    value("flock shared", flock(a, LOCK_SH));
    value("flock shared by another", flock(b, LOCK_SH | LOCK_NB));
    value("upgrade while shared", flock(a, LOCK_EX | LOCK_NB));
    value("unlock the other", flock(b, LOCK_UN));
    value("flock exclusive", flock(a, LOCK_EX | LOCK_NB));
    value("another is refused", flock(b, LOCK_SH | LOCK_NB));
    value("a dup holds the same lock", flock(c, LOCK_EX | LOCK_NB));
    value("unlock by the dup", flock(c, LOCK_UN));
    value("now free", flock(b, LOCK_EX | LOCK_NB));
    close(b);
    value("close releases", flock(a, LOCK_EX | LOCK_NB));
    value("flock nonsense", flock(a, 16));
    value("flock of a closed one", flock(900, LOCK_SH));
    b = (int)need("open", open("named", O_RDWR));
    struct flock lock = range(F_WRLCK, 0, 10);
    value("F_SETLK", fcntl(a, F_SETLK, &lock));
    lock = range(F_WRLCK, 5, 10);
    value("F_SETLK by the same process", fcntl(b, F_SETLK, &lock));
    value("F_GETLK sees no one else", (fcntl(b, F_GETLK, &lock), lock.l_type == F_UNLCK));
    lock = range(F_RDLCK, 0, 0);
    value("F_SETLK read on a write-only", fcntl(open("named", O_WRONLY), F_SETLK, &lock));
    lock = range(77, 0, 0);
    value("F_SETLK bad type", fcntl(a, F_SETLK, &lock));
    lock = range(F_WRLCK, -5, 0);
    value("F_SETLK before 0", fcntl(a, F_SETLK, &lock));
    value("F_SETLK wild", syscall(SYS_fcntl, a, F_SETLK, wild()));
    lock = range(F_UNLCK, 0, 0);
    value("F_SETLK unlock", fcntl(a, F_SETLK, &lock));
    lock = range(F_WRLCK, 0, 10);
    value("F_OFD_SETLK", fcntl(a, F_OFD_SETLK, &lock));
    value("F_OFD_SETLK overlapping", (lock = range(F_RDLCK, 9, 5), fcntl(b, F_OFD_SETLK, &lock)));
    value("F_OFD_SETLK beside", (lock = range(F_WRLCK, 10, 5), fcntl(b, F_OFD_SETLK, &lock)));
    lock = range(F_RDLCK, 0, 0);
    value("F_OFD_GETLK", fcntl(b, F_OFD_GETLK, &lock));
    text("what is in the way", "%s %ld+%ld pid %d", lock.l_type == F_WRLCK ? "write" : "?", (long)lock.l_start, (long)lock.l_len, lock.l_pid);
    close(a), close(c);
    value("close releases it", (lock = range(F_WRLCK, 0, 0), fcntl(b, F_OFD_SETLK, &lock)));
}

int main(void) {
    scratch();
    truncation();
    holes();
    nameless();
    memory_files();
    locks();
    return 0;
}
