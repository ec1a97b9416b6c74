/* Shared by every oracle program: one line per case, `case: result`, failures as the NAME of the errno. See README.md. */
#ifndef GUESTS_H
#define GUESTS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Line by line, so that a program that dies shows how far it came. */
__attribute__((constructor)) static void print_line_by_line(void) { setvbuf(stdout, NULL, _IOLBF, 0); }

static inline const char *error_name(int error) {
    const char *name = strerrorname_np(error);
    return name ? name : "unknown errno";
}

/* For calls whose value is part of the case: prints the value, or the errno's name. */
static inline void value(const char *name, long got) {
    if (got == -1)
        printf("%s: %s\n", name, error_name(errno));
    else
        printf("%s: %ld\n", name, got);
}

/* For calls whose value may differ from run to run (descriptors, ids): prints ok, or the errno's name. Returns the value. */
static inline long done(const char *name, long got) {
    printf("%s: %s\n", name, got == -1 ? error_name(errno) : "ok");
    return got;
}

/* For mmap-like calls. */
static inline void *mapped(const char *name, void *got) {
    printf("%s: %s\n", name, got == (void *)-1 ? error_name(errno) : "ok");
    return got;
}

/* For calls that return the error instead of setting errno (pthread_*, posix_*). */
static inline void returned(const char *name, int error) { printf("%s: %s\n", name, error ? error_name(error) : "ok"); }

static inline void holds(const char *name, int truth) { printf("%s: %s\n", name, truth ? "yes" : "no"); }

__attribute__((format(printf, 2, 3))) static inline void text(const char *name, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("%s: ", name);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

/* Ends the program when the ground a case stands on is missing: never a case itself. */
static inline long need(const char *what, long got) {
    if (got == -1) {
        printf("cannot set up %s: %s\n", what, error_name(errno));
        exit(99);
    }
    return got;
}

/* An address that is never mapped, hidden from the compiler's checks. */
static inline void *wild(void) {
    static void *volatile address = (void *)16;
    return address;
}

static char scratch_path[64];

static inline int scratch_remove(const char *path, const struct stat *status, int kind, struct FTW *where) {
    (void)status, (void)kind, (void)where;
    return remove(path);
}

static inline void scratch_end(void) {
    if (chdir("/") == 0)
        nftw(scratch_path, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* A fresh folder under /tmp that becomes the working directory and is removed at exit. Its name is never printed. */
static inline void scratch(void) {
    strcpy(scratch_path, "/tmp/guest-XXXXXX");
    need("a folder in /tmp", mkdtemp(scratch_path) ? 0 : -1);
    need("chdir", chdir(scratch_path));
    umask(022);
    atexit(scratch_end);
}

/* Creates a file of the working directory with this content. */
static inline void file_with(const char *name, const char *content) {
    int fd = (int)need(name, open(name, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644));
    need(name, write(fd, content, strlen(content)));
    close(fd);
}

static inline struct timespec milliseconds(long ms) {
    struct timespec span = {ms / 1000, ms % 1000 * 1000000};
    return span;
}

static inline int64_t nanoseconds_of(struct timespec span) { return (int64_t)span.tv_sec * 1000000000 + span.tv_nsec; }

static inline int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    need("clock_gettime", clock_gettime(clock, &now));
    return nanoseconds_of(now);
}

/* Lets other threads run while a condition that only they can bring about does not hold yet. */
static inline void brief_rest(void) {
    struct timespec span = milliseconds(1);
    nanosleep(&span, NULL);
}

static inline pid_t thread_id(void) { return (pid_t)syscall(SYS_gettid); }
#endif
