// What only a kernel may do to a processor, and what no program should: instructions, ports, holes in memory.
#include "hostile.h"

// Nothing here changes the mask of signals, so none is saved: a fault costs no system call.
#undef FAULTS
#define FAULTS(...) FAULTS_WITH(0, __VA_ARGS__)

// By which the stub page leaves.
#define STUB_PORT 0x50

#define PRIVILEGED(text) MUST(FAULTS(__asm__ volatile(text ::: "memory", "rax", "rcx", "rdx", "rbx")) != 0)
#define ANY(text) FAULTS(__asm__ volatile(text ::: "memory", "rax", "rcx", "rdx", "rbx"))

static void ports(void) {
    for (int port = 0; port < 65536; port++) {
        if (port == STUB_PORT) continue;
        MUST(FAULTS(__asm__ volatile("outb %%al, %%dx" ::"a"(0), "d"(port))) == SIGSEGV);
        MUST(FAULTS(__asm__ volatile("inb %%dx, %%al" ::"a"(0), "d"(port))) == SIGSEGV);
    }
    // The processor lets these through.
    MUST(FAULTS(__asm__ volatile("outb %%al, %%dx" ::"a"(0), "d"(STUB_PORT))) == SIGSEGV);
    MUST(FAULTS(__asm__ volatile("inb %%dx, %%al" ::"a"(0), "d"(STUB_PORT))) == SIGSEGV);
    // Two and four bytes reach into the neighbours of a port.
    for (unsigned port = 0x48; port < 0x58; port++) {
        MUST(FAULTS(__asm__ volatile("outl %0, %w1" ::"a"(0), "d"(port))) == SIGSEGV);
        MUST(FAULTS(__asm__ volatile("outw %w0, %w1" ::"a"(0), "d"(port))) == SIGSEGV);
        char word[64];
        FAULTS(__asm__ volatile("movq %0, %%rsi; movl $4, %%ecx; rep outsb" ::"r"(word), "d"(port) : "rcx", "rsi", "rax", "r11"));
        FAULTS(__asm__ volatile("movq %0, %%rdi; movl $4, %%ecx; rep insb" ::"r"(word), "d"(port) : "rcx", "rdi", "rax", "r11", "memory"));
    }
}

// What the stub page does, done elsewhere.
static long by_port(long number, long argument) {
    long result;
    __asm__ volatile("leaq 1f(%%rip), %%rcx; pushfq; popq %%r11; outb %%al, $0x50; 1:" : "=a"(result) : "a"(number), "D"(argument) : "rcx", "r11", "memory");
    return result;
}

