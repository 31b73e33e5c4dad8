//! Which launches in flight use an allocation, so that the CPU can wait for those it would conflict with.
//!
//! Conflicts between CPU threads, and between a guard and a launch to be, are the borrow checker's: a launch borrows
//! its arguments until it is submitted. From then until its completion it is noted here. Forgetting an event changes
//! nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use limosa_gpu::GpuError;
use limosa_model::{Access, Extent};
use limosa_pager::LaunchMark;

/// A launch and what it uses.
#[derive(Clone)]
struct Noted {
    mark: LaunchMark,
    extent: Extent,
    access: Access,
}

/// The launches that use an allocation, among some that did.
#[derive(Default)]
pub(crate) struct Uses {
    launches: Mutex<Vec<Noted>>,
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, Vec<Noted>> {
        self.launches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_completed(launches: &mut Vec<Noted>) {
        launches.retain(|noted| !noted.mark.is_complete());
    }

    pub(crate) fn note(&self, mark: &LaunchMark, extent: Extent, access: Access) {
        let mut launches = self.lock();
        // Only before it would grow: each of many launches in flight would have to look at all of them.
        if launches.len() == launches.capacity() {
            Self::forget_completed(&mut launches);
        }
        launches.push(Noted { mark: mark.clone(), extent, access });
    }

    /// The launches in flight that one could not run beside that does `access` to `extent`.
    pub(crate) fn conflicts_with(&self, extent: Extent, access: Access) -> Vec<LaunchMark> {
        let mut launches = self.lock();
        Self::forget_completed(&mut launches);
        let overlaps = |theirs: Extent| theirs.start < extent.end() && extent.start < theirs.end();
        let conflicting = launches
            .iter()
            .filter(|noted| overlaps(noted.extent) && (access == Access::Write || noted.access == Access::Write));
        conflicting.map(|noted| noted.mark.clone()).collect()
    }

    /// Waits until the CPU may do `access` to `extent`: for all launches that use some of it, or for those that write.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`], on which there is nothing to wait for.
    pub(crate) fn wait_for(&self, extent: Extent, access: Access) -> Result<(), GpuError> {
        let conflicts = self.conflicts_with(extent, access);
        // Without the lock: others may note launches or wait, too.
        let mut waited = Ok(());
        for mark in &conflicts {
            match mark.wait() {
                // The others have nothing to wait for, either, but all must be known to.
                Err(GpuError::DeviceLost) => waited = Err(GpuError::DeviceLost),
                other => other?,
            }
        }
        waited
    }
}
