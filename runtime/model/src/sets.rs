//! What a launch declares that it will touch, by chunk and block. It does *not* know what else is going on.

use crate::geometry::{BlockSet, CHUNK, ChunkIndex, Extent};

/// A launch's declared blocks in one chunk; each block is in at most one of the sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkSets {
    /// Only read.
    pub reads: BlockSet,
    /// Read and written, or written in part.
    pub writes: BlockSet,
    /// Every byte replaced, nothing read before.
    pub overwrites: BlockSet,
}

impl ChunkSets {
    /// All of its blocks.
    #[must_use]
    pub fn all(&self) -> BlockSet {
        self.reads | self.writes | self.overwrites
    }
}

/// A launch's declared blocks, by chunk in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredSets {
    chunks: Vec<(ChunkIndex, ChunkSets)>,
    blocks: u64,
}

impl DeclaredSets {
    /// From byte ranges. A block of which any part is written counts as written, one that is overwritten only in
    /// part, too: the rest of it must survive.
    #[must_use]
    pub fn new(reads: &[Extent], writes: &[Extent], overwrites: &[Extent]) -> Self {
        let none = ChunkSets::default();
        let touched = |extent: &&Extent| extent.len > 0;
        // What is overwritten whole and what only in part, or written anyhow.
        let whole = overwrites.iter().flat_map(|extent| extent.inner_blocks().chunks());
        let whole = whole.map(|(chunk, overwrites)| (chunk, ChunkSets { overwrites, ..none }, BlockSet::EMPTY));
        let parts = overwrites.iter().filter(touched).flat_map(|extent| {
            let inner = extent.inner_blocks();
            // At its ends only.
            let ends = [extent.start, extent.end() - 1].map(ChunkIndex::containing);
            let blocks = move |chunk: ChunkIndex| (chunk, extent.blocks_in(chunk) - inner.blocks_in(chunk));
            ends.into_iter().map(blocks)
        });
        let parts = parts.map(|(chunk, blocks)| (chunk, none, blocks));
        let written = writes.iter().filter(touched).flat_map(|extent| extent.chunks());
        let written = written.map(|(chunk, writes)| (chunk, ChunkSets { writes, ..none }, BlockSet::EMPTY));
        let read = reads.iter().filter(touched).flat_map(|extent| extent.chunks());
        let read = read.map(|(chunk, reads)| (chunk, ChunkSets { reads, ..none }, BlockSet::EMPTY));
        // One allocation: this is on the path of every launch.
        let chunks = |extents: &[Extent]| extents.iter().map(|extent| extent.len / CHUNK + 2).sum::<u64>();
        let most = chunks(reads) + chunks(writes) + 2 * chunks(overwrites);
        let mut pieces: Vec<(ChunkIndex, ChunkSets, BlockSet)> = Vec::with_capacity(usize::try_from(most).unwrap_or(0));
        pieces.extend(read.chain(written).chain(whole).chain(parts));
        pieces.sort_unstable_by_key(|(chunk, ..)| *chunk);
        pieces.dedup_by(|(chunk, piece, part), (last, sets, parts)| {
            let same = chunk == last;
            if same {
                sets.reads |= piece.reads;
                sets.writes |= piece.writes;
                sets.overwrites |= piece.overwrites;
                *parts |= *part;
            }
            same
        });
        let strongest = |(chunk, sets, parts): (ChunkIndex, ChunkSets, BlockSet)| {
            // What is read as well, or of which a part stays, must be there.
            let writes = sets.writes | (parts - sets.overwrites) | (sets.overwrites & sets.reads);
            let overwrites = sets.overwrites - writes;
            (chunk, ChunkSets { reads: sets.reads - writes - overwrites, writes, overwrites })
        };
        let chunks = pieces.into_iter().map(strongest).filter(|(_, sets)| !sets.all().is_empty());
        let chunks: Vec<_> = chunks.collect();
        let blocks = chunks.iter().map(|(_, sets)| u64::from(sets.all().count())).sum();
        Self { chunks, blocks }
    }

    /// Blocks to be written, by chunk in ascending order.
    #[must_use]
    pub fn writing(blocks: impl Iterator<Item = (ChunkIndex, BlockSet)>) -> Self {
        let chunks: Vec<_> =
            blocks.map(|(chunk, writes)| (chunk, ChunkSets { writes, ..ChunkSets::default() })).collect();
        let blocks = chunks.iter().map(|(_, sets)| u64::from(sets.writes.count())).sum();
        Self { chunks, blocks }
    }

    /// Without the blocks that `left_out` gives of each chunk.
    pub fn leave_out(&mut self, left_out: impl Fn(ChunkIndex) -> BlockSet) {
        for (chunk, sets) in &mut self.chunks {
            let out = left_out(*chunk);
            sets.reads = sets.reads - out;
            sets.writes = sets.writes - out;
            sets.overwrites = sets.overwrites - out;
        }
        self.chunks.retain(|(_, sets)| !sets.all().is_empty());
        self.blocks = self.chunks.iter().map(|(_, sets)| u64::from(sets.all().count())).sum();
    }

    /// The chunks with their blocks.
    pub fn chunks(&self) -> impl Iterator<Item = (ChunkIndex, ChunkSets)> + '_ {
        self.chunks.iter().copied()
    }

    /// Its blocks in one chunk.
    #[must_use]
    pub fn of(&self, chunk: ChunkIndex) -> ChunkSets {
        let found = self.chunks.binary_search_by_key(&chunk, |(chunk, _)| *chunk);
        found.map_or_else(|_| ChunkSets::default(), |at| self.chunks[at].1)
    }

    /// Number of blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{BLOCK, CHUNK};

    fn extent(start: u64, len: u64) -> Extent {
        Extent { start, len }
    }

    #[test]
    fn each_block_is_in_the_strongest_set_only() {
        let sets = DeclaredSets::new(&[extent(0, 4 * BLOCK)], &[extent(BLOCK, 1)], &[extent(3 * BLOCK, 3 * BLOCK)]);
        let (_, only) = sets.chunks().next().unwrap();
        assert_eq!(only.reads, BlockSet::of(0) | BlockSet::of(2));
        assert_eq!(only.writes, BlockSet::of(1) | BlockSet::of(3), "block 3 is read as well as overwritten");
        assert_eq!(only.overwrites, BlockSet::of(4) | BlockSet::of(5));
        assert_eq!(sets.blocks(), 6);
    }

    #[test]
    fn partly_overwritten_blocks_count_as_written() {
        let sets = DeclaredSets::new(&[], &[], &[extent(BLOCK / 2, CHUNK)]);
        let all: Vec<_> = sets.chunks().collect();
        assert_eq!(all[0].1.writes, BlockSet::of(0));
        assert_eq!(all[0].1.overwrites.count(), 31);
        assert_eq!((all[1].1.writes, all[1].1.overwrites), (BlockSet::of(0), BlockSet::EMPTY));
    }

    #[test]
    fn empty_ranges_declare_nothing() {
        assert_eq!(DeclaredSets::new(&[extent(5, 0)], &[], &[extent(70_000, 0)]).blocks(), 0);
    }
}
