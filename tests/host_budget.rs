//! Less RAM than data: host frames of what the device has are given back and made again, by limosa's word and by the
//! kernel's count, and nothing is lost, also where making or giving them back fails.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};

use common::builder;
use common::failure::{BLOCK_WORDS, Kit, MIB, child, is_child, no_core, settle, told, turn};
use limosa::inject::{self, Call};
use limosa::{ContextBuilder, Error, FaultMode, OsError, PagerError, Side, UnifiedVec, ViewKind};
use limosa_shaders::fill;

const MODES: [FaultMode; 2] = [FaultMode::HandlerThread, FaultMode::InThread];
const VIEWS: [ViewKind; 2] = [ViewKind::Import, ViewKind::Sparse];
const BUDGET: u64 = 8 * MIB;
/// Words of 48 MiB.
const WORDS: usize = 12 << 20;

fn each(test: &str, builder: &ContextBuilder, check: impl Fn(&Kit, &str)) {
    for view in VIEWS {
        for mode in MODES {
            let what = format!("{test}, {view}, {mode:?}");
            let Some(kit) = Kit::new(&what, builder.clone().view(view).fault_mode(mode)) else { return };
            check(&kit, &what);
        }
    }
}

fn spare() -> ContextBuilder {
    builder().host_budget(BUDGET)
}

/// Waits until limosa says that no more than `bytes` of host frames exist, and the kernel agrees. The watchdog ends
/// it if that never comes.
fn await_host_bytes(kit: &Kit, bytes: u64) {
    let heap = kit.heap();
    while heap.host_bytes() > bytes || heap.host_frames_resident().unwrap() != heap.host_bytes() {
        std::thread::yield_now();
    }
}

fn counted(kit: &Kit, words: usize) -> UnifiedVec<u32> {
    kit.heap().vec_with(words, |i| u32::try_from(i).unwrap()).unwrap()
}

fn is_counted(vec: &UnifiedVec<u32>) -> bool {
    vec.read().unwrap().iter().zip(0u32..).all(|(word, i)| *word == i)
}

fn to_device(kit: &Kit, vec: &UnifiedVec<u32>) {
    vec.prefetch_to_device().unwrap();
    await_host_bytes(kit, BUDGET);
}

#[test]
fn frames_of_what_the_device_has_go_and_come_back() {
    let _turn = turn("go and come back");
    each("go and come back", &spare(), |kit, what| {
        let heap = kit.heap();
        let mut vec = counted(kit, WORDS);
        assert!(heap.host_bytes() >= 48 * MIB, "{what}: what the CPU has is never given back");
        to_device(kit, &vec);
        let committed = heap.host_committed();
        assert!(committed >= 48 * MIB, "{what}: {committed}");
        assert!(heap.counters().chunks_host_given_back >= 20, "{what}: {:?}", heap.counters());

        // Kernels need no frame of the host's.
        let words = WORDS as u64;
        assert_eq!(kit.sum(&vec).unwrap(), words * (words - 1) / 2, "{what}");
        assert!(is_counted(&vec), "{what}: read by the CPU");
        assert!(heap.counters().chunks_host_brought_back >= 20, "{what}: {:?}", heap.counters());
        to_device(kit, &vec);
        vec.prefetch_to_host().unwrap();
        assert!(is_counted(&vec), "{what}: prefetched");
        to_device(kit, &vec);
        assert!(vec.host_pin().unwrap().iter().zip(0u32..).all(|(word, i)| *word == i), "{what}: pinned");
        to_device(kit, &vec);
        for at in (0..WORDS).step_by(5 * BLOCK_WORDS) {
            vec.write().unwrap()[at] += 1;
        }
        let right = |(i, word): (usize, &u32)| *word as usize == i + usize::from(i % (5 * BLOCK_WORDS) == 0);
        assert!(vec.read().unwrap().iter().enumerate().all(right), "{what}: written in places");
        to_device(kit, &vec);
        assert!(heap.host_committed() >= 48 * MIB, "{what}");

        // Frames that come back hold nothing of what was.
        drop(vec);
        assert!(heap.host_committed() < committed, "{what}");
        let zeros = heap.vec_zeroed::<u32>(WORDS).unwrap();
        assert!(zeros.read().unwrap().iter().all(|word| *word == 0), "{what}: allocated again");
        drop(zeros);
        await_host_bytes(kit, BUDGET);
        kit.works();
    });
}

