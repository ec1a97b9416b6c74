//! Host ids of sandboxes: each has one of its own, as uid and as gid.

/// Which ids of a range are in use. The longest unused one comes next, so that an id rests before it is used again.
pub struct Slots {
    base: u32,
    used: Vec<bool>,
    next: usize,
}

impl Slots {
    pub fn new(base: u32, count: u32) -> Self {
        Self {
            base,
            used: vec![false; count as usize],
            next: 0,
        }
    }

    /// An unused id, or None when all are in use.
    pub fn take(&mut self) -> Option<u32> {
        let count = self.used.len();
        for at in (self.next..count).chain(0..self.next) {
            if let Some(used) = self.used.get_mut(at).filter(|used| !**used) {
                *used = true;
                self.next = at.saturating_add(1);
                return self.base.checked_add(u32::try_from(at).ok()?);
            }
        }
        None
    }

    /// Gives an id back; only when no process has it any more.
    pub fn give(&mut self, id: u32) {
        let at = id.checked_sub(self.base).map(|at| at as usize);
        if let Some(used) = at.and_then(|at| self.used.get_mut(at)) {
            *used = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_is_used_twice_at_once_and_a_returned_one_rests() {
        let mut slots = Slots::new(700_000, 3);
        assert_eq!(slots.take(), Some(700_000));
        assert_eq!(slots.take(), Some(700_001));
        slots.give(700_000);
        assert_eq!(slots.take(), Some(700_002));
        assert_eq!(slots.take(), Some(700_000));
        assert_eq!(slots.take(), None);
        slots.give(5);
        slots.give(u32::MAX);
        assert_eq!(slots.take(), None);
    }
}
