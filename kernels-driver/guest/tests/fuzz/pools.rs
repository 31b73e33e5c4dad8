//! The pools of the worker that knows its memory: mapped well and badly, written by the CPU and by the disk, and put away in
//! any order. What is read from one is what was written to it last, by whomever.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::disk::{self, Disk};
use crate::files::Pipe;
use crate::raw::random::Random;
use crate::raw::{PAGE, errno, memory};

/// Pools at most.
pub const MOST: usize = 4;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// A pool.
pub struct Pool {
    /// Its file; none when only the mapping is left.
    pub fd: Option<OwnedFd>,
    /// The first word of each page, and its last.
    values: Vec<u64>,
    mapped: Option<Mapped>,
}

/// A part of it that is mapped.
#[derive(Clone, Copy)]
struct Mapped {
    at: usize,
    first: usize,
    count: usize,
    writable: bool,
}

impl Pool {
    /// A new one, which is zero.
    pub fn new(fd: OwnedFd, pages: usize) -> Self {
        Self { fd: Some(fd), values: vec![0; pages], mapped: None }
    }

    /// Does something to it. False: it is no more.
    pub fn step(&mut self, random: &mut Random, pipe: &Pipe, disk: &Disk) -> Result<bool, String> {
        match (self.mapped, &self.fd) {
            (None, Some(fd)) => {
                let fd = fd.as_raw_fd();
                if random.once_in(3) {
                    self.map_badly(random, fd)?
                } else {
                    self.map(random, fd)?
                }
                Ok(true)
            }
            (Some(mapped), _) => self.use_mapping(mapped, random, pipe, disk),
            (None, None) => Ok(false),
        }
    }

    fn map(&mut self, random: &mut Random, fd: i32) -> Result<(), String> {
        let first = random.below(self.values.len());
        let count = 1 + random.below(self.values.len() - first);
        let writable = !random.once_in(4);
        let protection = if writable { RW } else { libc::PROT_READ };
        let at = map_at(count, first, protection, libc::MAP_SHARED, fd);
        let at = at.map_err(|error| format!("a pool: mmap of {count} pages from {first} on: {error}"))?;
        self.mapped = Some(Mapped { at, first, count, writable });
        Ok(())
    }

    fn map_badly(&self, random: &mut Random, fd: i32) -> Result<(), String> {
        let (all, shared) = (self.values.len(), libc::MAP_SHARED);
        let (result, expected) = match random.below(5) {
            0 => (map_at(all, 0, RW, libc::MAP_PRIVATE, fd), libc::EINVAL),
            1 => (map_at(all + 1, 0, RW, shared, fd), libc::EINVAL),
            2 => (map_at(1, all + random.below(1 << 30), RW, shared, fd), libc::EINVAL),
            3 => (map_at(all, 1, RW, shared, fd), libc::EINVAL),
            _ => (map_at(all, 0, RW | libc::PROT_EXEC, shared, fd), libc::EPERM),
        };
        let right = errno(&result) == expected;
        if right { Ok(()) } else { Err(format!("a pool of {all} pages: a bad mapping: {result:?}")) }
    }

    fn use_mapping(&mut self, of: Mapped, random: &mut Random, pipe: &Pipe, disk: &Disk) -> Result<bool, String> {
        match random.below(24) {
            0 => self.fd = None, // the mapping keeps it
            1 => {
                memory::unmap(of.at, of.count * PAGE).map_err(|error| format!("a pool: munmap: {error}"))?;
                self.mapped = None;
            }
            2 => spoil_mapping(of, random)?,
            3..9 => self.write(of, random, pipe)?,
            9..12 => self.fill(of, random, disk)?,
            _ => self.read(of, of.first + random.below(of.count), pipe)?,
        }
        Ok(self.fd.is_some() || self.mapped.is_some())
    }

    /// A child has it, too, and sees the same.
    pub fn check(&self, pipe: &Pipe) -> Result<(), String> {
        self.mapped.map_or(Ok(()), |of| self.read(of, of.first, pipe))
    }

