//! The one list of system calls: dispatch, traces, metrics and docs/syscalls.md come from it.

use super::Handler::{self, Plain, WithFpu};
use super::{
    attributes, copy, events, files, fixed, locks, memory, messages, names, open, paths, process,
    signals, sockets, threads, time, timers, transfer, waiting,
};

/// What an argument is, for traces and for seeds of the fuzzer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    Fd,
    Int,
    Flags,
    Signal,
    Path,
    Address,
    Length,
    Word,
}

/// How much of what Linux documents is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// All of it that means anything in a sandbox of one process.
    Full,
    /// The note says what is missing; what is missing is refused, not ignored.
    Partial,
    /// Always the same answer, which the note explains.
    Fixed,
}

/// One system call.
pub struct Row {
    pub number: u16,
    pub name: &'static str,
    pub args: &'static [Arg],
    pub handler: Handler,
    pub level: Level,
    pub note: &'static str,
    /// Host calls it may lead to, beyond those that every call needs (copies of guest memory).
    pub host: &'static [&'static str],
}

const fn row(
    number: u16,
    name: &'static str,
    args: &'static [Arg],
    handler: Handler,
    level: Level,
    note: &'static str,
    host: &'static [&'static str],
) -> Row {
    Row {
        number,
        name,
        args,
        handler,
        level,
        note,
        host,
    }
}

use Arg::{Address, Fd, Flags, Int, Length, Path, Signal, Word};
use Level::{Fixed, Full, Partial};

const READS: &[&str] = &["preadv", "readv", "recvmsg", "ppoll", "getrandom"];
const WRITES: &[&str] = &["pwritev", "writev", "sendmsg", "ppoll", "ftruncate"];
const LOOKS: &[&str] = &["newfstatat", "openat", "readlinkat"];
const MAPS: &[&str] = &["mmap", "mprotect", "ioctl"];

