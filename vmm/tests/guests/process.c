/* The process: identity, uname, limits, usage, sysinfo, affinity, priority, prctl, getrandom, umask, environment, refusals of odd numbers. */
#include "guests.h"
#include <asm/prctl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>

static void identity(void) {
    holds("pid", getpid() > 0 && getpid() == thread_id());
    holds("parent is another", getppid() != getpid());
    holds("getpgid of 0", getpgid(0) == getpgrp());
    holds("getsid of 0", getsid(0) == getsid(getpid()));
    value("getpgid of nobody", getpgid(0x3fffffff));
    value("getsid of nobody", getsid(0x3fffffff));
    uid_t real, effective, saved;
    value("getresuid", getresuid(&real, &effective, &saved));
    holds("agrees with getuid", real == getuid() && effective == geteuid());
    value("getresgid wild", syscall(SYS_getresgid, wild(), wild(), wild()));
    value("setuid to oneself", setuid(getuid()));
    value("setgid to oneself", setgid(getgid()));
    holds("getgroups", getgroups(0, NULL) >= 0);
    value("getgroups negative", syscall(SYS_getgroups, -1, NULL));
    value("wait without a child", waitpid(-1, NULL, WNOHANG));
    value("waitid without a child", waitid(P_ALL, 0, NULL, WEXITED));
    value("wait4 bad options", waitpid(-1, NULL, 0x40));
}

static void names(void) {
    struct utsname name;
    value("uname", uname(&name));
    text("system and machine", "%s %s", name.sysname, name.machine);
    int major = 0, minor = 0;
    holds("release is two numbers, at least 4.0", sscanf(name.release, "%d.%d", &major, &minor) == 2 && major >= 4);
    char host[HOST_NAME_MAX + 1];
    holds("gethostname is the node name", gethostname(host, sizeof host) == 0 && !strcmp(host, name.nodename));
    value("uname wild", syscall(SYS_uname, wild()));
    value("set name", prctl(PR_SET_NAME, "a name that is too long"));
    char got[16];
    value("get name", prctl(PR_GET_NAME, got));
    text("name", "%s", got);
    value("PR_GET_DUMPABLE", prctl(PR_GET_DUMPABLE));
    value("PR_SET_PDEATHSIG", prctl(PR_SET_PDEATHSIG, 0));
    value("PR_SET_PDEATHSIG bad", prctl(PR_SET_PDEATHSIG, 99));
    value("PR_SET_NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    value("PR_GET_NO_NEW_PRIVS", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    value("unknown prctl", prctl(99999, 0, 0, 0, 0));
    value("PR_SET_NAME wild", prctl(PR_SET_NAME, wild()));
}

static void limits(void) {
    struct rlimit limit, now;
    static const struct {
        int number;
        const char *name;
    } kinds[] = {{RLIMIT_NOFILE, "NOFILE"}, {RLIMIT_STACK, "STACK"}, {RLIMIT_AS, "AS"}, {RLIMIT_DATA, "DATA"}, {RLIMIT_CORE, "CORE"}, {RLIMIT_CPU, "CPU"}, {RLIMIT_FSIZE, "FSIZE"}, {RLIMIT_NPROC, "NPROC"}, {RLIMIT_MEMLOCK, "MEMLOCK"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        holds(kinds[i].name, getrlimit(kinds[i].number, &limit) == 0 && limit.rlim_cur <= limit.rlim_max);
    getrlimit(RLIMIT_NOFILE, &limit);
    now = limit, now.rlim_cur = 100;
    value("setrlimit lower", setrlimit(RLIMIT_NOFILE, &now));
    getrlimit(RLIMIT_NOFILE, &now);
    value("is lower", (long)now.rlim_cur);
    struct rlimit old;
    value("prlimit sets and gets", prlimit(0, RLIMIT_NOFILE, &limit, &old));
    value("old", (long)old.rlim_cur);
    now = limit, now.rlim_cur = limit.rlim_max + 1;
    value("soft above hard", limit.rlim_max == RLIM_INFINITY ? (errno = EINVAL, -1) : setrlimit(RLIMIT_NOFILE, &now));
    value("unknown limit", getrlimit(99, &limit));
    value("limit of nobody", prlimit(0x3fffffff, RLIMIT_NOFILE, NULL, &old));
    value("wild", syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, wild(), NULL));
}

static void usage(void) {
    struct rusage own, thread;
    value("getrusage", getrusage(RUSAGE_SELF, &own));
    holds("memory is between 100 kB and 1 GB", own.ru_maxrss > 100 && own.ru_maxrss < 1000000);
    value("getrusage of the thread", getrusage(RUSAGE_THREAD, &thread));
    value("getrusage of children", getrusage(RUSAGE_CHILDREN, &own));
    holds("children used nothing", own.ru_utime.tv_sec == 0 && own.ru_utime.tv_usec == 0);
    value("getrusage unknown", getrusage(77, &own));
    struct sysinfo info;
    value("sysinfo", sysinfo(&info));
    holds("sane", info.totalram > 0 && info.freeram <= info.totalram && info.mem_unit > 0 && info.uptime >= 0 && info.procs > 0);
    value("sysinfo wild", syscall(SYS_sysinfo, wild()));
    cpu_set_t set;
    CPU_ZERO(&set);
    holds("sched_getaffinity", sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0);
    holds("nproc agrees", sysconf(_SC_NPROCESSORS_ONLN) >= 1 && sysconf(_SC_NPROCESSORS_CONF) >= CPU_COUNT(&set));
    value("sched_setaffinity to the same", sched_setaffinity(0, sizeof set, &set));
    value("too small a set", syscall(SYS_sched_getaffinity, 0, 1, &set));
    value("affinity of nobody", sched_getaffinity(0x3fffffff, sizeof set, &set));
    cpu_set_t none;
    CPU_ZERO(&none);
    value("sched_setaffinity to none", sched_setaffinity(0, sizeof none, &none));
    unsigned cpu = 9999, node = 9999;
    value("getcpu", getcpu(&cpu, &node));
    holds("getcpu is one of the set", CPU_ISSET(cpu, &set));
    value("getcpu without the vDSO", syscall(SYS_getcpu, &cpu, &node, 0L));
    holds("that is one of the set too", CPU_ISSET(cpu, &set));
    value("sched_yield", sched_yield());
    value("sched_getscheduler", sched_getscheduler(0));
    value("sched_get_priority_max FIFO", sched_get_priority_max(SCHED_FIFO));
    value("sched_get_priority_max unknown", sched_get_priority_max(77));
    errno = 0;
    holds("getpriority", getpriority(PRIO_PROCESS, 0) >= -20 && errno == 0);
    value("setpriority to the same", setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0)));
    value("getpriority unknown", getpriority(77, 0));
}

