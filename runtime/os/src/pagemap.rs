//! What the kernel's page tables say of our own memory: for tests and diagnosis. It does *not* see inside huge pages.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use limosa_model::{HostAddr, PAGE};

/// For each of `pages` pages from `start` on, whether it is mapped in this process now.
///
/// # Errors
/// If `/proc/self/pagemap` cannot be read.
pub fn mapped(start: HostAddr, pages: usize) -> io::Result<Vec<bool>> {
    const PRESENT: u64 = 1 << 63;
    let file = File::open("/proc/self/pagemap")?;
    let mut bytes = vec![0u8; pages * 8];
    file.read_exact_at(&mut bytes, start.0 / PAGE * 8)?;
    let entries = bytes.chunks_exact(8).map(|entry| {
        let entry: [u8; 8] = entry.try_into().unwrap_or_default();
        u64::from_ne_bytes(entry)
    });
    Ok(entries.map(|entry| entry & PRESENT != 0).collect())
}
