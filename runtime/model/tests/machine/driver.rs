//! Drives the model and the simulated machine together, and audits both after every step.
//!
//! The ledger (allocations, holds, poison, plans in flight, what each block must read as) is kept here, apart from the
//! model, so that the model's answers are judged by something that does not share its bugs.

use limosa_model::plan::ACTIONS_MAX;
use limosa_model::{
    Access, Action, BLOCKS_PER_CHUNK, BlockSet, BlockState, Chunk, Copies, Hold, Plan, Refusal, Side, Verdict, growth,
};

use crate::event::{Event, tiers};
use crate::memory::{Mapping, Memory, SLOTS, set_of};

/// Which actions of a plan fail, if it has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Luck {
    pub(crate) take_fails: bool,
    /// The load fails, and of its blocks these cannot be read ever again.
    pub(crate) lost_in_load: Option<BlockSet>,
    pub(crate) write_back_fails: bool,
}

impl Luck {
    pub(crate) const GOOD: Self = Self { take_fails: false, lost_in_load: None, write_back_fails: false };
}

/// A plan begun and not yet ended.
#[derive(Clone, Debug)]
struct Flight {
    event: Event,
    plan: Plan,
    before: [BlockState; SLOTS],
    done: usize,
    luck: Luck,
}

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) chunk: Chunk,
    pub(crate) memory: Memory,
    /// What each block must read as; `None` where that is nobody's business (unallocated, poisoned, being overwritten).
    oracle: [Option<u64>; SLOTS],
    allocations: Vec<BlockSet>,
    holds: Vec<(BlockSet, Access)>,
    poisoned: BlockSet,
    flights: Vec<Flight>,
    /// Stored last; every store has a value of its own.
    stamp: u64,
    /// Every writable mapping is written through after every action: the program with the worst timing.
    eager: bool,
    /// Blocks held by launches must stay mapped on the GPU: not every device can fault them back in.
    pub(crate) holds_stay_mapped: bool,
}

impl Machine {
    pub(crate) fn new(huge: bool, eager: bool) -> Self {
        Self {
            chunk: Chunk::new(),
            memory: Memory::new(huge),
            oracle: [None; SLOTS],
            allocations: Vec::new(),
            holds: Vec::new(),
            poisoned: BlockSet::EMPTY,
            flights: Vec::new(),
            stamp: 0,
            eager,
            holds_stay_mapped: false,
        }
    }

    pub(crate) fn allocated(&self) -> BlockSet {
        self.allocations.iter().fold(BlockSet::EMPTY, |all, blocks| all | *blocks)
    }

    /// Allocates the free ones at the beginning of `blocks`; `blank` of them have host frames known to be zero.
    pub(crate) fn allocate(&mut self, blocks: BlockSet, blank: BlockSet) {
        let Some((first, count)) = blocks.runs().next() else { return };
        let free = (first..first + count).take_while(|slot| !self.allocated().contains(*slot)).count();
        let blocks = blocks.slots().take(free).fold(BlockSet::EMPTY, |all, slot| all | BlockSet::of(slot));
        if blocks.is_empty() {
            return;
        }
        for slot in blocks.slots() {
            self.oracle[slot as usize] = Some(0);
            if blank.contains(slot) {
                self.memory.host[slot as usize] = 0;
            }
        }
        // A first block that does not begin its allocation continues the chunk before.
        self.chunk.host_blanked(blank & blocks);
        self.chunk.allocate(blocks, first > 0 || blank.contains(0));
        self.allocations.push(blocks);
        self.audit();
    }

    /// Discards and frees one allocation, unless it has to wait.
    pub(crate) fn free(&mut self, index: usize) {
        let Some(blocks) = self.allocations.get(index).copied() else { return };
        self.event(Event::Discard(blocks), Luck::GOOD, false);
        let in_use = self.chunk.busy() | self.chunk.held();
        if !(in_use & blocks).is_empty() {
            return;
        }
        self.chunk.free(blocks);
        self.allocations.swap_remove(index);
        self.poisoned = self.poisoned - blocks;
        for slot in blocks.slots() {
            self.oracle[slot as usize] = None;
        }
        self.audit();
    }

