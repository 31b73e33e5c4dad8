//! What can go wrong at the system-call edge, by meaning. Nothing above this crate sees an errno.

use std::io;

/// A failure of the operating system, named by what it means and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OsError {
    /// No address space of that size.
    #[error("cannot reserve {bytes} bytes of address space ({source}): lower the heap size or raise `ulimit -v`")]
    AddressSpace {
        /// Bytes asked for.
        bytes: u64,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A memory file cannot be made.
    #[error("cannot create a memory file of {bytes} bytes: {source}")]
    MemoryFile {
        /// Bytes asked for.
        bytes: u64,
        /// The kernel's reason.
        source: io::Error,
    },
    /// No memory (or no room in the tmpfs) for frames.
    #[error("no room for {bytes} more bytes of {what}: free memory, or raise its limit (of {limit} bytes)")]
    OutOfMemory {
        /// What the frames are for.
        what: &'static str,
        /// Bytes asked for.
        bytes: u64,
        /// The memory file's limit in bytes.
        limit: u64,
    },
    /// userfaultfd is not to be had at all.
    #[error(
        "userfaultfd is not available ({source}): the kernel needs CONFIG_USERFAULTFD, and a container may forbid \
         the system call"
    )]
    NoUserfaultfd {
        /// The kernel's reason.
        source: io::Error,
    },
    /// userfaultfd lacks features.
    #[error("userfaultfd lacks {missing}: limosa needs Linux 6.6 or later (this is {release})")]
    KernelTooOld {
        /// The features that are missing.
        missing: String,
        /// The running kernel's release.
        release: String,
    },
    /// No device has memory that other devices reach, or not enough.
    #[error("{bytes} bytes of device memory that other devices reach are not to be had: {reason}")]
    NoPeerMemory {
        /// Bytes asked for.
        bytes: u64,
        /// Why, of each device, and what to do.
        reason: String,
    },
    /// A mapping operation failed.
    #[error("{operation} of {bytes} bytes failed: {source}{}", hint(source))]
    Mapping {
        /// What was tried.
        operation: &'static str,
        /// On how many bytes.
        bytes: u64,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The table of heaps with in-thread fault delivery is full.
    #[error("at most {limit} heaps can take their faults in the faulting thread: close one, or use the handler thread")]
    TooManySignalHeaps {
        /// The limit.
        limit: usize,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOMEM) => " (raise vm.max_map_count, or free memory)",
        _ => "",
    }
}

impl OsError {
    pub(crate) fn mapping(operation: &'static str, bytes: u64) -> Self {
        Self::Mapping { operation, bytes, source: io::Error::last_os_error() }
    }
}
