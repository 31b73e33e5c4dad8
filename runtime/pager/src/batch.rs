//! Operations on many ranges at once: all are checked before anything moves, what overlaps is done once, and the rest
//! in ascending order. They are *not* atomic beyond the checks: other threads see them progress.

use limosa_model::extents::merged;
use limosa_model::{Extent, Refusal, Side};

use crate::error::PagerError;
use crate::heap::Heap;

impl Heap {
    /// As [`Self::prefetch`] of each of `extents`.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`], [`PagerError::Poisoned`], [`PagerError::RangeTooLarge`] if their blocks together
    /// exceed the budget, [`limosa_gpu::GpuError::DeviceLost`]: nothing has moved then. [`PagerError::DeviceMemoryFull`],
    /// and the others if they come about meanwhile: what was brought before the error stays there.
    pub fn prefetch_batch(&self, side: Side, extents: &[Extent]) -> Result<(), PagerError> {
        let whole = self.whole_blocks(extents)?;
        self.check_intact(&whole)?;
        self.check_room(side, &whole)?;
        whole.into_iter().try_for_each(|extent| self.prefetch(side, extent))
    }

    /// The blocks that `extents` touch, which are allocated.
    pub(crate) fn whole_blocks(&self, extents: &[Extent]) -> Result<Vec<Extent>, PagerError> {
        self.check_allocated(extents)?;
        let whole = extents.iter().filter(|extent| extent.len > 0).map(|extent| extent.to_blocks());
        Ok(merged(whole.collect()))
    }

    /// As [`Self::discard`] of each of `extents`; a block that several of them cover together counts as whole.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`]: nothing is discarded then.
    pub fn discard_batch(&self, extents: &[Extent]) -> Result<(), PagerError> {
        self.check_allocated(extents)?;
        merged(extents.to_vec()).into_iter().try_for_each(|extent| self.discard(extent))
    }

    /// That every block that `extents` touch is allocated.
    pub(crate) fn check_allocated(&self, extents: &[Extent]) -> Result<(), PagerError> {
        for extent in extents.iter().filter(|extent| extent.len > 0) {
            self.check_range(*extent)?;
            let mut parts = extent.chunks();
            let core = self.core();
            if !parts
                .all(|(chunk, set)| core.cells.get(chunk).is_some_and(|cell| cell.lock().chunk.allocated().covers(set)))
            {
                return Err(core.not_allocated(*extent));
            }
        }
        Ok(())
    }

    /// That nothing of `extents` is lost.
    fn check_intact(&self, extents: &[Extent]) -> Result<(), PagerError> {
        let core = self.core();
        for (chunk, set) in extents.iter().flat_map(|extent| extent.chunks()) {
            let poisoned = core.cells.get(chunk).map(|cell| cell.lock().chunk.poisoned() & set);
            if let Some(poisoned) = poisoned.filter(|poisoned| !poisoned.is_empty()) {
                return Err(core.refusal(chunk, Refusal::Poisoned, poisoned));
            }
        }
        Ok(())
    }
}
