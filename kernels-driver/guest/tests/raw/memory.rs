//! The system calls on memory that the programs make, on addresses as numbers: they take memory from under references
//! on purpose, so there are none. A word is always read and written as an atomic.

use std::io;
use std::sync::atomic::AtomicU64;

use libc::{c_int, c_void};

/// What a call answered.
pub fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn pointer(address: usize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address)
}

fn mapped(at: *mut c_void) -> io::Result<usize> {
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.expose_provenance()) }
}

/// The word at an address.
///
/// # Safety
/// The address is a multiple of 8, and an access to it is served, or ends the program as the caller wants it.
pub unsafe fn word<'a>(address: usize) -> &'a AtomicU64 {
    // SAFETY: by the caller's promise; all access to these addresses is by atomics.
    unsafe { AtomicU64::from_ptr(pointer(address).cast()) }
}

/// mmap() from a file's beginning on.
pub fn map(at: usize, len: usize, protection: c_int, flags: c_int, fd: c_int) -> io::Result<usize> {
    map_from(at, len, protection, flags, fd, 0)
}

/// mmap().
pub fn map_from(at: usize, len: usize, protection: c_int, flags: c_int, fd: c_int, from: i64) -> io::Result<usize> {
    // SAFETY: nothing that Rust knows of lies where the programs map.
    mapped(unsafe { libc::mmap(pointer(at), len, protection, flags, fd, from) })
}

/// Private memory, at an address that must be free unless it is 0.
pub fn anonymous(at: usize, len: usize) -> io::Result<usize> {
    let fixed = if at == 0 { 0 } else { libc::MAP_FIXED_NOREPLACE };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    map(at, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1)
}

/// Private memory in place of what is there.
pub fn replace(at: usize, len: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    map(at, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1)
}

/// Private memory that begins at a multiple of 2 MiB.
pub fn aligned(len: usize) -> io::Result<usize> {
    let all = anonymous(0, len + super::HUGE)?;
    let start = all.next_multiple_of(super::HUGE);
    for (at, len) in [(all, start - all), (start + len, all + super::HUGE - start)] {
        if len > 0 {
            unmap(at, len)?;
        }
    }
    Ok(start)
}

/// munmap().
pub fn unmap(at: usize, len: usize) -> io::Result<()> {
    // SAFETY: as above.
    checked(unsafe { libc::munmap(pointer(at), len) }).map(drop)
}

/// Makes a call again for as long as signals interrupt it.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// mprotect().
pub fn protect(at: usize, len: usize, protection: c_int) -> io::Result<()> {
    // SAFETY: as above.
    checked(unsafe { libc::mprotect(pointer(at), len, protection) }).map(drop)
}

/// madvise().
pub fn advise(at: usize, len: usize, advice: c_int) -> io::Result<()> {
    // SAFETY: as above.
    checked(unsafe { libc::madvise(pointer(at), len, advice) }).map(drop)
}

/// mremap() of `len` bytes to `to`, which replaces what is there.
pub fn shift(from: usize, len: usize, to: usize, flags: c_int) -> io::Result<usize> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | flags;
    // SAFETY: as above.
    mapped(unsafe { libc::mremap(pointer(from), len, len, flags, pointer(to)) })
}

/// mlock().
pub fn lock(at: usize, len: usize) -> io::Result<()> {
    // SAFETY: as above.
    checked(unsafe { libc::mlock(pointer(at), len) }).map(drop)
}

/// munlock().
pub fn unlock(at: usize, len: usize) -> io::Result<()> {
    // SAFETY: as above.
    checked(unsafe { libc::munlock(pointer(at), len) }).map(drop)
}

/// pread() into, or pwrite() out of, memory.
pub fn transfer(fd: c_int, at: usize, len: usize, offset: i64, write: bool) -> io::Result<usize> {
    // SAFETY: as above.
    let done = unsafe {
        if write { libc::pwrite(fd, pointer(at), len, offset) } else { libc::pread(fd, pointer(at), len, offset) }
    };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Copies between memory that does not overlap.
pub fn copy(from: usize, to: usize, len: usize) {
    // SAFETY: as above; both are the caller's, and nobody else looks meanwhile.
    unsafe { std::ptr::copy_nonoverlapping(pointer(from).cast::<u8>(), pointer(to).cast::<u8>(), len) };
}
