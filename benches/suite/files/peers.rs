//! What else brings files to where a GPU reads: the kernel's mapping of the file and a memcpy, and OpenCL's copies of what
//! was read into ordinary memory. Through the page cache both, and one step after the other, as such programs do it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::null_mut;
use std::time::Instant;

use super::load::{Figures, cpu_seconds};
use crate::buffer::Buffer;
use crate::opencl::{Bytes, OpenCl};

/// What is read and copied at a time: more than the kernel reads ahead, less than caches hold.
const PIECE: usize = 4 << 20;

fn on_the_clock(bytes: usize, work: impl FnOnce()) -> Figures {
    let (cpu, start) = (cpu_seconds(), Instant::now());
    work();
    let (time, cpu) = (start.elapsed(), cpu_seconds() - cpu);
    Figures { bytes, requests: bytes.div_ceil(PIECE) as f64, time, cpu }
}

/// Maps the file and copies from there.
pub(crate) fn mapped(path: &Path, target: &mut Buffer) -> Figures {
    let (file, bytes) = (File::open(path).unwrap(), target.len());
    // SAFETY: a new mapping where the kernel likes.
    let mapping = unsafe { libc::mmap(null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    assert!(mapping != libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    // SAFETY: advice on our own mapping.
    unsafe { libc::madvise(mapping, bytes, libc::MADV_SEQUENTIAL) };
    // SAFETY: as long as the mapping, and nobody writes to the file meanwhile.
    let source = unsafe { std::slice::from_raw_parts(mapping.cast::<u8>(), bytes) };
    let figures = on_the_clock(bytes, || target.bytes_mut().copy_from_slice(source));
    // SAFETY: made by mmap with this length; the slice is used no more.
    unsafe { libc::munmap(mapping, bytes) };
    figures
}

/// Reads by pread, and has OpenCL copy it to a buffer of its own.
pub(crate) fn opencl(path: &Path, cl: &OpenCl, host: &mut [u8], target: &mut Bytes<'_>, bytes: usize) -> Figures {
    let file = File::open(path).unwrap();
    on_the_clock(bytes, || {
        for at in (0..bytes).step_by(PIECE) {
            let piece = &mut host[..PIECE.min(bytes - at)];
            file.read_exact_at(piece, at as u64).unwrap();
            cl.write(target, at, piece).unwrap();
        }
    })
}

/// As much memory as [`opencl`] reads into.
pub(crate) fn host_piece() -> Buffer {
    Buffer::new(PIECE)
}
