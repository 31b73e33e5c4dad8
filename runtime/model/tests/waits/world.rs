//! A state of the small system: real chunks, and of the pager what waits depend on. Data, frames' contents, growth,
//! check mode, loss of the device and files are *not* in it.

use limosa_model::{Access, Action, BlockSet, Chunk, Plan, Side, Verdict};

/// A block: its chunk and its slot.
pub type At = (usize, u32);

/// What an application's thread does.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Touch(Access, At),
    Submit(usize),
    /// Waits for a launch, as `LaunchEvent::wait`.
    Await(usize),
    /// Pins blocks of some chunks.
    Pin(&'static [(usize, u32)]),
    Unpin(&'static [(usize, u32)]),
    Prefetch(Side, At),
    Discard(At),
}

/// A launch of a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    pub queue: usize,
    pub after: &'static [usize],
    /// What it declares, in the order of acquisition.
    pub set: &'static [(At, Access)],
    /// What it touches, in order; more than it declares only on the class Faulting.
    pub touches: &'static [(At, Access)],
}

/// A departure from the protocol that the search must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    ReleaseWakesNobody,
    HoldFromSubmission,
    Piecemeal,
    HandlerWaits,
    KernelWaits,
    EvictionWaits,
    PinWithoutLock,
    ParkingRingsNobody,
    SubmitRingsNobody,
    AdmissionRingsNoDoorbell,
    EpochReadLate,
    /// `Heap::unpin` as found: it admits what waited for the pin, and leaves who is behind that to nobody.
    UnpinRingsNobody,
    /// `Core::make_room` as found: what turned busy between its eviction and the look at its frame counts as held.
    RacedIsNever,
}

/// A small system.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub name: &'static str,
    /// Blocks of each chunk, each an allocation of its own.
    pub chunks: &'static [u32],
    pub budget: u32,
    pub kernels: &'static [Kernel],
    pub threads: &'static [&'static [Op]],
    /// CPU threads serve their own faults.
    pub in_thread: bool,
    /// The class Faulting's rule of admission, with so many blocks left free beside kernels that may fault.
    pub reserve: Option<u32>,
    /// The least number of states: a search that finds fewer has not searched.
    pub least: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mapped {
    pub read: BlockSet,
    pub write: BlockSet,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cell {
    pub chunk: Chunk,
    pub parked: [BlockSet; 2],
    pub mapped: [Mapped; 2],
    pub frames: BlockSet,
    /// Blocks of which a kernel's touch was refused once.
    pub suspects: BlockSet,
}

/// An access that sleeps in the kernel until it is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    pub at: At,
    pub access: Access,
    pub read: bool,
}

/// How a call came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Ok,
    Busy,
    Full,
}

