//! Who acts: the application's threads with their scripts, the two handlers, the reaper, and the device.
//!
//! A step is what happens under one hold of a cell's lock, or one look at what others change; what a thread does in
//! between concerns nobody and belongs to the step after it.

use limosa_model::{BlockSet, Side};

use crate::world::{At, Bad, Config, Defect, Doer, Event, Fault, Frame, Kernel, Op, Outcome, Phase, World};

/// A configuration, and what is wrong with the protocol in it.
#[derive(Clone, Debug)]
pub(crate) struct System {
    pub(crate) config: Config,
    pub(crate) defect: Option<Defect>,
}

/// What a thread did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// Something that nobody else can see.
    Local,
    Shared,
    /// It waits for others; nothing has changed that matters.
    Blocked,
}

/// A step of one thread.
pub(crate) struct Step<'a> {
    pub(crate) system: &'a System,
    pub(crate) world: &'a mut World,
    pub(crate) me: usize,
}

impl System {
    pub(crate) fn defect(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    pub(crate) fn kernel(&self, launch: usize) -> &'static Kernel {
        &self.config.kernels[launch]
    }

    /// Whether it touches more than it declares.
    pub(crate) fn may_fault(&self, launch: usize) -> bool {
        let Kernel { set, touches, .. } = self.kernel(launch);
        touches.iter().any(|(at, _)| !set.iter().any(|(declared, _)| declared == at))
    }

    pub(crate) fn handler(&self, side: Side) -> usize {
        self.config.threads.len() + crate::world::of(side)
    }

    pub(crate) fn reaper(&self) -> usize {
        self.config.threads.len() + 2
    }

    /// All states that may come next.
    pub(crate) fn steps(&self, world: &World) -> Vec<World> {
        let mut next = Vec::new();
        for me in 0..world.threads.len() {
            if !world.threads[me].stack.is_empty() {
                next.extend(self.step(world, |step| step.go(), me));
            } else if me < self.config.threads.len() {
                if world.threads[me].fault.is_none() && world.threads[me].pc < self.config.threads[me].len() {
                    next.extend(self.step(world, |step| step.script(), me));
                }
            } else if me < self.reaper() {
                next.extend(self.read_faults(world, me));
            } else {
                next.extend(self.step(world, |step| step.reap(), me));
            }
        }
        if !world.device.is_empty() && world.device_fault.is_none() {
            let mut after = world.clone();
            self.run_kernel(&mut after);
            next.push(after);
        }
        next
    }

    fn step(&self, world: &World, begin: impl FnOnce(&mut Step) -> Did, me: usize) -> Option<World> {
        let mut after = world.clone();
        let mut step = Step { system: self, world: &mut after, me };
        let mut did = begin(&mut step);
        while did == Did::Local && !step.world.threads[me].stack.is_empty() {
            did = step.go();
        }
        (did != Did::Blocked).then_some(after)
    }

    /// A handler reads any of the faults of its side: one after the other, in any order.
    fn read_faults(&self, world: &World, me: usize) -> Vec<World> {
        let mut next = Vec::new();
        let side = if me == self.handler(Side::Host) { Side::Host } else { Side::Device };
        let sleepers = if side == Side::Host { self.config.threads.len() } else { 1 };
        for sleeper in 0..sleepers {
            let mut after = world.clone();
            let fault = match side {
                Side::Host => &mut after.threads[sleeper].fault,
                Side::Device => &mut after.device_fault,
            };
            if let Some(Fault { at, access, read: read @ false }) = fault {
                *read = true;
                let frame = Frame::Serve { side, at: *at, access: *access, less: false };
                after.threads[me].stack.push(frame);
                next.push(after);
            }
        }
        next
    }

    /// The kernel at the head of the hardware's queue touches what it touches next, or ends.
    fn run_kernel(&self, world: &mut World) {
        let launch = world.device[0];
        match self.kernel(launch).touches.get(world.touched) {
            None => {
                world.phases[launch] = Phase::Over;
                world.device.remove(0);
                world.touched = 0;
            }
            Some((at, access)) if world.lets(Side::Device, *at, *access) => world.touched += 1,
            Some((at, access)) => world.device_fault = Some(Fault { at: *at, access: *access, read: false }),
        }
    }

    /// A line about a step, for a trace.
    pub(crate) fn tell(&self, before: &World, after: &World) -> String {
        let me = (0..before.threads.len()).find(|me| {
            before.threads[*me] != after.threads[*me] && {
                let (old, new) = (&before.threads[*me], &after.threads[*me]);
                (old.pc, &old.stack) != (new.pc, &new.stack)
            }
        });
        let Some(me) = me else {
            return format!("device, or a wake-up: {:?}, touched {}", after.device, after.touched);
        };
        let who = match me.checked_sub(self.config.threads.len()) {
            None => format!("thread {me}"),
            Some(0) => "CPU handler".into(),
            Some(1) => "GPU handler".into(),
            Some(_) => "reaper".into(),
        };
        let short = |world: &World| match world.threads[me].stack.last() {
            Some(Frame::CarryOut(chunk, plan, stage)) => format!("CarryOut({chunk}, {:?}, {stage:?})", plan.covers),
            Some(frame) => format!("{frame:?}"),
            None => format!("[{}]", world.threads[me].pc),
        };
        format!("{who}: {} -> {}", short(before), short(after))
    }
}

