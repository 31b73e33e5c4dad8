//! The pump: the thread that keeps requests of all transfers in flight. It owns the ring and the staging slots, asks for
//! more before it copies what came, and ends transfers. It does *not* decide which way bytes go (`tier`), or when a
//! transfer begins (`admission`).

use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;

use limosa_model::Side;
use limosa_os::shim::Direction;
use limosa_os::signal;
use limosa_os::{BufferId, DataFile, FileSlot, Ring, RingError, RingWaker, Staging};

use super::flight::{Boarded, Failure, Job, Leg, Proving};
use super::pace::Pace;
use super::proof::{self, Proof, Unit};
use super::seats::Seat;
use super::tier::{SLOT, Tier};
use super::trials::Trials;
use crate::core::Core;
use crate::error::PagerError;
use crate::handler;
use crate::heap::Heap;
use crate::view::to_usize;

/// Requests of one transfer in flight, at most: what a fast drive needs of small ones.
const DEPTH: u32 = 128;
/// Bytes of one in flight, at most: what a fast drive needs of large ones.
const BYTES_IN_FLIGHT: u64 = 32 << 20;
/// Bytes of a request that takes a drive less time than it takes to wake a thread.
const SMALL: u64 = 64 << 10;
/// Of small requests in flight, one of so many parts is waited for at a time: the drive is busy with the others meanwhile.
const PARTS_IN_FLIGHT: u32 = 8;
/// Slots of the staging ring, and how many of them one transfer may have. A file that does not answer keeps what it has.
const SLOTS: usize = 16;
const SLOTS_OF_ONE: usize = 12;
/// Requests of all.
const DEPTH_OF_ALL: u32 = 4 * DEPTH;
/// Of a hundred bytes, so many must be in the page cache for a file to be hot.
const HOT_PERCENT: u64 = 95;

