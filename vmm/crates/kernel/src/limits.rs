//! Resource limits (getrlimit(2)).

use vmm_abi::{Errno, Rlimit};

use crate::file::MAX_FDS;
use crate::kernel::MAX_THREADS;
use crate::loader::STACK_BYTES;

/// How many there are (RLIM_NLIMITS).
pub(crate) const COUNT: usize = 16;
const INFINITE: u64 = u64::MAX;

/// The limits of a process, by RLIMIT_* number.
#[derive(Clone, Debug)]
pub struct ResourceLimits([Rlimit; COUNT]);

impl Default for ResourceLimits {
    fn default() -> Self {
        let mut limits = [Rlimit {
            current: INFINITE,
            maximum: INFINITE,
        }; COUNT];
        for (index, limit) in limits.iter_mut().enumerate() {
            let value = match u32::try_from(index).unwrap_or(u32::MAX) {
                libc::RLIMIT_STACK => STACK_BYTES,
                libc::RLIMIT_NOFILE => MAX_FDS as u64,
                libc::RLIMIT_NPROC => MAX_THREADS as u64,
                libc::RLIMIT_CORE | libc::RLIMIT_RTPRIO | libc::RLIMIT_NICE => 0,
                libc::RLIMIT_MEMLOCK => 0,
                _ => INFINITE,
            };
            (limit.current, limit.maximum) = (value, value);
        }
        Self(limits)
    }
}

impl ResourceLimits {
    /// A limit.
    ///
    /// # Errors
    /// EINVAL for a number that is none.
    pub fn get(&self, resource: i32) -> Result<Rlimit, Errno> {
        let index = usize::try_from(resource).map_err(|_| Errno::EINVAL)?;
        self.0.get(index).copied().ok_or(Errno::EINVAL)
    }

    /// All of them, by number.
    #[must_use]
    pub fn all(&self) -> &[Rlimit] {
        &self.0
    }

    /// The limit that counts now.
    #[must_use]
    pub fn soft(&self, resource: u32) -> u64 {
        let limit = self.0.get(resource as usize);
        limit.map_or(INFINITE, |limit| limit.current)
    }

    /// Changes a limit. Raising the maximum is not allowed, as without CAP_SYS_RESOURCE.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn set(&mut self, resource: i32, wanted: Rlimit) -> Result<(), Errno> {
        let index = usize::try_from(resource).map_err(|_| Errno::EINVAL)?;
        let limit = self.0.get_mut(index).ok_or(Errno::EINVAL)?;
        if wanted.current > wanted.maximum {
            return Err(Errno::EINVAL);
        }
        if wanted.maximum > limit.maximum {
            return Err(Errno::EPERM);
        }
        *limit = wanted;
        Ok(())
    }
}

impl TryFrom<&[Rlimit]> for ResourceLimits {
    type Error = std::array::TryFromSliceError;

    /// All of them, by number.
    fn try_from(limits: &[Rlimit]) -> Result<Self, Self::Error> {
        limits.try_into().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_only_ever_go_down_for_good() {
        let mut limits = ResourceLimits::default();
        let pair = |current, maximum| Rlimit { current, maximum };
        let files = libc::RLIMIT_NOFILE as i32;
        assert_eq!(limits.set(files, pair(10, 20)), Ok(()));
        assert_eq!(limits.set(files, pair(20, 20)), Ok(()));
        assert_eq!(limits.set(files, pair(20, 21)), Err(Errno::EPERM));
        assert_eq!(limits.set(files, pair(21, 20)), Err(Errno::EINVAL));
        assert_eq!(limits.soft(libc::RLIMIT_NOFILE), 20);
        assert_eq!(limits.set(-1, pair(0, 0)), Err(Errno::EINVAL));
        assert!(limits.get(16).is_err());
    }
}
