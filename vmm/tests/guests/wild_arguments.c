/* Hostile arguments: every pointer position of many calls gets addresses nobody mapped, lengths get numbers near 2^63. The answer is an errno. */
#include "guests.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

static int file, folder, ends[2], pair[2], epoll;

/* Low, above user space, not canonical, and the last page of all. */
static const unsigned long addresses[] = {16, 0x800000000000, 0x8000000000000000, 0xfffffffffffff000};

struct call {
    const char *name;
    long number;
    long arguments[6];
    int position;
};

static void pointers(void) {
    int length = 16;
    const struct call calls[] = {
        {"read", SYS_read, {file, 0, 8}, 1},
        {"write", SYS_write, {file, 0, 8}, 1},
        {"pread64", SYS_pread64, {file, 0, 8, 0}, 1},
        {"readv", SYS_readv, {file, 0, 1}, 1},
        {"writev", SYS_writev, {file, 0, 1}, 1},
        {"openat path", SYS_openat, {AT_FDCWD, 0, O_RDONLY}, 1},
        {"newfstatat path", SYS_newfstatat, {AT_FDCWD, 0, (long)addresses, 0}, 1},
        {"newfstatat result", SYS_newfstatat, {AT_FDCWD, (long)"/", 0, 0}, 2},
        {"fstat", SYS_fstat, {file, 0}, 1},
        {"statx path", SYS_statx, {AT_FDCWD, 0, 0, 0, 0}, 1},
        {"statx result", SYS_statx, {AT_FDCWD, (long)"/", 0, STATX_TYPE, 0}, 4},
        {"access", SYS_access, {0, 0}, 0},
        {"getcwd", SYS_getcwd, {0, 4096}, 0},
        {"chdir", SYS_chdir, {0}, 0},
        {"mkdirat", SYS_mkdirat, {AT_FDCWD, 0, 0700}, 1},
        {"unlinkat", SYS_unlinkat, {AT_FDCWD, 0, 0}, 1},
        {"renameat from", SYS_renameat, {AT_FDCWD, 0, AT_FDCWD, (long)"x"}, 1},
        {"renameat to", SYS_renameat, {AT_FDCWD, (long)"f", AT_FDCWD, 0}, 3},
        {"symlinkat target", SYS_symlinkat, {0, AT_FDCWD, (long)"x"}, 0},
        {"readlinkat path", SYS_readlinkat, {AT_FDCWD, 0, (long)addresses, 8}, 1},
        {"readlinkat result", SYS_readlinkat, {AT_FDCWD, (long)"soft", 0, 8}, 2},
        {"pipe2", SYS_pipe2, {0, 0}, 0},
        {"poll", SYS_poll, {0, 1, 0}, 0},
        {"ppoll time", SYS_ppoll, {0, 0, 0, 0, 8}, 2},
        {"ppoll mask", SYS_ppoll, {0, 0, 0, 0, 8}, 3},
        {"epoll_ctl", SYS_epoll_ctl, {epoll, EPOLL_CTL_ADD, ends[0], 0}, 3},
        {"epoll_wait", SYS_epoll_wait, {epoll, 0, 1, 0}, 1},
        {"nanosleep", SYS_nanosleep, {0, 0}, 0},
        {"clock_gettime", SYS_clock_gettime, {CLOCK_MONOTONIC, 0}, 1},
        {"clock_nanosleep", SYS_clock_nanosleep, {CLOCK_MONOTONIC, 0, 0, 0}, 2},
        {"gettimeofday", SYS_gettimeofday, {0, 0}, 0},
        {"rt_sigaction new", SYS_rt_sigaction, {SIGUSR1, 0, 0, 8}, 1},
        {"rt_sigaction old", SYS_rt_sigaction, {SIGUSR1, 0, 0, 8}, 2},
        {"rt_sigprocmask new", SYS_rt_sigprocmask, {SIG_BLOCK, 0, 0, 8}, 1},
        {"rt_sigprocmask old", SYS_rt_sigprocmask, {SIG_BLOCK, 0, 0, 8}, 2},
        {"rt_sigpending", SYS_rt_sigpending, {0, 8}, 0},
        {"rt_sigtimedwait set", SYS_rt_sigtimedwait, {0, 0, 0, 8}, 0},
        {"sigaltstack new", SYS_sigaltstack, {0, 0}, 0},
        {"sigaltstack old", SYS_sigaltstack, {0, 0}, 1},
        {"futex WAIT", SYS_futex, {0, 128, 0, 0, 0, 0}, 0},
        {"getrandom", SYS_getrandom, {0, 8, 0}, 0},
        {"uname", SYS_uname, {0}, 0},
        {"sysinfo", SYS_sysinfo, {0}, 0},
        {"getrusage", SYS_getrusage, {0, 0}, 1},
        {"prlimit64 new", SYS_prlimit64, {0, 7, 0, 0}, 2},
        {"prlimit64 old", SYS_prlimit64, {0, 7, 0, 0}, 3},
        {"sched_getaffinity", SYS_sched_getaffinity, {0, 128, 0}, 2},
        {"getdents64", SYS_getdents64, {folder, 0, 512}, 1},
        {"sendto", SYS_sendto, {pair[0], 0, 8, MSG_DONTWAIT, 0, 0}, 1},
        {"recvmsg", SYS_recvmsg, {pair[0], 0, MSG_DONTWAIT}, 1},
        {"sendmsg", SYS_sendmsg, {pair[0], 0, MSG_DONTWAIT}, 1},
        {"socketpair", SYS_socketpair, {AF_UNIX, SOCK_STREAM, 0, 0}, 3},
        {"getsockname", SYS_getsockname, {pair[0], 0, (long)&length}, 1},
        {"setsockopt", SYS_setsockopt, {pair[0], SOL_SOCKET, SO_KEEPALIVE, 0, 4}, 3},
        {"timerfd_settime", SYS_timerfd_settime, {file, 0, 0, 0}, 2},
        {"memfd_create", SYS_memfd_create, {0, 0}, 0},
        {"mincore", SYS_mincore, {0, 4096, 0}, 0},
        {"mprotect", SYS_mprotect, {0, 4096, PROT_READ}, 0},
        {"madvise", SYS_madvise, {0, 4096, MADV_DONTNEED}, 0},
        {"munmap", SYS_munmap, {0, 4096}, 0},
        {"mremap", SYS_mremap, {0, 4096, 8192, MREMAP_MAYMOVE}, 0},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        printf("%s:", calls[i].name);
        for (size_t j = 0; j < sizeof addresses / sizeof *addresses; j++) {
            long a[6];
            memcpy(a, calls[i].arguments, sizeof a);
            a[calls[i].position] = (long)addresses[j];
            long got = syscall(calls[i].number, a[0], a[1], a[2], a[3], a[4], a[5]);
            printf(" %s", got == -1 ? error_name(errno) : "ok");
        }
        printf("\n");
    }
}

