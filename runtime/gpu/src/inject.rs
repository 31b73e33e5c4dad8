//! Loss of the device on demand, with the feature `inject`; constant without it. Process-wide.

#[cfg(feature = "inject")]
mod armed {
    use std::sync::atomic::{AtomicBool, Ordering};

    static LOST: AtomicBool = AtomicBool::new(false);

    /// Every call that can report a lost device does, until [`clear`].
    pub fn lose_device() {
        LOST.store(true, Ordering::SeqCst);
    }

    /// Ends the injection. A context that has met the loss stays lost.
    pub fn clear() {
        LOST.store(false, Ordering::SeqCst);
    }

    pub(crate) fn device_lost() -> bool {
        LOST.load(Ordering::Relaxed)
    }
}

#[cfg(feature = "inject")]
pub(crate) use armed::device_lost;
#[cfg(feature = "inject")]
pub use armed::{clear, lose_device};

#[cfg(not(feature = "inject"))]
pub(crate) const fn device_lost() -> bool {
    false
}
