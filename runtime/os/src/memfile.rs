//! Memory as a file: the frames of a heap, in huge pages where they can be had.
//!
//! A private tmpfs mounted with huge=always gives them (root); a memfd gives them where the machine's
//! `shmem_enabled` says so; else the file has 4 KiB pages, and says why. Frames are linear: frame offset = heap
//! offset. The file does *not* map itself anywhere.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::{fs, io};

use limosa_model::Extent;

use crate::error::OsError;
use crate::inject;

/// The pages that back a memory file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Huge pages.
    Huge,
    /// 4 KiB pages, with the reason and the remedy.
    Small(String),
}

/// How a memory file gets its huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Whenever pages are made: all of the file is used by the chunk.
    Always,
    /// Where a mapping asks for them: some chunks are populated block by block.
    OnRequest,
}

/// An unlinked file in memory.
#[derive(Debug)]
pub struct MemoryFile {
    fd: OwnedFd,
    what: &'static str,
    limit: u64,
    backing: Backing,
}

impl MemoryFile {
    /// A file of `len` bytes, all holes, of which at most `limit` bytes may be filled; `what` names it in errors.
    ///
    /// # Errors
    /// [`OsError::MemoryFile`].
    pub fn create(what: &'static str, len: u64, limit: u64, huge: HugePages) -> Result<Self, OsError> {
        let failed = |source| OsError::MemoryFile { bytes: len, source };
        let (fd, backing) = match huge_tmpfs_file(limit, huge) {
            Ok(fd) => (fd, Backing::Huge),
            Err(reason) => (memfd().map_err(failed)?, memfd_backing(&reason)),
        };
        let size = i64::try_from(len)
            .map_err(|_| OsError::AddressSpace { bytes: len, source: io::Error::from_raw_os_error(libc::EFBIG) })?;
        // SAFETY: a system call on a descriptor we own.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), size) } != 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        Ok(Self { fd, what, limit, backing })
    }

    /// What pages it has.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// The most bytes that may be filled.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Makes sure that every page of `extent` exists, so that no later touch can fail for lack of memory. New pages
    /// read as zeros.
    ///
    /// # Errors
    /// [`OsError::OutOfMemory`].
    pub fn reserve(&self, extent: Extent) -> Result<(), OsError> {
        self.fallocate(0, extent, inject::Call::Reserve).map_err(|_| self.out_of_memory(extent.len))
    }

    pub(crate) fn out_of_memory(&self, bytes: u64) -> OsError {
        OsError::OutOfMemory { what: self.what, bytes, limit: self.limit }
    }

    /// Gives the pages of `extent` back; they read as zeros when reserved again.
    ///
    /// # Errors
    /// [`OsError::Mapping`].
    pub fn discard(&self, extent: Extent) -> Result<(), OsError> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        self.fallocate(mode, extent, inject::Call::Discard).map_err(|source| OsError::Mapping {
            operation: "giving back",
            bytes: extent.len,
            source,
        })
    }

    /// Bytes of memory that the file takes now.
    ///
    /// # Errors
    /// [`OsError::MemoryFile`].
    pub fn resident_bytes(&self) -> Result<u64, OsError> {
        // SAFETY: all-zero bytes are a valid `stat`.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: a system call on our descriptor that fills a structure of ours.
        if unsafe { libc::fstat(self.raw(), &mut stat) } != 0 {
            return Err(OsError::MemoryFile { bytes: 0, source: io::Error::last_os_error() });
        }
        Ok(u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
    }

    fn fallocate(&self, mode: i32, extent: Extent, call: inject::Call) -> io::Result<()> {
        inject::fails(call)?;
        let (start, len) = (to_off(extent.start)?, to_off(extent.len)?);
        loop {
            // SAFETY: a system call on a descriptor we own.
            if unsafe { libc::fallocate(self.raw(), mode, start, len) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

fn to_off(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A file of `len` bytes of memory, zeros.
#[cfg(any(test, feature = "inject"))]
pub(crate) fn anonymous_file(len: u64) -> io::Result<fs::File> {
    let file = fs::File::from(memfd()?);
    file.set_len(len)?;
    Ok(file)
}

pub(crate) fn memfd() -> io::Result<OwnedFd> {
    // SAFETY: a system call with a static string.
    owned(unsafe { libc::memfd_create(c"limosa".as_ptr(), libc::MFD_CLOEXEC) }.into())
}

/// A file in a tmpfs of our own that is mounted nowhere and goes away with its last descriptor.
fn huge_tmpfs_file(limit: u64, huge: HugePages) -> io::Result<OwnedFd> {
    const FSCONFIG_SET_STRING: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const CLOEXEC: libc::c_uint = 1;
    let size = CString::new(limit.to_string())?;
    // SAFETY: a system call with a static string.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), CLOEXEC) })?;
    let set = |key: &std::ffi::CStr, value: &std::ffi::CStr| {
        let fd = context.as_raw_fd();
        // SAFETY: strings that outlive the call, on a descriptor we own.
        let done =
            unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let mode = match huge {
        HugePages::Always => c"always",
        HugePages::OnRequest => c"advise",
    };
    set(c"huge", mode)?;
    set(c"size", &size)?;
    let (null, fd) = (std::ptr::null::<libc::c_char>(), context.as_raw_fd());
    // SAFETY: a system call on a descriptor we own.
    if unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, null, null, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a system call on a descriptor we own.
    let mount = owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, CLOEXEC, 0) })?;
    let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: a system call with a static string on a descriptor we own.
    owned(unsafe { libc::openat(mount.as_raw_fd(), c".".as_ptr(), flags, 0o600) }.into())
}

fn memfd_backing(reason: &io::Error) -> Backing {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_default();
    let huge = ["[always]", "[within_size]", "[advise]", "[force]"].iter().any(|mode| setting.contains(mode));
    if huge {
        Backing::Huge
    } else {
        Backing::Small(format!(
            "a private tmpfs with huge pages needs CAP_SYS_ADMIN ({reason}), and shared memory gets none by the \
             machine's setting; remedy: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"
        ))
    }
}
