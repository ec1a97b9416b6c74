//! A process that takes the place of one brought back before from the same snapshot, in the same memory.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmm_memory::{MemoryState, PageMap, SavedFile, Undone};
use vmm_snapshot::ProcessState;

use super::RestoreError;
use super::files::{Files, Opened};
use crate::clock;
use crate::kernel::{Kernel, ThreadShared};

impl Kernel {
    /// Fills an empty process whose memory was another's, which is gone with all its threads: what that one did to it is undone. Answers as
    /// [`Kernel::bring_back`], and what was undone.
    ///
    /// # Errors
    /// [`RestoreError`]; process and memory are then of no use.
    pub fn bring_again(
        self: &Arc<Self>,
        memory: &MemoryState,
        process: &ProcessState,
        snapshot: &SavedFile,
        streams: &Files,
        pages: &PageMap,
    ) -> Result<(Vec<Arc<ThreadShared>>, Undone), RestoreError> {
        let mut opened = Opened::new(&self.vfs);
        let undone = self
            .memory
            .reset(memory, snapshot, pages, &mut |path, with| {
                opened.open(path, with)
            })
            .map_err(RestoreError::Memory)?;
        if undone.special_gone {
            self.bring_back_clock(memory)?;
            // What was mapped just now is part of what later resets go back to.
            self.memory.keep_track();
        }
        let threads = self.bring_back_process(process, snapshot.as_fd(), streams)?;
        // What the one before has used is not this one's.
        let used = clock::read(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(0);
        self.processor_ns.fetch_sub(used, Ordering::Relaxed);
        Ok((threads, undone))
    }
}
