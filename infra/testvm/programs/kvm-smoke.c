/*
 * Does this machine's KVM run guests as stock KVM does? Three small guests, each a VM of its own, printed as `name ok` lines; the first
 * failure ends the program with 1. Structures and calls: Documentation/virt/kvm/api.rst.
 *
 * real: 16-bit code without paging adds two numbers and gives the sum by `out`.
 * long: 64-bit code at CPL 0, where HOST.md's kvm_pvm has only an interpreter: page tables, an SSE2 sum, cmpxchg16b, `hlt`.
 * syscall: 64-bit code at CPL 3 does `syscall`; the processor itself must come to LSTAR with CPL 0.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define MEMORY_BYTES (2u << 20)
#define PAGE_TABLES 0x1000u
#define CODE 0x10000u
#define KERNEL_CODE 0x11000u
#define STACK_TOP 0x20000u

enum { CR0_PE = 1, CR0_MP = 2, CR0_WP = 1 << 16 };
static const uint64_t CR0_PG = 1ull << 31, CR4_PAE = 1 << 5, CR4_OSFXSR = 1 << 9;
static const uint64_t EFER_SCE = 1, EFER_LME = 1 << 8, EFER_LMA = 1 << 10;
static const uint64_t PTE_PRESENT_WRITE_USER = 7, PDE_LARGE = 1 << 7;
enum { MSR_STAR = 0xc0000081, MSR_LSTAR = 0xc0000082, MSR_SFMASK = 0xc0000084 };

struct guest {
  int vm, vcpu;
  uint8_t *memory;
  struct kvm_run *run;
};

static struct guest new_guest(int kvm) {
  struct guest guest;
  guest.vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (guest.vm < 0) err(1, "KVM_CREATE_VM");
  guest.memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (guest.memory == MAP_FAILED) err(1, "mmap of guest memory");
  struct kvm_userspace_memory_region region = {
      .memory_size = MEMORY_BYTES, .userspace_addr = (uintptr_t)guest.memory};
  if (ioctl(guest.vm, KVM_SET_USER_MEMORY_REGION, &region) < 0) err(1, "KVM_SET_USER_MEMORY_REGION");
  guest.vcpu = ioctl(guest.vm, KVM_CREATE_VCPU, 0);
  if (guest.vcpu < 0) err(1, "KVM_CREATE_VCPU");
  int bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (bytes < (int)sizeof *guest.run) err(1, "KVM_GET_VCPU_MMAP_SIZE");
  guest.run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, guest.vcpu, 0);
  if (guest.run == MAP_FAILED) err(1, "mmap of kvm_run");

  struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[128]; } cpuid = {.head.nent = 128};
  if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) < 0) err(1, "KVM_GET_SUPPORTED_CPUID");
  if (ioctl(guest.vcpu, KVM_SET_CPUID2, &cpuid) < 0) err(1, "KVM_SET_CPUID2");
  return guest;
}

/* 64-bit mode with the first 2 MiB mapped one to one for all rings, at `code` with privilege `cpl`. */
static void enter_long_mode(struct guest guest, unsigned cpl) {
  uint64_t *tables = (uint64_t *)(guest.memory + PAGE_TABLES);
  tables[0] = (PAGE_TABLES + 0x1000) | PTE_PRESENT_WRITE_USER;
  tables[512] = (PAGE_TABLES + 0x2000) | PTE_PRESENT_WRITE_USER;
  tables[1024] = PTE_PRESENT_WRITE_USER | PDE_LARGE;

  struct kvm_sregs sregs;
  if (ioctl(guest.vcpu, KVM_GET_SREGS, &sregs) < 0) err(1, "KVM_GET_SREGS");
  sregs.cr3 = PAGE_TABLES;
  sregs.cr4 = CR4_PAE | CR4_OSFXSR;
  sregs.cr0 = CR0_PE | CR0_MP | CR0_WP | CR0_PG;
  sregs.efer = EFER_SCE | EFER_LME | EFER_LMA;
  struct kvm_segment code = {.limit = 0xffffffff, .selector = (uint16_t)(0x8 | cpl), .present = 1,
                             .type = 11, .dpl = (uint8_t)cpl, .s = 1, .l = 1, .g = 1};
  struct kvm_segment data = code;
  data.selector = (uint16_t)(0x10 | cpl), data.type = 3, data.l = 0, data.db = 1;
  sregs.cs = code;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  if (ioctl(guest.vcpu, KVM_SET_SREGS, &sregs) < 0) err(1, "KVM_SET_SREGS");
  struct kvm_regs regs = {.rip = CODE, .rsp = STACK_TOP, .rflags = 2, .rax = 40, .rbx = 2};
  if (ioctl(guest.vcpu, KVM_SET_REGS, &regs) < 0) err(1, "KVM_SET_REGS");
}

