// Every system call with wild arguments in every position. Only the micro-VM runs this: it may answer
// what it likes, but must go on.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int skipped(long n) {
    switch (n) {
    case SYS_exit: case SYS_exit_group: case SYS_rt_sigreturn: case SYS_pause: case SYS_rt_sigsuspend:
    case SYS_kill: case SYS_tkill: case SYS_tgkill: case SYS_clone: case SYS_close: case SYS_dup2:
    case SYS_dup3: case SYS_munmap: case SYS_mmap: case SYS_mremap: case SYS_mprotect: case SYS_brk:
    case SYS_madvise: case SYS_arch_prctl: case SYS_shutdown: case SYS_rt_sigaction: case SYS_set_robust_list:
    case SYS_set_tid_address: case SYS_rt_sigprocmask:
        return 1;
    }
    return 0;
}

int main(void) {
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    uint64_t values[] = {0, 1, (uint64_t)page + 4090, (uint64_t)page + 4096, 1ULL << 39, (1ULL << 39) - 1,
                         (1ULL << 47) - 8, 1ULL << 47, 1ULL << 63, ~0ULL, ~0ULL - 4095, 0x7fffffffffffffff};
    int count = sizeof values / sizeof *values;
    long calls = 0;
    for (long n = 0; n < 470; n++) {
        if (skipped(n)) continue;
        for (int position = 0; position < 6; position++) {
            for (int i = 0; i < count; i++) {
                uint64_t a[6] = {5, (uint64_t)page, 8, (uint64_t)page + 1024, (uint64_t)page + 2048, 8};
                memset(page + 1024, 0, 16);
                if (n == SYS_poll || n == SYS_epoll_wait || n == SYS_epoll_pwait) { a[2] = 0; a[3] = 0; if (position == (n == SYS_poll ? 2 : 3)) continue; }
                if (n == SYS_futex) { a[0] = (uint64_t)page; a[1] = position == 1 ? 0 : (uint64_t)i; if (a[1] == 0 || a[1] == 9) continue; if (position == 1) continue; }
                a[position] = values[i];
                if (n == SYS_nanosleep || n == SYS_clock_nanosleep) memset(page, 0, 16);
                syscall(n, a[0], a[1], a[2], a[3], a[4], a[5]);
                calls++;
            }
        }
    }
    uint64_t a[6];
    long maps[] = {SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_brk};
    for (int m = 0; m < 5; m++)
        for (int i = 2; i < count; i++)
            for (int j = 0; j < count; j++) {
                memset(a, 0, sizeof a);
                a[0] = values[i] & ~4095ULL;
                a[1] = values[j];
                if (a[0] < 1ULL << 39 && a[0] + a[1] > a[0]) continue; // would hit this program itself
                syscall(maps[m], a[0], a[1], 1L, 1L, 0L, 0L);
                calls++;
            }
    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++) {
            void *at = (void *)syscall(SYS_mmap, values[i], values[j], 3L, 0x22L, -1L, 0L);
            if ((uintptr_t)at < -4096UL) syscall(SYS_munmap, at, values[j]);
            calls++;
        }
    dprintf(1, "%s\n", calls > 10000 ? "still here" : "too few calls");
    return 0;
}
