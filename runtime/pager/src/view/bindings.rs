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
    borders: Borders,
}

/// Where the driver's mappings end in a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Borders {
    /// Blocks before which a mapping of the driver's may end.
    cuts: BlockSet,
    /// Whether the mapping that ends the chunk before goes on here.
    joined: bool,
}

impl Borders {
    /// Mappings that begin here.
    fn mappings(self) -> u64 {
        u64::from(self.cuts.count()) + u64::from(!self.joined)
    }
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
        let own = known(&mut self.chunks, &mut self.mappings, chunk);
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
        for (chunk, borders) in self.redrawn(changes) {
            let own = known(&mut self.chunks, &mut self.mappings, chunk);
            self.mappings = self.mappings + borders.mappings() - own.borders.mappings();
            own.borders = borders;
        }
        for change in changes {
            let Some(own) = self.chunks.get_mut(&change.chunk) else { continue };
            for at in (change.first..change.first + change.count).map(|at| at as usize) {
                own.bound[at] = own.wanted[at];
            }
        }
        let chunks = &self.chunks;
        let open = |chunk: &ChunkIndex| chunks.get(chunk).is_some_and(|own| own.bound != own.wanted);
        self.changed.retain(open);
    }

    /// The borders of all chunks that have others once `changes` are made: each run is mapped or unmapped as one.
    fn redrawn(&self, changes: &[Change]) -> BTreeMap<ChunkIndex, Borders> {
        let mut redrawn: BTreeMap<ChunkIndex, Borders> = BTreeMap::new();
        let before = |chunk: ChunkIndex| self.chunks.get(&chunk).map(|own| own.borders);
        for change in changes {
            let end = change.first + change.count;
            let own = redrawn.entry(change.chunk).or_insert_with(|| before(change.chunk).unwrap_or_default());
            own.cuts = own.cuts - BlockSet::run(change.first, change.count);
            for edge in [change.first, end].into_iter().filter(|edge| (1..BLOCKS_PER_CHUNK).contains(edge)) {
                own.cuts |= BlockSet::of(edge);
            }
            own.joined &= change.first > 0;
            let next = change.chunk.next();
            if let (true, Some(borders)) = (end == BLOCKS_PER_CHUNK, redrawn.get(&next).copied().or(before(next))) {
                redrawn.insert(next, Borders { joined: false, ..borders });
            }
        }
        // What is unbound as one, over several chunks.
        for (before, change) in changes.iter().zip(changes.iter().skip(1)) {
            let one = before.is_whole_unbound() && change.is_whole_unbound() && before.chunk.next() == change.chunk;
            if let (true, Some(own)) = (one, redrawn.get_mut(&change.chunk)) {
                own.joined = true;
            }
        }
        redrawn
    }

    /// Mappings of the driver's there are once `changes` are made.
    pub(super) fn mappings_after(&self, changes: &[Change]) -> u64 {
        self.redrawn(changes).into_iter().fold(self.mappings, |all, (chunk, borders)| {
            all + borders.mappings() - self.chunks.get(&chunk).map_or(0, |own| own.borders.mappings())
        })
    }

    /// Whole chunks of which nothing is wanted any more, in order: to be unbound together with their neighbours. Those
    /// that are one mapping with their neighbours already are *not* among them.
    pub(super) fn idle(&self, in_use: impl Fn(ChunkIndex) -> bool) -> Vec<Change> {
        let idle: Vec<_> = self.chunks.iter().filter(|(chunk, _)| !in_use(**chunk)).collect();
        let rows = idle.chunk_by(|(chunk, _), (next, _)| chunk.next() == **next);
        let shattered = rows.filter(|row| row.iter().map(|(_, own)| own.borders.mappings()).sum::<u64>() > 1);
        let whole = |chunk: ChunkIndex| Change { chunk, first: 0, count: BLOCKS_PER_CHUNK, slot: None };
        shattered.flatten().map(|(chunk, _)| whole(**chunk)).collect()
    }

    /// Nothing is to be found in the chunk any more.
    pub(super) fn unwant(&mut self, chunk: ChunkIndex) {
        if let Some(own) = self.chunks.get_mut(&chunk) {
            own.wanted = ChunkSlots::default();
            self.changed.insert(chunk);
        }
    }
}

