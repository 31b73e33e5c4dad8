//! A stretch of this process's address space that nothing else will be put into. It does *not* hold memory.

use std::ptr;

use limosa_model::geometry::round_up;
use limosa_model::{CHUNK, Extent, HostAddr, HostRange};

use crate::error::OsError;

/// Owned address space, aligned to a chunk; unmapped when dropped, with whatever was mapped into it.
#[derive(Debug)]
pub struct Reservation {
    base: usize,
    len: usize,
}

impl Reservation {
    /// Reserves `len` bytes, rounded up to whole chunks.
    ///
    /// # Errors
    /// [`OsError::AddressSpace`].
    pub fn new(len: u64) -> Result<Self, OsError> {
        let failed = |source| OsError::AddressSpace { bytes: len, source };
        let chunk = to_usize(CHUNK);
        let wanted = usize::try_from(round_up(len.max(1), CHUNK)).map_err(|_| failed(too_large()))?;
        let padded = wanted.checked_add(chunk).ok_or_else(|| failed(too_large()))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches nothing of ours.
        let raw = unsafe { libc::mmap(ptr::null_mut(), padded, libc::PROT_NONE, flags, -1, 0) };
        if raw == libc::MAP_FAILED {
            return Err(failed(std::io::Error::last_os_error()));
        }
        let raw = raw as usize;
        let base = raw.next_multiple_of(chunk);
        unmap(raw, base - raw);
        unmap(base + wanted, raw + padded - (base + wanted));
        Ok(Self { base, len: wanted })
    }

    /// Reserves `len` bytes, rounded up to whole chunks, from the chunk boundary `base` on.
    ///
    /// # Errors
    /// [`OsError::AddressSpace`] where something is there already, or `base` is no chunk boundary.
    pub fn at_address(base: HostAddr, len: u64) -> Result<Self, OsError> {
        let failed = |source| OsError::AddressSpace { bytes: len, source };
        let wanted = usize::try_from(round_up(len.max(1), CHUNK)).map_err(|_| failed(too_large()))?;
        let base = usize::try_from(base.0).map_err(|_| failed(too_large()))?;
        if base == 0 || !base.is_multiple_of(to_usize(CHUNK)) {
            return Err(failed(std::io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: the flags keep it from replacing anything.
        let raw = unsafe { libc::mmap(base as *mut libc::c_void, wanted, libc::PROT_NONE, flags, -1, 0) };
        if raw == libc::MAP_FAILED {
            return Err(failed(std::io::Error::last_os_error()));
        }
        Ok(Self { base, len: wanted })
    }

    /// First address.
    #[must_use]
    pub fn base(&self) -> HostAddr {
        HostAddr(self.base as u64)
    }

    /// Length in bytes: whole chunks.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Never: a reservation holds at least a chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The whole of it, valid as long as `self`.
    #[must_use]
    pub fn range(&self) -> HostRange {
        HostRange { start: self.base(), len: self.len() }
    }

    /// Pointer to `extent` and its length, checked to lie inside: the one place where offsets become addresses.
    ///
    /// # Panics
    /// If it does not: a defect of the caller that must not reach memory.
    #[must_use]
    pub fn at(&self, extent: Extent) -> (*mut libc::c_void, usize) {
        let inside = extent.start.checked_add(extent.len).is_some_and(|end| end <= self.len());
        assert!(inside, "{extent:?} outside a reservation of {} bytes", self.len);
        ((self.base + to_usize(extent.start)) as *mut libc::c_void, to_usize(extent.len))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        unmap(self.base, self.len);
    }
}

/// Offsets and lengths checked against a reservation fit the address space.
#[allow(clippy::cast_possible_truncation)] // limosa supports 64-bit targets only, where this is lossless
pub(crate) const fn to_usize(value: u64) -> usize {
    const { assert!(size_of::<usize>() == 8, "limosa needs a 64-bit target") };
    value as usize
}

fn unmap(start: usize, len: usize) {
    if len > 0 {
        // SAFETY: the range is part of a mapping that this file made and gives up here.
        let result = unsafe { libc::munmap(start as *mut libc::c_void, len) };
        debug_assert_eq!(result, 0, "munmap of our own range");
    }
}

fn too_large() -> std::io::Error {
    std::io::Error::from_raw_os_error(libc::ENOMEM)
}
