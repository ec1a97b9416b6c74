/* Signals: actions, masks, pending, suspend, waiting, queued values, thread-directed ones, SA_ flags, alternate stack, nesting. */
#include "guests.h"
#include <pthread.h>
#include <setjmp.h>
#include <ucontext.h>

static volatile sig_atomic_t count, last, code, sent_value;
static volatile pid_t on_thread, sender;

static void counting(int number) { last = number, count++; }

static void recording(int number, siginfo_t *info, void *context) {
    (void)context;
    last = number, code = info->si_code, sent_value = info->si_value.sival_int;
    on_thread = thread_id(), sender = info->si_pid;
    count++;
}

static void catch(int number, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    need("sigaction", sigaction(number, &action, NULL));
}

static void record(int number, int flags) {
    struct sigaction action = {.sa_sigaction = recording, .sa_flags = SA_SIGINFO | flags};
    need("sigaction", sigaction(number, &action, NULL));
}

static sigset_t set_of(int a, int b) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, a);
    if (b)
        sigaddset(&set, b);
    return set;
}

static void actions(void) {
    struct sigaction old;
    value("sigaction of nothing set", sigaction(SIGUSR1, NULL, &old));
    holds("is the default", old.sa_handler == SIG_DFL);
    catch(SIGUSR1, counting, SA_RESTART);
    sigaction(SIGUSR1, NULL, &old);
    holds("is the handler with its flags", old.sa_handler == counting && (old.sa_flags & SA_RESTART));
    value("raise", raise(SIGUSR1));
    text("count and number", "%d %d", count, last);
    value("kill to oneself", kill(getpid(), SIGUSR1));
    value("ran before kill returned", count);
    value("SIGKILL cannot be caught", sigaction(SIGKILL, &old, NULL));
    value("SIGSTOP cannot be caught", sigaction(SIGSTOP, &old, NULL));
    value("signal 65", syscall(SYS_rt_sigaction, 65, NULL, NULL, 8));
    value("signal 0", syscall(SYS_rt_sigaction, 0, NULL, NULL, 8));
    value("wrong size of the set", syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4));
    value("wild action", syscall(SYS_rt_sigaction, SIGUSR1, wild(), NULL, 8));
    catch(SIGUSR1, SIG_IGN, 0);
    value("raise when ignored", raise(SIGUSR1));
    value("count", count);
    value("kill with signal 0", kill(getpid(), 0));
    value("kill with signal 65", kill(getpid(), 65));
    value("kill to nobody", kill(0x3fffffff, SIGUSR1));
    value("SIGCHLD and SIGURG are ignored by default", raise(SIGCHLD) | raise(SIGURG) | raise(SIGWINCH));
}

