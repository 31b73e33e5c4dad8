//! Serving, moving and making room, step by step as `fault`, `execute` and `vram` of the pager do it.

use limosa_model::{Access, Action, BlockSet, Plan, Side, Verdict, growth};

use crate::actors::{Did, Step};
use crate::world::{At, Bad, Defect, Event, Frame, Outcome, Stage, Taking, of};

impl Step<'_> {
    fn has_reader(&self, side: Side) -> bool {
        side == Side::Device || !self.system.config.in_thread
    }

    /// `Core::serve`, and with `less` the second try that leaves growth out.
    pub(crate) fn serve(&mut self, side: Side, at: At, access: Access, less: bool) -> Did {
        let (chunk, slot) = at;
        let block = BlockSet::of(slot);
        let cell = &mut self.world.cells[chunk];
        let writable = cell.chunk.writable(side).contains(slot);
        let open = writable || access == Access::Read && cell.chunk.open(side).contains(slot);
        if !less && open && !cell.chunk.busy().contains(slot) {
            let rights = if writable { Access::Write } else { Access::Read };
            self.world.open(side, chunk, block, rights);
            return Did::Shared;
        }
        let held = cell.chunk.held().contains(slot);
        let verdict = if side == Side::Device && held && self.system.defect(Defect::KernelWaits) {
            Verdict::Wait(block)
        } else {
            let present = cell.chunk.ready(side, access);
            let grown = growth::window(slot, present, cell.chunk.allocation_of(slot), false);
            cell.chunk.fault(side, slot, if less { block } else { grown }, access)
        };
        match verdict {
            Verdict::Go(plan) => {
                self.push(Frame::Served { side, at, access, less });
                self.push(Frame::CarryOut(chunk, plan, Stage::Begin));
            }
            Verdict::Done => self.world.wake(side, chunk, block),
            Verdict::Wait(_) if less => self.world.wake(side, chunk, block),
            Verdict::Wait(_) => {
                let waits = self.system.defect(Defect::HandlerWaits) && side == Side::Host;
                if !waits {
                    cell.parked[of(side)] |= block;
                }
                if held && !self.system.defect(Defect::ParkingRingsNobody) {
                    self.world.bell = true;
                }
                if waits || !self.has_reader(side) {
                    self.read_epoch(chunk);
                    self.push(Frame::Serve { side, at, access, less });
                    self.push(Frame::AwaitEpoch);
                }
            }
            Verdict::Refuse(..) => self.bad(Bad::Event),
        }
        Did::Shared
    }

    /// What becomes of a fault whose plan was carried out.
    pub(crate) fn served(&mut self, side: Side, at: At, access: Access, less: bool) -> Did {
        match self.outcome() {
            Outcome::Ok => Did::Local,
            Outcome::Full if !less => {
                self.push(Frame::Serve { side, at, access, less: true });
                Did::Local
            }
            Outcome::Full if self.world.scheduler.is_some() => self.tried_again(at, true),
            Outcome::Full => {
                self.world.scheduler = Some(self.me);
                let pieces = self.finished();
                self.push(Frame::TriedAgain { at, worth: !pieces.is_empty() });
                self.push(Frame::Unlock { ring: true });
                self.push(Frame::Release(pieces));
                Did::Shared
            }
            Outcome::Busy => {
                self.world.wake(side, at.0, BlockSet::of(at.1));
                Did::Shared
            }
        }
    }

    pub(crate) fn tried_again(&mut self, at: At, worth: bool) -> Did {
        if !worth {
            self.push(Frame::Confirm(at));
            return Did::Local;
        }
        self.world.wake(Side::Device, at.0, BlockSet::of(at.1));
        Did::Shared
    }

    /// `Core::transition`.
    pub(crate) fn transition(&mut self, chunk: usize, event: Event) -> Did {
        self.back(Outcome::Ok);
        let cell = &mut self.world.cells[chunk];
        match event.ask(&mut cell.chunk) {
            // Only a hold to be entered: nobody can have met the busy blocks.
            Verdict::Go(plan) if plan.actions().is_empty() => {
                cell.chunk.commit(&plan);
            }
            Verdict::Go(plan) => {
                self.push(Frame::Transitioned(chunk, event));
                self.push(Frame::CarryOut(chunk, plan, Stage::Begin));
            }
            Verdict::Done => {}
            Verdict::Wait(blocks) => {
                let held = !(blocks & cell.chunk.held()).is_empty();
                self.push(Frame::Transition(chunk, event));
                self.push(Frame::AwaitEpoch);
                if self.system.defect(Defect::EpochReadLate) {
                    self.push(Frame::ReadEpoch(chunk));
                } else {
                    self.read_epoch(chunk);
                }
                // Later in the code, when the lock is dropped: a bell stays rung until it is heard.
                self.world.bell |= held;
            }
            Verdict::Refuse(..) => self.bad(Bad::Event),
        }
        Did::Shared
    }

    /// `Core::carry_out`: room, then the move, then the commit, each its own step, so that others meet busy blocks.
    pub(crate) fn carry_out(&mut self, chunk: usize, plan: Plan, stage: Stage) -> Did {
        let defect = self.system.defect;
        let taken = plan.actions().into_iter().find_map(|action| match action {
            Action::TakeFrames(blocks) => Some(blocks),
            _ => None,
        });
        match (stage, taken) {
            (Stage::Begin, Some(blocks)) => {
                self.push(Frame::CarryOut(chunk, plan, Stage::Room));
                let covers = plan.covers;
                self.push(Frame::TakeFrames { chunk, blocks, covers, stage: Taking::Enter });
                Did::Local
            }
            (Stage::Room, Some(blocks)) if self.outcome() != Outcome::Ok => {
                self.world.cells[chunk].chunk.abort(&plan, Action::TakeFrames(blocks));
                self.world.release(chunk, plan.covers, defect);
                Did::Shared
            }
            (Stage::Begin | Stage::Room, _) => {
                self.push(Frame::CarryOut(chunk, plan, Stage::Apply));
                Did::Local
            }
            (Stage::Apply, _) => {
                self.world.apply(chunk, &plan);
                self.push(Frame::CarryOut(chunk, plan, Stage::Commit));
                Did::Shared
            }
            (Stage::Commit, _) => {
                self.world.cells[chunk].chunk.commit(&plan);
                self.world.release(chunk, plan.covers, defect);
                self.back(Outcome::Ok);
                Did::Shared
            }
        }
    }

    /// `Core::take_frames` with `make_room` and `evict`, under the pool's lock.
    pub(crate) fn take_frames(&mut self, chunk: usize, blocks: BlockSet, covers: BlockSet, stage: Taking) -> Did {
        if stage == Taking::Enter && self.world.vram.is_some() {
            return Did::Blocked;
        }
        self.world.vram = Some(self.me);
        let missing = blocks - self.world.cells[chunk].frames;
        let room = self.system.config.budget.saturating_sub(self.world.used());
        if room >= missing.count() && !matches!(stage, Taking::Free { .. }) {
            self.world.cells[chunk].frames |= missing;
            self.world.vram = None;
            self.back(Outcome::Ok);
            return Did::Shared;
        }
        let again = |stage| Frame::TakeFrames { chunk, blocks, covers, stage };
        match stage {
            Taking::Enter => self.push(again(Taking::Idle)),
            Taking::Idle if self.world.idle != 0 => {
                let idle = self.world.idle.trailing_zeros();
                self.world.idle &= !(1 << idle);
                self.world.free_idle(idle as usize);
                self.push(again(Taking::Idle));
            }
            Taking::Idle => {
                let victims = self.victims(chunk);
                self.push(again(Taking::Next { victims, moving: false }));
            }
            Taking::Next { victims, moving } => {
                let victim = if victims == 0 { chunk } else { victims.trailing_zeros() as usize };
                let own = if victim == chunk { covers } else { BlockSet::EMPTY };
                self.evict(victim, missing.count(), own, |moves| {
                    let (victims, moving) = (victims & !(1 << victim), moving || moves);
                    (again(stage), again(Taking::Free { victim, victims, moving }))
                });
            }
            Taking::Free { victim, victims, moving } => {
                self.world.free_idle(victim);
                if victim != chunk || self.world.used() + missing.count() <= self.system.config.budget {
                    self.push(again(Taking::Next { victims, moving }));
                    return Did::Shared;
                }
                let later = match self.system.defect {
                    Some(Defect::RacedIsNever) => moving,
                    Some(Defect::FullIsLater) => true,
                    _ => moving || self.unheld(chunk, covers),
                };
                self.world.vram = None;
                self.back(if later { Outcome::Busy } else { Outcome::Full });
            }
        }
        Did::Shared
    }

    /// The chunks with frames that are not held, as bits, but for the one to be spared. In any order of the policy's:
    /// these systems have one at most that matters.
    fn victims(&self, spare: usize) -> u8 {
        let waits = self.system.defect(Defect::EvictionWaits);
        let cells = self.world.cells.iter().enumerate().filter(|(chunk, cell)| {
            let held = if waits { BlockSet::EMPTY } else { cell.chunk.held() };
            *chunk != spare && !(cell.frames - held).is_empty()
        });
        cells.fold(0, |all, (chunk, _)| all | 1 << chunk)
    }

    /// Whether there is a frame that no launch holds, nor the caller: it can go later. Not so in the code as found.
    fn unheld(&self, spare: usize, covers: BlockSet) -> bool {
        self.world.cells.iter().enumerate().any(|(chunk, cell)| {
            let own = if chunk == spare { covers } else { BlockSet::EMPTY };
            !(cell.frames - cell.chunk.held() - own).is_empty()
        })
    }

    /// `Core::evict`. `then` gives what to do if it waits (only with a defect), and what comes after it.
    fn evict(&mut self, chunk: usize, needed: u32, own: BlockSet, then: impl Fn(bool) -> (Frame, Frame)) {
        let cell = &mut self.world.cells[chunk];
        let (held, busy) = (cell.chunk.held(), cell.chunk.busy());
        let evictable = cell.chunk.current(Side::Device) - held - busy;
        let (again, after) = then(!(busy - own).is_empty());
        if self.system.defect(Defect::EvictionWaits) && evictable.is_empty() && !held.is_empty() {
            self.world.bell = true;
            self.read_epoch(chunk);
            self.push(again);
            self.push(Frame::AwaitEpoch);
            return;
        }
        let verdict = cell.chunk.evict(evictable.last(needed));
        self.push(after);
        if let Verdict::Go(plan) = verdict {
            self.push(Frame::CarryOut(chunk, plan, Stage::Begin));
        }
    }
}
