//! The shared memory, and what every word of it must be.
//!
//! It is divided into slots of 1 KiB: four to a page, so that CPU and GPU meet on pages. Outside the arena each slot has
//! a state: a version, and whether somebody holds it. Each word of a slot that nobody holds follows from the slot, its
//! version and the word's place; or all are zero. Who holds a slot may change it, and leaves it with a new version.
//! Everybody else may read it and compare, if its state was the same before and after.
//!
//! The first 2 MiB have no slots: counters, and the words of lavapipe's kernels. They are never taken away or protected.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crate::raw::shim::{Device, Mapped};
use crate::raw::uapi::{POLICY_MAP, POLICY_MIGRATE};
use crate::raw::{HUGE, PAGE, memory, shim};
use crate::trap;

/// Far below where the kernel puts what has no address of its own, so that nothing else falls into the arena's holes.
const BASE: usize = 0x2000_0000_0000;
/// Bytes in a slot.
pub const SLOT: usize = 1024;
/// Slots in a page.
pub const SLOTS: usize = PAGE / SLOT;
/// Words in a slot.
pub const WORDS: usize = SLOT / 8;
/// How many counters there are.
pub const COUNTERS: usize = 4096;
/// Where lavapipe's words begin.
pub const LANES: usize = COUNTERS * 8;

const BUSY: u64 = 1;
const ZERO: u64 = 2;
const VERSION: u64 = 4;

/// Who wrote a word, in its highest byte.
pub const TAG_SLOT: u64 = 0x5A;
/// A child wrote it, to its own copy.
pub const TAG_CHILD: u64 = 0xC0;
/// Another process wrote it, which has ended.
pub const TAG_SECRET: u64 = 0xEE;

/// A way to the memory: the CPU's, or a device's through a view.
pub struct Path {
    /// What it is.
    pub name: String,
    /// Where it has the arena's first byte.
    pub base: usize,
    /// The view; none for the CPU.
    pub view: Option<Mapped>,
}

/// What was last done to a slot.
struct Slot {
    state: AtomicU64,
    last: AtomicU64,
}

/// The memory.
pub struct Arena {
    /// Bytes.
    pub len: usize,
    /// Open devices.
    pub devices: Vec<Device>,
    /// The ways to it; the CPU's is the first.
    pub paths: Vec<Path>,
    /// What each counter must be.
    pub counted: Vec<AtomicU64>,
    slots: Vec<Slot>,
    failed: AtomicBool,
}

/// Whole slots that one agent holds.
pub struct Held {
    /// The first.
    pub first: usize,
    /// What they are: state without [`BUSY`], each.
    states: Vec<u64>,
}

impl Arena {
    /// Maps the memory, and the views.
    pub fn new(len: usize, devices: Vec<Device>) -> Self {
        let at = memory::anonymous(BASE, len).unwrap_or_else(|error| panic!("the arena: {error}"));
        assert_eq!(at, BASE);
        let mut paths = vec![Path { name: "CPU".into(), base: BASE, view: None }];
        for device in &devices {
            for (policy, name) in [(POLICY_MAP, "map"), (POLICY_MIGRATE, "migrate")] {
                let view = Mapped::new(device, BASE, len, policy).unwrap_or_else(|error| panic!("a view: {error}"));
                paths.push(Path { name: format!("GPU{} {name}", device.index), base: view.at, view: Some(view) });
            }
        }
        trap::install();
        for path in &paths {
            trap::watch(path.base, len);
        }
        let slot = || Slot { state: AtomicU64::new(ZERO), last: AtomicU64::new(0) };
        let slots = std::iter::repeat_with(slot).take(len / SLOT).collect();
        let counted = std::iter::repeat_with(AtomicU64::default).take(COUNTERS).collect();
        Self { len, devices, paths, counted, slots, failed: AtomicBool::new(false) }
    }

