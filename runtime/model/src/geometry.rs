//! All page, block and chunk arithmetic of the project, in one place.
//!
//! A *page* is the OS page, a *block* the unit of state and migration, a *chunk* the size up to which dense migration
//! grows and whose CPU mapping is opened as one. Nothing here knows about states or memory.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Sub};

/// The OS page in bytes.
pub const PAGE: u64 = 4 << 10;
/// The block in bytes: 64 KiB.
pub const BLOCK: u64 = 64 << 10;
/// The chunk in bytes: 2 MiB, the huge page of x86-64 and of AArch64 with 4 KiB pages.
pub const CHUNK: u64 = 2 << 20;
/// Blocks in a chunk.
pub const BLOCKS_PER_CHUNK: u32 = 32;

/// A block by its index in the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(pub u32);

/// A chunk by its index in the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(pub u32);

/// A byte range of the heap, by offset from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Index as stored; heaps are limited to 2³² blocks (256 TiB), which [`Extent`]s within them respect.
#[allow(clippy::cast_possible_truncation)] // heap offsets stay below 2^48, so block and chunk indices fit 32 bits
const fn index(value: u64) -> u32 {
    value as u32
}

impl Block {
    /// The block that holds heap offset `offset`.
    #[must_use]
    pub const fn containing(offset: u64) -> Self {
        Self(index(offset / BLOCK))
    }

    /// Offset of the first byte.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 as u64 * BLOCK
    }

    /// The chunk the block lies in.
    #[must_use]
    pub const fn chunk(self) -> ChunkIndex {
        ChunkIndex(self.0 / BLOCKS_PER_CHUNK)
    }

    /// Position within the chunk, below [`BLOCKS_PER_CHUNK`].
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0 % BLOCKS_PER_CHUNK
    }
}

impl ChunkIndex {
    /// The chunk that holds heap offset `offset`.
    #[must_use]
    pub const fn containing(offset: u64) -> Self {
        Self(index(offset / CHUNK))
    }

    /// Offset of the first byte.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 as u64 * CHUNK
    }

    /// The whole chunk.
    #[must_use]
    pub const fn extent(self) -> Extent {
        Extent { start: self.offset(), len: CHUNK }
    }

    /// The block in `slot` of this chunk.
    #[must_use]
    pub const fn block(self, slot: u32) -> Block {
        Block(self.0 * BLOCKS_PER_CHUNK + slot)
    }

    /// The chunk after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The chunk before this one, if there is one.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(chunk) => Some(Self(chunk)),
            None => None,
        }
    }

    /// Byte range of a run of slots in this chunk.
    #[must_use]
    pub const fn run(self, first: u32, count: u32) -> Extent {
        Extent { start: self.offset() + first as u64 * BLOCK, len: count as u64 * BLOCK }
    }
}

impl Extent {
    /// One past the last byte.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.len
    }

    /// The smallest extent of whole blocks that covers this one.
    #[must_use]
    pub const fn to_blocks(self) -> Self {
        let start = self.start / BLOCK * BLOCK;
        Self { start, len: round_up(self.end(), BLOCK) - start }
    }

    /// The blocks that lie in it with every byte; empty (of length 0) if there is none.
    #[must_use]
    pub const fn inner_blocks(self) -> Self {
        let start = self.start.div_ceil(BLOCK) * BLOCK;
        let end = self.end() / BLOCK * BLOCK;
        Self { start, len: end.saturating_sub(start) }
    }

    /// Number of blocks touched.
    #[must_use]
    pub const fn block_count(self) -> u64 {
        self.to_blocks().len / BLOCK
    }

    /// The slots of `chunk` that it touches.
    #[must_use]
    pub fn blocks_in(self, chunk: ChunkIndex) -> BlockSet {
        let (start, end) = (self.start.max(chunk.offset()), self.end().min(chunk.extent().end()));
        let part = Self { start, len: end.saturating_sub(start) };
        if part.len == 0 { BlockSet::EMPTY } else { part.chunks().fold(BlockSet::EMPTY, |_, (_, blocks)| blocks) }
    }

    /// The chunks touched, each with the slots of it that are.
    pub fn chunks(self) -> impl Iterator<Item = (ChunkIndex, BlockSet)> {
        let blocks = self.to_blocks();
        let (first, end) = (index(blocks.start / BLOCK), index(blocks.end() / BLOCK));
        let chunks = if first == end { 0..0 } else { first / BLOCKS_PER_CHUNK..(end - 1) / BLOCKS_PER_CHUNK + 1 };
        chunks.map(move |chunk| {
            let base = chunk * BLOCKS_PER_CHUNK;
            let from = first.saturating_sub(base);
            let to = (end - base).min(BLOCKS_PER_CHUNK);
            (ChunkIndex(chunk), BlockSet::run(from, to - from))
        })
    }
}