impl Step<'_> {
    pub(crate) fn push(&mut self, frame: Frame) {
        self.world.threads[self.me].stack.push(frame);
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.world.threads[self.me].outcome
    }

    pub(crate) fn back(&mut self, outcome: Outcome) {
        self.world.threads[self.me].outcome = outcome;
    }

    pub(crate) fn bad(&mut self, bad: Bad) {
        self.world.bad = Some(bad);
    }

    /// Reads the epoch of a chunk, to wait until it changes.
    pub(crate) fn read_epoch(&mut self, chunk: usize) {
        self.world.threads[self.me].epoch = Some((chunk, false));
    }

    fn script(&mut self) -> Did {
        let op = self.system.config.threads[self.me][self.world.threads[self.me].pc];
        self.world.threads[self.me].pc += 1;
        match op {
            Op::Touch(access, at) if self.world.lets(Side::Host, at, access) => return Did::Shared,
            Op::Touch(access, at) => {
                // It is tried again when the fault was served.
                self.world.threads[self.me].pc -= 1;
                if !self.system.config.in_thread {
                    self.world.threads[self.me].fault = Some(Fault { at, access, read: false });
                    return Did::Shared;
                }
                self.push(Frame::Serve { side: Side::Host, at, access, less: false });
            }
            Op::Submit(launch) => self.submit(launch),
            Op::Await(launch) => {
                self.settle();
                self.push(Frame::AwaitOver(launch));
            }
            Op::Pin(pieces) => self.push(Frame::Pin(pieces)),
            Op::Unpin(pieces) => {
                if !self.system.defect(Defect::UnpinRingsNobody) {
                    self.push(Frame::Ring);
                }
                self.settle();
                self.push(Frame::Unpin(pieces));
            }
            Op::Prefetch(side, at) => self.push(Frame::Prefetch(side, at)),
            Op::Notified(launch) => {
                self.push(Frame::AwaitReleased(launch));
                if !self.system.defect(Defect::NoticeRingsNobody) {
                    self.push(Frame::Ring);
                }
                return Did::Shared;
            }
            Op::Take(task) if self.world.phases[task] == Phase::OnDevice => return Did::Shared,
            Op::Take(_) => return Did::Blocked,
            Op::Complete(one) => return self.complete(one),
            Op::Discard((chunk, slot)) => self.push(Frame::Transition(chunk, Event::Discard(BlockSet::of(slot)))),
        }
        Did::Local
    }

    /// The loop of `reap`.
    fn reap(&mut self) -> Did {
        let stage = self.world.threads[self.me].pc;
        self.world.threads[self.me].pc = (stage + 1) % 5;
        match stage {
            0 if !self.world.bell => return Did::Blocked,
            0 => self.world.bell = false,
            1 => self.world.watches = true,
            // The doorbell's next value is read before anything is looked at.
            2 => {
                self.world.doorbell = false;
                self.settle();
            }
            3 if self.world.scheduler.is_some() => return Did::Blocked,
            3 if !self.world.running.is_empty() => {
                self.world.threads[self.me].pc = 2;
                let running = self.world.running.clone();
                self.push(Frame::Watch(running));
            }
            3 => {}
            _ => self.world.watches = false,
        }
        Did::Shared
    }

    /// Does what the thread does next in its call.
    fn go(&mut self) -> Did {
        let Some(frame) = self.world.threads[self.me].stack.pop() else { return Did::Blocked };
        match frame {
            Frame::Serve { side, at, access, less } => self.serve(side, at, access, less),
            Frame::Served { side, at, access, less } => self.served(side, at, access, less),
            Frame::TriedAgain { at, worth } => self.tried_again(at, worth),
            Frame::Confirm(at) => self.confirm(at),
            Frame::AwaitEpoch => self.await_epoch(),
            Frame::ReadEpoch(chunk) => {
                self.read_epoch(chunk);
                Did::Shared
            }
            Frame::Transition(chunk, event) => self.transition(chunk, event),
            Frame::Transitioned(chunk, event) => {
                if self.outcome() == Outcome::Busy {
                    self.push(Frame::Transition(chunk, event));
                }
                Did::Local
            }
            Frame::CarryOut(chunk, plan, stage) => self.carry_out(chunk, plan, stage),
            Frame::TakeFrames { chunk, blocks, covers, stage } => self.take_frames(chunk, blocks, covers, stage),
            Frame::AwaitAny(launches) => self.await_any(&launches, false),
            Frame::Watch(launches) => self.await_any(&launches, self.world.doorbell),
            Frame::AwaitOver(launch) => self.await_any(&[launch], false),
            Frame::AwaitReleased(launch) if self.world.running.contains(&launch) => Did::Blocked,
            Frame::AwaitReleased(launch) => self.await_any(&[launch], false),
            other => self.schedule(other),
        }
    }

    /// `Core::finish`, and `UserEvent::complete`, which takes no lock.
    fn complete(&mut self, one: usize) -> Did {
        if self.system.kernel(one).doer == Doer::Host && self.world.scheduler.is_some() {
            return Did::Blocked;
        }
        self.world.phases[one] = Phase::Over;
        if !self.system.defect(Defect::CompleteRingsNobody) {
            self.push(Frame::Ring);
        }
        Did::Shared
    }

    fn await_epoch(&mut self) -> Did {
        match self.world.threads[self.me].epoch {
            Some((_, false)) => Did::Blocked,
            _ => {
                self.world.threads[self.me].epoch = None;
                Did::Local
            }
        }
    }

    fn await_any(&mut self, launches: &[usize], rung: bool) -> Did {
        let over = launches.iter().any(|launch| self.world.phases[*launch] == Phase::Over);
        if over || rung || launches.is_empty() { Did::Local } else { Did::Blocked }
    }

    /// A kernel's access was refused: only the second time counts.
    fn confirm(&mut self, (chunk, slot): At) -> Did {
        let block = BlockSet::of(slot);
        if self.world.cells[chunk].suspects.contains(slot) {
            self.bad(Bad::FaultRefused((chunk, slot)));
        }
        self.world.cells[chunk].suspects |= block;
        self.world.wake(Side::Device, chunk, block);
        Did::Shared
    }
}
