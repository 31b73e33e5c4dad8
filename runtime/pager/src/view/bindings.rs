//! Which slot the device finds at each block, which it is to find, and the difference: what the next bind must do.
//!
//! Unbinding is lazy: a block that lost its frame stays bound to it until another block gets that slot, and is unbound
//! then, in the batch that binds the other. Each run that was bound or unbound at once is one mapping of a software
//! driver's, and past a limit of the kernel's such binds are lost in silence: so their number is kept, as an upper bound.

use std::collections::{BTreeMap, BTreeSet};

use limosa_model::{BLOCKS_PER_CHUNK, BlockSet, ChunkIndex};

use super::slots::{ChunkSlots, Recycled, Slot};

#[derive(Clone, Copy, Debug, Default)]
struct ChunkBindings {
    bound: ChunkSlots,
    wanted: ChunkSlots,
    /// Blocks before which a mapping of the driver's may end.
    cuts: BlockSet,
}

/// A run of blocks of one chunk to be bound to slots in a row, or unbound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) chunk: ChunkIndex,
    pub(super) first: u32,
    pub(super) count: u32,
    /// The slot of the first.
    pub(super) slot: Option<Slot>,
}

/// The bindings of a view.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    chunks: BTreeMap<ChunkIndex, ChunkBindings>,
    changed: BTreeSet<ChunkIndex>,
}

impl Bindings {
    /// The blocks are to be found in these slots of their chunk's.
    pub(super) fn want(&mut self, chunk: ChunkIndex, blocks: BlockSet, slots: &ChunkSlots) {
        let own = self.chunks.entry(chunk).or_default();
        for at in blocks.slots().map(|slot| slot as usize) {
            if own.wanted[at] != slots[at] {
                own.wanted[at] = slots[at];
                self.changed.insert(chunk);
            }
        }
    }

    /// The slot has gone to another block: where it was bound it must not be found any more.
    pub(super) fn recycle(&mut self, recycled: Recycled) {
        let Some(own) = self.chunks.get_mut(&recycled.from.chunk()) else { return };
        let wanted = &mut own.wanted[recycled.from.slot() as usize];
        if *wanted == Some(recycled.slot) {
            *wanted = None;
            self.changed.insert(recycled.from.chunk());
        }
    }

    /// What must be bound and unbound so that everything is where it is wanted, in order, in runs as long as can be.
    pub(super) fn changes(&self) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for chunk in &self.changed {
            let Some(own) = self.chunks.get(chunk) else { continue };
            for at in (0..BLOCKS_PER_CHUNK).filter(|at| own.bound[*at as usize] != own.wanted[*at as usize]) {
                let slot = own.wanted[at as usize];
                match changes.last_mut() {
                    Some(last) if last.continued_by(*chunk, at, slot, own) => last.count += 1,
                    _ => changes.push(Change { chunk: *chunk, first: at, count: 1, slot }),
                }
            }
        }
        changes
    }

    /// The changes were made.
    pub(super) fn made(&mut self, changes: &[Change]) {
        for change in changes {
            let own = self.chunks.entry(change.chunk).or_default();
            own.cut(change);
            for at in (change.first..change.first + change.count).map(|at| at as usize) {
                own.bound[at] = own.wanted[at];
            }
        }
        self.changed.clear();
    }

    /// Mappings of the driver's there may be once `changes` are made, at most.
    pub(super) fn mappings_after(&self, changes: &[Change]) -> u64 {
        let mut cuts: BTreeMap<ChunkIndex, ChunkBindings> = BTreeMap::new();
        for change in changes {
            let own = self.chunks.get(&change.chunk).copied().unwrap_or_default();
            cuts.entry(change.chunk).or_insert(own).cut(change);
        }
        let pieces =
            |(chunk, own): (&ChunkIndex, &ChunkBindings)| 1 + u64::from(cuts.get(chunk).unwrap_or(own).cuts.count());
        self.chunks.iter().map(pieces).sum()
    }

    /// Whole chunks of which nothing is wanted any more, though parts are mapped on their own: unbinding each of them as
    /// one leaves one mapping.
    pub(super) fn shattered(&self, in_use: impl Fn(ChunkIndex) -> bool) -> Vec<Change> {
        let idle = self.chunks.iter().filter(|(chunk, own)| !own.cuts.is_empty() && !in_use(**chunk));
        idle.map(|(chunk, _)| Change { chunk: *chunk, first: 0, count: BLOCKS_PER_CHUNK, slot: None }).collect()
    }

    /// Forgets what is bound in a chunk: all of it is unbound by `change`.
    pub(super) fn unwant(&mut self, change: &Change) {
        if let Some(own) = self.chunks.get_mut(&change.chunk) {
            own.wanted = ChunkSlots::default();
            self.changed.insert(change.chunk);
        }
    }
}

