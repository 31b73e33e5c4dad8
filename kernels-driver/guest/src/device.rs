//! The guest's stand-ins for cards: PCI functions whose BAR 2 is memory that the host can look into. It finds and binds
//! them; it does not know what a driver does with them.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Vendor and device of QEMU's shared memory.
const IVSHMEM: (&str, &str) = ("0x1af4", "0x1110");
const FUNCTIONS: &str = "/sys/bus/pci/devices";

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its address on the bus, as in sysfs: `0000:03:00.0`.
    pub address: String,
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
        let path = entry?.path();
        let read = |name: &str| fs::read_to_string(path.join(name));
        if (read("vendor")?.trim(), read("device")?.trim()) != IVSHMEM {
            continue;
        }
        let address = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let size = bar_size(&read("resource")?, 2).ok_or_else(|| io::Error::other(format!("{address}: no BAR 2")))?;
        devices.push(Device { address, size });
    }
    devices.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(devices)
}

impl Device {
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

/// The size of a BAR, from the lines `start end flags` of sysfs's `resource`.
fn bar_size(resource: &str, bar: usize) -> Option<u64> {
    let mut words = resource.lines().nth(bar)?.split_whitespace();
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (start, end) = (number()?, number()?);
    (end > start).then(|| end - start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bars_size_is_its_last_address_less_its_first_and_one() {
        let text = "0x00000000fe800000 0x00000000fe8000ff 0x0000000000040200\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x0000000380000000 0x000000039fffffff 0x000000000014220c\n";
        assert_eq!(bar_size(text, 2), Some(512 << 20));
        assert_eq!(bar_size(text, 1), None);
        assert_eq!(bar_size(text, 3), None);
    }
}