    fn read(&self, of: Mapped, page: usize, pipe: &Pipe) -> Result<(), String> {
        for at in ends(of, page) {
            let got = pipe.peek(at);
            if got.as_ref().ok() != Some(&self.values[page]) {
                return Err(format!("page {page} of a pool: {got:x?}, expected {:#x}", self.values[page]));
            }
        }
        Ok(())
    }

    fn write(&mut self, of: Mapped, random: &mut Random, pipe: &Pipe) -> Result<(), String> {
        let (page, value) = (of.first + random.below(of.count), random.next());
        for at in ends(of, page) {
            let got = pipe.poke(at, value);
            if errno(&got) != if of.writable { 0 } else { libc::EFAULT } {
                return Err(format!("writing page {page} of a pool: {got:?}"));
            }
        }
        if of.writable {
            self.values[page] = value;
        }
        Ok(())
    }

    /// By the disk.
    fn fill(&mut self, of: Mapped, random: &mut Random, disk: &Disk) -> Result<(), String> {
        let page = of.first + random.below(of.count);
        let count = 1 + random.below(of.first + of.count - page);
        let (at, len, offset) = (of.at + (page - of.first) * PAGE, count * PAGE, disk.place(random, count));
        let (shift, cut, odd) = [(0, 0, 0), (0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 100)][random.below(6)];
        let spoilt = shift + cut > 0 || odd > 0;
        let (at, len, offset) = (at + shift, len - cut, offset + odd);
        let from = i64::try_from(offset).unwrap_or(i64::MAX);
        let got = memory::transfer(disk.file.as_raw_fd(), at, len, from, false);
        let left = usize::try_from(disk.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let right = match (&got, spoilt, of.writable) {
            (Ok(bytes), false, writable) => *bytes == len.min(left) && (writable || *bytes == 0),
            // The end of the disk cuts off what was too much.
            (Ok(bytes), true, _) => *bytes == left && (left == 0 || cut > 0 && left < len),
            (Err(error), true, false) => matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EFAULT)),
            (Err(error), true, true) => error.raw_os_error() == Some(libc::EINVAL),
            (Err(error), false, writable) => !writable && error.raw_os_error() == Some(libc::EFAULT),
        };
        if !right {
            return Err(format!("reading {len} bytes from {offset:#x} on to page {page} of a pool, {spoilt}: {got:?}"));
        }
        for nth in 0..got.unwrap_or(0) / PAGE {
            self.values[page + nth] = disk::value(offset + (nth * PAGE) as u64);
        }
        Ok(())
    }
}

/// What may not be done with a pool's mapping, or does nothing to it.
fn spoil_mapping(of: Mapped, random: &mut Random) -> Result<(), String> {
    let len = of.count * PAGE;
    let (result, allowed): (_, &[i32]) = match random.below(3) {
        0 => (memory::protect(of.at, len, RW | libc::PROT_EXEC), &[libc::EACCES, libc::EPERM]),
        1 => {
            // SAFETY: nothing that Rust knows of lies there.
            let moved = unsafe {
                let from = std::ptr::with_exposed_provenance_mut(of.at);
                libc::mremap(from, len, len + PAGE, libc::MREMAP_MAYMOVE)
            };
            let result = if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) };
            (result, &[libc::EFAULT, libc::EINVAL])
        }
        // It comes back with the next access.
        _ => (memory::advise(of.at, len, libc::MADV_DONTNEED), &[0]),
    };
    if allowed.contains(&errno(&result)) { Ok(()) } else { Err(format!("a pool's mapping: {result:?}")) }
}

fn map_at(pages: usize, first: usize, protection: i32, flags: i32, fd: i32) -> io::Result<usize> {
    let (len, offset) = (pages * PAGE, i64::try_from(first * PAGE).unwrap_or(i64::MAX));
    memory::map_from(0, len, protection, flags, fd, offset)
}

/// Where a page's first and last word are.
fn ends(of: Mapped, page: usize) -> impl Iterator<Item = usize> {
    let at = of.at + (page - of.first) * PAGE;
    [at, at + PAGE - 8].into_iter()
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(of) = self.mapped {
            let _ = memory::unmap(of.at, of.count * PAGE);
        }
    }
}
