//! What the module's errors mean. Its header gives each errno one meaning; it is said here in words, and goes no further.

use std::io;
use std::path::{Path, PathBuf};

use limosa_model::{HostAddr, HostRange};

/// A failure of the kernel module's, named by what it means and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// There is no such device: load the module, and bind it to one.
    #[error("{} is not there: load the module limosa and bind it to a device (kernels-driver/README.md)", path.display())]
    Absent {
        /// What was to be opened.
        path: PathBuf,
    },
    /// This user may not open it: have the file's group or mode changed.
    #[error("this user may not open {}: have its group or mode changed (kernels-driver/README.md)", path.display())]
    Forbidden {
        /// What was to be opened.
        path: PathBuf,
    },
    /// Something else has that name, as far as sysfs tells: open another, remove it, or mount /sys.
    #[error("{} is no device of the module limosa, as /sys tells: open one that is, and see that /sys is mounted", path.display())]
    NoShim {
        /// What was opened.
        path: PathBuf,
    },
    /// The device was opened by a process that this one is a child of: open it anew.
    #[error("the device was opened by another process: open it anew after fork()")]
    OtherProcess,
    /// The driver was unbound from the device: bind it again, and open the device anew.
    #[error(
        "the device is gone: its driver was unbound, and what was on it is in system memory; bind it again, and open the \
         device anew"
    )]
    DeviceGone,
    /// Nothing is left of the device's memory: move something back, or wait for others to.
    #[error("the device's memory is full: move something back, or wait for other processes to")]
    DeviceFull,
    /// This open device may have no more of it: raise the limit ([`super::Shim::limit`]), or move something back.
    #[error("the limit of device memory is reached: raise it, or move something back")]
    LimitReached,
    /// Nothing is left of the system's memory, or of addresses: free some.
    #[error("the kernel is out of system memory, or the process out of addresses: free some")]
    OutOfMemory,
    /// No file descriptor is left to the process or the system: close some, or raise the limit.
    #[error("no file descriptor is left: close some, or raise `ulimit -n` or the sysctl fs.file-max")]
    TooManyFiles,
    /// Nothing is mapped at an address, or not for what was asked: map it, or name another range.
    #[error("nothing that the call could use is mapped at {:#x}: map it, or name another range", address.0)]
    NotMapped {
        /// The first such address.
        address: HostAddr,
    },
    /// The range is none of whole pages, empty, or goes past the last address: align both ends, to whole pages that are
    /// there.
    #[error("{} bytes from {:#x} on are no range of whole pages: align both ends", range.len, range.start.0)]
    BadRange {
        /// What was given.
        range: HostRange,
    },
    /// The device or the kernel has no such thing: ask [`super::Shim::info`] what there is.
    #[error("{operation} is not to be had from this device: `limosa doctor` tells what it offers")]
    Unsupported {
        /// What was tried.
        operation: &'static str,
    },
    /// There is one already, or it would overlap what may not be overlapped: a view cannot show a view. Drop the other, or
    /// name another range.
    #[error("{operation}: there is one already, or it would overlap a view: drop that one, or name another range")]
    Occupied {
        /// What was tried.
        operation: &'static str,
    },
    /// A file is not open, or not for that direction: open it for reading, or for writing.
    #[error("{operation}: the file is not open for that: open it for reading, or for writing where it is written")]
    NotOpen {
        /// What was tried.
        operation: &'static str,
    },
    /// A file could not be read or written there: its device says so, or is gone. The kernel's log tells more.
    #[error("{operation} failed: {source}; see the kernel's log (dmesg) for its device")]
    FileFailed {
        /// What was tried.
        operation: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Direct I/O of that file does not begin at that byte, or is not of that length: both are multiples of
    /// [`super::Alignment::offset`], and end below 2⁶³.
    #[error(
        "from byte {offset} on the file has no such direct I/O: `Shim::probe` tells what offset and length must be"
    )]
    BadOffset {
        /// Which byte.
        offset: u64,
    },
    /// This file's data does not go straight into this device's memory, or the memory cannot stand there:
    /// [`super::Shim::probe`] tells the first; the second is for memory that is private, anonymous, and not locked.
    #[error(
        "that file's data does not go straight into this device's memory (`Shim::probe` tells why), or the memory cannot \
         stand there: it must be private and anonymous"
    )]
    NotDirect,
    /// The kernel does not make this transfer: an offset, length or address is not aligned as [`super::Shim::probe`]
    /// tells, or the file's device does not reach this one, as it tells, too.
    #[error(
        "the kernel does not make this transfer: offset, length or address are not aligned, or the devices do not reach \
         each other; `Shim::probe` tells both"
    )]
    NoTransfer,
    /// As many transfers are under way as there is room for: wait for one.
    #[error("as many transfers are under way as there is room for: wait for one")]
    QueueFull,
    /// This process may not use io_uring: allow it.
    #[error(
        "this process may not use io_uring: set the sysctl kernel.io_uring_disabled to 0, or allow it in the sandbox: {source}"
    )]
    NoQueue {
        /// The kernel's reason.
        source: io::Error,
    },
    /// Something that the interface has no meaning for: the module is of another version, or has a defect to be reported.
    #[error("{operation} failed: {source}; see that the module is of this version, else report this")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl ShimError {
    pub(super) fn opening(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.raw_os_error() {
            // ENXIO and ENODEV: the name outlived the device.
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => Self::Absent { path },
            Some(libc::EACCES | libc::EPERM) => Self::Forbidden { path },
            _ => Self::of("opening a device", source),
        }
    }

    /// Of a call on `range` that came as far as `cursor`.
    pub(super) fn on_range(operation: &'static str, range: HostRange, cursor: HostAddr, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EFAULT) => Self::NotMapped { address: cursor },
            Some(libc::EINVAL) => Self::BadRange { range },
            _ => Self::of(operation, source),
        }
    }

    /// Of a load from `offset` on into `range` that came as far as `cursor`.
    pub(super) fn of_load(range: HostRange, offset: u64, cursor: HostAddr, source: io::Error) -> Self {
        match source.raw_os_error() {
            // One of the two is malformed. Pages are no smaller than this anywhere.
            Some(libc::EINVAL) if range.len > 0 && (range.start.0 | range.len).is_multiple_of(4096) => {
                Self::BadOffset { offset }
            }
            Some(libc::EOPNOTSUPP) => Self::NotDirect,
            _ => Self::on_range("loading a file into device memory", range, cursor, source),
        }
    }

    /// Of reading or writing a file. What it says of the file is the file's own, and not what the module means by it.
    pub(super) fn of_transfer(operation: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            // The second: the file's queue takes no pages of another device.
            Some(libc::EINVAL | libc::EREMOTEIO) => Self::NoTransfer,
            // The window's pages were taken away.
            Some(libc::EFAULT) => Self::DeviceGone,
            Some(libc::EBADF) => Self::NotOpen { operation },
            Some(libc::ENOMEM) => Self::OutOfMemory,
            _ => Self::FileFailed { operation, source },
        }
    }

    /// Of a call that names no range.
    pub(super) fn of(operation: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM) => Self::OtherProcess,
            Some(libc::ENODEV) => Self::DeviceGone,
            Some(libc::ENOSPC) => Self::DeviceFull,
            Some(libc::EDQUOT) => Self::LimitReached,
            Some(libc::ENOMEM) => Self::OutOfMemory,
            Some(libc::EMFILE | libc::ENFILE) => Self::TooManyFiles,
            Some(libc::EOPNOTSUPP) => Self::Unsupported { operation },
            Some(libc::EBUSY) => Self::Occupied { operation },
            Some(libc::EBADF) => Self::NotOpen { operation },
            Some(libc::EIO) => Self::FileFailed { operation, source },
            _ => Self::Failed { operation, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_of_the_header_has_its_meaning() {
        let range = HostRange { start: HostAddr(0x1000), len: 0x2000 };
        let of = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            ShimError::on_range("trying", range, HostAddr(0x2000), error)
        };
        assert!(matches!(of(libc::EFAULT), ShimError::NotMapped { address: HostAddr(0x2000) }));
        assert!(matches!(of(libc::EINVAL), ShimError::BadRange { .. }));
        assert!(matches!(of(libc::EPERM), ShimError::OtherProcess));
        assert!(matches!(of(libc::ENODEV), ShimError::DeviceGone));
        assert!(matches!(of(libc::ENOSPC), ShimError::DeviceFull));
        assert!(matches!(of(libc::EDQUOT), ShimError::LimitReached));
        assert!(matches!(of(libc::ENOMEM), ShimError::OutOfMemory));
        assert!(matches!(of(libc::EMFILE), ShimError::TooManyFiles));
        assert!(matches!(of(libc::ENFILE), ShimError::TooManyFiles));
        assert!(matches!(of(libc::EOPNOTSUPP), ShimError::Unsupported { .. }));
        assert!(matches!(of(libc::EBUSY), ShimError::Occupied { .. }));
        assert!(matches!(of(libc::EBADF), ShimError::NotOpen { .. }));
        assert!(matches!(of(libc::EIO), ShimError::FileFailed { .. }));
        for errno in [libc::ENOTTY, libc::E2BIG] {
            assert!(matches!(of(errno), ShimError::Failed { .. }));
        }
    }

    #[test]
    fn what_a_load_cannot_do_is_told_from_what_it_was_given_wrong() {
        let of = |start, len, errno| {
            let (range, error) = (HostRange { start: HostAddr(start), len }, io::Error::from_raw_os_error(errno));
            ShimError::of_load(range, 77, HostAddr(0x2000), error)
        };
        assert!(matches!(of(0x1000, 0x2000, libc::EINVAL), ShimError::BadOffset { offset: 77 }));
        for (start, len) in [(0x1001, 0x2000), (0x1000, 0x2001), (0x1000, 0)] {
            assert!(matches!(of(start, len, libc::EINVAL), ShimError::BadRange { .. }), "{start:#x} {len:#x}");
        }
        assert!(matches!(of(0x1000, 0x2000, libc::EOPNOTSUPP), ShimError::NotDirect));
        assert!(matches!(of(0x1000, 0x2000, libc::EFAULT), ShimError::NotMapped { address: HostAddr(0x2000) }));
        assert!(matches!(of(0x1000, 0x2000, libc::EIO), ShimError::FileFailed { .. }));
        assert!(matches!(of(0x1000, 0x2000, libc::ENOSPC), ShimError::DeviceFull));
    }

    #[test]
    fn what_a_file_says_is_not_said_of_the_device() {
        let of = |errno| ShimError::of_transfer("writing", io::Error::from_raw_os_error(errno));
        for errno in [libc::EINVAL, libc::EREMOTEIO] {
            assert!(matches!(of(errno), ShimError::NoTransfer), "{errno}");
        }
        assert!(matches!(of(libc::EFAULT), ShimError::DeviceGone));
        assert!(matches!(of(libc::EBADF), ShimError::NotOpen { .. }));
        for errno in [libc::ENOSPC, libc::EDQUOT, libc::EPERM, libc::ENODEV, libc::EIO] {
            assert!(matches!(of(errno), ShimError::FileFailed { .. }), "{errno}");
        }
    }
}
