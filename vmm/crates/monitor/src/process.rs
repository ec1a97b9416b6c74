//! The guest's process: the one the micro-VM begins with, and those that take its place.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use vmm_abi::Errno;
use vmm_hypervisor::{HypervisorError, Machine, Words};
use vmm_kernel::loader::GuestClock;
use vmm_kernel::vfs::{Node, TmpLimits, Vfs, dev_tree, proc_tree, sys_tree, tmp_trees};
use vmm_kernel::{Board, BoardWords, Identity, Kernel, TraceSlots, inside_code};
use vmm_memory::AddressSpace;

/// What every process of a micro-VM is made of. Nothing of a guest is in it but the memory.
pub struct Ground {
    pub memory: Arc<AddressSpace>,
    /// But for the process id.
    pub identity: Identity,
    pub root: Arc<dyn Node>,
    /// Where something is shown, and what.
    pub binds: Vec<(String, Arc<dyn Node>)>,
    pub tmp_limits: TmpLimits,
    pub cwd: Vec<u8>,
    pub trace: TraceSlots,
    /// What guest code is told.
    pub board: Board,
    pub clock: Arc<GuestClock>,
}

/// The words that the code in a machine reads.
#[derive(Debug)]
struct InsideWords(Words);

impl BoardWords for InsideWords {
    fn word(&self, place: usize) -> Option<&AtomicU64> {
        self.0.get(place)
    }

    fn open_word(&self, place: usize) -> Option<&AtomicU64> {
        self.0.get_open(place)
    }
}

/// Has a machine's guest serve by itself what it can.
///
/// # Errors
/// As [`Machine::lay_inside`].
pub fn board(machine: &Machine, identity: &Identity) -> Result<Board, HypervisorError> {
    machine.lay_inside(inside_code(identity))?;
    Ok(Board::new(Arc::new(InsideWords(machine.words()))))
}

impl Ground {
    /// A process without program, files or threads; its private file systems are empty.
    ///
    /// # Errors
    /// What the host says when it gives no file for those.
    pub fn process(&self, pid: i32) -> Result<Arc<Kernel>, Errno> {
        let [tmp, shared_memory] = tmp_trees(self.tmp_limits, ["/tmp", "/dev/shm"])?;
        let identity = Identity {
            pid,
            ..self.identity.clone()
        };
        let cpus = identity.cpus;
        let kernel = Kernel::new(
            Arc::clone(&self.memory),
            identity,
            self.board.clone(),
            |kernel| {
                let mut vfs = Vfs::new(Arc::clone(&self.root));
                vfs.mount("/dev", dev_tree());
                vfs.mount("/proc", proc_tree(&kernel, pid));
                vfs.mount("/sys", sys_tree(cpus));
                vfs.mount("/tmp", tmp);
                vfs.mount("/dev/shm", shared_memory);
                for (target, node) in &self.binds {
                    vfs.mount(target, Arc::clone(node));
                }
                vfs
            },
        );
        let _ = kernel.trace.set(self.trace);
        *kernel.cwd.lock() = self.cwd.clone();
        let _ = kernel.clock.set(Arc::clone(&self.clock));
        Ok(kernel)
    }
}
