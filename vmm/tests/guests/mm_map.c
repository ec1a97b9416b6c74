/* Anonymous memory: mmap's forms and refusals, munmap holes and splits, MAP_FIXED, NOREPLACE, mremap, madvise, reservations, brk. */
#include "faults.h"
#include <sys/mman.h>

enum { PAGE = 4096 };
#define RW (PROT_READ | PROT_WRITE)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

static char *pages(int count, int protection) {
    char *at = mmap(NULL, (size_t)count * PAGE, protection, ANONYMOUS, -1, 0);
    need("mmap", at == MAP_FAILED ? -1 : 0);
    return at;
}

static void refusals(void) {
    mapped("length 0", mmap(NULL, 0, RW, ANONYMOUS, -1, 0));
    mapped("length of half the address space", mmap(NULL, 1UL << 62, PROT_NONE, ANONYMOUS | MAP_NORESERVE, -1, 0));
    mapped("length near 2^64", mmap(NULL, -4096UL, RW, ANONYMOUS, -1, 0));
    mapped("neither private nor shared", mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0));
    mapped("fixed and unaligned", mmap((void *)(pages(1, RW) + 1), PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0));
    mapped("fixed above user space", mmap((void *)(1UL << 47), PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0));
    mapped("offset unaligned", mmap(NULL, PAGE, RW, ANONYMOUS, -1, 1));
    mapped("closed descriptor", mmap(NULL, PAGE, RW, MAP_PRIVATE, 900, 0));
    int ends[2];
    need("pipe", pipe(ends));
    mapped("a pipe", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, ends[0], 0));
    mapped("length is rounded up", mmap(NULL, 1, RW, ANONYMOUS, -1, 0));
    char *low = mapped("MAP_32BIT", mmap(NULL, PAGE, RW, ANONYMOUS | MAP_32BIT, -1, 0));
    holds("below 2 GiB", (uintptr_t)low < 1UL << 31);
    char *hinted = pages(1, RW);
    munmap(hinted, PAGE);
    holds("a free hint is taken", mmap(hinted, PAGE, RW, ANONYMOUS, -1, 0) == hinted);
    char *other = mmap(hinted, PAGE, RW, ANONYMOUS, -1, 0);
    holds("a used hint is not", other != hinted && other != MAP_FAILED);
    value("munmap unaligned", munmap(other + 1, PAGE));
    value("munmap length 0", munmap(other, 0));
    value("munmap length near 2^64", munmap(other, -4096UL));
    value("munmap above user space", munmap((void *)(1UL << 47), PAGE));
}

