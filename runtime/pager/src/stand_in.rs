//! What a touch gets that cannot be served: a CPU thread SIGBUS with a line that says why, a kernel a page of arbitrary
//! contents and a failed launch. It does *not* decide which touches those are.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use arrayvec::ArrayString;
use limosa_model::{Access, Block, BlockSet, CHUNK, ChunkIndex, HostAddr, Side};
use limosa_os::machine;

use crate::cell::{Cell, CellState};
use crate::core::Core;
use crate::counters::add;
use crate::error::{PagerError, TouchCause};

/// Chunks in which pages stand in at a time, at most: then those that there are go first.
const CHUNKS_MAX: u64 = 32;

impl Core {
    /// A CPU touch that cannot be served: says why, in one line on standard error. Allowed in signal mode.
    pub(crate) fn complain(&self, address: HostAddr, access: Access, cause: TouchCause) {
        add(&self.counters.faults_refused, 1);
        let verb = if access == Access::Read { "read" } else { "wrote" };
        let mut line = ArrayString::<384>::new();
        // Cut short where it is too long; there is nobody to tell.
        let _ = write!(line, "limosa: a CPU thread {verb} {:#x}, {cause}", address.0);
        if let Some(offset) = self.host_range().offset_of(address) {
            self.write_whereabouts(offset, &mut line);
        }
        let _ = writeln!(line, ": SIGBUS");
        machine::complain(line.as_bytes());
    }

    /// Lets CPU threads that touch the block have SIGBUS.
    pub(crate) fn stand_in_host(&self, offset: u64) {
        let block = Block::containing(offset);
        let extent = block.chunk().run(block.slot(), 1);
        let window = &self.host.window;
        let poisoned = match self.cells.get(block.chunk()) {
            Some(cell) => {
                // Under the lock, so that whoever allocates or repairs the block finds the page, and takes it away.
                let mut state = cell.lock();
                state.stand_in.host |= BlockSet::of(block.slot());
                window.poison(extent)
            }
            None => window.poison(extent),
        };
        if poisoned.is_err() {
            machine::complain(b"limosa: and the page could not be poisoned: the thread will wait for ever\n");
        }
    }

    /// Lets kernels that touch the block run on, with arbitrary contents.
    pub(crate) fn stand_in_device(&self, offset: u64) {
        add(&self.counters.faults_refused, 1);
        let block = Block::containing(offset);
        let (chunk, extent) = (block.chunk(), block.chunk().run(block.slot(), 1));
        if self.stand_in_chunks.load(Ordering::Relaxed) >= CHUNKS_MAX {
            self.clear_device_stand_ins();
        }
        let cell = self.cells.get_or_make(chunk);
        let Some(device) = self.view.faulting() else { return };
        let _pool = self.vram.lock();
        let mut state = cell.lock();
        if state.stand_in.device.is_empty() {
            self.stand_in_chunks.fetch_add(1, Ordering::Relaxed);
        }
        state.stand_in.device |= BlockSet::of(block.slot());
        // A frame that is there may be the data's own.
        let shown = !cell.frames().contains(block.slot())
            && device.mapping.populate(extent).and_then(|()| device.window.open(extent, Access::Write)).is_ok();
        if shown {
            return;
        }
        if device.window.substitute(extent).is_ok() {
            state.substituted |= BlockSet::of(block.slot());
        } else if device.window.poison(extent).is_err() {
            machine::complain(b"limosa: a kernel's stray access cannot be served: it will wait for ever\n");
        }
    }

    /// Takes the pages away that stood in for data in launches so far, with the memory that they took.
    pub(crate) fn clear_device_stand_ins(&self) {
        if self.stand_in_chunks.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Some(device) = self.view.faulting() else { return };
        let _pool = self.vram.lock();
        for (chunk, cell) in self.cells.iter() {
            let mut state = cell.lock();
            if state.stand_in.device.is_empty() {
                continue;
            }
            self.restore_substituted(chunk, &mut state, BlockSet::ALL);
            for (first, count) in state.stand_in.device.runs() {
                // What stays open goes with the next plan for the block.
                let _ = device.window.close(chunk.run(first, count));
            }
            for (first, count) in (state.stand_in.device - cell.frames()).runs() {
                let _ = device.mapping.file().discard(chunk.run(first, count));
            }
            state.stand_in.device = BlockSet::EMPTY;
            self.stand_in_chunks.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes the pages away that stood in on `side` for `blocks`, whose data is to be had again. Gives the error of
    /// a page that stays, which would hide the data.
    pub(crate) fn clear_stand_ins(
        &self,
        chunk: ChunkIndex,
        state: &mut CellState,
        side: Side,
        blocks: BlockSet,
    ) -> Result<(), PagerError> {
        if side == Side::Device {
            self.restore_substituted(chunk, state, blocks);
        }
        let there = *state.stand_in.get(side) & blocks;
        for (first, count) in there.runs() {
            self.close(side, chunk, BlockSet::run(first, count))?;
        }
        if side == Side::Device {
            let frames = self.cells.get(chunk).map_or(BlockSet::EMPTY, Cell::frames);
            // Pages that only stood in were never counted: they go.
            self.view.give(chunk, there - frames);
        }
        *state.stand_in.get_mut(side) = *state.stand_in.get(side) - there;
        if side == Side::Device && !there.is_empty() && state.stand_in.device.is_empty() {
            self.stand_in_chunks.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Core {
    /// Has the file's pages in the place of zeros of nobody's again.
    fn restore_substituted(&self, chunk: ChunkIndex, state: &mut CellState, blocks: BlockSet) {
        let Some(device) = self.view.faulting() else { return };
        for (first, count) in (state.substituted & blocks).runs() {
            // What cannot be restored stays as it is: kernels that touch it compute with zeros, and fail.
            if device.window.restore(chunk.run(first, count)).is_ok() {
                state.substituted = state.substituted - BlockSet::run(first, count);
            }
        }
    }
}

/// Bytes beside the budget that pages standing in may take.
pub(crate) const STAND_IN_BYTES: u64 = (CHUNKS_MAX + 1) * CHUNK;
