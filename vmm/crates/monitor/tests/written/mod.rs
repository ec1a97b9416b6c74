//! What stands in the file of a snapshot.

use std::fs::File;
use std::os::unix::fs::FileExt;

use vmm_snapshot::{Snapshot, TRAILER_BYTES, Trailer, decode};

pub fn state_of(file: &File) -> Snapshot {
    let size = file.metadata().unwrap().len();
    let mut end = [0; TRAILER_BYTES];
    let place = size - TRAILER_BYTES as u64;
    file.read_exact_at(&mut end, place).unwrap();
    let trailer = Trailer::from_bytes(&end, size).unwrap();
    let mut state = vec![0; usize::try_from(trailer.state).unwrap()];
    file.read_exact_at(&mut state, trailer.pages).unwrap();
    decode(&trailer, &state).unwrap()
}

/// Whether every thread was frozen in a system call. One that was on its way to its own goes on from there in each clone, sooner or later than others.
pub fn all_stand(snapshot: &Snapshot) -> bool {
    snapshot.process.threads.iter().all(|t| t.call.is_some())
}
