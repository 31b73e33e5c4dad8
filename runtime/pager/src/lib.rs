//! The engine: carries out the model's plans through the operating system and the device.
//!
//! Faults of both sides, migration, prefetch, residency, launches, loss of the device. Decisions are limosa-model's;
//! system calls and Vulkan calls are limosa-os's and limosa-gpu's. It does *not* evict or hold yet: a launch's
//! accesses are served by faults, and a full device memory is an error.
//!
//! # Locks
//! A chunk's state has a mutex (`Cell`). It is never held over a move, a system call that can sleep, or a wait; who
//! meets a busy block parks or waits for the cell's epoch. Order: `Vram` before `Cell`; nothing is locked inside
//! `Cell`. Application code runs under none of them.

mod cell;
mod check;
mod config;
mod core;
mod counters;
mod error;
mod execute;
mod fault;
mod handler;
mod heap;
mod launch;
mod loss;
mod residency;
mod selftest;
mod stand_in;
mod vram;

/// Faults of our own making, and a look into the page tables: for tests.
#[cfg(feature = "inject")]
pub mod inject {
    pub use limosa_gpu::inject::{clear as find_device, lose_device};
    pub use limosa_os::inject::*;
    pub use limosa_os::pagemap;
}

pub use config::{DEVICE_BUDGET_MIN, FaultMode, HeapConfig};
pub use counters::Counters;
pub use error::{LaunchFailure, PagerError, TouchCause};
pub use heap::Heap;
pub use launch::{Launch, LaunchEvent, LaunchMark, LaunchQueue};
pub use limosa_os::machine::{Faults, Machine};
pub use limosa_os::{Backing, OsError};
pub use residency::{Residency, ResidencySummary};
