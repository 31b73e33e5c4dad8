//! Fills, copies, prefetches and discards on queues: elements of every size at every place, against the kernel's twin;
//! in the queue's order; and what cannot be done is told before or by the event.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, turn};
use common::gate::Gate;
use common::views::{ALL, BESIDE_KERNELS, FAULTING, STAGED};
use common::words::{Random, all_are, counted, is_counted};
use limosa::inject::VulkanCall;
use limosa::{Error, PagerError, Shareable, Side, inject};
use limosa_shaders::repeat;

fn bytes<T: Shareable>(values: &[T]) -> &[u8] {
    // SAFETY: a `Shareable` has no padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Fills and copies at random places of vectors of `len` elements, which `element` numbers.
fn fills_and_copies<T: Shareable>(kit: &Kit, len: usize, element: impl Fn(usize) -> T) {
    let mut random = Random(0x1234_5678 + len as u64);
    let what = std::any::type_name::<T>();
    let mut vec = kit.heap().vec_with(len, &element).unwrap();
    let source = kit.heap().vec_with(len, |i| element(i + len)).unwrap();
    let mut expected = bytes(&vec.read().unwrap()).to_vec();
    let size = size_of::<T>();
    for turn in 0..6 {
        let (start, other) = (random.below(len), random.below(len));
        let count = random.below(len - start.max(other)) + 1;
        let value = element(random.below(1000) + 2 * len);
        kit.queue.fill(vec.slice_mut(start..start + count).unwrap(), value).submit().unwrap();
        repeat::twin(&mut expected[start * size..(start + count) * size], bytes(&[value]));
        assert!(bytes(&vec.read().unwrap()) == expected, "{what}: fill {turn} of {start}, {count}");
        let count = count.min(1 + random.below(9));
        kit.queue
            .copy(source.slice(other..other + count).unwrap(), vec.slice_mut(start..start + count).unwrap())
            .submit()
            .unwrap();
        let from = bytes(&source.read().unwrap())[other * size..(other + count) * size].to_vec();
        expected[start * size..(start + count) * size].copy_from_slice(&from);
        assert!(bytes(&vec.read().unwrap()) == expected, "{what}: copy {turn} of {other} to {start}, {count}");
    }
    kit.queue.copy(&source, &mut vec).submit().unwrap();
    assert!(bytes(&vec.read().unwrap()) == bytes(&source.read().unwrap()), "{what}: all of it");
    kit.queue.fill(&mut vec, element(7)).submit().unwrap().wait().unwrap();
    assert!(vec.read().unwrap().iter().all(|one| bytes(&[*one]) == bytes(&[element(7)])), "{what}: all of it");
}

#[test]
fn elements_of_every_size_are_filled_and_copied() {
    let _turn = turn("sizes");
    let byte = |i: usize| u8::try_from(i * 7 % 251).unwrap();
    for way in ALL {
        let Some(kit) = way.kit("sizes", builder()) else { break };
        // Small ones share their block, and words, with others.
        for len in [1, 3, 50, 3 * BLOCK_WORDS + 5] {
            fills_and_copies(&kit, len, byte);
            fills_and_copies(&kit, len, |i| i as u64);
            fills_and_copies(&kit, len, |i| [byte(i), byte(i + 1), byte(i + 2)]);
        }
        fills_and_copies(&kit, 999, |i| u16::try_from(i).unwrap());
        fills_and_copies(&kit, 99_999, |i| f32::from(byte(i)));
        fills_and_copies(&kit, 999, |i| [byte(i), 3, byte(i), 5, 6, 7, 8, 9]);
        fills_and_copies(&kit, 999, |i| [i as u64; 2]);
        fills_and_copies(&kit, 5_000, |i| [i as u64; 5]);
        fills_and_copies(&kit, 999, |i| [byte(i); 101]);
        fills_and_copies(&kit, 9, |i| [i as u64; 9000]);
    }
}

#[test]
fn what_cannot_be_is_told_before() {
    let _turn = turn("told before");
    let Some(kit) = FAULTING.kit("told before", builder().device_budget(16 * MIB)) else { return };
    let Some(foreign) = FAULTING.kit("told before", builder()) else { return };
    let (ten, mut eleven, mut theirs) =
        (kit.heap().vec_from(&[1u32; 10]).unwrap(), kit.heap().vec_from(&[2u32; 11]).unwrap(), counted(&foreign, 1));
    let error = kit.queue.copy(&ten, &mut eleven).submit().err().unwrap();
    assert!(matches!(error, Error::LengthsDiffer { source_len: 10, target_len: 11 }), "{error}");
    assert!(error.to_string().contains("10") && error.to_string().contains("11"), "{error}");
    let error = kit.queue.copy(ten.slice(3..5).unwrap(), &mut eleven).submit().err().unwrap();
    assert!(matches!(error, Error::LengthsDiffer { source_len: 2, target_len: 11 }), "{error}");
    for error in [
        kit.queue.fill(&mut theirs, 1).submit(),
        kit.queue.prefetch(Side::Device, &theirs).submit(),
        kit.queue.discard(&mut theirs).submit(),
    ] {
        let error = error.err().unwrap();
        assert!(
            matches!(error, Error::Pager(PagerError::ForeignMemory { .. })) && error.to_string().contains("queue"),
            "{error}"
        );
    }
    let mut large = kit.heap().vec_zeroed::<u32>(1 << 23).unwrap();
    let error = kit.queue.fill(&mut large, 1).submit().err().unwrap();
    assert!(matches!(error, Error::Pager(PagerError::SetTooLarge { .. })), "{error}");
    let error = kit.queue.prefetch(Side::Device, &large).submit().err().unwrap();
    assert!(matches!(error, Error::Pager(PagerError::RangeTooLarge { .. })), "{error}");
    // Nothing at all is done in order, and after what it is to come after.
    let (mut none, go) = (kit.heap().vec_zeroed::<u32>(0).unwrap(), kit.context.user_event());
    let nothing = kit.queue.fill(&mut none, 3).after(&go.event()).submit().unwrap();
    kit.queue.copy(&kit.heap().vec_zeroed(0).unwrap(), &mut none).submit().unwrap();
    assert!(!nothing.is_complete().unwrap());
    go.complete();
    nothing.wait().unwrap();
    assert!(ten.read().unwrap().iter().all(|word| *word == 1) && is_counted(&theirs));
}

#[test]
fn prefetches_take_their_turn_and_hold_nobody_up() {
    let _turn = turn("prefetches");
    for way in BESIDE_KERNELS {
        let Some(kit) = way.kit("prefetches", builder()) else { break };
        let other = kit.context.queue().unwrap();
        let (held, mut after, mut beside) = (counted(&kit, 40), counted(&kit, 1), counted(&kit, 1));
        let gate = Gate::close(&kit, &kit.queue);
        let mut sum = kit.heap().vec_zeroed(1).unwrap();
        common::words::sum_into(&kit, &kit.queue, &held, &mut sum);
        // It waits for the launch before it, and on the other queue for the launch that holds what it is to bring.
        let back = kit.queue.prefetch(Side::Host, &held).submit().unwrap();
        let waits = other.prefetch(Side::Host, &held).submit().unwrap();
        let (behind, free) = (kit.fill(&mut after, 1).unwrap(), kit.context.queue().unwrap());
        let launches = kit.heap().counters().launches;
        let beside_them = kit.fill_on(&free, &mut beside, 2).unwrap();
        assert_eq!(kit.heap().counters().launches, launches + 1, "the launch on a third queue is admitted");
        let done = [&back, &waits, &behind, &beside_them].map(|event| event.is_complete().unwrap());
        assert_eq!(done, [false; 4]);
        gate.open();
        [&back, &waits, &behind, &beside_them].into_iter().for_each(|event| event.wait().unwrap());
        assert_eq!(held.residency_summary().host, 40 * BLOCK);
        assert!(is_counted(&held) && all_are(&after, 1) && all_are(&beside, 2));
    }
}

#[test]
fn prefetches_and_discards_come_about() {
    let _turn = turn("come about");
    for way in ALL {
        let Some(kit) = way.kit("come about", builder()) else { break };
        let (mut vec, go) = (counted(&kit, 70), kit.context.user_event());
        let up = kit.queue.prefetch(Side::Device, &vec).after(&go.event()).submit().unwrap();
        assert_eq!(vec.residency_summary().device, 0);
        go.complete();
        up.wait().unwrap();
        assert_eq!(vec.residency_summary().device, 70 * BLOCK);
        kit.queue
            .prefetch(Side::Host, vec.slice(BLOCK_WORDS..3 * BLOCK_WORDS).unwrap())
            .submit()
            .unwrap()
            .wait()
            .unwrap();
        assert_eq!(vec.residency_summary().host, 2 * BLOCK);
        assert!(is_counted(&vec));
        // The guard waits for it, also if nobody keeps the event.
        let go = kit.context.user_event();
        kit.queue.discard(&mut vec).after(&go.event()).submit().unwrap();
        go.complete();
        assert!(all_are(&vec, 0));
        assert_eq!(vec.residency_summary().device, 0);
    }
}

#[test]
fn what_waits_for_a_prefetch_sees_that_it_failed() {
    let _turn = turn("failed prefetch");
    let Some(kit) = STAGED.kit("failed prefetch", builder()) else { return };
    let (vec, mut never, mut later) = (counted(&kit, 320), counted(&kit, 1), counted(&kit, 1));
    kit.works();
    // It is copied by the device.
    inject::fail_vulkan(VulkanCall::Submit);
    let prefetch = kit.queue.prefetch(Side::Device, &vec).submit().unwrap();
    let launch = kit.queue.fill(&mut never, 1).after(&prefetch).submit().unwrap();
    let error = prefetch.wait().unwrap_err();
    assert!(error.is_out_of_memory(), "{error}");
    match launch.wait().unwrap_err() {
        Error::Pager(PagerError::AfterFailed { what, dependency, reason }) => {
            assert_eq!((&*what, &*dependency), ("kernel repeat", "the prefetch"));
            assert_eq!(reason, error.to_string());
        }
        other => panic!("{other}"),
    }
    inject::find_device();
    kit.queue.fill(&mut later, 2).submit().unwrap().wait().unwrap();
    assert!(is_counted(&vec) && is_counted(&never) && all_are(&later, 2));
}
