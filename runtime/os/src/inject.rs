//! Faults of our own making, for the tests that must notice them.
//!
//! With the feature `inject`, a test can make the next system call of a kind fail, or seed a defect: leave out a step
//! that coherence needs. Without it (every build but the tests') all of this is constant and costs nothing. It is
//! process-wide: tests that use it run one at a time.

use std::io;

/// A system call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Call {
    /// Reserving frames in a memory file.
    Reserve,
    /// Giving frames back.
    Discard,
    /// Opening a range of a fault window.
    Open,
    /// Opening a whole chunk of a fault window.
    OpenChunk,
    /// Closing a range of a fault window.
    Close,
    /// Mapping a part of a file, or memory a second time.
    Map,
    /// Making pages there and mapped.
    Populate,
    /// Registering a range for faults.
    Register,
    /// Ending that.
    Unregister,
    /// Having touches of a page raise SIGBUS.
    Poison,
    /// Making a queue of the kernel's: rings go by threads then.
    Ring,
    /// Giving a request to a ring.
    Push,
    /// Registering a file or memory with a ring.
    Known,
}

impl Call {
    /// All of them. Not among them: reading faults and waking threads, which do not fail on ranges of ours.
    pub const ALL: [Self; 13] = [
        Self::Reserve,
        Self::Discard,
        Self::Open,
        Self::OpenChunk,
        Self::Close,
        Self::Map,
        Self::Populate,
        Self::Register,
        Self::Unregister,
        Self::Poison,
        Self::Ring,
        Self::Push,
        Self::Known,
    ];
}

/// A step that coherence needs and that a seeded defect leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Defect {
    /// Data is not copied to the host.
    SkipCopyDown,
    /// Data is not copied to the device.
    SkipCopyUp,
    /// The CPU's mapping is not closed.
    SkipZapHost,
    /// The GPU's mapping is not closed.
    SkipZapDevice,
    /// What should be opened for reading is opened for writing.
    SkipWriteProtect,
    /// A chunk opened as one is not registered again.
    SkipReregister,
    /// New blocks are not zeroed.
    SkipZero,
    /// A launch holds nothing while it runs.
    SkipHold,
    /// Blocks are not bound where kernels look for them.
    SkipRebind,
    /// Kernels are given another translation of pointers than the view's.
    StaleTranslation,
}

#[cfg(feature = "inject")]
mod armed {
    use std::fs::File;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use super::{Call, Defect};

    static CALLS: AtomicU32 = AtomicU32::new(0);
    static DEFECTS: AtomicU32 = AtomicU32::new(0);

    /// Makes every call of this kind fail until [`clear`].
    pub fn fail(call: Call) {
        CALLS.fetch_or(1 << call as u32, Ordering::SeqCst);
    }

    /// Seeds a defect until [`clear`].
    pub fn seed(defect: Defect) {
        DEFECTS.fetch_or(1 << defect as u32, Ordering::SeqCst);
    }

    /// Ends all injection.
    pub fn clear() {
        CALLS.store(0, Ordering::SeqCst);
        DEFECTS.store(0, Ordering::SeqCst);
    }

    /// Bytes of RAM that may stand for device memory that others reach, and that do.
    static PEER_MAX: AtomicU64 = AtomicU64::new(0);
    static PEER_USED: AtomicU64 = AtomicU64::new(0);

    /// Has RAM stand for device memory that other devices reach, of which there are `bytes` then; zero: no more. It is
    /// not among what [`clear`] ends.
    pub fn stand_in_for_peer_memory(bytes: u64) {
        PEER_MAX.store(bytes, Ordering::SeqCst);
    }

    /// Bytes of RAM that stand for device memory now.
    pub fn peer_memory_used() -> u64 {
        PEER_USED.load(Ordering::SeqCst)
    }

    /// A file of RAM in the place of device memory, if a test wants that; or that there is no more.
    pub(crate) fn peer_memory(bytes: u64) -> Option<Result<File, String>> {
        let max = PEER_MAX.load(Ordering::SeqCst);
        if max == 0 {
            return None;
        }
        if peer_memory_used() + bytes > max {
            return Some(Err(format!("the {max} bytes that stand for a device's memory are in use")));
        }
        Some(crate::memfile::anonymous_file(bytes).map_err(|error| error.to_string()))
    }

    pub(crate) fn use_peer_memory(bytes: u64) {
        PEER_USED.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(crate) fn give_peer_memory_back(bytes: u64) {
        PEER_USED.fetch_sub(bytes, Ordering::SeqCst);
    }

    pub(super) fn call_fails(call: Call) -> bool {
        CALLS.load(Ordering::Relaxed) >> call as u32 & 1 == 1
    }

    /// Whether a step must be left out.
    pub fn seeded(defect: Defect) -> bool {
        DEFECTS.load(Ordering::Relaxed) >> defect as u32 & 1 == 1
    }
}

#[cfg(feature = "inject")]
pub use armed::{clear, fail, peer_memory_used, seed, seeded, stand_in_for_peer_memory};
#[cfg(feature = "inject")]
pub(crate) use armed::{give_peer_memory_back, peer_memory, use_peer_memory};

/// Whether a step must be left out: never, without the feature.
#[cfg(not(feature = "inject"))]
#[must_use]
pub const fn seeded(_: Defect) -> bool {
    false
}

/// Fails if a test wants this call to.
#[cfg(feature = "inject")]
pub(crate) fn fails(call: Call) -> io::Result<()> {
    if armed::call_fails(call) { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
}

#[cfg(not(feature = "inject"))]
#[allow(clippy::unnecessary_wraps)] // the same signature as with the feature
pub(crate) const fn fails(_: Call) -> io::Result<()> {
    Ok(())
}
