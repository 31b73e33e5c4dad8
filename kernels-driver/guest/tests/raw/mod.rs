//! The shim and the kernel without a safety net: what stress, fuzzer and benches are made of. Calls give back what the
//! kernel said, as it is; what that means is for the callers to judge.

#![allow(dead_code, unreachable_pub)] // each program uses a part of it

pub mod memory;
pub mod random;
pub mod shim;
pub mod uapi;

use std::io;

/// Bytes in a page.
pub const PAGE: usize = 4096;
/// Bytes that are moved as one.
pub const HUGE: usize = 2 << 20;

/// The error number of a call's result; 0 for success.
pub fn errno<T>(result: &io::Result<T>) -> i32 {
    result.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

/// The value after `name` among the program's arguments.
pub fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|word| word != name);
    arguments.next()?;
    arguments.next()
}

/// The number after `name` among the program's arguments, or `default`.
pub fn number(name: &str, default: u64) -> u64 {
    let Some(word) = argument(name) else { return default };
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{name} wants a number, not {word:?}"))
}

/// How many times slower than a real processor this guest may be, if the runner says so.
pub fn factor() -> Option<u32> {
    std::env::var("LIMOSA_GUEST_FACTOR").ok()?.parse().ok()
}

/// Whether the machine is meant to have something: who misses it then fails.
pub fn expected(what: &str) -> bool {
    std::env::var("LIMOSA_EXPECT").is_ok_and(|all| all.split(',').any(|one| one == what))
}

/// Says that a part does not run, aloud as the runner wants it, for want of what this machine need not have.
pub fn skip_part(part: &str, why: &str) {
    let line = format!("SKIP {part}: {why}\n");
    print!("{line}");
    if let Ok(path) = std::env::var("LIMOSA_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| io::Write::write_all(&mut file, line.as_bytes()));
        written.unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}
