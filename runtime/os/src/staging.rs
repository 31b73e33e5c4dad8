//! Memory that data passes through on its way from or to a file: pages that are there from the start, in huge pages where
//! they can be had. It does *not* know what is in it, or which part is in use.

use std::io;
use std::ptr::NonNull;

use limosa_model::{Extent, HostRange};

use crate::error::OsError;
use crate::mapping::populate;
use crate::reservation::{Reservation, to_usize};

/// Slots of the same size, one behind the other, each beginning on a page; unmapped when dropped. A child process does not
/// have it.
///
/// # Example
/// ```
/// let staging = limosa_os::Staging::new(4, 1 << 20)?;
/// assert_eq!(staging.range().len, 4 << 20);
/// assert_eq!(staging.slot(1).as_ptr().addr() - staging.slot(0).as_ptr().addr(), 1 << 20);
/// # Ok::<(), limosa_os::OsError>(())
/// ```
#[derive(Debug)]
pub struct Staging {
    memory: Reservation,
    slots: usize,
    bytes_each: u64,
}

impl Staging {
    /// What slots begin on, and are multiples of.
    const PAGE: u64 = 4096;

    /// Makes `slots` slots of `bytes_each` bytes, rounded up to whole pages; at least one of each. All is zeros.
    ///
    /// # Errors
    /// [`OsError::AddressSpace`]; [`OsError::Mapping`] where there is no memory left.
    pub fn new(slots: usize, bytes_each: usize) -> Result<Self, OsError> {
        let bytes = (bytes_each.max(1) as u64).checked_next_multiple_of(Self::PAGE);
        let all = bytes.and_then(|bytes| Some((bytes, bytes.checked_mul(slots.max(1) as u64)?)));
        let too_large = || io::Error::from_raw_os_error(libc::ENOMEM);
        let (bytes_each, len) = all.ok_or_else(|| OsError::AddressSpace { bytes: u64::MAX, source: too_large() })?;
        let memory = Reservation::new(len)?;
        let (start, len) = memory.at(Extent { start: 0, len });
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
        // SAFETY: replaces a range that the reservation owns.
        if unsafe { libc::mmap(start, len, protection, flags, -1, 0) } == libc::MAP_FAILED {
            return Err(OsError::mapping("mapping", len as u64));
        }
        // Pages that the kernel writes by their physical address must not be copied away from under it.
        // SAFETY: advice on the range just mapped.
        if unsafe { libc::madvise(start, len, libc::MADV_DONTFORK) } != 0 {
            return Err(OsError::mapping("keeping from children", len as u64));
        }
        // Only a wish.
        // SAFETY: as above.
        unsafe { libc::madvise(start, len, libc::MADV_HUGEPAGE) };
        // SAFETY: as above.
        unsafe { populate(start, len)? };
        Ok(Self { memory, slots: slots.max(1), bytes_each })
    }

    /// How many slots there are.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The length of a slot in bytes.
    #[must_use]
    pub fn bytes_each(&self) -> usize {
        to_usize(self.bytes_each)
    }

    /// Where a slot begins; valid as long as `self`.
    ///
    /// # Panics
    /// If there is no such slot.
    #[must_use]
    pub fn slot(&self, number: usize) -> NonNull<u8> {
        assert!(number < self.slots, "slot {number} of {}", self.slots);
        let extent = Extent { start: number as u64 * self.bytes_each, len: self.bytes_each };
        let (start, _) = self.memory.at(extent);
        NonNull::new(start.cast()).unwrap_or(NonNull::dangling())
    }

    /// All of it; valid as long as `self`.
    #[must_use]
    pub fn range(&self) -> HostRange {
        HostRange { start: self.memory.base(), len: self.slots as u64 * self.bytes_each }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_apart_zero_and_all_there() {
        let staging = Staging::new(3, 5000).unwrap();
        assert_eq!((staging.slots(), staging.bytes_each(), staging.range().len), (3, 8192, 3 * 8192));
        for number in 0..3 {
            let slot = staging.slot(number).as_ptr();
            assert_eq!(slot.addr() as u64, staging.range().start.0 + number as u64 * 8192);
            // SAFETY: the slot is that long, and nobody else's.
            let bytes = unsafe { std::slice::from_raw_parts_mut(slot, 8192) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(1);
        }
        assert_eq!((Staging::new(0, 0).unwrap().slots(), Staging::new(0, 0).unwrap().bytes_each()), (1, 4096));
        assert!(matches!(Staging::new(usize::MAX, usize::MAX), Err(OsError::AddressSpace { .. })));
        assert!(matches!(Staging::new(1 << 40, 1 << 20), Err(OsError::AddressSpace { .. })));
    }

    #[test]
    #[should_panic(expected = "slot 2 of 2")]
    fn there_is_no_slot_behind_the_last() {
        let _ = Staging::new(2, 4096).unwrap().slot(2);
    }
}
