/* mprotect and its faults with the right si_code and si_addr, faults in system calls, guard pages, stack growth. */
#include "faults.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { PAGE = 4096 };
#define RW (PROT_READ | PROT_WRITE)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

static char *pages(int count, int protection) {
    char *at = mmap(NULL, (size_t)count * PAGE, protection, ANONYMOUS, -1, 0);
    need("mmap", at == MAP_FAILED ? -1 : 0);
    return at;
}

static void protections(void) {
    char *at = pages(8, RW);
    memset(at, 3, 8 * PAGE);
    value("PROT_READ on the middle", mprotect(at + 2 * PAGE, 2 * PAGE, PROT_READ));
    reads("read", at + 2 * PAGE);
    writes("write first", at + 2 * PAGE, 1);
    writes("write last", at + 4 * PAGE - 1, 1);
    writes("write before", at + 2 * PAGE - 1, 1);
    writes("write behind", at + 4 * PAGE, 1);
    value("PROT_NONE", mprotect(at + 3 * PAGE, 2 * PAGE, PROT_NONE));
    reads("read none", at + 3 * PAGE + 77);
    writes("write none", at + 5 * PAGE - 1, 1);
    reads("still readable", at + 2 * PAGE);
    value("RW again over all", mprotect(at, 8 * PAGE, RW));
    reads("content survived", at + 3 * PAGE + 77);
    writes("write", at + 3 * PAGE, 4);
    value("mprotect unaligned", mprotect(at + 1, PAGE, RW));
    value("mprotect length 0", mprotect(at, 0, RW));
    value("mprotect unknown protection", mprotect(at, PAGE, 0x100));
    value("mprotect length near 2^64", mprotect(at, -4096UL, RW));
    munmap(at + 4 * PAGE, PAGE);
    value("mprotect over a hole", mprotect(at + 2 * PAGE, 4 * PAGE, PROT_READ));
    writes("pages before the hole are changed", at + 2 * PAGE, 1);
    writes("pages behind are not", at + 5 * PAGE, 1);
    value("mprotect of nothing", mprotect(at + 4 * PAGE, PAGE, RW));
    for (int i = 0; i < 1000; i++)
        if (mprotect(at, PAGE, i & 1 ? PROT_READ : RW) || (!(i & 1) && (at[0] = (char)i, 0)))
            break;
    writes("toggled 1000 times, now read-only", at, 1);
    reads("last value", at);
    value("PROT_WRITE alone", mprotect(at, PAGE, PROT_WRITE));
    writes("write by PROT_WRITE", at, 8);
    reads("x86 reads it too", at);
}

static void faults(void) {
    reads("address 0", (char *)wild() - 16);
    reads("address 16", wild());
    writes("write to address 16", wild(), 1);
    reads("a kernel address", (char *)wild() - (1L << 47));
    reads("a non-canonical address", (char *)wild() + (1L << 47));
    char *read_only = pages(1, PROT_READ);
    reads("a never touched read-only page", read_only);
    writes("write to it", read_only + 7, 1);
    char *edge = pages(2, RW);
    munmap(edge + PAGE, PAGE);
    if (sigsetjmp(fault_return, 1))
        fault_show("8 bytes across the edge", edge + PAGE);
    else
        text("8 bytes across the edge", "%ld", *(volatile long *)(edge + PAGE - 4));
    static const char constant[] = "in read-only data";
    writes("write to read-only data", (char *)(uintptr_t)constant, 'I');
    static volatile int caught;
    while (caught < 200)
        if (sigsetjmp(fault_return, 1) == 0)
            *(volatile char *)read_only = 1;
        else
            caught++;
    value("200 faults in a row", caught);
    fault_address = NULL;
    if (sigsetjmp(fault_return, 1) == 0)
        __asm__ volatile("hlt");
    fault_show("hlt", NULL);
    if (sigsetjmp(fault_return, 1) == 0)
        __asm__ volatile("ud2");
    text("ud2", "%s", fault_name());
    if (sigsetjmp(fault_return, 1) == 0)
        __asm__ volatile("outb %%al, $0x80" ::: "memory");
    fault_show("out to a port", NULL);
    if (sigsetjmp(fault_return, 1) == 0)
        __asm__ volatile("mov %%cr3, %%rax" ::: "rax");
    fault_show("mov from cr3", NULL);
    if (sigsetjmp(fault_return, 1) == 0)
        __asm__ volatile("cli");
    fault_show("cli", NULL);
    if (sigsetjmp(fault_return, 1) == 0)
        __asm__ volatile("int3");
    text("int3", "%s", fault_name());
    volatile int zero = 0;
    if (sigsetjmp(fault_return, 1) == 0)
        zero = 7 / zero;
    text("division by zero", "%s", fault_name());
}

