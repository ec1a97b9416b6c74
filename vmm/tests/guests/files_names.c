/* Names: create, rename, unlink, mkdir, rmdir, link, symlink, readlink, path walking and its errors. */
#include "guests.h"
#include <limits.h>
#include <sys/statfs.h>

static long size_of(const char *path) {
    struct stat status;
    return stat(path, &status) ? -1 : status.st_size;
}

static long links_of(const char *path) {
    struct stat status;
    return lstat(path, &status) ? -1 : (long)status.st_nlink;
}

static void directories(void) {
    value("mkdir", mkdir("d", 0755));
    value("mkdir again", mkdir("d", 0755));
    value("mkdir with a slash", mkdir("d/inner/", 0755));
    value("mkdir below nothing", mkdir("absent/x", 0755));
    value("mkdir over a file", (file_with("f", "file"), mkdir("f", 0755)));
    value("mkdir below a file", mkdir("f/x", 0755));
    value("mkdir of the empty path", mkdir("", 0755));
    value("mkdir .", mkdir(".", 0755));
    value("mkdir /", mkdir("/", 0755));
    value("links of a folder with one below", links_of("d"));
    value("rmdir not empty", rmdir("d"));
    value("rmdir of a file", rmdir("f"));
    value("rmdir of nothing", rmdir("absent"));
    value("rmdir d/.", rmdir("d/."));
    value("rmdir d/..", rmdir("d/.."));
    value("rmdir inner", rmdir("d/inner"));
    value("links of an empty folder", links_of("d"));
    value("rmdir", rmdir("d"));
    value("unlink of a folder", (mkdir("d", 0700), unlink("d")));
    value("unlinkat AT_REMOVEDIR", unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
    value("unlinkat AT_REMOVEDIR on a file", unlinkat(AT_FDCWD, "f", AT_REMOVEDIR));
    value("unlinkat bad flags", unlinkat(AT_FDCWD, "f", 0x10));
    int here = (int)need("open", (mkdir("gone", 0700), open("gone", O_RDONLY | O_DIRECTORY)));
    value("rmdir of an open folder", rmdir("gone"));
    value("create in a removed folder", openat(here, "x", O_CREAT | O_RDWR, 0600));
    value("links of a removed folder", fstat(here, &(struct stat){0}) ? -1 : 0);
    close(here);
}

static void unlinking(void) {
    file_with("victim", "still here");
    int fd = (int)need("open", open("victim", O_RDWR));
    value("unlink of an open file", unlink("victim"));
    value("it has no name", open("victim", O_RDONLY));
    char content[16] = {0};
    value("it can be read", pread(fd, content, 10, 0));
    text("content", "%s", content);
    struct stat status;
    fstat(fd, &status);
    value("links of it", (long)status.st_nlink);
    value("unlink of nothing", unlink("victim"));
    value("unlink of the empty path", unlink(""));
    value("unlink with a trailing slash", unlink("f/"));
    close(fd);
}

static void renaming(void) {
    file_with("a", "aaa");
    file_with("b", "bb");
    value("rename over a file", rename("a", "b"));
    value("size of the target", size_of("b"));
    value("source is gone", size_of("a"));
    value("rename of nothing", rename("a", "c"));
    value("rename to itself", rename("b", "b"));
    mkdir("x", 0700), mkdir("y", 0700), mkdir("x/sub", 0700);
    value("rename folder over an empty folder", rename("x", "y"));
    value("its content came along", links_of("y"));
    mkdir("x", 0700);
    value("rename over a full folder", rename("x", "y"));
    value("rename file over a folder", rename("b", "x"));
    value("rename folder over a file", rename("x", "b"));
    value("rename into itself", rename("y", "y/sub/z"));
    value("rename over its parent", rename("y/sub", "y"));
    value("rename to nowhere", rename("b", "absent/b"));
    value("rename file with a slash", rename("b", "c/"));
    value("rename folder with a slash", rename("x", "z/"));
    value("rename .", rename(".", "c"));
    file_with("c", "c");
    value("RENAME_NOREPLACE", renameat2(AT_FDCWD, "b", AT_FDCWD, "c", RENAME_NOREPLACE));
    value("RENAME_NOREPLACE to a free name", renameat2(AT_FDCWD, "b", AT_FDCWD, "free", RENAME_NOREPLACE));
    value("RENAME_EXCHANGE", renameat2(AT_FDCWD, "free", AT_FDCWD, "c", RENAME_EXCHANGE));
    value("size after exchange", size_of("free"));
    value("RENAME_EXCHANGE with nothing", renameat2(AT_FDCWD, "free", AT_FDCWD, "absent", RENAME_EXCHANGE));
    value("both flags", renameat2(AT_FDCWD, "free", AT_FDCWD, "c", RENAME_NOREPLACE | RENAME_EXCHANGE));
    value("unknown flag", renameat2(AT_FDCWD, "free", AT_FDCWD, "c", 64));
    link("c", "c2");
    value("rename between two names of one file", rename("c", "c2"));
    value("both names stay", links_of("c"));
}

static void links(void) {
    file_with("first", "12345");
    value("link", link("first", "second"));
    value("links", links_of("first"));
    value("link over a name", link("first", "second"));
    value("link of nothing", link("absent", "third"));
    value("link of a folder", link("y", "y2"));
    value("link to a wrong folder", link("first", "absent/x"));
    value("unlink the first", unlink("first"));
    value("links then", links_of("second"));
    value("size by the second", size_of("second"));
    symlink("second", "soft");
    value("link of a symlink itself", link("soft", "soft2"));
    value("that is a symlink", readlink("soft2", (char[16]){0}, 16));
    value("link AT_SYMLINK_FOLLOW", linkat(AT_FDCWD, "soft", AT_FDCWD, "hard", AT_SYMLINK_FOLLOW));
    value("links by it", links_of("hard"));
}

static void symlinks(void) {
    char target[64] = {0};
    value("symlink", symlink("second", "s1"));
    value("symlink over a name", symlink("second", "s1"));
    value("symlink to the empty path", symlink("", "s2"));
    value("readlink", readlink("s1", target, sizeof target));
    text("target", "%s", target);
    value("readlink cut short", readlink("s1", target, 3));
    value("readlink size 0", syscall(SYS_readlink, "s1", target, 0));
    value("readlink of a file", readlink("second", target, sizeof target));
    value("readlink of nothing", readlink("absent", target, sizeof target));
    value("stat through it", size_of("s1"));
    struct stat status;
    lstat("s1", &status);
    holds("lstat says symlink", S_ISLNK(status.st_mode) && (status.st_mode & 0777) == 0777);
    value("lstat size is the length of the target", status.st_size);
    value("O_NOFOLLOW", open("s1", O_RDONLY | O_NOFOLLOW));
    value("O_NOFOLLOW with O_PATH", close(open("s1", O_PATH | O_NOFOLLOW)));
    int link_fd = open("s1", O_PATH | O_NOFOLLOW);
    value("readlinkat of the empty path", readlinkat(link_fd, "", target, sizeof target));
    close(link_fd);
    symlink("nowhere", "dangling");
    value("open dangling", open("dangling", O_RDONLY));
    value("O_EXCL on dangling", open("dangling", O_CREAT | O_EXCL | O_RDWR, 0600));
    value("O_CREAT through dangling", close(open("dangling", O_CREAT | O_RDWR, 0600)));
    value("its target exists now", size_of("nowhere"));
    symlink("loop-b", "loop-a"), symlink("loop-a", "loop-b");
    value("a loop", open("loop-a", O_RDONLY));
    value("a loop on the way", open("loop-a/x", O_RDONLY));
    value("stat of a loop", size_of("loop-a"));
    value("lstat of a loop", links_of("loop-a"));
    symlink("second", "chain0");
    char from[16], to[16];
    for (int i = 1; i <= 41; i++) {
        snprintf(to, sizeof to, "chain%d", i - 1);
        snprintf(from, sizeof from, "chain%d", i);
        symlink(to, from);
    }
    value("40 symlinks in a row", size_of("chain39"));
    value("41 symlinks in a row", size_of("chain40"));
    mkdir("real", 0700), mkdir("real/inner", 0700), symlink("real/inner", "way"), file_with("real/mark", "mark!!");
    value(".. of a symlinked folder", size_of("way/../mark"));
    value("symlink to a folder with a slash", links_of("way/"));
    value("rmdir of a symlink", rmdir("way"));
    value("mkdir over a dangling symlink", (symlink("none", "hole"), mkdir("hole", 0700)));
}

static void walking(void) {
    static char path[PATH_MAX + 16];
    memset(path, 'n', 256);
    value("a name of 256", open(path, O_CREAT | O_RDWR, 0600));
    path[255] = 0;
    value("a name of 255", close(open(path, O_CREAT | O_RDWR, 0600)));
    value("mkdir of 256 below a folder", (memset(path, 'm', 256), memcpy(path, "real/", 5), memset(path + 5, 'm', 256), mkdir(path, 0700)));
    memcpy(path, ".//", 3);
    for (int i = 3; i < PATH_MAX; i += 2)
        memcpy(path + i, "./", 2);
    memcpy(path + PATH_MAX - 7, "second", 7);
    value("a path of 4095", close(open(path, O_RDONLY)));
    path[PATH_MAX - 1] = 'x', path[PATH_MAX] = 0;
    value("a path of 4096", open(path, O_RDONLY));
    value("slashes and dots", size_of(".//./real///../second"));
    value(".. above the root", close(open("/../../../dev/null", O_RDONLY)));
    value(".. below a file", size_of("second/.."));
    value(". of a file", size_of("second/."));
    value("bytes that are not UTF-8", close(open("\xff\xfe name\t", O_CREAT | O_RDWR, 0600)));
    value("names are case sensitive", size_of("SECOND"));
    struct statfs fs;
    value("statfs", statfs(".", &fs));
    value("longest name", (long)fs.f_namelen);
    value("statfs of nothing", statfs("absent", &fs));
}

int main(void) {
    scratch();
    directories();
    unlinking();
    renaming();
    links();
    symlinks();
    walking();
    return 0;
}
