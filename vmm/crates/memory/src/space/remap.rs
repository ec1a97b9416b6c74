//! mremap(2).

use vmm_abi::{Errno, Prot};

use super::host::host_protection;
use super::{AddressSpace, Backing, MapRequest, Place};
use crate::{Kind, Vma, page_down, page_up};

/// Bytes a process of Linux may address.
const TASK_BYTES: u64 = 1 << 47;

impl AddressSpace {
    /// Resizes or moves a mapping as mremap(2) does; answers its new address.
    ///
    /// # Errors
    /// EINVAL for bad arguments, EFAULT where the old range is not one mapping, ENOMEM for no room.
    pub fn remap(
        &self,
        old: u64,
        old_len: u64,
        new_len: u64,
        target: Option<u64>,
        may_move: bool,
    ) -> Result<u64, Errno> {
        if old != page_down(old) {
            return Err(Errno::EINVAL);
        }
        let new_len = page_up(new_len)
            .filter(|len| *len > 0 && *len <= TASK_BYTES)
            .ok_or(Errno::EINVAL)?;
        let old_end = self.range(old, old_len).ok_or(Errno::EFAULT)?;
        let old_len = old_end.saturating_sub(old);
        if old_len == 0 {
            return Err(Errno::EINVAL);
        }
        let mut layout = self.layout.write();
        let vma = layout.vmas.find(old).cloned().ok_or(Errno::EFAULT)?;
        if vma.end < old_end {
            return Err(Errno::EFAULT);
        }
        let part = vma.slice(old, old_end);
        if let Some(target) = target {
            let end = self.range(target, new_len).ok_or(Errno::EINVAL)?;
            if !may_move || (target < old_end && old < end) {
                return Err(Errno::EINVAL);
            }
        } else if new_len <= old_len {
            let keep = old.saturating_add(new_len);
            if keep < old_end {
                self.clear(&mut layout, keep, old_end)?;
            }
            return Ok(old);
        }
        // Only memory without a file can grow: the file is not kept with its mapping.
        if new_len > old_len && !matches!(part.kind, Kind::Anonymous | Kind::Heap) {
            return Err(Errno::ENOMEM);
        }
        let growth = |start: u64| MapRequest {
            allowed: part.allowed,
            place: Place::FixedNoReplace(start.saturating_add(old_len)),
            len: new_len.saturating_sub(old_len),
            prot: part.prot,
            backing: Backing::Anonymous,
            kind: part.kind.clone(),
            charge: part.charge,
        };
        if target.is_none() {
            let grown = self.map_locked(&mut layout, &growth(old));
            if grown.is_ok() {
                return Ok(old);
            }
            if !may_move {
                return Err(Errno::ENOMEM);
            }
        }
        let new = match target {
            Some(target) => target,
            None => self.place(&layout, Place::Anywhere(0), new_len)?,
        };
        let moved_len = old_len.min(new_len);
        self.clear(&mut layout, new, new.saturating_add(new_len))?;
        if new_len > old_len {
            self.map_locked(&mut layout, &growth(new))?;
        }
        self.move_pages(&part, new, moved_len)?;
        self.clear(&mut layout, old, old_end)?;
        let mut moved = part.slice(old, old.saturating_add(moved_len));
        (moved.start, moved.end) = (new, new.saturating_add(moved_len));
        layout.add(moved);
        Ok(new)
    }

    fn move_pages(&self, part: &Vma, new: u64, len: u64) -> Result<(), Errno> {
        let from = self.window.host(part.start, len).ok_or(Errno::EFAULT)?;
        let to = self.window.host(new, len).ok_or(Errno::EFAULT)?;
        self.mapper
            .protect(part.start, part.start.saturating_add(len), Prot::empty())?;
        // MREMAP_DONTUNMAP keeps the old range mapped, so that no other thread of the monitor can
        // be given an address inside the window meanwhile.
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let size = len as usize;
        self.note_change(part.start, len);
        self.note_change(new, len);
        // SAFETY: both ranges lie in the window, whose pages no Rust reference points to.
        let moved = unsafe { libc::mremap(from.cast(), size, size, flags, to.cast::<u8>()) };
        if moved == libc::MAP_FAILED {
            // The range is several mappings to the host: copy instead (private memory only).
            if !matches!(part.kind, Kind::Anonymous | Kind::Heap) {
                return Err(Errno::EFAULT);
            }
            self.copy_pages(part, new, len)?;
        }
        self.mapper.protect(new, new.saturating_add(len), part.prot)
    }

    fn copy_pages(&self, part: &Vma, new: u64, len: u64) -> Result<(), Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        self.host_map(new, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)?;
        self.host_protect(part.start, len, libc::PROT_READ)?;
        let mut buffer = vec![0u8; 1 << 20];
        let mut done = 0u64;
        while done < len {
            let count = len.saturating_sub(done).min(buffer.len() as u64);
            let chunk = buffer.get_mut(..count as usize).ok_or(Errno::EFAULT)?;
            self.read(part.start.saturating_add(done), chunk)?;
            self.write(new.saturating_add(done), chunk)?;
            done = done.saturating_add(count);
        }
        self.host_protect(new, len, host_protection(part.prot))
    }
}
