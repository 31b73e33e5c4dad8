//! The interface's structs and numbers by short names: the bindings that are made from its header, and its counters as an
//! array.

#![allow(missing_docs)] // the header's words

use limosa_os::shim::uapi as header;

pub use header::{
    limosa_counters as Counters, limosa_info as Info, limosa_limit as Limit, limosa_load as Load,
    limosa_migrate as Migrate, limosa_policy as Policy, limosa_pool as Pool, limosa_probe as Probe,
    limosa_residency as Residency, limosa_view as View,
};

pub const INFO: u64 = header::LIMOSA_INFO as u64;
pub const LIMIT: u64 = header::LIMOSA_LIMIT as u64;
pub const MIGRATE: u64 = header::LIMOSA_MIGRATE as u64;
pub const RESIDENCY: u64 = header::LIMOSA_RESIDENCY as u64;
pub const COUNTERS: u64 = header::LIMOSA_COUNTERS as u64;
pub const VIEW: u64 = header::LIMOSA_VIEW as u64;
pub const POLICY: u64 = header::LIMOSA_POLICY as u64;
pub const POOL: u64 = header::LIMOSA_POOL as u64;
pub const PROBE: u64 = header::LIMOSA_PROBE as u64;
pub const LOAD: u64 = header::LIMOSA_LOAD as u64;
pub const SYSTEM: u32 = header::LIMOSA_PLACE_SYSTEM;
pub const PRIVATE: u32 = header::LIMOSA_PLACE_PRIVATE;
pub const COHERENT: u32 = header::LIMOSA_PLACE_COHERENT;
pub const SCOPE_FILE: u32 = header::LIMOSA_SCOPE_FILE;
pub const SCOPE_DEVICE: u32 = header::LIMOSA_SCOPE_DEVICE;
pub const POLICY_MAP: u32 = header::LIMOSA_POLICY_MAP;
pub const POLICY_MIGRATE: u32 = header::LIMOSA_POLICY_MIGRATE;
pub const DIRECT: u32 = header::LIMOSA_VERDICT_DIRECT;
pub const LAST_VERDICT: u32 = header::LIMOSA_VERDICT_UNKNOWN;
pub const LAST_ROUTE: u32 = header::LIMOSA_ROUTE_HOST_BRIDGE;

/// How many counters there are.
pub const COUNTERS_TOLD: usize = 17;
pub const COUNTER_NAMES: [&str; COUNTERS_TOLD] = [
    "pages_to_device",
    "huge_to_device",
    "pages_to_system",
    "huge_to_system",
    "cpu_faults",
    "cpu_fault_pages",
    "gpu_faults",
    "gpu_fault_pages",
    "gpu_pages_moved",
    "gpu_moves_held",
    "gpu_moves_full",
    "gpu_retries",
    "invalidations",
    "pages_evicted",
    "pages_loaded",
    "huge_loaded",
    "pages_load_copied",
];

/// The counters in their order.
pub fn counts(of: &Counters) -> [u64; COUNTERS_TOLD] {
    [
        of.pages_to_device,
        of.huge_to_device,
        of.pages_to_system,
        of.huge_to_system,
        of.cpu_faults,
        of.cpu_fault_pages,
        of.gpu_faults,
        of.gpu_fault_pages,
        of.gpu_pages_moved,
        of.gpu_moves_held,
        of.gpu_moves_full,
        of.gpu_retries,
        of.invalidations,
        of.pages_evicted,
        of.pages_loaded,
        of.huge_loaded,
        of.pages_load_copied,
    ]
}
