//! The rules: DESIGN.md's table of events, one method an event.
//!
//! Every rule says which copies its blocks gain and lose and how they are to be opened; [`Change::plan`] derives the
//! actions from that, for all events alike, in a way that keeps the invariants. Nothing here carries anything out.

use crate::address::{Access, Side};
use crate::advice::Advice;
use crate::cause::Cause;
use crate::chunk::{Chunk, Hold, Image};
use crate::geometry::{BLOCKS_PER_CHUNK, BlockSet};
use crate::plan::{Plan, Refusal, Sides, Verdict};

const NONE: BlockSet = BlockSet::EMPTY;

/// What a transition does to the blocks it covers.
#[derive(Default)]
struct Change {
    covers: BlockSet,
    gain: Sides,
    lose: Sides,
    lose_file: BlockSet,
    gain_file: BlockSet,
    /// Gained without anything moved: the launch overwrites the whole of it.
    overwritten: BlockSet,
    /// To be mapped afterwards.
    open: Sides,
    /// Must not be writable through any CPU mapping afterwards, though the CPU's may be the only copy.
    read_only: BlockSet,
    /// Must not be writable through the GPU's mapping afterwards: launches are about to read it.
    gpu_read_only: BlockSet,
    /// Is writable through the GPU's mapping afterwards, though a launch reads it.
    gpu_writes: BlockSet,
    /// Must not be mapped on the CPU afterwards.
    close_cpu: BlockSet,
}

impl Change {
    fn plan(self, cause: Cause, chunk: &Chunk) -> Plan {
        let before = chunk.image;
        let covers = self.covers;
        let gain_host = self.gain.host - before.host;
        let gain_device = self.gain.device - before.device;
        let moved_up = gain_device - self.overwritten;
        let from_zero = covers & chunk.zero();
        let load = (gain_host | moved_up) & (before.file - before.host - before.device);
        // What is loaded passes through host frames, which hold a current copy then.
        let host = ((before.host | gain_host | load) & covers) - self.lose.host;
        let device = ((before.device | gain_device) & covers) - self.lose.device;
        let file = ((before.file | self.gain_file) & covers) - self.lose_file;

        let cpu_may_stay = host - self.close_cpu;
        let cpu_may_write = cpu_may_stay - device - file - self.read_only;
        let read_by_launches = (chunk.held() - chunk.write_hold - self.gpu_writes) | self.gpu_read_only;
        let gpu_may_write = device - host - file - read_by_launches;
        let close_host = covers & ((before.cpu_open - cpu_may_stay) | (before.cpu_writable - cpu_may_write));
        let close_device = covers & ((before.gpu_open - device) | (before.gpu_writable - gpu_may_write));
        let open = Sides { host: self.open.host & cpu_may_stay, device: self.open.device & device };
        let (cpu_write, gpu_write) = (open.host & cpu_may_write, open.device & gpu_may_write);

        let after = Image {
            host,
            device,
            file,
            poisoned: before.poisoned & covers,
            cpu_open: ((before.cpu_open & covers) - close_host) | open.host,
            cpu_writable: ((before.cpu_writable & covers) - close_host) | cpu_write,
            gpu_open: ((before.gpu_open & covers) - close_device) | open.device,
            gpu_writable: ((before.gpu_writable & covers) - close_device) | gpu_write,
        };
        let mut plan = Plan::new(covers, cause, after);
        plan.take = gain_device;
        plan.close = Sides { host: close_host, device: close_device };
        plan.zero = Sides { host: (gain_host & from_zero) - chunk.host_blank, device: moved_up & from_zero };
        plan.load = load;
        plan.copy = Sides { host: gain_host & before.device, device: moved_up & (before.host | load) };
        plan.write_back = self.gain_file;
        plan.stale = Sides { host: before.host & (covers - host), device: before.device & (covers - device) };
        plan.open_read = Sides { host: open.host - cpu_write, device: open.device - gpu_write };
        plan.open_write = Sides { host: cpu_write, device: gpu_write };
        plan.give.device = before.device & (covers - device);
        plan
    }
}

