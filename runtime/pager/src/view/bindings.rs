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
    /// Whether the mapping that ends the chunk before goes on here.
    joined: bool,
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
    /// Mappings of the driver's, at most.
    mappings: u64,
}

impl Bindings {
    /// The blocks are to be found in these slots of their chunk's.
    pub(super) fn want(&mut self, chunk: ChunkIndex, blocks: BlockSet, slots: &ChunkSlots) {
        let own = self.chunks.entry(chunk).or_insert_with(|| {
            self.mappings += 1;
            ChunkBindings::default()
        });
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
            self.cut(change);
            let own = self.chunks.entry(change.chunk).or_default();
            for at in (change.first..change.first + change.count).map(|at| at as usize) {
                own.bound[at] = own.wanted[at];
            }
        }
        // What was unbound as one, over several chunks.
        for (before, change) in changes.iter().zip(changes.iter().skip(1)) {
            let one = before.is_whole_unbound() && change.is_whole_unbound() && before.chunk.next() == change.chunk;
            if let (true, Some(own)) = (one, self.chunks.get_mut(&change.chunk)) {
                self.mappings -= u64::from(!own.joined);
                own.joined = true;
            }
        }
        let chunks = &self.chunks;
        let open = |chunk: &ChunkIndex| chunks.get(chunk).is_some_and(|own| own.bound != own.wanted);
        self.changed.retain(open);
    }

    /// A run was mapped or unmapped as one.
    fn cut(&mut self, change: &Change) {
        let own = self.chunks.entry(change.chunk).or_insert_with(|| {
            self.mappings += 1;
            ChunkBindings::default()
        });
        self.mappings -= u64::from(own.cuts.count());
        own.cuts = own.cuts - BlockSet::run(change.first, change.count);
        let end = change.first + change.count;
        for edge in [change.first, end].into_iter().filter(|edge| (1..BLOCKS_PER_CHUNK).contains(edge)) {
            own.cuts |= BlockSet::of(edge);
        }
        self.mappings += u64::from(own.cuts.count());
        let starts = (change.first == 0).then_some(change.chunk);
        let next = (end == BLOCKS_PER_CHUNK).then(|| change.chunk.next());
        for edge in [starts, next].into_iter().flatten() {
            if let Some(own) = self.chunks.get_mut(&edge) {
                self.mappings += u64::from(std::mem::take(&mut own.joined));
            }
        }
    }

    /// Mappings of the driver's there are once `changes` are made, at most.
    pub(super) fn mappings_after(&self, changes: &[Change]) -> u64 {
        // Two cuts, a chunk, and the end of what went on from one chunk to the next.
        self.mappings + 4 * changes.len() as u64
    }

    /// Whole chunks of which nothing is wanted any more, in order: to be unbound together with their neighbours.
    pub(super) fn idle(&self, in_use: impl Fn(ChunkIndex) -> bool) -> Vec<Change> {
        let idle = self.chunks.keys().filter(|chunk| !in_use(**chunk));
        idle.map(|chunk| Change { chunk: *chunk, first: 0, count: BLOCKS_PER_CHUNK, slot: None }).collect()
    }

    /// Nothing is to be found in the chunk of `change` any more.
    pub(super) fn unwant(&mut self, change: &Change) {
        if let Some(own) = self.chunks.get_mut(&change.chunk) {
            own.wanted = ChunkSlots::default();
            self.changed.insert(change.chunk);
        }
    }
}

impl Change {
    fn is_whole_unbound(&self) -> bool {
        self.count == BLOCKS_PER_CHUNK && self.slot.is_none()
    }

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
        bindings.made(&changes);
        assert_eq!((bindings.changes(), bindings.mappings), (vec![], 1));
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
        bindings.made(&changes);
        assert_eq!(bindings.mappings, 32);
        slots.give(ChunkIndex(0), odd);
        let whole = bindings.idle(|_| false);
        assert_eq!(whole.len(), 1);
        bindings.unwant(&whole[0]);
        bindings.made(&whole);
        assert_eq!((bindings.changes(), bindings.mappings), (vec![], 1));
    }

    #[test]
    fn idle_neighbours_become_one_mapping_until_one_is_bound_again() {
        let (mut slots, mut bindings) = (Slots::default(), Bindings::default());
        slots.add_frame(FrameKind::Device);
        for chunk in [3, 4, 5, 9].map(ChunkIndex) {
            slots.take(FrameKind::Device, chunk, BlockSet::run(2, 2)).into_iter().for_each(|one| bindings.recycle(one));
            bindings.want(chunk, BlockSet::run(2, 2), &slots.of(chunk));
            bindings.made(&bindings.changes());
            slots.give(chunk, BlockSet::run(2, 2));
        }
        assert_eq!(bindings.mappings, 12, "three in each chunk");
        let idle = bindings.idle(|_| false);
        idle.iter().for_each(|change| bindings.unwant(change));
        bindings.made(&idle);
        assert_eq!(bindings.mappings, 2, "chunks 3 to 5, and 9");
        slots.take(FrameKind::Device, ChunkIndex(4), BlockSet::ALL).into_iter().for_each(|one| bindings.recycle(one));
        bindings.want(ChunkIndex(4), BlockSet::ALL, &slots.of(ChunkIndex(4)));
        let changes = bindings.changes();
        assert!(bindings.mappings_after(&changes) >= 4);
        bindings.made(&changes);
        assert_eq!(bindings.mappings, 4);
    }
}