    /// The chunk's host frames are given back, if none is needed; they come back as zeros.
    pub(crate) fn give_host_frames(&mut self, works: bool) {
        let mapped = (0..BLOCKS_PER_CHUNK).any(|slot| self.memory.mapping(Side::Host, slot) != Mapping::None);
        let Some(blocks) = self.chunk.begin_host_give_back() else { return };
        assert!(!mapped && self.flights.is_empty(), "given back in use");
        // Whatever comes meanwhile waits, holds included; nothing else is asked of these blocks.
        let waits = |verdict: &Verdict| matches!(verdict, Verdict::Wait(_) | Verdict::Refuse(..));
        for slot in self.allocated().slots() {
            assert!(waits(&self.chunk.clone().fault(Side::Host, slot, BlockSet::ALL, Access::Read)));
            assert!(waits(&self.chunk.clone().evict(BlockSet::of(slot))));
        }
        if works {
            self.memory.host.fill(0);
        }
        self.chunk.end_host_give_back(blocks, works);
        self.audit();
    }

    /// A load or store by a program: through the mapping if it allows that, else by a fault with growth.
    pub(crate) fn touch(&mut self, side: Side, slot: u32, access: Access, luck: Luck, later: bool) {
        if self.memory.mapping(side, slot).allows(access) {
            match access {
                Access::Read => {
                    self.memory.load(side, slot);
                }
                Access::Write => self.store(side, slot),
            }
            return self.audit();
        }
        let allowed = self.chunk.allocation_of(slot);
        let window = growth::window(slot, self.chunk.open(side), allowed, false);
        self.event(Event::Fault { side, slot, window, access }, luck, later);
    }

    fn store(&mut self, side: Side, slot: u32) {
        self.stamp += 1;
        self.memory.store(side, slot, self.stamp);
        self.oracle[slot as usize] = Some(self.stamp);
    }

    /// An event occurs; its plan, if any, is carried out now or step by step between other events.
    pub(crate) fn event(&mut self, event: Event, luck: Luck, later: bool) {
        let before = states(&self.chunk);
        let open = event.opens().map_or(BlockSet::EMPTY, |(side, access)| match access {
            Access::Read => self.chunk.open(side),
            Access::Write => self.chunk.writable(side),
        });
        match event.apply(&mut self.chunk) {
            Verdict::Go(plan) => {
                self.judge_go(event, &plan, &before, open);
                self.flights.push(Flight { event, plan, before, done: 0, luck });
                if !later {
                    self.advance(self.flights.len() - 1, usize::MAX);
                }
            }
            Verdict::Done => {
                for slot in event.asked().slots() {
                    let state = before[slot as usize];
                    assert!(!event.needed(state, open.contains(slot)), "{event:?} done, but {slot} is {state:?}");
                }
            }
            Verdict::Wait(blocks) => self.judge_wait(event, blocks, &before),
            Verdict::Refuse(refusal, blocks) => self.judge_refusal(event, refusal, blocks),
        }
        self.audit();
    }

    fn judge_go(&self, event: Event, plan: &Plan, before: &[BlockState; SLOTS], open: BlockSet) {
        let asked = event.asked();
        for slot in asked.slots().filter(|slot| !matches!(event, Event::Discard(_)) || plan.covers.contains(*slot)) {
            let state = before[slot as usize];
            let needed = event.needed(state, open.contains(slot));
            assert_eq!(plan.covers.contains(slot), needed, "{event:?} on {slot}, {state:?}: {plan:?}");
        }
        for slot in plan.covers.slots() {
            let BlockState { copies, hold, busy } = before[slot as usize];
            assert!(!busy && !event.barred_by(hold), "{event:?} moves {slot} in use");
            assert!(!matches!(copies, Copies::Unallocated | Copies::Poisoned), "{event:?} moves {slot}: {copies:?}");
        }
        let grown = plan.covers - asked;
        if let Event::Fault { slot, window, .. } = event {
            let allocation = self.allocations.iter().find(|blocks| blocks.contains(slot));
            assert!(allocation.is_some_and(|blocks| blocks.covers(grown)), "growth left the allocation: {plan:?}");
            assert!(window.covers(grown), "growth left its window: {plan:?}");
        } else {
            assert!(grown.is_empty(), "{event:?} moves {grown:?} that nobody asked for");
        }
        judge_actions(event, plan, before, open);
    }

