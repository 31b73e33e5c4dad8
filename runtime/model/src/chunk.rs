//! The state of the blocks of one chunk, as bit sets: which copies are current, what is mapped, what launches hold.
//!
//! Thirty-two blocks are decided in a handful of word operations. The type keeps state and checks the invariants of
//! DESIGN.md's "never" list at every change; the rules that decide changes are in `transition`. It does *not* know
//! where in memory the blocks are.

use crate::address::{Access, Side};
use crate::advice::{Advice, AdviceSets, Turn};
use crate::geometry::{BLOCKS_PER_CHUNK, BlockSet};
use crate::plan::{Action, Plan};
use crate::priority::{Priority, PrioritySets};

/// Which copies of a block are current; all current copies are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Part of no allocation.
    Unallocated,
    /// Of a shared home: one memory that both sides see, always.
    Shared,
    /// Reads as zeros, nothing is stored.
    Zero,
    /// The only copy was lost.
    Poisoned,
    /// At least one of these is set.
    Current {
        /// In system RAM.
        host: bool,
        /// In VRAM.
        device: bool,
        /// In the backing file.
        file: bool,
    },
}

/// What launches in flight hold of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Nothing.
    None,
    /// So many launches read it.
    Read(u16),
    /// A launch writes it: alone, or with others of its queue, which come one after the other.
    Write,
}

/// Everything known about one block: for queries and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockState {
    /// The current copies.
    pub copies: Copies,
    /// What launches hold.
    pub hold: Hold,
    /// Whether a move is under way.
    pub busy: bool,
}

/// The part of the state that a plan changes.
///
/// The mapping sets are upper bounds: a block in `cpu_open` *may* be mapped (a huge mapping that is closed in part
/// vanishes as a whole), one outside of it certainly is not. A fault on an open block is therefore no contradiction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Image {
    pub(crate) host: BlockSet,
    pub(crate) device: BlockSet,
    pub(crate) file: BlockSet,
    pub(crate) poisoned: BlockSet,
    pub(crate) cpu_open: BlockSet,
    pub(crate) cpu_writable: BlockSet,
    pub(crate) gpu_open: BlockSet,
    pub(crate) gpu_writable: BlockSet,
}

impl Image {
    fn zip(self, other: Self, f: impl Fn(BlockSet, BlockSet) -> BlockSet) -> Self {
        Self {
            host: f(self.host, other.host),
            device: f(self.device, other.device),
            file: f(self.file, other.file),
            poisoned: f(self.poisoned, other.poisoned),
            cpu_open: f(self.cpu_open, other.cpu_open),
            cpu_writable: f(self.cpu_writable, other.cpu_writable),
            gpu_open: f(self.gpu_open, other.gpu_open),
            gpu_writable: f(self.gpu_writable, other.gpu_writable),
        }
    }

    /// The blocks whose copies in `self` are not those in `other`.
    fn other_copies(&self, other: &Self) -> BlockSet {
        let differ = |a: BlockSet, b: BlockSet| (a - b) | (b - a);
        differ(self.host, other.host)
            | differ(self.device, other.device)
            | differ(self.file, other.file)
            | differ(self.poisoned, other.poisoned)
    }

    /// The blocks with any current copy.
    pub(crate) fn current(&self) -> BlockSet {
        self.host | self.device | self.file
    }
}

/// The state of a chunk's blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Chunk {
    pub(crate) allocated: BlockSet,
    /// Those of shared homes. Nothing happens to them but allocation and free.
    pub(crate) shared: BlockSet,
    /// Blocks at which an allocation, or a stretch of free blocks, begins.
    pub(crate) starts: BlockSet,
    pub(crate) image: Image,
    pub(crate) busy: BlockSet,
    /// The blocks with any of [`Self::write_holds`].
    pub(crate) write_hold: BlockSet,
    pub(crate) write_holds: [u16; BLOCKS_PER_CHUNK as usize],
    pub(crate) read_holds: [u16; BLOCKS_PER_CHUNK as usize],
    /// How often each block is pinned to the host.
    pub(crate) pins: [u16; BLOCKS_PER_CHUNK as usize],
    /// Host frames that are known to read as zeros, so that zeroing them is not needed.
    pub(crate) host_blank: BlockSet,
    advice: AdviceSets,
    priorities: PrioritySets,
}

