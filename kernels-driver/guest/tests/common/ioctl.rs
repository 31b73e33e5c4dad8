//! Raw calls of the interface, as a program in any language makes them, and a good call of each request.

use std::fs::{File, OpenOptions};
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use limosa_os::shim::uapi::*;

use super::memory::{Memory, PAGE};

/// The disk that tests may write to, below the same switch as the devices.
pub const DISK: &str = "/run/limosa-data";

/// The disk, open for direct reads and writes.
pub fn disk() -> File {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(DISK).unwrap()
}

/// Calls with a struct; the errno, if it fails.
pub fn call<T>(fd: BorrowedFd<'_>, request: u32, arguments: &mut T) -> Result<(), i32> {
    // SAFETY: the kernel reads and writes the struct that the request names, or refuses; addresses in it are memory of the
    // test's own, or refused.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), std::ptr::from_mut(arguments)) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
    }
}

pub fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap()
}

pub fn migrate(memory: &Memory) -> limosa_migrate {
    let range = memory.range();
    limosa_migrate {
        size: size::<limosa_migrate>(),
        addr: range.start.0,
        len: range.len,
        to: LIMOSA_PLACE_PRIVATE,
        ..Default::default()
    }
}

pub fn residency(memory: &Memory) -> limosa_residency {
    let range = memory.range();
    limosa_residency { size: size::<limosa_residency>(), addr: range.start.0, len: range.len, ..Default::default() }
}

pub fn view(memory: &Memory) -> limosa_view {
    let range = memory.range();
    limosa_view {
        size: size::<limosa_view>(),
        addr: range.start.0,
        len: range.len,
        policy: LIMOSA_POLICY_MAP,
        fd: -7,
        ..Default::default()
    }
}

pub fn policy(memory: &Memory) -> limosa_policy {
    let range = memory.range();
    limosa_policy { size: size::<limosa_policy>(), addr: range.start.0, len: range.len, ..Default::default() }
}

pub fn pool() -> limosa_pool {
    limosa_pool { size: size::<limosa_pool>(), len: 2 * PAGE as u64, fd: -7, ..Default::default() }
}

pub fn probe(file: &File) -> limosa_probe {
    limosa_probe { size: size::<limosa_probe>(), fd: file.as_raw_fd(), ..Default::default() }
}

pub fn load(memory: &Memory, file: &File) -> limosa_load {
    let range = memory.range();
    limosa_load {
        size: size::<limosa_load>(),
        addr: range.start.0,
        len: range.len,
        fd: file.as_raw_fd(),
        ..Default::default()
    }
}

/// A request with its struct's size, and a good struct of it as words.
pub struct Sample {
    pub request: u32,
    pub words: Vec<u64>,
    /// Bytes in the struct's first version.
    pub first: usize,
}

pub fn words<T>(request: u32, sample: T) -> Sample {
    let bytes = size_of::<T>();
    assert!(bytes.is_multiple_of(8));
    let mut words = vec![0u64; bytes / 8];
    // SAFETY: plain numbers, without padding, of exactly that size.
    unsafe { std::ptr::copy_nonoverlapping((&raw const sample).cast::<u8>(), words.as_mut_ptr().cast(), bytes) };
    Sample { request, words, first: bytes }
}

/// A good call of each request of a device file.
pub fn samples(memory: &Memory, disk: &File) -> Vec<Sample> {
    vec![
        words(LIMOSA_INFO, limosa_info { size: size::<limosa_info>(), ..Default::default() })
            .since(offset_of!(limosa_info, p2p_bytes)),
        words(LIMOSA_LIMIT, limosa_limit { size: size::<limosa_limit>(), flags: 0, bytes: u64::MAX }),
        words(LIMOSA_MIGRATE, migrate(memory)),
        words(LIMOSA_RESIDENCY, residency(memory)),
        words(LIMOSA_COUNTERS, limosa_counters { size: size::<limosa_counters>(), ..Default::default() })
            .since(offset_of!(limosa_counters, pages_loaded)),
        words(LIMOSA_VIEW, view(memory)),
        words(LIMOSA_POOL, pool()),
        words(LIMOSA_PROBE, probe(disk)),
        words(LIMOSA_LOAD, load(memory, disk)),
    ]
}

impl Sample {
    /// Of a struct that was shorter once.
    pub fn since(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    pub fn call(&self, fd: BorrowedFd<'_>, change: impl FnOnce(&mut Vec<u64>)) -> Result<Vec<u64>, i32> {
        let mut words = self.words.clone();
        change(&mut words);
        // SAFETY: as in `call`; the words are as long as the size in them says, or refused before they are read.
        match unsafe { libc::ioctl(fd.as_raw_fd(), self.request.into(), words.as_mut_ptr()) } {
            0 => {
                let fd = match self.request {
                    LIMOSA_VIEW => Some(words[3] >> 32),
                    LIMOSA_POOL => Some(words[2] & 0xffff_ffff),
                    _ => None,
                };
                if let Some(fd) = fd {
                    // SAFETY: just made, and nobody else's.
                    drop(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) });
                }
                Ok(words)
            }
            _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
        }
    }
}

/// The low half of a word.
pub fn set_size(words: &mut [u64], size: usize) {
    words[0] = words[0] >> 32 << 32 | size as u64;
}
