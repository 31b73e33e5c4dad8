//! A doorbell for a thread that sleeps on a descriptor. It carries no message, only the fact.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::error::OsError;

/// An eventfd. Ringing takes one system call and is allowed in a signal handler.
#[derive(Debug)]
pub struct Wakeup {
    fd: OwnedFd,
}

impl Wakeup {
    /// A bell not yet rung.
    ///
    /// # Errors
    /// [`OsError::Mapping`] if the process has no descriptor left.
    pub fn new() -> Result<Self, OsError> {
        // SAFETY: a system call without memory.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            let source = io::Error::last_os_error();
            return Err(OsError::Mapping { operation: "creating an eventfd", bytes: 0, source });
        }
        // SAFETY: the kernel has just given us this descriptor.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Rings.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: writes eight bytes of ours. A full counter (EAGAIN) means that the bell is ringing already.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Sleeps until it rings.
    pub fn wait(&self) {
        let mut fds = [libc::pollfd { fd: self.raw(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: the array is ours; its length is given.
        unsafe { libc::poll(fds.as_mut_ptr(), 1, -1) };
    }

    /// Stops the ringing.
    pub fn silence(&self) {
        let mut count = 0u64;
        // SAFETY: reads eight bytes into ours. EAGAIN means that it was not ringing.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