static void instructions(void) {
    PRIVILEGED("hlt");
    PRIVILEGED("cli");
    PRIVILEGED("sti");
    PRIVILEGED("clts");
    PRIVILEGED("invd");
    PRIVILEGED("wbinvd");
    PRIVILEGED("movq %%cr0, %%rax");
    PRIVILEGED("movq %%rax, %%cr0");
    PRIVILEGED("movq %%cr2, %%rax");
    PRIVILEGED("movq %%cr3, %%rax");
    PRIVILEGED("movq %%rax, %%cr3");
    PRIVILEGED("movq %%cr4, %%rax");
    PRIVILEGED("movq %%cr8, %%rax");
    PRIVILEGED("movq %%dr0, %%rax");
    PRIVILEGED("movq %%rax, %%dr7");
    PRIVILEGED("xorl %%ecx, %%ecx; rdmsr");
    PRIVILEGED("movl $0xc0000082, %%ecx; xorl %%eax, %%eax; xorl %%edx, %%edx; wrmsr");
    PRIVILEGED("movl $0xc0000101, %%ecx; wrmsr");
    PRIVILEGED("xorl %%ecx, %%ecx; movl $7, %%eax; xorl %%edx, %%edx; xsetbv");
    PRIVILEGED("invlpg (%%rsp)");
    PRIVILEGED("lgdt -16(%%rsp)");
    PRIVILEGED("lidt -16(%%rsp)");
    PRIVILEGED("lldt %%ax");
    PRIVILEGED("ltr %%ax");
    PRIVILEGED("lmsw %%ax");
    PRIVILEGED("swapgs");
    PRIVILEGED("sysretq");
    PRIVILEGED("sysretl");
    PRIVILEGED("sysexit");
    PRIVILEGED("rsm");
    PRIVILEGED("ud2");
    PRIVILEGED(".byte 0x0f, 0xff, 0xc0"); // ud0
    PRIVILEGED("vmxoff");
    PRIVILEGED("vmlaunch");
    PRIVILEGED("vmresume");
    PRIVILEGED("vmptrld -64(%%rsp)");
    PRIVILEGED("vmrun");
    PRIVILEGED("vmload");
    PRIVILEGED("vmsave");
    PRIVILEGED("stgi");
    PRIVILEGED("clgi");
    PRIVILEGED("skinit");
    PRIVILEGED("monitor");
    PRIVILEGED("mwait");
    // These may be let through, refused or unknown, by the processor's age and kind.
    ANY("vmcall");
    ANY("vmmcall");
    for (long number = 0; number < 64; number++) {
        long answer = number;
        FAULTS(__asm__ volatile("vmmcall" : "+a"(answer) : "b"(-1L), "c"(-1L), "d"(-1L), "S"(-1L) : "memory"));
        FAULTS(__asm__ volatile("vmcall" : "+a"(answer) : "b"(-1L), "c"(-1L), "d"(-1L), "S"(-1L) : "memory"));
    }
    ANY("sgdt -64(%%rsp)");
    ANY("sidt -64(%%rsp)");
    ANY("sldt %%eax");
    ANY("str %%eax");
    ANY("smsw %%eax");
    ANY("xorl %%ecx, %%ecx; rdpmc");
    ANY("rdtscp");
    ANY("rdpid %%rax");
    ANY("clflush (%%rsp)");
    ANY("pause");
    ANY("xorl %%eax, %%eax; xorl %%ecx, %%ecx; umonitor %%rax");
    ANY("xorl %%eax, %%eax; xorl %%edx, %%edx; tpause %%ecx");
    ANY("enqcmd (%%rax), %%rax");
    ANY("wrpkru");
    ANY("rdpkru");
    ANY("sysenter");
    for (int segment = 0; segment < 65536; segment += segment < 128 ? 1 : 1021) {
        FAULTS(__asm__ volatile("movw %w0, %%ds; movw %w1, %%ds" ::"r"(segment), "r"(0)));
        FAULTS(__asm__ volatile("movw %w0, %%es; movw %w1, %%es" ::"r"(segment), "r"(0)));
        FAULTS(__asm__ volatile("larl %0, %0; lsll %0, %0; verr %w0; verw %w0" ::"r"(segment) : "cc"));
        // Null and user data selectors are allowed, and the stack goes on working.
        FAULTS(__asm__ volatile("movw %w0, %%ss" ::"r"(segment)));
    }
    for (int flags = 0; flags < 2; flags++)
        for (int bit = 0; bit < 64; bit++) {
            // The trap flag traps, alignment checks may; all others are kept from user code or harmless.
            FAULTS(__asm__ volatile("pushfq; xorq %0, (%%rsp); popfq; nop; nop" ::"r"(1ULL << bit) : "cc", "memory"));
            __asm__ volatile("pushq $0x202; popfq" ::: "cc", "memory");
        }
}

static void interrupts(void) {
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int vector = 0; vector < 256; vector++) {
        code[0] = 0xcd, code[1] = vector, code[2] = 0xc3; // int n; ret. The code modifies itself, too.
        // SIGSEGV on stock KVM; kvm_pvm knows most of them not at all (SIGILL), and lets one pass.
        FAULTS(((void (*)(void))code)());
    }
    // Any bytes at all, as code.
    for (int round = 0; round < 3000; round++) {
        for (int i = 0; i < 64; i += 8) memcpy(code + i, &(uint64_t){random_number()}, 8);
        memset(code + 64, 0xcc, 64);
        // Neither system calls nor jumps away, which might end this program in good order.
        for (int i = 0; i < 64; i++)
            if (code[i] == 0x0f || code[i] == 0xcd || code[i] == 0xe6 || code[i] == 0xee || code[i] == 0xeb || code[i] == 0xe9 || code[i] == 0xe8 || (code[i] & 0xf0) == 0x70 || (code[i] & 0xfc) == 0xe0) code[i] = 0x90;
        char room[4096];
        char *middle = room + 2048;
        FAULTS(__asm__ volatile("movq %%rsp, %%r12; xorl %%eax, %%eax; movl %%eax, %%ecx; movl %%eax, %%edx; movl %%eax, %%ebx; movl %%eax, %%ebp; callq *%0; movq %%r12, %%rsp"
                                ::"r"(code), "S"(middle), "D"(middle) : "memory", "rax", "rcx", "rdx", "rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc"));
        __asm__ volatile("pushq $0x202; popfq; cld" ::: "cc", "memory");
    }
    munmap(code, 4096);
}

