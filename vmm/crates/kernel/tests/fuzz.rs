//! System calls at random, without a virtual machine: whatever is asked, the answer is a value or an errno.
//! CLOISTER_FUZZ_SEED repeats a run; CLOISTER_FUZZ_CALLS makes it longer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a failed step of a test is to end it"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vmm_abi::{Errno, Prot, Registers, SIGKILL};
use vmm_kernel::loader;
use vmm_kernel::syscalls::{Arg, ROWS};
use vmm_kernel::vfs::{HostNode, TmpLimits, Vfs, dev_tree, proc_tree, sys_tree, tmp_trees};
use vmm_kernel::{Board, ExitStatus, Fpu, Identity, Kernel, NewThread, Spawner, Task};
use vmm_memory::{
    AddressSpace, Backing, Charge, Kind, Limits, MapRequest, NoMapper, Place, Window,
};

const WINDOW_BYTES: u64 = 1 << 39;
/// Where the guest has memory, and how much.
const DATA: u64 = 1 << 30;
const DATA_BYTES: u64 = 1 << 20;
/// Calls before a process is given up and another one made.
const CALLS_EACH: usize = 400;
/// Of a call that waits for what never comes: its process is ended then, which must get it out.
const PATIENCE: Duration = Duration::from_millis(100);

struct NoFpu;

impl Fpu for NoFpu {
    fn save(&mut self) -> Result<Vec<u8>, Errno> {
        Ok(vec![0; 4096])
    }

    fn restore(&mut self, _bytes: &[u8]) -> Result<(), Errno> {
        Ok(())
    }
}

struct NoThreads;

impl Spawner for NoThreads {
    fn spawn(&self, _thread: NewThread) -> Result<(), Errno> {
        Err(Errno::EAGAIN)
    }
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of(&mut self, list: &[u64]) -> u64 {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }
}

fn process(source: &Path) -> Arc<Kernel> {
    let window = Window::reserve(WINDOW_BYTES).unwrap();
    let limits = Limits { bytes: 64 << 20 };
    let memory = AddressSpace::new(window, Arc::new(NoMapper), limits);
    let root = HostNode::open_folders(&[source]).unwrap();
    let limits = TmpLimits {
        bytes: 16 << 20,
        nodes: 1000,
    };
    let [tmp, shared_memory] = tmp_trees(limits, ["/tmp", "/dev/shm"]).unwrap();
    let identity = Identity {
        pid: 1,
        hostname: "fuzz".into(),
        memory_bytes: 64 << 20,
        cpus: 1,
    };
    let kernel = Kernel::new(Arc::new(memory), identity, Board::default(), |kernel| {
        let mut vfs = Vfs::new(root);
        vfs.mount("/dev", dev_tree());
        vfs.mount("/proc", proc_tree(&kernel, 1));
        vfs.mount("/sys", sys_tree(1));
        vfs.mount("/tmp", tmp);
        vfs.mount("/dev/shm", shared_memory);
        vfs
    });
    kernel.set_spawner(Arc::new(NoThreads));
    kernel
        .memory
        .map(&MapRequest {
            place: Place::Fixed(DATA),
            len: DATA_BYTES,
            prot: Prot::RW,
            allowed: Prot::all(),
            backing: Backing::Anonymous,
            kind: Kind::Anonymous,
            charge: Charge::Always,
        })
        .unwrap();
    kernel
}

const PATHS: [&[u8]; 12] = [
    b"/tmp/a\0",
    b"/tmp/b\0",
    b"/tmp/d/e\0",
    b"/tmp\0",
    b"/lib.rs\0",
    b"/vfs/../vfs\0",
    b"/proc/self/maps\0",
    b"/proc/self/fd/3\0",
    b"/dev/zero\0",
    b"..//./\0",
    b"\0",
    b"/dev/shm/x/\0",
];
const EDGES: [u64; 12] = [
    0,
    1,
    7,
    4095,
    4096,
    1 << 31,
    u32::MAX as u64,
    WINDOW_BYTES - 1,
    1 << 47,
    1 << 63,
    u64::MAX,
    u64::MAX >> 1,
];

fn argument(kind: Arg, random: &mut Random) -> u64 {
    if random.below(8) == 0 {
        return random.one_of(&EDGES);
    }
    match kind {
        Arg::Fd => random.one_of(&[0, 1, 3, 4, 5, 6, 9, 100, -100_i64 as u64, u64::MAX]),
        Arg::Int => random.below(70).wrapping_sub(2),
        Arg::Flags => random.next() & random.next() & 0xffff_ffff,
        Arg::Signal => random.below(66),
        Arg::Path => DATA + random.below(PATHS.len() as u64) * 64,
        Arg::Address => DATA + 4096 + random.below(DATA_BYTES - 4096),
        Arg::Length => random.below(70_000),
        Arg::Word => random.next() >> random.below(64),
    }
}

