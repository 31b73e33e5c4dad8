//! What the selftests share: open devices, counts of what happened, and children. Each test has a process of its own.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)] // each test binary uses its part; a failing test may panic

pub mod child;
pub mod files;
pub mod gpu;
pub mod ioctl;
pub mod memory;
pub mod peer;
pub mod unified;
pub mod userfault;

use std::time::{Duration, Instant};

use limosa_os::shim::{self, Counters, Info, MigrateError, Scope, Shim, ShimError};

/// The first device.
pub fn device() -> Shim {
    open(0)
}

/// The device at this place among those that are there.
pub fn open(place: usize) -> Shim {
    let numbers = shim::devices();
    let number = numbers.get(place).unwrap_or_else(|| panic!("device {place} of {numbers:?}"));
    Shim::open(*number).unwrap()
}

/// What an open device counted since.
pub struct Since<'a> {
    shim: &'a Shim,
    before: Counters,
}

impl<'a> Since<'a> {
    pub fn now(shim: &'a Shim) -> Self {
        Self { shim, before: shim.counters(Scope::File).unwrap() }
    }

    pub fn counted(&self) -> Counters {
        self.shim.counters(Scope::File).unwrap().since(&self.before)
    }
}

/// Fails unless a move stopped for this reason; what it says of its way.
pub fn stopped(result: Result<shim::Migrated, MigrateError>, reason: impl FnOnce(&ShimError) -> bool) -> MigrateError {
    let error = result.expect_err("the move goes on to the end");
    assert!(reason(&error.cause), "{error}");
    error
}

/// Skips a test for want of `what`.
pub fn skip(test: &str, what: &str, why: &str) {
    use std::io::Write;
    let expected = std::env::var("LIMOSA_EXPECT").unwrap_or_default();
    assert!(!expected.split(',').any(|have| have == what), "{test}: this guest is meant to have {what}: {why}");
    let line = format!("SKIP {test}: needs {what}: {why}\n");
    print!("{line}");
    if let Ok(path) = std::env::var("LIMOSA_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// Waits until the device's memory is as free as `before`: processes that are gone give it back a moment later.
pub fn freed_to(shim: &Shim, before: &Info) {
    until("device memory is free again", || shim.info().unwrap().private.free == before.private.free);
}

/// Waits for something that comes by itself.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in 20 s: {what}");
        std::thread::yield_now();
    }
}

/// A file of the kernel's that holds a setting, which is as before when this is dropped.
pub struct Setting {
    path: String,
    before: String,
}

impl Setting {
    pub fn set(path: &str, value: &str) -> Self {
        let before = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, value).unwrap();
        Self { path: path.to_owned(), before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        std::fs::write(&self.path, self.before.trim()).unwrap();
    }
}

/// A parameter of the module, until the answer is dropped.
pub fn parameter(name: &str, value: &str) -> Setting {
    Setting::set(&format!("/sys/module/limosa/parameters/{name}"), value)
}