/// The heap's end of the pump: started when it is first needed.
#[derive(Default)]
pub(crate) struct Pumps {
    inbox: Mutex<Vec<Boarded>>,
    waker: OnceLock<RingWaker>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// A transfer was cancelled that may still be in a queue.
    cancelled: AtomicBool,
    pub(super) tried: Mutex<Trials>,
    /// Made when it is first needed. Behind the view in `Core`, which may have the driver use it.
    staging: OnceLock<Staging>,
    /// Of which transfer, by its place with the pump.
    pub(super) proofs: Mutex<Vec<(usize, Result<Proof, PagerError>)>>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pumps {
    /// Has the pump look for cancelled transfers, and for the end.
    pub(crate) fn look_around(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Has whoever admits next look for transfers that were cancelled in their queue.
    pub(super) fn note_cancelled(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    /// Whether there may be any; asked once.
    pub(crate) fn take_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) && self.cancelled.swap(false, Ordering::SeqCst)
    }

    /// Hands a transfer over that has its seats.
    pub(crate) fn board(&self, boarded: Boarded) {
        locked(&self.inbox).push(boarded);
        self.look_around();
    }

    /// Whether direct I/O between the file and host memory has been proven.
    pub(super) fn is_proven(&self, file: &DataFile, direction: Direction, bytes: u64) -> bool {
        locked(&self.tried).believes((file.id(), Tier::Direct, direction, Side::Host), file, bytes)
    }

    /// Waits for the thread, which has been told to stop.
    pub(crate) fn join(&self) {
        if let Some(thread) = locked(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Heap {
    /// Starts the pump if it does not run yet.
    ///
    /// # Errors
    /// [`PagerError::NoStreaming`], [`PagerError::Os`].
    pub(crate) fn start_pump(&self) -> Result<(), PagerError> {
        let pumps = &self.core().pumps;
        let mut thread = locked(&pumps.thread);
        if thread.is_some() {
            return Ok(());
        }
        let core = self.shared_core();
        let (tell, told) = mpsc::channel();
        let run = move || match Pump::new(core) {
            Ok(pump) => {
                let _ = tell.send(Ok(pump.ring.waker()));
                pump.run();
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        let started = handler::spawn("limosa-stream", run)?;
        match told.recv() {
            Ok(Ok(waker)) => {
                let _ = pumps.waker.set(waker);
                *thread = Some(started);
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                Err(PagerError::NotDone { what: "the thread that streams".into(), reason: "it did not start".into() })
            }
        }
    }
}

/// A file that the pump knows.
pub(super) struct Registered {
    /// In the ring while it is in use: the descriptors for the page cache and for direct I/O, as far as they were needed.
    pub(super) slots: [Option<FileSlot>; 2],
    pub(super) file: Weak<DataFile>,
}

/// A leg that the kernel has.
pub(super) struct Flying {
    pub(super) job: usize,
    pub(super) leg: Leg,
    pub(super) slot: Option<usize>,
    /// Bytes in the slot before those that are meant.
    pub(super) lead: u64,
}

pub(super) struct Pump {
    /// Before the core, which has the staging that the ring uses.
    pub(super) ring: Ring,
    pub(super) core: Arc<Core>,
    pub(super) jobs: Vec<Option<Box<Job>>>,
    /// Whose turn it is to ask.
    turn: usize,
    /// By token.
    pub(super) flying: Vec<Option<Flying>>,
    pub(super) idle_tokens: Vec<usize>,
    /// What the ring calls the staging, if it knows it.
    pub(super) buffer: Option<BufferId>,
    pub(super) idle_slots: Vec<usize>,
    /// What has come into slots, and is to be copied from there.
    pub(super) landed: VecDeque<Flying>,
    pub(super) files: HashMap<u64, Registered>,
    pub(super) pace: Pace,
}

impl Pump {
    fn new(core: Arc<Core>) -> Result<Self, RingError> {
        Ok(Self {
            ring: Ring::new(DEPTH_OF_ALL)?,
            core,
            jobs: Vec::new(),
            turn: 0,
            flying: (0..DEPTH_OF_ALL as usize).map(|_| None).collect(),
            idle_tokens: (0..DEPTH_OF_ALL as usize).rev().collect(),
            buffer: None,
            idle_slots: Vec::new(),
            landed: VecDeque::new(),
            files: HashMap::new(),
            pace: Pace::default(),
        })
    }

    fn run(mut self) {
        signal::block_in_this_thread();
        while !self.core.stopping() {
            self.take_aboard();
            self.take_proofs();
            self.stop_cancelled();
            self.ask();
            while let Some(done) = self.ring.next() {
                self.take(done);
            }
            // What came makes room for the next requests, and those go before the copying.
            self.ask();
            // All of these fail where the queue itself is broken: what is in flight is then nobody's to wait for.
            if let Some(landed) = self.landed.pop_front() {
                let _ = self.ring.submit();
                self.land(landed);
            } else if self.jobs.iter().flatten().any(|job| job.is_over()) {
                let _ = self.ring.submit();
                self.end_finished();
            } else {
                let _ = if self.cancel_again() {
                    self.ring.wait_a_while()
                } else {
                    self.ring.wait_for(self.worth_waking())
                };
            }
        }
    }

    /// For how many completions to wake up: of many small requests several come within what waking costs. As many as suit
    /// each transfer, since it may be that only one of them gets any.
    fn worth_waking(&self) -> usize {
        let small = |job: &Job| job.bytes_in_flight <= u64::from(job.in_flight) * SMALL;
        let worth = |job: &Job| if small(job) { job.in_flight / PARTS_IN_FLIGHT } else { 1 };
        let flying = self.jobs.iter().flatten().filter(|job| job.in_flight > 0);
        flying.map(|job| worth(job)).min().unwrap_or(1) as usize
    }

    fn take_aboard(&mut self) {
        for boarded in std::mem::take(&mut *locked(&self.core.pumps.inbox)) {
            let job = Box::new(Job::new(boarded));
            match self.jobs.iter_mut().find(|place| place.is_none()) {
                Some(place) => *place = Some(job),
                None => self.jobs.push(Some(job)),
            }
        }
    }

    /// Has the kernel end what is in flight of transfers that were cancelled.
    fn stop_cancelled(&mut self) {
        for (index, job) in self.jobs.iter_mut().enumerate() {
            let Some(job) = job.as_mut().filter(|job| job.shared.is_cancelled() && !job.cancelled) else { continue };
            job.cancel();
            for (token, flying) in (0u64..).zip(&self.flying) {
                if flying.as_ref().is_some_and(|flying| flying.job == index) {
                    self.ring.cancel(token);
                }
            }
        }
    }

    /// A request may be missed that is just then neither waiting nor running, and begins to wait: so it is told again, as
    /// long as there is any. Gives whether there is.
    fn cancel_again(&mut self) -> bool {
        let mut any = false;
        for (token, flying) in (0u64..).zip(&self.flying) {
            let job = flying.as_ref().and_then(|flying| self.jobs[flying.job].as_ref());
            if job.is_some_and(|job| job.cancelled) {
                self.ring.cancel(token);
                any = true;
            }
        }
        any
    }

    /// Asks for as much as may be in flight, transfer by transfer.
    fn ask(&mut self) {
        let jobs = self.jobs.len();
        let mut idle = 0;
        while idle < jobs && !self.idle_tokens.is_empty() {
            self.turn = (self.turn + 1) % jobs;
            let Some(mut job) = self.jobs[self.turn].take() else {
                idle += 1;
                continue;
            };
            let asked = self.ask_for(&mut job, self.turn);
            self.jobs[self.turn] = Some(job);
            idle = if asked { 0 } else { idle + 1 };
        }
    }

    /// Asks for the next leg of a transfer. Gives whether it did.
    fn ask_for(&mut self, job: &mut Job, index: usize) -> bool {
        let deep = job.in_flight >= job.options.depth.unwrap_or(DEPTH).max(1);
        let full = job.bytes_in_flight >= BYTES_IN_FLIGHT;
        if job.is_asked() || deep || full || job.in_flight > 0 && (job.is_sequential() || job.proving.is_some()) {
            return false;
        }
        while let Some(run) = job.undecided().filter(|_| !job.stopped) {
            match self.decide(job, index, run) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    let place = job.seats.runs[run].from;
                    job.fail(place, Failure::Other(error));
                    return false;
                }
            }
        }
        let Some(leg) = job.next() else { return !job.is_asked() };
        let slot = match self.slot_for(&leg, index) {
            Ok(Some(slot)) => slot,
            Ok(None) => {
                job.retry(leg);
                return false;
            }
            Err(error) => {
                job.fail(job.place_of(&leg), Failure::Other(error));
                return false;
            }
        };
        self.push(job, index, leg, slot).unwrap_or_else(|error| {
            self.idle_slots.extend(slot);
            job.fail(job.place_of(&leg), Failure::Other(error));
            false
        })
    }

    /// A slot if the leg needs one; `None` if there is none now.
    fn slot_for(&mut self, leg: &Leg, index: usize) -> Result<Option<Option<usize>>, PagerError> {
        if !leg.by.needs_slot() {
            return Ok(Some(None));
        }
        self.make_staging()?;
        let own =
            self.flying.iter().flatten().chain(&self.landed).filter(|other| other.job == index && other.slot.is_some());
        let own = own.count();
        // The last are for transfers that have none.
        if own >= SLOTS_OF_ONE || own > 0 && self.idle_slots.len() <= SLOTS - SLOTS_OF_ONE {
            return Ok(None);
        }
        Ok(self.idle_slots.pop().map(Some))
    }

    fn make_staging(&mut self) -> Result<(), PagerError> {
        if self.core.pumps.staging.get().is_none() {
            let staging = {
                let made = Staging::new(SLOTS, to_usize(SLOT))?;
                self.core.pumps.staging.get_or_init(|| made)
            };
            // SAFETY: the core has it as long as its view, and the ring of this thread, which the core's handlers wait for.
            // Without it each request has the kernel look the pages up.
            self.buffer = unsafe { self.ring.register_buffer(staging.slot(0), SLOTS * to_usize(SLOT)) }.ok();
            // SAFETY: as above.
            unsafe { self.core.view.adopt(staging.range()) };
            self.idle_slots = (0..SLOTS).rev().collect();
        }
        Ok(())
    }

    pub(super) fn slot_memory(&self, slot: usize) -> *mut u8 {
        self.core.pumps.staging.get().map_or(std::ptr::null_mut(), |staging| staging.slot(slot).as_ptr())
    }

    /// Chooses the way of a run; gives whether it has, and not to wait for a proof or a slot first.
    fn decide(&mut self, job: &mut Job, index: usize, run: usize) -> Result<bool, PagerError> {
        let (part, own) = job.part_of(run);
        let (file, direction, offset, own) = (Arc::clone(&part.file), part.direction, part.offset, *own);
        let hot = job.options.tier.is_none() && direction == Direction::FromFile && self.is_hot(job, &file);
        let tried = locked(&self.core.pumps.tried);
        let known = tried.of(file.id(), direction, own.side, hot);
        let way = self.core.best_way(job.options.tier, &file, direction, offset, &own, &known)?;
        let trial = (file.id(), way.tier, direction, own.side);
        // Of one whose length is not known, as of one that is long.
        let bytes = job.ends.get(&file.id()).copied().unwrap_or(u64::MAX);
        let proven = way.tier == Tier::Buffered || tried.believes(trial, &file, bytes);
        drop(tried);
        let first = super::tier::first_unit(&own, offset, &way).filter(|_| !proven);
        let (memory, slot) = match (own.seat, first) {
            (_, None) => (None, None),
            (Seat::Memory(start) | Seat::Peer(start), Some(at)) if !way.bounces => {
                (NonNull::new(start.wrapping_add(to_usize(at))), None)
            }
            (_, Some(_)) if direction == Direction::FromFile => {
                self.make_staging()?;
                let Some(slot) = self.idle_slots.pop() else { return Ok(false) };
                (NonNull::new(self.slot_memory(slot)), Some(slot))
            }
            _ => (None, None),
        };
        let (Some(memory), Some(at)) = (memory, first) else {
            job.choose(run, way);
            return Ok(true);
        };
        let len = to_usize(way.alignment.offset.max(way.alignment.memory));
        let unit = Unit { file, direction, offset: offset + own.at + at, memory, len };
        job.proving = Some(Proving { run, way, trial, slot });
        job.in_flight += 1;
        // SAFETY: a unit of the run, which the transfer holds as long as anything of it is in flight, or the start of a
        // slot that nobody else has.
        unsafe { proof::begin(Arc::clone(&self.core), index, unit) }.unwrap_or_else(|error| {
            // Without a thread it goes unproven.
            locked(&self.core.pumps.proofs).push((index, Err(error)));
            self.core.pumps.look_around();
        });
        Ok(false)
    }

    /// Goes on with transfers whose way has been tried.
    fn take_proofs(&mut self) {
        for (index, proof) in std::mem::take(&mut *locked(&self.core.pumps.proofs)) {
            let Some(mut job) = self.jobs[index].take() else { continue };
            job.in_flight -= 1;
            if let Some(Proving { run, way, trial, slot }) = job.proving.take() {
                self.idle_slots.extend(slot);
                let mut tried = locked(&self.core.pumps.tried);
                match proof {
                    Ok(Proof::Failed(reason)) => tried.refutes(trial, reason),
                    Ok(Proof::Proven) => tried.proves(trial, &job.part_of(run).0.file),
                    // An error of the file's is the transfer's to meet, where it says how much had arrived.
                    Ok(Proof::Open) | Err(_) => {}
                }
                let failed = tried.is_refuted(&trial);
                drop(tried);
                if !failed {
                    job.choose(run, way);
                }
            }
            self.jobs[index] = Some(job);
        }
    }

    fn is_hot(&self, job: &mut Job, file: &DataFile) -> bool {
        if let Some(hot) = job.hot.get(&file.id()) {
            return *hot;
        }
        let span = job.spans.get(&file.id()).cloned().unwrap_or(0..0);
        let len = span.end - span.start;
        let cached = file.cached_bytes(span.start, len);
        let much = |cached: u64| u128::from(cached) * 100 >= u128::from(len) * u128::from(HOT_PERCENT);
        let hot = cached.is_some_and(much) && self.pace.prefers_cache(file.id());
        job.hot.insert(file.id(), hot);
        hot
    }
}