#[test]
fn zeros_take_no_frames_beyond_the_budget() {
    let _turn = turn("zeros");
    each("zeros", &spare(), |kit, what| {
        let heap = kit.heap();
        let mut vec = heap.vec_zeroed::<u32>(WORDS).unwrap();
        assert!(heap.host_bytes() <= BUDGET, "{what}: {}", heap.host_bytes());
        assert_eq!(kit.sum(&vec).unwrap(), 0, "{what}");
        kit.fill(&mut vec, 7).unwrap().wait().unwrap();
        assert!(heap.host_bytes() <= BUDGET, "{what}: {}", heap.host_bytes());
        assert!(vec.read().unwrap().iter().all(|word| *word == 7), "{what}");
        vec.discard().unwrap();
        await_host_bytes(kit, BUDGET);
        assert!(vec.read().unwrap().iter().all(|word| *word == 0), "{what}: forgotten");
    });
}

/// A vector and what each of its words must be.
struct Known {
    vec: UnifiedVec<u32>,
    words: Vec<u32>,
}

impl Known {
    fn new(kit: &Kit, random: &mut Random) -> Self {
        let len = 1 + random.below(5 << 18);
        // Small ones share their block with others' leavings.
        Self { vec: kit.heap().vec_zeroed(len).unwrap(), words: vec![0; len] }
    }

    fn range(&self, random: &mut Random) -> std::ops::Range<usize> {
        let (a, b) = (random.below(self.words.len()), random.below(self.words.len()));
        a.min(b)..a.max(b) + 1
    }

    fn step(&mut self, kit: &Kit, random: &mut Random, what: &str) {
        let range = self.range(random);
        let value = u32::try_from(random.below(1 << 30)).unwrap();
        match random.below(9) {
            0 => self.vec.prefetch_to_device().unwrap(),
            1 => self.vec.prefetch_range(Side::Device, range).unwrap(),
            2 => self.vec.prefetch_range(Side::Host, range).unwrap(),
            3 => {
                self.vec.write().unwrap()[range.clone()].fill(value);
                self.words[range].fill(value);
            }
            4 => {
                self.vec.host_pin().unwrap()[range.start] = value;
                self.words[range.start] = value;
            }
            5 => {
                let count = range.len() as u64;
                let launch = kit.queue.launch(&kit.fill, count.div_ceil(fill::ITEMS));
                let launch = launch.args((self.vec.ptr(range.start), count, value, 0u32));
                self.words[range.clone()].fill(value);
                // SAFETY: fill writes the declared range.
                unsafe { launch.with(self.vec.slice_mut(range).unwrap().writes()).submit() }.unwrap();
            }
            6 => {
                let due: u64 = self.words.iter().map(|word| u64::from(*word)).sum();
                assert_eq!(kit.sum(&self.vec).unwrap(), due, "{what}");
            }
            7 if self.words.len().is_multiple_of(BLOCK_WORDS) => {
                self.vec.discard().unwrap();
                self.words.fill(0);
            }
            _ => assert_eq!(self.vec.read().unwrap()[range.clone()], self.words[range], "{what}"),
        }
    }
}

/// A xorshift generator: the same sequence in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

#[test]
fn random_histories_with_little_of_either_memory() {
    let _turn = turn("histories");
    let little = builder().host_budget(4 * MIB).device_budget(16 * MIB);
    each("histories", &little, |kit, what| {
        let heap = kit.heap();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut all: Vec<Known> = (0..8).map(|_| Known::new(kit, &mut random)).collect();
        for turn in 0..1000 {
            let index = random.below(all.len());
            if random.below(20) == 0 {
                all.swap_remove(index);
                all.push(Known::new(kit, &mut random));
            } else {
                all[index].step(kit, &mut random, &format!("{what}, turn {turn}"));
            }
            assert!(heap.host_bytes() <= heap.host_committed(), "{what}, turn {turn}");
            assert!(heap.device_bytes() <= 16 * MIB, "{what}, turn {turn}");
        }
        for known in &all {
            assert!(known.vec.read().unwrap()[..] == known.words[..], "{what}, in the end");
        }
        let counters = heap.counters();
        assert!(counters.chunks_host_given_back > 50 && counters.chunks_host_brought_back > 50, "{what}: {counters:?}");
        assert!(counters.blocks_evicted > 0 && counters.faults_refused == 0, "{what}: {counters:?}");
        drop(all);
        // Launches keep what they were given until somebody asks for them.
        kit.queue.wait_idle().unwrap();
        await_host_bytes(kit, 4 * MIB);
        kit.works();
    });
}

