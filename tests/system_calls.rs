//! `read(2)`, `write(2)` and their like on unified memory, wherever it is.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use common::failure::{BLOCK, BLOCK_WORDS, Kit, settle, turn};
use common::views::{ALL, Way};
use common::{builder, skip};
use limosa::{FaultMode, ResidencySummary, UnifiedVec};

/// An unlinked file of ordinary memory.
fn file() -> File {
    // SAFETY: the descriptor is new and owned by nobody else.
    unsafe {
        let descriptor = libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC);
        assert!(descriptor >= 0);
        File::from_raw_fd(descriptor)
    }
}

fn kit(test: &str, way: Way, mode: FaultMode) -> Option<Kit> {
    let kit = way.kit(test, builder().fault_mode(mode))?;
    if mode == FaultMode::HandlerThread && !kit.heap().serves_system_calls() {
        skip(test, "full userfaultfd", "this user may not use /dev/userfaultfd");
        return None;
    }
    Some(kit)
}

/// A vector that only VRAM holds, all of `value`.
fn on_device(kit: &Kit, words: usize, value: u32) -> UnifiedVec<u32> {
    let mut vec = kit.heap().vec_zeroed::<u32>(words).unwrap();
    kit.fill(&mut vec, value).unwrap().wait().unwrap();
    assert_eq!(summary(&vec).device, vec.raw().len().next_multiple_of(BLOCK));
    vec
}

/// Where `vec` is, once nothing moves.
fn summary(vec: &UnifiedVec<u32>) -> ResidencySummary {
    settle(vec);
    vec.residency_summary()
}

/// The elements as bytes, without touching them.
fn bytes(vec: &UnifiedVec<u32>) -> &[u8] {
    // SAFETY: all of the allocation; the launches that write it are done.
    unsafe { std::slice::from_raw_parts(vec.ptr(0).as_ptr().cast(), vec.len() * 4) }
}

fn bytes_mut(vec: &mut UnifiedVec<u32>) -> &mut [u8] {
    // SAFETY: as above, and `vec` is borrowed exclusively.
    unsafe { std::slice::from_raw_parts_mut(vec.ptr(0).as_ptr().cast(), vec.len() * 4) }
}

fn pattern(words: usize) -> Vec<u8> {
    (0..u32::try_from(words).unwrap()).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn a_file_is_read_into_memory_that_is_on_the_device() {
    let _turn = turn("read");
    for way in ALL {
        read_on(*way);
    }
}

fn read_on(way: Way) {
    let Some(kit) = kit("read", way, FaultMode::HandlerThread) else { return };
    let words = 100 * BLOCK_WORDS + 1234;
    let file = file();
    file.write_all_at(&pattern(words), 0).unwrap();
    let mut vec = on_device(&kit, words, 7);
    file.read_exact_at(bytes_mut(&mut vec), 0).unwrap();
    assert_eq!(summary(&vec).device, 0);
    let n = words as u64;
    assert_eq!(kit.sum(&vec).unwrap(), n * (n - 1) / 2);
    assert!(vec.read().unwrap().iter().enumerate().all(|(i, word)| usize::try_from(*word) == Ok(i)));

    // A part that begins and ends in the middle of pages: the rest stays as the kernel left it.
    let mut vec = on_device(&kit, 10 * BLOCK_WORDS, 7);
    let (from, to) = (3 * BLOCK_WORDS + 5, 6 * BLOCK_WORDS + 9);
    file.read_exact_at(&mut bytes_mut(&mut vec)[from * 4..to * 4], 0).unwrap();
    for (i, word) in vec.read().unwrap().iter().enumerate() {
        let expected = if (from..to).contains(&i) { i - from } else { 7 };
        assert_eq!(usize::try_from(*word), Ok(expected), "word {i}");
    }
}

#[test]
fn memory_that_is_on_the_device_is_written_to_a_file_and_a_pipe() {
    let _turn = turn("write");
    for way in ALL {
        write_on(*way);
    }
}

fn write_on(way: Way) {
    let Some(kit) = kit("write", way, FaultMode::HandlerThread) else { return };
    let words = 33 * BLOCK_WORDS + 77;
    let file = file();
    let vec = on_device(&kit, words, 0x0102_0304);
    file.write_all_at(bytes(&vec), 0).unwrap();
    assert_eq!(summary(&vec).both, 34 * BLOCK);
    let mut read = vec![0; words * 4];
    file.read_exact_at(&mut read, 0).unwrap();
    assert!(read.chunks(4).all(|word| word == [4, 3, 2, 1]));

    let vec = on_device(&kit, words, 9);
    let (mut receiver, mut sender) = io::pipe().unwrap();
    let received = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut all = Vec::new();
            receiver.read_to_end(&mut all).map(|_| all)
        });
        sender.write_all(bytes(&vec)).unwrap();
        drop(sender);
        reader.join().unwrap().unwrap()
    });
    assert!(received.len() == words * 4 && received.chunks(4).all(|word| word == [9, 0, 0, 0]));
}

