/* Memory that a micro-VM does not give: more address space than its window, files larger than /tmp, huge pages; and what it does not tell. Compared with
   .expected. */
#include "guests.h"
#include <sys/mman.h>

enum { PAGE = 4096 };
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

int main(void) {
    scratch();
    mapped("2 TiB PROT_NONE", mmap(NULL, 2UL << 40, PROT_NONE, ANONYMOUS | MAP_NORESERVE, -1, 0));
    mapped("MAP_FIXED behind the window", mmap((void *)(1UL << 45), PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0));
    mapped("MAP_HUGETLB", mmap(NULL, 2 << 20, RW, ANONYMOUS | MAP_HUGETLB, -1, 0));
    mapped("more than the limit", mmap(NULL, 16UL << 30, RW, ANONYMOUS, -1, 0));
    char *at = mapped("4 pages", mmap(NULL, 4 * PAGE, RW, ANONYMOUS, -1, 0));
    value("MREMAP_DONTUNMAP", mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | 4) == MAP_FAILED ? -1 : 0);
    unsigned char resident[4] = {0};
    value("mincore", mincore(at, 4 * PAGE, resident));
    text("untouched pages count as resident", "%d%d%d%d", resident[0], resident[1], resident[2], resident[3]);
    int fd = (int)done("a file", open("sparse", O_RDWR | O_CREAT, 0600));
    value("a hole of 64 GiB", ftruncate(fd, 1L << 36));
    value("its size", lseek(fd, 0, SEEK_END));
    value("fallocate of 64 GiB", fallocate(fd, 0, 0, 1L << 36));
    value("a byte behind 64 GiB", pwrite(fd, "x", 1, 1L << 36));
    value("its size", lseek(fd, 0, SEEK_END));
    value("memfd of 64 GiB", ftruncate(memfd_create("large", 0), 1L << 36));
    return 0;
}
