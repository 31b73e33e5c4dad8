//! The client of the kernel module limosa (`kernels-driver/`): pages of this process's memory in a device's memory, page
//! tables of the device's that follow this process's own, and files that go straight into device memory. Without the module there is no `/dev/limosaN`, and
//! [`devices`] is empty. It does *not* decide what moves when, or know Vulkan.
//!
//! # What is safe
//! Everything here, on any address. To move a page changes where its bytes are and never what they are: the kernel takes
//! the mapping away, copies, maps the copy, and whoever touches the page meanwhile waits in its page fault. So a move
//! races with no access, and breaks no reference or guard, of this process or of a device; that an address is mapped is
//! for the kernel to check, and it moves memory of this process alone. A [`View`] shows memory a second time: it hands
//! out addresses, and to use one takes a raw pointer and the promise that goes with it. A [`Window`] of a [`Pool`] is
//! memory that devices write at any time: its bytes are copied, never referred to. A request in flight owns the memory that
//! it is about, and gives it back when it has ended.
//!
//! # Files
//! There are two ways from a disk into device memory without system RAM. A [`Pool`] is memory for [`Transfers`], in both
//! directions, that stays where it is. [`Shim::load`] fills ordinary memory, which comes back when the CPU touches it.
//! [`Shim::probe`] tells beforehand whether data goes straight; no transfer tells it afterwards.
//!
//! # Processes
//! The module answers the process that opened the device, and no child of it: [`ShimError::OtherProcess`]. Open the
//! device anew in the child. What is on the device is memory all the same: a child shares and copies it as any other.
//!
//! # Example
//! ```
//! use limosa_os::shim::{self, Place, Shim};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let Some(number) = shim::devices().first().copied() else { return Ok(()) }; // the module is not loaded
//! let device = Shim::open(number)?;
//! let page = device.info()?.page_size;
//! let numbers: Vec<u32> = (0..1 << 20).collect();
//! let range = shim::whole_pages(&numbers, page);
//! let moved = device.migrate(range, Place::Private)?;
//! println!("{} pages moved: {:?}", moved.moved, device.residency(range)?.pages);
//! assert_eq!(numbers[77_777], 77_777); // the CPU's access brings a page back
//! # Ok(())
//! # }
//! ```

mod call;
mod counters;
mod error;
mod info;
mod load;
mod migrate;
mod pages;
mod pool;
mod probe;
mod residency;
mod transfer;
pub mod uapi;
mod view;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use limosa_model::{HostAddr, HostRange};

pub use counters::{Counters, Scope};
pub use error::ShimError;
pub use info::{DeviceMemory, Info};
pub use load::{Load, LoadError, Loaded, NotStarted};
pub use migrate::{MigrateError, Migrated, Place};
pub use pages::Pages;
#[cfg(test)]
pub(crate) use pool::tests::{file as test_pool, is_mapped as test_is_mapped};
pub use pool::{Pool, Window};
pub use probe::{Alignment, Direction, Probe, Reason, Route, Verdict};
pub use residency::{PageCounts, PageState, Residency};
pub use transfer::{NotSubmitted, Transferred, Transfers};
pub use view::{Policy, View};

/// An open device of the module's, `/dev/limosaN`. Memory that it moved stays where it is when this is dropped.
#[derive(Debug)]
pub struct Shim {
    file: File,
}

impl Shim {
    /// Opens `/dev/limosaN`.
    ///
    /// # Errors
    /// [`ShimError::Absent`], [`ShimError::Forbidden`], [`ShimError::NoShim`], [`ShimError::TooManyFiles`],
    /// [`ShimError::OutOfMemory`], [`ShimError::DeviceGone`].
    pub fn open(number: u32) -> Result<Self, ShimError> {
        Self::open_path(format!("/dev/limosa{number}"))
    }

