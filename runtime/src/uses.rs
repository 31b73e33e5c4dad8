//! Which launches in flight use an allocation, so that the CPU can wait for those it would conflict with.
//!
//! Conflicts between CPU threads, and between a guard and a launch to be, are the borrow checker's: a launch borrows
//! its arguments until it is submitted. From then until its completion it is noted here. Forgetting an event changes
//! nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use limosa_gpu::GpuError;
use limosa_model::Access;
use limosa_pager::LaunchMark;

/// The launches that use an allocation.
#[derive(Default)]
pub(crate) struct Uses {
    launches: Mutex<Vec<(LaunchMark, Access)>>,
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, Vec<(LaunchMark, Access)>> {
        let mut launches = self.launches.lock().unwrap_or_else(PoisonError::into_inner);
        launches.retain(|(mark, _)| !mark.is_complete());
        launches
    }

    pub(crate) fn note(&self, mark: &LaunchMark, access: Access) {
        self.lock().push((mark.clone(), access));
    }

    /// Waits until the CPU may do `access`: for all launches, or for those that write.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`], on which there is nothing to wait for.
    pub(crate) fn wait_for(&self, access: Access) -> Result<(), GpuError> {
        let conflicts: Vec<_> = {
            let launches = self.lock();
            let conflicting = launches.iter().filter(|(_, theirs)| access == Access::Write || *theirs == Access::Write);
            conflicting.map(|(mark, _)| mark.clone()).collect()
        };
        // Without the lock: others may note launches or wait, too.
        conflicts.iter().try_for_each(LaunchMark::wait)
    }
}
