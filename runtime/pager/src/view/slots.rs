//! Where in device memory each block's 64 KiB are: slots, 32 to a frame of 2 MiB, given to blocks and taken back.
//!
//! A chunk that is taken whole gets a frame of its own where one is free, so that it is bound as one. A block that comes
//! back gets the slot that it had, if nobody took it: it may still be bound there. Nothing here talks to the device.

use std::collections::{BTreeSet, HashMap};

use arrayvec::ArrayVec;
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

/// Blocks of one chunk in a row, in slots in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotRun {
    pub(super) first: u32,
    pub(super) count: u32,
    /// The slot of the first.
    pub(super) slot: Slot,
}

/// Who has which slot.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// By index; none for those that are retired, or gone.
    frames: Vec<Option<OneFrame>>,
    /// Indices of frames that are gone, for others.
    vacant: Vec<usize>,
    device: Kept,
    host_visible: Kept,
    taken: HashMap<ChunkIndex, ChunkSlots>,
    /// The block that had a slot last: it may still be bound there.
    last: HashMap<Slot, Block>,
    /// The slot that a block had last.
    had: HashMap<Block, Slot>,
}

#[derive(Clone, Copy, Debug)]
struct OneFrame {
    kind: FrameKind,
    free: BlockSet,
}

/// What there is of one kind: cards have a hundred thousand frames, so that looking at each would take too long.
#[derive(Debug, Default)]
struct Kept {
    frames: usize,
    free_slots: u64,
    /// Frames of which something is free, by their longest free run.
    by_run: BTreeSet<(u32, usize)>,
}

impl Kept {
    /// What is free of a frame has changed.
    fn change(&mut self, frame: usize, before: BlockSet, after: BlockSet) {
        self.by_run.remove(&(longest_run(before), frame));
        if !after.is_empty() {
            self.by_run.insert((longest_run(after), frame));
        }
        self.free_slots = self.free_slots + u64::from(after.count()) - u64::from(before.count());
    }

    fn whole(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_run.range((BLOCKS_PER_CHUNK, 0)..).map(|(_, frame)| *frame)
    }
}

fn longest_run(blocks: BlockSet) -> u32 {
    blocks.runs().map(|(_, count)| count).max().unwrap_or(0)
}

/// A slot that changed hands: the block that had it before must not reach it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recycled {
    pub(super) slot: Slot,
    pub(super) from: Block,
}

impl Slots {
    /// Adds a frame, all of it free. Gives its index.
    pub(super) fn add_frame(&mut self, kind: FrameKind) -> usize {
        let frame = self.vacant.pop().unwrap_or_else(|| {
            self.frames.push(None);
            self.frames.len() - 1
        });
        self.kept_mut(kind).frames += 1;
        self.restore(kind, frame);
        frame
    }

    /// Frames of one kind, also retired ones.
    pub(super) fn frames(&self, kind: FrameKind) -> usize {
        self.kept(kind).frames
    }

    /// Free slots of one kind.
    pub(super) fn free_slots(&self, kind: FrameKind) -> u64 {
        self.kept(kind).free_slots
    }

    /// Whether a whole frame is free.
    pub(super) fn has_free_frame(&self, kind: FrameKind) -> bool {
        self.kept(kind).whole().next().is_some()
    }

    fn kept(&self, kind: FrameKind) -> &Kept {
        match kind {
            FrameKind::Device => &self.device,
            FrameKind::HostVisible => &self.host_visible,
        }
    }

    fn kept_mut(&mut self, kind: FrameKind) -> &mut Kept {
        match kind {
            FrameKind::Device => &mut self.device,
            FrameKind::HostVisible => &mut self.host_visible,
        }
    }

    /// Has nobody get slots of the frames that are wholly free, until [`Self::restore`] or [`Self::forget`]. Gives
    /// them, and where they may still be bound.
    pub(super) fn retire(&mut self, kind: FrameKind) -> (Vec<usize>, Vec<Recycled>) {
        let idle: Vec<usize> = self.kept(kind).whole().collect();
        for frame in &idle {
            self.frames[*frame] = None;
            self.kept_mut(kind).change(*frame, BlockSet::ALL, BlockSet::EMPTY);
        }
        let slots = idle.iter().flat_map(|frame| (0..BLOCKS_PER_CHUNK).map(|part| Slot::new(*frame, part)));
        let bound = slots.filter_map(|slot| Some(Recycled { slot, from: *self.last.get(&slot)? })).collect();
        (idle, bound)
    }

    /// All of a retired frame is free again.
    pub(super) fn restore(&mut self, kind: FrameKind, frame: usize) {
        self.frames[frame] = Some(OneFrame { kind, free: BlockSet::ALL });
        self.kept_mut(kind).change(frame, BlockSet::EMPTY, BlockSet::ALL);
    }

