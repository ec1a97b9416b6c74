/* Clocks, sleeps, POSIX timers, interval timers, the vDSO. */
#include "guests.h"
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <sys/times.h>

static const struct {
    clockid_t id;
    const char *name;
} clocks[] = {{CLOCK_REALTIME, "REALTIME"}, {CLOCK_MONOTONIC, "MONOTONIC"}, {CLOCK_PROCESS_CPUTIME_ID, "PROCESS_CPUTIME"}, {CLOCK_THREAD_CPUTIME_ID, "THREAD_CPUTIME"}, {CLOCK_MONOTONIC_RAW, "MONOTONIC_RAW"}, {CLOCK_REALTIME_COARSE, "REALTIME_COARSE"}, {CLOCK_MONOTONIC_COARSE, "MONOTONIC_COARSE"}, {CLOCK_BOOTTIME, "BOOTTIME"}};

static volatile int64_t latest;
static volatile long backwards;

static void *look(void *argument) {
    (void)argument;
    int64_t before = 0;
    for (int i = 0; i < 20000; i++) {
        int64_t seen = latest, now = clock_ns(CLOCK_MONOTONIC);
        if (now < before || now < seen)
            __atomic_fetch_add(&backwards, 1, __ATOMIC_RELAXED);
        before = now;
        latest = now;
    }
    return NULL;
}

static void reading(void) {
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++) {
        struct timespec by_library, by_call, resolution = {-1, -1};
        int good = !clock_gettime(clocks[i].id, &by_library) && !syscall(SYS_clock_gettime, clocks[i].id, &by_call) && !clock_getres(clocks[i].id, &resolution);
        int64_t apart = nanoseconds_of(by_call) - nanoseconds_of(by_library);
        text(clocks[i].name, "%s, call and vDSO %s, resolution %s", good ? "ok" : "fails", apart >= -1000000 && apart < 1000000000 ? "agree" : "differ", resolution.tv_nsec > 0 && resolution.tv_nsec <= 10000000 ? "fine" : "odd");
    }
    value("unknown clock", clock_gettime(77, &(struct timespec){0}));
    value("unknown clock's resolution", clock_getres(77, NULL));
    value("wild by the call", syscall(SYS_clock_gettime, CLOCK_MONOTONIC, wild()));
    value("clock_getres without a result", clock_getres(CLOCK_MONOTONIC, NULL));
    struct timeval micro;
    int64_t before = clock_ns(CLOCK_REALTIME);
    value("gettimeofday", gettimeofday(&micro, NULL));
    int64_t now = (int64_t)micro.tv_sec * 1000000000 + micro.tv_usec * 1000;
    holds("gettimeofday agrees with REALTIME", now >= before - 1000 && now - before < 1000000000);
    holds("time agrees", time(NULL) - before / 1000000000 <= 1 && time(NULL) >= before / 1000000000 - 1);
    holds("the year is past 2020", before / 1000000000 > 1577836800);
    holds("BOOTTIME is not before MONOTONIC", clock_ns(CLOCK_BOOTTIME) >= clock_ns(CLOCK_MONOTONIC) - 1000000);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, look, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    value("times that MONOTONIC ran back across 4 threads", backwards);
    int64_t busy = clock_ns(CLOCK_PROCESS_CPUTIME_ID), own = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    int64_t start = clock_ns(CLOCK_MONOTONIC);
    while (clock_ns(CLOCK_MONOTONIC) - start < 20000000)
        continue;
    holds("CPU time grows with work", clock_ns(CLOCK_PROCESS_CPUTIME_ID) > busy && clock_ns(CLOCK_THREAD_CPUTIME_ID) > own);
    holds("CPU time is not ahead of the clock", clock_ns(CLOCK_THREAD_CPUTIME_ID) - own <= clock_ns(CLOCK_MONOTONIC) - start + 5000000);
    struct tms spent;
    holds("times", times(&spent) != -1);
    clockid_t clock;
    returned("pthread_getcpuclockid", pthread_getcpuclockid(pthread_self(), &clock));
    holds("it runs", clock_ns(clock) > 0);
    value("clock_settime is refused on MONOTONIC", clock_settime(CLOCK_MONOTONIC, &(struct timespec){1, 0}));
}

static void sleeping(void) {
    int64_t start = clock_ns(CLOCK_MONOTONIC);
    struct timespec span = milliseconds(10), until;
    value("nanosleep", nanosleep(&span, NULL));
    holds("long enough", clock_ns(CLOCK_MONOTONIC) - start >= 10000000);
    start = clock_ns(CLOCK_MONOTONIC) + 10000000;
    until = (struct timespec){start / 1000000000, start % 1000000000};
    returned("absolute", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
    holds("not early", clock_ns(CLOCK_MONOTONIC) >= start);
    start = clock_ns(CLOCK_REALTIME) + 5000000;
    until = (struct timespec){start / 1000000000, start % 1000000000};
    returned("absolute realtime", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL));
    holds("not early", clock_ns(CLOCK_REALTIME) >= start);
    returned("absolute in the past", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &(struct timespec){0, 1}, NULL));
    value("zero", nanosleep(&(struct timespec){0, 0}, NULL));
    value("bad nanoseconds", nanosleep(&(struct timespec){0, 1000000000}, NULL));
    value("negative", nanosleep(&(struct timespec){-1, 0}, NULL));
    returned("unknown clock", clock_nanosleep(77, 0, &span, NULL));
    returned("thread CPU clock", clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &span, NULL));
    value("wild", syscall(SYS_nanosleep, wild(), NULL));
}

