/* Files, descriptors, signals, limits, timers: what the program sees of itself before and after is compared line by line by itself. */
#include "frozen.h"

#include <dirent.h>
#include <ftw.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <sys/time.h>

static char before[16384], after[16384], *into;

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    into += vsprintf(into, format, arguments);
    va_end(arguments);
}

#define FOLDER "/tmp/frozen"
static int log_file, twice, gone, memory, sealed, folder, removed, fifo, pipe_in, pipe_out, event, semaphore, lock, epoll, directory;
static timer_t posix;
static int timer;
static char alternate[16384];
static volatile sig_atomic_t handled, handled_value, on_alternate;

static void handler(int signal, siginfo_t *info, void *context)
{
    char here;
    (void)context;
    handled += signal;
    handled_value = info->si_value.sival_int;
    on_alternate = &here >= alternate && &here < alternate + sizeof alternate;
}

static void note_stat(const char *name, int fd, int times)
{
    struct stat stat;
    NEED(fstat(fd, &stat) == 0);
    note("%s: inode %lu mode %o links %lu size %ld\n", name, (unsigned long)stat.st_ino, stat.st_mode, (unsigned long)stat.st_nlink, (long)stat.st_size);
    if (times)
        note("%s: %ld.%09ld %ld.%09ld\n", name, (long)stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec, (long)stat.st_ctim.tv_sec, stat.st_ctim.tv_nsec);
}

static void note_fd(const char *name, int fd)
{
    note("%s: flags %o, descriptor flags %d, position %s\n", name, fcntl(fd, F_GETFL), fcntl(fd, F_GETFD), result_of(lseek(fd, 0, SEEK_CUR)));
}

static void note_content(const char *name, int fd)
{
    char bytes[64] = "";
    note("%s: %s", name, result_of(pread(fd, bytes, sizeof bytes - 1, 0)));
    note(" %s\n", bytes);
}

static void note_path(const char *path)
{
    struct stat stat;
    char target[64] = "";
    NEED(lstat(path, &stat) == 0);
    NEED(!S_ISLNK(stat.st_mode) || readlink(path, target, sizeof target - 1) > 0);
    note("%s: inode %lu mode %o links %lu %ld.%09ld %s\n", path, (unsigned long)stat.st_ino, stat.st_mode, (unsigned long)stat.st_nlink,
         (long)stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec, target);
}