static void system_calls(void) {
    int ends[2];
    need("pipe", pipe(ends));
    need("write", write(ends[1], "0123456789", 10));
    char *at = pages(2, RW);
    mprotect(at + PAGE, PAGE, PROT_READ);
    value("read into read-only", read(ends[0], at + PAGE, 4));
    value("write from read-only", write(ends[1], at + PAGE, 4));
    mprotect(at + PAGE, PAGE, PROT_NONE);
    value("write from PROT_NONE", write(ends[1], at + PAGE, 4));
    value("fstat into PROT_NONE", syscall(SYS_fstat, ends[0], at + PAGE));
    value("clock_gettime across the edge", syscall(SYS_clock_gettime, CLOCK_MONOTONIC, at + PAGE - 8));
    value("uname across the edge", syscall(SYS_uname, at + PAGE - 100));
    strcpy(at + PAGE - 10, "/dev/null");
    value("a path that ends at the edge", close(open(at + PAGE - 10, O_RDONLY)));
    memcpy(at + PAGE - 9, "/dev/null", 9);
    value("a path without an end", open(at + PAGE - 9, O_RDONLY));
    value("pipe2 into PROT_NONE", syscall(SYS_pipe2, at + PAGE, 0));
    mprotect(at + PAGE, PAGE, RW);
    value("read after RW", read(ends[0], at + PAGE, 4));
    char *fresh = pages(1, RW);
    value("read into an untouched page", read(ends[0], fresh, 4));
    value("write from an untouched page", write(ends[1], pages(1, PROT_READ), 4));
}

static int deep(int levels) {
    volatile char frame[16384];
    frame[0] = (char)levels;
    frame[sizeof frame - 1] = 1;
    return levels ? deep(levels - 1) + frame[sizeof frame - 1] : frame[0];
}

static void *on_thread(void *argument) {
    (void)argument;
    return (void *)(intptr_t)deep(20);
}

static sigjmp_buf overflow_return;
static volatile sig_atomic_t overflow_near;
static volatile uintptr_t overflow_frame;

static void overflow_caught(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    long distance = (long)((uintptr_t)info->si_addr - overflow_frame);
    overflow_near = distance < 65536 && distance > -65536 && info->si_code;
    siglongjmp(overflow_return, 1);
}

static int endless(int level) {
    volatile char frame[1024];
    overflow_frame = (uintptr_t)frame;
    frame[level & 1023] = 1;
    if (level == 1 << 30)
        return 0;
    return endless(level + 1) + frame[0];
}

static void stacks(void) {
    value("4 MiB of the main stack", deep(240));
    struct rlimit limit;
    need("getrlimit", getrlimit(RLIMIT_STACK, &limit));
    holds("stack limit is at least 4 MiB", limit.rlim_cur >= 4 << 20);
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 512 << 10);
    void *result;
    returned("a thread with 512 KiB", pthread_create(&thread, &attributes, on_thread, NULL));
    pthread_join(thread, &result);
    value("320 KiB of it used", (long)result);
    static char alternate[65536];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    value("sigaltstack", sigaltstack(&stack, NULL));
    struct sigaction action = {.sa_sigaction = overflow_caught, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    if (sigsetjmp(overflow_return, 1) == 0)
        value("endless recursion", endless(0));
    holds("stack overflow is caught on the other stack, si_addr near the frame", overflow_near);
    overflow_near = 0;
    if (sigsetjmp(overflow_return, 1) == 0)
        value("endless recursion", endless(0));
    holds("and a second time", overflow_near);
}

int main(void) {
    faults_begin();
    protections();
    faults();
    system_calls();
    stacks();
    return 0;
}
