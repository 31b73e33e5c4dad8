//! The file systems of the guest and its swap space. What the kernel and the first script have mounted is not repeated.

use std::fs;
use std::io;

use limosa_guest::device::disk;
use limosa_guest::protocol::{DATA_SERIAL, SWAP_SERIAL};

use crate::tool;

/// Kind, options, and where.
const MOUNTS: [(&str, &str, &str); 6] = [
    ("tmpfs", "mode=755", "/run"),
    ("tmpfs", "mode=1777", "/tmp"),
    ("tmpfs", "mode=1777", "/dev/shm"),
    ("devpts", "mode=620,ptmxmode=666", "/dev/pts"),
    ("cgroup2", "", "/sys/fs/cgroup"),
    ("debugfs", "", "/sys/kernel/debug"),
];

/// Mounts everything and turns swapping on. The disk for tests is at `/run/limosa-data`.
///
/// # Errors
/// If one of it fails.
pub(crate) fn mount_all() -> io::Result<()> {
    for (kind, options, at) in MOUNTS {
        fs::create_dir_all(at)?;
        tool("mount", &["-t", kind, "-o", if options.is_empty() { "defaults" } else { options }, kind, at])?;
    }
    if let Some(swap) = disk(SWAP_SERIAL)? {
        let swap = swap.to_string_lossy();
        tool("mkswap", &[&swap])?;
        tool("swapon", &[&swap])?;
    }
    if let Some(data) = disk(DATA_SERIAL)? {
        std::os::unix::fs::symlink(data, "/run/limosa-data")?;
    }
    Ok(())
}