/* Nothing here changes what it looks at. */
static void note_all(char *text)
{
    char path[256];
    struct rlimit limit;
    sigset_t mask, pending;
    stack_t stack;
    struct sigaction action;
    struct itimerspec left;
    struct itimerval alarm;

    into = text;
    note_stat("log", log_file, 1);
    note_stat("gone", gone, 1);
    note_stat("memory", memory, 0);
    note_stat("removed folder", removed, 0);
    note_stat("pipe", pipe_in, 0);
    note_stat("fifo", fifo, 0);
    note_fd("log", log_file);
    note_fd("twice", twice);
    note_fd("gone", gone);
    note_fd("fifo", fifo);
    note_fd("pipe", pipe_out);
    note_fd("event", event);
    note_content("log", log_file);
    note_content("gone", gone);
    note_content("memory", memory);
    note_content("sealed", sealed);
    note("seals: %x %x\n", fcntl(memory, F_GET_SEALS), fcntl(sealed, F_GET_SEALS));
    int sparse = open(FOLDER "/sparse", O_RDONLY);
    note("sparse: data at %s", result_of(lseek(sparse, 0, SEEK_DATA)));
    note(" hole at %s", result_of(lseek(sparse, 5 << 20, SEEK_HOLE)));
    note(" then %s\n", result_of(lseek(sparse, (5 << 20) + 4096, SEEK_DATA)));
    note_stat("sparse", sparse, 0);
    note_content("sparse", sparse);
    close(sparse);
    note_path(FOLDER);
    note_path(FOLDER "/log");
    note_path(FOLDER "/hard");
    note_path(FOLDER "/soft");
    note_path(FOLDER "/fifo");
    note_path(FOLDER "/deep/deeper");
    note_path("/dev/shm/frozen-shared");
    note("pipe capacity: %d\n", fcntl(pipe_in, F_GETPIPE_SZ));
    NEED(getcwd(path, sizeof path));
    note("cwd: %s\n", path);
    mode_t own = umask(0);
    umask(own);
    note("umask: %o\n", own);
    for (int resource = 0; resource < 16; resource++) {
        NEED(getrlimit(resource, &limit) == 0);
        note("limit %d: %lx %lx\n", resource, (unsigned long)limit.rlim_cur, (unsigned long)limit.rlim_max);
    }
    NEED(sigprocmask(SIG_BLOCK, NULL, &mask) == 0 && sigpending(&pending) == 0 && sigaltstack(NULL, &stack) == 0);
    for (int signal = 1; signal < 65; signal++) {
        if (signal == 32 || signal == 33)
            continue;
        NEED(sigaction(signal, NULL, &action) == 0);
        note("signal %d: blocked %d pending %d handler %p flags %x\n", signal, sigismember(&mask, signal), sigismember(&pending, signal),
             (void *)action.sa_handler, (unsigned)action.sa_flags);
    }
    note("alternate stack: %p %zu %d\n", stack.ss_sp, stack.ss_size, stack.ss_flags);
    NEED(timerfd_gettime(timer, &left) == 0);
    note("timerfd: %d every %ld.%09ld\n", left.it_value.tv_sec > 1000, (long)left.it_interval.tv_sec, left.it_interval.tv_nsec);
    NEED(timer_gettime(posix, &left) == 0);
    note("timer: %d every %ld.%09ld\n", left.it_value.tv_sec > 1000, (long)left.it_interval.tv_sec, left.it_interval.tv_nsec);
    NEED(getitimer(ITIMER_REAL, &alarm) == 0);
    note("itimer: %d every %ld.%06ld\n", alarm.it_value.tv_sec > 1000, (long)alarm.it_interval.tv_sec, (long)alarm.it_interval.tv_usec);
    note("locks: %s", result_of(flock(lock, LOCK_EX | LOCK_NB)));
    struct flock range = {.l_type = F_WRLCK, .l_start = 5, .l_len = 10};
    NEED(fcntl(lock, F_OFD_GETLK, &range) == 0);
    note(" %d from %ld for %ld\n", range.l_type, (long)range.l_start, (long)range.l_len);
    note("floating point control: %x\n", __builtin_ia32_stmxcsr());
}

