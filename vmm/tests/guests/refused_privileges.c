/* What reaches for the machine: mounts, modules, raw ports, keys, tracing, clocks, other address families. Compared with .expected. */
#include "guests.h"
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>

int main(void) {
    char bytes[256] = {0};
    value("mount", syscall(SYS_mount, "none", "/tmp", "no-such-type", 0, NULL));
    value("umount2", syscall(SYS_umount2, "/no-such-mount", 0));
    value("pivot_root", syscall(SYS_pivot_root, "/no-such", "/no-such"));
    value("chroot", syscall(SYS_chroot, "/no-such"));
    value("fsopen", syscall(430, "no-such-type", 0));
    value("move_mount", syscall(429, -1, "", -1, "", 0));
    value("open_tree", syscall(428, -1, "no-such", 0));
    value("swapon", syscall(SYS_swapon, "/no-such", 0));
    value("init_module", syscall(SYS_init_module, bytes, 0, ""));
    value("finit_module", syscall(SYS_finit_module, -1, "", 0));
    value("delete_module", syscall(SYS_delete_module, "no_such_module", 0));
    value("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, ~0UL));
    value("reboot", syscall(SYS_reboot, 1, 2, 3, NULL));
    value("iopl", syscall(SYS_iopl, 4));
    value("ioperm", syscall(SYS_ioperm, 0x10000, 1, 1));
    value("modify_ldt", syscall(SYS_modify_ldt, 99, bytes, 0));
    value("bpf", syscall(SYS_bpf, 99, bytes, sizeof bytes));
    value("perf_event_open", syscall(SYS_perf_event_open, bytes, 0, -1, -1, 0xffff));
    value("userfaultfd", syscall(SYS_userfaultfd, 0x1000));
    value("io_uring_setup", syscall(SYS_io_uring_setup, 0, bytes));
    value("io_uring_enter", syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0));
    value("io_setup", syscall(SYS_io_setup, 0, bytes));
    value("add_key", syscall(SYS_add_key, "no-such", "x", NULL, 0, 0));
    value("request_key", syscall(SYS_request_key, "no-such", "x", NULL, 0));
    value("keyctl", syscall(SYS_keyctl, 9999, 0, 0, 0, 0));
    value("name_to_handle_at", syscall(SYS_name_to_handle_at, -1, "x", bytes, bytes, 0));
    value("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, bytes, 0));
    value("fanotify_init", syscall(SYS_fanotify_init, ~0U, 0));
    value("acct", syscall(SYS_acct, "/no-such"));
    value("quotactl", syscall(SYS_quotactl, 0x7fffff00, NULL, 0, NULL));
    value("syslog", syscall(SYS_syslog, 99, NULL, 0));
    value("landlock_create_ruleset", syscall(444, NULL, 0, 77));
    value("seccomp", syscall(SYS_seccomp, 99, 0, NULL));
    value("memfd_secret", syscall(447, ~0U));
    value("pkey_alloc", syscall(SYS_pkey_alloc, 77, 0));
    value("rseq", syscall(SYS_rseq, 1, 1, 1, 1));
    value("uselib", syscall(SYS_uselib, "/no-such"));
    value("lookup_dcookie", syscall(SYS_lookup_dcookie, 0, NULL, 0));
    uint32_t header[2] = {0x20080522, 0}, sets[6] = {~0U, ~0U, ~0U, ~0U, ~0U, ~0U};
    value("capget", syscall(SYS_capget, header, sets));
    text("capabilities", "%x %x %x", sets[0], sets[1], sets[2]);
    value("capset", syscall(SYS_capset, header, sets));
    value("raw socket", socket(AF_INET, SOCK_RAW, 1));
    value("raw socket IPv6", socket(AF_INET6, SOCK_RAW, 58));
    value("packet socket", socket(AF_PACKET, SOCK_RAW, 0));
    value("netlink socket", socket(AF_NETLINK, SOCK_RAW, 0));
    value("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    value("AF_ALG", socket(AF_ALG, SOCK_SEQPACKET, 0));
    value("Bluetooth", socket(AF_BLUETOOTH, SOCK_RAW, 1));
    value("/dev/mem", open("/dev/mem", O_RDWR));
    value("/dev/kvm", open("/dev/kvm", O_RDWR));
    value("/dev/kmsg", open("/dev/kmsg", O_RDONLY));
    value("/proc/kcore", open("/proc/kcore", O_RDONLY));
    value("/proc/sysrq-trigger", open("/proc/sysrq-trigger", O_WRONLY));
    value("/sys/kernel", open("/sys/kernel/debug", O_RDONLY));
    return 0;
}