    /// A retired frame, which is bound nowhere any more, is gone.
    pub(super) fn forget(&mut self, kind: FrameKind, frame: usize) {
        for slot in (0..BLOCKS_PER_CHUNK).map(|part| Slot::new(frame, part)) {
            let Some(block) = self.last.remove(&slot) else { continue };
            if self.had.get(&block) == Some(&slot) {
                self.had.remove(&block);
            }
        }
        self.kept_mut(kind).frames -= 1;
        self.vacant.push(frame);
    }

    /// Where blocks are, in runs as long as can be; or one that is nowhere. Takes no memory, for signal mode.
    pub(super) fn runs(
        &self,
        chunk: ChunkIndex,
        blocks: BlockSet,
    ) -> Result<ArrayVec<SlotRun, { BLOCKS_PER_CHUNK as usize }>, Block> {
        let slots = self.of(chunk);
        let mut runs: ArrayVec<SlotRun, { BLOCKS_PER_CHUNK as usize }> = ArrayVec::new();
        for at in blocks.slots() {
            let slot = slots[at as usize].ok_or_else(|| chunk.block(at))?;
            let follows = at > 0 && slots[at as usize - 1].is_some_and(|before| slot.follows(before));
            match runs.last_mut() {
                Some(last) if follows && last.first + last.count == at => last.count += 1,
                _ => runs.push(SlotRun { first: at, count: 1, slot }),
            }
        }
        Ok(runs)
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
                self.set_free(start.frame(), |free| free - BlockSet::run(start.part(), len));
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
        had.filter(|frame| self.free_of(kind, *frame).is_all()).or_else(|| self.kept(kind).whole().next())
    }

