//! The device is lost: what only its memory held is named and poisoned, the rest stays readable, and nobody hangs.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, Watchdog, is_child, no_core, turn};
use common::sigbus::{end_by_sigbus, touch, touches};
use common::views::{ALL, STAGED, Way, cases};
use common::words::{fill_part, is_counted};
use limosa::{Access, Error, GpuError, PagerError, RawAllocation, UnifiedVec, inject};
use limosa_shaders::reduce;

fn lost<T>(result: limosa::Result<T>) {
    let error = result.err().unwrap_or_else(|| panic!("the device is lost"));
    assert!(error.is_device_lost(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("lost") && text.contains("new context") && text.contains("poisoned"), "{text}");
}

/// The range that an error says is lost.
fn poisoned(error: Error) -> (u64, u64) {
    let text = error.to_string();
    let Error::Pager(PagerError::Poisoned { start, len, .. }) = error else { panic!("{text}") };
    assert!(text.contains(&format!("{start:#x}")) && text.contains("repair"), "{text}");
    (start, len)
}

fn counted(kit: &Kit, words: usize) -> UnifiedVec<u32> {
    kit.heap().vec_with(words, |i| u32::try_from(i).unwrap()).unwrap()
}

/// Blocks 3 and 4, 40, and the last of `mixed`: what [`Scene`] lets only VRAM hold.
const HOLES: [(u64, u64); 3] = [(3, 2), (40, 1), (69, 1)];

/// Data in every state, then the loss.
struct Scene {
    kit: Kit,
    host: UnifiedVec<u32>,
    both: UnifiedVec<u32>,
    device: UnifiedVec<u32>,
    mixed: UnifiedVec<u32>,
    zero: UnifiedVec<u32>,
}

impl Scene {
    fn lose(kit: Kit) -> Self {
        let host = counted(&kit, 3 * BLOCK_WORDS);
        let both = counted(&kit, 40 * BLOCK_WORDS);
        kit.sum(&both).unwrap();
        let mut device = kit.heap().vec_zeroed::<u32>(70 * BLOCK_WORDS).unwrap();
        kit.fill(&mut device, 7).unwrap().wait().unwrap();
        let mut mixed = counted(&kit, 70 * BLOCK_WORDS);
        for (first, count) in HOLES {
            let word = |block: u64| usize::try_from(block).unwrap() * BLOCK_WORDS;
            fill_part(&kit, &mut mixed, word(first)..word(first + count), 9).unwrap();
        }
        let zero = kit.heap().vec_zeroed::<u32>(5 * BLOCK_WORDS).unwrap();
        assert!(kit.heap().poisoned().is_empty());
        inject::lose_device();
        lost(kit.queue.wait_idle());
        Self { kit, host, both, device, mixed, zero }
    }

    /// What must be poisoned, as address and length.
    fn expected(&self) -> Vec<(u64, u64)> {
        let mixed = self.mixed.ptr(0).address();
        let mut all: Vec<_> = HOLES.iter().map(|(first, count)| (mixed + first * BLOCK, count * BLOCK)).collect();
        all.push((self.device.ptr(0).address(), 70 * BLOCK));
        all.sort_unstable();
        all
    }

    fn told(&self) -> Vec<(u64, u64)> {
        self.kit.heap().poisoned().iter().map(|range| (range.start.0, range.len)).collect()
    }
}

#[test]
fn what_only_vram_held_is_named_and_the_rest_is_readable() {
    let _turn = turn("named");
    for (way, mode) in cases(ALL) {
        let Some(kit) = way.kit("named", builder().fault_mode(mode)) else { break };
        let mut scene = Scene::lose(kit);
        assert_eq!(scene.told(), scene.expected());
        assert!(is_counted(&scene.host) && is_counted(&scene.both));
        assert!(scene.zero.read().unwrap().iter().all(|word| *word == 0));
        for (first, count) in [(0, 3), (5, 35), (41, 28)] {
            let mut bytes = vec![0u8; usize::try_from(count * BLOCK).unwrap()];
            let start = scene.mixed.ptr(0).address() + first * BLOCK;
            // SAFETY: nobody writes.
            unsafe { scene.kit.heap().try_read(start, &mut bytes) }.unwrap();
            let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
            assert!((first * BLOCK / 4..).zip(words).all(|(i, word)| u64::from(word) == i));
        }
        for (vec, expected) in [(&scene.device, &[(0, 70)][..]), (&scene.mixed, &HOLES[..])] {
            let (start, len) = poisoned(vec.read().map(|_| ()).unwrap_err());
            let base = vec.ptr(0).address();
            let inside = |(first, count): &(u64, u64)| {
                base + first * BLOCK <= start && start + len <= base + (first + count) * BLOCK
            };
            assert!(len > 0 && expected.iter().any(inside), "{start:#x} {len}");
        }
        poisoned(scene.device.write().map(|_| ()).unwrap_err());
        poisoned(scene.device.prefetch_to_host().unwrap_err());
        assert_eq!(scene.device.residency_summary().poisoned, 70 * BLOCK);
        assert_eq!(scene.mixed.residency_summary().poisoned, 4 * BLOCK);
        assert_eq!((scene.both.residency_summary().host, scene.both.residency_summary().both), (40 * BLOCK, 0));
        lost(scene.host.prefetch_to_device());
        lost(scene.kit.fill(&mut scene.host, 1));
        lost(scene.kit.sum(&scene.both));
        // Still so once the cause is gone: a lost context stays lost, a new one works.
        inject::find_device();
        lost(scene.kit.fill(&mut scene.host, 1));
        assert!(is_counted(&scene.host));
        scene.host.write().unwrap()[0] = 5;
        assert_eq!(scene.host.read().unwrap()[0], 5);
        drop(scene);
        way.kit("named", builder().fault_mode(mode)).unwrap().works();
    }
}

#[test]
fn try_read_and_try_write_give_the_error_and_change_nothing() {
    let _turn = turn("try");
    for way in ALL {
        read_and_write_what_was_lost(*way);
        inject::find_device();
    }
}

fn read_and_write_what_was_lost(way: Way) {
    let Some(kit) = way.kit("try", builder()) else { return };
    let scene = Scene::lose(kit);
    let heap = scene.kit.heap();
    let start = scene.mixed.ptr(0).address();
    let mut bytes = vec![0xEE; usize::try_from(6 * BLOCK).unwrap()];
    // SAFETY: nobody else uses the memory.
    let error = unsafe { heap.try_read(start, &mut bytes) }.unwrap_err();
    assert_eq!(poisoned(error), (start + 3 * BLOCK, 2 * BLOCK));
    assert!(bytes.iter().all(|byte| *byte == 0xEE));
    // SAFETY: as above.
    poisoned(unsafe { heap.try_write(start, &bytes) }.unwrap_err());
    let mut head = [0u8; 8];
    // SAFETY: as above.
    unsafe { heap.try_read(start, &mut head) }.unwrap();
    assert_eq!(head, [0, 0, 0, 0, 1, 0, 0, 0], "the readable part was not written");
    // SAFETY: as above.
    unsafe { heap.try_write(start + 5 * BLOCK, &[1; 4]) }.unwrap();
    for address in [heap.range().start.0 + heap.range().len - 4, BLOCK] {
        // SAFETY: as above.
        for result in [unsafe { heap.try_read(address, &mut [0; 4]) }, unsafe { heap.try_write(address, &[0; 4]) }] {
            let error = result.unwrap_err();
            let Error::Pager(PagerError::NotAllocated { start, len }) = error else { panic!("{error}") };
            assert!((start..start + len).contains(&address), "{error}");
        }
    }
}

#[test]
fn repair_makes_zeros_of_what_was_lost() {
    let _turn = turn("repair");
    for (way, mode) in cases(ALL) {
        let Some(kit) = way.kit("repair", builder().fault_mode(mode)) else { break };
        let mut scene = Scene::lose(kit);
        let heap = scene.kit.heap().clone();
        let mixed = scene.mixed.ptr(0).address();
        // A part first, beginning in the middle of a block.
        heap.repair(mixed + 4 * BLOCK + 100, BLOCK).unwrap();
        assert!(scene.told().contains(&(mixed + 3 * BLOCK, BLOCK)));
        heap.repair(mixed, 70 * BLOCK).unwrap();
        assert_eq!(scene.told(), [(scene.device.ptr(0).address(), 70 * BLOCK)]);
        let zeros = |first: &u64| HOLES.iter().any(|(hole, count)| (*hole..hole + count).contains(first));
        for (i, word) in (0u64..).zip(scene.mixed.read().unwrap().iter()) {
            let expected = if zeros(&(i * 4 / BLOCK)) { 0 } else { i };
            assert_eq!(u64::from(*word), expected, "word {i}");
        }
        let device = scene.device.raw();
        heap.repair(device.ptr().address(), device.len()).unwrap();
        assert!(scene.told().is_empty());
        assert!(scene.device.read().unwrap().iter().all(|word| *word == 0));
        scene.device.write().unwrap().fill(6);
        assert!(scene.device.read().unwrap().iter().all(|word| *word == 6));
        // Freed while lost, and allocated anew: no poison stays behind.
        let again = Scene::lose(
            way.kit("repair", {
                inject::find_device();
                builder().fault_mode(mode)
            })
            .unwrap(),
        );
        let Scene { kit, device, mixed, .. } = again;
        drop((device, mixed));
        assert!(kit.heap().poisoned().is_empty());
        let new = kit.heap().vec_zeroed::<u32>(200 * BLOCK_WORDS).unwrap();
        assert!(new.read().unwrap().iter().all(|word| *word == 0));
        inject::find_device();
    }
}

#[test]
fn a_plain_touch_of_what_is_lost_ends_by_sigbus_with_the_cause() {
    const TEST: &str = "a_plain_touch_of_what_is_lost_ends_by_sigbus_with_the_cause";
    let _turn = turn(TEST);
    if let Some((_, way, mode, write)) = touches(ALL).find(|(case, ..)| is_child(case)) {
        no_core();
        let Some(kit) = way.kit(TEST, builder().fault_mode(mode)) else { return };
        let scene = Scene::lose(kit);
        return touch(scene.device.ptr(5 * BLOCK_WORDS + 3).as_ptr(), write);
    }
    end_by_sigbus(TEST, ALL, "lost with a device");
}

/// Nobody knows of the loss before the copy for the fault itself meets it.
#[test]
fn a_touch_whose_copy_finds_the_loss_ends_by_sigbus_with_the_cause() {
    const TEST: &str = "a_touch_whose_copy_finds_the_loss_ends_by_sigbus_with_the_cause";
    let _turn = turn(TEST);
    if let Some((_, way, mode, write)) = touches(&[STAGED]).find(|(case, ..)| is_child(case)) {
        no_core();
        let Some(kit) = way.kit(TEST, builder().fault_mode(mode)) else { return };
        let mut vec = counted(&kit, 40 * BLOCK_WORDS);
        kit.fill(&mut vec, 7).unwrap().wait().unwrap();
        inject::lose_device();
        return touch(vec.ptr(5 * BLOCK_WORDS + 3).as_ptr(), write);
    }
    end_by_sigbus(TEST, &[STAGED], "lost with a device");
}

/// What a kernel finds to be the sum of `raw`, which it is declared to read.
fn sum_raw(kit: &Kit, raw: &Arc<RawAllocation>) -> limosa::Result<u64> {
    let mut total = kit.heap().boxed(0u64)?;
    let words = raw.len() / 4;
    let launch = kit.queue.launch(&kit.reduce, words.div_ceil(reduce::ITEMS)).arg(raw.ptr());
    let launch = launch.args((total.as_mut_vec().writes(), words)).with_raw(raw, Access::Read);
    // SAFETY: reduce reads `raw`, which is held meanwhile, and adds to `total`.
    unsafe { launch.submit()? }.wait()?;
    total.get()
}

#[test]
fn nobody_hangs_when_the_device_goes_in_mid_launch() {
    let _turn = turn("mid-launch");
    for (way, mode) in cases(ALL) {
        let Some(kit) = way.kit("mid-launch", builder().fault_mode(mode)) else { break };
        let mut busy: Vec<_> = (0..3).map(|_| counted(&kit, 4 << 20)).collect();
        let mut swept = counted(&kit, 64 * BLOCK_WORDS);
        let queues: Vec<_> = (0..3).map(|_| kit.context.queue().unwrap()).collect();
        let reading = AtomicBool::new(true);
        let range = (swept.ptr(0).address(), 64 * BLOCK);
        let raw = Arc::clone(swept.raw());
        std::thread::scope(|scope| {
            let (kit, reading) = (&kit, &reading);
            let mut waiting = Vec::new();
            for (queue, vec) in queues.iter().zip(&mut busy) {
                waiting.push(scope.spawn(move || {
                    let events: Vec<_> = (0..50).map_while(|i| kit.fill_on(queue, vec, i).ok()).collect();
                    let ended = events.iter().filter(|event| event.wait().is_err()).count();
                    (events.len(), ended, queue.wait_idle().is_err())
                }));
            }
            // Its blocks are never the device's alone: kernels only read what a CPU thread writes meanwhile.
            let reader = scope.spawn(move || {
                while reading.load(Ordering::Relaxed) {
                    if let Err(error) = sum_raw(kit, &raw) {
                        return lost::<u64>(Err(error));
                    }
                }
            });
            let writer = scope.spawn(|| {
                for round in 0..200u32 {
                    for block in swept.write().unwrap().chunks_mut(BLOCK_WORDS) {
                        block[usize::try_from(round).unwrap()] = round;
                    }
                }
            });
            inject::lose_device();
            for thread in waiting {
                let (launched, ended, idle_fails) = thread.join().unwrap();
                assert!(launched == 50 || idle_fails, "{launched} {ended}");
            }
            writer.join().unwrap();
            reading.store(false, Ordering::Relaxed);
            reader.join().unwrap();
        });
        lost(kit.queue.wait_idle());
        assert!(
            kit.heap()
                .poisoned()
                .iter()
                .all(|lost| lost.start.0 + lost.len <= range.0 || lost.start.0 >= range.0 + range.1)
        );
        let words = swept.read().unwrap();
        let kept = |(i, word): (usize, &u32)| {
            usize::try_from(*word) == Ok(if i % BLOCK_WORDS < 200 { i % BLOCK_WORDS } else { i })
        };
        assert!(words.iter().enumerate().all(kept));
        inject::find_device();
    }
}

#[test]
fn a_guard_that_finds_the_loss_first_says_so() {
    let _turn = turn("guard");
    for way in ALL {
        guard_finds_the_loss(*way);
        inject::find_device();
    }
}

fn guard_finds_the_loss(way: Way) {
    let Some(kit) = way.kit("guard", builder()) else { return };
    let mut vec = counted(&kit, 4 << 20);
    loop {
        let events: Vec<_> = (0..20).map(|i| kit.fill(&mut vec, i).unwrap()).collect();
        let under_way = !events[5].is_complete().unwrap();
        inject::lose_device();
        if under_way {
            break;
        }
        // The launches were over before the loss; once more.
        inject::find_device();
    }
    // Nobody waits for an event. What the launches were writing is lost, and must not be read as if nothing were.
    let error = vec.read().map(|_| ()).unwrap_err();
    let told = matches!(error, Error::Pager(PagerError::Poisoned { .. } | PagerError::Gpu(GpuError::DeviceLost)));
    assert!(told, "{error:?}");
}

#[test]
fn everything_can_be_dropped_after_the_loss_in_any_order() {
    let _turn = turn("drop");
    for (way, order) in ALL.iter().flat_map(|way| (0..4).map(move |order| (way, order))) {
        let Some(kit) = way.kit("drop", builder().heap_size(256 * MIB)) else { break };
        let mut vec = counted(&kit, 1 << 20);
        let event = kit.fill(&mut vec, 1).unwrap();
        inject::lose_device();
        let Kit { queue, context, fill, copy, reduce } = kit;
        match order {
            0 => drop((context, queue, vec, event, fill)),
            1 => drop((event, vec, queue, context, fill)),
            2 => drop((fill, vec, context, event, queue)),
            _ => {
                lost(event.wait());
                lost(event.wait());
                drop((vec, context, event, queue));
            }
        }
        drop((copy, reduce));
        inject::find_device();
    }
    let _watchdog = Watchdog::new("drop, again");
    Kit::new("drop", builder()).unwrap().works();
}
