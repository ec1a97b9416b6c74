/* Folders: getdents64, openat with a folder, chdir, getcwd, fchdir, openat2's resolve rules. */
#include "guests.h"
#include <dirent.h>
#include <linux/openat2.h>

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

struct entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

/* All names with their types, sorted, in as many calls as the buffer's size makes necessary. */
static void list(const char *name, int fd, size_t size) {
    static char buffer[32768], texts[400][280];
    char *lines[400];
    size_t count = 0;
    long got;
    while ((got = syscall(SYS_getdents64, fd, buffer, size)) > 0)
        for (long at = 0; at < got && count < 400;) {
            struct entry *entry = (struct entry *)(buffer + at);
            snprintf(texts[count], sizeof *texts, "%s/%d", entry->name, entry->type);
            lines[count] = texts[count];
            count++;
            at += entry->length;
        }
    value(name, got);
    qsort(lines, count, sizeof *lines, by_text);
    if (count > 12)
        text("names", "%zu, first %s %s %s, last %s", count, lines[0], lines[1], lines[2], lines[count - 1]);
    else
        for (size_t i = 0; i < count; i++)
            printf("  %s\n", lines[i]);
}

static void listing(void) {
    mkdir("d", 0755), mkdir("d/sub", 0755), file_with("d/file", ""), symlink("file", "d/soft"), mkfifo("d/fifo", 0600);
    int fd = (int)need("open", open("d", O_RDONLY | O_DIRECTORY));
    list("getdents64", fd, 4096);
    value("again at the end", syscall(SYS_getdents64, fd, (char[512]){0}, 512));
    value("lseek to the start", lseek(fd, 0, SEEK_SET));
    unlink("d/soft"), file_with("d/later", "");
    list("getdents64 after a change", fd, 4096);
    value("too small a buffer", (lseek(fd, 0, SEEK_SET), syscall(SYS_getdents64, fd, (char[512]){0}, 10)));
    value("wild buffer", syscall(SYS_getdents64, fd, wild(), 512));
    value("of a file", syscall(SYS_getdents64, open("d/file", O_RDONLY), (char[512]){0}, 512));
    value("of a closed one", syscall(SYS_getdents64, 900, (char[512]){0}, 512));
    value("of O_PATH", syscall(SYS_getdents64, open("d", O_PATH), (char[512]){0}, 512));
    value("read of a folder", read(fd, (char[8]){0}, 8));
    value("write of a folder", write(fd, "x", 1));
    close(fd);
    mkdir("many", 0755);
    for (int i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof name, "many/n%03d", i);
        file_with(name, "");
    }
    fd = (int)need("open", open("many", O_RDONLY | O_DIRECTORY));
    list("300 in small pieces", fd, 256);
    lseek(fd, 0, SEEK_SET);
    list("300 in large pieces", fd, 32768);
    close(fd);
    mkdir("empty", 0755);
    list("an empty folder", open("empty", O_RDONLY), 4096);
    DIR *stream = opendir("many");
    int count = 0, removed = 0;
    for (struct dirent *entry; (entry = readdir(stream));)
        if (entry->d_name[0] == 'n')
            count++, removed += !unlinkat(dirfd(stream), entry->d_name, 0);
    closedir(stream);
    text("removed while listed", "%d of %d", removed, count);
    value("the folder is empty", rmdir("many"));
}

static void relative(void) {
    int fd = (int)need("open", open("d", O_PATH | O_DIRECTORY));
    value("openat", close(openat(fd, "file", O_RDONLY)));
    value("openat ..", close(openat(fd, "../d/later", O_RDONLY)));
    value("openat absolute", close(openat(900, "/dev/null", O_RDONLY)));
    value("openat of a closed one", openat(900, "file", O_RDONLY));
    int file = open("d/file", O_RDONLY);
    value("openat on a file", openat(file, "x", O_RDONLY));
    value("openat of the empty path", openat(fd, "", O_RDONLY));
    value("mkdirat", mkdirat(fd, "by-at", 0700));
    value("symlinkat", symlinkat("by-at", fd, "soft-at"));
    value("readlinkat", readlinkat(fd, "soft-at", (char[16]){0}, 16));
    value("renameat", renameat(fd, "soft-at", AT_FDCWD, "moved"));
    value("unlinkat", unlinkat(AT_FDCWD, "moved", 0));
    value("linkat", linkat(fd, "file", fd, "linked", 0));
    value("fstatat", fstatat(fd, "linked", &(struct stat){0}, 0));
    rename("d", "renamed");
    value("a renamed folder is followed", close(openat(fd, "file", O_RDONLY)));
    rename("renamed", "d");
    close(file), close(fd);
}

