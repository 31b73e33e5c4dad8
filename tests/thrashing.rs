//! Blocks that the CPU and a kernel use at once: found, throttled and reported; and orderly programs, however fast,
//! which are not.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, turn};
use limosa::{Access, Event, FaultMode, RawAllocation, Relation, Side, WatchEvent, inject};
use limosa_shaders::stress;

const MODES: [FaultMode; 2] = [FaultMode::HandlerThread, FaultMode::InThread];
const LANES: u64 = 32;
/// Bytes from lane to lane.
const STRIDE: u64 = 64;
const SEED: u64 = 77;
/// The longest lease.
const LEASE: Duration = Duration::from_millis(4);
/// Turns until the lease is that long.
const TURNS_UNTIL_LONGEST: u64 = 8 + 3 * 8;

/// Memory of which a kernel checks and advances words in one block, and reads a word that the CPU counts up.
struct Arena {
    memory: Arc<RawAllocation>,
    lanes_at: u64,
    counted_at: u64,
}

impl Arena {
    fn new(kit: &Kit, blocks: u64, lanes_at: u64, counted_at: u64) -> Self {
        let memory = kit.heap().named("arena").allocate(blocks * BLOCK, BLOCK).unwrap();
        let arena = Self { memory, lanes_at, counted_at };
        (0..LANES).for_each(|lane| {
            arena.word(lanes_at + lane * STRIDE).store(stress::lane_value(SEED, lane, 0), Ordering::Relaxed);
        });
        arena
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: inside the allocation, aligned, and only ever used as an atomic on this side; the GPU's accesses to
        // the same words are whole 64-bit ones.
        unsafe { AtomicU64::from_ptr(self.memory.ptr().add(offset).as_ptr().cast()) }
    }

    /// A launch that declares nothing of it: number `launch` of this arena's.
    fn launch(&self, kit: &Kit, report: &Arc<RawAllocation>, launch: u64, rounds: u32) -> Event {
        let kernel = kit.context.kernel("stress", stress::KERNEL.spirv).unwrap();
        let (base, watched) = (self.memory.ptr().address(), u64::from(self.counted_at < self.lanes_at + BLOCK));
        let arguments: [u64; 11] = [
            base + self.lanes_at,
            LANES,
            STRIDE,
            base,
            0,
            base + self.counted_at,
            8,
            watched,
            report.ptr().address(),
            SEED,
            launch,
        ];
        let launch = kit.queue.launch(&kernel, LANES).args((arguments, rounds, 0u32));
        // SAFETY: what the kernel touches is kept, and used by whole words on both sides.
        unsafe { launch.with_raw(report, Access::Write).keeps(&self.memory).submit() }.unwrap()
    }

    /// That kernels have found each value, and left what they were to after so many rounds in all.
    fn check(&self, report: &Arc<RawAllocation>, rounds: u64) {
        for lane in 0..LANES {
            let word = self.word(self.lanes_at + lane * STRIDE).load(Ordering::Relaxed);
            assert_eq!(word, stress::lane_value(SEED, lane, rounds), "lane {lane}");
        }
        // SAFETY: the launch that writes it is done.
        let mismatches = unsafe { report.ptr().as_ptr().cast::<u64>().read_volatile() };
        assert_eq!(mismatches, 0);
    }
}

/// Counts up until `over`. Gives how far it came.
fn count(word: &AtomicU64, over: &AtomicBool) -> u64 {
    let mut counted = 0;
    while !over.load(Ordering::Relaxed) {
        assert_eq!(word.load(Ordering::Relaxed), counted, "nobody else writes this word");
        counted += 1;
        word.store(counted, Ordering::Relaxed);
        // The threads that serve faults need a processor, too.
        std::thread::yield_now();
    }
    counted
}

