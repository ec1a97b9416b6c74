//! What a frozen micro-VM is: plain data, and the file it is kept in. No logic of guest or machine lives here.

mod file;
mod state;

pub use file::{FORMAT, FileError, TRAILER_BYTES, Trailer, decode, encode};
pub use state::{
    CallState, Description, EpollEntry, FileState, MachineId, PipeState, ProcessState, Snapshot,
    ThreadState, TimerState, TmpBody, TmpNodeState,
};
