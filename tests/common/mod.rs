//! What the integration tests share: contexts on the software device, and skipping aloud.

#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

pub mod failure;
pub mod gate;
pub mod leaks;
pub mod mounts;
pub mod moves;
pub mod scarce;
pub mod sigbus;
pub mod views;
pub mod words;

use std::io::Write;

use limosa::{Context, ContextBuilder, DeviceChoice, DeviceKind, Error, GpuError, OsError, PagerError};

/// A builder for the software device with a small heap and with stale copies poisoned.
pub fn builder() -> ContextBuilder {
    Context::builder()
        .device(DeviceChoice::Kind(DeviceKind::Cpu))
        .heap_size(1 << 30)
        .host_limit(2 << 30)
        .device_budget(256 << 20)
        .poison_stale(true)
}

/// A context, or `None` (said aloud and counted) where this machine has no software device or no userfaultfd.
/// Fails instead where `LIMOSA_EXPECT` says that the machine is meant to have it.
pub fn context(test: &str, builder: ContextBuilder) -> Option<Context> {
    match builder.build() {
        Ok(context) => Some(context),
        Err(Error::Pager(PagerError::Gpu(
            error @ (GpuError::NoLoader(_) | GpuError::NoDevice | GpuError::NoSuchDevice { .. }),
        ))) => {
            skip(test, "lavapipe", &error.to_string());
            None
        }
        Err(Error::Pager(PagerError::Os(error @ (OsError::NoUserfaultfd { .. } | OsError::KernelTooOld { .. })))) => {
            skip(test, "userfaultfd", &error.to_string());
            None
        }
        Err(error) => panic!("{test}: {error}"),
    }
}

/// Skips a test for want of `what`.
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
