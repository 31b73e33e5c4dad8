//! What the module's errors mean. Its header gives each errno one meaning; it is said here in words, and goes no further.

use std::io;
use std::path::{Path, PathBuf};

use limosa_model::{HostAddr, HostRange};

/// A failure of the kernel module's, named by what it means and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// There is no such device.
    #[error("{} is not there: load the module limosa and bind it to a device (kernels-driver/README.md)", path.display())]
    Absent {
        /// What was to be opened.
        path: PathBuf,
    },
    /// This user may not open it.
    #[error("this user may not open {}: have its group or mode changed (kernels-driver/README.md)", path.display())]
    Forbidden {
        /// What was to be opened.
        path: PathBuf,
    },
    /// Something else has that name.
    #[error("{} is no device of the module limosa", path.display())]
    NoShim {
        /// What was opened.
        path: PathBuf,
    },
    /// The device was opened by a process that this one is a child of.
    #[error("the device was opened by another process: open it anew after fork()")]
    OtherProcess,
    /// The driver was unbound from the device.
    #[error("the device is gone: its driver was unbound, and what was on it is in system memory")]
    DeviceGone,
    /// Nothing is left of the device's memory.
    #[error("the device's memory is full: move something back, or wait for other processes to")]
    DeviceFull,
    /// This open device may have no more of it.
    #[error("the limit of device memory is reached: raise it, or move something back")]
    LimitReached,
    /// Nothing is left of the system's memory.
    #[error("the kernel is out of system memory: free some")]
    OutOfMemory,
    /// Nothing is mapped at an address, or not for what was asked.
    #[error("nothing that the call could use is mapped at {:#x}", address.0)]
    NotMapped {
        /// The first such address.
        address: HostAddr,
    },
    /// The range is none of whole pages.
    #[error("{} bytes from {:#x} on are no range of whole pages: align both ends", range.len, range.start.0)]
    BadRange {
        /// What was given.
        range: HostRange,
    },
    /// The device or the kernel has no such thing.
    #[error("{operation} is not to be had from this device: `limosa doctor` tells what it offers")]
    Unsupported {
        /// What was tried.
        operation: &'static str,
    },
    /// There is one already.
    #[error("{operation}: there is one already, or it would overlap its own range")]
    Occupied {
        /// What was tried.
        operation: &'static str,
    },
    /// Something that the interface has no meaning for.
    #[error("{operation} failed: {source}")]
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
            _ => Self::Failed { operation: "opening a device", source },
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

    /// Of a call that names no range.
    pub(super) fn of(operation: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM) => Self::OtherProcess,
            Some(libc::ENODEV) => Self::DeviceGone,
            Some(libc::ENOSPC) => Self::DeviceFull,
            Some(libc::EDQUOT) => Self::LimitReached,
            Some(libc::ENOMEM) => Self::OutOfMemory,
            Some(libc::EOPNOTSUPP) => Self::Unsupported { operation },
            Some(libc::EBUSY) => Self::Occupied { operation },
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
        assert!(matches!(of(libc::EOPNOTSUPP), ShimError::Unsupported { .. }));
        assert!(matches!(of(libc::EBUSY), ShimError::Occupied { .. }));
        for errno in [libc::ENOTTY, libc::E2BIG] {
            assert!(matches!(of(errno), ShimError::Failed { .. }));
        }
    }
}