static void here(void) {
    char path[4096], expected[4200];
    holds("getcwd is the scratch folder", getcwd(path, sizeof path) && !strcmp(path, scratch_path));
    value("chdir", chdir("d/sub"));
    snprintf(expected, sizeof expected, "%s/d/sub", scratch_path);
    holds("getcwd follows", getcwd(path, sizeof path) && !strcmp(path, expected));
    value("raw getcwd counts the zero", syscall(SYS_getcwd, path, sizeof path) == (long)strlen(expected) + 1);
    value("getcwd too small", syscall(SYS_getcwd, path, 4));
    value("getcwd wild", syscall(SYS_getcwd, wild(), 4096));
    value("relative to the new one", access("../file", F_OK));
    value("chdir to a file", chdir("../file"));
    value("chdir to nothing", chdir("absent"));
    value("chdir to the empty path", chdir(""));
    int up = open("..", O_RDONLY | O_DIRECTORY), file = open("../file", O_RDONLY);
    value("fchdir", fchdir(up));
    value("access after it", access("file", F_OK));
    value("fchdir to a file", fchdir(file));
    value("fchdir to a closed one", fchdir(900));
    value("remove the working directory", (mkdir("dead", 0700), chdir("dead"), rmdir("../dead")));
    value("getcwd there", getcwd(path, sizeof path) ? 0 : -1);
    value("open . there", close(open(".", O_RDONLY)));
    value("create there", open("x", O_CREAT | O_RDWR, 0600));
    value("chdir .. there", chdir(".."));
    need("chdir", chdir("/"));
    text("getcwd of /", "%s", getcwd(path, sizeof path));
    need("chdir", chdir(scratch_path));
    symlink("d/sub", "way");
    need("chdir", chdir("way"));
    holds("getcwd through a symlink is the real path", getcwd(path, sizeof path) && !strcmp(path, expected));
    need("chdir", chdir(scratch_path));
    holds("realpath", realpath("way/../file", path) && strstr(path, "/d/file"));
}

static long open2(int fd, const char *path, uint64_t flags, uint64_t resolve) {
    struct open_how how = {.flags = flags, .resolve = resolve};
    return syscall(SYS_openat2, fd, path, &how, sizeof how);
}

static void resolving(void) {
    int fd = (int)need("open", open("d", O_PATH | O_DIRECTORY));
    symlink("/", "d/root"), symlink("../d/file", "d/out"), symlink("file", "d/in");
    done("openat2", open2(fd, "file", O_RDONLY, 0));
    value("RESOLVE_BENEATH ..", open2(fd, "../d/file", O_RDONLY, RESOLVE_BENEATH));
    value("RESOLVE_BENEATH absolute", open2(fd, "/dev/null", O_RDONLY, RESOLVE_BENEATH));
    value("RESOLVE_BENEATH symlink out", open2(fd, "out", O_RDONLY, RESOLVE_BENEATH));
    done("RESOLVE_BENEATH symlink in", open2(fd, "in", O_RDONLY, RESOLVE_BENEATH));
    done("RESOLVE_BENEATH inner ..", open2(fd, "sub/../file", O_RDONLY, RESOLVE_BENEATH));
    value("RESOLVE_NO_SYMLINKS", open2(fd, "in", O_RDONLY, RESOLVE_NO_SYMLINKS));
    done("RESOLVE_IN_ROOT absolute", open2(fd, "/file", O_RDONLY, RESOLVE_IN_ROOT));
    done("RESOLVE_IN_ROOT ..", open2(fd, "../../file", O_RDONLY, RESOLVE_IN_ROOT));
    value("both", open2(fd, "file", O_RDONLY, RESOLVE_IN_ROOT | RESOLVE_BENEATH));
    value("unknown resolve flag", open2(fd, "file", O_RDONLY, 1 << 20));
    value("unknown flag", open2(fd, "file", 1ULL << 40, 0));
    value("too small a structure", syscall(SYS_openat2, fd, "file", (char[8]){0}, 8));
    value("wild structure", syscall(SYS_openat2, fd, "file", wild(), 24));
}

int main(void) {
    scratch();
    listing();
    relative();
    here();
    resolving();
    return 0;
}
