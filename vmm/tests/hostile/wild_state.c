// Wild arguments for the calls that wild.c leaves out, since they change what this program stands on; and for all others while a timer
// interrupts whatever waits for ever.
#include "hostile.h"
#include <sys/time.h>

static const uint64_t wild[] = {0, 1, 7, 64, 4095, 1ULL << 31, STUB_PAGE - 4096, STUB_PAGE, 1ULL << 47, 1ULL << 63, ~0ULL, ~0ULL - 4095, 0x7fffffffffffffff};
#define WILD wild[random_number() % (sizeof wild / sizeof *wild)]

static void nothing(int number) { (void)number; }

// What would take the ground away, or end the program as it should.
static int ends(long number) {
    long own[] = {SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_mmap, SYS_brk, SYS_madvise, SYS_arch_prctl, SYS_kill, SYS_tkill,
                  SYS_tgkill, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_setitimer, SYS_alarm, SYS_timer_settime, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_clone, SYS_close_range, SYS_close, SYS_dup2, SYS_dup3,
                  SYS_setrlimit, SYS_prlimit64, SYS_sigaltstack, SYS_set_tid_address, SYS_set_robust_list, SYS_fcntl, SYS_ioctl, SYS_shutdown};
    for (unsigned i = 0; i < sizeof own / sizeof *own; i++) if (own[i] == number) return 1;
    return 0;
}

// Nobody can join a thread whose word for that is anywhere.
static volatile int over;
static void *in_thread(void *unused) {
    for (int round = 0; round < 200; round++) syscall(SYS_set_robust_list, WILD, 24L), syscall(SYS_set_tid_address, WILD), syscall(SYS_get_robust_list, WILD, WILD, WILD);
    over++;
    return unused;
}

int main(void) {
    catch_faults();
    for (int round = 0; round < 4000; round++) {
        int number = (int)random_number() % 70;
        // Handlers of this program's own signals stay; the kernel must not mind wild ones.
        syscall(SYS_rt_sigaction, number == SIGSEGV || number == SIGBUS || number == SIGILL ? 0 : number, WILD, WILD, round % 3 ? 8L : (long)WILD);
        syscall(SYS_sigaltstack, 0L, WILD);
        syscall(SYS_rt_sigprocmask, (long)random_number() % 4, WILD, WILD, WILD);
        syscall(SYS_rt_sigpending, WILD, WILD);
        syscall(SYS_kill, (int)WILD, 0), syscall(SYS_tgkill, WILD, WILD, 0L), syscall(SYS_tkill, WILD, 0L);
        syscall(SYS_dup2, WILD, 100 + WILD % 100000), syscall(SYS_dup3, 2L, 100 + WILD % 4000, WILD), syscall(SYS_close, 100 + WILD), syscall(SYS_close_range, 100 + WILD % 1000, WILD, WILD);
        syscall(SYS_fcntl, 3 + WILD, WILD, WILD), syscall(SYS_fcntl, 2L, WILD % 1100, WILD), syscall(SYS_ioctl, 2L, WILD, WILD), syscall(SYS_ioctl, WILD, random_number(), WILD);
        syscall(SYS_shutdown, WILD, WILD), syscall(SYS_setrlimit, 16 + WILD, WILD), syscall(SYS_prlimit64, WILD, WILD, 0L, WILD);
        // Only GS is free to be set; a wild base faults when it is used, not before.
        syscall(SYS_arch_prctl, 0x1001L, WILD), syscall(SYS_arch_prctl, WILD % 0x1001, WILD), FAULTS(__asm__ volatile("movq %%gs:0, %%rax" ::: "rax"));
    }
    for (int i = 0; i < 4; i++) {
        pthread_t thread;
        MUST(pthread_create(&thread, NULL, in_thread, NULL) == 0);
        while (over <= i) sched_yield();
    }
    struct sigaction action = {.sa_handler = nothing};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    catch_faults();
    struct itimerval often = {{0, 1000}, {0, 1000}};
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    int in = open("/dev/zero", O_RDONLY);
    for (long number = 0; number < 470; number++) {
        if (ends(number)) continue;
        for (int round = 0; round < 30; round++) {
            uint64_t a[6];
            for (int i = 0; i < 6; i++) a[i] = random_number() % 3 == 0 ? (uint64_t)page + (random_number() % 4) * 1365 : random_number() % 4 == 0 ? (uint64_t)in : WILD;
            for (int i = 0; i < 64; i++) ((uint64_t *)page)[i] = random_number() % 3 == 0 ? (uint64_t)page : random_number() % 2 ? WILD : random_number() % 100;
            if (round % 8 == 0) {
                // A call may have changed what this stands on.
                sigaction(SIGALRM, &action, NULL), setitimer(ITIMER_REAL, &often, NULL), sigprocmask(SIG_SETMASK, &none, NULL), catch_faults();
                for (int i = 1; i <= 64; i++) if (i != SIGALRM && i != SIGSEGV && i != SIGBUS) sigaction(i, &action, NULL);
            }
            FAULTS(syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]));
        }
    }
    return still_here();
}