    /// A run of free slots for `block` and those behind it, at most `wanted`: where the block was before, else in
    /// the frame whose longest run is the shortest that is long enough, else in the one that has the longest.
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
        let by_run = &self.kept(kind).by_run;
        let (len, frame) = *by_run.range((wanted, 0)..).next().or_else(|| by_run.last())?;
        let enough = len.min(wanted);
        let runs = self.free_of(kind, frame).runs().filter(|(_, count)| *count >= enough);
        let (first, _) = runs.min_by_key(|(_, count)| *count)?;
        Some((Slot::new(frame, first), enough))
    }

    /// What is free of a frame, if it is of the kind.
    fn free_of(&self, kind: FrameKind, frame: usize) -> BlockSet {
        let own = self.frames.get(frame).copied().flatten().filter(|own| own.kind == kind);
        own.map_or(BlockSet::EMPTY, |own| own.free)
    }

    fn is_free(&self, kind: FrameKind, slot: Slot) -> bool {
        self.free_of(kind, slot.frame()).contains(slot.part())
    }

    fn set_free(&mut self, frame: usize, changed: impl FnOnce(BlockSet) -> BlockSet) {
        let Some(Some(own)) = self.frames.get_mut(frame) else { return debug_assert!(false, "a frame that is gone") };
        let (kind, before, after) = (own.kind, own.free, changed(own.free));
        own.free = after;
        self.kept_mut(kind).change(frame, before, after);
    }

    /// `slot`, which is not free any more, is the block's.
    fn hand_over(&mut self, slot: Slot, block: Block) -> Option<Recycled> {
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
        let mut given: ArrayVec<Slot, { BLOCKS_PER_CHUNK as usize }> = ArrayVec::new();
        given.extend(blocks.slots().filter_map(|at| slots[at as usize].take()));
        if slots.iter().all(Option::is_none) {
            self.taken.remove(&chunk);
        }
        for run in given.chunk_by(|one, next| one.frame() == next.frame()) {
            let parts = run.iter().fold(BlockSet::EMPTY, |parts, slot| parts | BlockSet::of(slot.part()));
            self.set_free(run[0].frame(), |free| free | parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: FrameKind = FrameKind::Device;

    fn with_frames(count: usize) -> Slots {
        let mut slots = Slots::default();
        (0..count).for_each(|_| _ = slots.add_frame(DEVICE));
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

    /// What the counts and the ordered sets say, found by looking at every frame.
    fn check(slots: &Slots, kind: FrameKind) {
        let free = |own: &OneFrame| (own.kind == kind).then_some(own.free);
        let free: Vec<BlockSet> = slots.frames.iter().flatten().filter_map(free).collect();
        assert_eq!(slots.frames(kind), free.len());
        assert_eq!(slots.free_slots(kind), free.iter().map(|free| u64::from(free.count())).sum::<u64>());
        assert_eq!(slots.has_free_frame(kind), free.iter().any(|free| free.is_all()));
        let mut taken: Vec<Slot> = slots.taken.values().flatten().copied().flatten().collect();
        taken.retain(|slot| slots.frames[slot.frame()].is_some_and(|own| own.kind == kind));
        let all = taken.len();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!((taken.len(), slots.free_slots(kind)), (all, free.len() as u64 * 32 - all as u64), "each slot once");
    }

    #[test]
    fn counts_are_what_looking_at_every_frame_finds() {
        let mut slots = with_frames(6);
        (0..3).for_each(|_| _ = slots.add_frame(FrameKind::HostVisible));
        let mut random = 0x2545_f491_4f6c_dd1du64;
        for _ in 0..4000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = |shift: u32, below: u32| u32::try_from(random >> shift & 0xffff).unwrap() % below;
            let kind = if draw(20, 3) == 0 { FrameKind::HostVisible } else { DEVICE };
            let chunk = ChunkIndex(draw(24, 9) + if kind == DEVICE { 0 } else { 100 });
            let first = draw(30, 32);
            let set = if draw(33, 4) == 0 { BlockSet::ALL } else { BlockSet::run(first, 1 + draw(40, 32 - first)) };
            let has = slots.of(chunk);
            let missing = set.slots().filter(|at| has[*at as usize].is_none());
            let missing = missing.fold(BlockSet::EMPTY, |all, at| all | BlockSet::of(at));
            match draw(48, 8) {
                0 => {
                    let (frames, _) = slots.retire(kind);
                    for frame in frames {
                        slots.forget(kind, frame);
                    }
                    slots.add_frame(kind);
                }
                1..4 if slots.free_slots(kind) >= missing.count().into() => _ = slots.take(kind, chunk, missing),
                _ => slots.give(chunk, set),
            }
            check(&slots, kind);
        }
    }

    #[test]
    fn a_large_card_is_filled_quickly() {
        let mut slots = with_frames(20_000);
        // Too long for two in a frame: each take looks for a run among many frames that are too short.
        for chunk in 0..20_000 {
            slots.take(DEVICE, ChunkIndex(chunk), BlockSet::run(0, 17));
        }
        assert_eq!((slots.free_slots(DEVICE), slots.has_free_frame(DEVICE)), (15 * 20_000, false));
        slots.take(DEVICE, ChunkIndex(20_000), BlockSet::ALL);
        assert_eq!(slots.runs(ChunkIndex(20_000), BlockSet::ALL).unwrap().len(), 3, "15, 15 and 2");
    }

    #[test]
    fn idle_frames_go_and_their_places_are_told() {
        const SHARED: FrameKind = FrameKind::HostVisible;
        let mut slots = with_frames(1);
        assert_eq!([slots.add_frame(SHARED), slots.add_frame(SHARED)], [1, 2]);
        slots.take(SHARED, ChunkIndex(0), BlockSet::run(0, 8));
        slots.take(SHARED, ChunkIndex(1), BlockSet::ALL);
        assert_eq!(slots.retire(SHARED), (vec![], vec![]), "all are in use");
        slots.give(ChunkIndex(1), BlockSet::ALL);
        let (frames, bound) = slots.retire(SHARED);
        assert_eq!((&frames[..], bound.len()), (&[2][..], 32));
        assert!(bound.iter().all(|one| one.from.chunk() == ChunkIndex(1) && one.slot.frame() == 2));
        assert_eq!((slots.frames(SHARED), slots.free_slots(SHARED)), (2, 24), "nobody gets it meanwhile");

        slots.restore(SHARED, 2);
        assert_eq!(slots.take(SHARED, ChunkIndex(1), BlockSet::ALL), [], "as if nothing had been");
        slots.give(ChunkIndex(1), BlockSet::ALL);

        assert_eq!(slots.retire(SHARED).0, [2]);
        slots.forget(SHARED, 2);
        assert_eq!((slots.frames(SHARED), slots.free_slots(SHARED), slots.frames(DEVICE)), (1, 24, 1));
        assert_eq!(slots.add_frame(DEVICE), 2, "its index is another's");
        assert_eq!(slots.take(DEVICE, ChunkIndex(5), BlockSet::ALL), [], "and was bound nowhere");
        assert_eq!(slots.take(DEVICE, ChunkIndex(1), BlockSet::ALL), []);
    }

    #[test]
    fn a_block_without_a_slot_is_told_and_never_left_out() {
        let mut slots = with_frames(1);
        slots.take(DEVICE, ChunkIndex(2), BlockSet::run(3, 4));
        let runs = slots.runs(ChunkIndex(2), BlockSet::run(3, 4)).unwrap();
        assert_eq!((runs.len(), runs[0].first, runs[0].count), (1, 3, 4));
        assert_eq!(slots.runs(ChunkIndex(2), BlockSet::run(3, 5)), Err(ChunkIndex(2).block(7)));
    }
}
