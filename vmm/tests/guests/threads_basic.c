/* POSIX threads: create and join, results, thread-local storage, keys, once, detach, attributes, stacks, exit orders. */
#include "guests.h"
#include <pthread.h>
#include <semaphore.h>

static _Thread_local int zeroed_local;
static _Thread_local int local = 41;
static _Thread_local char large_local[20000] = "initial";

static void *twice(void *argument) { return (void *)((intptr_t)argument * 2); }

static void *locals(void *argument) {
    local += (int)(intptr_t)argument;
    zeroed_local += local;
    large_local[19999] = (char)local;
    for (int i = 0; i < 50; i++)
        sched_yield();
    int right = local == 41 + (int)(intptr_t)argument && zeroed_local == local && large_local[19999] == (char)local && !strcmp(large_local, "initial");
    return (void *)(intptr_t)right;
}

static void many(void) {
    long sum = 0;
    void *result;
    for (long i = 0; i < 100; i++) {
        pthread_t thread;
        need("thread", pthread_create(&thread, NULL, twice, (void *)i) ? -1 : 0);
        pthread_join(thread, &result);
        sum += (long)result;
    }
    value("100 one after another", sum);
    pthread_t threads[100];
    for (long i = 0; i < 100; i++)
        need("thread", pthread_create(&threads[i], NULL, locals, (void *)i) ? -1 : 0);
    sum = 0;
    for (long i = 0; i < 100; i++) {
        pthread_join(threads[i], &result);
        sum += (long)result;
    }
    value("100 at once with their own locals", sum);
    text("locals of the first thread", "%d %d %s", local, zeroed_local, large_local);
}

static pthread_key_t key;
static int destroyed;

static void destroy(void *held) {
    destroyed += *(int *)held;
    if (*(int *)held == 1) {
        static int again = 10;
        pthread_setspecific(key, &again);
    }
}

static void *specific(void *argument) {
    holds("a key starts empty", pthread_getspecific(key) == NULL);
    pthread_setspecific(key, argument);
    holds("a key holds", pthread_getspecific(key) == argument);
    pthread_exit((void *)7);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_count;
static void count_once(void) { once_count++; }

static void *run_once(void *argument) {
    pthread_once(&once, count_once);
    return argument;
}

static void keys(void) {
    int one = 1;
    void *result;
    pthread_t thread, threads[8];
    returned("key_create", pthread_key_create(&key, destroy));
    pthread_create(&thread, NULL, specific, &one);
    returned("join", pthread_join(thread, &result));
    value("result by pthread_exit", (long)result);
    value("destructor ran twice, since it set the key again", destroyed);
    returned("key_delete", pthread_key_delete(key));
    returned("key_delete again", pthread_key_delete(key));
    returned("setspecific of a deleted key", pthread_setspecific(key, &one));
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, run_once, NULL);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    value("once", once_count);
}

static sem_t detached_done, detached_go;

static void *detached(void *argument) {
    (void)argument;
    pthread_detach(pthread_self());
    sem_wait(&detached_go);
    sem_post(&detached_done);
    return NULL;
}

static void *join_self(void *argument) {
    (void)argument;
    return (void *)(intptr_t)pthread_join(pthread_self(), NULL);
}

static void *wait_for(void *semaphore) {
    sem_wait(semaphore);
    return NULL;
}

