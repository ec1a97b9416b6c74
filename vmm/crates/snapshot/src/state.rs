use serde::{Deserialize, Serialize};
use vmm_abi::{Registers, Rlimit, SigAction, SigInfo, SigStack};
use vmm_memory::{Extent, MemoryState};

/// A process that stands still, all of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub machine: MachineId,
    /// What it was made from, in the words of whoever asked for it (digests of image and bundle).
    pub key: String,
    pub memory: MemoryState,
    /// Pages of the machine that brings it back, by their place in its system area: page tables for the most part. It makes its own, and takes
    /// these where they are the same.
    pub system: Vec<Extent>,
    pub process: ProcessState,
}

/// What must be the same where it is brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineId {
    /// Maker, model and features of the processor: programs choose their code by them.
    pub processor: String,
    /// The monitor's version and the pages it gives its guests.
    pub monitor: String,
    /// The boot that monotonic times count from.
    pub boot: String,
}

/// All of the process but its memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessState {
    pub threads: Vec<ThreadState>,
    pub last_tid: i32,
    /// Open files; descriptors, epoll sets and sockets in flight name them by their place here.
    pub descriptions: Vec<Description>,
    /// Number, description, close-on-exec.
    pub descriptors: Vec<(i32, u32, bool)>,
    pub descriptor_limit: u64,
    pub pipes: Vec<PipeState>,
    pub sockets: Vec<SocketState>,
    /// The inode number that the next socket gets.
    pub next_socket_ino: u64,
    /// Everything in the private file systems. A parent comes before its children.
    pub tmp: Vec<TmpNodeState>,
    pub actions: Vec<SigAction>,
    pub pending: Vec<SigInfo>,
    /// ITIMER_REAL.
    pub alarm: Option<TimerState>,
    /// Those of timer_create(2).
    pub alarms: Vec<AlarmState>,
    pub limits: Vec<Rlimit>,
    pub cwd: Vec<u8>,
    pub umask: u32,
    pub program: Option<(Vec<u8>, Vec<Vec<u8>>)>,
    pub auxv: Option<Vec<u8>>,
    pub environment: Option<Vec<Vec<u8>>>,
    pub started_ns: u64,
    /// Processor time used so far, nanoseconds.
    pub processor_ns: u64,
}

/// A thread between two instructions, or in a system call that it waits in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThreadState {
    pub tid: i32,
    pub name: Vec<u8>,
    pub registers: Registers,
    /// In the XSAVE format, without the zeroes at its end.
    pub fpu: Vec<u8>,
    pub mask: u64,
    pub saved_mask: Option<u64>,
    pub pending: Vec<SigInfo>,
    pub alt_stack: SigStack,
    pub clear_child_tid: u64,
    pub robust_list: (u64, u64),
    pub call: Option<CallState>,
    /// Processor time used so far, nanoseconds.
    pub processor_ns: u64,
}

/// A system call that is to be asked again. Its arguments are in the registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallState {
    pub number: u64,
    /// Monotonic time at which it is over.
    pub deadline_ns: Option<u64>,
    /// Bytes or messages it has moved already.
    pub progress: u64,
}

/// What dup(2) shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub path: String,
    pub flags: u32,
    pub position: u64,
    pub file: FileState,
    pub locks: Vec<LockState>,
}

/// A lock that a description holds on its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockState {
    /// Of the whole file (flock(2)).
    Whole { exclusive: bool },
    /// Of its bytes from the first to the last (F_OFD_SETLK).
    Range {
        first: u64,
        last: u64,
        exclusive: bool,
    },
}

/// What lies behind an open file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileState {
    /// A stream that the guest is given anew: the descriptor it has in the guest.
    Stream(i32),
    /// A file of the image or one that the monitor makes up: opened again by the description's path.
    Named,
    /// A node of a private file system, by its place in [`ProcessState::tmp`].
    Tmp(u32),
    Event {
        count: u64,
        semaphore: bool,
    },
    /// An end of a pipe, by its place in [`ProcessState::pipes`].
    Pipe {
        pipe: u32,
        reads: bool,
        writes: bool,
    },
    /// By its place in [`ProcessState::sockets`].
    Socket(u32),
    Epoll(Vec<EpollEntry>),
    Timer {
        clock: i32,
        timer: TimerState,
    },
    Signals(u64),
}