// With no register that leads to memory of this program, but the stack pointer.
static __attribute__((noinline)) void run_alone(uint64_t code) {
    static uint64_t stack;
    __asm__ volatile("subq $256, %%rsp; pushq %%rbp; movq %%rsp, %1; xorl %%ebp, %%ebp; xorl %%ecx, %%ecx; xorl %%edi, %%edi; movl $8, %%esi; xorl %%r8d, %%r8d\n"
                     "xorl %%r9d, %%r9d; xorl %%r10d, %%r10d; xorl %%r11d, %%r11d; xorl %%r12d, %%r12d; xorl %%r13d, %%r13d; xorl %%r14d, %%r14d\n"
                     "xorl %%r15d, %%r15d; movl $1, %%edx; callq *%%rbx; movq %1, %%rsp; popq %%rbp; addq $256, %%rsp; cld"
                     : "+b"(code), "+m"(stack) : "a"(-1L) : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
}

static void holes(void) {
    volatile char *at[] = {(char *)8, (char *)4096, (char *)STUB_PAGE + 4096, (char *)STUB_PAGE + 8192, (char *)STUB_PAGE + 3 * 4096,
                           (char *)STUB_PAGE + 9 * 4096, (char *)STUB_PAGE + (64 << 20) - 1, (char *)STUB_PAGE + (64 << 20), (char *)0xfee00000, (char *)0xfec00000, (char *)0xa0000,
                           (char *)0xe0000000, (char *)(1ULL << 40), (char *)((1ULL << 47) - 8), (char *)(1ULL << 47), (char *)(1ULL << 63), (char *)-8};
    for (unsigned i = 0; i < sizeof at / sizeof *at; i++) {
        volatile char *place = at[i];
        MUST(FAULTS(*place = 1) == SIGSEGV);
        MUST(FAULTS(*place) == SIGSEGV);
        MUST(FAULTS(((void (*)(void))place)()) == SIGSEGV);
        MUST(FAULTS(__asm__ volatile("lock incq (%0)" ::"r"(place) : "memory")) == SIGSEGV);
        MUST(FAULTS(__asm__ volatile("movq %0, %%rdi; movl $4096, %%ecx; rep stosb" ::"r"(place), "a"(0) : "rcx", "rdi", "memory")) == SIGSEGV);
        MUST(FAULTS(__asm__ volatile("pushq %0; popq %%rsp; pushq %%rax" ::"r"(place) : "memory")) != 0);
    }
    // The stub page itself may be read and run, never written.
    MUST(FAULTS(*(volatile char *)STUB_PAGE = 1) == SIGSEGV);
    MUST(FAULTS(__asm__ volatile("lock incq (%0)" ::"r"(STUB_PAGE) : "memory")) == SIGSEGV);
    // So may what the code in it reads.
    MUST(FAULTS(*(volatile char *)STUB_PAGE) == 0 && FAULTS(*(volatile char *)(STUB_PAGE + 4 * 4096)) == 0);
    for (int page = 4; page < 7; page++) {
        MUST(FAULTS(*(volatile char *)(STUB_PAGE + page * 4096) = 1) == SIGSEGV);
        MUST(FAULTS(((void (*)(void))(STUB_PAGE + page * 4096))()) == SIGSEGV);
    }
    // And what it writes may be written, never run.
    volatile char *words = (char *)STUB_PAGE + 7 * 4096;
    for (int at = 0; at < 4096; at++)
        MUST(FAULTS(words[at] = 1) == 0 && FAULTS(words[at]) == 0);
    MUST(FAULTS(((void (*)(void))words)()) == SIGSEGV);
    // It holds a system call as well, so with the number of none. Behind that lies code that a program may run from anywhere, to no other end than its own.
    for (int offset = 64; offset < 64 + 2048; offset++)
        FAULTS(run_alone(STUB_PAGE + offset));
    // Also where a thread has put registers aside, whatever those are.
    for (int at = 0; at < 4096; at++)
        words[at] = 0;
    for (int offset = 64; offset < 64 + 2048; offset++)
        FAULTS(run_alone(STUB_PAGE + offset));
    // The rest traps.
    for (int offset = 2; offset < 4096; offset = offset == 63 ? 64 + 2048 : offset + 1)
        MUST(FAULTS(__asm__ volatile("callq *%0" ::"r"(STUB_PAGE + offset), "a"(-1L), "S"(8L), "d"(1L) : "memory", "rcx", "r11", "cc")) != 0);
    MUST(syscall(SYS_mprotect, STUB_PAGE, 4096L, 7L) == -1 && syscall(SYS_munmap, STUB_PAGE, 4096L) == -1);
    MUST(syscall(SYS_write, 1, STUB_PAGE + 4096, 8L) == -1 && errno == EFAULT);
    MUST(syscall(SYS_read, open("/dev/zero", O_RDONLY), STUB_PAGE, 8L) == -1 && errno == EFAULT);
}

int main(void) {
    catch_faults();
    ports();
    MUST(FAULTS(by_port(SYS_getpid, 0)) == SIGSEGV);
    instructions();
    interrupts();
    holes();
    return still_here();
}
