//! Signals: what is pending, what is done about it (signal(7)).

use std::collections::BTreeMap;

use vmm_abi::*;

use crate::inside::Board;

/// Signals are numbered from 1 to this.
pub const LAST_SIGNAL: i32 = 64;
/// Handler values that are no addresses.
pub const SIG_DFL: u64 = 0;
/// Ignore the signal.
pub const SIG_IGN: u64 = 1;
/// Most queued real-time signals per thread or process (RLIMIT_SIGPENDING is far higher on Linux).
const MAX_QUEUED: usize = 1024;

/// The bit of a signal in a mask; 0 for a number that is none.
#[must_use]
pub fn bit(signal: i32) -> u64 {
    u32::try_from(signal)
        .ok()
        .and_then(|n| n.checked_sub(1))
        .and_then(|n| 1u64.checked_shl(n))
        .unwrap_or(0)
}

/// Bits that no mask may hold.
#[must_use]
pub fn unblockable() -> u64 {
    bit(SIGKILL) | bit(SIGSTOP)
}

/// What a signal does when no handler is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    Ignore,
    Terminate,
}

/// The default of a signal. Stopping is refused job control here: it is ignored, as for an orphan.
#[must_use]
pub fn default_action(signal: i32) -> DefaultAction {
    match signal {
        SIGCHLD | SIGCONT | SIGURG | SIGWINCH | SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU => {
            DefaultAction::Ignore
        }
        _ => DefaultAction::Terminate,
    }
}

/// Signals that wait to be delivered.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    queued: BTreeMap<i32, Vec<SigInfo>>,
    count: usize,
}

impl Pending {
    /// The signals as a mask.
    #[must_use]
    pub fn mask(&self) -> u64 {
        self.queued
            .keys()
            .fold(0, |mask, signal| mask | bit(*signal))
    }

    /// Adds a signal; a standard one (below 32) is held once only.
    ///
    /// # Errors
    /// EAGAIN when too many real-time signals are queued.
    pub fn push(&mut self, info: SigInfo) -> Result<(), Errno> {
        if info.signo < 32 && self.queued.contains_key(&info.signo) {
            return Ok(());
        }
        if self.count >= MAX_QUEUED {
            return Err(Errno::EAGAIN);
        }
        self.queued.entry(info.signo).or_default().push(info);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Counts `missed` more expirations of a timer whose signal still waits; false when none does.
    pub fn add_overruns(&mut self, signal: i32, timer: i32, missed: u64) -> bool {
        let of_timer = |info: &&mut SigInfo| {
            let id = info.words.first().map(|word| *word as i32);
            info.code == SI_TIMER && id == Some(timer)
        };
        let queued = self.queued.get_mut(&signal);
        let Some(info) = queued.and_then(|list| list.iter_mut().find(of_timer)) else {
            return false;
        };
        if let Some(word) = info.words.first_mut() {
            // struct: timer id, overrun, value.
            let count = (*word >> 32).saturating_add(missed).min(i32::MAX as u64);
            *word = (*word & 0xffff_ffff) | (count << 32);
        }
        true
    }

    /// Takes the lowest-numbered signal in `allowed`.
    pub fn take(&mut self, allowed: u64) -> Option<SigInfo> {
        let signal = *self
            .queued
            .keys()
            .find(|signal| bit(**signal) & allowed != 0)?;
        let list = self.queued.get_mut(&signal)?;
        let info = if list.is_empty() {
            None
        } else {
            Some(list.remove(0))
        };
        if list.is_empty() {
            self.queued.remove(&signal);
        }
        self.count = self.count.saturating_sub(1);
        info
    }

    /// All of them, in the order in which they would be taken.
    pub fn iter(&self) -> impl Iterator<Item = SigInfo> {
        self.queued.values().flatten().copied()
    }

    /// Forgets all of one signal (it has just been ignored).
    pub fn discard(&mut self, signal: i32) {
        if let Some(list) = self.queued.remove(&signal) {
            self.count = self.count.saturating_sub(list.len());
        }
    }
}

/// What all threads of a process share.
#[derive(Clone, Debug)]
pub struct Actions {
    table: Vec<SigAction>,
    pub pending: Pending,
    board: Board,
}

impl Actions {
    /// All of them the default.
    #[must_use]
    pub fn new(board: Board) -> Self {
        Self {
            table: vec![SigAction::default(); 65],
            pending: Pending::default(),
            board,
        }
    }

    /// The action of a signal.
    ///
    /// # Errors
    /// EINVAL for a number that is none.
    pub fn get(&self, signal: i32) -> Result<SigAction, Errno> {
        let index = usize::try_from(signal)
            .ok()
            .filter(|n| *n > 0)
            .ok_or(Errno::EINVAL)?;
        self.table.get(index).copied().ok_or(Errno::EINVAL)
    }

    /// Sets the action of a signal.
    ///
    /// # Errors
    /// EINVAL for a number that is none, SIGKILL and SIGSTOP.
    pub fn set(&mut self, signal: i32, action: SigAction) -> Result<(), Errno> {
        if bit(signal) & unblockable() != 0 {
            return Err(Errno::EINVAL);
        }
        let index = usize::try_from(signal)
            .ok()
            .filter(|n| *n > 0)
            .ok_or(Errno::EINVAL)?;
        let action = SigAction {
            mask: action.mask & !unblockable(),
            ..action
        };
        *self.table.get_mut(index).ok_or(Errno::EINVAL)? = action;
        let is_default = action == SigAction::default();
        self.board.default_action(signal, is_default);
        if self.is_ignored(signal) {
            self.pending.discard(signal);
        }
        Ok(())
    }

    /// Whether a signal would do nothing.
    #[must_use]
    pub fn is_ignored(&self, signal: i32) -> bool {
        match self.get(signal).map(|action| action.handler) {
            Ok(SIG_IGN) => true,
            Ok(SIG_DFL) => default_action(signal) == DefaultAction::Ignore,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(signo: i32) -> SigInfo {
        SigInfo {
            signo,
            ..SigInfo::default()
        }
    }

    #[test]
    fn standard_signals_are_held_once_and_real_time_ones_queue() {
        let mut pending = Pending::default();
        for signal in [SIGTERM, SIGTERM, 40, 40, SIGHUP] {
            pending.push(info(signal)).unwrap();
        }
        let mut order = Vec::new();
        while let Some(info) = pending.take(!0) {
            order.push(info.signo);
        }
        assert_eq!(order, [SIGHUP, SIGTERM, 40, 40]);
        pending.push(info(SIGTERM)).unwrap();
        assert!(pending.take(!bit(SIGTERM)).is_none());
        for _ in 0..MAX_QUEUED - 1 {
            pending.push(info(50)).unwrap();
        }
        assert_eq!(pending.push(info(50)), Err(Errno::EAGAIN));
    }

    #[test]
    fn wild_signal_numbers_are_refused() {
        let mut actions = Actions::new(Board::default());
        for signal in [i32::MIN, -1, 0, 65, i32::MAX, SIGKILL, SIGSTOP] {
            assert_eq!(
                actions.set(signal, SigAction::default()),
                Err(Errno::EINVAL),
                "{signal}"
            );
        }
        assert_eq!(bit(0) | bit(-1) | bit(65), 0);
        assert_eq!(bit(64), 1 << 63);
    }
}