    /// Opens the device at `path`. A file that is none is opened and closed, and asked nothing: another driver might
    /// take the module's calls for its own.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self, ShimError> {
        let path = path.as_ref();
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|error| ShimError::opening(path, error))?;
        if !is_device(&file).map_err(|error| ShimError::opening(path, error))? {
            return Err(ShimError::NoShim { path: path.into() });
        }
        let shim = Self { file };
        shim.info()?;
        Ok(shim)
    }

    /// The PCI address of the device that the module is bound to, as `lspci` writes it; `None`: it is gone.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        let entry = entry(&self.file).ok()??;
        // `…/0000:03:00.0/misc/limosaN`
        Some(entry.parent()?.parent()?.file_name()?.to_str()?.to_owned())
    }
}

/// Whether the kernel knows an open file as the module's device, whatever the name it was opened by.
fn is_device(file: &File) -> io::Result<bool> {
    Ok(entry(file)?.is_some_and(|entry| names_device(&entry)))
}

/// Where sysfs has an open device. Of the module's it is `…/misc/limosaN`; where there is none, the device is gone, or
/// there is no sysfs to ask.
fn entry(file: &File) -> io::Result<Option<PathBuf>> {
    let metadata = file.metadata()?;
    if !metadata.file_type().is_char_device() {
        return Ok(None);
    }
    let number = metadata.rdev();
    let link = format!("/sys/dev/char/{}:{}", libc::major(number), libc::minor(number));
    Ok(fs::read_link(link).ok())
}

/// Whether an entry of sysfs is a device of the module's.
fn names_device(entry: &Path) -> bool {
    let number = entry.file_name().and_then(|name| name.to_str()?.strip_prefix("limosa")?.parse::<u32>().ok());
    number.is_some() && entry.parent().is_some_and(|class| class.ends_with("misc"))
}

impl AsFd for Shim {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The numbers of the devices that are there, in order. That one is there does not say that this user may open it.
#[must_use]
pub fn devices() -> Vec<u32> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("limosa")?.parse().ok();
    let mut numbers: Vec<u32> = entries.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// The pages of `page_size` bytes that lie within `slice` as a whole: what can be moved without its neighbours. The range
/// is empty where there are none, and where `page_size` is zero.
#[must_use]
pub fn whole_pages<T>(slice: &[T], page_size: u64) -> HostRange {
    let start = slice.as_ptr().addr() as u64;
    let end = start + size_of_val(slice) as u64;
    let Some(first) = start.checked_next_multiple_of(page_size) else {
        return HostRange { start: HostAddr(start), len: 0 };
    };
    HostRange { start: HostAddr(first), len: (end / page_size * page_size).saturating_sub(first) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_of_the_module_is_named() {
        assert!(matches!(Shim::open(u32::MAX), Err(ShimError::Absent { .. })));
        let null = Shim::open_path("/dev/null").unwrap_err();
        assert!(null.to_string().contains("/dev/null"), "{null}");
        assert!(matches!(null, ShimError::NoShim { .. }));
        let file = std::env::temp_dir().join(format!("limosa-no-device-{}", std::process::id()));
        fs::write(&file, "").unwrap();
        let opened = Shim::open_path(&file);
        fs::remove_file(&file).unwrap();
        assert!(matches!(opened, Err(ShimError::NoShim { .. })));
    }

    #[test]
    fn a_device_is_known_by_the_kernels_name_for_it() {
        let names = |entry: &str| names_device(Path::new(entry));
        assert!(names("../../devices/pci0000:00/0000:03:00.0/misc/limosa0"));
        assert!(names("../../devices/pci0000:00/0000:03:00.0/misc/limosa17"));
        for other in
            ["../../devices/virtual/misc/kvm", "../../devices/virtual/mem/limosa0", "../misc/limosa", "limosa0", ""]
        {
            assert!(!names(other), "{other}");
        }
    }

    #[test]
    fn whole_pages_exclude_what_is_shared_with_neighbours() {
        let bytes = vec![0u8; 3 << 12];
        let start = bytes.as_ptr().addr() as u64;
        let range = whole_pages(&bytes, 1 << 12);
        assert!(range.start.0 >= start && range.start.0 + range.len <= start + (3 << 12));
        assert!(range.len >= 2 << 12 && range.start.0.is_multiple_of(1 << 12));
        assert_eq!(whole_pages(&bytes[..100], 1 << 12).len, 0);
        assert_eq!(whole_pages(&bytes, 0).len, 0);
    }
}
