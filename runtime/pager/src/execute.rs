//! Carrying out a plan: each action by the means of its side, then the commit and the waking of who waited.
//! It does *not* choose what to do.

use std::sync::atomic::Ordering;

use limosa_model::{Access, Action, BlockSet, ChunkIndex, Plan, Side, Verdict};
use limosa_os::copy::Caching;
use limosa_os::inject::{Defect, seeded};

use crate::cell::{Cell, CellState};
use crate::config::STALE_BYTE;
use crate::core::Core;
use crate::counters::add;
use crate::error::PagerError;

impl Core {
    /// Asks for a transition of the chunk's state and, if the model agrees, prepares what must happen under the same
    /// lock. The plan must then be given to [`Self::carry_out`].
    pub(crate) fn decide(
        &self,
        chunk: ChunkIndex,
        state: &mut CellState,
        event: impl FnOnce(&mut limosa_model::Chunk) -> Verdict,
    ) -> Verdict {
        let verdict = event(&mut state.chunk);
        if let Verdict::Go(plan) = &verdict {
            for side in [Side::Host, Side::Device] {
                self.break_huge_mapping(chunk, state, plan, side);
                // Where it fails, so does the opening, and that is told.
                let _ = self.clear_stand_ins(chunk, state, side, plan.covers);
            }
        }
        verdict
    }

    /// Closing a part of a huge mapping takes all of it away. So that nobody believes the rest still open (or, worse,
    /// closed too early), the whole of it goes here, while the lock keeps others from deciding anything.
    fn break_huge_mapping(&self, chunk: ChunkIndex, state: &mut CellState, plan: &Plan, side: Side) {
        if plan.closes(side).is_empty() || !*state.huge.get(side) || seeded(zap_defect(side)) {
            return;
        }
        if self.close(side, chunk, BlockSet::ALL).is_ok() {
            state.chunk.unmapped(side, BlockSet::ALL);
            *state.huge.get_mut(side) = false;
        }
    }

    /// The cell of a chunk is asked for a transition until nothing is in the way. Not for fault handlers: it waits.
    pub(crate) fn transition(
        &self,
        chunk: ChunkIndex,
        mut event: impl FnMut(&mut limosa_model::Chunk) -> Verdict,
    ) -> Result<(), PagerError> {
        let cell = self.cells.get(chunk).ok_or_else(|| self.not_allocated(chunk.extent()))?;
        loop {
            let mut state = cell.lock();
            match self.decide(chunk, &mut state, &mut event) {
                Verdict::Go(plan) if plan.actions().is_empty() => {
                    // Only a hold to be entered: nobody can have met the busy blocks.
                    state.chunk.commit(&plan);
                    return Ok(());
                }
                Verdict::Go(mut plan) => {
                    drop(state);
                    if self.config.check {
                        plan.withhold_writing(Side::Device);
                    }
                    match self.carry_out(chunk, cell, &plan, Caching::Bypass) {
                        Err(PagerError::DeviceMemoryBusy) => std::thread::yield_now(),
                        done => return done,
                    }
                }
                Verdict::Done => return Ok(()),
                Verdict::Wait(blocks) => {
                    let epoch = cell.epoch();
                    let held = !(blocks & state.chunk.held()).is_empty();
                    drop(state);
                    if held {
                        self.reaper_bell.ring();
                    }
                    cell.wait(epoch);
                }
                Verdict::Refuse(refusal, blocks) => return Err(self.refusal(chunk, refusal, blocks)),
            }
        }
    }

    /// Does what the plan says and ends it. On an error the blocks keep the state that they had.
    pub(crate) fn carry_out(
        &self,
        chunk: ChunkIndex,
        cell: &Cell,
        plan: &Plan,
        caching: Caching,
    ) -> Result<(), PagerError> {
        let fault = self.fault_of(plan.cause);
        let (mut opened, mut last) = (Ok(()), None);
        let brought = self.bring_host(chunk, cell, plan);
        let mut actions = plan.actions().into_iter().inspect(|action| last = Some(*action));
        let moved = brought.and_then(|()| {
            actions.try_for_each(|action| match action {
                Action::Open(side, blocks, access) => {
                    // The data is in place: what cannot be mapped is told to who touches it, but the plan stands.
                    if let Err(error) = self.open(chunk, cell, side, blocks, access) {
                        opened = Err(error);
                    }
                    Ok(())
                }
                Action::TakeFrames(blocks) => self.take_frames(chunk, cell, blocks, plan.covers),
                other => self.act(chunk, other, caching),
            })
        });
        if moved.is_ok() && opened.is_err() {
            // What was to be overwritten will not be, and must not show what the frames held before. While they are busy; it
            // fails where the device does, too.
            let _ = self.fill(chunk, Side::Device, plan.unwritten(), 0);
        }
        let mut state = cell.lock();
        if moved.is_ok() {
            state.accounts.count_moves(plan);
        }
        let changed = match moved {
            Ok(()) if opened.is_ok() => state.chunk.commit(plan),
            Ok(()) => self.commit_unopened(chunk, &mut state, *plan),
            Err(_) => {
                // Without an action, what failed came before the first.
                state.chunk.abort(plan, last.unwrap_or(Action::TakeFrames(BlockSet::EMPTY)));
                BlockSet::EMPTY
            }
        };
        self.watches.note(chunk, &state.chunk, changed, plan.cause);
        if let (Some(fault), true) = (fault, moved.is_ok()) {
            self.note_brought(&mut state, fault, plan.covers);
        }
        for side in [Side::Host, Side::Device] {
            if !plan.closes(side).is_empty() {
                cell.stream.get(side).store(0, Ordering::Relaxed);
            }
        }
        self.note_spare(chunk, &mut state);
        self.release(chunk, cell, state, plan.covers);
        moved.and(opened)
    }

