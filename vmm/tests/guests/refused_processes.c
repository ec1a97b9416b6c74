/* Other processes: there are none in the micro-VM. fork, vfork, clone of a process or of namespaces, execve. Compared with .expected. */
#include "guests.h"
#include <linux/sched.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

/* Natively these may succeed: a child must not go on to print. */
static void child(const char *name, long got) {
    if (got == 0)
        syscall(SYS_exit_group, 0);
    done(name, got);
}

int main(void) {
    char *const arguments[] = {"true", NULL};
    child("fork", fork());
    child("fork by the call", syscall(SYS_fork));
    child("vfork by the call", syscall(SYS_vfork));
    child("clone like fork", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    child("clone with CLONE_VM alone", syscall(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0));
    child("clone with CLONE_NEWUSER", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    struct clone_args how = {.exit_signal = SIGCHLD};
    child("clone3", syscall(SYS_clone3, &how, sizeof how));
    value("execve", execve("/bin/true", arguments, environ));
    value("execve of nothing", execve("/absent", arguments, environ));
    value("execveat", syscall(SYS_execveat, AT_FDCWD, "/bin/true", arguments, environ, 0));
    value("unshare user", unshare(CLONE_NEWUSER));
    value("unshare net", unshare(CLONE_NEWNET));
    value("setns", setns(0, 0));
    value("ptrace", syscall(SYS_ptrace, 0, 0, 0, 0));
    value("process_vm_readv", syscall(SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0));
    value("pidfd_getfd", syscall(SYS_pidfd_getfd, 0, 0, 0));
    value("kcmp", syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0));
    text("still one", "%s", waitpid(-1, NULL, WNOHANG) == -1 ? error_name(errno) : "a child");
    return 0;
}
