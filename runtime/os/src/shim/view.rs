//! A view: the device's page table for a range of this process's memory, as a second mapping of that memory. Where the
//! device is software, its threads use this mapping. It does *not* import the mapping anywhere, or use it itself.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use limosa_model::{CHUNK, HostAddr, HostRange};

use super::call::{call, interrupted, size};
use super::uapi::{
    LIMOSA_POLICY, LIMOSA_POLICY_MAP, LIMOSA_POLICY_MIGRATE, LIMOSA_VIEW, limosa_policy, limosa_policy_kind,
    limosa_view,
};
use super::{Shim, ShimError};
use crate::reservation::{Reservation, to_usize};

/// What a device's access does with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Maps it where it is.
    Map,
    /// Moves it to the device's private memory first, if it can be moved and has not just come back.
    Migrate,
}

impl Policy {
    fn number(self) -> limosa_policy_kind {
        match self {
            Self::Map => LIMOSA_POLICY_MAP,
            Self::Migrate => LIMOSA_POLICY_MIGRATE,
        }
    }
}

/// A range of this process's memory as the device sees it. Byte *i* of [`Self::range`] is byte *i* of
/// [`Self::mirrored`], with the rights that the mirrored memory has at the moment of the access; where it has none, the
/// access is a SIGSEGV.
///
/// It owns addresses and hands them out as numbers. Memory that is reached through one of them is the memory that is
/// mirrored: whoever makes a pointer of it answers for aliasing and races as for any raw pointer, and for not using it when
/// this is dropped, or in a child, where the view is not.
#[derive(Debug)]
pub struct View {
    /// Before the descriptor: the mapping goes first.
    shown: Shown,
    mirrored: HostRange,
    fd: OwnedFd,
}

impl View {
    /// Where it is, valid as long as `self`.
    #[must_use]
    pub fn range(&self) -> HostRange {
        HostRange { start: HostAddr(self.shown.start as u64), len: self.shown.len as u64 }
    }

    /// What it shows.
    #[must_use]
    pub fn mirrored(&self) -> HostRange {
        self.mirrored
    }

    /// What must be added to a mirrored address (wrapping) to reach it in the view.
    #[must_use]
    pub fn delta(&self) -> u64 {
        self.range().start.0.wrapping_sub(self.mirrored.start.0)
    }

    /// Where the view shows `address`, if it lies in the mirrored range.
    #[must_use]
    pub fn address_of(&self, address: HostAddr) -> Option<HostAddr> {
        self.mirrored.offset_of(address).map(|offset| self.range().start.offset(offset))
    }

    /// Has accesses to `part` of the mirrored range do as `policy` says, from the next fault on.
    ///
    /// # Errors
    /// [`ShimError::NotMapped`] where `part` is not within the range, [`ShimError::BadRange`],
    /// [`ShimError::OtherProcess`], [`ShimError::DeviceGone`], [`ShimError::OutOfMemory`].
    pub fn set_policy(&self, part: HostRange, policy: Policy) -> Result<(), ShimError> {
        let mut arguments = limosa_policy {
            size: size::<limosa_policy>(),
            addr: part.start.0,
            len: part.len,
            policy: policy.number(),
            ..Default::default()
        };
        // SAFETY: the request's own struct, which names no memory to be written.
        while let Err(error) = unsafe { call(self.fd.as_fd(), LIMOSA_POLICY, &mut arguments) } {
            if !interrupted(&error) {
                return Err(ShimError::on_range("setting a policy", part, part.start, error));
            }
        }
        Ok(())
    }
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Shim {
    /// A view of `range`, which need not be mapped yet. It lies as far into a chunk as the range, so that 2 MiB can be
    /// mapped as one.
    ///
    /// # Errors
    /// [`ShimError::BadRange`], [`ShimError::Unsupported`], [`ShimError::OutOfMemory`] (addresses, too),
    /// [`ShimError::Occupied`] (`range` overlaps the addresses of a view, which no view can show),
    /// [`ShimError::TooManyFiles`], [`ShimError::OtherProcess`], [`ShimError::DeviceGone`].
    pub fn view(&self, range: HostRange, policy: Policy) -> Result<View, ShimError> {
        let mut arguments = limosa_view {
            size: size::<limosa_view>(),
            addr: range.start.0,
            len: range.len,
            policy: policy.number(),
            fd: -1,
            ..Default::default()
        };
        // SAFETY: the request's own struct, which names no memory to be written.
        while let Err(error) = unsafe { call(self.as_fd(), LIMOSA_VIEW, &mut arguments) } {
            if !interrupted(&error) {
                return Err(ShimError::on_range("making a view", range, range.start, error));
            }
        }
        // SAFETY: the kernel has just made it, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(arguments.fd) };
        let shown = Shown::new(fd.as_fd(), range)?;
        Ok(View { shown, mirrored: range, fd })
    }
}

/// The mapping of a view, of its length; unmapped when dropped.
#[derive(Debug)]
struct Shown {
    start: usize,
    len: usize,
}

impl Shown {
    /// How often another thread may be quicker to take addresses that were free a moment ago.
    const ATTEMPTS: u32 = 64;