impl Chunk {
    /// An empty chunk: nothing allocated.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The blocks that belong to an allocation.
    #[must_use]
    pub fn allocated(&self) -> BlockSet {
        self.allocated
    }

    /// The blocks of shared homes: one memory for both sides, which never moves.
    #[must_use]
    pub fn shared(&self) -> BlockSet {
        self.shared
    }

    /// What is said of `blocks` from now on, until they are freed.
    pub fn advise(&mut self, blocks: BlockSet, advice: Advice) {
        self.advice.set(blocks & self.allocated, advice);
    }

    /// What is said of the blocks.
    #[must_use]
    pub fn advice(&self) -> &AdviceSets {
        &self.advice
    }

    /// The priority of `blocks` from now on, until they are freed.
    pub fn prioritize(&mut self, blocks: BlockSet, priority: Priority) {
        self.priorities.set(blocks & self.allocated, priority);
    }

    /// The blocks' priorities.
    #[must_use]
    pub fn priorities(&self) -> &PrioritySets {
        &self.priorities
    }

    /// The blocks to be evicted in this turn as those of this priority.
    #[must_use]
    pub fn due(&self, turn: Turn, priority: Priority) -> BlockSet {
        self.advice.due(turn) & self.priorities.of(priority)
    }

    /// The blocks under a move.
    #[must_use]
    pub fn busy(&self) -> BlockSet {
        self.busy
    }

    /// The blocks whose copy on `side` is current.
    #[must_use]
    pub fn current(&self, side: Side) -> BlockSet {
        match side {
            Side::Host => self.image.host,
            Side::Device => self.image.device,
        }
    }

    /// The blocks that may be mapped on `side`.
    #[must_use]
    pub fn open(&self, side: Side) -> BlockSet {
        match side {
            Side::Host => self.image.cpu_open,
            Side::Device => self.image.gpu_open,
        }
    }

    /// The blocks that may be mapped for writing on `side`.
    #[must_use]
    pub fn writable(&self, side: Side) -> BlockSet {
        match side {
            Side::Host => self.image.cpu_writable,
            Side::Device => self.image.gpu_writable,
        }
    }

    /// The blocks whose only copy was lost.
    #[must_use]
    pub fn poisoned(&self) -> BlockSet {
        self.image.poisoned
    }

    /// The blocks that read as zeros and are stored nowhere.
    #[must_use]
    pub fn zero(&self) -> BlockSet {
        self.allocated - self.shared - self.image.current() - self.image.poisoned
    }

    /// The blocks that are pinned to the host: their frames may be under direct I/O, which no page table stops.
    #[must_use]
    pub fn pinned(&self) -> BlockSet {
        counted(&self.pins)
    }

    /// The blocks that launches hold in any way.
    #[must_use]
    pub fn held(&self) -> BlockSet {
        self.write_hold | counted(&self.read_holds)
    }

    /// The blocks that launches hold for writing.
    #[must_use]
    pub fn held_for_writing(&self) -> BlockSet {
        self.write_hold
    }

    /// The state of the block in `slot`.
    ///
    /// # Panics
    /// If `slot` is not below [`BLOCKS_PER_CHUNK`].
    #[must_use]
    pub fn state(&self, slot: u32) -> BlockState {
        let copies = if !self.allocated.contains(slot) {
            Copies::Unallocated
        } else if self.shared.contains(slot) {
            Copies::Shared
        } else if self.image.poisoned.contains(slot) {
            Copies::Poisoned
        } else if self.image.current().contains(slot) {
            Copies::Current {
                host: self.image.host.contains(slot),
                device: self.image.device.contains(slot),
                file: self.image.file.contains(slot),
            }
        } else {
            Copies::Zero
        };
        let hold = match (self.write_hold.contains(slot), self.read_holds[slot as usize]) {
            (true, _) => Hold::Write,
            (false, 0) => Hold::None,
            (false, readers) => Hold::Read(readers),
        };
        BlockState { copies, hold, busy: self.busy.contains(slot) }
    }