/// CPU threads touch chunks that are taken to the device all the time, while their frames come and go.
#[test]
fn threads_that_touch_while_frames_go_lose_nothing() {
    let _turn = turn("threads");
    each("threads", &builder().host_budget(0), |kit, what| {
        let vec = counted(kit, 4 << 20);
        let chunk_words = 32 * BLOCK_WORDS;
        let going = AtomicBool::new(true);
        std::thread::scope(|scope| {
            for seed in [1, 2, 3] {
                let (vec, going) = (&vec, &going);
                scope.spawn(move || {
                    let mut random = Random(seed);
                    while going.load(Ordering::Relaxed) {
                        let at = random.below(vec.len());
                        // SAFETY: inside of the vector, which nobody writes.
                        let word = unsafe { vec.ptr(at).as_ptr().read_volatile() };
                        if word as usize != at {
                            eprintln!("{what}: word {at} is {word:#x}");
                            std::process::abort();
                        }
                    }
                });
            }
            let mut random = Random(4);
            while kit.heap().counters().chunks_host_brought_back < 500 {
                let first = random.below(vec.len() / chunk_words) * chunk_words;
                vec.prefetch_range(Side::Device, first..first + chunk_words).unwrap();
            }
            going.store(false, Ordering::Relaxed);
        });
        assert!(is_counted(&vec), "{what}");
        vec.prefetch_to_device().unwrap();
        // Whatever is left is of small allocations that the CPU has.
        await_host_bytes(kit, 4 * MIB);
        assert_eq!(kit.heap().counters().faults_refused, 0, "{what}");
    });
}

struct Injected;

impl Injected {
    fn new(call: Call) -> Self {
        inject::fail(call);
        Self
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        inject::clear();
    }
}