static void attributes(void) {
    pthread_attr_t attr;
    pthread_t thread;
    void *stack;
    size_t size, guard;
    sem_init(&detached_done, 0, 0), sem_init(&detached_go, 0, 0);
    pthread_attr_init(&attr);
    returned("detached from the start", pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED));
    pthread_create(&thread, &attr, detached, NULL);
    returned("join of a detached one", pthread_join(thread, NULL));
    sem_post(&detached_go), sem_wait(&detached_done);
    pthread_create(&thread, NULL, detached, NULL);
    sem_post(&detached_go), sem_wait(&detached_done);
    text("both detached ones ran", "yes");
    returned("too small a stack", pthread_attr_setstacksize(&attr, 100));
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 1 << 20), pthread_attr_setguardsize(&attr, 8192);
    // It must still be there when it is asked about.
    sem_t asked;
    sem_init(&asked, 0, 0);
    pthread_create(&thread, &attr, wait_for, &asked);
    pthread_attr_t real;
    returned("getattr_np", pthread_getattr_np(thread, &real));
    pthread_attr_getstack(&real, &stack, &size), pthread_attr_getguardsize(&real, &guard);
    text("stack and guard", "%zu %zu", size >> 20, guard);
    sem_post(&asked), pthread_join(thread, NULL);
    returned("getattr_np of the first thread", pthread_getattr_np(pthread_self(), &real));
    pthread_attr_getstack(&real, &stack, &size);
    holds("its stack holds this variable", (char *)&real >= (char *)stack && (char *)&real < (char *)stack + size);
    static char own[256 << 10] __attribute__((aligned(4096)));
    pthread_attr_init(&attr);
    returned("a stack of one's own", pthread_attr_setstack(&attr, own, sizeof own));
    pthread_create(&thread, &attr, twice, (void *)21);
    void *result;
    pthread_join(thread, &result);
    value("ran on it", (long)result);
    pthread_create(&thread, NULL, join_self, NULL);
    pthread_join(thread, &result);
    returned("join of oneself", (int)(intptr_t)result);
    pthread_create(&thread, NULL, twice, NULL);
    while (pthread_tryjoin_np(thread, NULL) == EBUSY)
        sched_yield();
    text("tryjoin", "ok");
    sem_t never;
    sem_init(&never, 0, 0);
    pthread_create(&thread, NULL, wait_for, &never);
    returned("tryjoin of a running one", pthread_tryjoin_np(thread, NULL));
    struct timespec soon;
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_nsec = (soon.tv_nsec + 5000000) % 1000000000, soon.tv_sec += soon.tv_nsec < 5000000;
    returned("timedjoin of a running one", pthread_timedjoin_np(thread, NULL, &soon));
    sem_post(&never);
    returned("then it ends", pthread_join(thread, NULL));
}

static volatile pid_t other_thread;

static void *identity(void *argument) {
    other_thread = thread_id();
    pthread_setname_np(pthread_self(), "a-guest-thread");
    char name[16];
    pthread_getname_np(pthread_self(), name, sizeof name);
    text("name of the thread", "%s", name);
    holds("same process", getpid() == *(pid_t *)argument);
    return NULL;
}

static void identities(void) {
    static int cleared;
    pid_t pid = getpid();
    holds("first thread's id is the process's", thread_id() == pid);
    pthread_t thread;
    pthread_create(&thread, NULL, identity, &pid);
    pthread_join(thread, NULL);
    holds("another thread has another id", other_thread != pid && other_thread > 0);
    returned("name too long", pthread_setname_np(pthread_self(), "sixteen letters!"));
    while (syscall(SYS_tgkill, pid, other_thread, 0) == 0)
        brief_rest(); /* a join may return a moment before the thread is gone */
    value("signal 0 to the thread that ended", syscall(SYS_tgkill, pid, other_thread, 0));
    value("signal 0 to this one", syscall(SYS_tgkill, pid, pid, 0));
    value("set_tid_address gives the id", syscall(SYS_set_tid_address, &cleared) == pid);
}

static void say(void *line) { puts(line); }

static void *cleaned(void *argument) {
    pthread_cleanup_push(say, "cleanup outer");
    pthread_cleanup_push(say, "cleanup inner");
    if (argument)
        pthread_exit(argument);
    pthread_cleanup_pop(1);
    pthread_cleanup_pop(0);
    return NULL;
}

int main(void) {
    many();
    keys();
    attributes();
    identities();
    pthread_t thread;
    pthread_create(&thread, NULL, cleaned, "x");
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, cleaned, NULL);
    pthread_join(thread, NULL);
    return 0;
}
