//! Pools: device memory that other devices reach by DMA, mapped here as the buffer of reads and writes of files that are
//! open with `O_DIRECT`. It does *not* make such transfers ([`super::Transfers`] does), or tell whether their data goes
//! straight ([`Shim::probe`] does).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use limosa_model::{HostAddr, HostRange};

use super::call::{call, interrupted, size};
use super::uapi::{LIMOSA_POOL, limosa_pool};
use super::{Shim, ShimError};
use crate::reservation::to_usize;

const WORD: usize = size_of::<u64>();

/// Memory of a device's that other devices reach. It is zero at first, counts against the limit of the open device that it
/// was taken by, and is free again when this and what is mapped of it are gone and the last transfer has ended.
///
/// Another process that is given the descriptor shares it.
#[derive(Debug)]
pub struct Pool {
    fd: OwnedFd,
    bytes: u64,
}

impl Shim {
    /// Takes `bytes` of the device's private memory, in whole pages.
    ///
    /// # Errors
    /// [`ShimError::Unsupported`] (other devices do not reach this one's memory: [`super::Info::p2p_bytes`] is zero),
    /// [`ShimError::BadRange`] (none, or no whole pages), [`ShimError::DeviceFull`], [`ShimError::LimitReached`],
    /// [`ShimError::OutOfMemory`], [`ShimError::TooManyFiles`], [`ShimError::OtherProcess`], [`ShimError::DeviceGone`].
    ///
    /// # Example
    /// ```no_run
    /// use limosa_os::shim::Shim;
    ///
    /// # fn main() -> Result<(), limosa_os::shim::ShimError> {
    /// let mut window = Shim::open(0)?.pool(1 << 20)?.map()?;
    /// window.copy_in(4096, b"hello");
    /// let mut bytes = [0; 5];
    /// window.copy_out(4096, &mut bytes);
    /// assert_eq!(bytes, *b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn pool(&self, bytes: u64) -> Result<Pool, ShimError> {
        let mut arguments = limosa_pool { size: size::<limosa_pool>(), len: bytes, fd: -1, ..Default::default() };
        // SAFETY: the request's own struct, which names no memory to be written.
        while let Err(error) = unsafe { call(self.as_fd(), LIMOSA_POOL, &mut arguments) } {
            if !interrupted(&error) {
                let asked = HostRange { start: HostAddr(0), len: bytes };
                return Err(ShimError::on_range("taking a pool of its memory", asked, asked.start, error));
            }
        }
        // SAFETY: the kernel has just made it, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(arguments.fd) };
        Ok(Pool { fd, bytes })
    }
}

impl Pool {
    /// How much there is, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Maps all of it.
    ///
    /// # Errors
    /// [`ShimError::OutOfMemory`] (addresses, too), [`ShimError::DeviceGone`].
    pub fn map(self) -> Result<Window, ShimError> {
        Window::of(self.fd.as_fd(), to_usize(self.bytes))
    }
}

impl AsFd for Pool {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A mapped pool, or a part of one that no other window has.
///
/// Its bytes can change at any time, by a device or by another process that was given the pool. So there are no references
/// to them: bytes are copied in and out. A transfer takes the window away until it has ended, so that the memory does not
/// go meanwhile, and nobody here looks at what is half written. (Where a program goes around this type and unmaps the
/// memory nevertheless, the kernel guards it: a transfer holds references on the pages, and a pool gives none of them to
/// others before they are dropped.)
///
/// Once the driver is unbound from the device, its pages are gone: each access is a SIGBUS, as with a file that was made
/// shorter. Transfers end with [`ShimError::DeviceGone`].
///
/// The CPU writes to it at the speed of the bus, and reads it much slower.
#[derive(Debug)]
pub struct Window {
    mapping: Arc<Mapping>,
    start: usize,
    len: usize,
}

impl Window {
    /// Maps the first `len` bytes of what stands for a pool.
    pub(super) fn of(fd: BorrowedFd<'_>, len: usize) -> Result<Self, ShimError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: fresh addresses of the kernel's choice.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            return Err(ShimError::of("mapping a pool", std::io::Error::last_os_error()));
        }
        let start = mapped.expose_provenance();
        Ok(Self { mapping: Arc::new(Mapping { start, len }), start, len })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Whether it is the empty end of a window that was split.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is, valid as long as `self`. Whoever makes a pointer of it answers for races, as for any raw pointer to
    /// memory that devices write.
    #[must_use]
    pub fn range(&self) -> HostRange {
        HostRange { start: HostAddr(self.start as u64), len: self.len() }
    }

    /// Its first `bytes` bytes, and the rest: two windows. The memory is unmapped when both are gone.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn split_at(self, bytes: u64) -> (Self, Self) {
        assert!(bytes <= self.len(), "a window of {} bytes split at {bytes}", self.len);
        let bytes = to_usize(bytes);
        let rest = Self { mapping: Arc::clone(&self.mapping), start: self.start + bytes, len: self.len - bytes };
        (Self { len: bytes, ..self }, rest)
    }

    /// Copies bytes from `at` on out of the window, by the CPU.
    ///
    /// # Panics
    /// If they are not all in the window.
    pub fn copy_out(&self, at: u64, into: &mut [u8]) {
        let from = self.pointer(at, into.len()).cast_const();
        for piece in pieces(from.addr(), into.len()) {
            // SAFETY: within the window, by `pointer`; a piece of a word is an aligned word.
            unsafe {
                let from = from.add(piece.at);
                match piece.is_word {
                    true => into[piece.at..][..WORD].copy_from_slice(&from.cast::<u64>().read_volatile().to_ne_bytes()),
                    false => into[piece.at] = from.read_volatile(),
                }
            }
        }
    }