    /// The blocks of this chunk in the same allocation as `slot` (or the same free stretch).
    #[must_use]
    pub fn allocation_of(&self, slot: u32) -> BlockSet {
        let from_start = BlockSet::run(0, slot + 1) & self.starts;
        let first = from_start.0.checked_ilog2().unwrap_or(0);
        let after = self.starts - BlockSet::run(0, slot + 1);
        let end = if after.is_empty() { BLOCKS_PER_CHUNK } else { after.0.trailing_zeros() };
        BlockSet::run(first, end - first)
    }

    /// Whether the first block belongs to an allocation that began in an earlier chunk.
    #[must_use]
    pub fn continues_previous(&self) -> bool {
        self.allocated.contains(0) && !self.starts.contains(0)
    }

    /// Whether a stream through `side` has reached the end of this chunk: everything of the last block's allocation
    /// is current there.
    #[must_use]
    pub fn streamed_to_end(&self, side: Side) -> bool {
        let last = self.allocation_of(BLOCKS_PER_CHUNK - 1);
        self.allocated.contains(BLOCKS_PER_CHUNK - 1) && self.current(side).covers(last)
    }

    /// The blocks whose data is such on `side` that `access` needs nothing but a mapping.
    #[must_use]
    pub fn ready(&self, side: Side, access: Access) -> BlockSet {
        let Image { host, device, file, .. } = self.image;
        match (side, access) {
            (Side::Host, Access::Read) => host,
            (Side::Host, Access::Write) => host - device - file,
            (Side::Device, Access::Read) => device,
            (Side::Device, Access::Write) => device - host - file,
        }
    }

    /// `blocks` are not mapped on `side` any more: whoever calls has just unmapped them there, and no plan in flight has
    /// opened any since.
    pub fn unmapped(&mut self, side: Side, blocks: BlockSet) {
        let (open, writable) = match side {
            Side::Host => (&mut self.image.cpu_open, &mut self.image.cpu_writable),
            Side::Device => (&mut self.image.gpu_open, &mut self.image.gpu_writable),
        };
        *open = *open - blocks;
        *writable = *writable - blocks;
    }

    /// Enters an allocation's blocks, which read as zeros from now on. `starts` says whether the first of them begins
    /// the allocation.
    ///
    /// # Panics
    /// In debug builds, if a block is allocated already or still has state.
    pub fn allocate(&mut self, blocks: BlockSet, starts: bool) {
        debug_assert!((self.allocated & blocks).is_empty(), "block allocated twice");
        debug_assert!((self.image.current() & blocks).is_empty() && (self.busy & blocks).is_empty());
        self.allocated |= blocks;
        let first = blocks.0.trailing_zeros();
        let end = BLOCKS_PER_CHUNK - blocks.0.leading_zeros();
        self.starts = self.starts - blocks;
        if starts {
            self.starts |= BlockSet::of(first);
        }
        // What follows is somebody else's, whoever that is: growth must stop there.
        if end < BLOCKS_PER_CHUNK {
            self.starts |= BlockSet::of(end);
        }
        self.check();
    }

    /// As [`Self::allocate`], for blocks of a shared home: both sides see them from now on.
    ///
    /// # Panics
    /// As there.
    pub fn share(&mut self, blocks: BlockSet, starts: bool) {
        self.allocate(blocks, starts);
        self.shared |= blocks;
        self.host_blank = self.host_blank - blocks;
        self.check();
    }

    /// Applies a plan that was carried out in full. Gives the blocks whose copies are others than before.
    ///
    /// # Panics
    /// In debug builds, if the result would break an invariant.
    pub fn commit(&mut self, plan: &Plan) -> BlockSet {
        self.finish(plan.covers);
        let before = self.image;
        self.image = self.image.zip(plan.after, |before, after| (before - plan.covers) | (after & plan.covers));
        self.host_blank = self.host_blank - self.image.cpu_writable - plan.zero.host - plan.copy.host - plan.load;
        self.host_blank = self.host_blank - plan.stale.host;
        match plan.hold {
            Hold::None => {}
            Hold::Write => self.add_holds(plan.covers, Access::Write),
            Hold::Read(_) => self.add_holds(plan.covers, Access::Read),
        }
        for slot in plan.pins.slots() {
            // At the limit, which takes forgotten pins, a block stays pinned for good.
            self.pins[slot as usize] = self.pins[slot as usize].saturating_add(1);
        }
        self.check();
        before.other_copies(&self.image)
    }

