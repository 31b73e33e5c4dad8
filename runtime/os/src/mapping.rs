//! The runtime's own mapping of a memory file: where copies are made. It never faults in a way that anyone must
//! serve, and it does *not* follow what the application's or the GPU's window shows.

use std::os::fd::RawFd;
use std::sync::Arc;

use limosa_model::{Extent, HostRange};

use crate::copy::{self, Caching};
use crate::error::OsError;
use crate::inject;
use crate::memfile::MemoryFile;
use crate::reservation::Reservation;

/// A whole memory file, mapped for reading and writing.
#[derive(Debug)]
pub struct Mapping {
    reservation: Reservation,
    /// Last, so that the pages outlive the mapping.
    file: Arc<MemoryFile>,
}

impl Mapping {
    /// Maps `len` bytes of `file` from its start.
    ///
    /// # Errors
    /// [`OsError::AddressSpace`], [`OsError::Mapping`].
    pub fn new(file: Arc<MemoryFile>, len: u64) -> Result<Self, OsError> {
        let reservation = Reservation::new(len)?;
        map_file(&reservation, &file)?;
        Ok(Self { reservation, file })
    }

    /// The file behind it.
    #[must_use]
    pub fn file(&self) -> &MemoryFile {
        &self.file
    }

    /// Where it is, valid as long as `self`.
    #[must_use]
    pub fn range(&self) -> HostRange {
        self.reservation.range()
    }

    /// Reserves the pages of `extent` and maps them, so that copies through here meet no page fault.
    ///
    /// # Errors
    /// [`OsError::OutOfMemory`]: nothing was changed but pages that now exist.
    pub fn populate(&self, extent: Extent) -> Result<(), OsError> {
        self.file.reserve(extent)?;
        let (start, len) = self.reservation.at(extent);
        // SAFETY: a range of our own mapping.
        unsafe { populate(start, len) }
    }

    /// Makes a chunk that has no page yet of one huge page, where there are any, and maps it.
    ///
    /// # Errors
    /// [`OsError::OutOfMemory`].
    pub fn populate_huge(&self, chunk: Extent) -> Result<(), OsError> {
        inject::fails(inject::Call::Reserve).map_err(|_| self.file.out_of_memory(chunk.len))?;
        let (start, len) = self.reservation.at(chunk);
        // SAFETY: advice on a range of our own mapping; populating changes no contents.
        if unsafe { libc::madvise(start, len, libc::MADV_POPULATE_WRITE) } == 0 {
            return Ok(());
        }
        // Part of it may have been made.
        self.file.discard(chunk)?;
        Err(self.file.out_of_memory(chunk.len))
    }

    /// Copies `extent` from the same offsets of `from`.
    ///
    /// # Safety
    /// The pages of `extent` are reserved in both files, and nobody writes them through any mapping meanwhile.
    pub unsafe fn copy_from(&self, from: &Self, extent: Extent, caching: Caching) {
        let (target, len) = self.reservation.at(extent);
        let (source, _) = from.reservation.at(extent);
        // SAFETY: both ranges were checked to lie in mappings of different files, so they do not overlap; the caller
        // promises that they are reserved and not written.
        unsafe { copy::copy(target.cast(), source.cast(), len, caching) };
    }

    /// Where `extent` is, for copies by other means; valid as long as `self`.
    ///
    /// # Panics
    /// If it lies outside.
    #[must_use]
    pub fn pointer(&self, extent: Extent) -> *mut u8 {
        self.reservation.at(extent).0.cast()
    }

    /// Sets every byte of `extent` to `byte`.
    ///
    /// # Safety
    /// The pages of `extent` are reserved, and nobody reads or writes them through any mapping meanwhile.
    pub unsafe fn fill(&self, extent: Extent, byte: u8) {
        let (target, len) = self.reservation.at(extent);
        // SAFETY: checked to lie in our mapping; the caller promises that it is reserved and not used.
        unsafe { std::ptr::write_bytes(target.cast::<u8>(), byte, len) };
    }
}

/// Makes the pages of a range, and maps them for writing; contents stay.
///
/// # Safety
/// The range is of a mapping of the caller's.
pub(crate) unsafe fn populate(start: *mut libc::c_void, len: usize) -> Result<(), OsError> {
    let failed = |source| OsError::Mapping { operation: "populating", bytes: len as u64, source };
    inject::fails(inject::Call::Populate).map_err(failed)?;
    // SAFETY: advice on the caller's mapping.
    match unsafe { libc::madvise(start, len, libc::MADV_POPULATE_WRITE) } {
        0 => Ok(()),
        _ => Err(OsError::mapping("populating", len as u64)),
    }
}

/// Maps `file` over all of `reservation`, shared, readable and writable, not inherited by children.
pub(crate) fn map_file(reservation: &Reservation, file: &MemoryFile) -> Result<(), OsError> {
    map_part(reservation, file, Extent { start: 0, len: reservation.len() })
}

/// The same for a part, which replaces whatever is mapped there.
pub(crate) fn map_part(reservation: &Reservation, file: &MemoryFile, extent: Extent) -> Result<(), OsError> {
    map_fd(reservation, extent, file.raw(), extent.start)
}

/// Maps what a descriptor has from `offset` on over a part of `reservation`, as [`map_part`].
pub(crate) fn map_fd(reservation: &Reservation, extent: Extent, fd: RawFd, offset: u64) -> Result<(), OsError> {
    let (start, len) = reservation.at(extent);
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
    let offset = libc::off_t::try_from(offset).unwrap_or(libc::off_t::MAX);
    inject::fails(inject::Call::Map).map_err(|source| OsError::Mapping {
        operation: "mapping",
        bytes: extent.len,
        source,
    })?;
    // SAFETY: replaces exactly a range that `reservation` owns.
    let mapped = unsafe { libc::mmap(start, len, protection, flags, fd, offset) };
    if mapped == libc::MAP_FAILED {
        return Err(OsError::mapping("mapping", extent.len));
    }
    // SAFETY: advice on the range just mapped.
    if unsafe { libc::madvise(start, len, libc::MADV_DONTFORK) } != 0 {
        return Err(OsError::mapping("keeping from children", extent.len));
    }
    // Only a wish: on a memfd it asks for huge pages where the machine allows them on request.
    // SAFETY: advice on the range just mapped.
    unsafe { libc::madvise(start, len, libc::MADV_HUGEPAGE) };
    Ok(())
}