impl Chunk {
    /// A CPU or GPU thread touched `slot` through a mapping that does not allow it. `window` holds the blocks that
    /// growth would bring along; those that cannot move now, or need nothing, are left out.
    pub fn fault(&mut self, side: Side, slot: u32, window: BlockSet, access: Access) -> Verdict {
        let demand = BlockSet::of(slot);
        if self.shared.contains(slot) {
            return Verdict::Done;
        }
        // A kernel's fault never waits for a hold: the launch that holds the block may be queued behind it. Who writes
        // what another launch reads has a race of its own making.
        let barred = self.barred(access, side);
        let waits_for = if side == Side::Host { barred } else { self.pinned() };
        if let Some(verdict) = self.obstacle(demand, waits_for) {
            return verdict;
        }
        let satisfied = match access {
            Access::Read => self.open(side),
            Access::Write => self.writable(side),
        };
        let free = self.allocated - self.busy - barred - self.image.poisoned;
        let covers = demand | (window & self.allocation_of(slot) & (free - satisfied));
        // Where the whole chunk ends up writable it is opened as a whole, also what is open already: as one huge page.
        let writable = match access {
            Access::Read => covers & (self.ready(side, Access::Write) | self.zero()),
            Access::Write => covers,
        };
        let whole = (self.writable(side) | writable).is_all() && self.busy.is_empty();
        let covers = if whole && barred.is_empty() { BlockSet::ALL } else { covers };
        let other = match access {
            Access::Read => NONE,
            Access::Write => covers,
        };
        let held = self.held();
        let change = match side {
            Side::Host => Change {
                covers,
                gain: Sides { host: covers, device: NONE },
                lose: Sides { host: NONE, device: other },
                lose_file: other,
                open: Sides { host: covers, device: NONE },
                read_only: held,
                ..Change::default()
            },
            Side::Device => Change {
                covers,
                gain: Sides { host: NONE, device: covers },
                lose: Sides { host: other, device: NONE },
                lose_file: other,
                open: Sides { host: NONE, device: covers },
                gpu_writes: other,
                ..Change::default()
            },
        };
        let cause = if side == Side::Host { Cause::CpuFault } else { Cause::GpuFault };
        self.begin(cause, change)
    }

    /// Whether a launch could hold `reads` for reading and `writes` for writing, as far as other launches go. The holds
    /// on `own` are of launches that it comes after on the device anyhow, and do not bar it.
    #[must_use]
    pub fn can_hold(&self, reads: BlockSet, writes: BlockSet, own: BlockSet) -> bool {
        // One more would not be counted.
        let full = |holds: &[u16; BLOCKS_PER_CHUNK as usize], blocks: BlockSet| {
            blocks.slots().any(|slot| holds[slot as usize] == u16::MAX)
        };
        if full(&self.read_holds, reads) || full(&self.write_holds, writes & own) {
            return false;
        }
        let barred = (reads & self.write_hold) | (writes & self.held());
        (barred - own).is_empty() && ((reads | writes) & self.pinned()).is_empty()
    }

    /// Makes the CPU the only owner of `blocks`, and pins them: until [`Self::unpin`] nothing moves them. For memory
    /// under direct or asynchronous I/O.
    pub fn pin(&mut self, blocks: BlockSet) -> Verdict {
        let blocks = blocks - self.shared;
        if let Some(verdict) = self.obstacle(blocks, self.held()) {
            return verdict;
        }
        let change = Change {
            covers: blocks,
            gain: Sides { host: blocks, device: NONE },
            lose: Sides { host: NONE, device: blocks },
            lose_file: blocks,
            open: Sides { host: blocks, device: NONE },
            ..Change::default()
        };
        let mut plan = change.plan(Cause::Pin, self);
        plan.pins = blocks;
        self.busy |= blocks;
        Verdict::Go(plan)
    }

    /// As [`Self::pin`] where nothing is to be done for it: the CPU is the only owner already, and may write. Gives whether
    /// that was so.
    pub fn pin_in_place(&mut self, blocks: BlockSet) -> bool {
        let owned = self.allocated & self.image.cpu_writable;
        let in_place = owned.covers(blocks - self.shared) && ((self.busy | self.held()) & blocks).is_empty();
        if in_place {
            for slot in (blocks - self.shared).slots() {
                self.pins[slot as usize] = self.pins[slot as usize].saturating_add(1);
            }
        }
        in_place
    }

