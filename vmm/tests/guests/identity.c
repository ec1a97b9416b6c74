/* Who the process is, and how it is scheduled: what stays as it is may always be set. */
#include "guests.h"
#include <grp.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/statfs.h>

static void ids(void) {
    uid_t u[3] = {7, 7, 7};
    gid_t g[3] = {7, 7, 7};
    value("setreuid, none", syscall(SYS_setreuid, -1, -1));
    value("setregid, none", syscall(SYS_setregid, -1, -1));
    value("setresuid, none", syscall(SYS_setresuid, -1, -1, -1));
    value("setresgid, none", syscall(SYS_setresgid, -1, -1, -1));
    value("setreuid as it is", syscall(SYS_setreuid, getuid(), geteuid()));
    value("setregid as it is", syscall(SYS_setregid, getgid(), getegid()));
    value("setresuid as it is", syscall(SYS_setresuid, getuid(), geteuid(), -1));
    value("setresgid as it is", syscall(SYS_setresgid, getgid(), getegid(), -1));
    value("setuid as it is", syscall(SYS_setuid, getuid()));
    value("setgid as it is", syscall(SYS_setgid, getgid()));
    value("getresuid", getresuid(&u[0], &u[1], &u[2]));
    value("getresgid", getresgid(&g[0], &g[1], &g[2]));
    holds("they agree", u[0] == getuid() && u[1] == geteuid() && g[0] == getgid() && g[1] == getegid());
    value("getresuid wild", syscall(SYS_getresuid, wild(), &u[1], &u[2]));
    value("getresgid wild", syscall(SYS_getresgid, &g[0], &g[1], wild()));
}

static void groups(void) {
    value("setpgid", setpgid(0, 0));
    holds("leads its group", getpgrp() == getpid() && getpgid(0) == getpid());
    value("setpgid negative", setpgid(0, -1));
    value("setpgid of nobody", setpgid(0x3fffffff, 0));
    value("setsid of a leader", setsid());
    value("getpgid of nobody", getpgid(0x3fffffff));
    value("getsid of nobody", getsid(0x3fffffff));
}

static void scheduling(void) {
    struct sched_param parameter = {.sched_priority = 9};
    value("sched_getscheduler", sched_getscheduler(0));
    value("sched_getparam", sched_getparam(0, &parameter));
    value("priority", parameter.sched_priority);
    value("sched_setscheduler as it is", sched_setscheduler(0, SCHED_OTHER, &parameter));
    parameter.sched_priority = 1;
    value("SCHED_OTHER with a priority", sched_setscheduler(0, SCHED_OTHER, &parameter));
    value("unknown policy", sched_setscheduler(0, 77, &parameter));
    value("sched_getparam wild", syscall(SYS_sched_getparam, 0, wild()));
    value("sched_getparam nowhere", syscall(SYS_sched_getparam, 0, NULL));
    value("sched_getparam of nobody", sched_getparam(0x3fffffff, &parameter));
    value("sched_getscheduler of nobody", sched_getscheduler(0x3fffffff));
    value("sched_getscheduler negative", sched_getscheduler(-1));
    const int policies[] = {SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        text("priorities", "%d to %d", sched_get_priority_min(policies[i]), sched_get_priority_max(policies[i]));
    value("sched_get_priority_min unknown", sched_get_priority_min(77));
    value("sched_get_priority_max unknown", sched_get_priority_max(77));
    value("getpriority", (errno = 0, getpriority(PRIO_PROCESS, 0)));
    value("getpriority unknown", getpriority(77, 0));
    value("getpriority of nobody", getpriority(PRIO_PROCESS, 0x3fffffff));
    value("setpriority as it is", setpriority(PRIO_PROCESS, 0, 0));
    value("setpriority unknown", setpriority(77, 0, 0));
    value("setpriority of nobody", setpriority(PRIO_PROCESS, 0x3fffffff, 0));
}

static void file_systems(void) {
    struct statfs by_name, by_descriptor;
    int fd = (int)need("open", open("/tmp", O_RDONLY | O_DIRECTORY));
    value("statfs", statfs("/tmp", &by_name));
    value("fstatfs", fstatfs(fd, &by_descriptor));
    holds("they agree", by_name.f_type == by_descriptor.f_type && by_name.f_blocks == by_descriptor.f_blocks && by_name.f_bsize == by_descriptor.f_bsize);
    holds("some of it is free", by_name.f_blocks >= by_name.f_bfree && by_name.f_bfree > 0);
    value("longest name", by_name.f_namelen);
    value("statfs of nothing", statfs("/absent", &by_name));
    value("statfs wild", syscall(SYS_statfs, "/tmp", wild()));
    value("fstatfs wild", syscall(SYS_fstatfs, fd, wild()));
    value("fstatfs of a closed one", fstatfs(900, &by_name));
    int ends[2];
    need("pipe", pipe(ends));
    value("fstatfs of a pipe", fstatfs(ends[0], &by_name));
}

int main(void) {
    ids();
    groups();
    scheduling();
    file_systems();
    return 0;
}