static int file(const char *path, int flags, const char *text)
{
    int fd = open(path, O_CREAT | flags, 0640);
    NEED(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    return fd;
}

static int clear_one(const char *path, const struct stat *stat, int kind, struct FTW *walk)
{
    (void)stat;
    (void)kind;
    (void)walk;
    return remove(path);
}

static void clear(void)
{
    nftw(FOLDER, clear_one, 8, FTW_DEPTH | FTW_PHYS);
    unlink("/dev/shm/frozen-shared");
}

static void set_up(void)
{
    clear();
    NEED(mkdir(FOLDER, 0750) == 0 && mkdir(FOLDER "/deep", 0700) == 0 && mkdir(FOLDER "/deep/deeper", 0701) == 0);
    log_file = file(FOLDER "/log", O_RDWR | O_APPEND | O_CLOEXEC, "first line\n");
    NEED(lseek(log_file, 3, SEEK_SET) == 3);
    twice = dup(log_file);
    NEED(link(FOLDER "/log", FOLDER "/hard") == 0 && symlink("log", FOLDER "/soft") == 0);
    gone = file(FOLDER "/gone", O_RDWR, "unlinked but open");
    NEED(unlink(FOLDER "/gone") == 0 && lseek(gone, 9, SEEK_SET) == 9);
    NEED(close(file("/dev/shm/frozen-shared", O_RDWR, "shared")) == 0);
    int sparse = file(FOLDER "/sparse", O_RDWR, "");
    NEED(ftruncate(sparse, 16 << 20) == 0 && pwrite(sparse, "data", 4, 5 << 20) == 4 && pwrite(sparse, "end", 3, 12 << 20) == 3 && close(sparse) == 0);
    struct timespec times[2] = {{1000000000, 123456789}, {1100000000, 987654321}};
    NEED(futimens(gone, times) == 0 && utimensat(AT_FDCWD, FOLDER "/deep/deeper", times, 0) == 0);
    memory = memfd_create("memory", MFD_ALLOW_SEALING);
    sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
    NEED(write(memory, "in memory", 9) == 9 && write(sealed, "sealed", 6) == 6);
    NEED(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
    NEED(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0);
    NEED(mkdir(FOLDER "/removed", 0711) == 0 && (removed = open(FOLDER "/removed", O_DIRECTORY)) >= 0 && rmdir(FOLDER "/removed") == 0);
    NEED(mkfifo(FOLDER "/fifo", 0622) == 0 && (fifo = open(FOLDER "/fifo", O_RDWR | O_NONBLOCK)) >= 0 && write(fifo, "in the fifo", 11) == 11);
    int ends[2];
    NEED(pipe2(ends, O_NONBLOCK) == 0);
    pipe_in = ends[0];
    pipe_out = ends[1];
    NEED(fcntl(pipe_in, F_SETPIPE_SZ, 8192) == 8192 && write(pipe_out, "in the pipe", 11) == 11);
    event = eventfd(7, EFD_CLOEXEC);
    semaphore = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
    epoll = epoll_create1(0);
    struct epoll_event once = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 5}, twice_event = {.events = EPOLLIN, .data.u64 = 6}, got;
    NEED(epoll_ctl(epoll, EPOLL_CTL_ADD, event, &once) == 0 && epoll_wait(epoll, &got, 1, 0) == 1);
    int other = dup(semaphore);
    NEED(epoll_ctl(epoll, EPOLL_CTL_ADD, other, &twice_event) == 0 && close(other) == 0);
    int held = open(FOLDER "/log", O_RDWR), ranges = open(FOLDER "/log", O_RDWR);
    lock = open(FOLDER "/log", O_RDWR);
    struct flock range = {.l_type = F_RDLCK, .l_start = 10, .l_len = 20};
    NEED(flock(held, LOCK_SH) == 0 && fcntl(ranges, F_OFD_SETLK, &range) == 0);
    directory = open(FOLDER, O_DIRECTORY);
    folder = open(FOLDER "/deep", O_PATH);
    NEED(chdir(FOLDER "/deep") == 0);
    umask(027);
    struct rlimit limit = {1000, 2000};
    NEED(setrlimit(RLIMIT_NOFILE, &limit) == 0);

    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    NEED(sigaltstack(&stack, NULL) == 0 && sigaction(SIGRTMIN + 2, &action, NULL) == 0 && signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGRTMIN + 2);
    sigaddset(&blocked, SIGTERM);
    NEED(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
    union sigval value = {.sival_int = 44};
    NEED(sigqueue(getpid(), SIGRTMIN + 2, value) == 0 && raise(SIGTERM) == 0);
    struct itimerspec far = {{2, 500}, {5000, 0}};
    struct sigevent timer_event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3};
    NEED((timer = timerfd_create(CLOCK_MONOTONIC, 0)) >= 0 && timerfd_settime(timer, 0, &far, NULL) == 0);
    NEED(timer_create(CLOCK_MONOTONIC, &timer_event, &posix) == 0 && timer_settime(posix, 0, &far, NULL) == 0);
    struct itimerval alarm = {{3, 5}, {5000, 0}};
    NEED(setitimer(ITIMER_REAL, &alarm, NULL) == 0);
    __builtin_ia32_ldmxcsr(0x7f80);
}

static int64_t used_ns(int who)
{
    struct rusage usage;
    NEED(getrusage(who, &usage) == 0);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000LL + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000LL;
}

int main(void)
{
    static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID};
    int64_t shown[6];
    char bytes[64] = "";
    uint64_t count = 0;

    set_up();
    /* Processor time that cannot come of what follows. */
    while (now_ns(CLOCK_THREAD_CPUTIME_ID) < 300000000)
        ;
    int64_t used = used_ns(RUSAGE_SELF);
    for (int index = 0; index < 6; index++)
        shown[index] = now_ns(clocks[index]);
    note_all(before);
    be_frozen_here();
    note_all(after);
    for (int index = 0; index < 6; index++)
        printf("clock %d: %s\n", (int)clocks[index], now_ns(clocks[index]) >= shown[index] ? "goes on" : "went back");
    printf("processor time: %s\n", used_ns(RUSAGE_SELF) >= used ? "goes on" : "went back");

    char *first = before, *second = after;
    int lines = 0, others = 0;
    while (*first && *second) {
        size_t one = strcspn(first, "\n"), two = strcspn(second, "\n");
        if (one != two || memcmp(first, second, one) != 0) {
            printf("was: %.*s\n is: %.*s\n", (int)one, first, (int)two, second);
            others++;
        }
        first += one + 1;
        second += two + 1;
        lines++;
    }
    printf("%s, %d differ\n", lines > 100 && !*first && !*second ? "all lines" : "lines are missing", others);

    printf("append: %s", result_of(write(twice, "second\n", 7)));
    printf(" at %s\n", result_of(lseek(log_file, 0, SEEK_CUR)));
    printf("hard link: ");
    int hard = open("../hard", O_RDONLY);
    printf("%s", result_of(read(hard, bytes, 63)));
    printf(" %s", bytes);
    printf("gone: %s", result_of(read(gone, memset(bytes, 0, 64), 63)));
    printf(" %s\n", bytes);
    printf("sealed: %s, grow: %s\n", result_of(pwrite(sealed, "x", 1, 0)), result_of(ftruncate(memory, 100)));
    printf("shrink: %s\n", result_of(ftruncate(memory, 1)));
    printf("fifo: %s", result_of(read(fifo, memset(bytes, 0, 64), 63)));
    printf(" %s\n", bytes);
    printf("pipe: %s", result_of(read(pipe_in, memset(bytes, 0, 64), 63)));
    printf(" %s\n", bytes);
    NEED(read(event, &count, 8) == 8);
    printf("event: %lu\n", (unsigned long)count);
    for (int turn = 0; turn < 4; turn++)
        printf("semaphore: %s\n", result_of(read(semaphore, &count, 8)));
    struct epoll_event got = {0};
    NEED(write(semaphore, &count, 8) == 8);
    count = 1;
    NEED(write(event, &count, 8) == 8);
    printf("epoll: %d", epoll_wait(epoll, &got, 1, 0));
    printf(" of %d\n", (int)got.data.u64);
    printf("in removed folder: %s\n", result_of(openat(removed, "x", O_CREAT | O_RDWR, 0600)));
    struct stat stat;
    printf("by path descriptor: %s\n", result_of(fstatat(folder, "deeper", &stat, 0)));
    int entries = 0;
    DIR *listing = fdopendir(directory);
    while (readdir(listing))
        entries++;
    printf("entries: %d\n", entries);
    sigset_t unblocked;
    sigemptyset(&unblocked);
    sigaddset(&unblocked, SIGRTMIN + 2);
    NEED(sigprocmask(SIG_UNBLOCK, &unblocked, NULL) == 0);
    printf("handled: %d with %d, %s\n", (int)handled - SIGRTMIN, (int)handled_value, on_alternate ? "on the alternate stack" : "on another stack");
    NEED(timer_delete(posix) == 0);
    clear();
    return 0;
}