static void masks(void) {
    sigset_t blocked = set_of(SIGUSR1, SIGUSR2), old, pending;
    catch(SIGUSR1, counting, 0), catch(SIGUSR2, counting, 0);
    count = 0;
    value("block", sigprocmask(SIG_BLOCK, &blocked, &old));
    raise(SIGUSR1), raise(SIGUSR1), raise(SIGUSR2);
    value("none came", count);
    value("sigpending", sigpending(&pending));
    text("pending", "USR1 %d USR2 %d HUP %d", sigismember(&pending, SIGUSR1), sigismember(&pending, SIGUSR2), sigismember(&pending, SIGHUP));
    sigset_t one = set_of(SIGUSR1, 0);
    value("unblock one", sigprocmask(SIG_UNBLOCK, &one, NULL));
    text("it came once", "%d, number %d", count, last);
    value("set the old mask", sigprocmask(SIG_SETMASK, &old, &pending));
    text("the other came", "%d, number %d", count, last);
    holds("mask it replaced", sigismember(&pending, SIGUSR2) && !sigismember(&pending, SIGUSR1));
    value("unknown how", sigprocmask(77, &old, NULL));
    value("unknown how without a set", sigprocmask(77, NULL, &old));
    value("wild set", syscall(SYS_rt_sigprocmask, SIG_BLOCK, wild(), NULL, 8));
    value("wrong size", syscall(SYS_rt_sigprocmask, SIG_BLOCK, &old, NULL, 16));
    sigfillset(&blocked);
    sigprocmask(SIG_SETMASK, &blocked, &old);
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    text("KILL and STOP cannot be blocked", "%d %d", sigismember(&now, SIGKILL), sigismember(&now, SIGSTOP));
    sigprocmask(SIG_SETMASK, &old, NULL);
    sigprocmask(SIG_BLOCK, &one, NULL);
    raise(SIGUSR1);
    catch(SIGUSR1, SIG_IGN, 0);
    sigpending(&pending);
    value("ignoring drops a pending one", sigismember(&pending, SIGUSR1));
    catch(SIGUSR1, counting, 0);
    count = 0;
    raise(SIGUSR1);
    sigset_t none;
    sigemptyset(&none);
    value("sigsuspend", sigsuspend(&none));
    text("handler ran in it", "%d", count);
    sigprocmask(SIG_BLOCK, NULL, &now);
    value("mask is back", sigismember(&now, SIGUSR1));
    value("sigsuspend wild", syscall(SYS_rt_sigsuspend, wild(), 8));
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static void waits(void) {
    sigset_t set = set_of(SIGUSR1, SIGRTMIN + 1), old;
    siginfo_t info;
    struct timespec zero = {0, 0}, short_time = milliseconds(3);
    sigprocmask(SIG_BLOCK, &set, &old);
    value("sigtimedwait of nothing, 0", sigtimedwait(&set, &info, &zero));
    value("sigtimedwait of nothing, 3 ms", sigtimedwait(&set, &info, &short_time));
    value("sigtimedwait bad time", sigtimedwait(&set, &info, &(struct timespec){0, -1}));
    raise(SIGUSR1);
    /* The call itself: glibc's sigwaitinfo turns SI_TKILL into SI_USER. */
    value("rt_sigtimedwait", syscall(SYS_rt_sigtimedwait, &set, &info, NULL, 8) == SIGUSR1);
    text("info", "signo %d, code %s", info.si_signo, info.si_code == SI_TKILL ? "SI_TKILL" : "?");
    kill(getpid(), SIGUSR1);
    sigwaitinfo(&set, &info);
    text("by kill", "code %s, own pid %d", info.si_code == SI_USER ? "SI_USER" : "?", info.si_pid == getpid());
    for (int i = 1; i <= 3; i++)
        value("sigqueue", sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i * 11}));
    for (int i = 1; i <= 3; i++) {
        sigwaitinfo(&set, &info);
        text("queued in order", "%d %s", info.si_value.sival_int, info.si_code == SI_QUEUE ? "SI_QUEUE" : "?");
    }
    value("queue is empty", sigtimedwait(&set, &info, &zero));
    sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 5}), raise(SIGUSR1);
    value("lower number first", sigwaitinfo(&set, NULL) == SIGUSR1);
    int number;
    returned("sigwait", sigwait(&set, &number));
    value("number above RTMIN", number - SIGRTMIN);
    count = 0;
    record(SIGUSR2, 0);
    value("sigqueue signal 65", sigqueue(getpid(), 65, (union sigval){0}));
    sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 77});
    text("handler's info", "value %d code %s own pid %d", sent_value, code == SI_QUEUE ? "SI_QUEUE" : "?", sender == getpid());
    siginfo_t forged = {.si_code = SI_USER};
    value("forged info to oneself", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR2, &forged));
    value("handled", count);
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static volatile int ready, stop;

static void *busy(void *argument) {
    *(volatile pid_t *)argument = thread_id();
    ready = 1;
    while (!stop)
        continue;
    return NULL;
}

static void *only_it(void *argument) {
    sigset_t set = set_of(SIGUSR1, 0);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    *(volatile pid_t *)argument = thread_id();
    ready = 1;
    while (!count)
        brief_rest();
    return NULL;
}

