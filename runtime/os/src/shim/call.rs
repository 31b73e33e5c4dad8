//! One ioctl: a struct that begins with its size goes in and comes back. It does *not* know what the structs mean.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The size that a struct begins with.
#[allow(clippy::cast_possible_truncation)] // of a struct of the interface: some hundred bytes at most
pub(super) const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

/// Makes the call.
///
/// # Safety
/// `request` takes a `T` whose first member is its size. What the call writes besides, where the struct names an address
/// for it, is the caller's own to be written.
pub(super) unsafe fn call<T>(fd: BorrowedFd<'_>, request: u32, arguments: &mut T) -> io::Result<()> {
    // SAFETY: promised; the structs are plain numbers, so that whatever is written back is valid.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), std::ptr::from_mut(arguments)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a call was interrupted by a signal, and goes on when it is made again.
pub(super) fn interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}
