// Paths that are too long, lead in circles, end nowhere or have no end.
#include "hostile.h"
#include <sys/stat.h>

int main(void) {
    static char path[20000];
    struct stat status;
    for (int i = 0; i + 3 < 4096; i += 3) memcpy(path + i, "../", 4);
    MUST(stat(path, &status) == 0);
    strcpy(path, "/tmp");
    for (int i = 4; i + 3 < 4090; i += 3) memcpy(path + i, "/..", 4);
    MUST(open(path, O_RDONLY) >= 0);
    memset(path, '/', 4095);
    MUST(stat(path, &status) == 0 && S_ISDIR(status.st_mode));
    memset(path, 'x', sizeof path - 1);
    MUST(stat(path, &status) == -1 && errno == ENAMETOOLONG);
    for (int i = 100; i < 19999; i += 100) path[i] = '/';
    MUST(mkdir(path, 0700) == -1 && errno == ENAMETOOLONG);
    path[255] = 0, path[100] = path[200] = 'x';
    MUST(stat(path, &status) == -1 && errno == ENOENT);
    path[255] = 'x', path[256] = 0;
    MUST(stat(path, &status) == -1 && errno == ENAMETOOLONG);

    // A name that the end of memory cuts off.
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    memset(page, 'a', 4096);
    for (int i = 0; i < 4096; i++) MUST(access(page + i, F_OK) == -1 && (errno == EFAULT || errno == ENAMETOOLONG));
    page[4095] = 0;
    MUST(access(page + 4090, F_OK) == -1 && errno == ENOENT);
    MUST(access("", F_OK) == -1 && errno == ENOENT);
    for (int byte = 1; byte < 256; byte++) {
        char name[] = {'/', 't', 'm', 'p', '/', 'n', byte, 0};
        int fd = open(name, O_CREAT | O_RDWR, 0600);
        MUST(fd >= 0 ? close(fd) == 0 && unlink(name) == 0 : byte == '/' || byte == '.');
    }

    chdir("/tmp");
    symlink("b", "a"), symlink("a", "b"), symlink(".", "here"), symlink("up/../up", "up");
    MUST(stat("a", &status) == -1 && errno == ELOOP && stat("up", &status) == -1 && errno == ELOOP);
    char *end = path;
    for (int i = 0; i < 60; i++) end = stpcpy(end, "here/");
    MUST(stat(path, &status) == -1 && errno == ELOOP);
    // Links that double the path at each step: 2^40 names to walk, if one did.
    symlink("/tmp", "l0");
    for (int i = 1; i < 40; i++) {
        char from[16], to[64];
        snprintf(from, sizeof from, "l%d", i), snprintf(to, sizeof to, "l%d/../tmp/l%d", i - 1, i - 1);
        symlink(to, from);
    }
    MUST(stat("l39", &status) == -1 && errno == ELOOP);
    memset(path, 'y', 4095), path[4095] = 0;
    MUST(symlink(path, "long") == 0 && readlink("long", path, sizeof path) == 4095);
    MUST(stat("long", &status) == -1 && errno == ENAMETOOLONG);

    // Deeper than any path may name; then taken apart from within.
    int depth = 0;
    while (depth < 900 && mkdir("deep", 0700) == 0 && chdir("deep") == 0) depth++;
    char where[64];
    MUST(depth == 900 && getcwd(where, sizeof where) == NULL && errno == ERANGE);
    MUST(syscall(SYS_getcwd, path, sizeof path) != 0);
    MUST(open("file", O_CREAT | O_RDWR, 0600) >= 0 && unlink("file") == 0);
    for (; depth > 0; depth--) MUST(chdir("..") == 0 && rmdir("deep") == 0);
    mkdir("d", 0700), mkdir("d/e", 0700);
    MUST(rename("d", "d/e/f") == -1 && errno == EINVAL && rename("d/e", "d") == -1);
    int gone = open("d/e", O_RDONLY | O_DIRECTORY);
    rmdir("d/e");
    MUST(openat(gone, "x", O_CREAT | O_RDWR, 0600) == -1 && openat(gone, "..", O_RDONLY) != -2 && fchdir(gone) != -2);
    MUST(access(".", F_OK) != -2 && getcwd(where, sizeof where) != (char *)-2);
    const char *own[] = {"/proc/self/mem", "/proc/self/maps", "/proc/self/root/proc/self/cwd/..", "/proc/self/fd/0/x", "/proc/self/fd/99999999999", "/proc/1/../../etc/passwd", "/proc/self/exe/", "/dev/../proc/self/fd", "/dev/fd/-1", "/proc/self/task/1/../../status"};
    for (unsigned i = 0; i < sizeof own / sizeof *own; i++) {
        int fd = open(own[i], O_RDWR);
        char bytes[64];
        if (fd < 0) fd = open(own[i], O_RDONLY);
        pread(fd, bytes, 64, -5), pread(fd, bytes, 64, 0x7ffffffffffffff0), pwrite(fd, bytes, 64, STUB_PAGE), lseek(fd, -1, SEEK_END), read(fd, bytes, 64);
    }
    return still_here();
}