static void lengths(void) {
    static char bytes[4096];
    /* A page of its own before a hole: mprotect changes what it meets before it says ENOMEM. */
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    static const long sizes[] = {0x7fffffffffffffff, (long)0x8000000000000000, -1, -4096};
    const struct call calls[] = {
        {"read length", SYS_read, {ends[0], (long)bytes, 0}, 2},
        {"write length", SYS_write, {ends[1], (long)bytes, 0}, 2},
        {"pread64 offset", SYS_pread64, {file, (long)bytes, 8, 0}, 3},
        {"readv count", SYS_readv, {file, (long)bytes, 0}, 2},
        {"getrandom flags", SYS_getrandom, {(long)bytes, 8, 0}, 2},
        {"mmap length", SYS_mmap, {0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}, 1},
        {"mmap offset", SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE, file, 0}, 5},
        {"munmap length", SYS_munmap, {(long)page, 0}, 1},
        {"mremap new length", SYS_mremap, {(long)page, 4096, 0, MREMAP_MAYMOVE}, 2},
        {"mprotect length", SYS_mprotect, {(long)page, 0, PROT_READ | PROT_WRITE}, 1},
        {"poll count", SYS_poll, {(long)bytes, 0, 0}, 1},
        {"ftruncate negative", SYS_ftruncate, {file, 0}, 1},
        {"rt_sigaction size", SYS_rt_sigaction, {SIGUSR1, 0, 0, 0}, 3},
        {"set_robust_list size", SYS_set_robust_list, {(long)bytes, 0}, 1},
        {"close", SYS_close, {0}, 0},
        {"dup2 target", SYS_dup2, {file, 0}, 1},
        {"fcntl F_DUPFD", SYS_fcntl, {file, F_DUPFD, 0}, 2},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        printf("%s:", calls[i].name);
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            long a[6];
            if (calls[i].number == SYS_ftruncate && sizes[j] > 0)
                continue; /* the largest size differs by file system */
            memcpy(a, calls[i].arguments, sizeof a);
            a[calls[i].position] = sizes[j];
            long got = syscall(calls[i].number, a[0], a[1], a[2], a[3], a[4], a[5]);
            if (got == -1 && errno == ENOMEM && calls[i].number == SYS_mremap)
                errno = EINVAL; /* before 6.17 Linux says the one or the other */
            printf(" %s", got == -1 ? error_name(errno) : "ok");
        }
        printf("\n");
    }
}

int main(void) {
    scratch();
    file_with("f", "content"), symlink("f", "soft");
    file = (int)need("open", open("f", O_RDWR));
    folder = (int)need("open", open(".", O_RDONLY | O_DIRECTORY));
    epoll = (int)need("epoll", epoll_create1(0));
    need("pipe", pipe2(ends, O_NONBLOCK));
    need("pair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    need("something to wait for", epoll_ctl(epoll, EPOLL_CTL_ADD, eventfd(1, 0), &(struct epoll_event){.events = EPOLLIN}));
    need("something to read", write(pair[1], "x", 1));
    pointers();
    lengths();
    return 0;
}
