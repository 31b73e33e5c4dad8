//! The engine: carries out the model's plans through the operating system and the device.
//!
//! Faults of both sides, migration, eviction, prefetch, residency, admission of launches, streaming, loss of the device.
//! Decisions are limosa-model's; system calls and Vulkan calls are limosa-os's and limosa-gpu's.
//!
//! # Locks
//! In this order: the arena; the scheduler's state; the VRAM pool; a `Limit`'s order; a chunk's `Cell`; a view's own, or
//! the list of allocations, or of peers. A cell's lock is never held over a move, a system call that can sleep, or a wait; who meets a
//! busy or held block parks or waits for the cell's epoch. The scheduler's is held over an admission, which waits for
//! moves only. The thread that streams takes it when a transfer ends, holding nothing else. The notifier's comes last of all. Application code runs under none of them, nor on a thread that others
//! wait for: what launches kept is dropped by the application's threads, and what it has called when something is over is
//! called by the notifier's.

mod admission;
mod advise;
mod allocation;
mod batch;
mod cell;
mod check;
mod clock;
mod config;
mod core;
mod counters;
mod error;
mod event;
mod execute;
mod fault;
mod handler;
mod heap;
mod holds;
mod host_frames;
mod host_work;
mod launch;
mod limit;
mod loss;
mod notifier;
mod peers;
mod pins;
mod profile;
mod reaper;
mod record;
mod residency;
mod resize;
mod scheduler;
mod selftest;
mod shared;
mod side;
mod stand_in;
mod stream;
mod succession;
mod tally;
mod throttle;
mod user_event;
mod view;
mod vram;
mod watch;
mod whereabouts;

/// Faults of our own making, and a look into the page tables: for tests.
#[cfg(feature = "inject")]
pub mod inject {
    pub use limosa_gpu::inject::{VulkanCall, clear as find_device, fail as fail_vulkan, lose_device};
    pub use limosa_os::inject::*;
    pub use limosa_os::pagemap;
}

pub use allocation::{Allocation, AllocationOptions, Home};
pub use config::{DEVICE_BUDGET_MIN, DeviceClass, FaultMode, HeapConfig};
pub use counters::{AllocationCounters, Counters, KernelCounters};
pub use error::{LaunchFailure, PagerError, Share, TouchCause};
pub use event::{EventPoll, LaunchEvent, LaunchMark};
pub use heap::Heap;
pub use host_work::Marker;
pub use launch::{Launch, LaunchQueue};
pub use limosa_os::machine::{Faults, KernelShim, Machine, ShimDevice};
pub use limosa_os::shim::Direction;
pub use limosa_os::shim::{DeviceMemory, Info as ShimInfo, ShimError};
pub use limosa_os::{
    Backing, DataFile, FileError, FileErrorKind, FileFacts, FileKind, OpenHow, OsError, PeerChoice, PeerMemory,
    PeerProvider,
};
pub use profile::Profile;
pub use residency::{Residency, ResidencySummary};
pub use stream::{
    Part, Progress, Tier, TierReason, TierShare, TierVerdict, Transfer, TransferOptions, TransferReport, Transfers,
};
pub use tally::KernelTally;
pub use throttle::Thrashing;
pub use user_event::UserEvent;
pub use view::ViewKind;
pub use watch::{ResidencyChange, ResidencyEvent, ResidencyWatch, WATCHES_MAX};
pub use whereabouts::Whereabouts;
