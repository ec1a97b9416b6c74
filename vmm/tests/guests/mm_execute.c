/* Execute permission: code written and then made executable, W^X toggling, rewriting in place, no-execute faults. */
#include "faults.h"
#include <pthread.h>
#include <sys/mman.h>

enum { PAGE = 4096 };
#define RW (PROT_READ | PROT_WRITE)
#define RX (PROT_READ | PROT_EXEC)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

/* mov eax, number; ret */
static void emit(void *at, int number) {
    unsigned char code[6] = {0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(code + 1, &number, 4);
    memcpy(at, code, sizeof code);
}

static int run(void *at) {
    int (*function)(void);
    memcpy(&function, &at, sizeof function);
    return function();
}

static char *pages(int count, int protection) {
    char *at = mmap(NULL, (size_t)count * PAGE, protection, ANONYMOUS, -1, 0);
    need("mmap", at == MAP_FAILED ? -1 : 0);
    return at;
}

static void toggling(void) {
    char *at = pages(2, RW);
    emit(at, 1234);
    calls("call in RW", at);
    value("mprotect RX", mprotect(at, PAGE, RX));
    calls("call in RX", at);
    writes("write in RX", at + 1, 1);
    value("mprotect RW", mprotect(at, PAGE, RW));
    calls("call in RW again", at);
    emit(at, 77);
    mprotect(at, PAGE, RX);
    calls("new code", at);
    long sum = 0;
    for (int i = 0; i < 300; i++) {
        need("mprotect", mprotect(at, PAGE, RW));
        emit(at, i);
        need("mprotect", mprotect(at, PAGE, RX));
        sum += run(at);
    }
    value("300 times W^X", sum);
    value("PROT_NONE", mprotect(at, PAGE, PROT_NONE));
    calls("call in PROT_NONE", at);
    value("PROT_EXEC alone", mprotect(at, PAGE, PROT_EXEC));
    calls("call in PROT_EXEC", at);
    emit(at + PAGE + 100, 5);
    calls("call in the RW page behind", at + PAGE + 100);
    munmap(at, PAGE);
    calls("call in a hole", at);
}

static void in_place(void) {
    char *at = mapped("RWX", mmap(NULL, 2 * PAGE, RW | PROT_EXEC, ANONYMOUS, -1, 0));
    long sum = 0;
    for (int i = 0; i < 1000; i++) {
        emit(at + i % 64, i);
        sum += run(at + i % 64);
    }
    value("1000 times rewritten in place", sum);
    emit(at + PAGE - 3, 4321);
    calls("code across a page boundary", at + PAGE - 3);
    mprotect(at + PAGE, PAGE, RW);
    if (sigsetjmp(fault_return, 1) == 0)
        value("not reached", run(at + PAGE - 3));
    fault_show("second page not executable", at + PAGE);
    value("RX made of RWX", mprotect(at, 2 * PAGE, RX));
    calls("still runs", at + PAGE - 3);
}

static void sources(void) {
    int fd = (int)need("memfd", memfd_create("code", 0));
    need("ftruncate", ftruncate(fd, PAGE));
    char *writer = mapped("writable view", mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0));
    char *runner = mapped("executable view", mmap(NULL, PAGE, RX, MAP_SHARED, fd, 0));
    emit(writer, 11);
    calls("run by the other view", runner);
    emit(writer, 12);
    calls("after a rewrite", runner);
    calls("the writable view", writer);
    writes("write by the executable view", runner, 1);
    char *private_view = mapped("private executable of a file", mmap(NULL, PAGE, RX, MAP_PRIVATE, fd, 0));
    calls("runs", private_view);
    static unsigned char in_data[64];
    emit(in_data, 1);
    calls("in data", in_data);
    unsigned char in_stack[64];
    emit(in_stack, 1);
    calls("in the stack", in_stack);
    unsigned char *in_heap = malloc(64);
    emit(in_heap, 1);
    calls("in the heap", in_heap);
    free(in_heap);
    calls("address 16", wild());
    char *ud = pages(1, RW);
    ud[0] = 0x0f, ud[1] = 0x0b;
    mprotect(ud, PAGE, RX);
    calls("ud2 in made code", ud);
    ud = pages(1, RW);
    memset(ud, 0x90, PAGE);
    mprotect(ud, PAGE, RX);
    char *before = ud;
    char *guarded = pages(2, RW);
    memset(guarded, 0x90, PAGE);
    mprotect(guarded, PAGE, RX), mprotect(guarded + PAGE, PAGE, PROT_NONE);
    if (sigsetjmp(fault_return, 1) == 0)
        value("not reached", run(guarded));
    fault_show("running off the end", guarded + PAGE);
    reads("code is readable", before);
}

struct shared {
    char *code;
    volatile int stop;
    volatile long wrong;
};

static void *keep_calling(void *argument) {
    struct shared *shared = argument;
    while (!shared->stop)
        if (run(shared->code) != 99)
            shared->wrong++;
    return NULL;
}

/* One thread runs a page while another toggles the page behind it: the first must not notice. */
static void beside_a_toggle(void) {
    char *at = pages(2, RW);
    emit(at, 99);
    mprotect(at, PAGE, RX);
    struct shared shared = {.code = at};
    pthread_t thread;
    need("thread", pthread_create(&thread, NULL, keep_calling, &shared) ? -1 : 0);
    long sum = 0;
    for (int i = 0; i < 200; i++) {
        mprotect(at + PAGE, PAGE, RW);
        emit(at + PAGE, i);
        mprotect(at + PAGE, PAGE, RX);
        sum += run(at + PAGE);
    }
    shared.stop = 1;
    pthread_join(thread, NULL);
    value("made beside a running thread", sum);
    value("wrong results there", shared.wrong);
}

int main(void) {
    faults_begin();
    toggling();
    in_place();
    sources();
    beside_a_toggle();
    return 0;
}