    /// Commits a plan whose data is in place but which could not open all that it was to: nothing of it is open then,
    /// and it ends in no hold. Gives the blocks whose copies have changed.
    fn commit_unopened(&self, chunk: ChunkIndex, state: &mut CellState, mut plan: Plan) -> BlockSet {
        plan.forgo_hold();
        let changed = state.chunk.commit(&plan);
        for side in [Side::Host, Side::Device] {
            if self.close(side, chunk, plan.covers).is_ok() {
                state.chunk.unmapped(side, plan.covers);
            }
        }
        changed
    }

    /// Blocks are no longer busy or held: wakes the threads that were waiting for them.
    pub(crate) fn release(
        &self,
        chunk: ChunkIndex,
        cell: &Cell,
        mut state: std::sync::MutexGuard<'_, CellState>,
        blocks: BlockSet,
    ) {
        let parked = [Side::Host, Side::Device].map(|side| {
            let waiting = *state.parked.get(side) & blocks;
            *state.parked.get_mut(side) = *state.parked.get(side) - blocks;
            (side, waiting)
        });
        cell.released();
        drop(state);
        for (side, waiting) in parked {
            self.wake(side, chunk, waiting);
        }
    }

    fn act(&self, chunk: ChunkIndex, action: Action, caching: Caching) -> Result<(), PagerError> {
        match action {
            Action::Close(side, _) if seeded(zap_defect(side)) => Ok(()),
            Action::Close(side, blocks) => self.close(side, chunk, blocks),
            Action::Zero(side, blocks) => {
                add(&self.counters.blocks_zeroed, blocks.count().into());
                if seeded(Defect::SkipZero) { Ok(()) } else { self.fill(chunk, side, blocks, 0) }
            }
            Action::Copy(side, blocks) => self.copy(chunk, side, blocks, caching),
            Action::Stale(side, blocks) if self.config.poison_stale => {
                // An aid of tests: where the device fails, what is stale shows less, and the plan goes on.
                let _ = self.fill(chunk, side, blocks, STALE_BYTE);
                Ok(())
            }
            Action::Stale(..) => Ok(()),
            Action::GiveFrames(Side::Device, _) => {
                self.vram.note_idle(chunk);
                Ok(())
            }
            // Host frames go by whole chunks, in the background.
            Action::GiveFrames(Side::Host, _) | Action::Open(..) | Action::TakeFrames(_) => Ok(()),
            // Nothing on this heap is backed by a file, so no block has a copy there.
            Action::Load(_) | Action::WriteBack(_) => Ok(()),
        }
    }

    pub(crate) fn fill(&self, chunk: ChunkIndex, side: Side, blocks: BlockSet, byte: u8) -> Result<(), PagerError> {
        // SAFETY: the plan has taken the frames and closed the mappings of these blocks, which are busy.
        unsafe {
            match side {
                Side::Host => self.host.fill(chunk, blocks, byte),
                Side::Device => self.view.fill(chunk, blocks, byte)?,
            }
        }
        Ok(())
    }

    fn copy(&self, chunk: ChunkIndex, to: Side, blocks: BlockSet, caching: Caching) -> Result<(), PagerError> {
        let (counter, defect) = match to {
            Side::Host => (&self.counters.blocks_to_host, Defect::SkipCopyDown),
            Side::Device => (&self.counters.blocks_to_device, Defect::SkipCopyUp),
        };
        add(counter, blocks.count().into());
        if seeded(defect) {
            return Ok(());
        }
        // SAFETY: the plan has taken the frames of both sides, and closed every mapping that may write them.
        unsafe { self.view.copy(&self.host.mapping, to, chunk, blocks, caching) }
    }

    fn open(
        &self,
        chunk: ChunkIndex,
        cell: &Cell,
        side: Side,
        blocks: BlockSet,
        access: Access,
    ) -> Result<(), PagerError> {
        if blocks.is_all() && access == Access::Write && (side == Side::Host || self.view.maps_huge()) {
            // Known before it is, so that no partial close can come in between unnoticed: all blocks are busy.
            *cell.lock().huge.get_mut(side) = true;
            add(&self.counters.chunks_opened, 1);
        }
        match side {
            Side::Host => Ok(self.host.open(chunk, blocks, access)?),
            Side::Device => self.view.open(chunk, blocks, access),
        }
    }
}

fn zap_defect(side: Side) -> Defect {
    match side {
        Side::Host => Defect::SkipZapHost,
        Side::Device => Defect::SkipZapDevice,
    }
}