#[test]
fn system_calls_and_kernels_take_turns_on_the_same_memory() {
    let _turn = turn("turns");
    for way in ALL {
        turns_on(*way);
    }
}

fn turns_on(way: Way) {
    let Some(kit) = kit("turns", way, FaultMode::HandlerThread) else { return };
    let words = 20 * BLOCK_WORDS;
    let file = file();
    let mut vec = kit.heap().vec_zeroed::<u32>(words).unwrap();
    for round in 0..10u32 {
        kit.fill(&mut vec, round).unwrap().wait().unwrap();
        file.write_all_at(bytes(&vec), 0).unwrap();
        kit.fill(&mut vec, u32::MAX).unwrap().wait().unwrap();
        file.read_exact_at(bytes_mut(&mut vec), 0).unwrap();
        assert_eq!(kit.sum(&vec).unwrap(), u64::from(round) * words as u64);
    }
}

/// `write(2)` of what the address range holds: the bytes written, or the errno.
fn write(file: &File, from: &[u8]) -> Result<usize, i32> {
    // SAFETY: the kernel checks the range.
    let done = unsafe { libc::write(file.as_raw_fd(), from.as_ptr().cast(), from.len()) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap())
}

/// `pread(2)` into the address range.
fn read(file: &File, into: &mut [u8]) -> Result<usize, i32> {
    // SAFETY: the kernel checks the range.
    let done = unsafe { libc::pread(file.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), 0) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap())
}

#[test]
fn in_thread_mode_gives_efault_until_the_data_is_brought_back() {
    let _turn = turn("efault");
    for way in ALL {
        efault_on(*way);
    }
}

fn efault_on(way: Way) {
    let Some(kit) = kit("efault", way, FaultMode::InThread) else { return };
    assert!(!kit.heap().serves_system_calls());
    let words = 4 * BLOCK_WORDS;
    let len = words * 4;
    let file = file();
    let mut vec = on_device(&kit, words, 5);
    assert_eq!(write(&file, bytes(&vec)), Err(libc::EFAULT));
    assert_eq!(read(&self::file(), bytes_mut(&mut vec)), Ok(0), "an empty file touches nothing");
    assert_eq!(summary(&vec).device, 4 * BLOCK, "nothing has moved");

    vec.prefetch_to_host().unwrap();
    assert_eq!(write(&file, bytes(&vec)), Ok(len));
    vec.write().unwrap().chunks_mut(1024).for_each(|page| page[0] = 6);
    assert_eq!(read(&file, bytes_mut(&mut vec)), Ok(len));
    assert!(vec.read().unwrap().iter().all(|word| *word == 5));
    assert_eq!(kit.sum(&vec).unwrap(), 5 * words as u64);

    let mut vec = on_device(&kit, words, 8);
    assert_eq!(read(&file, bytes_mut(&mut vec)), Err(libc::EFAULT));
    assert!(vec.read().unwrap().iter().all(|word| *word == 8), "what was not read into is as it was");
    // A copy that both sides have is read-only to the CPU.
    assert_eq!(kit.sum(&vec).unwrap(), 8 * words as u64);
    assert_eq!(read(&file, bytes_mut(&mut vec)), Err(libc::EFAULT));
    assert!(vec.read().unwrap().iter().all(|word| *word == 8));
    kit.works();
}