#[test]
fn a_block_used_by_both_sides_at_once_is_throttled_and_reported() {
    const ROUNDS: u32 = 400_000;
    let _turn = turn("both sides");
    for mode in MODES {
        let Some(kit) = Kit::new("both sides", builder().fault_mode(mode)) else { return };
        let arena = Arena::new(&kit, 1, 0, BLOCK / 2);
        let report = kit.heap().allocate(BLOCK, BLOCK).unwrap();
        let watch = kit.heap().watch(arena.memory.range()).unwrap();
        let before = kit.heap().counters();
        let begun = Instant::now();
        let over = AtomicBool::new(false);
        let (mut launches, mut new) = (0, before);
        let counted = std::thread::scope(|scope| {
            let counting = scope.spawn(|| count(arena.word(BLOCK / 2), &over));
            // On a busy machine the threads may not meet often enough at first: then nothing thrashes.
            while launches == 0 || launches < 50 && new.faults_throttled == 0 {
                arena.launch(&kit, &report, launches, ROUNDS).wait().unwrap();
                launches += 1;
                new = kit.heap().counters().since(&before);
            }
            over.store(true, Ordering::Relaxed);
            counting.join().unwrap()
        });
        let elapsed = begun.elapsed();
        arena.check(&report, launches * u64::from(ROUNDS));
        let turns = std::iter::from_fn(|| watch.try_next()).filter(|event| matches!(event, WatchEvent::Changed { .. }));
        let turns = turns.count() as u64 + watch.missed();
        eprintln!("{mode:?}: {turns} moves in {elapsed:?}, the CPU counted to {counted}: {new:?}");
        assert!(new.blocks_thrashing > 0 && new.faults_throttled > 0, "{mode:?}: {new:?}");
        // A read fault, and the write fault after it, may change the copies twice in a turn.
        let most =
            2 * (TURNS_UNTIL_LONGEST + 2 * launches + u64::try_from(elapsed.as_micros() / LEASE.as_micros()).unwrap());
        assert!(turns <= most, "{mode:?}: {turns} moves in {elapsed:?}, not more than {most} were due");
        assert!(counted > 0, "{mode:?}: neither side starves");

        let found = kit.heap().thrashing();
        assert_eq!(found.len(), 1, "{mode:?}: {found:?}");
        assert_eq!(found[0].range, arena.memory.range());
        let place = found[0].place.as_ref().unwrap();
        assert_eq!((place.name.as_deref(), place.relation), (Some("arena"), Relation::Inside(0)));
        assert_eq!(arena.memory.counters().faults_throttled, kit.heap().counters().faults_throttled, "{mode:?}");
        assert!(found[0].moves >= 8 && found[0].since >= begun && found[0].last <= Instant::now());
        drop((watch, arena));
        assert_eq!(kit.heap().thrashing(), [], "freed");
        kit.works();
    }
}

#[test]
fn blocks_that_growth_drags_along_are_left_where_they_are_used() {
    const ROUNDS: u32 = 400_000;
    let _turn = turn("neighbours");
    for mode in MODES {
        let Some(kit) = Kit::new("neighbours", builder().fault_mode(mode)) else { return };
        // The CPU counts in one block, the kernel works in another of the same chunk; all of it is dense.
        let arena = Arena::new(&kit, 32, 3 * BLOCK, 20 * BLOCK);
        let report = kit.heap().allocate(BLOCK, BLOCK).unwrap();
        arena.memory.prefetch(Side::Host).unwrap();
        let before = kit.heap().counters();
        let event = arena.launch(&kit, &report, 0, ROUNDS);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| count(arena.word(20 * BLOCK), &over));
            event.wait().unwrap();
            over.store(true, Ordering::Relaxed);
        });
        arena.check(&report, ROUNDS.into());
        let new = kit.heap().counters().since(&before);
        let moved = new.blocks_to_device + new.blocks_to_host;
        assert!(moved <= 32 * 40, "{mode:?}: they part for good once they are seen to thrash: {new:?}");
    }
}

#[test]
fn programs_in_which_the_sides_take_turns_do_not_thrash() {
    let _turn = turn("orderly");
    for mode in MODES {
        let Some(kit) = Kit::new("orderly", builder().fault_mode(mode)) else { return };
        let mut vec = kit.heap().vec_zeroed::<u32>(2 * BLOCK_WORDS).unwrap();
        for round in 0..500u32 {
            vec.write().unwrap().chunks_mut(BLOCK_WORDS).for_each(|block| block[0] = round);
            // By turns declared and found by faults alone.
            if round % 2 == 0 {
                kit.fill(&mut vec, round + 1).unwrap().wait().unwrap();
            } else {
                let words = vec.len() as u64;
                kit.fill_at(vec.ptr(0).address(), words, round + 1).unwrap().wait().unwrap();
            }
            assert!(vec.read().unwrap().iter().all(|word| *word == round + 1));
        }
        let counters = kit.heap().counters();
        assert_eq!((counters.blocks_thrashing, counters.faults_throttled), (0, 0), "{mode:?}: {counters:?}");
        assert_eq!(kit.heap().thrashing(), []);
    }
}

#[test]
fn a_throttled_thread_goes_on_when_the_device_is_lost() {
    let _turn = turn("loss");
    for mode in MODES {
        let Some(kit) = Kit::new("loss", builder().fault_mode(mode)) else { return };
        let arena = Arena::new(&kit, 1, 0, BLOCK / 2);
        let report = kit.heap().allocate(BLOCK, BLOCK).unwrap();
        let event = arena.launch(&kit, &report, 0, 100_000);
        let word = arena.word(BLOCK / 2);
        while kit.heap().counters().faults_throttled == 0 && !event.is_complete().unwrap() {
            word.fetch_add(1, Ordering::Relaxed);
        }
        inject::lose_device();
        // Brings the loss to the heap's notice.
        assert!(event.wait().is_err() || kit.queue.wait_idle().is_err());
        let range = arena.memory.range();
        kit.heap().repair(range.start.0, range.len).unwrap();
        word.fetch_add(1, Ordering::Relaxed);
        // For the next mode's context.
        inject::find_device();
    }
}
