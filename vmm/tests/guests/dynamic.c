/* Dynamic loading: dlopen, dlsym, dladdr, dl_iterate_phdr, refusals, constructors and destructors in order. Dynamic only: not for -static. */
#include "guests.h"
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

__attribute__((constructor(101))) static void first(void) { write(1, "constructor 101\n", 16) < 0 ? abort() : (void)0; }
__attribute__((constructor(102))) static void second(void) { write(1, "constructor 102\n", 16) < 0 ? abort() : (void)0; }
__attribute__((constructor)) static void plain(void) { write(1, "constructor without a number\n", 29) < 0 ? abort() : (void)0; }
__attribute__((destructor(101))) static void last(void) { puts("destructor 101"); }
__attribute__((destructor(102))) static void before_last(void) { puts("destructor 102"); }
static void at_exit(void) { puts("atexit comes before destructors"); }

static int count_objects(struct dl_phdr_info *info, size_t size, void *count) {
    (void)size;
    ++*(int *)count;
    if (*info->dlpi_name && !strstr(info->dlpi_name, ".so"))
        *(int *)count += 1000;
    return 0;
}

static int objects(void) {
    int count = 0;
    dl_iterate_phdr(count_objects, &count);
    return count;
}

/* ISO C has no cast from a data to a function pointer. */
static double call(void *symbol, double argument) {
    double (*function)(double);
    memcpy(&function, &symbol, sizeof function);
    return function(argument);
}

static void *opening(void *argument) {
    void *handle = dlopen("libm.so.6", RTLD_NOW);
    void *symbol = handle ? dlsym(handle, argument) : NULL;
    double got = symbol ? call(symbol, 16) : -1;
    return (void *)(intptr_t)(int)got;
}

int main(void) {
    atexit(at_exit);
    int before = objects();
    holds("libm is not there yet", dlopen("libm.so.6", RTLD_NOLOAD | RTLD_NOW) == NULL);
    void *math = dlopen("libm.so.6", RTLD_LAZY);
    holds("dlopen", math != NULL);
    value("objects more", objects() - before);
    void *root = dlsym(math, "sqrt");
    holds("dlsym", root != NULL);
    text("sqrt(2)", "%.12f", call(root, 2));
    text("cos(1) by a second symbol", "%.12f", call(dlsym(math, "cos"), 1));
    holds("the same handle again", dlopen("libm.so.6", RTLD_NOW) == math);
    Dl_info info;
    holds("dladdr", dladdr(root, &info) && strstr(info.dli_fname, "libm.so.6"));
    holds("unknown symbol", dlsym(math, "no_such_symbol") == NULL && strstr(dlerror(), "no_such_symbol"));
    holds("dlerror is taken", dlerror() == NULL);
    holds("unknown library", dlopen("libno-such-thing.so", RTLD_NOW) == NULL);
    text("dlerror", "%s", dlerror());
    holds("a file that is no library", dlopen("/dev/null", RTLD_NOW) == NULL && dlerror());
    holds("symbol of the C library by default", dlsym(RTLD_DEFAULT, "printf") != NULL);
    holds("next one", dlsym(RTLD_NEXT, "malloc") != NULL);
    value("dlclose", dlclose(math));
    value("dlclose again", dlclose(math));
    holds("gone", dlopen("libm.so.6", RTLD_NOLOAD | RTLD_NOW) == NULL);
    for (int i = 0; i < 20; i++) {
        void *handle = dlopen("libm.so.6", RTLD_NOW);
        if (!handle || call(dlsym(handle, "floor"), 2.5) != 2 || dlclose(handle))
            text("round", "%d failed", i);
    }
    value("objects after 20 rounds", objects() - before);
    pthread_t threads[4];
    long sum = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, opening, "sqrt");
    for (int i = 0; i < 4; i++) {
        void *got;
        pthread_join(threads[i], &got);
        sum += (long)got;
    }
    value("4 threads load and call", sum);
    void *threads_library = dlopen("libresolv.so.2", RTLD_NOW | RTLD_LOCAL);
    holds("another library", threads_library != NULL);
    return 0;
}
