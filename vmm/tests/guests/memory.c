// mmap, mprotect, munmap, mremap, madvise, brk: contents and errors.
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile uintptr_t fault_at;
static volatile int fault_code;
static void on_fault(int sig, siginfo_t *info, void *context) {
    (void)sig; (void)context;
    fault_at = (uintptr_t)info->si_addr;
    fault_code = info->si_code;
    siglongjmp(back, 1);
}
#define FAULTS(what, expression, base) \
    do { \
        if (sigsetjmp(back, 1) == 0) { expression; printf("%s: no fault\n", what); } \
        else printf("%s: fault at +%ld code %d\n", what, (long)(fault_at - (uintptr_t)(base)), fault_code); \
    } while (0)

int main(int argc, char **argv) {
    (void)argc;
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    char *p = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 4 << 20; i += 4096) if (p[i] != 0) printf("not zeroed\n");
    memset(p, 7, 4 << 20);
    printf("protect %d\n", mprotect(p + 8192, 4096, PROT_READ));
    FAULTS("write to read-only", p[8192 + 5] = 1, p);
    printf("still %d\n", p[8192 + 5]);
    mprotect(p + 8192, 4096, PROT_NONE);
    FAULTS("read of none", (void)*(volatile char *)(p + 8192), p);
    mprotect(p + 8192, 4096, PROT_READ | PROT_WRITE);
    p[8192] = 9;
    printf("again %d %d\n", p[8192], p[8193]);
    printf("dontneed %d -> %d\n", madvise(p + 4096, 4096, MADV_DONTNEED), p[4096]);
    printf("unmap %d\n", munmap(p + 16384, 8192));
    FAULTS("read of unmapped", (void)*(volatile char *)(p + 16384), p);
    FAULTS("execution of data", ((void (*)(void))p)(), p);
    printf("protect a hole %d %d\n", mprotect(p, 1 << 20, PROT_READ), errno);
    char *q = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(q, "moved along");
    char *volatile r = mremap(q, 8192, 3 << 20, MREMAP_MAYMOVE);
    printf("remap %s %d\n", r, r[2 << 20]);
    r = mremap(r, 3 << 20, 4096, 0);
    FAULTS("cut off", (void)*(volatile char *)(r + 4096), r);
    errno = 0;
    printf("zero %d %d\n", mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED, errno);
    printf("huge %d %d\n", mmap(NULL, ~0UL << 12, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED, errno);
    printf("unaligned %d %d\n", munmap(p + 1, 4096), errno);
    printf("noreplace %d %d\n", mmap(p, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED, errno);
    char *heap = sbrk(0);
    printf("brk %d\n", sbrk(100000) == heap);
    heap[99999] = 3;
    printf("shrink %d\n", brk(heap));
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int value = 1; value <= 3; value++) {
        memcpy(code, (unsigned char[]){0xb8, (unsigned char)value, 0, 0, 0, 0xc3}, 6);
        printf("code %d\n", ((int (*)(void))code)());
    }
    mprotect(code, 4096, PROT_READ);
    FAULTS("code no more", ((int (*)(void))code)(), code);
    FILE *self = fopen(argv[0], "r");
    char *file = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(self), 0);
    file[1] = 'X';
    printf("file %.4s\n", file + 1);
    FAULTS("null", *(volatile int *)0 = 1, 0);
    return 0;
}