/// What pointers lead to: small numbers, pointers, edges, noise.
fn fill(kernel: &Kernel, random: &mut Random) {
    for (index, path) in PATHS.iter().enumerate() {
        let _ = kernel.memory.write(DATA + index as u64 * 64, path);
    }
    let at = DATA + 4096 + random.below(DATA_BYTES - 8192);
    let words: Vec<u8> = (0..32)
        .map(|_| match random.below(4) {
            0 => random.below(64),
            1 => DATA + random.below(DATA_BYTES),
            2 => random.one_of(&EDGES),
            _ => random.next(),
        })
        .flat_map(u64::to_le_bytes)
        .collect();
    let _ = kernel.memory.write(at, &words);
}

/// Ends the process whose call is told of and takes too long.
fn watch(calls: &Receiver<Option<Arc<Kernel>>>) {
    let mut now: Option<Arc<Kernel>> = None;
    loop {
        match calls.recv_timeout(PATIENCE) {
            Ok(next) => now = next,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(kernel) = now.take() {
                    kernel.end(ExitStatus::Signal(SIGKILL));
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// As the environment says, or new in each run; what it was is shown when the test fails.
fn seeded() -> Random {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number_from("CLOISTER_FUZZ_SEED").unwrap_or_else(|| clock().as_nanos() as u64);
    println!("CLOISTER_FUZZ_SEED={seed}");
    Random(seed | 1)
}

#[test]
fn any_call_with_any_arguments_is_answered() {
    let mut random = seeded();
    let wanted = number_from("CLOISTER_FUZZ_CALLS").unwrap_or(15_000);
    let (telling, calls) = channel();
    let watching = std::thread::spawn(move || watch(&calls));
    let mut made = 0;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    while made < wanted {
        let kernel = process(&source);
        let shared = kernel.add_thread(0, b"fuzz".to_vec()).unwrap();
        let mut task = Task::new(Arc::clone(&kernel), shared, Registers::default());
        task.shared.parker.adopt_this_thread();
        for _ in 0..CALLS_EACH {
            fill(&kernel, &mut random);
            let row = &ROWS[usize::try_from(random.below(ROWS.len() as u64)).unwrap()];
            let mut words = [0; 6];
            for (word, kind) in words.iter_mut().zip(row.args) {
                *word = argument(*kind, &mut random);
            }
            println!("{} {words:x?}", row.name);
            let [rdi, rsi, rdx, r10, r8, r9] = words;
            task.registers = Registers {
                rax: u64::from(row.number),
                rdi,
                rsi,
                rdx,
                r10,
                r8,
                r9,
                rip: DATA,
                rsp: DATA + DATA_BYTES / 2,
                ..task.registers
            };
            telling.send(Some(Arc::clone(&kernel))).unwrap();
            task.system_call(&mut NoFpu);
            telling.send(None).unwrap();
            made += 1;
            if task.is_over() {
                break;
            }
            task.before_guest(&mut NoFpu);
        }
        task.finish();
    }
    drop(telling);
    watching.join().unwrap();
}

/// Bytes at the start of a program: its header and program headers.
const HEADER_BYTES: u64 = 64 + 56 * 12;

#[test]
fn any_damaged_program_loads_or_is_refused() {
    let mut random = seeded();
    let good = std::fs::read("/proc/self/exe").unwrap();
    let folder = std::env::temp_dir().join(format!("cloister-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut loaded = 0;
    for round in 0..600 {
        let mut bytes = good.clone();
        for _ in 0..random.below(4) {
            let at = usize::try_from(random.below(HEADER_BYTES / 8) * 8).unwrap();
            let word = match random.below(3) {
                0 => random.one_of(&EDGES),
                1 => {
                    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
                        ^ (1 << random.below(64))
                }
                _ => random.next(),
            };
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        if random.below(4) == 0 {
            bytes.truncate(usize::try_from(random.below(HEADER_BYTES * 8)).unwrap());
        }
        std::fs::write(folder.join("program"), &bytes).unwrap();
        println!("round {round}");
        let kernel = process(&folder);
        let started = loader::start(&kernel, "/program", &[b"program".to_vec()], &[]);
        loaded += usize::from(started.is_ok());
    }
    std::fs::remove_dir_all(&folder).unwrap();
    // The interpreter is not there: none but those that lost theirs can start.
    assert!(loaded < 300, "{loaded} started");
}