/// A thread's call in progress: what it does next. The innermost is last on the stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    Serve {
        side: Side,
        at: At,
        access: Access,
        less: bool,
    },
    Served {
        side: Side,
        at: At,
        access: Access,
        less: bool,
    },
    /// `Core::release_without_waiting` is done; something was released or might have been.
    TriedAgain {
        at: At,
        worth: bool,
    },
    Confirm(At),
    AwaitEpoch,
    /// Only with a defect: the epoch is read when the cell's lock is no longer held.
    ReadEpoch(usize),
    Transition(usize, Event),
    Transitioned(usize, Event),
    CarryOut(usize, Plan, Stage),
    TakeFrames {
        chunk: usize,
        blocks: BlockSet,
        covers: BlockSet,
        stage: Taking,
    },
    Lock,
    Release(Vec<(usize, usize)>),
    Enqueue(usize),
    Admit {
        at: usize,
        waiting: u8,
    },
    Acquire {
        launch: usize,
        next: usize,
    },
    ToDevice(usize),
    Unlock {
        ring: bool,
    },
    Pin(&'static [(usize, u32)]),
    PinCheck(&'static [(usize, u32)]),
    Unpin(&'static [(usize, u32)]),
    Ring,
    AwaitOver(usize),
    Prefetch(Side, At),
    Prefetched {
        side: Side,
        at: At,
        any_before: bool,
    },
    AwaitAny(Vec<usize>),
    Watch(Vec<usize>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    Acquire(BlockSet, Access),
    Pin(BlockSet),
    Prefetch(Side, BlockSet),
    Discard(BlockSet),
}

impl Event {
    pub fn ask(self, chunk: &mut Chunk) -> Verdict {
        match self {
            Self::Acquire(blocks, access) => chunk.acquire(blocks, access, false),
            Self::Pin(blocks) => chunk.pin(blocks),
            Self::Prefetch(side, blocks) => chunk.prefetch(side, blocks),
            Self::Discard(blocks) => chunk.discard(blocks),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Begin,
    Room,
    Apply,
    Commit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Taking {
    Enter,
    Idle,
    /// The victims still to be tried, as bits; the chunk that is spared comes last.
    Next {
        victims: u8,
        moving: bool,
    },
    Free {
        victim: usize,
        victims: u8,
        moving: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Thread {
    pub pc: usize,
    pub stack: Vec<Frame>,
    pub fault: Option<Fault>,
    /// The chunk whose epoch it has read, and whether that has changed since: counting is not needed.
    pub epoch: Option<(usize, bool)>,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Unsubmitted,
    Pending,
    OnDevice,
    Over,
}

/// What must not come of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bad {
    /// A launch that fits failed for want of room.
    LaunchRefused(usize),
    /// A kernel's access was refused for want of room: a stand-in and a failed launch.
    FaultRefused(At),
    /// A prefetch of a block that fits failed.
    PrefetchRefused(At),
    /// The model has refused an event: a mistake of the configuration.
    Event,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub cells: Vec<Cell>,
    /// The application's, then the CPU's handler, the GPU's, the reaper.
    pub threads: Vec<Thread>,
    pub scheduler: Option<usize>,
    pub vram: Option<usize>,
    pub queued: Vec<usize>,
    pub running: Vec<usize>,
    pub phases: Vec<Phase>,
    /// Pieces of its set that a launch has before it is admitted: only with a defect.
    pub got: Vec<usize>,
    /// The hardware's queue: the first one runs.
    pub device: Vec<usize>,
    pub touched: usize,
    pub device_fault: Option<Fault>,
    pub bell: bool,
    pub watches: bool,
    pub doorbell: bool,
    /// Chunks noted as having idle frames.
    pub idle: u8,
    pub bad: Option<Bad>,
}

pub const fn of(side: Side) -> usize {
    match side {
        Side::Host => 0,
        Side::Device => 1,
    }
}

impl World {
    pub fn new(config: &Config) -> Self {
        let cell = |blocks: &u32| {
            let mut cell = Cell::default();
            (0..*blocks).for_each(|slot| cell.chunk.allocate(BlockSet::of(slot), true, BlockSet::ALL));
            cell
        };
        let thread = Thread { pc: 0, stack: Vec::new(), fault: None, epoch: None, outcome: Outcome::Ok };
        Self {
            cells: config.chunks.iter().map(cell).collect(),
            threads: vec![thread; config.threads.len() + 3],
            scheduler: None,
            vram: None,
            queued: Vec::new(),
            running: Vec::new(),
            phases: vec![Phase::Unsubmitted; config.kernels.len()],
            got: vec![0; config.kernels.len()],
            device: Vec::new(),
            touched: 0,
            device_fault: None,
            bell: false,
            watches: false,
            doorbell: false,
            idle: 0,
            bad: None,
        }
    }

    pub fn used(&self) -> u32 {
        self.cells.iter().map(|cell| cell.frames.count()).sum()
    }

    /// Whether the mapping lets the access through.
    pub fn lets(&self, side: Side, (chunk, slot): At, access: Access) -> bool {
        let mapped = &self.cells[chunk].mapped[of(side)];
        match access {
            Access::Read => mapped.read.contains(slot),
            Access::Write => mapped.write.contains(slot),
        }
    }

    /// The kernel wakes who sleeps on these blocks, whether its fault was read or not.
    pub fn wake(&mut self, side: Side, chunk: usize, blocks: BlockSet) {
        let wakes =
            |fault: &Option<Fault>| fault.is_some_and(|fault| fault.at.0 == chunk && blocks.contains(fault.at.1));
        if side == Side::Device {
            self.device_fault = self.device_fault.filter(|fault| !wakes(&Some(*fault)));
            return;
        }
        self.threads.iter_mut().filter(|thread| wakes(&thread.fault)).for_each(|thread| thread.fault = None);
    }

    /// `Core::release`: clears the parked bits, moves the epoch on and wakes. That the code wakes only after it has
    /// dropped the lock makes some wake-ups spurious, and loses none.
    pub fn release(&mut self, chunk: usize, blocks: BlockSet, defect: Option<Defect>) {
        for side in [Side::Host, Side::Device] {
            let parked = &mut self.cells[chunk].parked[of(side)];
            let waiting = *parked & blocks;
            *parked = *parked - blocks;
            if defect != Some(Defect::ReleaseWakesNobody) {
                self.wake(side, chunk, waiting);
            }
        }
        for thread in &mut self.threads {
            if let Some((seen, changed)) = &mut thread.epoch {
                *changed |= *seen == chunk;
            }
        }
    }

    /// Closes and opens what the plan says. An opening wakes, before the move is noted as done.
    pub fn apply(&mut self, chunk: usize, plan: &Plan) {
        for action in plan.actions() {
            match action {
                Action::Close(side, blocks) => {
                    let mapped = &mut self.cells[chunk].mapped[of(side)];
                    *mapped = Mapped { read: mapped.read - blocks, write: mapped.write - blocks };
                }
                Action::Open(side, blocks, access) => self.open(side, chunk, blocks, access),
                Action::GiveFrames(Side::Device, _) => self.idle |= 1 << chunk,
                _ => {}
            }
        }
    }

    pub fn open(&mut self, side: Side, chunk: usize, blocks: BlockSet, access: Access) {
        let mapped = &mut self.cells[chunk].mapped[of(side)];
        mapped.read |= blocks;
        if access == Access::Write {
            mapped.write |= blocks;
        }
        self.wake(side, chunk, blocks);
    }

    /// `Core::free_idle_frames`.
    pub fn free_idle(&mut self, chunk: usize) {
        let cell = &mut self.cells[chunk];
        cell.frames = cell.frames & (cell.chunk.current(Side::Device) | cell.chunk.busy());
    }

    /// Whether nothing is under way any more, as it must be in a state without a next step.
    pub fn is_clean(&self, config: &Config) -> bool {
        let cells = self.cells.iter().all(|cell| {
            let Cell { chunk, .. } = cell;
            (chunk.held() | chunk.busy() | chunk.pinned()).is_empty()
        });
        let idle = |thread: &Thread| thread.stack.is_empty() && thread.fault.is_none();
        let scripts = config.threads.iter().zip(&self.threads).all(|(script, thread)| thread.pc == script.len());
        let locks = self.scheduler.is_none() && self.vram.is_none() && self.threads.iter().all(idle);
        let launches = self.queued.is_empty() && self.running.is_empty() && self.device.is_empty();
        cells && scripts && locks && launches && !self.bell && self.used() <= config.budget
    }
}