    fn new(fd: BorrowedFd<'_>, range: HostRange) -> Result<Self, ShimError> {
        for _ in 0..Self::ATTEMPTS {
            let start = free_addresses(range)?;
            match Self::at(fd, start, to_usize(range.len)) {
                Ok(shown) => return Ok(shown),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ShimError::of("mapping a view", error)),
            }
        }
        Err(ShimError::OutOfMemory)
    }

    /// Maps it where nothing is yet. Over a reservation, a mapping that fails would leave a hole, and no way to tell
    /// whose it is: here, what fails has changed nothing.
    fn at(fd: BorrowedFd<'_>, start: usize, len: usize) -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE);
        // SAFETY: the flags keep it from replacing anything.
        let mapped = unsafe { libc::mmap(start as *mut libc::c_void, len, protection, flags, fd.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { start, len }) }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // SAFETY: the whole of a mapping that `at` made, and nothing else.
        let result = unsafe { libc::munmap(self.start as *mut libc::c_void, self.len) };
        debug_assert_eq!(result, 0, "munmap of our own mapping");
    }
}

/// An address for a view of `range`, as far into a chunk, where nothing was mapped a moment ago, and outside of the range
/// also where nothing is mapped there yet.
fn free_addresses(range: HostRange) -> Result<usize, ShimError> {
    let mut in_the_way = Vec::new();
    loop {
        let window = Reservation::new(range.len.saturating_add(CHUNK)).map_err(|_| ShimError::OutOfMemory)?;
        let (start, end) = (window.base().0, window.base().0 + window.len());
        if end <= range.start.0 || range.start.0 + range.len <= start {
            return Ok(to_usize(start + range.start.0 % CHUNK));
        }
        // Kept until there is a good one. There are few: each covers an end of the range, or all of it.
        in_the_way.push(window);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const LEN: usize = 3 << 12;
    const MIRRORED: HostRange = HostRange { start: HostAddr(5 << 12), len: LEN as u64 };

    /// Stands for a view: a file that can be mapped.
    fn file() -> File {
        // SAFETY: the name ends in NUL; the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"limosa-view".as_ptr(), libc::MFD_CLOEXEC)) };
        file.set_len(LEN as u64).unwrap();
        file
    }

    /// Whether the file is mapped anywhere in this process.
    fn is_mapped(file: &File) -> bool {
        let inode = format!(" {} ", file.metadata().unwrap().ino());
        std::fs::read_to_string("/proc/self/maps").unwrap().contains(&inode)
    }

    #[test]
    fn a_mapping_lies_as_far_into_a_chunk_as_its_range_and_goes_as_a_whole() {
        let file = file();
        let shown = Shown::new(file.as_fd(), MIRRORED).unwrap();
        let start = shown.start;
        assert_eq!((start as u64 % CHUNK, shown.len), (MIRRORED.start.0, LEN));
        // SAFETY: mapped for writing, and nobody else's.
        unsafe { std::ptr::write_bytes(start as *mut u8, 7, LEN) };
        assert!(is_mapped(&file));
        drop(shown);
        assert!(!is_mapped(&file));
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut &file, &mut bytes).unwrap();
        assert_eq!(bytes, [7; LEN]);
    }

    #[test]
    fn what_is_mapped_already_is_neither_replaced_nor_unmapped() {
        let (other, file) = (file(), file());
        let occupant = Shown::new(other.as_fd(), MIRRORED).unwrap();
        // SAFETY: mapped for writing, and nobody else's.
        unsafe { (occupant.start as *mut u8).write(9) };
        let error = Shown::at(file.as_fd(), occupant.start, LEN).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        // SAFETY: still mapped, or this test ends by a signal.
        assert_eq!(unsafe { (occupant.start as *const u8).read() }, 9);
    }

    #[test]
    fn a_mapping_that_fails_leaves_nothing_mapped() {
        let null = File::open("/dev/null").unwrap();
        let start = free_addresses(MIRRORED).unwrap();
        // Opened for reading alone: no shared mapping for writing.
        assert!(Shown::at(null.as_fd(), start, LEN).is_err());
        assert!(matches!(Shown::new(null.as_fd(), MIRRORED), Err(ShimError::Failed { .. })));
    }
}