    /// Copies bytes into the window from `at` on, by the CPU.
    ///
    /// # Panics
    /// If they do not all fit in the window.
    pub fn copy_in(&mut self, at: u64, from: &[u8]) {
        let into = self.pointer(at, from.len());
        for piece in pieces(into.addr(), from.len()) {
            // SAFETY: within the window, by `pointer`; a piece of a word is an aligned word.
            unsafe {
                let into = into.add(piece.at);
                match from[piece.at..].first_chunk() {
                    Some(word) if piece.is_word => into.cast::<u64>().write_volatile(u64::from_ne_bytes(*word)),
                    _ => into.write_volatile(from[piece.at]),
                }
            }
        }
    }

    /// Where the window's byte `at` is, after which there are `len`.
    pub(super) fn pointer(&self, at: u64, len: usize) -> *mut u8 {
        let inside = usize::try_from(at).ok().filter(|at| at.checked_add(len).is_some_and(|end| end <= self.len));
        let Some(at) = inside else { panic!("{len} bytes from {at} on are not in a window of {} bytes", self.len) };
        ptr::with_exposed_provenance_mut(self.start + at)
    }
}

/// A byte, or an aligned word, of memory that is copied.
struct Piece {
    at: usize,
    is_word: bool,
}

/// What `len` bytes from an address on are copied in: bytes up to the first word, words, and the bytes behind.
fn pieces(address: usize, len: usize) -> impl Iterator<Item = Piece> {
    let head = (address.next_multiple_of(WORD) - address).min(len);
    let tail = head + (len - head) / WORD * WORD;
    let bytes = |range: std::ops::Range<usize>| range.map(|at| Piece { at, is_word: false });
    let words = (head..tail).step_by(WORD).map(|at| Piece { at, is_word: true });
    bytes(0..head).chain(words).chain(bytes(tail..len))
}

/// The mapping that windows are parts of; unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    start: usize,
    len: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole of a mapping that `Window::of` made; the windows that spoke of it are gone.
        let result = unsafe { libc::munmap(ptr::with_exposed_provenance_mut(self.start), self.len) };
        debug_assert_eq!(result, 0, "munmap of our own mapping");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Stands for a pool: a file in memory.
    pub(crate) fn file(len: u64) -> File {
        crate::memfile::anonymous_file(len).unwrap()
    }

    /// Whether a window of it is there.
    pub(crate) fn is_mapped(file: &File) -> bool {
        let inode = format!(" {} ", file.metadata().unwrap().ino());
        std::fs::read_to_string("/proc/self/maps").unwrap().contains(&inode)
    }

    #[test]
    fn what_is_copied_in_comes_out_at_any_alignment_and_nothing_beside_it_changes() {
        let file = file(4096);
        let mut window = Window::of(file.as_fd(), 4096).unwrap();
        let bytes: Vec<u8> = (1..=40).collect();
        for at in 0..17 {
            for len in 0..bytes.len() {
                window.copy_in(0, &[0xA5; 128]);
                window.copy_in(at, &bytes[..len]);
                let mut all = [0; 128];
                window.copy_out(0, &mut all);
                let mut expected = [0xA5; 128];
                expected[to_usize(at)..][..len].copy_from_slice(&bytes[..len]);
                assert_eq!(all, expected, "{len} bytes at {at}");
                let mut part = vec![0; len];
                window.copy_out(at, &mut part);
                assert_eq!(part, bytes[..len]);
            }
        }
    }

    #[test]
    fn what_is_not_in_the_window_is_not_copied() {
        let file = file(8192);
        let (mut window, mut rest) = Window::of(file.as_fd(), 8192).unwrap().split_at(4096);
        let refused = |action: &mut dyn FnMut()| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(action)).expect_err("it is outside")
        };
        for (at, len) in [(4096, 1), (4095, 2), (u64::MAX, 1), (u64::MAX, 0), (1, 4096)] {
            refused(&mut || window.copy_in(at, &vec![1; len]));
            refused(&mut || window.copy_out(at, &mut vec![1; len]));
        }
        refused(&mut || drop(Window::of(file.as_fd(), 8192).unwrap().split_at(8193)));
        // An end is no place outside.
        window.copy_in(4096, &[]);
        rest.copy_in(0, &[7]);
        let mut bytes = [9; 4096];
        window.copy_out(0, &mut bytes);
        assert_eq!(bytes, [0; 4096], "the windows are two");
    }

    #[test]
    fn memory_stays_mapped_until_the_last_part_is_gone() {
        let file = file(3 * 4096);
        let (first, rest) = Window::of(file.as_fd(), 3 * 4096).unwrap().split_at(4096);
        let (second, third) = rest.split_at(8192);
        assert_eq!((first.len(), second.len(), third.len(), third.is_empty()), (4096, 8192, 0, true));
        assert_eq!(second.range().start.0, first.range().start.0 + 4096);
        drop(first);
        drop(third);
        assert!(is_mapped(&file));
        drop(second);
        assert!(!is_mapped(&file));
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error() {
        let null = File::open("/dev/null").unwrap();
        assert!(Window::of(null.as_fd(), 4096).is_err());
    }
}
