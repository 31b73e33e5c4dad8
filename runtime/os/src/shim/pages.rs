//! Ordinary memory in whole pages, zero and never touched: what a load can make device memory of. It does *not* know
//! devices.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr;

use limosa_model::{CHUNK, HostAddr, HostRange};

use super::ShimError;
use crate::reservation::to_usize;

/// Owned memory of this process, in whole pages and aligned to 2 MiB, so that a load can put it on the device as one. A
/// page of it is made when it is first touched, and zero until it is written.
///
/// It derefs to its bytes, which is an access where they are touched: what is on a device comes back.
#[derive(Debug)]
pub struct Pages {
    start: usize,
    len: usize,
    /// Of the mapping, which is longer for the sake of the alignment.
    mapped: (usize, usize),
}

impl Pages {
    /// `bytes` of memory, rounded up to pages of `page_size`, which [`super::Info`] tells.
    ///
    /// # Errors
    /// [`ShimError::OutOfMemory`] (addresses, too), [`ShimError::BadRange`] if there are none, or `page_size` is zero.
    pub fn new(bytes: u64, page_size: u64) -> Result<Self, ShimError> {
        let range = HostRange { start: HostAddr(0), len: bytes };
        if bytes == 0 || page_size == 0 {
            return Err(ShimError::BadRange { range });
        }
        let len = bytes.checked_next_multiple_of(page_size).ok_or(ShimError::OutOfMemory)?;
        let all = len.checked_add(CHUNK).ok_or(ShimError::OutOfMemory)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: fresh memory at an address of the kernel's choice.
        let raw = unsafe { libc::mmap(ptr::null_mut(), to_usize(all), protection, flags, -1, 0) };
        if raw == libc::MAP_FAILED {
            return Err(ShimError::of("mapping memory", io::Error::last_os_error()));
        }
        let raw = raw.expose_provenance();
        let start = raw.next_multiple_of(to_usize(CHUNK));
        Ok(Self { start, len: to_usize(len), mapped: (raw, to_usize(all)) })
    }

    /// Where it is, valid as long as `self`: for [`super::Shim::residency`] or [`super::Shim::view`].
    #[must_use]
    pub fn range(&self) -> HostRange {
        HostRange { start: HostAddr(self.start as u64), len: self.len as u64 }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped for as long as `self`, initialized (zero), and this process's own: only `&mut self` writes to it.
        unsafe { std::slice::from_raw_parts(ptr::with_exposed_provenance(self.start), self.len) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(self.start), self.len) }
    }
}

impl AsMut<[u8]> for Pages {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the whole of the mapping that `new` made.
        let result = unsafe { libc::munmap(ptr::with_exposed_provenance_mut(self.mapped.0), self.mapped.1) };
        debug_assert_eq!(result, 0, "munmap of our own mapping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_whole_aligned_and_ones_own() {
        let mut pages = Pages::new(5000, 4096).unwrap();
        assert_eq!((pages.len(), pages.range().start.0 % CHUNK), (8192, 0));
        assert!(pages.iter().all(|byte| *byte == 0));
        pages[8191] = 7;
        assert_eq!((pages[8190], pages[8191]), (0, 7));
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        for (bytes, page_size) in [(0, 4096), (1, 0)] {
            assert!(matches!(Pages::new(bytes, page_size), Err(ShimError::BadRange { .. })));
        }
        for bytes in [u64::MAX, u64::MAX - 4096, 1 << 62] {
            assert!(matches!(Pages::new(bytes, 4096), Err(ShimError::OutOfMemory)), "{bytes:#x}");
        }
    }
}