    /// Ends one pin of each of `blocks`.
    ///
    /// # Panics
    /// In debug builds, if one is not pinned.
    pub fn unpin(&mut self, blocks: BlockSet) {
        for slot in (blocks - self.shared).slots() {
            debug_assert!(self.pins[slot as usize] > 0, "unpinned without a pin");
            if self.pins[slot as usize] < u16::MAX {
                self.pins[slot as usize] -= 1;
            }
        }
        self.check();
    }

    /// A launch is admitted and holds `blocks` for `access`; with `overwrite`, it replaces every byte of them.
    pub fn acquire(&mut self, blocks: BlockSet, access: Access, overwrite: bool) -> Verdict {
        let barred = match access {
            Access::Read => self.write_hold,
            Access::Write => self.held(),
        };
        self.acquire_past(blocks, access, if overwrite { blocks } else { NONE }, barred)
    }

    /// A file is about to be read into `blocks`, which are held as by a launch that writes them. It may end early, and
    /// what did not arrive is to be as it was: what only the CPU has is copied, what is on the device stays, and what reads
    /// as zeros has arbitrary contents from here on, and is to be discarded where nothing arrived. Gives those, too.
    pub fn receive(&mut self, blocks: BlockSet) -> (Verdict, BlockSet) {
        let blank = blocks & self.zero();
        (self.acquire_past(blocks, Access::Write, blank, self.held()), blank)
    }

    /// As [`Self::acquire`] of what launches hold that the new one comes after on the device anyhow: their holds do not
    /// bar it. What they hold for writing is as it needs it already and held at once, also if the plan for the rest fails
    /// later; what they read is shared or made the device's own.
    pub fn succeed(&mut self, blocks: BlockSet, access: Access) -> Verdict {
        debug_assert!(self.held().covers(blocks), "nothing to come after");
        let written = blocks & self.write_hold;
        let rest = blocks - written;
        let verdict = if rest.is_empty() { Verdict::Done } else { self.acquire_past(rest, access, NONE, NONE) };
        if matches!(verdict, Verdict::Go(_) | Verdict::Done) {
            self.add_holds(written, access);
        }
        verdict
    }

    fn acquire_past(&mut self, blocks: BlockSet, access: Access, overwritten: BlockSet, barred: BlockSet) -> Verdict {
        // Nobody holds them: who asks knew the blocks in an earlier life.
        if !(blocks & self.shared).is_empty() {
            return Verdict::Refuse(Refusal::Unallocated, blocks & self.shared);
        }
        if let Some(verdict) = self.obstacle(blocks, barred | self.pinned()) {
            return verdict;
        }
        // What is open as the launch needs it stays so: the common case of a launch on resident data.
        let Image { gpu_open, gpu_writable, .. } = self.image;
        let (other, hold, satisfied) = match access {
            Access::Read => (NONE, Hold::Read(1), gpu_open - gpu_writable),
            Access::Write => (blocks, Hold::Write, gpu_writable),
        };
        let change = Change {
            covers: blocks,
            gain: Sides { host: NONE, device: blocks },
            lose: Sides { host: other, device: NONE },
            lose_file: other,
            overwritten,
            open: Sides { host: NONE, device: blocks - satisfied },
            read_only: blocks,
            gpu_read_only: blocks - other,
            gpu_writes: other,
            close_cpu: other,
            ..Change::default()
        };
        let mut plan = change.plan(Cause::Launch, self);
        plan.hold = hold;
        self.busy |= blocks;
        Verdict::Go(plan)
    }

    /// A launch that held `blocks` for `access` has completed.
    ///
    /// # Panics
    /// In debug builds, if they were not held so.
    pub fn release(&mut self, blocks: BlockSet, access: Access) {
        match access {
            Access::Write => {
                debug_assert!(self.write_hold.covers(blocks), "released without a hold");
                for slot in blocks.slots() {
                    self.write_holds[slot as usize] -= 1;
                    if self.write_holds[slot as usize] == 0 {
                        self.write_hold = self.write_hold - BlockSet::of(slot);
                    }
                }
            }
            Access::Read => {
                for slot in blocks.slots() {
                    debug_assert!(self.read_holds[slot as usize] > 0, "released without a hold");
                    self.read_holds[slot as usize] -= 1;
                }
            }
        }
        self.check();
    }

