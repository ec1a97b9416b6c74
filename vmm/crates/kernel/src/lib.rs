//! The Linux system-call interface, served in user space: tasks, files, memory, signals, futexes.
//!
//! Nothing here knows KVM. A host thread owns a [`Task`], runs guest code by whatever means and
//! brings what the guest asks for: [`Task::system_call`], [`Task::exception`], [`Task::before_guest`].

mod args;
pub mod clock;
mod delivery;
mod epoll;
mod eventfd;
mod fault;
mod file;
mod freeze;
mod futex;
mod inlet;
mod inside;
mod kernel;
mod limits;
pub mod loader;
mod locks;
mod pipe;
mod reactor;
mod signal;
mod signalfd;
mod socket;
mod state;
mod stream;
pub mod syscalls;
mod task;
mod timer;
pub mod vfs;
mod wait;

pub use args::{Args, Ret, SysResult};
pub use file::{FdTable, File, OpenFile};
pub use freeze::StillError;
pub use inside::{Board, BoardWords, code as inside_code};
pub use kernel::{
    ExitStatus, Identity, Kernel, MAX_THREADS, NewThread, Spawner, ThreadShared, TraceSlots,
};
pub use reactor::{hear, start_reactor};
pub use state::{CaptureError, Files, RestoreError};
pub use stream::HostStream;
pub use task::{Fpu, Task};
pub use timer::wait_for_timer_thread;
pub use wait::{Parker, WaitQueue, Wake};
