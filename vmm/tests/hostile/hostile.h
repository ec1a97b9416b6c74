/* Shared by the hostile programs. Each does its worst and then says so: only the last line counts. */
#ifndef HOSTILE_H
#define HOSTILE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STUB_PAGE (1ULL << 39)

/* What the answers must be, since wrong ones may be as bad as none. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            dprintf(1, "line %d: not %s, errno %d\n", __LINE__, #condition, errno);                                    \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* The same numbers in every run. */
static uint64_t random_state = 88172645463325252ULL;
static inline uint64_t random_number(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static sigjmp_buf after_fault;
static volatile int fault_signal;

static inline void jump_out(int number) {
    fault_signal = number;
    siglongjmp(after_fault, 1);
}

/* From here on the signals that the processor causes lead back to the last FAULTS, on a stack of their own. */
static inline void catch_faults(void) {
    static char stack[64 << 10];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_handler = jump_out, .sa_flags = SA_ONSTACK | SA_NODEFER};
    int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
}

/* The signal that a statement causes, 0 for none. */
#define FAULTS(...) FAULTS_WITH(1, __VA_ARGS__)
#define FAULTS_WITH(save_mask, ...) (fault_signal = 0, sigsetjmp(after_fault, save_mask) == 0 ? ((void)({ __VA_ARGS__; }), 0) : fault_signal)

/* Ends at once: the C library's own way out may not survive what was done to it. */
static inline int still_here(void) {
    dprintf(1, "still here\n");
    _exit(0);
}
#endif
