//! The public API on the software device: launches, pointers, prefetch, residency, counters.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // indices of small test arrays

mod common;

use limosa::{Access, FaultMode, Side};
use limosa_shaders::{copy, fill, lookup, reduce, triad};

#[test]
fn triad_equals_its_twin_in_both_fault_modes() {
    for mode in [FaultMode::HandlerThread, FaultMode::InThread] {
        let Some(context) = common::context("triad", common::builder().fault_mode(mode)) else { return };
        let heap = context.heap();
        let kernel = context.kernel("triad", triad::KERNEL.spirv).unwrap();
        let queue = context.queue().unwrap();
        let n = 3 << 20;
        let b = heap.vec_with(n, |i| (i % 1000) as f32).unwrap();
        let c = heap.vec_with(n, |i| (i % 77) as f32 * 0.5).unwrap();
        let mut a = heap.vec_zeroed::<f32>(n).unwrap();
        let mut expected = vec![0.0f32; n];
        triad::twin(&mut expected, &b.read().unwrap(), &c.read().unwrap(), 3.0);
        for _ in 0..3 {
            let launch = queue.launch(&kernel, n as u64 / triad::ITEMS);
            let launch = launch.args((a.writes(), b.reads(), c.reads(), n as u64, 3.0f32, 0u32));
            // SAFETY: triad touches its three arrays of `n` elements as declared.
            unsafe { launch.submit() }.unwrap().wait().unwrap();
            assert!(a.read().unwrap()[..] == expected[..]);
        }
        assert!(heap.counters().gpu_read_faults == 0 && heap.counters().cpu_read_faults > 0);
        a.write().unwrap()[5] = 1.0;
        assert_eq!(a.read().unwrap()[5], 1.0);
    }
}

#[test]
fn prefetched_ranges_meet_no_faults() {
    let Some(context) = common::context("prefetch", common::builder()) else { return };
    let heap = context.heap();
    let n = 5 << 20;
    let mut v = heap.vec_with(n, |i| i as u32).unwrap();
    let total = heap.boxed(0u64).unwrap();
    let kernel = context.kernel("reduce", reduce::KERNEL.spirv).unwrap();
    let fill = context.kernel("fill", fill::KERNEL.spirv).unwrap();
    let queue = context.queue().unwrap();
    v.prefetch_to_device().unwrap();
    total.as_vec().prefetch_to_device().unwrap();
    assert_eq!(v.residency_summary().device, 20 << 20);
    let before = heap.counters();
    let mut total = total;
    let launch = queue.launch(&kernel, n as u64 / reduce::ITEMS);
    let launch = launch.args((v.reads(), total.as_mut_vec().writes(), n as u64));
    // SAFETY: reduce reads `n` words and adds to one.
    unsafe { launch.submit() }.unwrap().wait().unwrap();
    assert_eq!(heap.counters().since(&before).gpu_read_faults, 0);
    assert_eq!(total.get().unwrap(), (0..n as u64).sum::<u64>());

    let launch = queue.launch(&fill, n as u64 / fill::ITEMS);
    let launch = launch.args((v.writes(), n as u64, 7u32, 0u32));
    // SAFETY: fill writes `n` words.
    unsafe { launch.submit() }.unwrap().wait().unwrap();
    assert_eq!(v.residency_summary().device, 20 << 20);
    v.prefetch_to_host().unwrap();
    let before = heap.counters();
    assert!(v.read().unwrap().iter().all(|word| *word == 7));
    let faults = heap.counters().since(&before);
    assert_eq!((faults.cpu_read_faults, faults.cpu_write_faults), (0, 0));
}

#[test]
fn a_kernel_searches_a_tree_of_pointers() {
    let Some(context) = common::context("lookup", common::builder()) else { return };
    let heap = context.heap();
    let pairs: std::collections::BTreeMap<u64, u64> = (0..10_000u64).map(|i| (i * 7 % 65_537, i)).collect();
    let memory = heap.allocate(pairs.len() as u64 * 32, 32).unwrap();
    let base = memory.ptr().address();
    let (nodes, root) = lookup::balanced(&pairs, |i| base + i as u64 * 32);
    for (i, node) in nodes.iter().enumerate() {
        // SAFETY: inside the allocation, which nobody else uses yet.
        unsafe { (memory.ptr().as_ptr().cast::<lookup::TreeNode>()).add(i).write(*node) };
    }
    let keys = heap.vec_with(5000, |i| i as u64 * 13).unwrap();
    let mut values = heap.vec_zeroed::<u64>(5000).unwrap();
    let kernel = context.kernel("lookup", lookup::KERNEL.spirv).unwrap();
    let queue = context.queue().unwrap();
    let launch = queue.launch(&kernel, 5000).with_raw(&memory, Access::Read);
    let launch = launch.args((root, keys.reads(), values.writes(), 5000u64, u64::MAX));
    // SAFETY: lookup follows the tree, which is kept, and its two arrays.
    unsafe { launch.submit() }.unwrap().wait().unwrap();
    assert_eq!(values.to_vec().unwrap(), lookup::twin(&pairs, &keys.read().unwrap(), u64::MAX));
    assert!(memory.residency().iter().all(|run| run.extent.len > 0));
    memory.prefetch(Side::Host).unwrap();
}

#[test]
fn forgotten_and_dropped_events_lose_nothing() {
    let Some(context) = common::context("events", common::builder()) else { return };
    let kernel = context.kernel("copy", copy::KERNEL.spirv).unwrap();
    let queue = context.queue().unwrap();
    let n = 1 << 20;
    let source = context.heap().vec_with(n, |i| i as u32).unwrap();
    let mut target = context.heap().vec_zeroed::<u32>(n).unwrap();
    let launch = queue.launch(&kernel, n as u64 / copy::ITEMS);
    let launch = launch.args((target.writes(), source.reads(), n as u64));
    // SAFETY: copy reads and writes `n` words.
    std::mem::forget(unsafe { launch.submit() }.unwrap());
    drop(source);
    assert!(target.read().unwrap().iter().enumerate().all(|(i, word)| *word == i as u32));
    assert!(context.heap().counters().launches >= 1);
}