    /// A wait names exactly the blocks in use, and ends when just those are no longer.
    fn judge_wait(&self, event: Event, blocks: BlockSet, before: &[BlockState; SLOTS]) {
        let in_use = |slot: &u32| {
            let BlockState { hold, busy, .. } = before[*slot as usize];
            busy || event.barred_by(hold)
        };
        let expected = event.asked().slots().filter(in_use).fold(BlockSet::EMPTY, |all, slot| all | BlockSet::of(slot));
        assert!(!blocks.is_empty(), "{event:?} waits for nothing");
        assert_eq!(blocks, expected, "{event:?} waits for the wrong blocks");
        let mut later = self.clone();
        let concerns = |flight: &Flight| !(flight.plan.covers & blocks).is_empty();
        while let Some(index) = later.flights.iter().position(concerns) {
            later.advance(index, usize::MAX);
        }
        while let Some(index) = later.holds.iter().position(|(held, _)| !(*held & blocks).is_empty()) {
            later.release(index);
        }
        assert!(!matches!(event.apply(&mut later.chunk), Verdict::Wait(_)), "{event:?} waits for ever");
    }

    fn judge_refusal(&self, event: Event, refusal: Refusal, blocks: BlockSet) {
        let guilty = match refusal {
            Refusal::Unallocated => event.asked() - self.allocated(),
            Refusal::Poisoned => event.asked() & self.poisoned,
        };
        assert!(!blocks.is_empty() && blocks == guilty, "{event:?} refused for {blocks:?}: {refusal:?}");
        assert!(!matches!(event, Event::Discard(_)), "a discard cannot be refused");
    }

    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }

    /// Carries out the next `count` actions of a plan in flight, and ends it when none is left.
    pub(crate) fn advance(&mut self, index: usize, count: usize) {
        let flight = self.flights[index].clone();
        let actions = flight.plan.actions();
        for action in actions.iter().skip(flight.done).take(count) {
            if self.fails(*action, &flight) {
                self.flights.remove(index);
                return self.give_up(*action, &flight);
            }
            self.memory.perform(*action);
            self.flights[index].done += 1;
            if let (Event::Acquire { overwrite: true, .. }, Action::Open(..)) = (flight.event, *action) {
                // Undefined from here on, until the launch has written it.
                for slot in set_of(*action).slots().filter(|slot| !tiers(flight.before[*slot as usize].copies).1) {
                    self.oracle[slot as usize] = None;
                }
            }
            if let (Event::Receive(_), Action::Open(..)) = (flight.event, *action) {
                // As well, but only where there was nothing: all else is to be there if nothing arrives.
                for slot in set_of(*action).slots().filter(|slot| flight.before[*slot as usize].copies == Copies::Zero)
                {
                    self.oracle[slot as usize] = None;
                }
            }
            self.disturb();
            self.audit();
        }
        if self.flights[index].done == actions.len() {
            self.flights.remove(index);
            self.commit(&flight);
        }
    }

    fn fails(&self, action: Action, flight: &Flight) -> bool {
        match action {
            Action::TakeFrames(_) => flight.luck.take_fails,
            Action::Load(_) => flight.luck.lost_in_load.is_some(),
            Action::WriteBack(_) => flight.luck.write_back_fails,
            _ => false,
        }
    }

    /// Ends a plan whose `action` failed, as the pager would.
    fn give_up(&mut self, action: Action, flight: &Flight) {
        if let (Action::Load(set), Some(lost)) = (action, flight.luck.lost_in_load) {
            // The others may well have been read before the error came.
            self.memory.perform(Action::Load(set - lost));
            self.chunk.fail(&flight.plan, lost & set);
            self.lose(lost & set);
        } else {
            self.chunk.abort(&flight.plan, action);
        }
        for slot in (flight.plan.covers - self.chunk.current(Side::Device)).slots() {
            self.memory.device[slot as usize] = None;
        }
        let unhurt = flight.plan.covers - self.poisoned;
        for slot in unhurt.slots() {
            let (now, before) = (self.chunk.state(slot), flight.before[slot as usize]);
            assert_eq!(now.copies, before.copies, "{:?} was given up, but {slot} changed", flight.event);
        }
        self.audit();
    }

    fn commit(&mut self, flight: &Flight) {
        let before = states(&self.chunk);
        let covers = flight.plan.covers;
        self.chunk.commit(&flight.plan);
        if let Event::Acquire { access, .. } = flight.event {
            self.holds.push((covers, access));
        }
        if let Event::Receive(_) = flight.event {
            self.holds.push((covers, Access::Write));
        }
        for slot in covers.slots() {
            match flight.event {
                Event::Discard(_) => self.oracle[slot as usize] = Some(0),
                Event::Acquire { overwrite: true, .. } => self.store(Side::Device, slot),
                // Some of it arrives, or what was zeros is made so again.
                Event::Receive(_) if flight.before[slot as usize].copies == Copies::Zero => {
                    self.store(Side::Device, slot);
                }
                _ => {}
            }
            let expected = flight.event.then(flight.before[slot as usize].copies);
            assert_eq!(self.chunk.state(slot).copies, expected, "{:?} on {slot}", flight.event);
        }
        for slot in (BlockSet::ALL - covers).slots() {
            assert_eq!(self.chunk.state(slot), before[slot as usize], "{:?} changed {slot}", flight.event);
        }
        self.audit();
    }

    pub(crate) fn holds(&self) -> usize {
        self.holds.len()
    }

    /// A launch completes.
    pub(crate) fn release(&mut self, index: usize) {
        let (blocks, access) = self.holds.swap_remove(index);
        self.chunk.release(blocks, access);
        self.audit();
    }

    /// The device is lost; plans in flight are brought to their end first, as the model demands.
    pub(crate) fn lose_device(&mut self) {
        if !self.flights.is_empty() {
            let before = states(&self.chunk);
            let busy = self.chunk.busy();
            assert_eq!(self.chunk.device_lost(), if busy.is_empty() { Ok(BlockSet::EMPTY) } else { Err(busy) });
            assert_eq!(states(&self.chunk), before, "a device loss that waits changed something");
        }
        while !self.flights.is_empty() {
            self.advance(0, usize::MAX);
        }
        let only_there = |slot: &u32| tiers(self.chunk.state(*slot).copies) == (false, true, false);
        let expected = BlockSet::ALL.slots().filter(only_there).fold(BlockSet::EMPTY, |all, s| all | BlockSet::of(s));
        assert_eq!(self.chunk.device_lost(), Ok(expected), "exactly what only the device had is lost");
        self.memory.lose_device();
        self.holds.clear();
        self.lose(expected);
        self.audit();
    }

    fn lose(&mut self, blocks: BlockSet) {
        self.poisoned |= blocks;
        for slot in blocks.slots() {
            self.oracle[slot as usize] = None;
        }
    }

    pub(crate) fn repair(&mut self, blocks: BlockSet) {
        let expected = blocks & self.poisoned;
        assert_eq!(self.chunk.repair(blocks), expected);
        self.poisoned = self.poisoned - expected;
        for slot in expected.slots() {
            self.oracle[slot as usize] = Some(0);
        }
        self.audit();
    }

    /// Every writable mapping is written through.
    fn disturb(&mut self) {
        if !self.eager {
            return;
        }
        for slot in 0..BLOCKS_PER_CHUNK {
            for side in [Side::Host, Side::Device] {
                if self.memory.mapping(side, slot) == Mapping::Write {
                    self.store(side, slot);
                }
            }
        }
    }

    /// Asserts what must hold at any moment, plans in flight or not.
    pub(crate) fn audit(&self) {
        let busy = self.flights.iter().fold(BlockSet::EMPTY, |all, flight| all | flight.plan.covers);
        assert_eq!(self.chunk.busy(), busy, "busy");
        assert_eq!(self.chunk.allocated(), self.allocated(), "allocated");
        assert_eq!(self.chunk.poisoned(), self.poisoned, "poisoned");
        for blocks in &self.allocations {
            assert!(blocks.slots().all(|slot| self.chunk.allocation_of(slot) == *blocks), "bounds of {blocks:?}");
        }
        for slot in 0..BLOCKS_PER_CHUNK {
            self.audit_queries(slot);
            self.audit_mappings(slot);
            if !busy.contains(slot) {
                self.audit_at_rest(slot);
            }
        }
    }

    /// DESIGN.md's "never" list, and agreement with the ledger, by the public queries alone.
    fn audit_queries(&self, slot: u32) {
        let state = self.chunk.state(slot);
        let (host, device, file) = tiers(state.copies);
        let [open_host, open_device] = [Side::Host, Side::Device].map(|side| self.chunk.open(side).contains(slot));
        let [write_host, write_device] =
            [Side::Host, Side::Device].map(|side| self.chunk.writable(side).contains(slot));
        assert_eq!(self.chunk.current(Side::Host).contains(slot), host);
        assert_eq!(self.chunk.current(Side::Device).contains(slot), device);
        assert_ne!(state.copies, Copies::Current { host: false, device: false, file: false }, "{slot} has no copy");
        assert_eq!(self.chunk.zero().contains(slot), state.copies == Copies::Zero);
        assert!(!write_host || (open_host && host && !device && !file), "the CPU may write {slot}: {state:?}");
        assert!(!write_device || (open_device && device && !host && !file), "the GPU may write {slot}: {state:?}");
        assert!((!open_host || host) && (!open_device || device), "{slot} open without a copy: {state:?}");
        let readers = self.holds.iter().filter(|(held, access)| held.contains(slot) && *access == Access::Read).count();
        let writers =
            self.holds.iter().filter(|(held, access)| held.contains(slot) && *access == Access::Write).count();
        let hold = match (writers, u16::try_from(readers)) {
            (0, Ok(0)) => Hold::None,
            (0, Ok(readers)) => Hold::Read(readers),
            (1, Ok(0)) => Hold::Write,
            _ => panic!("{slot} held by {writers} writers and {readers} readers"),
        };
        assert_eq!(state.hold, hold, "hold of {slot}");
        assert_eq!(self.chunk.held().contains(slot), hold != Hold::None);
        assert!(hold != Hold::Write || !open_host, "{slot} open on the CPU under a write hold");
        assert!(hold == Hold::None || (device && !write_host), "{slot} held: {state:?}");
    }

    /// Whatever is mapped reads right, and no mapping can make another read wrong.
    fn audit_mappings(&self, slot: u32) {
        let [host, device] = [Side::Host, Side::Device].map(|side| self.memory.mapping(side, slot));
        for (side, mapping) in [(Side::Host, host), (Side::Device, device)] {
            if let Some(value) = self.oracle[slot as usize]
                && mapping != Mapping::None
            {
                assert_eq!(self.memory.load(side, slot), value, "{side:?} reads {slot} wrong");
            }
        }
        assert!(host != Mapping::Write || device == Mapping::None, "CPU writes {slot} while the GPU has it mapped");
        assert!(device != Mapping::Write || host == Mapping::None, "GPU writes {slot} while the CPU has it mapped");
        let hold = self.chunk.state(slot).hold;
        assert!(hold != Hold::Write || host == Mapping::None, "CPU mapping of {slot} under a write hold");
        assert!(hold == Hold::None || host != Mapping::Write, "CPU may write {slot} that a launch holds");
        if self.holds_stay_mapped {
            assert!(
                hold == Hold::None || device != Mapping::None,
                "{slot} was unmapped under the launch that holds it"
            );
            assert!(hold != Hold::Write || device == Mapping::Write, "{slot} lost its right under a write hold");
        }
    }

    /// What holds besides for a block that no plan is moving.
    fn audit_at_rest(&self, slot: u32) {
        let at = slot as usize;
        let copies = self.chunk.state(slot).copies;
        let (host, device, file) = tiers(copies);
        for side in [Side::Host, Side::Device] {
            let bound = if self.chunk.writable(side).contains(slot) {
                Mapping::Write
            } else if self.chunk.open(side).contains(slot) {
                Mapping::Read
            } else {
                Mapping::None
            };
            let mapping = self.memory.mapping(side, slot);
            assert!(mapping <= bound, "{slot} is mapped for {mapping:?} on {side:?}, the model says {bound:?} at most");
        }
        assert_eq!(self.memory.device[at].is_some(), device, "frame of {slot} in VRAM, which is {copies:?}");
        if copies == Copies::Zero {
            assert_eq!(self.oracle[at], Some(0), "{slot} reads as zeros, but was stored to");
        }
        let Some(value) = self.oracle[at] else { return };
        assert!(!host || self.memory.host[at] == value, "host copy of {slot} is out of date: {copies:?}");
        assert!(!device || self.memory.device[at] == Some(value), "device copy of {slot} is out of date: {copies:?}");
        assert!(!file || self.memory.file[at] == value, "file copy of {slot} is out of date: {copies:?}");
    }
}