    /// Moves `blocks` to `side` and opens them there for writing; copies on the other side leave, as they would if
    /// `side` wrote. (Sharing is for launches that declare what they read.)
    pub fn prefetch(&mut self, side: Side, blocks: BlockSet) -> Verdict {
        let blocks = blocks - self.shared;
        let held = self.held();
        let barred = if side == Side::Host { held } else { self.pinned() };
        if let Some(verdict) = self.obstacle(blocks, barred) {
            return verdict;
        }
        // What launches hold is on the device already, and stays as they hold it.
        let covers = blocks - self.writable(side) - held;
        let change = match side {
            Side::Host => Change {
                covers,
                gain: Sides { host: covers, device: NONE },
                lose: Sides { host: NONE, device: covers },
                lose_file: covers,
                open: Sides { host: covers, device: NONE },
                ..Change::default()
            },
            Side::Device => Change {
                covers,
                gain: Sides { host: NONE, device: covers },
                lose: Sides { host: covers, device: NONE },
                lose_file: covers,
                open: Sides { host: NONE, device: covers },
                ..Change::default()
            },
        };
        self.begin(Cause::Prefetch, change)
    }

    /// Copies `blocks` to `side` and leaves the other side's copies, all open for reading: as a prefetch of what is read
    /// on both sides.
    pub fn duplicate(&mut self, side: Side, blocks: BlockSet) -> Verdict {
        let blocks = blocks - self.shared;
        let (held, other) = (self.held(), if side == Side::Host { Side::Device } else { Side::Host });
        let barred = if side == Side::Host { self.write_hold } else { self.pinned() };
        if let Some(verdict) = self.obstacle(blocks, barred) {
            return verdict;
        }
        // What launches hold is on the device already, and stays as they hold it.
        let covers = blocks - self.open(side) - if side == Side::Device { held } else { NONE };
        // What the other side may write is closed there, and opened again for reading.
        let reopened = (covers & self.current(other)) - (self.open(other) - self.writable(other)) - held;
        let (gain, open) = match side {
            Side::Host => (Sides { host: covers, device: NONE }, Sides { host: covers, device: reopened }),
            Side::Device => (Sides { host: NONE, device: covers }, Sides { host: reopened, device: covers }),
        };
        self.begin(Cause::Prefetch, Change { covers, gain, open, read_only: held, ..Change::default() })
    }

    /// Takes `blocks` out of VRAM; a copy is made only of those that have no other.
    pub fn evict(&mut self, blocks: BlockSet) -> Verdict {
        if let Some(verdict) = self.obstacle(blocks, self.held()) {
            return verdict;
        }
        let covers = blocks & self.image.device;
        let only = covers - self.image.host - self.image.file;
        self.begin(
            Cause::Eviction,
            Change {
                covers,
                gain: Sides { host: only, device: NONE },
                lose: Sides { host: NONE, device: covers },
                ..Change::default()
            },
        )
    }

    /// Gives back the host frames of those of `blocks` that have another current copy.
    pub fn drop_host(&mut self, blocks: BlockSet) -> Verdict {
        if let Some(verdict) = self.obstacle(blocks, self.held()) {
            return verdict;
        }
        let covers = blocks & self.image.host & (self.image.device | self.image.file);
        let change = Change { covers, lose: Sides { host: covers, device: NONE }, ..Change::default() };
        match self.begin(Cause::Reclaim, change) {
            Verdict::Go(mut plan) => {
                plan.give.host = covers;
                Verdict::Go(plan)
            }
            other => other,
        }
    }