static volatile sig_atomic_t came, timer_value, timer_code, overruns;
static timer_t timer;

static void on_signal(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    came++;
    timer_value = info->si_value.sival_int, timer_code = info->si_code;
    overruns = info->si_overrun;
}

static volatile int notified;
static void notify(union sigval given) { notified = given.sival_int; }

static void timers(void) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN + 2, &action, NULL), sigaction(SIGALRM, &action, NULL);
    sigset_t blocked, old;
    sigemptyset(&blocked), sigaddset(&blocked, SIGRTMIN + 2), sigaddset(&blocked, SIGALRM);
    sigprocmask(SIG_BLOCK, &blocked, &old);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2, .sigev_value.sival_int = 321};
    value("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec setting = {.it_value = milliseconds(3)}, got;
    value("timer_settime", timer_settime(timer, 0, &setting, NULL));
    while (!came)
        sigsuspend(&old);
    text("its signal", "value %d code %s", timer_value, timer_code == SI_TIMER ? "SI_TIMER" : "?");
    value("timer_gettime when over", timer_gettime(timer, &got));
    holds("is zero", nanoseconds_of(got.it_value) == 0);
    setting = (struct itimerspec){.it_value = milliseconds(1), .it_interval = milliseconds(1)};
    came = 0;
    timer_settime(timer, 0, &setting, NULL);
    struct timespec pause_time = milliseconds(8);
    nanosleep(&pause_time, NULL);
    while (!came)
        sigsuspend(&old);
    holds("missed ones are overruns", overruns >= 3);
    holds("timer_getoverrun", timer_getoverrun(timer) >= 0);
    while (came < 5)
        sigsuspend(&old);
    value("timer_delete", timer_delete(timer));
    value("timer_create bad signal", (event.sigev_signo = 77, timer_create(CLOCK_MONOTONIC, &event, &timer)));
    value("timer_create bad clock", timer_create(77, NULL, &timer));
    event = (struct sigevent){.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notify, .sigev_value.sival_int = 55};
    value("SIGEV_THREAD", timer_create(CLOCK_MONOTONIC, &event, &timer));
    setting = (struct itimerspec){.it_value = milliseconds(2)};
    timer_settime(timer, 0, &setting, NULL);
    while (!notified)
        brief_rest();
    value("its function ran", notified);
    timer_delete(timer);
    setting.it_value.tv_nsec = -1;
    timer_create(CLOCK_REALTIME, NULL, &timer);
    value("bad time", timer_settime(timer, 0, &setting, NULL));
    struct itimerval interval = {.it_value = {0, 3000}}, rest;
    came = 0;
    value("setitimer", setitimer(ITIMER_REAL, &interval, NULL));
    while (!came)
        sigsuspend(&old);
    text("SIGALRM", "code %s", timer_code == SI_KERNEL ? "SI_KERNEL" : "?");
    interval = (struct itimerval){.it_value = {100, 0}, .it_interval = {5, 0}};
    setitimer(ITIMER_REAL, &interval, NULL);
    value("getitimer", getitimer(ITIMER_REAL, &rest));
    holds("its rest", rest.it_value.tv_sec >= 90 && rest.it_value.tv_sec <= 100 && rest.it_interval.tv_sec == 5);
    interval = (struct itimerval){0};
    setitimer(ITIMER_REAL, &interval, NULL);
    value("setitimer unknown", setitimer(7, &interval, NULL));
    value("setitimer bad", setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {0, 1000000}}, NULL));
    value("alarm", alarm(100));
    holds("alarm tells the rest", alarm(0) >= 90);
    value("alarm off", alarm(0));
}

static void vdso(void) {
    unsigned long base = getauxval(AT_SYSINFO_EHDR);
    holds("AT_SYSINFO_EHDR", base != 0);
    const ElfW(Ehdr) *header = (void *)base;
    holds("is an ELF", base && !memcmp(header->e_ident, ELFMAG, SELFMAG));
    const ElfW(Phdr) *parts = (void *)(base + header->e_phoff);
    const ElfW(Dyn) *dynamic = NULL;
    unsigned long shift = 0;
    for (int i = 0; i < header->e_phnum; i++)
        if (parts[i].p_type == PT_DYNAMIC)
            dynamic = (void *)(base + parts[i].p_offset);
        else if (parts[i].p_type == PT_LOAD)
            shift = base + parts[i].p_offset - parts[i].p_vaddr;
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    size_t length = 0;
    for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++)
        if (dynamic->d_tag == DT_SYMTAB)
            symbols = (void *)(dynamic->d_un.d_ptr + shift);
        else if (dynamic->d_tag == DT_STRTAB)
            strings = (void *)(dynamic->d_un.d_ptr + shift);
        else if (dynamic->d_tag == DT_STRSZ)
            length = dynamic->d_un.d_val;
    static const char *const names[] = {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_getcpu"};
    for (size_t n = 0; n < 4; n++) {
        int found = 0;
        for (size_t i = 1; symbols && (const char *)&symbols[i + 1] <= strings && symbols[i].st_name < length; i++)
            found |= !strcmp(strings + symbols[i].st_name, names[n]);
        text(names[n], "%s", found ? "present" : "absent");
    }
}

int main(void) {
    reading();
    sleeping();
    timers();
    vdso();
    return 0;
}