impl ChunkBindings {
    /// A run was mapped or unmapped as one.
    fn cut(&mut self, change: &Change) {
        self.cuts = self.cuts - BlockSet::run(change.first, change.count);
        let end = change.first + change.count;
        for edge in [change.first, end].into_iter().filter(|edge| (1..BLOCKS_PER_CHUNK).contains(edge)) {
            self.cuts |= BlockSet::of(edge);
        }
    }
}

impl Change {
    fn continued_by(&self, chunk: ChunkIndex, at: u32, slot: Option<Slot>, own: &ChunkBindings) -> bool {
        let before = own.wanted[(at.max(1) - 1) as usize];
        let in_a_row = match (before, slot) {
            (Some(before), Some(slot)) => slot.follows(before),
            (None, None) => true,
            _ => false,
        };
        self.chunk == chunk && self.first + self.count == at && in_a_row
    }
}

#[cfg(test)]
mod tests {
    use limosa_gpu::FrameKind;

    use super::super::slots::Slots;
    use super::*;

    #[test]
    fn a_chunk_of_one_frame_is_one_change_and_one_mapping() {
        let (mut slots, mut bindings) = (Slots::default(), Bindings::default());
        slots.add_frame(FrameKind::Device);
        slots.take(FrameKind::Device, ChunkIndex(3), BlockSet::ALL);
        bindings.want(ChunkIndex(3), BlockSet::ALL, &slots.of(ChunkIndex(3)));
        let changes = bindings.changes();
        assert_eq!(changes.len(), 1);
        assert_eq!(bindings.mappings_after(&changes), 1);
        bindings.made(&changes);
        assert_eq!(bindings.changes(), []);
    }

    #[test]
    fn a_recycled_slot_is_unbound_where_it_was_in_the_same_batch() {
        let (mut slots, mut bindings) = (Slots::default(), Bindings::default());
        slots.add_frame(FrameKind::Device);
        slots.take(FrameKind::Device, ChunkIndex(0), BlockSet::run(0, 4));
        bindings.want(ChunkIndex(0), BlockSet::run(0, 4), &slots.of(ChunkIndex(0)));
        bindings.made(&bindings.changes());
        slots.give(ChunkIndex(0), BlockSet::run(0, 4));
        assert_eq!(bindings.changes(), [], "unbinding is lazy");
        for recycled in slots.take(FrameKind::Device, ChunkIndex(1), BlockSet::ALL) {
            bindings.recycle(recycled);
        }
        bindings.want(ChunkIndex(1), BlockSet::ALL, &slots.of(ChunkIndex(1)));
        let changes = bindings.changes();
        assert_eq!(changes.len(), 2, "{changes:?}");
        assert_eq!((changes[0].chunk, changes[0].count, changes[0].slot), (ChunkIndex(0), 4, None));
        assert_eq!((changes[1].chunk, changes[1].count), (ChunkIndex(1), 32));
    }

    #[test]
    fn a_shattered_chunk_becomes_one_mapping_again() {
        let (mut slots, mut bindings) = (Slots::default(), Bindings::default());
        slots.add_frame(FrameKind::Device);
        let odd =
            (0..BLOCKS_PER_CHUNK).filter(|at| at % 2 == 1).fold(BlockSet::EMPTY, |set, at| set | BlockSet::of(at));
        slots.take(FrameKind::Device, ChunkIndex(0), odd);
        bindings.want(ChunkIndex(0), odd, &slots.of(ChunkIndex(0)));
        let changes = bindings.changes();
        assert_eq!(bindings.mappings_after(&changes), 32);
        bindings.made(&changes);
        slots.give(ChunkIndex(0), odd);
        let whole = bindings.shattered(|_| false);
        assert_eq!(whole.len(), 1);
        bindings.unwant(&whole[0]);
        assert_eq!(bindings.mappings_after(&whole), 1);
        bindings.made(&whole);
        assert_eq!(bindings.changes(), []);
    }
}
