//! Submission, admission, release and pins, step by step as the pager's `scheduler` does it.
//!
//! What an admission looks at (holds, pins, who is over) is looked at in one step: holds and pins are entered under
//! the scheduler's lock alone, and what others may change meanwhile only goes one way.

use limosa_model::{Access, BlockSet, Side};

use crate::actors::{Did, Step};
use crate::world::{At, Bad, Defect, Doer, Event, Frame, Kernel, Outcome, Phase};

/// The blocks of a list that lie in each chunk, as `Extent::chunks` gives them.
fn by_chunk(pieces: &[At]) -> Vec<(usize, BlockSet)> {
    let mut chunks: Vec<(usize, BlockSet)> = Vec::new();
    for (chunk, slot) in pieces {
        match chunks.iter_mut().find(|(other, _)| other == chunk) {
            Some((_, blocks)) => *blocks |= BlockSet::of(*slot),
            None => chunks.push((*chunk, BlockSet::of(*slot))),
        }
    }
    chunks
}

/// What an admission does with a launch in the queue.
enum Answer {
    /// It waits for others, or a pin: those of other queues may pass it.
    LetPass,
    /// It waits for holds or room, and so do all behind it.
    Stop,
    Take,
}

impl Step<'_> {
    /// `Core::submit`.
    pub(crate) fn submit(&mut self, launch: usize) {
        self.push(Frame::Unlock { ring: !self.system.defect(Defect::SubmitRingsNobody) });
        self.push(Frame::Admit { at: 0, waiting: 0 });
        self.push(Frame::Enqueue(launch));
        if self.system.defect(Defect::HoldFromSubmission) {
            self.push(Frame::Acquire { launch, next: 0 });
        }
        self.push(Frame::Lock);
    }

    /// `Core::settle`.
    pub(crate) fn settle(&mut self) {
        self.push(Frame::Unlock { ring: false });
        self.push(Frame::Admit { at: 0, waiting: 0 });
        self.push(Frame::Lock);
    }

    pub(crate) fn schedule(&mut self, frame: Frame) -> Did {
        match frame {
            Frame::Lock => self.lock(),
            Frame::Release(pieces) => self.release(pieces),
            Frame::Enqueue(launch) => {
                self.world.phases[launch] = Phase::Pending;
                self.world.queued.push(launch);
                Did::Local
            }
            Frame::Admit { at, waiting } => self.admit(at, waiting),
            Frame::Acquire { launch, next } => self.acquire(launch, next),
            Frame::Submitted(launch) => self.submitted(launch),
            Frame::Unlock { ring } => {
                if ring && !self.world.queued.is_empty() {
                    self.call_reaper();
                }
                self.world.scheduler = None;
                Did::Shared
            }
            Frame::Pin(pieces) => {
                self.push(Frame::PinCheck(pieces));
                if !self.system.defect(Defect::PinWithoutLock) {
                    self.push(Frame::Lock);
                }
                Did::Local
            }
            Frame::PinCheck(pieces) => self.pin(pieces),
            Frame::Unpin(pieces) => self.unpin(pieces),
            Frame::Ring => {
                self.call_reaper();
                Did::Shared
            }
            Frame::Prefetch(side, at) => self.prefetch(side, at),
            Frame::Prefetched { side, at, before } => self.prefetched(side, at, before),
            _ => Did::Blocked,
        }
    }

    /// Takes the scheduler's lock and gives up what completed launches hold, as all do who take it.
    fn lock(&mut self) -> Did {
        if self.world.scheduler.is_some() {
            return Did::Blocked;
        }
        self.world.scheduler = Some(self.me);
        let pieces = self.finished();
        self.push(Frame::Release(pieces));
        Did::Shared
    }

    /// Takes the completed launches off the list, and gives what they hold: by launch and chunk.
    pub(crate) fn finished(&mut self) -> Vec<(usize, usize)> {
        let phases = &self.world.phases;
        let done: Vec<_> = self.world.running.extract_if(.., |launch| phases[*launch] == Phase::Over).collect();
        let chunks = |launch: usize| {
            let places: Vec<At> = self.system.kernel(launch).set.iter().map(|(at, _)| *at).collect();
            by_chunk(&places).into_iter().map(move |(chunk, _)| (launch, chunk))
        };
        let mut pieces: Vec<_> = done.into_iter().flat_map(chunks).collect();
        pieces.reverse();
        pieces
    }

    fn release(&mut self, mut pieces: Vec<(usize, usize)>) -> Did {
        let Some((launch, chunk)) = pieces.pop() else { return Did::Local };
        self.push(Frame::Release(pieces));
        let mut all = BlockSet::EMPTY;
        for ((_, slot), access) in self.system.kernel(launch).set.iter().filter(|((other, _), _)| *other == chunk) {
            self.world.cells[chunk].chunk.release(BlockSet::of(*slot), *access);
            all |= BlockSet::of(*slot);
        }
        self.world.release(chunk, all, self.system.defect);
        Did::Shared
    }

    /// `Core::admit_ready`, from the `at`th in the queue on.
    fn admit(&mut self, mut at: usize, mut waiting: u8) -> Did {
        while let Some(launch) = self.world.queued.get(at).copied() {
            match self.answer(launch, waiting) {
                Answer::LetPass => {
                    let Kernel { queue, unordered, .. } = self.system.kernel(launch);
                    waiting |= u8::from(!unordered) << queue;
                    at += 1;
                    continue;
                }
                // Only launches of its own queue may pass it; that not too many do is left out.
                Answer::Stop if self.system.kernel(launch).unordered => {
                    waiting |= !(1 << self.system.kernel(launch).queue);
                    at += 1;
                    continue;
                }
                Answer::Stop => return Did::Local,
                Answer::Take if self.system.kernel(launch).doer == Doer::Host => {
                    self.world.queued.remove(at);
                    self.world.phases[launch] = Phase::OnDevice;
                    continue;
                }
                Answer::Take => {}
            }
            self.push(Frame::Admit { at, waiting });
            if let Some(((chunk, slot), access)) = self.next_piece(launch) {
                self.world.got[launch] += 1;
                self.push(Frame::Transition(chunk, Event::Acquire(BlockSet::of(slot), access)));
                return Did::Local;
            }
            self.world.queued.remove(at);
            self.push(Frame::Submitted(launch));
            if !self.system.defect(Defect::HoldFromSubmission) && !self.system.defect(Defect::Piecemeal) {
                self.push(Frame::Acquire { launch, next: 0 });
            }
            return Did::Local;
        }
        Did::Local
    }

    fn answer(&self, launch: usize, waiting: u8) -> Answer {
        let kernel = self.system.kernel(launch);
        let over = |other: &usize| self.world.phases[*other] == Phase::Over;
        let behind = waiting & 1 << kernel.queue != 0;
        let in_turn = kernel.unordered || self.is_in_turn(launch);
        if behind || !in_turn || !kernel.after.iter().all(over) || self.touches_pinned(launch) {
            return Answer::LetPass;
        }
        if kernel.doer == Doer::Host {
            return Answer::Take;
        }
        match self.system.defect {
            Some(Defect::HoldFromSubmission) => Answer::Take,
            Some(Defect::Piecemeal) if self.can_hold(self.next_piece(launch).as_slice()) => Answer::Take,
            Some(Defect::Piecemeal) => Answer::LetPass,
            _ if self.fits(launch) && self.can_hold(kernel.set) => Answer::Take,
            // Whoever comes later must not overtake a large set, or it would never be admitted.
            _ => Answer::Stop,
        }
    }

    /// On an in-order queue: whether the host has done what came before, and the device, if it is the host's turn.
    fn is_in_turn(&self, launch: usize) -> bool {
        let kernel = self.system.kernel(launch);
        let before = |other: usize| other != launch && self.system.kernel(other).queue == kernel.queue;
        let is_task = |other: &usize| self.system.kernel(*other).doer == Doer::Host;
        let tasks = (0..self.world.phases.len()).filter(is_task);
        let mut begun = tasks.filter(|task| self.world.phases[*task] == Phase::OnDevice);
        let runs = kernel.doer == Doer::Host && self.world.running.iter().any(|other| before(*other));
        !runs && !begun.any(before)
    }

    /// What a launch that takes its set piece by piece takes next: only with a defect.
    fn next_piece(&self, launch: usize) -> Option<(At, Access)> {
        let next = self.system.kernel(launch).set.get(self.world.got[launch]);
        next.filter(|_| self.system.defect(Defect::Piecemeal)).copied()
    }

    fn fits(&self, launch: usize) -> bool {
        let blocks = |launch: usize| u32::try_from(self.system.kernel(launch).set.len()).unwrap_or(u32::MAX);
        let held: u32 = self.world.running.iter().map(|launch| blocks(*launch)).sum();
        let reserve = match self.system.config.reserve {
            Some(_) if self.world.running.is_empty() => 0,
            Some(reserve) if self.world.running.iter().chain([&launch]).any(|one| self.system.may_fault(*one)) => {
                reserve
            }
            _ => 0,
        };
        held + blocks(launch) + reserve <= self.system.config.budget
    }

    fn touches_pinned(&self, launch: usize) -> bool {
        let pinned = |((chunk, slot), _): &(At, Access)| self.world.cells[*chunk].chunk.pinned().contains(*slot);
        self.system.kernel(launch).set.iter().any(pinned)
    }

    fn can_hold(&self, set: &[(At, Access)]) -> bool {
        set.iter().all(|((chunk, slot), access)| {
            let block = BlockSet::of(*slot);
            let (reads, writes) =
                if *access == Access::Read { (block, BlockSet::EMPTY) } else { (BlockSet::EMPTY, block) };
            self.world.cells[*chunk].chunk.can_hold(reads, writes, BlockSet::EMPTY)
        })
    }

    /// `Core::acquire_all`: chunk by chunk, what is read before what is written.
    fn acquire(&mut self, launch: usize, next: usize) -> Did {
        if next > 0 && self.outcome() != Outcome::Ok {
            self.bad(Bad::LaunchRefused(launch));
            return Did::Shared;
        }
        let set = self.system.kernel(launch).set;
        let of_access = |access: Access| {
            let places: Vec<At> = set.iter().filter(|(_, own)| *own == access).map(|(at, _)| *at).collect();
            by_chunk(&places).into_iter().map(move |(chunk, blocks)| (chunk, Event::Acquire(blocks, access)))
        };
        let mut pieces: Vec<_> = of_access(Access::Read).chain(of_access(Access::Write)).collect();
        pieces.sort_by_key(|(chunk, _)| *chunk);
        if let Some((chunk, event)) = pieces.get(next) {
            self.push(Frame::Acquire { launch, next: next + 1 });
            self.push(Frame::Transition(*chunk, *event));
        }
        Did::Local
    }

    fn submitted(&mut self, launch: usize) -> Did {
        self.world.phases[launch] = Phase::OnDevice;
        self.world.device.push(launch);
        self.world.running.push(launch);
        self.world.doorbell |= self.world.watches && !self.system.defect(Defect::AdmissionRingsNoDoorbell);
        let told = self.world.threads.iter().any(|one| one.stack.contains(&Frame::AwaitReleased(launch)));
        self.world.bell |= told && !self.system.defect(Defect::NoticeRingsNobody);
        Did::Shared
    }

    /// `Core::call_reaper`.
    fn call_reaper(&mut self) {
        self.world.bell = true;
        self.world.doorbell |= self.world.watches;
    }

    /// `Core::pin`, once it has the lock.
    fn pin(&mut self, pieces: &'static [At]) -> Did {
        let locked = !self.system.defect(Defect::PinWithoutLock);
        let held = pieces.iter().find(|(chunk, slot)| self.world.cells[*chunk].chunk.held().contains(*slot));
        match held {
            Some((chunk, _)) if locked => {
                self.read_epoch(*chunk);
                self.push(Frame::Pin(pieces));
                self.push(Frame::AwaitEpoch);
                self.push(Frame::Ring);
                self.push(Frame::Unlock { ring: false });
                Did::Shared
            }
            _ => {
                if locked {
                    self.push(Frame::Unlock { ring: !self.system.defect(Defect::PinRingsNobody) });
                }
                for (chunk, blocks) in by_chunk(pieces).into_iter().rev() {
                    self.push(Frame::Transition(chunk, Event::Pin(blocks)));
                }
                Did::Local
            }
        }
    }

    fn unpin(&mut self, pieces: &'static [At]) -> Did {
        let Some(((chunk, slot), rest)) = pieces.split_first() else { return Did::Local };
        self.push(Frame::Unpin(rest));
        let block = BlockSet::of(*slot);
        self.world.cells[*chunk].chunk.unpin(block);
        self.world.release(*chunk, block, self.system.defect);
        Did::Shared
    }

    /// `Heap::prefetch_chunk`.
    fn prefetch(&mut self, side: Side, at: At) -> Did {
        if self.world.scheduler.is_some() {
            return Did::Blocked;
        }
        let before = self.world.running.is_empty().then(|| self.admitted());
        self.push(Frame::Prefetched { side, at, before });
        self.push(Frame::Transition(at.0, Event::Prefetch(side, BlockSet::of(at.1))));
        Did::Shared
    }

    fn admitted(&self) -> usize {
        let phases = self.world.phases.iter().zip(self.system.config.kernels);
        let launches = phases.filter(|(_, kernel)| kernel.doer == Doer::Device);
        launches.filter(|(phase, _)| matches!(phase, Phase::OnDevice | Phase::Over)).count()
    }

    fn prefetched(&mut self, side: Side, at: At, before: Option<usize>) -> Did {
        if self.outcome() != Outcome::Full {
            return Did::Local;
        }
        if self.world.scheduler.is_some() {
            return Did::Blocked;
        }
        let none_since = |before| self.system.defect(Defect::PrefetchForgets) || self.admitted() == before;
        if before.is_some_and(none_since) && self.world.running.is_empty() {
            self.bad(Bad::PrefetchRefused(at));
        }
        self.push(Frame::Prefetch(side, at));
        self.settle();
        let running = self.world.running.clone();
        self.push(Frame::AwaitAny(running));
        Did::Shared
    }
}
