//! Where in device memory each block's 64 KiB are: slots, 32 to a frame of 2 MiB, given to blocks and taken back.
//!
//! A chunk that is taken whole gets a frame of its own where one is free, so that it is bound as one. A block that comes
//! back gets the slot that it had, if nobody took it: it may still be bound there. Nothing here talks to the device.

use std::collections::HashMap;

use limosa_gpu::FrameKind;
use limosa_model::{BLOCKS_PER_CHUNK, Block, BlockSet, ChunkIndex};

/// 64 KiB of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(u32);

impl Slot {
    fn new(frame: usize, part: u32) -> Self {
        // Frames are counted by a budget of bytes; 2²⁷ of them are 256 TiB.
        Self(u32::try_from(frame).unwrap_or(u32::MAX / BLOCKS_PER_CHUNK) * BLOCKS_PER_CHUNK + part)
    }

    /// Index of its frame.
    pub(super) fn frame(self) -> usize {
        (self.0 / BLOCKS_PER_CHUNK) as usize
    }

    /// Its place in the frame, in blocks.
    pub(super) fn part(self) -> u32 {
        self.0 % BLOCKS_PER_CHUNK
    }

    /// Whether `self` comes right after `other` in one frame.
    pub(super) fn follows(self, other: Self) -> bool {
        self.0 == other.0 + 1 && self.frame() == other.frame()
    }
}

/// The slots of a chunk's blocks.
pub(super) type ChunkSlots = [Option<Slot>; BLOCKS_PER_CHUNK as usize];

/// Who has which slot.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// The free slots of each frame, and what memory it is.
    free: Vec<(FrameKind, BlockSet)>,
    taken: HashMap<ChunkIndex, ChunkSlots>,
    /// The block that had a slot last: it may still be bound there.
    last: HashMap<Slot, Block>,
    /// The slot that a block had last.
    had: HashMap<Block, Slot>,
}

/// A slot that changed hands: the block that had it before must not reach it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recycled {
    pub(super) slot: Slot,
    pub(super) from: Block,
}

impl Slots {
    /// Adds a frame, all of it free.
    pub(super) fn add_frame(&mut self, kind: FrameKind) {
        self.free.push((kind, BlockSet::ALL));
    }

    /// Frames of one kind.
    pub(super) fn frames(&self, kind: FrameKind) -> usize {
        self.free.iter().filter(|(own, _)| *own == kind).count()
    }

    /// Free slots of one kind.
    pub(super) fn free_slots(&self, kind: FrameKind) -> u64 {
        self.of_kind(kind).map(|(_, free)| u64::from(free.count())).sum()
    }

    /// Whether a whole frame is free.
    pub(super) fn has_free_frame(&self, kind: FrameKind) -> bool {
        self.of_kind(kind).any(|(_, free)| free.is_all())
    }