static struct kvm_regs run_until(struct guest guest, const char *name, uint32_t reason) {
  if (ioctl(guest.vcpu, KVM_RUN, 0) < 0) err(1, "%s: KVM_RUN", name);
  struct kvm_regs regs;
  if (ioctl(guest.vcpu, KVM_GET_REGS, &regs) < 0) err(1, "KVM_GET_REGS");
  if (guest.run->exit_reason != reason)
    errx(1, "%s: exit reason %u at rip %#llx, wanted %u", name, guest.run->exit_reason,
         (unsigned long long)regs.rip, reason);
  return regs;
}

static void real_mode(int kvm) {
  static const uint8_t code[] = {
      0x01, 0xd8,       /* add ax, bx */
      0xba, 0xe9, 0x00, /* mov dx, 0xe9 */
      0xef,             /* out dx, ax */
      0xf4,             /* hlt */
  };
  struct guest guest = new_guest(kvm);
  memcpy(guest.memory + CODE, code, sizeof code);
  struct kvm_sregs sregs;
  if (ioctl(guest.vcpu, KVM_GET_SREGS, &sregs) < 0) err(1, "KVM_GET_SREGS");
  sregs.cs.base = CODE, sregs.cs.selector = CODE >> 4;
  if (ioctl(guest.vcpu, KVM_SET_SREGS, &sregs) < 0) err(1, "KVM_SET_SREGS");
  struct kvm_regs regs = {.rip = 0, .rflags = 2, .rax = 40, .rbx = 2};
  if (ioctl(guest.vcpu, KVM_SET_REGS, &regs) < 0) err(1, "KVM_SET_REGS");
  run_until(guest, "real", KVM_EXIT_IO);
  uint16_t sum;
  memcpy(&sum, (uint8_t *)guest.run + guest.run->io.data_offset, sizeof sum);
  if (guest.run->io.port != 0xe9 || sum != 42)
    errx(1, "real: port %#x value %u", guest.run->io.port, sum);
  run_until(guest, "real", KVM_EXIT_HLT);
  puts("real ok");
}

static void long_mode(int kvm) {
  static const uint8_t code[] = {
      0x66, 0x48, 0x0f, 0x6e, 0xc0,             /* movq xmm0, rax */
      0x66, 0x48, 0x0f, 0x6e, 0xcb,             /* movq xmm1, rbx */
      0x66, 0x0f, 0xd4, 0xc1,                   /* paddq xmm0, xmm1 */
      0x66, 0x48, 0x0f, 0x7e, 0xc3,             /* movq rbx, xmm0: the new low half */
      0x31, 0xc0, 0x31, 0xd2, 0x31, 0xc9,       /* xor eax,eax; xor edx,edx; xor ecx,ecx */
      0xf0, 0x48, 0x0f, 0xc7, 0x0c, 0x25, 0, 0, 3, 0, /* lock cmpxchg16b [0x30000] */
      0x48, 0x8b, 0x04, 0x25, 0, 0, 3, 0,       /* mov rax, [0x30000] */
      0xf4,                                     /* hlt */
  };
  struct guest guest = new_guest(kvm);
  memcpy(guest.memory + CODE, code, sizeof code);
  enter_long_mode(guest, 0);
  struct kvm_regs regs = run_until(guest, "long", KVM_EXIT_HLT);
  if (regs.rax != 42) errx(1, "long: rax is %llu", (unsigned long long)regs.rax);
  puts("long ok");
}

static void syscall_at_cpl3(int kvm) {
  static const uint8_t user[] = {0x0f, 0x05};   /* syscall */
  static const uint8_t kernel[] = {
      0x8c, 0xc8,                               /* mov eax, cs */
      0xf4,                                     /* hlt, allowed at CPL 0 alone */
  };
  struct guest guest = new_guest(kvm);
  memcpy(guest.memory + CODE, user, sizeof user);
  memcpy(guest.memory + KERNEL_CODE, kernel, sizeof kernel);
  enter_long_mode(guest, 3);
  struct { struct kvm_msrs head; struct kvm_msr_entry entries[3]; } msrs = {
      .head.nmsrs = 3,
      .entries = {{.index = MSR_STAR, .data = 0x0008ull << 32},
                  {.index = MSR_LSTAR, .data = KERNEL_CODE},
                  {.index = MSR_SFMASK, .data = 0}}};
  if (ioctl(guest.vcpu, KVM_SET_MSRS, &msrs) != 3) err(1, "KVM_SET_MSRS");
  struct kvm_regs regs = run_until(guest, "syscall", KVM_EXIT_HLT);
  if (regs.rax != 0x8 || regs.rcx != CODE + sizeof user)
    errx(1, "syscall: cs %#llx rcx %#llx", (unsigned long long)regs.rax, (unsigned long long)regs.rcx);
  puts("syscall ok");
}

int main(void) {
  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) err(1, "/dev/kvm");
  int version = ioctl(kvm, KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION) errx(1, "KVM API version %d, wanted %d", version, KVM_API_VERSION);
  real_mode(kvm);
  long_mode(kvm);
  syscall_at_cpl3(kvm);
  return 0;
}
