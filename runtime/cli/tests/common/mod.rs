//! What the command's tests share: running it, and skipping aloud.

#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

use std::io::Write;
use std::process::Command;

use limosa::{Context, DeviceChoice, DeviceKind, Error, GpuError, OsError, PagerError};

pub fn limosa(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limosa"));
    command.args(arguments).env_remove("RUST_BACKTRACE");
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether there is a device to run on. Only its absence, or that of userfaultfd, is a reason to skip.
pub fn has_device(test: &str) -> bool {
    let builder = Context::builder().device(DeviceChoice::Kind(DeviceKind::Cpu)).heap_size(64 << 20);
    match builder.device_budget(16 << 20).build() {
        Ok(_) => return true,
        Err(Error::Pager(PagerError::Gpu(
            error @ (GpuError::NoLoader(_) | GpuError::NoDevice | GpuError::NoSuchDevice { .. }),
        ))) => skip(test, "lavapipe", &error.to_string()),
        Err(Error::Pager(PagerError::Os(error @ (OsError::NoUserfaultfd { .. } | OsError::KernelTooOld { .. })))) => {
            skip(test, "userfaultfd", &error.to_string());
        }
        Err(error) => panic!("{test}: {error}"),
    }
    false
}

/// Skips a test aloud for want of `what`, in the manner of the library's own tests: `LIMOSA_EXPECT` says what the
/// machine is meant to have, `LIMOSA_SKIPS` where skips are counted.
pub fn skip(test: &str, what: &str, why: &str) {
    let expected = std::env::var("LIMOSA_EXPECT").unwrap_or_default();
    assert!(!expected.split(',').any(|have| have == what), "{test}: this machine is meant to have {what}: {why}");
    let line = format!("SKIP {test}: needs {what}: {why}\n");
    print!("{line}");
    if let Ok(path) = std::env::var("LIMOSA_SKIPS")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).open(path)
    {
        let _ = file.write_all(line.as_bytes());
    }
}