    fn of_kind(&self, kind: FrameKind) -> impl Iterator<Item = (usize, BlockSet)> + '_ {
        let frames = self.free.iter().enumerate().filter(move |(_, (own, _))| *own == kind);
        frames.map(|(frame, (_, free))| (frame, *free))
    }

    /// The slots of a chunk's blocks.
    pub(super) fn of(&self, chunk: ChunkIndex) -> ChunkSlots {
        self.taken.get(&chunk).copied().unwrap_or_default()
    }

    /// Gives slots to blocks that have none. There must be as many free ones. Tells of those that another block had.
    pub(super) fn take(&mut self, kind: FrameKind, chunk: ChunkIndex, blocks: BlockSet) -> Vec<Recycled> {
        let mut recycled = Vec::new();
        let whole = if blocks.is_all() { self.whole_frame(kind, chunk) } else { None };
        for (first, count) in blocks.runs() {
            let mut at = first;
            while at < first + count {
                let Some((start, len)) = whole
                    .map(|frame| (Slot::new(frame, 0), BLOCKS_PER_CHUNK))
                    .or_else(|| self.find(kind, chunk.block(at), first + count - at))
                else {
                    debug_assert!(false, "no free slot");
                    return recycled;
                };
                for step in 0..len {
                    let slot = Slot::new(start.frame(), start.part() + step);
                    recycled.extend(self.hand_over(slot, chunk.block(at + step)));
                }
                at += len;
            }
        }
        recycled
    }

    /// A free frame for all of the chunk: the one that it had, if that can be.
    fn whole_frame(&self, kind: FrameKind, chunk: ChunkIndex) -> Option<usize> {
        let had = self.had.get(&chunk.block(0)).filter(|slot| slot.part() == 0).map(|slot| slot.frame());
        let is_free = |frame: &usize| self.free.get(*frame).is_some_and(|(own, free)| *own == kind && free.is_all());
        had.filter(is_free).or_else(|| (0..self.free.len()).find(is_free))
    }

    /// A run of free slots for `block` and those behind it, at most `wanted`: where the block was before, else the
    /// first run in a frame that is in use that is long enough, else the longest.
    fn find(&self, kind: FrameKind, block: Block, wanted: u32) -> Option<(Slot, u32)> {
        if let Some(slot) = self.had.get(&block).filter(|slot| self.is_free(kind, **slot)) {
            let still = |step: &u32| {
                let next = Block(block.0 + step);
                let slot = Slot(slot.0 + step);
                *step == 0 || slot.part() != 0 && self.had.get(&next) == Some(&slot) && self.is_free(kind, slot)
            };
            let len = (0..wanted).take_while(still).count();
            return Some((*slot, u32::try_from(len).unwrap_or(1)));
        }
        let mut longest: Option<(Slot, u32)> = None;
        for whole in [false, true] {
            for (frame, free) in self.of_kind(kind).filter(|(_, free)| free.is_all() == whole) {
                for (first, count) in free.runs() {
                    let found = (Slot::new(frame, first), count.min(wanted));
                    if found.1 == wanted {
                        return Some(found);
                    }
                    if longest.is_none_or(|(_, len)| len < found.1) {
                        longest = Some(found);
                    }
                }
            }
        }
        longest
    }

    fn is_free(&self, kind: FrameKind, slot: Slot) -> bool {
        self.free.get(slot.frame()).is_some_and(|(own, free)| *own == kind && free.contains(slot.part()))
    }

    fn hand_over(&mut self, slot: Slot, block: Block) -> Option<Recycled> {
        let (_, free) = &mut self.free[slot.frame()];
        *free = *free - BlockSet::of(slot.part());
        self.taken.entry(block.chunk()).or_default()[block.slot() as usize] = Some(slot);
        self.had.insert(block, slot);
        let before = self.last.insert(slot, block).filter(|before| *before != block)?;
        if self.had.get(&before) == Some(&slot) {
            self.had.remove(&before);
        }
        Some(Recycled { slot, from: before })
    }

    /// Takes the blocks' slots back.
    pub(super) fn give(&mut self, chunk: ChunkIndex, blocks: BlockSet) {
        let Some(slots) = self.taken.get_mut(&chunk) else { return };
        for at in blocks.slots() {
            if let Some(slot) = slots[at as usize].take() {
                self.free[slot.frame()].1 |= BlockSet::of(slot.part());
            }
        }
        if slots.iter().all(Option::is_none) {
            self.taken.remove(&chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: FrameKind = FrameKind::Device;

    fn with_frames(count: usize) -> Slots {
        let mut slots = Slots::default();
        (0..count).for_each(|_| slots.add_frame(DEVICE));
        slots
    }

    #[test]
    fn a_whole_chunk_gets_a_frame_in_order() {
        let mut slots = with_frames(2);
        slots.take(DEVICE, ChunkIndex(7), BlockSet::of(3));
        assert_eq!(slots.take(DEVICE, ChunkIndex(4), BlockSet::ALL), []);
        let own = slots.of(ChunkIndex(4));
        assert!(own.windows(2).all(|pair| pair[1].unwrap().follows(pair[0].unwrap())));
        assert_eq!(slots.free_slots(DEVICE), 31);
    }

    #[test]
    fn without_a_whole_frame_the_longest_runs_are_taken() {
        let mut slots = with_frames(2);
        slots.take(DEVICE, ChunkIndex(0), BlockSet::of(0));
        slots.take(DEVICE, ChunkIndex(1), BlockSet::run(0, 31));
        slots.give(ChunkIndex(0), BlockSet::of(0));
        slots.take(DEVICE, ChunkIndex(2), BlockSet::ALL);
        assert_eq!(slots.free_slots(DEVICE), 1);
        assert!(slots.of(ChunkIndex(2)).iter().all(Option::is_some));
    }

    #[test]
    fn a_block_that_comes_back_finds_its_slot_and_others_recycle_it() {
        let mut slots = with_frames(1);
        slots.take(DEVICE, ChunkIndex(0), BlockSet::run(4, 8));
        let before = slots.of(ChunkIndex(0));
        slots.give(ChunkIndex(0), BlockSet::run(4, 8));
        assert_eq!(slots.take(DEVICE, ChunkIndex(0), BlockSet::run(4, 8)), []);
        assert_eq!(slots.of(ChunkIndex(0)), before);
        slots.give(ChunkIndex(0), BlockSet::run(4, 8));
        let recycled = slots.take(DEVICE, ChunkIndex(9), BlockSet::ALL);
        assert_eq!(recycled.len(), 8);
        assert!(recycled.iter().all(|one| one.from.chunk() == ChunkIndex(0)));
        assert_eq!(slots.free_slots(DEVICE), 0);
    }
}
