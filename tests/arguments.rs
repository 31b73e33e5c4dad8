//! What launches are given: parts of vectors beside each other, raw ranges, and kernels that are promised once.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::failure::{BLOCK_WORDS, Kit, turn};
use common::gate::Gate;
use common::views::{ALL, BESIDE_KERNELS};
use common::{builder, context};
use limosa::inject::{self, VulkanCall};
use limosa::{Access, Error, Event, GpuError, GpuPtr, Home, PagerError, Reads, SafeKernel, UnifiedSliceMut, Writes};
use limosa_shaders::{fill, triad};

type Fill = (Writes<u32>, u64, u32);

fn promised(kit: &Kit) -> SafeKernel<Fill> {
    // SAFETY: fill writes `count` words and nothing else.
    unsafe { kit.fill.promise::<Fill>("the vector has `count` words", |(vec, count, _)| *count <= vec.len() as u64) }
        .unwrap()
}

fn fill_part(kit: &Kit, kernel: &SafeKernel<Fill>, part: UnifiedSliceMut<'_, u32>, value: u32) -> Event {
    let count = part.len() as u64;
    kit.queue.launch(kernel, count.div_ceil(fill::ITEMS)).args((part.writes(), count, value)).submit().unwrap()
}

#[test]
fn a_promise_is_compared_with_the_module_and_each_launch_with_the_promise() {
    let Some(kit) = Kit::new("a_promise_is_compared", builder()) else { return };
    let _turn = turn("a_promise_is_compared");
    let told = |error: Error| error.to_string();
    // SAFETY: none of these is launched.
    let (float, few, many) = unsafe {
        (
            kit.fill.promise::<(Writes<u32>, f32, u32)>("", |_| true).err().unwrap(),
            kit.fill.promise::<(Writes<u32>, u64)>("", |_| true).err().unwrap(),
            kit.fill.promise::<(Writes<u32>, u64, u32, u64, u64)>("", |_| true).err().unwrap(),
        )
    };
    assert_eq!(told(float), "fill: argument 2 (count) is a u64 in the module, but an f32 was given");
    assert!(told(few).contains("argument 3 (value)"));
    assert!(matches!(many, Error::Pager(PagerError::Gpu(GpuError::ArgumentsSurplus { .. }))), "{many}");

    let fill = promised(&kit);
    let mut vec = kit.heap().vec_zeroed::<u32>(100).unwrap();
    let launches = kit.heap().counters().launches;
    let refused = kit.queue.launch(&fill, 1).args((vec.writes(), 101, 1)).submit().err().unwrap();
    assert_eq!(told(refused), "fill must not be given these arguments: the vector has `count` words");
    let forgotten = kit.queue.launch(&fill, 1).submit().err().unwrap();
    assert!(matches!(forgotten, Error::Pager(PagerError::Gpu(GpuError::ArgumentsMissing { .. }))), "{forgotten}");
    assert_eq!(kit.heap().counters().launches, launches);
    kit.queue.launch(&fill.clone(), 7).args((vec.writes(), 100, 1)).submit().unwrap().wait().unwrap();
    assert!(vec.read().unwrap().iter().all(|word| *word == 1));
}

#[test]
fn safe_kernels_run_every_way() {
    let _turn = turn("safe_kernels_run_every_way");
    for way in ALL {
        let Some(context) = context("safe_kernels_run_every_way", way.of(builder())) else { return };
        let kernel = context.kernel("triad", triad::KERNEL.spirv).unwrap();
        // SAFETY: triad writes `count` elements of the first, reads those of the others, and touches nothing else.
        let triad = unsafe {
            kernel.promise::<(Writes<f32>, Reads<f32>, Reads<f32>, u64, f32)>("`count` elements", |(a, b, c, n, _)| {
                [a.len(), b.len(), c.len()].iter().all(|len| *n <= *len as u64)
            })
        };
        let (triad, heap) = (triad.unwrap(), context.heap());
        let (b, c) = (heap.vec_from(&[1.0f32; 5000]).unwrap(), heap.vec_from(&[2.0f32; 5000]).unwrap());
        let mut a = heap.boxed(0.0f32).unwrap();
        let queue = context.queue().unwrap();
        let part = c.slice(4999..5000).unwrap();
        queue.launch(&triad, 1).args((a.writes(), b.reads(), part.reads(), 1, 3.0)).submit().unwrap();
        assert_eq!(a.get().unwrap(), 7.0, "{way:?}");
    }
}

#[test]
fn parts_of_a_vector_are_used_by_cpu_and_kernels_beside_each_other() {
    let _turn = turn("parts_of_a_vector");
    for way in ALL {
        let Some(kit) = way.kit("parts_of_a_vector", builder()) else { continue };
        let kernel = promised(&kit);
        let words = 5 * BLOCK_WORDS;
        let mut vec = kit.heap().vec_zeroed::<u32>(words).unwrap();
        let mut expected = vec![0u32; words];
        // Cuts in blocks that two parts share, at their edges, and parts of one word and of none.
        let cuts = [0, 1, 777, BLOCK_WORDS, BLOCK_WORDS, 2 * BLOCK_WORDS + 3, 4 * BLOCK_WORDS, words - 1, words];
        for round in 0..6u32 {
            let mut rest = vec.slice_mut(0..words).unwrap();
            for (index, cut) in (0u32..).zip(cuts.windows(2)) {
                let (mut part, others) = rest.split_at(cut[1] - cut[0]).unwrap();
                rest = others;
                let value = 100 * round + index;
                if (index + round) % 2 == 0 {
                    let _ = fill_part(&kit, &kernel, part, value);
                } else {
                    part.write().unwrap().fill(value);
                    assert!(part.read().unwrap().iter().all(|word| *word == value));
                }
                expected[cut[0]..cut[1]].fill(value);
            }
            assert_eq!(rest.len(), 0);
            assert!(*vec.read().unwrap() == expected[..], "{way:?}, round {round}");
        }
    }
}

