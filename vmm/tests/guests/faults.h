/* Touching memory that may not be touched: each probe says ok, or the signal with its si_code and whether si_addr is right. */
#ifndef FAULTS_H
#define FAULTS_H
#include "guests.h"
#include <setjmp.h>

static sigjmp_buf fault_return;
static volatile sig_atomic_t fault_signal, fault_code;
static void *volatile fault_address;

static inline void fault_caught(int number, siginfo_t *info, void *context) {
    (void)context;
    fault_signal = number;
    fault_code = info->si_code;
    fault_address = info->si_addr;
    siglongjmp(fault_return, 1);
}

static inline void faults_begin(void) {
    struct sigaction action = {.sa_sigaction = fault_caught, .sa_flags = SA_SIGINFO};
    const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        need("sigaction", sigaction(numbers[i], &action, NULL));
}

static inline const char *fault_name(void) {
    if (fault_signal == SIGSEGV)
        return fault_code == SEGV_MAPERR ? "SIGSEGV SEGV_MAPERR" : fault_code == SEGV_ACCERR ? "SIGSEGV SEGV_ACCERR" : fault_code == SI_KERNEL ? "SIGSEGV SI_KERNEL" : "SIGSEGV";
    if (fault_signal == SIGBUS)
        return fault_code == BUS_ADRERR ? "SIGBUS BUS_ADRERR" : fault_code == BUS_ADRALN ? "SIGBUS BUS_ADRALN" : "SIGBUS";
    if (fault_signal == SIGILL)
        return fault_code == ILL_ILLOPN ? "SIGILL ILL_ILLOPN" : "SIGILL";
    if (fault_signal == SIGFPE)
        return fault_code == FPE_INTDIV ? "SIGFPE FPE_INTDIV" : fault_code == FPE_FLTDIV ? "SIGFPE FPE_FLTDIV" : fault_code == FPE_FLTINV ? "SIGFPE FPE_FLTINV" : "SIGFPE";
    return fault_code == SI_KERNEL ? "SIGTRAP SI_KERNEL" : fault_code == TRAP_TRACE ? "SIGTRAP TRAP_TRACE" : fault_code == TRAP_BRKPT ? "SIGTRAP TRAP_BRKPT" : "SIGTRAP";
}

/* Prints what the last fault was; `at` is what si_addr must be. */
static inline void fault_show(const char *name, const volatile void *at) {
    if (fault_address == at)
        text(name, "%s", fault_name());
    else if (fault_address == NULL)
        text(name, "%s at 0", fault_name());
    else
        text(name, "%s at %+ld", fault_name(), (long)((const volatile char *)fault_address - (const volatile char *)at));
}

static inline void reads(const char *name, const volatile void *at) {
    if (sigsetjmp(fault_return, 1))
        fault_show(name, at);
    else
        text(name, "read %d", *(const volatile unsigned char *)at);
}

static inline void writes(const char *name, volatile void *at, int byte) {
    if (sigsetjmp(fault_return, 1)) {
        fault_show(name, at);
        return;
    }
    *(volatile unsigned char *)at = (unsigned char)byte;
    text(name, "wrote");
}

static inline void calls(const char *name, void *at) {
    if (sigsetjmp(fault_return, 1)) {
        fault_show(name, at);
        return;
    }
    int (*function)(void);
    memcpy(&function, &at, sizeof function);
    int got = function();
    text(name, "returned %d", got);
}
#endif
