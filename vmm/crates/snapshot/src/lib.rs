//! What a frozen micro-VM is: plain data, and the file it is kept in. No logic of guest or machine lives here.

mod file;
mod state;

pub use file::{FORMAT, FileError, TRAILER_BYTES, Trailer, decode, encode};
pub use state::{
    AddressState, AlarmState, CallState, ClaimState, Description, EpollEntry, FileState, LockState,
    MachineId, PacketState, PipeState, ProcessState, Snapshot, SocketOptions, SocketState,
    ThreadState, TimerState, TmpBody, TmpNodeState,
};