/// A watched file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpollEntry {
    pub fd: i32,
    pub description: u32,
    pub events: u32,
    pub data: u64,
    /// Whether a change has not been told yet, for edges.
    pub changed: bool,
    /// Whether EPOLLONESHOT has told.
    pub disabled: bool,
}

/// The bytes in a pipe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeState {
    pub ino: u64,
    pub capacity: u64,
    pub bytes: Vec<u8>,
    /// The node that it is the FIFO of, by its place in [`ProcessState::tmp`].
    pub fifo: Option<u32>,
}

/// A socket: one with a descriptor, on its way through another, or one that waits to be accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketState {
    /// AF_* and SOCK_*
    pub family: i32,
    pub kind: i32,
    pub ino: u64,
    pub options: SocketOptions,
    pub packets: Vec<PacketState>,
    /// Directions that are over, as Linux has them in `sk_shutdown`.
    pub shutdown: u8,
    /// What SO_ERROR would tell.
    pub error: Option<i32>,
    /// Of one that listens: how many may wait, and the sockets that do.
    pub backlog: Option<(u64, Vec<u32>)>,
    pub name: Option<AddressState>,
    pub claim: Option<ClaimState>,
    /// The socket it is connected to, while that is open.
    pub peer: Option<u32>,
    pub peer_name: Option<AddressState>,
    pub connected: bool,
}

/// What setsockopt(2) has set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOptions {
    /// Level, name, value.
    pub numbers: Vec<(i32, i32, i32)>,
    pub receive_timeout_us: u64,
    pub send_timeout_us: u64,
    /// Whether it is on, and seconds.
    pub linger: (i32, i32),
}

/// Bytes that wait in a socket, and what came with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketState {
    pub bytes: Vec<u8>,
    pub from: Option<AddressState>,
    /// Descriptions on their way (SCM_RIGHTS).
    pub files: Vec<u32>,
}

/// A socket's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressState {
    Unnamed,
    Path(Vec<u8>),
    Abstract(Vec<u8>),
    Inet(std::net::SocketAddr),
}

/// What makes a socket be found by its address. One that was accepted has the address alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimState {
    Port {
        address: std::net::SocketAddr,
        both_families: bool,
        reuse_address: bool,
        reuse_port: bool,
    },
    /// An abstract name.
    Abstract(Vec<u8>),
    /// A socket file, by device and inode.
    Node(u64, u64),
}

/// When a timer goes off: monotonic nanoseconds, 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerState {
    pub next_ns: u64,
    pub interval_ns: u64,
}

/// A timer that sends a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmState {
    pub id: i32,
    pub clock: i32,
    /// None for SIGEV_NONE.
    pub info: Option<SigInfo>,
    /// The thread that gets it; 0 when that has ended, none for the process.
    pub tid: Option<i32>,
    pub timer: TimerState,
    pub overrun: u64,
}

/// A file, folder or link of a private file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpNodeState {
    pub ino: u64,
    /// Which of the trees, and where in it: the places of the folders that name it, with the names. None for an unlinked one.
    pub names: Vec<(u32, Vec<u8>)>,
    pub mode: u32,
    /// Seconds and nanoseconds of access, change and attribute change.
    pub times: [(i64, i64); 3],
    pub body: TmpBody,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TmpBody {
    /// The root of the tree of that number.
    Root(u32),
    Folder,
    File {
        size: u64,
        extents: Vec<Extent>,
        /// F_SEAL_*, for memory files that can have any; F_SEAL_SEAL for all others.
        seals: u32,
    },
    Link(Vec<u8>),
    Socket,
    Fifo,
}