static void threads(void) {
    pthread_t thread;
    pid_t tid = 0;
    record(SIGUSR1, 0);
    count = 0;
    pthread_create(&thread, NULL, busy, &tid);
    while (!ready)
        brief_rest();
    value("tgkill to a busy thread", syscall(SYS_tgkill, getpid(), tid, SIGUSR1));
    while (!count)
        brief_rest();
    text("ran on it", "%d code %s", on_thread == tid, code == SI_TKILL ? "SI_TKILL" : "?");
    returned("pthread_kill", pthread_kill(thread, SIGUSR1));
    while (count < 2)
        brief_rest();
    returned("pthread_kill 0", pthread_kill(thread, 0));
    returned("pthread_sigqueue", pthread_sigqueue(thread, SIGUSR1, (union sigval){.sival_int = 9}));
    while (count < 3)
        brief_rest();
    value("its value", sent_value);
    stop = 1;
    pthread_join(thread, NULL);
    value("tgkill of another process's thread", syscall(SYS_tgkill, 0x3fffffff, getpid(), 0));
    value("tgkill thread 0", syscall(SYS_tgkill, getpid(), 0, 0));
    sigset_t set = set_of(SIGUSR1, 0);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    count = 0, ready = 0;
    pthread_create(&thread, NULL, only_it, &tid);
    while (!ready)
        brief_rest();
    kill(getpid(), SIGUSR1);
    pthread_join(thread, NULL);
    holds("kill goes to the thread that does not block it", on_thread == tid);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static volatile int depth, deepest, raised;
static sigset_t seen;

static void nesting(int number) {
    if (++depth > deepest)
        deepest = depth;
    sigprocmask(SIG_BLOCK, NULL, &seen);
    if (raised++ < 5)
        raise(number);
    depth--;
    count++;
}

static volatile uintptr_t stack_at;
static void where(int number) {
    char here = (char)number;
    stack_at = (uintptr_t)&here;
    stack_t now;
    sigaltstack(NULL, &now);
    code = now.ss_flags;
    last = sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL) ? errno : 0;
}

static void raising_other(int number) {
    (void)number;
    int before = count;
    raise(SIGUSR2);
    sent_value = count - before;
}

static void flags(void) {
    struct sigaction action = {.sa_handler = nesting};
    count = deepest = raised = 0;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    text("without SA_NODEFER", "deepest %d, count %d, blocked in it %d", deepest, count, sigismember(&seen, SIGUSR1));
    action.sa_flags = SA_NODEFER, count = deepest = raised = 0;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    text("with SA_NODEFER", "deepest %d, count %d, blocked in it %d", deepest, count, sigismember(&seen, SIGUSR1));
    action = (struct sigaction){.sa_handler = raising_other}, sigaddset(&action.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &action, NULL), catch(SIGUSR2, counting, 0);
    count = 0;
    raise(SIGUSR1);
    text("sa_mask holds another back", "in handler %d, after %d", sent_value, count);
    catch(SIGUSR1, counting, SA_RESETHAND);
    count = 0;
    raise(SIGUSR1);
    sigaction(SIGUSR1, NULL, &action);
    text("SA_RESETHAND", "count %d, default again %d", count, action.sa_handler == SIG_DFL);
    static char stack[32768];
    stack_t mine = {.ss_sp = stack, .ss_size = sizeof stack}, old;
    value("sigaltstack", sigaltstack(&mine, &old));
    value("old one was disabled", old.ss_flags == SS_DISABLE);
    catch(SIGUSR1, where, SA_ONSTACK);
    raise(SIGUSR1);
    holds("SA_ONSTACK runs on it", stack_at - (uintptr_t)stack < sizeof stack);
    text("in the handler", "SS_ONSTACK %d, changing it %s", code == SS_ONSTACK, error_name(last));
    catch(SIGUSR1, where, 0);
    raise(SIGUSR1);
    holds("without SA_ONSTACK not on it", !(stack_at - (uintptr_t)stack < sizeof stack));
    value("too small", sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = 100}, NULL));
    value("unknown flags", sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = 32768, .ss_flags = 64}, NULL));
    value("disable", sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL));
}

int main(void) {
    actions();
    masks();
    waits();
    threads();
    flags();
    return 0;
}