/// The list is bounded, names nothing twice and nothing outside the plan, and moves nothing without need.
fn judge_actions(event: Event, plan: &Plan, before: &[BlockState; SLOTS], open: BlockSet) {
    let actions = plan.actions();
    assert!(actions.len() <= ACTIONS_MAX);
    let kind = |action: Action| match action {
        Action::Close(side, _) => (std::mem::discriminant(&action), Some(side), None),
        Action::Zero(side, _) | Action::Copy(side, _) => (std::mem::discriminant(&action), Some(side), None),
        Action::Stale(side, _) | Action::GiveFrames(side, _) => (std::mem::discriminant(&action), Some(side), None),
        Action::Open(side, _, access) => (std::mem::discriminant(&action), Some(side), Some(access)),
        Action::TakeFrames(_) | Action::Load(_) | Action::WriteBack(_) => (std::mem::discriminant(&action), None, None),
    };
    for (index, action) in actions.iter().enumerate() {
        let set = set_of(*action);
        assert!(!set.is_empty() && plan.covers.covers(set), "{action:?} in a plan for {:?}", plan.covers);
        assert!(!event.forbids(*action), "{action:?} for {event:?}");
        assert!(actions[..index].iter().all(|earlier| kind(*earlier) != kind(*action)), "{action:?} twice");
        for slot in set.slots() {
            let (host, device, file) = tiers(before[slot as usize].copies);
            let idle = match action {
                Action::Copy(Side::Host, _) => host || !device || (file && matches!(event, Event::Evict(_))),
                Action::Copy(Side::Device, _) => device || !(host || file),
                Action::Load(_) => host || device || !file,
                Action::Zero(..) => host || device || file,
                Action::TakeFrames(_) => device,
                _ => false,
            };
            assert!(!idle, "{action:?} moves {slot} without need: {event:?}, {before:?}");
        }
    }
    if let Some((side, access)) = event.opens() {
        let opens = |slot: u32| {
            let serves = |action: &Action| match *action {
                Action::Open(on, set, allowed) => {
                    on == side && set.contains(slot) && (allowed == Access::Write || access == Access::Read)
                }
                _ => false,
            };
            actions.iter().any(serves)
        };
        // A launch takes what is open as it needs it; whoever faulted on what should be open is given it anew.
        let stays = |slot: u32| {
            matches!(event, Event::Acquire { .. } | Event::Receive(_))
                && open.contains(slot)
                && !plan.closes(side).contains(slot)
        };
        assert!(
            plan.covers.slots().all(|slot| opens(slot) || stays(slot)),
            "{event:?} leaves a block that faults again: {actions:?}"
        );
    }
}

fn states(chunk: &Chunk) -> [BlockState; SLOTS] {
    let mut slots = 0..BLOCKS_PER_CHUNK;
    std::array::from_fn(|_| chunk.state(slots.next().unwrap_or_default()))
}
