// Handlers, masks, alternate stacks, restarts, queues.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t seen, order[16], on_alt;
static char alt[65536];
static void note(int sig) {
    char here;
    order[seen++ % 16] = sig;
    on_alt = &here >= alt && &here < alt + sizeof alt;
}
static void skip(int sig, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    printf("signal %d trap %ld code %d\n", sig, (long)u->uc_mcontext.gregs[REG_TRAPNO], info->si_code);
    u->uc_mcontext.gregs[REG_RIP] += sig == SIGTRAP ? 0 : 2;
}
static void rest(void) {
    struct timespec t = {0, 1000000};
    nanosleep(&t, NULL);
}
// A signal may come before the other thread sleeps, and then ends no sleep: it is sent until the call is over.
static volatile int over;
static void *interrupter(void *arg) {
    while (!over) {
        rest();
        pthread_kill(*(pthread_t *)arg, SIGUSR1);
    }
    return NULL;
}
static void start_interrupter(pthread_t *thread, pthread_t *whom) {
    over = 0;
    pthread_create(thread, NULL, interrupter, whom);
}
static void stop_interrupter(pthread_t thread) {
    over = 1;
    pthread_join(thread, NULL);
}
// Lets a restarted read end once it has been interrupted.
static void *feeder(void *arg) {
    for (int until = seen + 2; seen < until;) rest();
    return (void *)(write(*(int *)arg, "x", 1));
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    struct sigaction action = {.sa_handler = note};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigaction(SIGRTMIN, &action, NULL);
    raise(SIGUSR1);
    printf("raised %d %d\n", (int)seen, (int)order[0]);
    sigset_t set, old;
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, &old);
    kill(getpid(), SIGUSR2); kill(getpid(), SIGUSR2); raise(SIGRTMIN); raise(SIGRTMIN); raise(SIGUSR1);
    sigset_t pending;
    sigpending(&pending);
    printf("blocked %d pending %d %d\n", (int)seen, sigismember(&pending, SIGUSR2), sigismember(&pending, SIGHUP));
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("delivered %d\n", (int)seen);
    stack_t stack = {.ss_sp = alt, .ss_size = sizeof alt};
    sigaltstack(&stack, NULL);
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    printf("alternate %d\n", (int)on_alt);
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = skip;
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGTRAP, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    __asm__ volatile("ud2");
    __asm__ volatile("int3");
    int one = 1, zero = 0;
    __asm__ volatile("cltd; idivl %2" : "+a"(one) : "d"(0), "r"(zero) : "cc");
    double kept = 1.25;
    __asm__ volatile("movsd %0, %%xmm7" ::"m"(kept) : "xmm7");
    raise(SIGUSR1);
    double after;
    __asm__ volatile("movsd %%xmm7, %0" : "=m"(after));
    printf("vector state %g\n", after);
    pthread_t self = pthread_self(), other;
    action = (struct sigaction){.sa_handler = note};
    sigaction(SIGUSR1, &action, NULL);
    start_interrupter(&other, &self);
    struct timespec long_time = {500, 0}, left;
    int result = nanosleep(&long_time, &left);
    int sleep_error = errno;
    stop_interrupter(other);
    printf("sleep %d %d left %d\n", result, sleep_error, left.tv_sec >= 250 && left.tv_sec <= 500);
    int fds[2];
    char byte;
    pipe(fds);
    start_interrupter(&other, &self);
    errno = 0;
    result = (int)read(fds[0], &byte, 1);
    int read_error = errno;
    stop_interrupter(other);
    printf("read %d %d\n", result, read_error);
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, NULL);
    pthread_t writer;
    start_interrupter(&other, &self);
    pthread_create(&writer, NULL, feeder, &fds[1]);
    result = (int)read(fds[0], &byte, 1);
    stop_interrupter(other);
    printf("restarted %d %c\n", result, byte);
    pthread_join(writer, NULL);
    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
    printf("bad %d %d\n", kill(getpid(), 65), errno);
    printf("kill refused %d\n", sigaction(SIGKILL, &action, NULL));
    close(fds[0]);
    signal(SIGPIPE, SIG_IGN);
    result = (int)write(fds[1], "x", 1);
    printf("pipe %d %d\n", result, errno);
    fflush(stdout);
    signal(SIGUSR2, SIG_DFL);
    raise(SIGUSR2);
    return 0;
}
