//! Small allocations of one [`crate::UnifiedAllocator`]: size classes in blocks of 64 KiB that nobody else has a part of.
//!
//! The blocks are taken from the heap by chunks of 2 MiB. Which bytes are whose is the model's [`Arena`]'s business,
//! over a space of its own in which the chunks are numbered. It does *not* lock.

use std::collections::HashMap;
use std::sync::Arc;

use limosa_model::{Arena, BlockSet, CHUNK, ChunkIndex, Extent, HostAddr, HostRange};

use crate::Result;
use crate::allocation::RawAllocation;
use crate::heap::Heap;

/// More than any heap can give.
const SPACE: u64 = 1 << 47;

/// A chunk of the heap, and which of its blocks are in use.
struct Slab {
    memory: Arc<RawAllocation>,
    used: BlockSet,
}

/// Small allocations, by CPU address.
pub(crate) struct Slabs {
    arena: Arena,
    slabs: HashMap<ChunkIndex, Slab>,
    /// The number of the slab that begins at an address.
    numbers: HashMap<u64, ChunkIndex>,
}

impl Slabs {
    pub(crate) fn new() -> Self {
        Self { arena: Arena::new(SPACE), slabs: HashMap::new(), numbers: HashMap::new() }
    }

    /// Places `len` bytes, less than a block, aligned to `align`, less than a block.
    pub(crate) fn allocate(&mut self, heap: &Heap, len: u64, align: u64) -> Result<u64> {
        let full = |_| limosa_pager::PagerError::HeapFull { heap: heap.range().len, asked: len, largest: 0 };
        let placed = self.arena.allocate(len, align).map_err(full)?;
        let number = ChunkIndex::containing(placed.extent.start);
        if let Some(blocks) = placed.fresh_blocks {
            match self.slab(heap, number) {
                Ok(slab) => slab.used |= blocks.blocks_in(number),
                Err(error) => {
                    let _ = self.arena.free(placed.extent.start);
                    return Err(error);
                }
            }
        }
        Ok(self.slabs.get(&number).map_or(0, |slab| slab.memory.ptr().address()) + placed.extent.start % CHUNK)
    }

    /// Slab `number`, which is taken from the heap if there is none.
    fn slab(&mut self, heap: &Heap, number: ChunkIndex) -> Result<&mut Slab> {
        match self.slabs.entry(number) {
            std::collections::hash_map::Entry::Occupied(slab) => Ok(slab.into_mut()),
            std::collections::hash_map::Entry::Vacant(place) => {
                // A limit is of an allocation of its own: here many share.
                let mut heap = heap.clone();
                heap.options.device_limit = None;
                let memory = RawAllocation::resizable(&heap, CHUNK, CHUNK, 0)?;
                self.numbers.insert(memory.ptr().address(), number);
                Ok(place.insert(Slab { memory, used: BlockSet::EMPTY }))
            }
        }
    }

    /// Where `address` is in the arena, and its slab's first address.
    fn place(&self, address: u64) -> Option<(u64, u64)> {
        let base = address / CHUNK * CHUNK;
        let number = self.numbers.get(&base)?;
        Some((number.offset() + (address - base), base))
    }

    /// Makes the allocation at `address` `len` bytes long, within its size class. Gives whether it is.
    pub(crate) fn resize(&mut self, address: u64, len: u64) -> bool {
        self.place(address).is_some_and(|(offset, _)| self.arena.resize(offset, len).is_ok())
    }

    /// Ends the allocation at `address`. Gives the memory that fell out of use with it: to be dropped without locks.
    pub(crate) fn free(&mut self, address: u64) -> Option<Arc<RawAllocation>> {
        let (offset, base) = self.place(address)?;
        let blocks = self.arena.free(offset).ok()?.fresh_blocks?;
        let number = ChunkIndex::containing(offset);
        let slab = self.slabs.get_mut(&number)?;
        slab.used = slab.used - blocks.blocks_in(number);
        if !slab.used.is_empty() {
            return None;
        }
        self.numbers.remove(&base);
        self.slabs.remove(&number).map(|slab| slab.memory)
    }

    /// The allocation that contains `address`.
    pub(crate) fn containing(&self, address: u64) -> Option<HostRange> {
        let (offset, base) = self.place(address)?;
        let one = self.arena.containing(offset)?;
        Some(HostRange { start: HostAddr(base + one.start % CHUNK), len: one.len })
    }

    /// The blocks in use, with what keeps them.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = (&Arc<RawAllocation>, Extent)> {
        self.slabs.values().flat_map(|slab| {
            let chunk = ChunkIndex::containing(slab.memory.extent().start);
            slab.used.runs().map(move |(first, count)| (&slab.memory, chunk.run(first, count)))
        })
    }
}
