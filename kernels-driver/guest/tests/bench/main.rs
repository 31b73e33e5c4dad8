//! What the shim costs, as ratios of two things measured in the same run, in turns: medians of rounds, memory touched
//! beforehand. It prints a table and a line of JSON for each figure, with its bound, if there is one, and whether it is met.
//! It fails if something does not work or is not there, and if a count is not what it must be. Ratios of times are told: on a
//! busy machine one that is 6 was 2.8.
//!
//! `bench [--rounds N] [--mib N]`

#![allow(unreachable_pub)] // its modules are its own
#![allow(clippy::cast_precision_loss)] // for reading, three digits

#[path = "../raw/mod.rs"]
mod raw;

mod faults;
mod moves;
mod streams;
mod table;
mod transfers;

use raw::{number, shim};
use table::Table;

fn main() {
    let rounds = usize::try_from(number("--rounds", 5)).unwrap_or(5).max(1);
    let bytes = usize::try_from(number("--mib", 32)).unwrap_or(32).max(2) << 20;
    let devices = shim::devices().unwrap_or_else(|error| panic!("/dev/limosa*: {error}"));
    let device = &devices[0];
    println!("bench: limosa{}, {} MiB, medians of {rounds} rounds", device.index, bytes >> 20);
    let mut table = Table::default();
    moves::huge(device, bytes, rounds, &mut table);
    moves::batched(device, bytes / 8, rounds, &mut table);
    faults::streak(device, bytes / 4, rounds, &mut table);
    faults::steady(device, bytes / 4, &mut table);
    faults::ping_pong(device, rounds, &mut table);
    transfers::large(device, rounds, &mut table);
    transfers::small(device, rounds, &mut table);
    streams::streams(rounds, &mut table);
    table.print();
    let failed = table.failed();
    assert!(failed.is_empty(), "bounds that hold on any machine are not met: {}", failed.join("; "));
}
