//! The guest's stand-ins for cards: PCI functions whose BAR 2 is memory that the host can look into, and its disks. It
//! finds them and binds them; it does not know what a driver does with them.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Vendor and device of QEMU's shared memory.
const IVSHMEM: (&str, &str) = ("0x1af4", "0x1110");
const FUNCTIONS: &str = "/sys/bus/pci/devices";
/// What reading a file of sysfs says whose device is being removed.
const ENODEV: i32 = 19;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its address on the bus, as in sysfs: `0000:03:00.0`.
    pub address: String,
    /// Where its memory begins on the bus.
    pub start: u64,
    /// The size of its memory in bytes.
    pub size: u64,
}

/// The devices in their order on the bus, which is also how [`crate::host`] numbers them.
///
/// # Errors
/// If sysfs cannot be read.
pub fn list() -> io::Result<Vec<Device>> {
    let mut devices = Vec::new();
    for entry in fs::read_dir(FUNCTIONS)? {
        match device(&entry?.path()) {
            Ok(device) => devices.extend(device),
            // It goes at this moment: the file is not there, or what it tells of.
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    devices.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(devices)
}

/// The device of a folder in sysfs, if the function is one.
fn device(path: &Path) -> io::Result<Option<Device>> {
    let read = |name: &str| fs::read_to_string(path.join(name));
    if (read("vendor")?.trim(), read("device")?.trim()) != IVSHMEM {
        return Ok(None);
    }
    let address = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let bar = bar(&read("resource")?, 2).ok_or_else(|| io::Error::other(format!("{address}: no BAR 2")))?;
    Ok(Some(Device { address, start: bar.start, size: bar.end - bar.start }))
}

/// The device file of the NVMe disk with a serial number, if there is one.
///
/// # Errors
/// If sysfs cannot be read.
pub fn disk(serial: &str) -> io::Result<Option<PathBuf>> {
    for disk in fs::read_dir("/sys/block")? {
        let disk = disk?;
        let says =
            |name: &str, what: &str| fs::read_to_string(disk.path().join(name)).is_ok_and(|text| text.trim() == what);
        // Of a disk with several paths each path has a hidden one of its own.
        if says("device/serial", serial) && says("hidden", "0") {
            return Ok(Some(PathBuf::from("/dev").join(disk.file_name())));
        }
    }
    Ok(None)
}

impl Device {
    /// Its memory's addresses on the bus.
    #[must_use]
    pub fn memory(&self) -> Range<u64> {
        self.start..self.start + self.size
    }

    /// Its folder in sysfs.
    #[must_use]
    pub fn sysfs(&self) -> PathBuf {
        PathBuf::from(FUNCTIONS).join(&self.address)
    }

    /// The driver that it is bound to.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        let link = fs::read_link(self.sysfs().join("driver")).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    }

    /// Unbinds it from its driver; returns when the driver has let go of it.
    ///
    /// # Errors
    /// If it is bound to none.
    pub fn unbind(&self) -> io::Result<()> {
        fs::write(self.sysfs().join("driver/unbind"), &self.address)
    }

    /// Binds it to a driver that knows it.
    ///
    /// # Errors
    /// The driver's own, or if there is no such driver.
    pub fn bind(&self, driver: &str) -> io::Result<()> {
        fs::write(format!("/sys/bus/pci/drivers/{driver}/bind"), &self.address)
    }
}

/// The addresses of a BAR, from the lines `start end flags` of sysfs's `resource`.
fn bar(resource: &str, bar: usize) -> Option<Range<u64>> {
    let mut words = resource.lines().nth(bar)?.split_whitespace();
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (start, end) = (number()?, number()?);
    (end > start).then(|| start..end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bars_end_is_the_address_after_its_last() {
        let text = "0x00000000fe800000 0x00000000fe8000ff 0x0000000000040200\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x0000000380000000 0x000000039fffffff 0x000000000014220c\n";
        assert_eq!(bar(text, 2), Some(0x3_8000_0000..0x3_a000_0000));
        assert_eq!(bar(text, 1), None);
        assert_eq!(bar(text, 3), None);
    }
}
