//! Device memory that other devices reach by DMA, for both views of a heap: pools of the kernel module's. It does *not* map
//! it ([`crate::FaultWindow::show_peer`] does), or say whether a file's data goes straight there ([`Shim::probe`] does).
//!
//! What another driver has published (`/sys/bus/pci/devices/*/p2pmem`) cannot be had so. Each mapping of it is other
//! memory (`p2pmem_alloc_mmap()` in the kernel), so that none of its pages has two addresses in a process, and the two
//! views need one each. [`published`] finds it, for errors to say so.

use std::fmt;
use std::fs;
#[cfg(any(test, feature = "inject"))]
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::OsError;
use crate::shim::{self, Pool, Shim};

/// Whose memory it is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerChoice {
    /// That of the first device of the kernel module's that has enough which others reach.
    #[default]
    First,
    /// That of `/dev/limosaN`.
    Shim(u32),
}

/// Whose memory it is. Its `Display` is a phrase such as `/dev/limosa0 at 0000:03:00.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerProvider {
    /// A device of the kernel module's.
    Shim {
        /// The number of its `/dev/limosaN`.
        number: u32,
        /// Its PCI address, as `lspci` writes it, if the system tells.
        address: Option<String>,
    },
    /// RAM that stands for it in tests.
    StandIn,
}

impl fmt::Display for PeerProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shim { number, address: Some(address) } => write!(f, "/dev/limosa{number} at {address}"),
            Self::Shim { number, address: None } => write!(f, "/dev/limosa{number}"),
            Self::StandIn => f.write_str("memory that stands for a device's"),
        }
    }
}

/// Memory of a device's that other devices reach, zeros at first. It is the device's again when this, all that was mapped
/// of it, and the last transfer are gone.
///
/// It takes two file descriptors.
#[derive(Debug)]
pub struct PeerMemory {
    source: Source,
    provider: PeerProvider,
    bytes: u64,
}

#[derive(Debug)]
enum Source {
    Pool {
        shim: Shim,
        pool: Pool,
    },
    #[cfg(any(test, feature = "inject"))]
    StandIn(File),
}

impl PeerMemory {
    /// Takes `bytes` of a device's memory: whole pages.
    ///
    /// # Errors
    /// [`OsError::NoPeerMemory`], which tells of each device why not.
    ///
    /// # Example
    /// ```
    /// use limosa_os::{PeerChoice, PeerMemory};
    ///
    /// match PeerMemory::take(PeerChoice::First, 2 << 20) {
    ///     Ok(memory) => println!("{} bytes of {}", memory.bytes(), memory.provider()),
    ///     Err(error) => println!("{error}"), // … the kernel module limosa is not loaded …
    /// }
    /// ```
    pub fn take(choice: PeerChoice, bytes: u64) -> Result<Self, OsError> {
        #[cfg(feature = "inject")]
        if let Some(stand_in) = crate::inject::peer_memory(bytes) {
            let file = stand_in.map_err(|reason| OsError::NoPeerMemory { bytes, reason })?;
            return Ok(Self::stand_in(file, bytes));
        }
        let numbers = match choice {
            PeerChoice::First => shim::devices(),
            PeerChoice::Shim(number) => vec![number],
        };
        let mut reasons = Vec::new();
        for number in &numbers {
            match Self::of_shim(*number, bytes) {
                Ok(memory) => return Ok(memory),
                Err(error) => reasons.push(format!("/dev/limosa{number}: {error}")),
            }
        }
        if numbers.is_empty() {
            reasons.push(
                "the kernel module limosa is not loaded, or bound to no device (kernels-driver/README.md)".into(),
            );
        }
        reasons.extend(published().iter().map(Published::reason));
        Err(OsError::NoPeerMemory { bytes, reason: reasons.join("; ") })
    }

    fn of_shim(number: u32, bytes: u64) -> Result<Self, shim::ShimError> {
        let shim = Shim::open(number)?;
        let pool = shim.pool(bytes)?;
        let provider = PeerProvider::Shim { number, address: shim.address() };
        Ok(Self { source: Source::Pool { shim, pool }, provider, bytes })
    }

    /// RAM in its place.
    #[cfg(any(test, feature = "inject"))]
    pub(crate) fn stand_in(file: File, bytes: u64) -> Self {
        #[cfg(feature = "inject")]
        crate::inject::use_peer_memory(bytes);
        Self { source: Source::StandIn(file), provider: PeerProvider::StandIn, bytes }
    }

    /// How much there is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whose it is.
    #[must_use]
    pub fn provider(&self) -> &PeerProvider {
        &self.provider
    }

    /// Whom to ask what becomes of data between it and a file ([`Shim::probe`]); `None`: nobody knows, only a transfer
    /// tells.
    #[must_use]
    pub fn shim(&self) -> Option<&Shim> {
        match &self.source {
            Source::Pool { shim, .. } => Some(shim),
            #[cfg(any(test, feature = "inject"))]
            Source::StandIn(_) => None,
        }
    }
}

impl AsFd for PeerMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::Pool { pool, .. } => pool.as_fd(),
            #[cfg(any(test, feature = "inject"))]
            Source::StandIn(file) => file.as_fd(),
        }
    }
}

#[cfg(feature = "inject")]
impl Drop for PeerMemory {
    fn drop(&mut self) {
        if matches!(self.source, Source::StandIn(_)) {
            crate::inject::give_peer_memory_back(self.bytes);
        }
    }
}

/// Memory of a device's that its driver, which is not the kernel module, has published for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The device's PCI address, as `lspci` writes it.
    pub address: String,
    /// Bytes of it that nobody uses.
    pub available: u64,
}

impl Published {
    fn reason(&self) -> String {
        format!(
            "the driver of {} has published {} bytes, but the kernel maps a page of those only once, and both sides need it",
            self.address, self.available
        )
    }
}

/// Memory that drivers have published. What the module itself gave to the kernel (its parameter `publish_mb`) is among it.
#[must_use]
pub fn published() -> Vec<Published> {
    let devices = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    let mut all: Vec<Published> = devices.filter_map(|entry| published_by(&entry)).collect();
    all.sort_by(|a, b| a.address.cmp(&b.address));
    all
}

fn published_by(device: &fs::DirEntry) -> Option<Published> {
    let number = |name: &str| {
        let text = fs::read_to_string(device.path().join("p2pmem").join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let available = number("published").filter(|published| *published > 0).and_then(|_| number("available"))?;
    Some(Published { address: device.file_name().into_string().ok()?, available })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_provider_the_error_says_what_is_missing_and_what_to_do() {
        let error = PeerMemory::take(PeerChoice::Shim(u32::MAX), 1 << 21).unwrap_err().to_string();
        for part in ["2097152 bytes", "/dev/limosa4294967295", "load the module"] {
            assert!(error.contains(part), "{error}");
        }
        if shim::devices().is_empty() {
            let error = PeerMemory::take(PeerChoice::First, 1 << 21).unwrap_err().to_string();
            assert!(error.contains("kernels-driver/README.md"), "{error}");
        }
    }

    #[test]
    fn a_provider_is_called_by_both_its_names() {
        let called =
            |address: Option<&str>| PeerProvider::Shim { number: 3, address: address.map(str::to_owned) }.to_string();
        assert_eq!(called(Some("0000:03:00.0")), "/dev/limosa3 at 0000:03:00.0");
        assert_eq!(called(None), "/dev/limosa3");
    }
}