    /// Writes the dirty ones of `blocks` to their backing file; the CPU may not write meanwhile.
    pub fn write_back(&mut self, blocks: BlockSet) -> Verdict {
        if let Some(verdict) = self.obstacle(blocks, self.write_hold | self.pinned()) {
            return verdict;
        }
        let covers = blocks & ((self.image.host | self.image.device) - self.image.file);
        self.begin(
            Cause::WriteBack,
            Change { covers, gain: Sides { host: covers, device: NONE }, gain_file: covers, ..Change::default() },
        )
    }

    /// Forgets the contents of `blocks`: they read as zeros.
    pub fn discard(&mut self, blocks: BlockSet) -> Verdict {
        let used = self.held() | self.pinned();
        if let Some(verdict) = self.obstacle(blocks & (self.allocated - self.image.poisoned), used) {
            return verdict;
        }
        let covers = blocks & self.image.current();
        let change =
            Change { covers, lose: Sides { host: covers, device: covers }, lose_file: covers, ..Change::default() };
        match self.begin(Cause::Discard, change) {
            Verdict::Go(mut plan) => {
                plan.give.host = covers;
                Verdict::Go(plan)
            }
            other => other,
        }
    }

    /// Ends the allocation of `blocks`, which must have been discarded or lost before.
    ///
    /// # Panics
    /// In debug builds, if a block has a current copy, a hold or a move under way.
    pub fn free(&mut self, blocks: BlockSet) {
        debug_assert!((self.image.current() & blocks).is_empty(), "discard before free");
        debug_assert!(((self.busy | self.held()) & blocks).is_empty(), "freed in use");
        self.image.poisoned = self.image.poisoned - blocks;
        self.advise(blocks, Advice::None);
        self.allocated = self.allocated - blocks;
        self.shared = self.shared - blocks;
        self.starts |= BlockSet::of(blocks.0.trailing_zeros() % 32);
        self.check();
    }

    /// The device is gone: its copies leave. Gives the blocks that had no other copy, now poisoned, or the busy ones
    /// to wait for.
    ///
    /// # Errors
    /// The blocks under a move: nothing has changed, ask again when they are released.
    pub fn device_lost(&mut self) -> Result<BlockSet, BlockSet> {
        if !self.busy.is_empty() {
            return Err(self.busy);
        }
        self.write_hold = NONE;
        self.write_holds = Default::default();
        self.read_holds = Default::default();
        let lost = self.image.device - self.image.host - self.image.file;
        self.image.device = NONE;
        self.image.gpu_open = NONE;
        self.image.gpu_writable = NONE;
        self.poison(lost);
        self.check();
        Ok(lost)
    }

    /// Poisoned blocks among `blocks` read as zeros from now on. Gives those that were poisoned.
    pub fn repair(&mut self, blocks: BlockSet) -> BlockSet {
        let repaired = blocks & self.image.poisoned;
        self.image.poisoned = self.image.poisoned - repaired;
        self.check();
        repaired
    }

    /// Blocks on which an access from `side` must wait for launches.
    fn barred(&self, access: Access, side: Side) -> BlockSet {
        match (side, access) {
            (Side::Host, Access::Read) => self.write_hold,
            (Side::Host, Access::Write) => self.held(),
            // A launch's own accesses fault only where it holds nothing; another launch's holds bar writes alone.
            (Side::Device, Access::Read) => self.pinned(),
            (Side::Device, Access::Write) => (self.held() - self.write_hold) | self.pinned(),
        }
    }

    fn obstacle(&self, blocks: BlockSet, barred: BlockSet) -> Option<Verdict> {
        let wild = blocks - self.allocated;
        let poisoned = blocks & self.image.poisoned;
        let waiting = blocks & (self.busy | barred);
        if !wild.is_empty() {
            Some(Verdict::Refuse(Refusal::Unallocated, wild))
        } else if !poisoned.is_empty() {
            Some(Verdict::Refuse(Refusal::Poisoned, poisoned))
        } else if !waiting.is_empty() {
            Some(Verdict::Wait(waiting))
        } else {
            None
        }
    }

    fn begin(&mut self, cause: Cause, change: Change) -> Verdict {
        if change.covers.is_empty() {
            return Verdict::Done;
        }
        let plan = change.plan(cause, self);
        self.busy |= plan.covers;
        Verdict::Go(plan)
    }
}
