/* Calls that a micro-VM may serve without leaving its guest (vmm/crates/kernel/src/inside.s), in the cases that decide whether it does: each is made often
   enough, by all threads, that both ways are taken. */
#include "guests.h"
#include <linux/capability.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>

enum { PAGE = 4096, CARRY = 1, PARITY = 4, ZERO = 0x40, SIGN = 0x80, DIRECTION = 0x400, OVERFLOW = 0x800 };

/* A call with all flags and registers as they are before; tells which differ after it. */
static unsigned long flags_after(long number, unsigned long flags, unsigned long *others) {
    unsigned long after, changed = 0;
    /* The red zone is not touched. */
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\t"
                     "mov $1, %%r12; mov $2, %%r13; mov $3, %%r14; mov $4, %%r15; mov $5, %%r8; mov $6, %%r9; mov $7, %%r10\n\t"
                     "push %[flags]; popfq\n\t"
                     "syscall\n\t"
                     "pushfq; cld; pop %[after]\n\t"
                     "lea 128(%%rsp), %%rsp\n\t"
                     "cmp $1, %%r12; je 1f; or $1, %[changed]\n1:\n\t"
                     "cmp $2, %%r13; je 1f; or $2, %[changed]\n1:\n\t"
                     "cmp $3, %%r14; je 1f; or $4, %[changed]\n1:\n\t"
                     "cmp $4, %%r15; je 1f; or $8, %[changed]\n1:\n\t"
                     "cmp $5, %%r8; je 1f; or $16, %[changed]\n1:\n\t"
                     "cmp $6, %%r9; je 1f; or $32, %[changed]\n1:\n\t"
                     "cmp $7, %%r10; je 1f; or $64, %[changed]\n1:"
                     : [after] "=&b"(after), [changed] "+&S"(changed), "+a"(number)
                     : [flags] "d"(flags | 0x202)
                     : "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    *others |= changed;
    return after;
}

static void flags(void) {
    static const unsigned long sets[] = {0, CARRY, ZERO, SIGN | PARITY, CARRY | ZERO | SIGN | PARITY, OVERFLOW, OVERFLOW | CARRY, DIRECTION};
    static const long numbers[] = {SYS_getpid, SYS_getuid, SYS_getppid};
    unsigned long others = 0;
    for (unsigned number = 0; number < 3; number++)
        for (unsigned set = 0; set < sizeof sets / sizeof *sets; set++) {
            unsigned long after = flags_after(numbers[number], sets[set], &others);
            if ((after & 0xcd5) != sets[set])
                text("flags", "call %u with %#lx: %#lx", number, sets[set], after & 0xcd5);
        }
    holds("no other register changes", others == 0);
}

struct action {
    void *handler;
    unsigned long flags;
    void *restorer;
    unsigned long mask;
};

static long action_of(int signal, void *old, size_t size) { return syscall(SYS_rt_sigaction, signal, NULL, old, size); }

static void actions(char *edge) {
    struct action old, *over = (struct action *)(edge - 16);
    memset(&old, 0xee, sizeof old);
    value("a default action", action_of(SIGUSR2, &old, 8));
    holds("all of it is zero", !old.handler && !old.flags && !old.restorer && !old.mask);
    value("to nowhere", action_of(SIGUSR2, NULL, 8));
    value("to a wild place", action_of(SIGUSR2, wild(), 8));
    value("to a place that no address space has", action_of(SIGUSR2, (void *)(1UL << 63), 8));
    value("over the edge of what is mapped", action_of(SIGUSR2, over, 8));
    value("with another size", action_of(SIGUSR2, &old, 4));
    static const int numbers[] = {SIGKILL, SIGSTOP, 64, 0, 65, -1};
    for (int at = 0; at < 6; at++) {
        char name[32];
        snprintf(name, sizeof name, "of signal %d", numbers[at]);
        value(name, action_of(numbers[at], &old, 8));
    }
    struct action mine = {(void *)1, 0, NULL, 1UL << 3};
    value("set", syscall(SYS_rt_sigaction, SIGUSR2, &mine, NULL, 8));
    value("asked", action_of(SIGUSR2, &old, 8));
    holds("it is what was set", old.handler == mine.handler && old.mask == mine.mask);
    mine.handler = NULL;
    value("the default with a mask", syscall(SYS_rt_sigaction, SIGUSR2, &mine, NULL, 8));
    value("asked", action_of(SIGUSR2, &old, 8));
    holds("the mask is told", old.mask == mine.mask);
    mine.mask = 0;
    value("all default again", syscall(SYS_rt_sigaction, SIGUSR2, &mine, NULL, 8));
    value("asked", action_of(SIGUSR2, &old, 8));
    holds("all of it is zero", !old.handler && !old.flags && !old.restorer && !old.mask);
}

static void capabilities(char *edge) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    value("capget", syscall(SYS_capget, &header, data));
    value("without a place", syscall(SYS_capget, &header, NULL));
    value("wild place", syscall(SYS_capget, &header, wild()));
    value("over the edge of what is mapped", syscall(SYS_capget, &header, edge - 8));
    value("wild header", syscall(SYS_capget, wild(), data));
    value("a header that no address space has", syscall(SYS_capget, 1UL << 63, data));
    header.version = 1;
    value("another version", syscall(SYS_capget, &header, data));
    holds("the version is told", header.version == _LINUX_CAPABILITY_VERSION_3);
}

static long unforked(void *start, size_t size) { return syscall(SYS_madvise, start, size, MADV_DONTFORK); }