#[test]
fn a_guard_waits_for_launches_on_its_own_part_only() {
    let _turn = turn("a_guard_waits_for_its_own_part");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("a_guard_waits_for_its_own_part", builder()) else { continue };
        let kernel = promised(&kit);
        let mut vec = kit.heap().vec_zeroed::<u32>(4 * BLOCK_WORDS).unwrap();
        let gate = Gate::close(&kit, &kit.queue);
        let (mut low, high) = vec.slice_mut(0..4 * BLOCK_WORDS).unwrap().split_at(2 * BLOCK_WORDS).unwrap();
        let event = fill_part(&kit, &kernel, high, 5);
        low.write().unwrap().fill(3);
        assert_eq!(low.read().unwrap()[7], 3);
        assert!(gate.is_closed() && !event.is_complete().unwrap());
        gate.open();
        let all = vec.to_vec().unwrap();
        assert!(all[..2 * BLOCK_WORDS].iter().all(|word| *word == 3) && all[2 * BLOCK_WORDS..] == [5; 2 * BLOCK_WORDS]);
    }
}

#[test]
fn parts_beyond_the_end_are_errors() {
    let Some(kit) = Kit::new("parts_beyond_the_end", builder()) else { return };
    let mut vec = kit.heap().vec_zeroed::<u32>(10).unwrap();
    #[allow(clippy::reversed_empty_ranges, reason = "it is what must be refused")]
    for range in [0..11, 11..11, 5..4, usize::MAX..usize::MAX, 3..usize::MAX] {
        assert!(matches!(vec.slice(range.clone()), Err(Error::OutOfRange { len: 10, .. })), "{range:?}");
        assert!(matches!(vec.slice_mut(range.clone()), Err(Error::OutOfRange { len: 10, .. })), "{range:?}");
    }
    assert!(vec.slice(10..10).unwrap().is_empty());
    for middle in [6, usize::MAX] {
        let part = vec.slice_mut(5..10).unwrap();
        assert!(matches!(part.split_at(middle), Err(Error::OutOfRange { len: 5, .. })));
    }
    let (left, right) = vec.slice_mut(5..10).unwrap().split_at(2).unwrap();
    assert_eq!((left.len(), right.len(), left.ptr().add(2)), (2, 3, right.ptr()));
}

#[test]
fn raw_ranges_are_held_and_those_outside_the_heap_refused() {
    let _turn = turn("raw_ranges");
    for way in ALL {
        let Some(kit) = way.kit("raw_ranges", builder()) else { continue };
        let vec = kit.heap().vec_zeroed::<u32>(4 * BLOCK_WORDS).unwrap();
        let at = vec.ptr(BLOCK_WORDS);
        let launch = || kit.queue.launch(&kit.fill, 1000).args((at, BLOCK_WORDS as u64, 9u32));
        // SAFETY: fill writes the vector's second block, which nobody else uses until it has completed.
        unsafe { launch().with_range(at, BLOCK_WORDS, Access::Write).submit() }.unwrap();
        let read = vec.to_vec().unwrap();
        assert_eq!((read[BLOCK_WORDS - 1], read[BLOCK_WORDS], read[2 * BLOCK_WORDS - 1]), (0, 9, 9), "{way:?}");
        let heap = kit.heap().range();
        for (start, count) in [(1, 1), (heap.start.0 - 4, 2), (heap.start.0 + heap.len, 1), (at.address(), usize::MAX)]
        {
            let outside = GpuPtr::<u32>::from_address(start);
            // SAFETY: it is refused.
            let refused = unsafe { launch().with_range(outside, count, Access::Read).submit() }.err().unwrap();
            assert!(matches!(refused, Error::Pager(PagerError::NotAllocated { .. })), "{refused}");
        }
    }
}

#[test]
fn a_guard_is_an_error_while_the_driver_cannot_wait_for_a_launch() {
    let _turn = turn("a_guard_is_an_error");
    let Some(kit) = Kit::new("a_guard_is_an_error", builder()) else { return };
    let mut vec = kit.heap().in_home(Home::Shared).vec_zeroed::<u32>(BLOCK_WORDS).unwrap();
    for call in [VulkanCall::WaitSemaphores, VulkanCall::ReadSemaphore] {
        let gate = Gate::close(&kit, &kit.queue);
        kit.fill(&mut vec, 3).unwrap();
        inject::fail_vulkan(call);
        if call == VulkanCall::WaitSemaphores {
            assert!(vec.write().err().unwrap().is_out_of_memory(), "{call:?}");
        }
        inject::find_device();
        gate.open();
        vec.write().unwrap().fill(9);
        kit.queue.wait_idle().unwrap();
        assert!(vec.read().unwrap().iter().all(|word| *word == 9), "{call:?}: a kernel wrote beside a guard");
    }
}
