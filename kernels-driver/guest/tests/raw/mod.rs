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
/// The exit status of a program that could not run here, as among the kernel's selftests.
pub const SKIPPED: i32 = 4;

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

/// Says that the program cannot run here, and ends it.
pub fn skip(why: &str) -> ! {
    println!("SKIP: {why}");
    std::process::exit(SKIPPED);
}
