//! What this process holds of the kernel's: to see that failures leave nothing behind.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::fs;

/// Descriptors, mappings, and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub descriptors: usize,
    pub mappings: usize,
    pub threads: usize,
}

impl Held {
    /// Wait for nobody else to open anything: take a turn.
    pub fn now() -> Self {
        let count = |path: &str| fs::read_dir(path).unwrap().count();
        Self {
            descriptors: count("/proc/self/fd"),
            mappings: fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
            threads: count("/proc/self/task"),
        }
    }

    /// Whether no more is held than `before`, but for what a memory allocator maps.
    pub fn within(&self, before: &Self) -> bool {
        const ALLOCATORS: usize = 16;
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.mappings <= before.mappings + ALLOCATORS
    }
}