/// `value` rounded up to a multiple of `unit` (a power of two); saturates below overflow.
#[must_use]
pub const fn round_up(value: u64, unit: u64) -> u64 {
    match value.checked_add(unit - 1) {
        Some(sum) => sum & !(unit - 1),
        None => !(unit - 1),
    }
}

/// A set of blocks of one chunk; bit *i* set means that slot *i* is a member.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct BlockSet(pub u32);

impl BlockSet {
    /// No block.
    pub const EMPTY: Self = Self(0);
    /// All blocks of a chunk.
    pub const ALL: Self = Self(u32::MAX);

    /// The single block in `slot`.
    #[must_use]
    pub const fn of(slot: u32) -> Self {
        Self(1 << slot)
    }

    /// `count` blocks from slot `first` on, clipped to the chunk.
    #[must_use]
    pub const fn run(first: u32, count: u32) -> Self {
        if count == 0 || first >= BLOCKS_PER_CHUNK {
            return Self::EMPTY;
        }
        let ones = if count >= BLOCKS_PER_CHUNK { u32::MAX } else { (1 << count) - 1 };
        Self(ones << first)
    }

    /// Whether there is no member.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every slot is a member.
    #[must_use]
    pub const fn is_all(self) -> bool {
        self.0 == u32::MAX
    }

    /// Number of members.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether `slot` is a member.
    #[must_use]
    pub const fn contains(self, slot: u32) -> bool {
        self.0 >> slot & 1 == 1
    }

    /// Whether all members of `other` are members.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The `count` members with the highest slots, or all if there are fewer.
    #[must_use]
    pub const fn last(self, count: u32) -> Self {
        let mut rest = self.0;
        let mut surplus = self.0.count_ones().saturating_sub(count);
        while surplus > 0 {
            rest &= rest - 1;
            surplus -= 1;
        }
        Self(rest)
    }

    /// The members as maximal runs of `(first slot, count)`, ascending: what a range-based call takes at once.
    pub fn runs(self) -> impl Iterator<Item = (u32, u32)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let first = rest.trailing_zeros();
            let count = (rest >> first).trailing_ones();
            rest &= !Self::run(first, count).0;
            Some((first, count))
        })
    }

    /// The members, ascending.
    pub fn slots(self) -> impl Iterator<Item = u32> {
        self.runs().flat_map(|(first, count)| first..first + count)
    }
}

impl BitOr for BlockSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for BlockSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for BlockSet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for BlockSet {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for BlockSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{:032b}}}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_rebuild_the_set(bits: u32) {
            let set = BlockSet(bits);
            let rebuilt = set.runs().fold(BlockSet::EMPTY, |all, (first, count)| all | BlockSet::run(first, count));
            prop_assert_eq!(rebuilt, set);
            prop_assert_eq!(set.slots().count(), set.count() as usize);
            let runs: Vec<_> = set.runs().collect();
            for pair in runs.windows(2) {
                prop_assert!(pair[0].0 + pair[0].1 < pair[1].0, "runs are maximal and ascending");
            }
        }

        #[test]
        fn chunks_cover_exactly_the_touched_blocks(start in 0u64..1 << 34, len in 0u64..1 << 24) {
            let extent = Extent { start, len };
            let total: u64 = extent.chunks().map(|(_, set)| u64::from(set.count())).sum();
            prop_assert_eq!(total, if len == 0 { extent.to_blocks().len / BLOCK } else { extent.block_count() });
            for (chunk, set) in extent.chunks() {
                for slot in set.slots() {
                    let offset = chunk.block(slot).offset();
                    prop_assert!(offset < extent.to_blocks().end() && offset >= extent.to_blocks().start);
                }
            }
        }
    }
}
