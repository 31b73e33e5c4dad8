//! Check mode: every GPU access is compared with what the running launch declared, by 64 KiB blocks.
//!
//! Before a launch everything is closed to the GPU, and what it declared only to read is opened for reading only, so
//! that any other access faults and is seen. It does *not* see accesses within a block of which a part is declared.

use limosa_model::{Access, Extent, Side, Verdict};

use limosa_os::copy::Caching;

use crate::core::Core;

/// What a launch said that it will touch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared {
    pub(crate) reads: Vec<Extent>,
    pub(crate) writes: Vec<Extent>,
    /// The launch may touch anything: nothing is checked.
    pub(crate) everything: bool,
}

impl Declared {
    fn allows(&self, offset: u64, access: Access) -> bool {
        let touches = |extent: &Extent| {
            let blocks = extent.to_blocks();
            extent.len > 0 && (blocks.start..blocks.end()).contains(&offset)
        };
        self.everything || self.writes.iter().any(touches) || access == Access::Read && self.reads.iter().any(touches)
    }
}

impl Core {
    /// Takes every GPU mapping away and enters what the next launch declares.
    pub(crate) fn begin_check(&self, declared: Declared) {
        for (chunk, cell) in self.cells.iter() {
            loop {
                let mut state = cell.lock();
                if state.chunk.busy().is_empty() {
                    if self.sides.device.window.close(chunk.extent()).is_ok() {
                        state.chunk.closed(Side::Device);
                        state.huge.device = false;
                    }
                    break;
                }
                let epoch = cell.epoch();
                drop(state);
                cell.wait(epoch);
            }
        }
        *self.declared() = Some(declared);
    }

    /// Whether the running launch declared this GPU access; outside of check mode it need not.
    pub(crate) fn declares(&self, offset: u64, access: Access) -> bool {
        !self.config.check || self.declared().as_ref().is_none_or(|declared| declared.allows(offset, access))
    }

    /// The cell of a chunk is asked for a transition until nothing is in the way. Not for fault handlers: it waits.
    pub(crate) fn transition(
        &self,
        chunk: limosa_model::ChunkIndex,
        mut event: impl FnMut(&mut limosa_model::Chunk) -> Verdict,
    ) -> Result<(), crate::error::PagerError> {
        let cell = self.cells.get(chunk).ok_or_else(|| self.not_allocated(chunk.extent()))?;
        loop {
            let mut state = cell.lock();
            match self.decide(chunk, &mut state, &mut event) {
                Verdict::Go(mut plan) => {
                    drop(state);
                    if self.config.check {
                        plan.withhold_writing(Side::Device);
                    }
                    return self.carry_out(chunk, cell, &plan, Caching::Bypass);
                }
                Verdict::Done => return Ok(()),
                Verdict::Wait(_) => {
                    let epoch = cell.epoch();
                    drop(state);
                    cell.wait(epoch);
                }
                Verdict::Refuse(refusal, blocks) => return Err(self.refusal(chunk, refusal, blocks)),
            }
        }
    }
}
