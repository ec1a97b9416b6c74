// Mappings of every length at every place, until there can be no more; the whole address space taken away.
#include "hostile.h"

int main(void) {
    catch_faults();
    uint64_t places[] = {0, 1, 4096, 65536, 1ULL << 32, STUB_PAGE - 4096, STUB_PAGE - 8192, STUB_PAGE, STUB_PAGE + 4096, STUB_PAGE * 2, (1ULL << 47) - 4096, 1ULL << 47, 1ULL << 63, ~0ULL - 4095, ~0ULL};
    uint64_t lengths[] = {0, 1, 4095, 4096, 1ULL << 21, 1ULL << 40, (1ULL << 47) - 4096, 1ULL << 47, 0x7ffffffffffff000, 0x7fffffffffffffff, 1ULL << 63, ~0ULL - 4095, ~0ULL};
    char *own = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(syscall(SYS_mmap, 0L, 0L, 3L, 0x22L, -1L, 0L) == -1 && errno == EINVAL);
    MUST(syscall(SYS_mmap, 0L, 0x7fffffffffffffffL, 3L, 0x22L, -1L, 0L) == -1 && errno == ENOMEM);
    MUST(syscall(SYS_mmap, STUB_PAGE, 4096L, 3L, 0x32L, -1L, 0L) == -1);
    MUST(syscall(SYS_mmap, STUB_PAGE - 4096, 8192L, 3L, 0x32L, -1L, 0L) == -1);
    for (int p = 0; p < 15; p++)
        for (int l = 0; l < 13; l++) {
            // What may be there is this program's own; what is put there is taken away again.
            if (places[p] < 1ULL << 33 || places[p] >= STUB_PAGE || places[p] + lengths[l] > STUB_PAGE || places[p] + lengths[l] < places[p]) {
                syscall(SYS_munmap, places[p] >= STUB_PAGE ? places[p] : STUB_PAGE, lengths[l]);
                syscall(SYS_mprotect, places[p] >= STUB_PAGE ? places[p] : STUB_PAGE, lengths[l], 7L);
                syscall(SYS_madvise, places[p] >= STUB_PAGE ? places[p] : STUB_PAGE, lengths[l], (long)random_number() % 32);
            }
            syscall(SYS_mremap, own, lengths[l] & ((1 << 20) - 1), lengths[l], 0L, 0L);
            syscall(SYS_mremap, own, 4096L, lengths[l], 3L, places[p] < 1ULL << 33 ? STUB_PAGE : places[p]);
            syscall(SYS_mremap, places[p], lengths[l], lengths[12 - l], 1L, 0L);
            syscall(SYS_mincore, places[p], lengths[l], own);
            syscall(SYS_msync, places[p], lengths[l], (long)random_number() % 8);
            syscall(SYS_mlock, places[p], lengths[l]);
            void *at = (void *)syscall(SYS_mmap, places[p], lengths[l], (long)random_number() % 8, 0x4022L, -1L, 0L);
            if (at != MAP_FAILED) MUST(munmap(at, lengths[l]) == 0);
            brk((void *)places[p]);
            own = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            MUST(own != MAP_FAILED && (own[5] = 1));
            munmap(own, 4096);
            own = mmap(own, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        }
    // Overlapping moves.
    for (int i = 0; i < 2000; i++) {
        uint64_t from = random_number() % 200 * 4096, to = random_number() % 200 * 4096, old = random_number() % 20 * 4096, new = random_number() % 20 * 4096;
        syscall(SYS_mremap, own + from, old, new, (long)random_number() % 4, own + to);
        mmap(own + from, old, (int)random_number() % 8, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        FAULTS(own[to] += own[from]);
    }
    // As many mappings as there may be, each of another kind than its neighbour.
    uint64_t count = 0;
    char *many = mmap(NULL, 200000UL * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST(many != MAP_FAILED);
    while (count < 100000 && mprotect(many + count * 8192, 4096, PROT_READ) == 0) count++;
    MUST(count > 25000 && count < 100000 && errno == ENOMEM);
    MUST(mmap(many + 4096 * 150001UL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED && errno == ENOMEM);
    MUST(munmap(many, 200000UL * 4096) == 0);
    // All memory there is, touched, until none is left; it comes back.
    char *blocks[4096];
    int taken = 0;
    while (taken < 4096 && (blocks[taken] = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED) memset(blocks[taken++], 1, 1 << 20);
    MUST(taken > 100 && taken < 4096 && errno == ENOMEM);
    for (int i = 0; i < taken; i++) munmap(blocks[i], 1 << 20);
    MUST((own = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED);
    memset(own, 1, 16 << 20);
    // Reservations are free, but not without end.
    int reserved = 0;
    while (reserved < 5000 && mmap(NULL, 1UL << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED) reserved++;
    MUST(reserved > 100 && reserved < 5000);
    return still_here();
}