/// The chunk's entry; one that is new is one mapping of the driver's.
fn known<'a>(
    chunks: &'a mut BTreeMap<ChunkIndex, ChunkBindings>,
    mappings: &mut u64,
    chunk: ChunkIndex,
) -> &'a mut ChunkBindings {
    chunks.entry(chunk).or_insert_with(|| {
        *mappings += 1;
        ChunkBindings::default()
    })
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
        bindings.unwant(whole[0].chunk);
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
        idle.iter().for_each(|change| bindings.unwant(change.chunk));
        bindings.made(&idle);
        assert_eq!(bindings.mappings, 2, "chunks 3 to 5, and 9");
        slots.take(FrameKind::Device, ChunkIndex(4), BlockSet::ALL).into_iter().for_each(|one| bindings.recycle(one));
        bindings.want(ChunkIndex(4), BlockSet::ALL, &slots.of(ChunkIndex(4)));
        let changes = bindings.changes();
        assert_eq!(bindings.mappings_after(&changes), 4);
        bindings.made(&changes);
        assert_eq!(bindings.mappings, 4);
    }

    #[test]
    fn what_is_unbound_as_one_already_is_not_unbound_anew() {
        let mut bindings = Bindings::default();
        let mut slots = Slots::default();
        slots.add_frame(FrameKind::Device);
        let use_and_leave = |slots: &mut Slots, bindings: &mut Bindings, chunk| {
            slots.take(FrameKind::Device, chunk, BlockSet::of(9)).into_iter().for_each(|one| bindings.recycle(one));
            bindings.want(chunk, BlockSet::of(9), &slots.of(chunk));
            bindings.made(&bindings.changes());
            slots.give(chunk, BlockSet::of(9));
        };
        let unbind = |bindings: &mut Bindings| {
            let idle = bindings.idle(|_| false);
            idle.iter().for_each(|change| bindings.unwant(change.chunk));
            bindings.made(&idle);
            idle.iter().map(|change| change.chunk.0).collect::<Vec<_>>()
        };
        [3, 4, 9].map(ChunkIndex).into_iter().for_each(|chunk| use_and_leave(&mut slots, &mut bindings, chunk));
        assert_eq!(unbind(&mut bindings), [3, 4, 9]);
        assert_eq!(unbind(&mut bindings), [0; 0]);
        use_and_leave(&mut slots, &mut bindings, ChunkIndex(5));
        assert_eq!(unbind(&mut bindings), [3, 4, 5], "the neighbours become one with it");
        assert_eq!((unbind(&mut bindings), bindings.mappings), (vec![], 2));
    }

    #[test]
    fn what_changes_lead_to_is_counted_beforehand() {
        let (mut slots, mut bindings) = (Slots::default(), Bindings::default());
        (0..4).for_each(|_| _ = slots.add_frame(FrameKind::Device));
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for step in 0..2000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = |shift: u32, below: u32| u32::try_from(random >> shift & 0xffff).unwrap() % below;
            let chunk = ChunkIndex(draw(20, 8));
            let has = slots.of(chunk);
            let first = draw(24, 32);
            let set = BlockSet::run(first, 1 + draw(30, 32 - first));
            let missing = set.slots().filter(|at| has[*at as usize].is_none());
            let missing = missing.fold(BlockSet::EMPTY, |all, at| all | BlockSet::of(at));
            if draw(40, 2) == 0 || slots.free_slots(FrameKind::Device) < missing.count().into() {
                slots.give(chunk, set);
            } else {
                let recycled = slots.take(FrameKind::Device, chunk, missing);
                recycled.into_iter().for_each(|one| bindings.recycle(one));
                bindings.want(chunk, missing, &slots.of(chunk));
            }
            let changes = if draw(41, 10) == 0 {
                let idle = bindings.idle(|chunk| slots.of(chunk).iter().any(Option::is_some));
                idle.iter().for_each(|change| bindings.unwant(change.chunk));
                idle
            } else {
                bindings.changes()
            };
            let expected = bindings.mappings_after(&changes);
            bindings.made(&changes);
            assert_eq!(bindings.mappings, expected, "step {step}");
            let sum: u64 = bindings.chunks.values().map(|own| own.borders.mappings()).sum();
            assert_eq!(bindings.mappings, sum, "step {step}");
        }
    }
}