    /// Ends a plan of which the action `failed` failed: the blocks keep the copies they had. What was closed before it
    /// stays closed; of a close that failed half-way nothing is known, and the mapping sets stay upper bounds.
    pub fn abort(&mut self, plan: &Plan, failed: Action) {
        self.finish(plan.covers);
        let (host, device) = match failed {
            Action::TakeFrames(_) | Action::Close(Side::Host, _) => (false, false),
            Action::Close(Side::Device, _) => (true, false),
            _ => (true, true),
        };
        if host {
            self.unmapped(Side::Host, plan.close.host);
        }
        if device {
            self.unmapped(Side::Device, plan.close.device);
        }
        self.host_blank = self.host_blank - plan.copy.host - plan.load;
        self.check();
    }

    /// Ends a plan whose data could not be read: `lost` of its blocks are poisoned, the others keep their copies.
    pub fn fail(&mut self, plan: &Plan, lost: BlockSet) {
        self.abort(plan, Action::Load(lost));
        self.poison(lost & plan.covers);
        self.check();
    }

    fn finish(&mut self, covers: BlockSet) {
        debug_assert!(self.busy.covers(covers), "a plan ends once");
        self.busy = self.busy - covers;
    }

    pub(crate) fn add_holds(&mut self, blocks: BlockSet, access: Access) {
        let holds = match access {
            Access::Read => &mut self.read_holds,
            Access::Write => &mut self.write_holds,
        };
        blocks.slots().for_each(|slot| holds[slot as usize] += 1);
        if access == Access::Write {
            self.write_hold |= blocks;
        }
    }

    /// Takes all copies and mappings away and leaves the blocks poisoned.
    pub(crate) fn poison(&mut self, blocks: BlockSet) {
        let nothing = Image { poisoned: blocks, ..Image::default() };
        self.image = self.image.zip(nothing, |before, after| (before - blocks) | after);
    }

    /// Asserts DESIGN.md's "never" list, in debug builds.
    pub(crate) fn check(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let Image { host, device, file, poisoned, cpu_open, cpu_writable, gpu_open, gpu_writable } = self.image;
        let never = |set: BlockSet, what: &str| debug_assert!(set.is_empty(), "{what}: {set:?} in {self:?}");
        never(cpu_writable & (device | file), "CPU may write beside another copy");
        never(gpu_writable & (host | file), "GPU may write beside another copy");
        never(cpu_writable & gpu_writable, "both sides may write");
        never(cpu_open - host, "CPU mapping of a copy that is not current");
        never(gpu_open - device, "GPU mapping of a copy that is not current");
        never(cpu_writable - cpu_open, "writable but not open on the CPU");
        never(gpu_writable - gpu_open, "writable but not open on the GPU");
        never(poisoned & self.image.current(), "poisoned with a current copy");
        never(
            (self.image.current() | poisoned | self.busy | self.held() | self.pinned()) & self.shared,
            "a shared block moved",
        );
        never((self.image.current() | poisoned | self.busy) - self.allocated, "state outside an allocation");
        never(self.write_hold & cpu_open, "write hold with a CPU mapping");
        never(cpu_writable & self.held(), "CPU may write what a launch holds");
        never(self.pinned() & (device | file), "a pinned block with another copy");
        debug_assert_eq!(counted(&self.write_holds), self.write_hold);
        never(self.held() - device, "held without a copy on the device");
        never(self.advice.given() - self.allocated, "advice on free blocks");
    }
}

/// The blocks whose count is above zero.
fn counted(counts: &[u16; BLOCKS_PER_CHUNK as usize]) -> BlockSet {
    // By far the most common case, and asked on every launch for each chunk.
    if counts.iter().all(|count| *count == 0) {
        return BlockSet::EMPTY;
    }
    let above = (0..BLOCKS_PER_CHUNK).zip(counts).filter(|(_, count)| **count > 0);
    above.fold(BlockSet::EMPTY, |all, (slot, _)| all | BlockSet::of(slot))
}