    /// Where a slot's first byte is for the CPU.
    pub fn address(slot: usize) -> usize {
        BASE + slot * SLOT
    }

    /// The first slot there is, and the one behind the last.
    pub fn slots(&self) -> (usize, usize) {
        (HUGE / SLOT, self.slots.len())
    }

    /// Reports what is wrong, and ends the program.
    pub fn fail(&self, what: &str) -> ! {
        if self.failed.swap(true, Ordering::SeqCst) {
            loop {
                std::thread::park(); // the other ends us
            }
        }
        println!("stress: FAILED: {what}");
        std::process::exit(1);
    }

    /// Takes `count` slots from `first` on, if nobody has any of them. `what` is noted as the last that was done.
    pub fn hold(&self, first: usize, count: usize, what: u64) -> Option<Held> {
        let mut held = Held { first, states: Vec::with_capacity(count) };
        for slot in &self.slots[first..first + count] {
            let state = slot.state.load(Ordering::Relaxed);
            let taken = state & BUSY == 0
                && slot.state.compare_exchange(state, state | BUSY, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if !taken {
                self.release(held);
                return None;
            }
            slot.last.store(what, Ordering::Relaxed);
            held.states.push(state);
        }
        fence(Ordering::Release); // the writes below come after, for who sees them
        Some(held)
    }

    /// Gives slots back.
    pub fn release(&self, held: Held) {
        for (slot, state) in self.slots[held.first..].iter().zip(held.states) {
            slot.state.store(state, Ordering::Release);
        }
    }

    /// Reads a slot and compares, if nobody holds it. Whether it did.
    pub fn look(&self, slot: usize, path: &Path) -> bool {
        let state = &self.slots[slot].state;
        let before = state.load(Ordering::Acquire);
        if before & BUSY != 0 {
            return false;
        }
        let words = read(path, slot);
        fence(Ordering::Acquire);
        if state.load(Ordering::Relaxed) != before {
            return false;
        }
        self.compare(slot, before, &words, &path.name);
        true
    }

    /// Compares slots that one holds with what they must be, by `path`, or where they are for now.
    pub fn check(&self, held: &Held, path: &Path) {
        for (slot, state) in (held.first..).zip(&held.states) {
            self.compare(slot, *state, &read(path, slot), &path.name);
        }
    }

    /// Writes the next version of slots that one holds, by `path`.
    pub fn write(&self, held: &mut Held, path: &Path) {
        for (slot, state) in (held.first..).zip(&mut held.states) {
            *state = (*state & !ZERO).wrapping_add(VERSION);
            for (place, word) in words(path, slot).enumerate() {
                word.store(expected(slot, *state, place), Ordering::Relaxed);
            }
        }
    }

    /// Notes that slots that one holds are zero now.
    pub fn zeroed(held: &mut Held) {
        for state in &mut held.states {
            *state = (*state | ZERO).wrapping_add(VERSION);
        }
    }

    /// Adds 1 to a counter, and gives what it was.
    pub fn count(&self, counter: usize, path: &Path) -> u64 {
        // SAFETY: the counters are always mapped.
        let before = unsafe { memory::word(path.base + 8 * counter) }.fetch_add(1, Ordering::Relaxed);
        self.counted[counter].fetch_add(1, Ordering::Relaxed);
        before
    }

    /// Compares everything, by every path. Nobody else is at work.
    pub fn check_all(&self) {
        for path in &self.paths {
            let (first, end) = self.slots();
            for slot in first..end {
                if !self.look(slot, path) {
                    self.fail(&format!("slot {slot} is held at the end: {}", self.last(slot)));
                }
            }
            for (counter, counted) in self.counted.iter().enumerate() {
                // SAFETY: the counters are always mapped.
                let found = unsafe { memory::word(path.base + 8 * counter) }.load(Ordering::Relaxed);
                let counted = counted.load(Ordering::Relaxed);
                if found != counted {
                    self.fail(&format!("counter {counter} by {}: expected {counted}, found {found}", path.name));
                }
            }
        }
    }

    /// Takes everything down, and gives the devices back.
    pub fn end(self) -> Vec<Device> {
        drop(self.paths);
        memory::unmap(BASE, self.len).unwrap_or_else(|error| panic!("munmap of the arena: {error}"));
        self.devices
    }

    /// The views' files.
    pub fn views(&self) -> Vec<i32> {
        self.paths.iter().filter_map(|path| Some(path.view.as_ref()?.fd.as_raw_fd())).collect()
    }

    fn last(&self, slot: usize) -> String {
        crate::agent::describe(self.slots[slot].last.load(Ordering::Relaxed))
    }

    fn compare(&self, slot: usize, state: u64, found: &[u64; WORDS], path: &str) {
        let wrong = (0..WORDS).filter(|place| found[*place] != expected(slot, state, *place)).collect::<Vec<_>>();
        let Some(place) = wrong.first() else { return };
        let (found, expected) = (found[*place], expected(slot, state, *place));
        let again = self.paths.iter().map(|path| format!("{}: {:#018x}", path.name, read(path, slot)[*place]));
        self.fail(&format!(
            "slot {slot} at {:#x}, word {place} by {path} ({} words wrong)\n  expected {expected:#018x}: {}\n  \
             found    {found:#018x}: {}\n  last: {}\n  state {state:#x}, now {:#x}; read again: {}\n  {}",
            Self::address(slot),
            wrong.len(),
            decode(expected),
            decode(found),
            self.last(slot),
            self.slots[slot].state.load(Ordering::Relaxed),
            again.collect::<Vec<_>>().join(", "),
            self.where_is(slot),
        ));
    }

    /// Where the devices say that a slot's page is.
    fn where_is(&self, slot: usize) -> String {
        let page = Self::address(slot) / PAGE * PAGE;
        let told = self.devices.iter().map(|device| {
            let (told, result) = device.residency(page, PAGE);
            format!(
                "limosa{}: absent {} system {} private {} coherent {} ({result:?})",
                device.index, told.absent, told.in_system, told.in_private, told.in_coherent
            )
        });
        told.collect::<Vec<_>>().join("; ")
    }
}

/// What a word of a slot must be.
fn expected(slot: usize, state: u64, place: usize) -> u64 {
    if state & ZERO != 0 {
        0
    } else {
        TAG_SLOT << 56 | (slot as u64) << 32 | (state >> 2 & 0xFF_FFFF) << 8 | place as u64
    }
}

/// Who wrote a word.
fn decode(word: u64) -> String {
    match word >> 56 {
        _ if word == 0 => "zero".into(),
        TAG_SLOT => {
            format!("slot {} version {:#x} word {}", word >> 32 & 0xFF_FFFF, word >> 8 & 0xFF_FFFF, word & 0xFF)
        }
        TAG_CHILD => "a child's own copy".into(),
        TAG_SECRET => format!("the secret of process {}, which has ended", word & 0xFFFF_FFFF),
        _ => "nobody's".into(),
    }
}

/// The words of a slot.
pub fn words(path: &Path, slot: usize) -> impl Iterator<Item = &'static AtomicU64> {
    let at = path.base + slot * SLOT;
    // SAFETY: within the arena or a mapping of it; what is not there is tried again.
    (0..WORDS).map(move |place| unsafe { memory::word(at + 8 * place) })
}

fn read(path: &Path, slot: usize) -> [u64; WORDS] {
    let mut found = [0; WORDS];
    for (to, word) in found.iter_mut().zip(words(path, slot)) {
        *to = word.load(Ordering::Relaxed);
    }
    found
}

/// LIMOSA_POLICY of a part of the arena.
pub fn set_policy(view: i32, at: usize, len: usize, policy: u32) -> std::io::Result<()> {
    shim::policy(view, at, len, policy)
}
