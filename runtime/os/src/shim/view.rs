//! A view: the device's page table for a range of this process's memory, as a second mapping of that memory. Where the
//! device is software, its threads use this mapping. It does *not* import the mapping anywhere, or use it itself.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use limosa_model::{CHUNK, Extent, HostAddr, HostRange};

use super::call::{call, interrupted, size};
use super::uapi::{
    LIMOSA_POLICY, LIMOSA_POLICY_MAP, LIMOSA_POLICY_MIGRATE, LIMOSA_VIEW, limosa_policy, limosa_policy_kind,
    limosa_view,
};
use super::{Shim, ShimError};
use crate::reservation::Reservation;

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
    window: Reservation,
    extent: Extent,
    mirrored: HostRange,
    fd: OwnedFd,
}

impl View {
    /// Where it is, valid as long as `self`.
    #[must_use]
    pub fn range(&self) -> HostRange {
        HostRange { start: self.window.base().offset(self.extent.start), len: self.extent.len }
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
    /// [`ShimError::OtherProcess`], [`ShimError::DeviceGone`].
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
        let window = window(range)?;
        let extent = Extent { start: range.start.0 % CHUNK, len: range.len };
        let view = View { window, extent, mirrored: range, fd };
        view.map().map_err(|error| ShimError::of("mapping a view", error))?;
        Ok(view)
    }
}

impl View {
    fn map(&self) -> io::Result<()> {
        let (start, len) = self.window.at(self.extent);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        // SAFETY: replaces exactly a range that the window owns.
        let mapped = unsafe { libc::mmap(start, len, protection, flags, self.fd.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Addresses for a view of `range`, outside of it also where nothing is mapped there yet.
fn window(range: HostRange) -> Result<Reservation, ShimError> {
    let mut in_the_way = Vec::new();
    loop {
        let window = Reservation::new(range.len.saturating_add(CHUNK)).map_err(|_| ShimError::OutOfMemory)?;
        let (start, end) = (window.base().0, window.base().0 + window.len());
        if end <= range.start.0 || range.start.0 + range.len <= start {
            return Ok(window);
        }
        // Kept until there is a good one. There are few: each covers an end of the range, or all of it.
        in_the_way.push(window);
    }
}
