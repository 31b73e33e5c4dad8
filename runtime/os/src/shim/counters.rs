//! What happened on a device so far.

use std::os::fd::AsFd;

use super::call::{call, interrupted, size};
use super::uapi::{LIMOSA_COUNTERS, LIMOSA_SCOPE_DEVICE, LIMOSA_SCOPE_FILE, limosa_counters};
use super::{Shim, ShimError};

/// Whose events are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This open device's, its views included.
    File,
    /// All of the device's since the driver was bound to it.
    Device,
}

/// Events so far; they only go up. What comes back is counted for whoever moved it to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pages moved to the device, for whatever reason.
    pub pages_to_device: u64,
    /// How often 2 MiB of them were moved as one.
    pub huge_to_device: u64,
    /// Pages moved back, for whatever reason.
    pub pages_to_system: u64,
    /// How often 2 MiB of them were moved as one.
    pub huge_to_system: u64,
    /// CPU accesses that found a page on the device.
    pub cpu_faults: u64,
    /// Pages that they brought back, neighbours included.
    pub cpu_fault_pages: u64,
    /// Accesses through a view that found no mapping.
    pub gpu_faults: u64,
    /// Pages that they mapped in the view.
    pub gpu_fault_pages: u64,
    /// Pages that they moved to the device first.
    pub gpu_pages_moved: u64,
    /// Times that the policy wanted a move and the guard against thrashing left the page.
    pub gpu_moves_held: u64,
    /// Times that the policy wanted a move and the device or the limit was full.
    pub gpu_moves_full: u64,
    /// Times that a fault began anew, as the memory changed under it.
    pub gpu_retries: u64,
    /// Times that the kernel took mappings back from a view.
    pub invalidations: u64,
    /// Pages moved back because the device was unbound.
    pub pages_evicted: u64,
    /// Pages that came from files and stand on the device.
    pub pages_loaded: u64,
    /// How often 2 MiB of them were one.
    pub huge_loaded: u64,
    /// Pages of loads that the CPU copied to where a page was already.
    pub pages_load_copied: u64,
}

impl Counters {
    /// What happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let passed = |of: fn(&Self) -> u64| of(self).wrapping_sub(of(earlier));
        Self {
            pages_to_device: passed(|all| all.pages_to_device),
            huge_to_device: passed(|all| all.huge_to_device),
            pages_to_system: passed(|all| all.pages_to_system),
            huge_to_system: passed(|all| all.huge_to_system),
            cpu_faults: passed(|all| all.cpu_faults),
            cpu_fault_pages: passed(|all| all.cpu_fault_pages),
            gpu_faults: passed(|all| all.gpu_faults),
            gpu_fault_pages: passed(|all| all.gpu_fault_pages),
            gpu_pages_moved: passed(|all| all.gpu_pages_moved),
            gpu_moves_held: passed(|all| all.gpu_moves_held),
            gpu_moves_full: passed(|all| all.gpu_moves_full),
            gpu_retries: passed(|all| all.gpu_retries),
            invalidations: passed(|all| all.invalidations),
            pages_evicted: passed(|all| all.pages_evicted),
            pages_loaded: passed(|all| all.pages_loaded),
            huge_loaded: passed(|all| all.huge_loaded),
            pages_load_copied: passed(|all| all.pages_load_copied),
        }
    }
}

impl Shim {
    /// The counters.
    ///
    /// # Errors
    /// [`ShimError::OtherProcess`], [`ShimError::DeviceGone`].
    pub fn counters(&self, scope: Scope) -> Result<Counters, ShimError> {
        let scope = match scope {
            Scope::File => LIMOSA_SCOPE_FILE,
            Scope::Device => LIMOSA_SCOPE_DEVICE,
        };
        let mut all = limosa_counters { size: size::<limosa_counters>(), scope, ..Default::default() };
        // SAFETY: the request's own struct, which names no address.
        while let Err(error) = unsafe { call(self.as_fd(), LIMOSA_COUNTERS, &mut all) } {
            if !interrupted(&error) {
                return Err(ShimError::of("reading counters", error));
            }
        }
        Ok(Counters {
            pages_to_device: all.pages_to_device,
            huge_to_device: all.huge_to_device,
            pages_to_system: all.pages_to_system,
            huge_to_system: all.huge_to_system,
            cpu_faults: all.cpu_faults,
            cpu_fault_pages: all.cpu_fault_pages,
            gpu_faults: all.gpu_faults,
            gpu_fault_pages: all.gpu_fault_pages,
            gpu_pages_moved: all.gpu_pages_moved,
            gpu_moves_held: all.gpu_moves_held,
            gpu_moves_full: all.gpu_moves_full,
            gpu_retries: all.gpu_retries,
            invalidations: all.invalidations,
            pages_evicted: all.pages_evicted,
            pages_loaded: all.pages_loaded,
            huge_loaded: all.huge_loaded,
            pages_load_copied: all.pages_load_copied,
        })
    }
}
