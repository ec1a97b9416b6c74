/* Mapped files: private and shared, coherence with read and write, the last page, SIGBUS, truncation, shared anonymous memory. */
#include "faults.h"
#include <pthread.h>
#include <sys/mman.h>

enum { PAGE = 4096 };
#define RW (PROT_READ | PROT_WRITE)

static void private_map(void) {
    int fd = (int)need("open", open("data", O_RDWR | O_CREAT, 0600));
    static char content[3 * PAGE - 100];
    for (size_t i = 0; i < sizeof content; i++)
        content[i] = (char)(i / PAGE + 'a');
    need("write", write(fd, content, sizeof content));
    char *at = mapped("private", mmap(NULL, 3 * PAGE, RW, MAP_PRIVATE, fd, 0));
    reads("page 0", at);
    reads("page 2", at + 2 * PAGE);
    reads("behind the end in the last page", at + 3 * PAGE - 1);
    writes("write", at + 5, 'X');
    reads("read back", at + 5);
    char byte;
    value("the file is not changed", (pread(fd, &byte, 1, 5), byte));
    value("madvise DONTNEED", madvise(at, PAGE, MADV_DONTNEED));
    reads("the file's content is back", at + 5);
    char *second = mapped("with an offset", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE));
    reads("page 1", second);
    writes("write to PROT_READ", second, 1);
    value("mprotect RW", mprotect(second, PAGE, RW));
    writes("write after mprotect", second, 'Y');
    value("file not changed", (pread(fd, &byte, 1, PAGE), byte));
    char *beyond = mapped("beyond the end", mmap(NULL, 3 * PAGE, RW, MAP_PRIVATE, fd, 2 * PAGE));
    reads("last page", beyond);
    reads("whole page beyond", beyond + PAGE);
    writes("write beyond", beyond + 2 * PAGE + 9, 1);
    value("close", close(fd));
    reads("a map outlives the descriptor", at + PAGE);
    value("unlink", unlink("data"));
    reads("and the name", at + 2 * PAGE);
}

static void shared_map(void) {
    int fd = (int)need("open", open("shared", O_RDWR | O_CREAT, 0600));
    need("ftruncate", ftruncate(fd, 2 * PAGE));
    char *at = mapped("shared", mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0));
    char *twin = mapped("shared twice", mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0));
    writes("write by the map", at + 10, 'M');
    char byte;
    value("read sees it", (pread(fd, &byte, 1, 10), byte));
    reads("the twin sees it", twin + 10);
    need("write", pwrite(fd, "W", 1, PAGE + 3));
    reads("the map sees a write", at + PAGE + 3);
    char *copy = mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0);
    reads("a private map sees it", copy + 10);
    writes("private write", copy + 10, 'P');
    reads("shared does not see that", at + 10);
    reads("behind the end", at + 2 * PAGE);
    need("ftruncate", ftruncate(fd, 3 * PAGE));
    reads("grown by ftruncate", at + 2 * PAGE);
    writes("write there", at + 2 * PAGE, 'G');
    need("ftruncate", ftruncate(fd, PAGE));
    reads("cut off by ftruncate", at + 2 * PAGE);
    reads("the page that is left", at + 10);
    value("read into the map", (lseek(fd, 0, SEEK_SET), read(fd, at + 100, 50)));
    value("a system call beyond the end", pread(fd, at + PAGE, 10, 0));
    value("write from beyond the end", write(fd, at + PAGE, 10));
    value("msync", msync(at, PAGE, MS_SYNC));
    value("MADV_DONTNEED keeps shared content", madvise(at, PAGE, MADV_DONTNEED));
    reads("content", at + 10);
    char *grown = mremap(at, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);
    reads("content after mremap", grown + 10);
    value("munmap", munmap(grown, 8 * PAGE));
    value("the file keeps it", (pread(fd, &byte, 1, 10), byte));
    close(fd);
}

static void rights(void) {
    file_with("r", "read only");
    int reader = open("r", O_RDONLY), writer = open("r", O_WRONLY), folder = open(".", O_RDONLY), path = open("r", O_PATH);
    mapped("shared writable of O_RDONLY", mmap(NULL, PAGE, RW, MAP_SHARED, reader, 0));
    mapped("private writable of O_RDONLY", mmap(NULL, PAGE, RW, MAP_PRIVATE, reader, 0));
    mapped("private readable of O_WRONLY", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, writer, 0));
    char *at = mapped("shared readable of O_RDONLY", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 0));
    value("mprotect W on it", mprotect(at, PAGE, RW));
    mapped("a folder", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, folder, 0));
    mapped("O_PATH", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, path, 0));
    mapped("offset unaligned", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, reader, 100));
    mapped("offset near 2^63", mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, reader, 0x7ffffffffffff000));
    mapped("MAP_SHARED_VALIDATE unknown flag", mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | (1 << 21), reader, 0));
    char *zero = mapped("/dev/zero private", mmap(NULL, PAGE, RW, MAP_PRIVATE, open("/dev/zero", O_RDWR), 0));
    reads("is zero", zero);
    mapped("/dev/null", mmap(NULL, PAGE, RW, MAP_PRIVATE, open("/dev/null", O_RDWR), 0));
    char *self = mapped("the program itself", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, open("/proc/self/exe", O_RDONLY), 0));
    text("begins with", "%.3s", self + 1);
}

static void *add(void *argument) {
    long *sum = argument;
    for (int i = 0; i < 20000; i++)
        __atomic_fetch_add(sum, 1, __ATOMIC_RELAXED);
    return NULL;
}

static void between_threads(void) {
    char *at = mapped("shared anonymous", mmap(NULL, 4 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    reads("is zero", at + 3 * PAGE);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        need("thread", pthread_create(&threads[i], NULL, add, at) ? -1 : 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    value("4 threads added", *(long *)at);
    value("MADV_DONTNEED", madvise(at, PAGE, MADV_DONTNEED));
    value("shared anonymous content stays", *(long *)at);
    int fd = (int)need("memfd", memfd_create("twice", 0));
    need("ftruncate", ftruncate(fd, PAGE));
    char *one = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0), *two = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
    for (int i = 0; i < 4; i++)
        need("thread", pthread_create(&threads[i], NULL, add, i & 1 ? one : two) ? -1 : 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    value("4 threads added through two maps", *(long *)one);
}

int main(void) {
    scratch();
    faults_begin();
    private_map();
    shared_map();
    rights();
    between_threads();
    return 0;
}