static void holes(void) {
    char *at = pages(9, RW);
    for (int i = 0; i < 9; i++)
        at[i * PAGE] = (char)(i + 1);
    value("munmap a hole", munmap(at + 3 * PAGE, 2 * PAGE));
    reads("before the hole", at + 3 * PAGE - 1);
    reads("in the hole", at + 3 * PAGE);
    reads("last of the hole", at + 5 * PAGE - 1);
    reads("behind the hole", at + 5 * PAGE);
    writes("write in the hole", at + 4 * PAGE + 123, 1);
    value("munmap over the hole", munmap(at + 2 * PAGE, 4 * PAGE));
    reads("page 1", at + PAGE);
    reads("page 2", at + 2 * PAGE);
    reads("page 6", at + 6 * PAGE);
    value("munmap of nothing", munmap(at + 2 * PAGE, 4 * PAGE));
    holds("MAP_FIXED in the hole", mmap(at + 3 * PAGE, PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0) == at + 3 * PAGE);
    reads("new page is zero", at + 3 * PAGE);
    holds("MAP_FIXED over used pages", mmap(at, 2 * PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0) == at);
    reads("old content is gone", at + PAGE);
    mapped("MAP_FIXED_NOREPLACE over used pages", mmap(at, PAGE, RW, ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    mapped("MAP_FIXED_NOREPLACE half used", mmap(at + PAGE, 2 * PAGE, RW, ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    holds("MAP_FIXED_NOREPLACE in a hole", mmap(at + 2 * PAGE, PAGE, RW, ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == at + 2 * PAGE);
    reads("it is zero", at + 2 * PAGE);
    value("munmap all", munmap(at, 9 * PAGE));
    reads("gone", at + 8 * PAGE);
}

static void moving(void) {
    char *at = pages(8, RW);
    strcpy(at, "moved along");
    holds("mremap to shrink stays", mremap(at, 8 * PAGE, 4 * PAGE, 0) == at);
    reads("cut off", at + 4 * PAGE);
    holds("mremap grows in place", mremap(at, 4 * PAGE, 6 * PAGE, 0) == at);
    reads("grown part is zero", at + 5 * PAGE);
    mmap(at + 6 * PAGE, PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0);
    mapped("mremap without room", mremap(at, 6 * PAGE, 8 * PAGE, 0));
    char *moved = mapped("mremap MAYMOVE", mremap(at, 6 * PAGE, 100 * PAGE, MREMAP_MAYMOVE));
    holds("it moved", moved != at);
    text("content", "%s", moved);
    reads("old place", at);
    char *target = pages(100, RW);
    holds("MREMAP_FIXED", mremap(moved, 100 * PAGE, 50 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
    text("content", "%s", target);
    reads("behind it the target stays", target + 60 * PAGE);
    mapped("MREMAP_FIXED without MAYMOVE", mremap(target, PAGE, PAGE, MREMAP_FIXED, at));
    mapped("MREMAP_FIXED overlapping", mremap(target, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target + PAGE));
    mapped("mremap unaligned", mremap(target + 1, PAGE, PAGE, 0));
    mapped("mremap to length 0", mremap(target, PAGE, 0, MREMAP_MAYMOVE));
    mapped("mremap of nothing", mremap(at, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    mapped("mremap over several mappings", mremap((mprotect(target, PAGE, PROT_READ), target), 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE));
    mapped("mremap unknown flag", mremap(target, PAGE, PAGE, 64));
    char *read_only = pages(2, PROT_READ);
    mprotect(read_only + PAGE, PAGE, RW);
    char *kept = mremap(read_only, PAGE, 3 * PAGE, MREMAP_MAYMOVE);
    writes("protection moves along", kept + 2 * PAGE, 1);
}

static void advice(void) {
    char *at = pages(4, RW);
    memset(at, 7, 4 * PAGE);
    value("MADV_DONTNEED", madvise(at + PAGE, 2 * PAGE, MADV_DONTNEED));
    reads("page 0", at);
    reads("page 1 reads zero", at + PAGE);
    reads("page 2 reads zero", at + 3 * PAGE - 1);
    reads("page 3", at + 3 * PAGE);
    writes("write after it", at + PAGE, 9);
    reads("read it", at + PAGE);
    value("MADV_DONTNEED length 0", madvise(at, 0, MADV_DONTNEED));
    value("MADV_DONTNEED unaligned", madvise(at + 1, PAGE, MADV_DONTNEED));
    value("MADV_FREE", madvise(at, PAGE, MADV_FREE));
    writes("write after MADV_FREE", at, 5);
    reads("a write cancels it", at);
    value("MADV_WILLNEED", madvise(at, PAGE, MADV_WILLNEED));
    value("MADV_NORMAL", madvise(at, PAGE, MADV_NORMAL));
    value("MADV_NOHUGEPAGE", madvise(at, PAGE, MADV_NOHUGEPAGE));
    value("MADV_DONTDUMP", madvise(at, PAGE, MADV_DONTDUMP));
    value("unknown advice", madvise(at, PAGE, 9999));
    munmap(at + 2 * PAGE, PAGE);
    value("MADV_DONTNEED across a hole", madvise(at, 4 * PAGE, MADV_DONTNEED));
    reads("behind the hole is done too", at + 3 * PAGE);
    value("MADV_POPULATE_WRITE", madvise(pages(4, RW), 4 * PAGE, MADV_POPULATE_WRITE));
    value("MADV_POPULATE_WRITE on read-only", madvise(pages(1, PROT_READ), PAGE, MADV_POPULATE_WRITE));
}

static void reservations(void) {
    const size_t huge = 64UL << 30;
    char *at = mapped("64 GiB PROT_NONE", mmap(NULL, huge, PROT_NONE, ANONYMOUS | MAP_NORESERVE, -1, 0));
    reads("read of it", at + huge / 2);
    value("commit a part", mprotect(at + huge / 2, 16 * PAGE, RW));
    writes("write in it", at + huge / 2 + 5, 42);
    reads("read in it", at + huge / 2 + 5);
    reads("before it", at + huge / 2 - 1);
    reads("behind it", at + huge / 2 + 16 * PAGE);
    holds("commit by MAP_FIXED", mmap(at + huge - PAGE, PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0) == at + huge - PAGE);
    writes("write at the very end", at + huge - 1, 43);
    value("commit at the start", mprotect(at, PAGE, RW));
    writes("write at the very start", at, 44);
    value("decommit", (madvise(at + huge / 2, 16 * PAGE, MADV_DONTNEED), mprotect(at + huge / 2, 16 * PAGE, PROT_NONE)));
    reads("read after decommit", at + huge / 2 + 5);
    value("commit again", mprotect(at + huge / 2, PAGE, RW));
    reads("zero again", at + huge / 2 + 5);
    const size_t align = 4UL << 30;
    char *aligned = (char *)(((uintptr_t)at + align - 1) & ~(align - 1));
    value("trim to a 4 GiB cage", aligned == at ? 0 : munmap(at, (size_t)(aligned - at)));
    value("trim behind", munmap(aligned + align, (size_t)(at + huge - aligned - (long)align)));
    value("write in the cage", mprotect(aligned + align / 2, PAGE, RW));
    writes("write in the cage", aligned + align / 2, 1);
    value("unmap the cage", munmap(aligned, align));
}

static void program_break(void) {
    char *start = sbrk(0);
    holds("brk 0 gives the break", syscall(SYS_brk, 0) == (long)start);
    holds("sbrk 3 pages", sbrk(3 * PAGE) == start);
    writes("write in it", start + 3 * PAGE - 1, 5);
    holds("shrink", syscall(SYS_brk, start + 10) == (long)(start + 10));
    char *page_end = (char *)(((uintptr_t)start + 10 + PAGE - 1) & -(uintptr_t)PAGE);
    reads("behind the break's page", page_end + PAGE);
    holds("grow again", syscall(SYS_brk, start + 4 * PAGE) == (long)(start + 4 * PAGE));
    reads("zero again", start + 3 * PAGE - 1);
    holds("brk far below is refused", syscall(SYS_brk, 4096) == (long)(start + 4 * PAGE));
    holds("brk above user space is refused", syscall(SYS_brk, 1UL << 47) == (long)(start + 4 * PAGE));
    holds("back", syscall(SYS_brk, start) == (long)start);
}

static void state(void) {
    char *at = pages(4, RW);
    at[0] = 1;
    unsigned char resident[4] = {0};
    value("mincore", mincore(at, 4 * PAGE, resident));
    value("touched page", resident[0] & 1);
    value("mincore unaligned", mincore(at + 1, PAGE, resident));
    value("mincore wild result", syscall(SYS_mincore, at, PAGE, wild()));
    munmap(at + PAGE, PAGE);
    value("mincore over a hole", mincore(at, 4 * PAGE, resident));
    value("mlock", mlock(at, PAGE));
    value("mlock over a hole", mlock(at, 3 * PAGE));
    value("munlock", munlock(at, PAGE));
    value("msync", msync(at, PAGE, MS_SYNC));
    value("msync over a hole", msync(at, 3 * PAGE, MS_SYNC));
    value("msync both ways", msync(at, PAGE, MS_SYNC | MS_ASYNC));
}

int main(void) {
    faults_begin();
    refusals();
    holes();
    moving();
    advice();
    reservations();
    program_break();
    state();
    return 0;
}
