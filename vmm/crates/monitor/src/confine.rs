//! The system calls the monitor may make from the moment on that it looks at a guest. A call that is not
//! on the list of vmm/resources/seccomp/monitor.json ends the process.

use std::io;

use seccompiler::{apply_filter, sock_filter};

/// For the thread that will run the guest, and all that it starts from here on.
///
/// # Errors
/// What seccomp(2) says.
pub fn guest() -> io::Result<()> {
    install(include!(concat!(env!("OUT_DIR"), "/guest.rs")))
}

/// Keeps libc from asking the host for more than memory. A second arena would make it read /sys, for the number of processors, when it is made,
/// and /proc/sys/vm/overcommit_memory when it shrinks.
pub fn settle_allocator() {
    const ARENAS: libc::c_int = 1;
    // SAFETY: takes numbers only, and no other thread is there yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// Gives the host the memory back that libc keeps for allocations to come.
pub fn give_back_free_memory() {
    // SAFETY: takes a number only; what is allocated stays where it is.
    unsafe { libc::malloc_trim(0) };
}

/// Gives the host back what the process's first thread had of its stack and has no more: making ready goes deeper than serving.
/// For that thread only, whose stack has nothing below it.
pub fn give_back_free_stack() {
    /// Deeper than making ready goes, bytes.
    const MOST: usize = 128 << 10;
    /// The frames of this function and of what it calls, and what the ABI lets a leaf keep below its stack pointer, bytes.
    const SPARED: usize = 2 * PAGE;
    const PAGE: usize = 4096;
    let here = 0_u8;
    let end = (&raw const here).addr().saturating_sub(SPARED) & !(PAGE - 1);
    let start = std::ptr::without_provenance_mut::<libc::c_void>(end.saturating_sub(MOST));
    // SAFETY: all that lies there belonged to frames that have returned. Where the stack has never reached nothing is mapped, and nothing happens.
    unsafe { libc::madvise(start, MOST, libc::MADV_DONTNEED) };
}

/// For the thread that only waits for host descriptors.
///
/// # Errors
/// What seccomp(2) says.
pub fn reactor() -> io::Result<()> {
    install(include!(concat!(env!("OUT_DIR"), "/reactor.rs")))
}

fn install(program: &[sock_filter]) -> io::Result<()> {
    apply_filter(program).map_err(io::Error::other)
}