fn out_of_ram<T>(result: limosa::Result<T>, what: &str) {
    match result.map(|_| ()) {
        Err(Error::Pager(PagerError::Os(OsError::OutOfMemory { what: "host memory", .. }))) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn frames_that_cannot_be_made_are_told_and_nothing_is_lost() {
    let _turn = turn("cannot be made");
    each("cannot be made", &spare().device_budget(64 * MIB), |kit, what| {
        let heap = kit.heap();
        let (mut vec, mut other) = (counted(kit, WORDS), heap.vec_zeroed::<u32>(WORDS).unwrap());
        to_device(kit, &vec);
        let mut bytes = [0; 8];
        let at = vec.ptr(20 << 18).address();
        for _ in 0..2 {
            let injected = Injected::new(Call::Reserve);
            // Chunks that have frames still come to the host; others cannot.
            out_of_ram(vec.prefetch_to_host(), what);
            out_of_ram(vec.host_pin(), what);
            // SAFETY: nobody writes it.
            out_of_ram(unsafe { heap.try_read(at, &mut bytes) }, what);
            // What cannot be evicted stays.
            assert!(other.prefetch_to_device().is_err(), "{what}");
            assert!(kit.fill(&mut other, 3).and_then(|event| event.wait()).is_err(), "{what}");
            drop(injected);
            // SAFETY: as above.
            unsafe { heap.try_read(at, &mut bytes) }.unwrap();
            assert_eq!(u64::from_ne_bytes(bytes), (20 << 18) + (((20 << 18) + 1) << 32), "{what}");
            to_device(kit, &vec);
        }
        kit.fill(&mut other, 3).unwrap().wait().unwrap();
        assert!(is_counted(&vec) && other.read().unwrap().iter().all(|word| *word == 3), "{what}");
        kit.works();
    });
}

#[test]
fn frames_that_cannot_be_given_back_stay_and_go_later() {
    let _turn = turn("cannot be given back");
    each("cannot be given back", &spare(), |kit, what| {
        let heap = kit.heap();
        let mut vec = counted(kit, WORDS);
        let before = heap.counters().chunks_host_given_back;
        let injected = Injected::new(Call::Discard);
        vec.prefetch_to_device().unwrap();
        settle(&vec);
        assert!(heap.host_bytes() >= 48 * MIB, "{what}: {}", heap.host_bytes());
        assert_eq!(heap.counters().chunks_host_given_back, before, "{what}");
        // Half of it comes back to the frames that are still there.
        vec.prefetch_range(Side::Host, 0..WORDS / 2).unwrap();
        drop(injected);
        to_device(kit, &vec);
        assert!(is_counted(&vec), "{what}");

        // Frames that stayed are not taken for zeros.
        let injected = Injected::new(Call::Discard);
        vec.prefetch_to_device().unwrap();
        let failed = || heap.counters().host_give_backs_failed;
        let before = failed();
        // More often than there are chunks: each has had its turn.
        while failed() < before + 60 {
            vec.prefetch_range(Side::Host, 0..1).unwrap();
            vec.prefetch_range(Side::Device, 0..1).unwrap();
        }
        vec.discard().unwrap();
        drop(injected);
        assert!(vec.read().unwrap().iter().all(|word| *word == 0), "{what}");
        kit.works();
    });
}

#[test]
fn the_limit_counts_frames_that_are_away() {
    let _turn = turn("limit");
    let limit = 64 * MIB;
    each("limit", &spare().host_limit(limit), |kit, what| {
        let heap = kit.heap();
        let vec = counted(kit, WORDS);
        to_device(kit, &vec);
        out_of_ram(heap.vec_zeroed::<u32>(8 << 20), what);
        assert!(heap.host_committed() <= limit && heap.host_bytes() <= BUDGET, "{what}");
        let more = counted(kit, 2 << 20);
        assert!(heap.host_committed() <= limit, "{what}");
        // All that is allocated can come to the host at once.
        assert!(is_counted(&vec) && is_counted(&more), "{what}");
        assert!(heap.host_bytes() <= limit, "{what}");
        drop(vec);
        let again = counted(kit, WORDS);
        assert!(is_counted(&again) && is_counted(&more), "{what}");
    });
}

#[test]
fn what_a_lost_device_had_is_repaired_to_frames_made_anew() {
    let _turn = turn("lost");
    each("lost", &spare(), |kit, what| {
        let heap = kit.heap();
        let (lost, kept) = (counted(kit, WORDS), counted(kit, BLOCK_WORDS));
        to_device(kit, &lost);
        inject::lose_device();
        assert!(matches!(kit.sum(&kept), Err(Error::Pager(PagerError::Gpu(limosa::GpuError::DeviceLost)))), "{what}");
        assert!(matches!(lost.read().map(|_| ()), Err(Error::Pager(PagerError::Poisoned { .. }))), "{what}");
        assert!(is_counted(&kept), "{what}");
        heap.repair(lost.ptr(0).address(), 4 * WORDS as u64).unwrap();
        await_host_bytes(kit, BUDGET);
        assert!(lost.read().unwrap().iter().all(|word| *word == 0), "{what}");
        inject::find_device();
    });
}

#[test]
fn a_touch_without_a_frame_says_why() {
    const TEST: &str = "a_touch_without_a_frame_says_why";
    let _turn = turn(TEST);
    for mode in MODES {
        let case = format!("{mode:?}");
        if is_child(&case) {
            no_core();
            let Some(kit) = Kit::new(TEST, spare().fault_mode(mode)) else { return };
            let vec = counted(&kit, WORDS);
            to_device(&kit, &vec);
            inject::fail(Call::Reserve);
            println!("there is no frame");
            println!("{}", vec.read().unwrap().iter().map(|word| u64::from(*word)).sum::<u64>());
            return println!("survived");
        }
    }
    if std::env::var_os("LIMOSA_TEST_CHILD").is_some() {
        return;
    }
    let skipped = Kit::new(TEST, spare()).is_none();
    for mode in MODES.into_iter().filter(|_| !skipped) {
        let output = child(TEST, &format!("{mode:?}"), |_| ());
        let text = told(&output);
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{mode:?}: {text}");
        assert!(text.contains("there is no frame") && text.contains("no memory left"), "{mode:?}: {text}");
    }
}
