//! When a chunk's host frames may be given back, and what is known of them afterwards.
//!
//! Frames are kept while their blocks are on the device. Where RAM is wanted for others, those of a whole chunk may
//! go, of which no host copy is current; they come back as zeros. It does *not* say which chunks should, and does not
//! know whether frames exist: that is the pager's.

use crate::chunk::Chunk;
use crate::geometry::BlockSet;

impl Chunk {
    /// Whether no block needs its host frame now: none holds a current copy, is mapped on the CPU, pinned, under a move,
    /// or of a shared home.
    #[must_use]
    pub fn host_frames_unneeded(&self) -> bool {
        (self.image.host | self.image.cpu_open | self.busy | self.shared | self.pinned()).is_empty()
    }

    /// Begins to give all host frames back. Gives the blocks that are busy until [`Self::end_host_give_back`], so that
    /// no plan begins that would need a frame; or `None` where one is needed. Holds of launches stay: they are on the
    /// device's copies.
    #[must_use = "the blocks stay busy until the end is told"]
    pub fn begin_host_give_back(&mut self) -> Option<BlockSet> {
        if !self.host_frames_unneeded() {
            return None;
        }
        self.busy = self.allocated;
        Some(self.busy)
    }

    /// Ends what [`Self::begin_host_give_back`] began with `blocks`; `gone` says whether the frames are.
    ///
    /// # Panics
    /// In debug builds, if the blocks are not busy.
    pub fn end_host_give_back(&mut self, blocks: BlockSet, gone: bool) {
        debug_assert!(self.busy.covers(blocks), "a give-back ends once");
        self.busy = self.busy - blocks;
        if gone {
            self.host_blanked(BlockSet::ALL);
        }
        self.check();
    }

    /// The host frames of `blocks`, none of which holds a current copy, read as zeros from now on, or will when they
    /// are made: they need no zeroing.
    ///
    /// # Panics
    /// In debug builds, if one holds a current copy.
    pub fn host_blanked(&mut self, blocks: BlockSet) {
        debug_assert!((self.image.host & blocks).is_empty(), "a current copy was blanked");
        self.host_blank |= blocks;
    }
}
