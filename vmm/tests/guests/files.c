/* The everyday life of a file: made, written, mapped, named, linked, listed, removed. */
#include "guests.h"
#include <dirent.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define TRY(call) do { errno = 0; long r = (long)(call); printf("%s = %ld %d\n", #call, r < 0 ? r : (r > 0), errno); } while (0)
static int names(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

int main(void) {
    scratch();
    char text[64] = "";
    int fd = open("a.txt", O_RDWR | O_CREAT | O_EXCL, 0666);
    TRY(write(fd, "hello world", 11));
    TRY(open("a.txt", O_RDWR | O_CREAT | O_EXCL, 0666));
    TRY(lseek(fd, 6, SEEK_SET));
    TRY(read(fd, text, 5));
    printf("%s %ld\n", text, (long)lseek(fd, 0, SEEK_CUR));
    TRY(lseek(fd, -1, SEEK_SET));
    TRY(pwrite(fd, "HELLO", 5, 0));
    struct iovec list[2] = {{text, 3}, {text + 10, 4}};
    printf("readv %ld\n", (long)preadv(fd, list, 2, 2));
    printf("%.3s %.4s\n", text, text + 10);
    TRY(ftruncate(fd, 20));
    struct stat st;
    fstat(fd, &st);
    printf("size %ld mode %o\n", (long)st.st_size, st.st_mode);
    char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    printf("map %.5s\n", map);
    pwrite(fd, "again", 5, 0);
    printf("map %.5s\n", map);
    TRY(close(fd));
    TRY(close(fd));
    TRY(mkdir("d", 0777));
    TRY(mkdir("d", 0777));
    TRY(mkdir("no/d", 0777));
    TRY(rename("a.txt", "d/b.txt"));
    TRY(rmdir("d"));
    TRY(unlink("d"));
    TRY(symlink("d/b.txt", "link"));
    TRY(symlink("loop", "loop"));
    TRY(open("loop", O_RDONLY));
    TRY(open("link", O_RDONLY | O_NOFOLLOW));
    TRY(readlink("link", text, 3));
    TRY(readlink("d", text, 3));
    lstat("link", &st);
    printf("link %d\n", S_ISLNK(st.st_mode));
    TRY(stat("link/", &st));
    TRY(stat("d/../d/./b.txt", &st));
    TRY(stat("d/b.txt/x", &st));
    TRY(stat("", &st));
    char longer[5000];
    memset(longer, 'n', sizeof longer);
    longer[300] = 0;
    TRY(stat(longer, &st));
    longer[300] = 'n';
    longer[4999] = 0;
    TRY(stat(longer, &st));
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof name, "d/f%03d", i);
        close(open(name, O_CREAT | O_WRONLY, 0600));
    }
    struct dirent **found;
    int count = scandir("d", &found, NULL, names);
    printf("entries %d %s %s type %d\n", count, found[2]->d_name, found[count - 1]->d_name, found[5]->d_type == DT_REG);
    fd = open("d", O_RDONLY | O_DIRECTORY);
    TRY(openat(fd, "f007", O_RDONLY));
    TRY(openat(fd, "missing", O_RDONLY));
    TRY(unlinkat(fd, "f007", 0));
    TRY(faccessat(fd, "f007", F_OK, 0));
    TRY(faccessat(fd, "f008", R_OK | W_OK, 0));
    TRY(read(fd, text, 1));
    TRY(open("d", O_WRONLY));
    TRY(openat(fd, "f008/x", O_RDONLY));
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 50);
    printf("dup %d flags %d\n", copy >= 50, fcntl(copy, F_GETFD));
    TRY(dup2(copy, 60));
    TRY(dup2(999, 61));
    FILE *append = fopen("d/log", "a+");
    fputs("one\n", append);
    rewind(append);
    fputs("two\n", append);
    rewind(append);
    while (fgets(text, sizeof text, append)) printf("line %s", text);
    printf("cwd %d\n", strcmp(getcwd(longer, sizeof longer), scratch_path));
    TRY(getcwd(text, 2) != NULL);
    TRY(write(1, wild(), 5));
    fd = open("/dev/null", O_RDWR);
    TRY(write(fd, "x", 1));
    TRY(read(fd, text, 1));
    fd = open("/dev/zero", O_RDONLY);
    TRY(read(fd, text, 64));
    return 0;
}
