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
}

impl Call {
    /// All of them. Not among them: reading faults and waking threads, which do not fail on ranges of ours.
    pub const ALL: [Self; 10] = [
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
    use std::sync::atomic::{AtomicU32, Ordering};

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

    pub(super) fn call_fails(call: Call) -> bool {
        CALLS.load(Ordering::Relaxed) >> call as u32 & 1 == 1
    }

    /// Whether a step must be left out.
    pub fn seeded(defect: Defect) -> bool {
        DEFECTS.load(Ordering::Relaxed) >> defect as u32 & 1 == 1
    }
}

#[cfg(feature = "inject")]
pub use armed::{clear, fail, seed, seeded};

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
