//! Host threads that run guest threads. They outlive them: making one takes longer than a restored program takes to answer.

use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Stack of a host thread that serves one guest thread; handlers do not recurse.
const HOST_STACK_BYTES: usize = 256 << 10;
/// Host threads without work that are kept.
const MOST_IDLE: usize = 16;

type Work = Box<dyn FnOnce() + Send>;

/// A set of host threads.
#[derive(Default)]
pub struct Crew {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Those that have no work and will look for it.
    idle: usize,
    work: Vec<Work>,
}

impl Crew {
    /// Makes that many threads beforehand, so far as they may be kept.
    ///
    /// # Errors
    /// What the host says when it gives no more.
    pub fn grow(self: &Arc<Self>, count: usize) -> io::Result<()> {
        for _ in 0..count.min(MOST_IDLE) {
            self.spawn(None)?;
            let mut state = self.state.lock();
            state.idle = state.idle.saturating_add(1);
        }
        Ok(())
    }

    /// Has a thread do it, a new one if none is without work.
    ///
    /// # Errors
    /// What the host says when it gives no more.
    pub fn run(self: &Arc<Self>, work: Work) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.idle > state.work.len() {
            state.work.push(work);
            self.wake.notify_one();
            return Ok(());
        }
        drop(state);
        self.spawn(Some(work))
    }

    fn spawn(self: &Arc<Self>, first: Option<Work>) -> io::Result<()> {
        let crew = Arc::clone(self);
        std::thread::Builder::new()
            .name("guest".to_owned())
            .stack_size(HOST_STACK_BYTES)
            .spawn(move || crew.serve(first))
            .map(|_| ())
    }

    fn serve(&self, mut first: Option<Work>) {
        loop {
            let work = first.take().unwrap_or_else(|| self.next());
            work();
            let mut state = self.state.lock();
            if state.idle >= MOST_IDLE {
                return;
            }
            state.idle = state.idle.saturating_add(1);
        }
    }

    fn next(&self) -> Work {
        let mut state = self.state.lock();
        loop {
            if let Some(work) = state.work.pop() {
                state.idle = state.idle.saturating_sub(1);
                return work;
            }
            self.wake.wait(&mut state);
        }
    }
}