static void randomness(void) {
    unsigned char one[64] = {0}, two[64] = {0};
    value("getrandom", getrandom(one, sizeof one, 0));
    value("getrandom nonblocking", getrandom(two, sizeof two, GRND_NONBLOCK));
    holds("differ", memcmp(one, two, sizeof one));
    value("GRND_RANDOM", getrandom(one, 16, GRND_RANDOM));
    value("of 0 bytes", getrandom(one, 0, 0));
    value("unknown flag", getrandom(one, 1, 0x100));
    value("wild", syscall(SYS_getrandom, wild(), 16, 0));
    value("getentropy", getentropy(one, 32));
}

static void odd(void) {
    value("unknown system call", syscall(100000));
    value("system call -1", syscall(-1));
    value("system call 2^32", syscall(1L << 32 | SYS_getpid) == getpid() ? 1 : -1);
    unsigned long base = 0;
    value("ARCH_GET_FS", syscall(SYS_arch_prctl, ARCH_GET_FS, &base));
    holds("is the thread pointer", base == (unsigned long)pthread_self());
    value("ARCH_SET_GS", syscall(SYS_arch_prctl, ARCH_SET_GS, &base));
    unsigned long got = 0;
    value("ARCH_GET_GS", syscall(SYS_arch_prctl, ARCH_GET_GS, &got));
    holds("as it was set", got == (unsigned long)&base);
    unsigned long through = 0;
    base = 0x5a5a;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(through));
    text("read through GS", "%lx", through);
    value("unknown arch_prctl", syscall(SYS_arch_prctl, 0x9999, &base));
    value("ARCH_SET_FS above user space", syscall(SYS_arch_prctl, ARCH_SET_FS, -1L));
    value("membarrier query has private expedited", (syscall(SYS_membarrier, 0, 0, 0) & 24) == 24 ? 0 : -2);
    value("membarrier register", syscall(SYS_membarrier, 16, 0, 0));
    value("membarrier", syscall(SYS_membarrier, 8, 0, 0));
    value("membarrier unknown", syscall(SYS_membarrier, 1 << 20, 0, 0));
    value("personality query", syscall(SYS_personality, 0xffffffff));
    holds("sysconf of a page", sysconf(_SC_PAGESIZE) == 4096);
    umask(027);
    value("umask", umask(022));
}

int main(void) {
    identity();
    names();
    limits();
    usage();
    randomness();
    odd();
    return 0;
}
