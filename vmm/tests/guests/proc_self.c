/* What runtimes read under /proc: self/maps, status, exe, fd, cmdline, stat, auxv, cpuinfo, meminfo, and what is not there. */
#include "guests.h"
#include <dirent.h>
#include <link.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>

static char content[1 << 17], command[16];
static const char *program;

static long slurp(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd == -1)
        return -1;
    long total = 0;
    for (long got; total < (long)sizeof content - 1 && (got = read(fd, content + total, sizeof content - 1 - (size_t)total)) > 0;)
        total += got;
    content[total] = 0;
    close(fd);
    return total;
}

/* The permissions of the mapping that holds this address, by /proc/self/maps. */
static const char *rights(const void *address) {
    static char found[8];
    need("maps", slurp("/proc/self/maps"));
    for (char *line = strtok(content, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx %7s", &from, &to, found) == 3 && (uintptr_t)address >= from && (uintptr_t)address < to)
            return found;
    }
    return "not there";
}

static int maps_name(const void *address, const char *name) {
    need("maps", slurp("/proc/self/maps"));
    for (char *line = strtok(content, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx", &from, &to) == 2 && (uintptr_t)address >= from && (uintptr_t)address < to)
            return strstr(line, name) != NULL;
    }
    return 0;
}

static void maps(void) {
    int local = 0;
    char *heap = sbrk(4096);
    holds("maps is readable", slurp("/proc/self/maps") > 100);
    text("the stack", "%s", rights(&local));
    holds("is named [stack]", maps_name(&local, "[stack]"));
    text("the heap", "%s", rights(heap));
    holds("is named [heap]", maps_name(heap, "[heap]"));
    text("this code", "%s", rights((void *)(uintptr_t)maps));
    char exe[4096] = {0};
    need("readlink", readlink("/proc/self/exe", exe, sizeof exe - 1));
    holds("names the program", maps_name((void *)(uintptr_t)maps, exe));
    holds("the vDSO is named", maps_name((void *)getauxval(AT_SYSINFO_EHDR), "[vdso]"));
    char *at = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    text("a new mapping", "%s", rights(at));
    mprotect(at + 4096, 4096, PROT_READ | PROT_EXEC);
    text("its middle", "%s", rights(at + 4096));
    text("its end", "%s", rights(at + 8192));
    mprotect(at + 8192, 4096, PROT_NONE);
    text("no rights", "%s", rights(at + 8192));
    munmap(at, 4096);
    text("unmapped", "%s", rights(at));
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    text("shared", "%s", rights(shared));
    need("maps", slurp("/proc/self/maps"));
    unsigned long last = 0, from, to;
    int sorted = 1;
    for (char *line = strtok(content, "\n"); line; line = strtok(NULL, "\n"))
        if (sscanf(line, "%lx-%lx", &from, &to) == 2)
            sorted &= from < to && from >= last, last = to;
    holds("sorted, without overlaps", sorted);
}

static const char *field(const char *path, const char *name) {
    static char result[256];
    need(path, slurp(path));
    size_t length = strlen(name);
    for (char *line = strtok(content, "\n"); line; line = strtok(NULL, "\n"))
        if (!strncmp(line, name, length) && line[length] == ':') {
            snprintf(result, sizeof result, "%s", line + length + 1 + strspn(line + length + 1, " \t"));
            return result;
        }
    return "absent";
}

static void *wait_here(void *argument) {
    pthread_mutex_lock(argument);
    pthread_mutex_unlock(argument);
    return NULL;
}

static void status(void) {
    /* Linux before 6.2 counts a thread's pages late, 64 at a time. */
    static char touched[1 << 20];
    for (size_t at = 0; at < sizeof touched; at += 4096)
        *(volatile char *)(touched + at) = 1;
    holds("Name", !strcmp(field("/proc/self/status", "Name"), command));
    holds("Pid", atoi(field("/proc/self/status", "Pid")) == getpid());
    holds("Tgid", atoi(field("/proc/self/status", "Tgid")) == getpid());
    holds("PPid", atoi(field("/proc/self/status", "PPid")) == getppid());
    holds("Uid", (uid_t)atol(field("/proc/self/status", "Uid")) == getuid());
    text("Threads", "%s", field("/proc/self/status", "Threads"));
    holds("VmRSS is between 100 kB and 1 GB", atol(field("/proc/self/status", "VmRSS")) > 100 && atol(field("/proc/self/status", "VmRSS")) < 1000000);
    holds("VmSize is not below VmRSS", atol(field("/proc/self/status", "VmSize")) >= atol(field("/proc/self/status", "VmRSS")));
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_t thread;
    pthread_mutex_lock(&mutex);
    pthread_create(&thread, NULL, wait_here, &mutex);
    text("Threads with one more", "%s", field("/proc/self/status", "Threads"));
    int tasks = 0;
    DIR *folder = opendir("/proc/self/task");
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        tasks += entry->d_name[0] != '.';
    value("entries of task", tasks);
    if (folder)
        closedir(folder);
    pthread_mutex_unlock(&mutex);
    pthread_join(thread, NULL);
    int pid = 0;
    char name[64] = "", state = '?';
    need("stat", slurp("/proc/self/stat"));
    holds("stat", sscanf(content, "%d (%63[^)]) %c", &pid, name, &state) == 3 && pid == getpid());
    text("name and state", "%d %c", !strcmp(name, command), state);
    int fields = 0;
    for (char *word = strtok(strrchr(content, ')') + 1, " "); word; word = strtok(NULL, " "))
        fields++;
    value("fields behind the name", fields);
    long pages = 0, resident = 0;
    need("statm", slurp("/proc/self/statm"));
    holds("statm", sscanf(content, "%ld %ld", &pages, &resident) == 2 && pages >= resident && resident > 10);
}

static void files(int count, char **arguments) {
    char path[64], target[4096] = {0};
    long length = need("cmdline", slurp("/proc/self/cmdline"));
    holds("cmdline is argv", count == 1 && length == (long)strlen(arguments[0]) + 1 && !strcmp(content, arguments[0]));
    holds("exe is an absolute path that opens", readlink("/proc/self/exe", target, sizeof target - 1) > 0 && target[0] == '/' && open(target, O_RDONLY) >= 0);
    holds("environ is readable", slurp("/proc/self/environ") >= 0);
    int fd = (int)need("open", open("/dev/null", O_WRONLY));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    memset(target, 0, sizeof target);
    need("readlink", readlink(path, target, sizeof target));
    text("fd of /dev/null", "%s", target);
    int ends[2];
    need("pipe", pipe(ends));
    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
    memset(target, 0, sizeof target);
    need("readlink", readlink(path, target, sizeof target));
    holds("fd of a pipe", !strncmp(target, "pipe:[", 6));
    struct stat by_name, by_fd;
    holds("stat through it", stat(path, &by_name) == 0 && fstat(ends[0], &by_fd) == 0 && by_name.st_ino == by_fd.st_ino);
    close(ends[0]), close(ends[1]);
    value("fd of a closed one", readlink(path, target, sizeof target));
    int seen = 0;
    DIR *folder = opendir("/proc/self/fd");
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        seen += atoi(entry->d_name) == fd;
    holds("fd lists it once", seen == 1);
    holds("/dev/fd is the same", access("/dev/fd", F_OK) == 0);
    snprintf(path, sizeof path, "/proc/%d/exe", getpid());
    holds("by the process's number", readlink(path, target, sizeof target) > 0);
    memset(target, 0, sizeof target);
    holds("/proc/self is the number", readlink("/proc/self", target, sizeof target) > 0 && atoi(target) == getpid());
    memset(target, 0, sizeof target);
    holds("cwd", readlink("/proc/self/cwd", target, sizeof target) > 0 && getcwd(content, sizeof content) && !strcmp(target, content));
    value("write to maps", open("/proc/self/maps", O_WRONLY | O_CREAT | O_EXCL, 0600));
    value("nothing there", open("/proc/self/nothing", O_RDONLY));
    value("no such process", open("/proc/1073741823/maps", O_RDONLY));
    value("mkdir", mkdir("/proc/self/x", 0700));
}

static void auxiliary(void) {
    long length = need("auxv", slurp("/proc/self/auxv"));
    const unsigned long *pairs = (void *)content;
    unsigned long entry = 0, page = 0, features = 0; /* glibc's getauxval(AT_HWCAP) gives bits of its own */
    for (long i = 0; i + 1 < length / 8 && pairs[i]; i += 2) {
        entry = pairs[i] == AT_ENTRY ? pairs[i + 1] : entry;
        page = pairs[i] == AT_PAGESZ ? pairs[i + 1] : page;
        features = pairs[i] == AT_HWCAP ? pairs[i + 1] : features;
    }
    holds("auxv file agrees with getauxval", entry && entry == getauxval(AT_ENTRY) && page == 4096);
    value("AT_PAGESZ", (long)getauxval(AT_PAGESZ));
    value("AT_CLKTCK", (long)getauxval(AT_CLKTCK));
    value("AT_SECURE", (long)getauxval(AT_SECURE));
    value("AT_PHENT", (long)getauxval(AT_PHENT));
    holds("AT_PHDR lies in memory", !strcmp(rights((void *)getauxval(AT_PHDR)), "r--p"));
    holds("AT_RANDOM", getauxval(AT_RANDOM) != 0);
    holds("AT_UID and AT_EUID", getauxval(AT_UID) == getuid() && getauxval(AT_EUID) == geteuid());
    text("AT_PLATFORM", "%s", (const char *)getauxval(AT_PLATFORM));
    holds("AT_EXECFN", getauxval(AT_EXECFN) && strlen((const char *)getauxval(AT_EXECFN)) > 0);
    holds("AT_HWCAP has SSE2", features >> 26 & 1);
}

static void machine(void) {
    holds("cpuinfo names processors", slurp("/proc/cpuinfo") > 0 && strstr(content, "processor") && strstr(content, "model name") && strstr(content, "flags"));
    holds("meminfo", atol(field("/proc/meminfo", "MemTotal")) > 1000);
    holds("MemAvailable is not above MemTotal", atol(field("/proc/meminfo", "MemAvailable")) <= atol(field("/proc/meminfo", "MemTotal")));
    double up = 0;
    need("uptime", slurp("/proc/uptime"));
    holds("uptime", sscanf(content, "%lf", &up) == 1 && up >= 0);
    holds("loadavg", slurp("/proc/loadavg") > 5);
    holds("version", slurp("/proc/version") > 5 && !strncmp(content, "Linux version ", 14));
    holds("stat has a cpu line", slurp("/proc/stat") > 5 && !strncmp(content, "cpu ", 4));
    holds("mounts has the root", slurp("/proc/self/mounts") > 5 && strstr(content, " / "));
    holds("cgroup is readable", slurp("/proc/self/cgroup") >= 0);
    holds("overcommit", slurp("/proc/sys/vm/overcommit_memory") > 0);
    holds("pid_max", slurp("/proc/sys/kernel/pid_max") > 0 && atoi(content) > 100);
    holds("somaxconn", slurp("/proc/sys/net/core/somaxconn") > 0 && atoi(content) > 0);
    holds("cpus online", slurp("/sys/devices/system/cpu/online") > 0 && content[0] == '0');
}

int main(int count, char **arguments) {
    program = strrchr(arguments[0], '/') ? strrchr(arguments[0], '/') + 1 : arguments[0];
    snprintf(command, sizeof command, "%s", program);
    long length = need("comm", slurp("/proc/self/comm"));
    holds("comm is the program's name, cut to 15 bytes", length == (long)strlen(command) + 1 && !strncmp(content, command, strlen(command)));
    maps();
    status();
    files(count, arguments);
    auxiliary();
    machine();
    return 0;
}
