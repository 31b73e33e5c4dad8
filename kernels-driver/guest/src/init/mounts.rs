//! The file systems of the guest and its swap space. What the kernel and the first script have mounted is not repeated.

use std::fs;
use std::io;

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
        tool("mkswap", &[&swap])?;
        tool("swapon", &[&swap])?;
    }
    if let Some(data) = disk(DATA_SERIAL)? {
        std::os::unix::fs::symlink(data, "/run/limosa-data")?;
    }
    Ok(())
}

/// The device file of the NVMe disk with a serial number.
fn disk(serial: &str) -> io::Result<Option<String>> {
    for disk in fs::read_dir("/sys/block")? {
        let disk = disk?;
        let says =
            |name: &str, what: &str| fs::read_to_string(disk.path().join(name)).is_ok_and(|text| text.trim() == what);
        // Of a disk with several paths each path has a hidden one of its own.
        if says("device/serial", serial) && says("hidden", "0") {
            return Ok(Some(format!("/dev/{}", disk.file_name().to_string_lossy())));
        }
    }
    Ok(None)
}
