//! Addresses as types: a CPU address is not a GPU address, even where the numbers agree.
//!
//! The types carry no arithmetic operators on purpose (a sum of two addresses has no meaning); an offset is added by
//! name. They do *not* own or check the memory they point into.

/// An address as CPU threads of this process use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddr(pub u64);

/// An address as kernels on the device use it, after translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceAddr(pub u64);

impl HostAddr {
    /// The address `bytes` further on; wraps at the end of the address space.
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl DeviceAddr {
    /// What must be added to `host` (wrapping) to reach `self`: the constant that `limosa.glsl` adds in its delta mode.
    #[must_use]
    pub const fn delta_from(self, host: HostAddr) -> u64 {
        self.0.wrapping_sub(host.0)
    }
}

/// A range of this process's address space that some reservation owns.
///
/// Only a description: whoever hands one out says how long it stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRange {
    /// First byte.
    pub start: HostAddr,
    /// Length in bytes.
    pub len: u64,
}

impl HostRange {
    /// Offset of `address` from the start in bytes, if it lies inside.
    #[must_use]
    pub fn offset_of(&self, address: HostAddr) -> Option<u64> {
        address.0.checked_sub(self.start.0).filter(|offset| *offset < self.len)
    }
}

/// The two ends between which blocks migrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// System RAM and the CPU's mapping.
    Host,
    /// VRAM and the GPU's mapping.
    Device,
}

/// What an access does, or what a mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Loads only.
    Read,
    /// Loads and stores.
    Write,
}
