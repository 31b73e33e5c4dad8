//! A state of the small system: real chunks, and of the pager what waits depend on.
//!
//! Data, streams, huge mappings, overwriting, check mode, loss of the device, failing calls and files are *not* in it.

use limosa_model::{Access, Action, BlockSet, Chunk, Plan, Side, Verdict};

/// A block: its chunk and its slot.
pub(crate) type At = (usize, u32);

/// What an application's thread does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Touch(Access, At),
    Submit(usize),
    /// Waits for a launch, as `LaunchEvent::wait`.
    Await(usize),
    /// Pins blocks of some chunks.
    Pin(&'static [(usize, u32)]),
    Unpin(&'static [(usize, u32)]),
    Prefetch(Side, At),
    Discard(At),
    /// Has itself told of a launch's end, and goes on when it is: a callback, or a task that is woken.
    Notified(usize),
    /// Takes up a task of the host's, as a thread of the notifier's.
    Take(usize),
    /// Ends what the host does, or an event of the application's: the notifier's thread, or `UserEvent::complete`.
    Complete(usize),
}

/// Who does what is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doer {
    Device,
    /// A thread that takes it up when its turn has come.
    Host,
    /// An application's thread, in no queue.
    Outside,
}

/// A launch of a configuration, or what else is waited for like one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    pub(crate) doer: Doer,
    pub(crate) queue: usize,
    /// Whether the queue is out of order.
    pub(crate) unordered: bool,
    pub(crate) after: &'static [usize],
    /// What it declares, in the order of acquisition.
    pub(crate) set: &'static [(At, Access)],
    /// What it touches, in order; more than it declares only on the class Faulting.
    pub(crate) touches: &'static [(At, Access)],
}

/// A departure from the protocol that the search must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
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
    /// Who finds everything held is told to try again.
    FullIsLater,
    /// `Heap::unpin` as found: it admits what waited for the pin, and leaves who is behind that to nobody.
    UnpinRingsNobody,
    /// Who ends an event of the application's leaves what waits for it to nobody.
    CompleteRingsNobody,
    /// Who wants to be told of a launch's end leaves it to nobody to find that.
    NoticeRingsNobody,
    /// `Core::pin` as found: it gives up what completed launches held, and tells nobody who waits for that.
    PinRingsNobody,
    /// `Core::make_room` as found: what turned busy between its eviction and the look at its frame counts as held.
    RacedIsNever,
    /// `Heap::prefetch_chunk` as found: of a launch that began and ended meanwhile it knows nothing.
    PrefetchForgets,
}

/// A small system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) name: &'static str,
    /// Blocks of each chunk.
    pub(crate) chunks: &'static [u32],
    pub(crate) budget: u32,
    pub(crate) kernels: &'static [Kernel],
    pub(crate) threads: &'static [&'static [Op]],
    /// The blocks of a chunk are one allocation, through which faults grow; else each is one of its own.
    pub(crate) joined: bool,
    /// CPU threads serve their own faults.
    pub(crate) in_thread: bool,
    /// The class Faulting's rule of admission, with so many blocks left free beside kernels that may fault.
    pub(crate) reserve: Option<u32>,
    /// The least number of states: a search that finds fewer has not searched.
    pub(crate) least: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Mapped {
    pub(crate) read: BlockSet,
    pub(crate) write: BlockSet,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Cell {
    pub(crate) chunk: Chunk,
    pub(crate) parked: [BlockSet; 2],
    pub(crate) mapped: [Mapped; 2],
    pub(crate) frames: BlockSet,
    /// Blocks of which a kernel's touch was refused once.
    pub(crate) suspects: BlockSet,
}

/// An access that sleeps in the kernel until it is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fault {
    pub(crate) at: At,
    pub(crate) access: Access,
    pub(crate) read: bool,
}

/// How a call came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Ok,
    Busy,
    Full,
}