/// All calls that are served, by number. Any other is ENOSYS.
#[rustfmt::skip]
pub static ROWS: &[Row] = &[
    row(0, "read", &[Fd, Address, Length], Plain(transfer::read), Full, "", READS),
    row(1, "write", &[Fd, Address, Length], Plain(transfer::write), Full, "", WRITES),
    row(2, "open", &[Path, Flags, Flags], Plain(open::open), Full, "", LOOKS),
    row(3, "close", &[Fd], Plain(files::close), Full, "", &["close"]),
    row(4, "stat", &[Path, Address], Plain(paths::stat), Full, "", LOOKS),
    row(5, "fstat", &[Fd, Address], Plain(paths::fstat), Full, "", &[]),
    row(6, "lstat", &[Path, Address], Plain(paths::lstat), Full, "", LOOKS),
    row(7, "poll", &[Address, Length, Int], Plain(waiting::poll), Full, "", &["ppoll", "epoll_ctl"]),
    row(8, "lseek", &[Fd, Word, Int], Plain(files::lseek), Full, "", &["lseek"]),
    row(9, "mmap", &[Address, Length, Flags, Flags, Fd, Length], Plain(memory::mmap), Partial, "MAP_HUGETLB is refused", MAPS),
    row(10, "mprotect", &[Address, Length, Flags], Plain(memory::mprotect), Full, "", MAPS),
    row(11, "munmap", &[Address, Length], Plain(memory::munmap), Full, "", MAPS),
    row(12, "brk", &[Address], Plain(memory::brk), Full, "", MAPS),
    row(13, "rt_sigaction", &[Signal, Address, Address, Length], Plain(signals::sigaction), Full, "", &[]),
    row(14, "rt_sigprocmask", &[Int, Address, Address, Length], Plain(signals::sigprocmask), Full, "", &[]),
    row(15, "rt_sigreturn", &[], WithFpu(signals::sigreturn), Full, "", &[]),
    row(16, "ioctl", &[Fd, Flags, Word], Plain(files::ioctl), Partial, "FIONBIO, FIOCLEX, FIONCLEX and what the file itself knows", &[]),
    row(17, "pread64", &[Fd, Address, Length, Length], Plain(transfer::pread), Full, "", READS),
    row(18, "pwrite64", &[Fd, Address, Length, Length], Plain(transfer::pwrite), Full, "", WRITES),
    row(19, "readv", &[Fd, Address, Length], Plain(transfer::readv), Full, "", READS),
    row(20, "writev", &[Fd, Address, Length], Plain(transfer::writev), Full, "", WRITES),
    row(21, "access", &[Path, Int], Plain(paths::access), Full, "", LOOKS),
    row(22, "pipe", &[Address], Plain(events::pipe_plain), Full, "", &[]),
    row(23, "select", &[Int, Address, Address, Address, Address], Plain(waiting::select), Full, "", &["ppoll", "epoll_ctl"]),
    row(24, "sched_yield", &[], Plain(threads::sched_yield), Full, "", &["sched_yield"]),
    row(25, "mremap", &[Address, Length, Length, Flags, Address], Plain(memory::mremap), Partial, "mappings of files do not grow; MREMAP_DONTUNMAP is refused", &["mremap"]),
    row(26, "msync", &[Address, Length, Flags], Plain(memory::msync), Full, "", &[]),
    row(27, "mincore", &[Address, Length, Address], Plain(memory::mincore), Partial, "every mapped page counts as resident", &[]),
    row(28, "madvise", &[Address, Length, Int], Plain(memory::madvise), Partial, "advice on reclaiming and populating is done, other advice is accepted and ignored", &["madvise"]),
    row(32, "dup", &[Fd], Plain(files::dup), Full, "", &[]),
    row(33, "dup2", &[Fd, Fd], Plain(files::dup2), Full, "", &[]),
    row(34, "pause", &[], Plain(signals::pause), Full, "", &[]),
    row(35, "nanosleep", &[Address, Address], Plain(time::nanosleep), Full, "", &[]),
    row(36, "getitimer", &[Int, Address], Plain(timers::getitimer), Partial, "ITIMER_REAL; timers of processor time are EINVAL", &[]),
    row(37, "alarm", &[Int], Plain(timers::alarm), Full, "", &["clone"]),
    row(38, "setitimer", &[Int, Address, Address], Plain(timers::setitimer), Partial, "as getitimer", &["clone"]),
    row(39, "getpid", &[], Plain(process::getpid), Full, "", &[]),
    row(40, "sendfile", &[Fd, Fd, Address, Length], Plain(copy::sendfile), Full, "", &["pread64", "pwritev", "writev", "sendmsg"]),
    row(41, "socket", &[Int, Flags, Int], Plain(sockets::socket), Partial, "AF_UNIX, and AF_INET and AF_INET6 streams and datagrams inside the guest; others are EAFNOSUPPORT", &[]),
    row(42, "connect", &[Fd, Address, Length], Plain(sockets::connect), Partial, "within the guest: any other address is ENETUNREACH", LOOKS),
    row(43, "accept", &[Fd, Address, Address], Plain(sockets::accept), Full, "", &[]),
    row(44, "sendto", &[Fd, Address, Length, Flags, Address, Length], Plain(messages::sendto), Partial, "MSG_OOB and MSG_FASTOPEN are refused", &["sendmsg", "ppoll", "epoll_ctl"]),
    row(45, "recvfrom", &[Fd, Address, Length, Flags, Address, Address], Plain(messages::recvfrom), Partial, "no out-of-band data; MSG_PEEK is refused at the socket at 3", &["recvmsg", "ppoll", "epoll_ctl"]),
    row(46, "sendmsg", &[Fd, Address, Flags], Plain(messages::sendmsg), Partial, "SCM_RIGHTS and SCM_CREDENTIALS, not at the socket at 3", &["sendmsg", "ppoll", "epoll_ctl"]),
    row(47, "recvmsg", &[Fd, Address, Flags], Plain(messages::recvmsg), Partial, "SCM_RIGHTS and SCM_CREDENTIALS; no out-of-band data", &["recvmsg", "ppoll", "epoll_ctl"]),
    row(48, "shutdown", &[Fd, Int], Plain(sockets::shutdown), Full, "", &["shutdown"]),
    row(49, "bind", &[Fd, Address, Length], Plain(sockets::bind), Partial, "loopback and unspecified addresses; Unix names in the private /tmp, and abstract ones", LOOKS),
    row(50, "listen", &[Fd, Int], Plain(sockets::listen), Partial, "4096 TCP connections may wait, whatever the number", &[]),
    row(51, "getsockname", &[Fd, Address, Address], Plain(sockets::getsockname), Full, "", &[]),
    row(52, "getpeername", &[Fd, Address, Address], Plain(sockets::getpeername), Full, "", &[]),
    row(53, "socketpair", &[Int, Flags, Int, Address], Plain(sockets::socketpair), Full, "", &[]),
    row(54, "setsockopt", &[Fd, Int, Int, Address, Length], Plain(sockets::setsockopt), Partial, "what only tunes a network is remembered and shown; multicast, packet information and BPF are refused", &[]),
    row(55, "getsockopt", &[Fd, Int, Int, Address, Address], Plain(sockets::getsockopt), Partial, "as setsockopt; no TCP_INFO", &[]),
    row(56, "clone", &[Flags, Address, Address, Address, Address], WithFpu(threads::clone), Partial, "threads only: fork and vfork are refused with EPERM", &["clone", "ioctl"]),
    row(57, "fork", &[], Plain(fixed::refuse), Fixed, "EPERM: processes other than the first are not there yet", &[]),
    row(58, "vfork", &[], Plain(fixed::refuse), Fixed, "EPERM: processes other than the first are not there yet", &[]),
    row(59, "execve", &[Path, Address, Address], Plain(fixed::refuse), Fixed, "EPERM: another program cannot be started yet", &[]),
    row(60, "exit", &[Int], Plain(threads::exit), Full, "", &[]),
    row(61, "wait4", &[Int, Address, Flags, Address], Plain(fixed::wait4), Fixed, "ECHILD: there are no children", &[]),
    row(62, "kill", &[Int, Signal], Plain(signals::kill), Full, "only the process itself is there", &["tgkill"]),
    row(63, "uname", &[Address], Plain(process::uname), Full, "", &[]),
    row(72, "fcntl", &[Fd, Int, Word], Plain(files::fcntl), Partial, "no leases, owners or notifications; locks of the process (F_SETLK) wait for those of descriptions and exclude nobody, since no other process is there", &["fcntl"]),
    row(73, "flock", &[Fd, Int], Plain(locks::flock), Full, "", &[]),
    row(74, "fsync", &[Fd], Plain(files::fsync), Fixed, "success: nothing outlives the sandbox", &[]),
    row(75, "fdatasync", &[Fd], Plain(files::fsync), Fixed, "success: nothing outlives the sandbox", &[]),
    row(76, "truncate", &[Path, Length], Plain(attributes::truncate), Full, "", &["ftruncate"]),
    row(77, "ftruncate", &[Fd, Length], Plain(files::ftruncate), Full, "", &["ftruncate"]),
    row(79, "getcwd", &[Address, Length], Plain(paths::getcwd), Full, "", &[]),
    row(80, "chdir", &[Path], Plain(paths::chdir), Full, "", LOOKS),
    row(81, "fchdir", &[Fd], Plain(paths::fchdir), Full, "", &[]),
    row(82, "rename", &[Path, Path], Plain(names::rename), Full, "", LOOKS),
    row(83, "mkdir", &[Path, Flags], Plain(names::mkdir), Full, "", LOOKS),
    row(84, "rmdir", &[Path], Plain(names::rmdir), Full, "", LOOKS),
    row(85, "creat", &[Path, Flags], Plain(open::creat), Full, "", LOOKS),
    row(86, "link", &[Path, Path], Plain(names::link), Full, "", LOOKS),
    row(87, "unlink", &[Path], Plain(names::unlink), Full, "", LOOKS),
    row(88, "symlink", &[Path, Path], Plain(names::symlink), Full, "", LOOKS),
    row(89, "readlink", &[Path, Address, Length], Plain(paths::readlink), Full, "", LOOKS),
    row(90, "chmod", &[Path, Flags], Plain(attributes::chmod), Full, "", LOOKS),
    row(91, "fchmod", &[Fd, Flags], Plain(attributes::fchmod), Full, "", &[]),
    row(92, "chown", &[Path, Int, Int], Plain(attributes::chown), Partial, "to root or to none: all files belong to the guest", LOOKS),
    row(93, "fchown", &[Fd, Int, Int], Plain(attributes::fchown), Partial, "as chown", &[]),
    row(94, "lchown", &[Path, Int, Int], Plain(attributes::lchown), Partial, "as chown", LOOKS),
    row(95, "umask", &[Flags], Plain(paths::umask), Full, "", &[]),
    row(96, "gettimeofday", &[Address, Address], Plain(time::gettimeofday), Full, "", &[]),
    row(97, "getrlimit", &[Int, Address], Plain(process::getrlimit), Full, "", &[]),
    row(98, "getrusage", &[Int, Address], Plain(process::getrusage), Partial, "processor time and peak memory; the counters are 0", &[]),
    row(99, "sysinfo", &[Address], Plain(process::sysinfo), Full, "", &[]),
    row(100, "times", &[Address], Plain(fixed::times), Partial, "user time only", &[]),
    row(102, "getuid", &[], Plain(process::root_id), Fixed, "0: the guest is root of its own sandbox", &[]),
    row(104, "getgid", &[], Plain(process::root_id), Fixed, "0: the guest is root of its own sandbox", &[]),
    row(105, "setuid", &[Int], Plain(fixed::keep_root), Fixed, "to 0, which it is; EPERM otherwise", &[]),
    row(106, "setgid", &[Int], Plain(fixed::keep_root), Fixed, "to 0, which it is; EPERM otherwise", &[]),
    row(107, "geteuid", &[], Plain(process::root_id), Fixed, "0: the guest is root of its own sandbox", &[]),
    row(108, "getegid", &[], Plain(process::root_id), Fixed, "0: the guest is root of its own sandbox", &[]),
    row(109, "setpgid", &[Int, Int], Plain(fixed::setpgid), Fixed, "checked, without effect: one process, one group", &[]),
    row(110, "getppid", &[], Plain(process::root_id), Fixed, "0: there is no parent", &[]),
    row(111, "getpgrp", &[], Plain(process::getpid), Full, "", &[]),
    row(112, "setsid", &[], Plain(fixed::refuse), Fixed, "EPERM: the process leads its session", &[]),
    row(113, "setreuid", &[Int, Int], Plain(fixed::keep_root_twice), Fixed, "as setuid", &[]),
    row(114, "setregid", &[Int, Int], Plain(fixed::keep_root_twice), Fixed, "as setgid", &[]),
    row(115, "getgroups", &[Int, Address], Plain(fixed::getgroups), Fixed, "0: no supplementary groups", &[]),
    row(117, "setresuid", &[Int, Int, Int], Plain(fixed::keep_root_thrice), Fixed, "as setuid", &[]),
    row(118, "getresuid", &[Address, Address, Address], Plain(fixed::root_ids), Fixed, "0, 0, 0", &[]),
    row(119, "setresgid", &[Int, Int, Int], Plain(fixed::keep_root_thrice), Fixed, "as setgid", &[]),
    row(120, "getresgid", &[Address, Address, Address], Plain(fixed::root_ids), Fixed, "0, 0, 0", &[]),
    row(121, "getpgid", &[Int], Plain(process::own_group), Full, "", &[]),
    row(124, "getsid", &[Int], Plain(process::own_group), Full, "", &[]),
    row(125, "capget", &[Address, Address], Plain(fixed::capget), Fixed, "no capabilities", &[]),
    row(126, "capset", &[Address, Address], Plain(fixed::refuse), Fixed, "EPERM: there are no capabilities to set", &[]),
    row(127, "rt_sigpending", &[Address, Length], Plain(signals::sigpending), Full, "", &[]),
    row(128, "rt_sigtimedwait", &[Address, Address, Address, Length], Plain(signals::sigtimedwait), Full, "", &[]),
    row(129, "rt_sigqueueinfo", &[Int, Signal, Address], Plain(signals::sigqueueinfo), Full, "", &["tgkill"]),
    row(130, "rt_sigsuspend", &[Address, Length], Plain(signals::sigsuspend), Full, "", &[]),
    row(131, "sigaltstack", &[Address, Address], Plain(signals::sigaltstack), Full, "", &[]),
    row(132, "utime", &[Path, Address], Plain(attributes::utime), Full, "", LOOKS),
    row(133, "mknod", &[Path, Flags, Word], Plain(names::mknod), Partial, "regular files, FIFOs and names of sockets; devices are refused with EPERM", LOOKS),
    row(135, "personality", &[Flags], Plain(fixed::personality), Fixed, "0; others are EINVAL", &[]),
    row(137, "statfs", &[Path, Address], Plain(fixed::statfs), Fixed, "every file system looks like a tmpfs of the memory's size", LOOKS),
    row(138, "fstatfs", &[Fd, Address], Plain(fixed::fstatfs), Fixed, "every file system looks like a tmpfs of the memory's size", &[]),
    row(140, "getpriority", &[Int, Int], Plain(fixed::getpriority), Fixed, "nice value 0", &[]),
    row(141, "setpriority", &[Int, Int, Int], Plain(fixed::setpriority), Fixed, "checked, without effect", &[]),
    row(143, "sched_getparam", &[Int, Address], Plain(fixed::sched_getparam), Fixed, "priority 0", &[]),
    row(144, "sched_setscheduler", &[Int, Int, Address], Plain(fixed::setscheduler), Fixed, "to SCHED_OTHER, which it is; EPERM otherwise", &[]),
    row(145, "sched_getscheduler", &[Int], Plain(fixed::getscheduler), Fixed, "0: SCHED_OTHER", &[]),
    row(146, "sched_get_priority_max", &[Int], Plain(fixed::priority_max), Full, "", &[]),
    row(147, "sched_get_priority_min", &[Int], Plain(fixed::priority_min), Full, "", &[]),
    row(149, "mlock", &[Address, Length], Plain(memory::mlock), Fixed, "checks the range: a sandbox does not swap", &[]),
    row(150, "munlock", &[Address, Length], Plain(memory::mlock), Fixed, "checks the range", &[]),
    row(157, "prctl", &[Int, Word, Word, Word, Word], Plain(process::prctl), Partial, "PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_SET_VMA (ignored)", &[]),
    row(158, "arch_prctl", &[Int, Address], Plain(process::arch_prctl), Partial, "the FS and GS bases", &[]),
    row(160, "setrlimit", &[Int, Address], Plain(process::setrlimit), Partial, "RLIMIT_NOFILE and RLIMIT_FSIZE have an effect, others are remembered", &[]),
    row(186, "gettid", &[], Plain(threads::gettid), Full, "", &[]),
    row(200, "tkill", &[Int, Signal], Plain(signals::tkill), Full, "", &["tgkill"]),
    row(201, "time", &[Address], Plain(time::time), Full, "", &[]),
    row(202, "futex", &[Address, Int, Int, Address, Address, Int], Plain(threads::futex), Partial, "no priority inheritance; FUTEX_WAKE_OP is refused", &[]),
    row(203, "sched_setaffinity", &[Int, Length, Address], Plain(threads::sched_setaffinity), Fixed, "checked, without effect", &[]),
    row(204, "sched_getaffinity", &[Int, Length, Address], Plain(threads::sched_getaffinity), Full, "", &[]),
    row(213, "epoll_create", &[Int], Plain(events::epoll_create), Full, "", &[]),
    row(217, "getdents64", &[Fd, Address, Length], Plain(files::getdents), Full, "", &["getdents64", "openat"]),
    row(218, "set_tid_address", &[Address], Plain(threads::set_tid_address), Full, "", &[]),
    row(221, "fadvise64", &[Fd, Length, Length, Int], Plain(files::fadvise), Fixed, "success, without effect", &[]),
    row(222, "timer_create", &[Int, Address, Address], Plain(timers::timer_create), Partial, "the real, monotonic and boot-time clocks", &["clone"]),
    row(223, "timer_settime", &[Int, Flags, Address, Address], Plain(timers::timer_settime), Full, "", &[]),
    row(224, "timer_gettime", &[Int, Address], Plain(timers::timer_gettime), Full, "", &[]),
    row(225, "timer_getoverrun", &[Int], Plain(timers::timer_getoverrun), Full, "", &[]),
    row(226, "timer_delete", &[Int], Plain(timers::timer_delete), Full, "", &[]),
    row(228, "clock_gettime", &[Int, Address], Plain(time::clock_gettime), Full, "", &[]),
    row(229, "clock_getres", &[Int, Address], Plain(time::clock_getres), Full, "", &[]),
    row(230, "clock_nanosleep", &[Int, Int, Address, Address], Plain(time::clock_nanosleep), Full, "", &[]),
    row(231, "exit_group", &[Int], Plain(threads::exit_group), Full, "", &["tgkill"]),
    row(232, "epoll_wait", &[Fd, Address, Int, Int], Plain(events::epoll_wait), Full, "", &["ppoll", "epoll_ctl"]),
    row(233, "epoll_ctl", &[Fd, Int, Fd, Address], Plain(events::epoll_ctl), Partial, "EPOLLEXCLUSIVE wakes all", &[]),
    row(234, "tgkill", &[Int, Int, Signal], Plain(signals::tgkill), Full, "", &["tgkill"]),
    row(235, "utimes", &[Path, Address], Plain(attributes::utimes), Full, "", LOOKS),
    row(247, "waitid", &[Int, Int, Address, Int, Address], Plain(fixed::no_children), Fixed, "ECHILD: there are no children", &[]),
    row(257, "openat", &[Fd, Path, Flags, Flags], Plain(open::openat), Full, "", LOOKS),
    row(258, "mkdirat", &[Fd, Path, Flags], Plain(names::mkdirat), Full, "", LOOKS),
    row(259, "mknodat", &[Fd, Path, Flags, Word], Plain(names::mknodat), Partial, "as mknod", LOOKS),
    row(260, "fchownat", &[Fd, Path, Int, Int, Flags], Plain(attributes::fchownat), Partial, "as chown", LOOKS),
    row(261, "futimesat", &[Fd, Path, Address], Plain(attributes::futimesat), Full, "", LOOKS),
    row(262, "newfstatat", &[Fd, Path, Address, Flags], Plain(paths::fstatat), Full, "", LOOKS),
    row(263, "unlinkat", &[Fd, Path, Flags], Plain(names::unlinkat), Full, "", LOOKS),
    row(264, "renameat", &[Fd, Path, Fd, Path], Plain(names::renameat), Full, "", LOOKS),
    row(265, "linkat", &[Fd, Path, Fd, Path, Flags], Plain(names::linkat), Full, "", LOOKS),
    row(266, "symlinkat", &[Path, Fd, Path], Plain(names::symlinkat), Full, "", LOOKS),
    row(267, "readlinkat", &[Fd, Path, Address, Length], Plain(paths::readlinkat), Full, "", LOOKS),
    row(268, "fchmodat", &[Fd, Path, Flags], Plain(attributes::fchmodat), Full, "", LOOKS),
    row(269, "faccessat", &[Fd, Path, Int], Plain(paths::faccessat), Full, "", LOOKS),
    row(270, "pselect6", &[Int, Address, Address, Address, Address, Address], Plain(waiting::pselect6), Full, "", &["ppoll", "epoll_ctl"]),
    row(271, "ppoll", &[Address, Length, Address, Address, Length], Plain(waiting::ppoll), Full, "", &["ppoll", "epoll_ctl"]),
    row(273, "set_robust_list", &[Address, Length], Plain(threads::set_robust_list), Full, "", &[]),
    row(275, "splice", &[Fd, Address, Fd, Address, Length, Flags], Plain(copy::splice), Full, "at least one side is a pipe", &["pread64", "pwritev", "writev", "sendmsg"]),
    row(276, "tee", &[Fd, Fd, Length, Flags], Plain(copy::tee), Full, "", &[]),
    row(280, "utimensat", &[Fd, Path, Address, Flags], Plain(attributes::utimensat), Full, "", LOOKS),
    row(281, "epoll_pwait", &[Fd, Address, Int, Int, Address, Length], Plain(events::epoll_pwait), Full, "", &["ppoll", "epoll_ctl"]),
    row(282, "signalfd", &[Fd, Address, Length], Plain(signals::signalfd), Full, "", &[]),
    row(283, "timerfd_create", &[Int, Flags], Plain(timers::timerfd_create), Partial, "the real, monotonic and boot-time clocks", &[]),
    row(284, "eventfd", &[Int], Plain(events::eventfd), Full, "", &[]),
    row(285, "fallocate", &[Fd, Int, Length, Length], Plain(files::fallocate), Partial, "mode 0, KEEP_SIZE and PUNCH_HOLE", &["fallocate", "ftruncate"]),
    row(286, "timerfd_settime", &[Fd, Flags, Address, Address], Plain(timers::timerfd_settime), Full, "", &["clone"]),
    row(287, "timerfd_gettime", &[Fd, Address], Plain(timers::timerfd_gettime), Full, "", &[]),
    row(288, "accept4", &[Fd, Address, Address, Flags], Plain(sockets::accept4), Full, "", &[]),
    row(289, "signalfd4", &[Fd, Address, Length, Flags], Plain(signals::signalfd4), Full, "", &[]),
    row(290, "eventfd2", &[Int, Flags], Plain(events::eventfd2), Full, "", &[]),
    row(291, "epoll_create1", &[Flags], Plain(events::epoll_create1), Full, "", &[]),
    row(292, "dup3", &[Fd, Fd, Flags], Plain(files::dup3), Full, "", &[]),
    row(293, "pipe2", &[Address, Flags], Plain(events::pipe2), Partial, "O_DIRECT is refused", &[]),
    row(295, "preadv", &[Fd, Address, Length, Length], Plain(transfer::preadv), Full, "", READS),
    row(296, "pwritev", &[Fd, Address, Length, Length], Plain(transfer::pwritev), Full, "", WRITES),
    row(297, "rt_tgsigqueueinfo", &[Int, Int, Signal, Address], Plain(signals::tgsigqueueinfo), Full, "", &["tgkill"]),
    row(299, "recvmmsg", &[Fd, Address, Length, Flags, Address], Plain(messages::recvmmsg), Partial, "as recvmsg", &["recvmsg", "ppoll", "epoll_ctl"]),
    row(302, "prlimit64", &[Int, Int, Address, Address], Plain(process::prlimit), Partial, "as setrlimit", &[]),
    row(307, "sendmmsg", &[Fd, Address, Length, Flags], Plain(messages::sendmmsg), Partial, "as sendmsg", &["sendmsg", "ppoll", "epoll_ctl"]),
    row(316, "renameat2", &[Fd, Path, Fd, Path, Flags], Plain(names::renameat2), Partial, "RENAME_NOREPLACE and RENAME_EXCHANGE", LOOKS),
    row(318, "getrandom", &[Address, Length, Flags], Plain(process::getrandom), Full, "", &["getrandom"]),
    row(319, "memfd_create", &[Path, Flags], Plain(open::memfd_create), Partial, "no huge pages", &["memfd_create"]),
    row(322, "execveat", &[Fd, Path, Address, Address, Flags], Plain(fixed::refuse), Fixed, "EPERM: another program cannot be started yet", &[]),
    row(324, "membarrier", &[Int, Flags, Int], Plain(process::membarrier), Partial, "the private expedited barrier", &["membarrier"]),
    row(325, "mlock2", &[Address, Length, Flags], Plain(memory::mlock2), Fixed, "as mlock", &[]),
    row(326, "copy_file_range", &[Fd, Address, Fd, Address, Length, Flags], Plain(copy::copy_file_range), Full, "", &["pread64", "pwritev"]),
    row(332, "statx", &[Fd, Path, Flags, Flags, Address], Plain(paths::statx), Full, "", LOOKS),
    row(334, "rseq", &[Address, Length, Flags, Word], Plain(fixed::absent), Fixed, "ENOSYS: C libraries do without", &[]),
    row(425, "io_uring_setup", &[Length, Address], Plain(fixed::absent), Fixed, "ENOSYS: runtimes do without", &[]),
    row(435, "clone3", &[Address, Length], Plain(fixed::absent), Fixed, "ENOSYS: C libraries then use clone", &[]),
    row(436, "close_range", &[Fd, Fd, Flags], Plain(files::close_range), Full, "", &[]),
    row(437, "openat2", &[Fd, Path, Address, Length], Plain(open::openat2), Partial, "RESOLVE_BENEATH, RESOLVE_IN_ROOT and RESOLVE_NO_SYMLINKS", LOOKS),
    row(439, "faccessat2", &[Fd, Path, Int, Flags], Plain(paths::faccessat2), Full, "", LOOKS),
    row(441, "epoll_pwait2", &[Fd, Address, Int, Address, Address, Length], Plain(events::epoll_pwait2), Full, "", &["ppoll", "epoll_ctl"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_explained() {
        for pair in ROWS.windows(2) {
            assert!(
                pair[0].number < pair[1].number,
                "{} before {}",
                pair[0].name,
                pair[1].name
            );
        }
        for row in ROWS {
            assert!(
                row.level == Level::Full || !row.note.is_empty(),
                "{} needs a note",
                row.name
            );
        }
    }
}
