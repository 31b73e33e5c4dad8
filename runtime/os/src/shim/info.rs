//! What a device offers, and the limit of what this process may have of it.

use std::io;
use std::os::fd::AsFd;

use super::call::{call, interrupted, size};
use super::uapi::{LIMOSA_INFO, LIMOSA_LIMIT, limosa_info, limosa_limit};
use super::{Shim, ShimError};

/// One kind of a device's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// All of it; zero: there is none of this kind.
    pub bytes: u64,
    /// What nobody uses now.
    pub free: u64,
}

/// What a device offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Bytes in a page, the unit of ranges and counts.
    pub page_size: u64,
    /// Bytes that are moved as one where alignment and the kernel allow it, if it can.
    pub huge_size: Option<u64>,
    /// Memory that the CPU does not address: its access brings a page back.
    pub private: DeviceMemory,
    /// Memory that the CPU addresses, too.
    pub coherent: DeviceMemory,
    /// Bytes of device memory that this open device may have in use.
    pub limit: u64,
    /// Bytes of device memory that it has in use, its pools included.
    pub used: u64,
    /// Bytes of the private memory that other devices can reach (peer-to-peer DMA): all of it, or zero, and then there are
    /// neither pools nor loads.
    pub p2p_bytes: u64,
    /// Bytes of the private memory that the administrator gave to the kernel's own users of such memory, as the NVMe
    /// target (the module's parameter `publish_mb`). They are never free.
    pub published_bytes: u64,
}

impl Info {
    fn of(info: &limosa_info) -> Result<Self, ShimError> {
        // Counts are divided by it.
        if !info.page_size.is_power_of_two() {
            let source =
                io::Error::new(io::ErrorKind::InvalidData, format!("it tells pages of {} bytes", info.page_size));
            return Err(ShimError::Failed { operation: ASKING, source });
        }
        Ok(Self {
            page_size: info.page_size.into(),
            huge_size: (info.huge_size > 0).then_some(info.huge_size.into()),
            private: DeviceMemory { bytes: info.private_bytes, free: info.private_free },
            coherent: DeviceMemory { bytes: info.coherent_bytes, free: info.coherent_free },
            limit: info.limit,
            used: info.used,
            p2p_bytes: info.p2p_bytes,
            published_bytes: info.published_bytes,
        })
    }
}

const ASKING: &str = "asking a device what it offers";

impl Shim {
    /// What the device offers now.
    ///
    /// # Errors
    /// [`ShimError::OtherProcess`], [`ShimError::DeviceGone`], [`ShimError::Failed`] where the answer makes no sense.
    pub fn info(&self) -> Result<Info, ShimError> {
        let mut info = limosa_info { size: size::<limosa_info>(), ..Default::default() };
        // SAFETY: the request's own struct, which names no address.
        while let Err(error) = unsafe { call(self.as_fd(), LIMOSA_INFO, &mut info) } {
            if !interrupted(&error) {
                return Err(ShimError::of(ASKING, error));
            }
        }
        Info::of(&info)
    }

    /// Sets the limit to `bytes` of device memory, or to what the administrator grants, if that is less. What is in use
    /// beyond it stays.
    ///
    /// # Errors
    /// [`ShimError::OtherProcess`], [`ShimError::DeviceGone`].
    pub fn limit(&self, bytes: u64) -> Result<(), ShimError> {
        let mut limit = limosa_limit { size: size::<limosa_limit>(), flags: 0, bytes };
        // SAFETY: the request's own struct, which names no address.
        while let Err(error) = unsafe { call(self.as_fd(), LIMOSA_LIMIT, &mut limit) } {
            if !interrupted(&error) {
                return Err(ShimError::of("limiting device memory", error));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_no_size_are_an_error() {
        for page_size in [0, 4095] {
            let error = Info::of(&limosa_info { page_size, ..Default::default() }).unwrap_err();
            assert!(error.to_string().contains(&page_size.to_string()), "{error}");
        }
        assert_eq!(Info::of(&limosa_info { page_size: 4096, ..Default::default() }).unwrap().page_size, 4096);
    }
}