/// A thread's call in progress: what it does next. The innermost is last on the stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Frame {
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
    /// An admitted launch goes to the device.
    Submitted(usize),
    Unlock {
        ring: bool,
    },
    Pin(&'static [(usize, u32)]),
    PinCheck(&'static [(usize, u32)]),
    Unpin(&'static [(usize, u32)]),
    Ring,
    AwaitOver(usize),
    /// A notice that is to be handed over when what the launch held is given up.
    AwaitReleased(usize),
    Prefetch(Side, At),
    Prefetched {
        side: Side,
        at: At,
        before: Option<usize>,
    },
    AwaitAny(Vec<usize>),
    Watch(Vec<usize>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Acquire(BlockSet, Access),
    Pin(BlockSet),
    Prefetch(Side, BlockSet),
    Discard(BlockSet),
}

impl Event {
    pub(crate) fn ask(self, chunk: &mut Chunk) -> Verdict {
        match self {
            Self::Acquire(blocks, access) => chunk.acquire(blocks, access, false),
            Self::Pin(blocks) => chunk.pin(blocks),
            Self::Prefetch(side, blocks) => chunk.prefetch(side, blocks),
            Self::Discard(blocks) => chunk.discard(blocks),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Begin,
    Room,
    Apply,
    Commit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Taking {
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
pub(crate) struct Thread {
    pub(crate) pc: usize,
    pub(crate) stack: Vec<Frame>,
    pub(crate) fault: Option<Fault>,
    /// The chunk whose epoch it has read, and whether that has changed since: counting is not needed.
    pub(crate) epoch: Option<(usize, bool)>,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Unsubmitted,
    Pending,
    OnDevice,
    Over,
}

/// What must not come of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bad {
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
pub(crate) struct World {
    pub(crate) cells: Vec<Cell>,
    /// The application's, then the CPU's handler, the GPU's, the reaper.
    pub(crate) threads: Vec<Thread>,
    pub(crate) scheduler: Option<usize>,
    pub(crate) vram: Option<usize>,
    pub(crate) queued: Vec<usize>,
    pub(crate) running: Vec<usize>,
    pub(crate) phases: Vec<Phase>,
    /// Pieces of its set that a launch has before it is admitted: only with a defect.
    pub(crate) got: Vec<usize>,
    /// The hardware's queue: the first one runs.
    pub(crate) device: Vec<usize>,
    pub(crate) touched: usize,
    pub(crate) device_fault: Option<Fault>,
    pub(crate) bell: bool,
    pub(crate) watches: bool,
    pub(crate) doorbell: bool,
    /// Chunks noted as having idle frames.
    pub(crate) idle: u8,
    pub(crate) bad: Option<Bad>,
}

pub(crate) const fn of(side: Side) -> usize {
    match side {
        Side::Host => 0,
        Side::Device => 1,
    }
}

impl World {
    pub(crate) fn new(config: &Config) -> Self {
        let cell = |blocks: &u32| {
            let mut cell = Cell::default();
            let each = (0..*blocks).map(BlockSet::of);
            let all = if config.joined { vec![BlockSet::run(0, *blocks)] } else { each.collect() };
            cell.chunk.host_blanked(BlockSet::ALL);
            all.into_iter().for_each(|blocks| cell.chunk.allocate(blocks, true));
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

    pub(crate) fn used(&self) -> u32 {
        self.cells.iter().map(|cell| cell.frames.count()).sum()
    }

    /// Whether the mapping lets the access through.
    pub(crate) fn lets(&self, side: Side, (chunk, slot): At, access: Access) -> bool {
        let mapped = &self.cells[chunk].mapped[of(side)];
        match access {
            Access::Read => mapped.read.contains(slot),
            Access::Write => mapped.write.contains(slot),
        }
    }

    /// The kernel wakes who sleeps on these blocks, whether its fault was read or not.
    pub(crate) fn wake(&mut self, side: Side, chunk: usize, blocks: BlockSet) {
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
    pub(crate) fn release(&mut self, chunk: usize, blocks: BlockSet, defect: Option<Defect>) {
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
    pub(crate) fn apply(&mut self, chunk: usize, plan: &Plan) {
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

    pub(crate) fn open(&mut self, side: Side, chunk: usize, blocks: BlockSet, access: Access) {
        let mapped = &mut self.cells[chunk].mapped[of(side)];
        mapped.read |= blocks;
        if access == Access::Write {
            mapped.write |= blocks;
        }
        self.wake(side, chunk, blocks);
    }

    /// `Core::free_idle_frames`.
    pub(crate) fn free_idle(&mut self, chunk: usize) {
        let cell = &mut self.cells[chunk];
        cell.frames = cell.frames & (cell.chunk.current(Side::Device) | cell.chunk.busy());
    }

    /// Whether nothing is under way any more, as it must be in a state without a next step.
    pub(crate) fn is_clean(&self, config: &Config) -> bool {
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
