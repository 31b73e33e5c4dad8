//! Kernels that touch what they must not: freed memory, what they did not declare, more than the budget holds.

use limosa::{Access, LaunchFailure, Side, TouchCause};

use crate::common::builder;
use crate::common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, STAND_IN_BYTES, turn};

fn failure<T>(result: limosa::Result<T>) -> LaunchFailure {
    let error = result.err().unwrap_or_else(|| panic!("the launch is to fail"));
    let failure = error.launch_failure().cloned();
    failure.unwrap_or_else(|| panic!("{error:?}"))
}

/// The failed launch says which kernel did what where, and why that was not possible.
fn says(failure: &LaunchFailure, kernel: &str, access: Access, cause: TouchCause) {
    let text = failure.to_string();
    assert_eq!((failure.kernel.as_str(), failure.access, failure.cause), (kernel, access, cause), "{text}");
    assert!(failure.count > 0);
    assert!(text.contains(kernel) && text.contains(&format!("{:#x}", failure.address.0)), "{text}");
    assert!(text.contains(&cause.to_string()), "{text}");
}

#[test]
fn freed_memory_fails_the_launch_and_nothing_else() {
    let _turn = turn("freed memory");
    let Some(kit) = Kit::new("freed memory", builder()) else { return };
    let kept = kit.heap().vec_with(BLOCK_WORDS, |_| 1u32).unwrap();
    // The results of `sum_at` share its block, instead of taking one of those that are to be freed.
    let _small = kit.heap().boxed(0u64).unwrap();
    let gone = kit.heap().vec_with(4 * BLOCK_WORDS, |_| 7u32).unwrap();
    gone.prefetch_to_device().unwrap();
    let (start, words) = (gone.ptr(0).address(), gone.len() as u64);
    drop(gone);

    let read = failure(kit.sum_at(start, words));
    says(&read, "reduce", Access::Read, TouchCause::NotAllocated);
    assert!((start..start + words * 4).contains(&read.address.0), "{read}");
    let event = kit.fill_at(start, words, 9).unwrap();
    for _ in 0..2 {
        let written = failure(event.wait());
        says(&written, "fill", Access::Write, TouchCause::NotAllocated);
        assert!(written.count >= 4, "one for each block, or each thread: {written}");
        assert!(written.to_string().contains(&format!("{} more", written.count - 1)), "{written}");
    }
    let refused = kit.heap().counters().faults_refused;
    assert!(read.count >= 4 && refused >= 8, "{refused}: {read}");
    assert_eq!(kit.sum(&kept).unwrap(), BLOCK_WORDS as u64);

    // What is allocated there next reads as zeros on both sides, and no stray write of before comes back.
    let new = kit.heap().vec_zeroed::<u32>(4 * BLOCK_WORDS).unwrap();
    assert_eq!(new.ptr(0).address(), start);
    assert_eq!(kit.sum(&new).unwrap(), 0);
    assert!(new.read().unwrap().iter().all(|word| *word == 0));
    kit.works();
}

#[test]
fn what_was_never_allocated_fails_the_launch() {
    let _turn = turn("never allocated");
    let Some(kit) = Kit::new("never allocated", builder()) else { return };
    let range = kit.heap().range();
    let (far, last) = (range.start.0 + range.len / 2, range.start.0 + range.len - BLOCK);
    for address in [far, last] {
        let read = failure(kit.sum_at(address, 100));
        says(&read, "reduce", Access::Read, TouchCause::NotAllocated);
        assert_eq!(read.address.0, address, "a block's first touch is at its first byte here");
        let written = failure(kit.fill_at(address, 100, 1).unwrap().wait());
        says(&written, "fill", Access::Write, TouchCause::NotAllocated);
    }
    kit.works();
}

#[test]
fn a_stray_sweep_takes_little_memory_and_spoils_nothing() {
    let _turn = turn("stray sweep");
    let budget = 32 * MIB;
    let Some(kit) = Kit::new("stray sweep", builder().device_budget(budget)) else { return };
    let heap = kit.heap();
    let mut kept = heap.vec_zeroed::<u32>(16 * BLOCK_WORDS).unwrap();
    kit.fill(&mut kept, 5).unwrap().wait().unwrap();
    let gone = heap.allocate(160 * MIB, 1).unwrap();
    let start = gone.ptr().address();
    drop(gone);
    let event = kit.fill_at(start, 40 * MIB, 9).unwrap();
    let failed = failure(event.wait());
    says(&failed, "fill", Access::Write, TouchCause::NotAllocated);
    assert!(failed.count >= 160 * MIB / BLOCK, "{failed}");
    assert!(heap.device_frames_resident().unwrap() <= budget + STAND_IN_BYTES);
    assert!(heap.device_bytes() <= budget);
    assert!(kept.read().unwrap().iter().all(|word| *word == 5));
    let zeros = heap.vec_zeroed::<u32>(4 << 20).unwrap();
    assert_eq!(kit.sum(&zeros).unwrap(), 0);
    assert!(heap.device_frames_resident().unwrap() <= budget, "what stood in is gone");
    kit.works();
}