static void advice(void) {
    size_t size = 5 * PAGE;
    char *at = mapped("mmap", mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    value("all of it", unforked(at, size));
    value("again", unforked(at, size));
    value("a part", unforked(at + PAGE, PAGE));
    value("not from a page on", unforked(at + 8, PAGE));
    value("more than it", unforked(at, (size_t)1 << 40));
    value("a length that wraps", unforked(at - PAGE, size + ((size_t)1 << 32)));
    value("an address that wraps", unforked((char *)((uintptr_t)at | (uintptr_t)1 << 62), size));
    value("none of it", unforked(at, 0));
    value("munmap of its end", munmap(at + 4 * PAGE, PAGE));
    value("all that was", unforked(at, size));
    value("what is left", unforked(at, 4 * PAGE));
    value("munmap", munmap(at, 4 * PAGE));
    value("what is gone", unforked(at, size));
    at = mapped("mmap", mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    value("what nobody may touch", unforked(at, size));
    char *moved = mapped("mremap", mremap(at, size, 600 * PAGE, MREMAP_MAYMOVE));
    if (moved != at)
        value("where it was", unforked(at, size));
    value("munmap", munmap(moved, 600 * PAGE));
    value("what is gone", unforked(at, size));
}

static void limits(char *edge) {
    struct rlimit all, soft, low;
    value("prlimit", prlimit(0, RLIMIT_STACK, NULL, &all));
    value("getrlimit", getrlimit(RLIMIT_STACK, &soft));
    holds("both say the same", all.rlim_cur == soft.rlim_cur && all.rlim_max == soft.rlim_max);
    value("of no resource", syscall(SYS_prlimit64, 0, 16, NULL, &all));
    value("of resource -1", syscall(SYS_prlimit64, 0, -1, NULL, &all));
    value("to a wild place", syscall(SYS_prlimit64, 0, RLIMIT_STACK, NULL, wild()));
    value("over the edge of what is mapped", syscall(SYS_prlimit64, 0, RLIMIT_STACK, NULL, edge - 8));
    value("to nowhere", syscall(SYS_prlimit64, 0, RLIMIT_STACK, NULL, NULL));
    low = all;
    low.rlim_cur = 4 << 20;
    value("lowered", prlimit(0, RLIMIT_STACK, &low, &soft));
    holds("what it was", soft.rlim_cur == all.rlim_cur && soft.rlim_max == all.rlim_max);
    value("asked", prlimit(0, RLIMIT_STACK, NULL, &soft));
    holds("what it is", soft.rlim_cur == low.rlim_cur && soft.rlim_max == all.rlim_max);
    value("put back", prlimit(0, RLIMIT_STACK, &all, NULL));
    value("asked", prlimit(0, RLIMIT_STACK, NULL, &soft));
    holds("what it was", soft.rlim_cur == all.rlim_cur);
}

static void descriptors(void) {
    value("flags of none", fcntl(900, F_GETFD));
    value("flags of -1", fcntl(-1, F_GETFD));
    value("flags of the highest", fcntl(INT32_MAX, F_SETFD, FD_CLOEXEC));
    value("dup2", dup2(1, 900));
    value("flags", fcntl(900, F_GETFD));
    value("set", fcntl(900, F_SETFD, FD_CLOEXEC));
    value("flags", fcntl(900, F_GETFD));
    value("flags of the next", fcntl(901, F_GETFD));
    value("close", close(900));
    value("flags", fcntl(900, F_GETFD));
}

static atomic_int word, turns;

static long wake(void *address, int count) { return syscall(SYS_futex, address, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0); }

/* Answers each change of the word by the next one. */
static void *answers(void *argument) {
    (void)argument;
    for (int turn = 1; turn < 2000; turn += 2) {
        while (atomic_load(&word) < turn)
            syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, turn - 1, NULL, NULL, 0);
        atomic_store(&word, turn + 1);
        wake(&word, 1);
        syscall(SYS_getpid);
    }
    return NULL;
}

static void wakes(void) {
    value("nobody waits", wake(&word, INT32_MAX));
    value("not at a word", wake((char *)&word + 1, 1));
    value("at nothing", wake(wild(), 1));
    pthread_t thread;
    returned("pthread_create", pthread_create(&thread, NULL, answers, NULL));
    for (int turn = 0; turn < 2000; turn += 2) {
        while (atomic_load(&word) < turn)
            syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, turn - 1, NULL, NULL, 0);
        atomic_store(&word, turn + 1);
        wake(&word, 1);
    }
    returned("pthread_join", pthread_join(thread, NULL));
    value("the last turn", atomic_load(&word));
    value("nobody waits", wake(&word, 1));
}

static void alarmed(int signal) {
    (void)signal;
    atomic_fetch_add(&turns, 1);
}

/* Interrupted at any instruction, nothing is lost. */
static void interrupted(void) {
    struct sigaction action = {.sa_handler = alarmed, .sa_flags = SA_RESTART};
    need("a handler", sigaction(SIGALRM, &action, NULL));
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    need("a timer", setitimer(ITIMER_REAL, &often, NULL));
    long own = getpid(), wrong = 0;
    struct action old;
    while (atomic_load(&turns) < 50) {
        wrong += syscall(SYS_getpid) != own;
        memset(&old, 0xee, sizeof old);
        wrong += action_of(SIGUSR1, &old, 8) != 0 || old.handler || old.mask;
        wrong += wake(&word, 1) != 0;
        wrong += fcntl(950, F_GETFD) != -1 || errno != EBADF;
    }
    need("no timer", setitimer(ITIMER_REAL, &never, NULL));
    value("wrong answers between signals", wrong);
}

int main(void) {
    char *pages = mapped("two pages", mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    value("the second is gone", munmap(pages + PAGE, PAGE));
    flags();
    actions(pages + PAGE);
    capabilities(pages + PAGE);
    advice();
    limits(pages + PAGE);
    descriptors();
    wakes();
    interrupted();
    return 0;
}
