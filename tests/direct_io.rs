//! Direct I/O into unified memory under migration pressure: byte-exact with `host_pin`.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use common::builder;
use common::failure::{BLOCK_WORDS, turn};
use common::views::{ALL, Way, cases};
use limosa::{DeviceClass, Side};

const WORDS: usize = 96 * BLOCK_WORDS;

fn word(i: usize, round: u32) -> u32 {
    u32::try_from(i).unwrap().wrapping_mul(0x9E37_79B1) ^ round
}

/// A file of pseudo-random words, opened for direct I/O; `None`, said aloud, where the file system refuses that.
fn file(round: u32) -> Option<(PathBuf, File)> {
    let path = std::env::temp_dir().join(format!("limosa-direct-{}-{round}", std::process::id()));
    let bytes: Vec<u8> = (0..WORDS).flat_map(|i| word(i, round).to_ne_bytes()).collect();
    File::create(&path).unwrap().write_all(&bytes).unwrap();
    match OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path) {
        Ok(file) => Some((path, file)),
        Err(error) => {
            common::skip("direct I/O", "direct", &error.to_string());
            std::fs::remove_file(path).unwrap();
            None
        }
    }
}

fn read_all(file: &File, target: &mut [u32]) -> std::io::Result<usize> {
    let bytes = size_of_val(target);
    // SAFETY: the slice is ours for the call.
    let got = unsafe { libc::pread(file.as_raw_fd(), target.as_mut_ptr().cast(), bytes, 0) };
    usize::try_from(got).map_err(|_| std::io::Error::last_os_error())
}

#[test]
fn direct_reads_are_exact_while_everything_wants_the_blocks_elsewhere() {
    let _turn = turn("direct I/O");
    for (way, mode) in cases(ALL) {
        let small = builder().fault_mode(mode).device_budget(8 << 20);
        let Some(kit) = way.kit("direct I/O", small) else { break };
        let mut vec = kit.heap().vec_zeroed::<u32>(WORDS).unwrap();
        let (raw, address) = (std::sync::Arc::clone(vec.raw()), vec.ptr(0).address());
        let other = kit.heap().vec_zeroed::<u32>(WORDS).unwrap();
        let reading = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let (kit, other, reading) = (&kit, &other, &reading);
            // Moves it to the device all the time, waiting while it is pinned.
            scope.spawn(move || {
                while reading.load(Ordering::Relaxed) {
                    raw.prefetch(Side::Device).unwrap();
                }
            });
            // Reads it by faults, parked while it is pinned, and evicts it again, since the budget is small.
            scope.spawn(move || {
                while reading.load(Ordering::Relaxed) {
                    if way.class == DeviceClass::Faulting {
                        kit.sum_at(address, WORDS as u64).unwrap();
                    } else {
                        // Of the same size: it takes the budget from the vector.
                        kit.sum(other).unwrap();
                    }
                }
            });
            for round in 0..12u32 {
                let Some((path, file)) = file(round) else { break };
                let mut pin = vec.host_pin().unwrap();
                assert_eq!(read_all(&file, &mut pin).unwrap(), WORDS * 4, "{way:?}, {mode:?}");
                drop(pin);
                let wrong = vec.read().unwrap().iter().enumerate().position(|(i, seen)| *seen != word(i, round));
                std::fs::remove_file(path).unwrap();
                if wrong.is_some() {
                    reading.store(false, Ordering::Relaxed);
                }
                assert_eq!(wrong, None, "{way:?}, {mode:?}, round {round}");
            }
            reading.store(false, Ordering::Relaxed);
        });
        assert!(kit.heap().counters().blocks_to_device > 0);
        kit.works();
    }
}

#[test]
fn launches_wait_for_a_pin_and_a_pin_for_launches() {
    let _turn = turn("pins");
    for way in ALL {
        pins(*way);
    }
}

fn pins(way: Way) {
    let Some(kit) = way.kit("pins", builder()) else { return };
    let mut vec = kit.heap().vec_zeroed::<u32>(4 * BLOCK_WORDS).unwrap();
    let raw = std::sync::Arc::clone(vec.raw());
    kit.fill(&mut vec, 3).unwrap();
    let pin = vec.host_pin().unwrap();
    assert!(pin.iter().all(|word| *word == 3), "the launch was waited for");
    let launch = kit.queue.launch(&kit.fill, 64).arg(raw.ptr().address()).with_raw(&raw, limosa::Access::Write);
    // SAFETY: fill writes the words that are declared; nobody uses them after the pin has ended.
    let event = unsafe { launch.args((4 * BLOCK_WORDS as u64, 5u32, 0u32)).submit() }.unwrap();
    assert!(!event.is_complete().unwrap());
    assert!(pin.iter().all(|word| *word == 3), "the launch has not begun");
    drop(pin);
    event.wait().unwrap();
    assert!(vec.read().unwrap().iter().all(|word| *word == 5));
    // Two launches behind one pin: the second is moved on when the first is done, by nobody of ours.
    let pin = vec.host_pin().unwrap();
    let [_, second] = [6u32, 7].map(|value| {
        let launch = kit.queue.launch(&kit.fill, 64).arg(raw.ptr().address()).with_raw(&raw, limosa::Access::Write);
        // SAFETY: as above.
        unsafe { launch.args((4 * BLOCK_WORDS as u64, value, 0u32)).submit() }.unwrap()
    });
    drop(pin);
    second.wait().unwrap();
    assert!(vec.read().unwrap().iter().all(|word| *word == 7));
    vec.discard().unwrap();
    assert!(vec.read().unwrap().iter().all(|word| *word == 0));
    kit.works();
}
