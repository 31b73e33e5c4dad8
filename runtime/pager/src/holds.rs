//! Holds: how a launch that is admitted takes its blocks, all or none, and how they are given up. When that is, is the
//! scheduler's to say; it does *not* wait for launches.

use limosa_gpu::{Bound, GpuError};
use limosa_model::{Access, BlockSet, ChunkIndex, ChunkSets, Side, Verdict};
use limosa_os::inject::{Defect, seeded};

use crate::check::Declared;
use crate::config::DeviceClass;
use crate::core::Core;
use crate::error::PagerError;
use crate::record::Record;
use crate::succession::Succession;

/// What a launch has taken, before it is on the device.
pub(crate) struct Holds {
    pub(crate) held: Vec<(ChunkIndex, ChunkSets)>,
    /// How many of the blocks nobody held before.
    pub(crate) fresh: u64,
    /// What it must wait for on the device.
    pub(crate) published: Option<Bound>,
}

fn own_sets(blocks: BlockSet, access: Access, overwrite: bool) -> ChunkSets {
    let none = ChunkSets::default();
    match (access, overwrite) {
        (Access::Read, _) => ChunkSets { reads: blocks, ..none },
        (Access::Write, false) => ChunkSets { writes: blocks, ..none },
        (Access::Write, true) => ChunkSets { overwrites: blocks, ..none },
    }
}

impl Core {
    /// Takes the launch's blocks, all or none, and has the device see them.
    pub(crate) fn hold_all(&self, record: &Record, everything: bool, before: &Succession) -> Result<Holds, PagerError> {
        let (mut held, mut fresh) = (Vec::new(), 0);
        while let Err(error) = self.acquire_all(record, before, &mut held, &mut fresh) {
            self.give_up(std::mem::take(&mut held));
            // Of all of the heap, something may have been freed in this moment.
            let freed = matches!(error, PagerError::NotAllocated { .. });
            if !(everything && self.class == DeviceClass::Declared && freed) {
                return Err(error);
            }
            record.declare(self.whole_heap());
        }
        if self.config.check {
            self.begin_check(Declared::new((*record.sets()).clone(), everything));
        }
        match self.publish() {
            Ok(published) => Ok(Holds { held, fresh, published }),
            Err(error) => {
                self.give_up(held);
                Err(error)
            }
        }
    }

    fn acquire_all(
        &self,
        record: &Record,
        before: &Succession,
        held: &mut Vec<(ChunkIndex, ChunkSets)>,
        fresh: &mut u64,
    ) -> Result<(), PagerError> {
        let sets = record.sets();
        if self.lost() {
            return Err(GpuError::DeviceLost.into());
        }
        *fresh = 0;
        // What is overwritten last: a launch that fails before leaves it as it was.
        for overwriting in [false, true] {
            for (chunk, sets) in sets.chunks() {
                let wanted = if overwriting {
                    [(sets.overwrites, Access::Write, true), (BlockSet::EMPTY, Access::Read, false)]
                } else {
                    [(sets.reads, Access::Read, false), (sets.writes, Access::Write, false)]
                };
                for (blocks, access, overwrite) in wanted.into_iter().filter(|(blocks, ..)| !blocks.is_empty()) {
                    let (written, read, free) = self.split_by_holds(chunk, blocks, access, before);
                    // Of what others still use nothing may be lost.
                    for blocks in [written, read].into_iter().filter(|blocks| !blocks.is_empty()) {
                        self.transition(chunk, |chunk| chunk.succeed(blocks, access))?;
                        held.push((chunk, own_sets(blocks, access, false)));
                    }
                    if !free.is_empty() {
                        *fresh += self.acquire_blocks(record, chunk, free, access, overwrite)?;
                        held.push((chunk, own_sets(free, access, overwrite)));
                    }
                }
            }
        }
        Ok(())
    }

    /// What the launch succeeds to: blocks held for writing and others; and what it takes as if nobody were before it.
    fn split_by_holds(
        &self,
        chunk: ChunkIndex,
        blocks: BlockSet,
        access: Access,
        before: &Succession,
    ) -> (BlockSet, BlockSet, BlockSet) {
        let (own, none) = (before.own(chunk) & blocks, BlockSet::EMPTY);
        let (Some(cell), false) = (self.cells.get(chunk), own.is_empty()) else { return (none, none, blocks) };
        let state = cell.lock();
        let written = own & state.chunk.held_for_writing();
        // Readers share anyhow.
        let read = if access == Access::Write { (own & state.chunk.held()) - written } else { none };
        (written, read, blocks - written - read)
    }

    /// Gives how many of the blocks nobody held before.
    pub(crate) fn acquire_blocks(
        &self,
        record: &Record,
        chunk: ChunkIndex,
        blocks: BlockSet,
        access: Access,
        overwrite: bool,
    ) -> Result<u64, PagerError> {
        let (mut held_before, mut brought) = (BlockSet::EMPTY, 0);
        self.transition(chunk, |chunk| {
            held_before = chunk.held();
            brought = (blocks - chunk.current(Side::Device)).count();
            match chunk.acquire(blocks, access, overwrite) {
                Verdict::Go(mut plan) if seeded(Defect::SkipHold) => {
                    held_before = blocks;
                    plan.forgo_hold();
                    Verdict::Go(plan)
                }
                verdict => verdict,
            }
        })?;
        record.tallied(|tallied| tallied.brought(brought));
        Ok(u64::from((blocks - held_before).count()))
    }

    /// Gives how many blocks nobody holds any more.
    pub(crate) fn release_sets(&self, chunk: ChunkIndex, sets: ChunkSets) -> u64 {
        // A lost device has taken the holds with it.
        let nothing_held = self.lost() || seeded(Defect::SkipHold);
        let (Some(cell), false) = (self.cells.get(chunk), nothing_held) else { return 0 };
        let mut state = cell.lock();
        let before = state.chunk.held();
        state.chunk.release(sets.reads, Access::Read);
        state.chunk.release(sets.writes | sets.overwrites, Access::Write);
        let freed = before - state.chunk.held();
        self.release(chunk, cell, state, sets.all());
        u64::from(freed.count())
    }

    /// Gives up what a launch held that will not run. What it was given to overwrite holds nothing of anybody's now: it
    /// reads as zeros.
    pub(crate) fn give_up(&self, held: Vec<(ChunkIndex, ChunkSets)>) {
        for (chunk, own) in held {
            self.release_sets(chunk, own);
            if !own.overwrites.is_empty() && !self.lost() {
                let _ = self.transition(chunk, |blocks| blocks.discard(own.overwrites));
            }
        }
    }
}