#[test]
fn check_mode_passes_what_is_declared() {
    let _turn = turn("check mode, declared");
    let Some(kit) = Kit::new("check mode", builder().check(true)) else { return };
    let heap = kit.heap();
    let n = 5 * BLOCK_WORDS;
    let source = heap.vec_with(n, |i| u32::try_from(i).unwrap()).unwrap();
    let mut target = heap.vec_zeroed::<u32>(n).unwrap();
    for _ in 0..3 {
        let launch = kit.queue.launch(&kit.copy, n as u64 / 16).args((target.writes(), source.reads(), n as u64));
        // SAFETY: copy reads and writes `n` words.
        unsafe { launch.submit() }.unwrap().wait().unwrap();
        assert!(target.read().unwrap()[..] == source.read().unwrap()[..]);
        target.write().unwrap().fill(0);
        source.prefetch_to_device().unwrap();
    }
    // A small one next to others in its block, and the whole heap.
    let small = heap.vec_with(100, |_| 2u32).unwrap();
    assert_eq!(kit.sum(&small).unwrap(), 200);
    let launch = kit.queue.launch(&kit.fill, 1000).with_whole_heap().arg(target.ptr(0));
    // SAFETY: fill writes `target`, which nobody else uses.
    unsafe { launch.args((n as u64, 8u32, 0u32)).submit() }.unwrap().wait().unwrap();
    assert!(target.read().unwrap().iter().all(|word| *word == 8));
    kit.works();
}

#[test]
fn check_mode_names_what_was_not_declared() {
    let _turn = turn("check mode, undeclared");
    let Some(kit) = Kit::new("check mode", builder().check(true)) else { return };
    let heap = kit.heap();
    let secret = heap.vec_with(BLOCK_WORDS, |_| 3u32).unwrap();
    let at = secret.ptr(0).address();
    let block = at..at + BLOCK;
    // Whether it is on the device already makes no difference.
    for _ in 0..2 {
        let read = failure(kit.sum_at(at, BLOCK_WORDS as u64));
        says(&read, "reduce", Access::Read, TouchCause::Undeclared);
        assert!(block.contains(&read.address.0), "{read}");
        secret.prefetch_to_device().unwrap();
    }
    let launch = kit.queue.launch(&kit.fill, 1000).with(secret.reads()).arg(at);
    // SAFETY: fill writes `secret`, to which no reference exists.
    let event = unsafe { launch.args((BLOCK_WORDS as u64, 4u32, 0u32)).submit() }.unwrap();
    let written = failure(event.wait());
    says(&written, "fill", Access::Write, TouchCause::Undeclared);
    assert!(block.contains(&written.address.0), "{written}");

    kit.works();
}

#[test]
fn check_mode_tells_launches_of_different_queues_apart() {
    let _turn = turn("check mode, queues");
    let Some(kit) = Kit::new("check mode", builder().check(true)) else { return };
    std::thread::scope(|scope| {
        for value in 0..3u32 {
            let kit = &kit;
            scope.spawn(move || {
                let queue = kit.context.queue().unwrap();
                let mut vec = kit.heap().vec_zeroed::<u32>(8 * BLOCK_WORDS).unwrap();
                for round in 0..40u32 {
                    kit.fill_on(&queue, &mut vec, value * 1000 + round).unwrap().wait().unwrap();
                    assert!(vec.read().unwrap().iter().all(|word| *word == value * 1000 + round));
                }
            });
        }
    });
}

#[test]
fn a_set_beyond_the_budget_is_refused_and_undeclared_use_goes_through_it() {
    let _turn = turn("kernel beyond the budget");
    let budget = 16 * MIB;
    let Some(kit) = Kit::new("kernel beyond the budget", builder().device_budget(budget)) else { return };
    let heap = kit.heap();
    let mut large = heap.vec_with(8 << 20, |_| 1u32).unwrap();
    let error = kit.sum(&large).unwrap_err();
    let text = error.to_string();
    // Both sizes (the result's block is part of the set), and the remedy.
    assert!(error.is_out_of_memory() && text.contains("reduce") && text.contains("split"), "{text}");
    assert!(text.contains(&(32 * MIB + BLOCK).to_string()) && text.contains(&budget.to_string()), "{text}");
    assert!(kit.fill(&mut large, 2).is_err());
    // What is not declared is brought by faults, and leaves again.
    let address = large.ptr(0).address();
    assert_eq!(kit.sum_at(address, 8 << 20).unwrap(), 8 << 20);
    kit.fill_at(address, 8 << 20, 2).unwrap().wait().unwrap();
    assert!(heap.counters().blocks_evicted > 0);
    assert!(heap.device_bytes() <= budget && heap.device_frames_resident().unwrap() <= budget);
    assert!(large.read().unwrap().iter().all(|word| *word == 2));
    drop(large);
    let fits = heap.vec_with(2 << 20, |_| 3u32).unwrap();
    assert_eq!(kit.sum(&fits).unwrap(), 6 << 20);
    assert!(heap.device_frames_resident().unwrap() <= budget);
    kit.works();
}

#[test]
fn a_prefetch_beyond_the_budget_says_so_and_parts_go() {
    let _turn = turn("prefetch beyond the budget");
    let budget = 16 * MIB;
    let Some(kit) = Kit::new("prefetch beyond the budget", builder().device_budget(budget)) else { return };
    let heap = kit.heap();
    let large = heap.vec_with(8 << 20, |i| u32::try_from(i).unwrap()).unwrap();
    let error = large.prefetch_to_device().unwrap_err();
    let text = error.to_string();
    assert!(error.is_out_of_memory() && text.contains(&budget.to_string()) && text.contains("in parts"), "{text}");
    assert_eq!(large.residency_summary().host, 32 * MIB, "nothing has moved");
    for part in 0..4 {
        large.prefetch_range(Side::Device, part * (2 << 20)..(part + 1) * (2 << 20)).unwrap();
        assert!(heap.device_bytes() <= budget && heap.device_frames_resident().unwrap() <= budget);
    }
    assert!(large.residency_summary().device >= 8 * MIB, "the last part is there");
    assert!(large.read().unwrap().iter().enumerate().all(|(i, word)| usize::try_from(*word).unwrap() == i));
    kit.works();
}
