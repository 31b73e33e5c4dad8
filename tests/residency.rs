//! Where data is, by limosa's word, by its counters and by the kernel's page tables; and what a heap costs unused.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::builder;
use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, child, is_child, settle, told, turn};
use limosa::inject::pagemap;
use limosa::{Copies, Counters, FaultMode, Heap, ResidencySummary, Side, UnifiedVec};

const PAGES: usize = 16;

/// For each block of `vec`, whether the page tables have any, and all, of its pages for the CPU and for the GPU.
fn page_tables(heap: &Heap, vec: &UnifiedVec<u32>) -> Vec<[(bool, bool); 2]> {
    let extent = vec.raw().extent();
    let blocks = usize::try_from(extent.len.div_ceil(BLOCK)).unwrap();
    let [cpu, gpu] = [heap.range(), heap.device_range().unwrap()].map(|range| {
        let pages = pagemap::mapped(range.start.offset(extent.start), blocks * PAGES).unwrap();
        let block = |pages: &[bool]| (pages.iter().any(|page| *page), pages.iter().all(|page| *page));
        pages.chunks(PAGES).map(block).collect::<Vec<_>>()
    });
    cpu.into_iter().zip(gpu).map(|(cpu, gpu)| [cpu, gpu]).collect()
}

/// The page tables must not let a side touch what it does not hold, whatever `residency` says; with huge pages they
/// may lack more than they must.
fn tables_agree(heap: &Heap, vec: &UnifiedVec<u32>, when: &str) {
    settle(vec);
    let tables = page_tables(heap, vec);
    let first = vec.raw().extent().start / BLOCK;
    let mut seen = 0;
    for run in vec.residency() {
        for block in run.extent.start / BLOCK..run.extent.end() / BLOCK {
            let [(cpu, _), (gpu, _)] = tables[usize::try_from(block - first).unwrap()];
            let (host, device) = match run.state.copies {
                Copies::Current { host, device, .. } => (host, device),
                _ => (false, false),
            };
            assert!(host || !cpu, "{when}: block {block} is not on the host, but mapped there: {run:?}");
            assert!(device || !gpu, "{when}: block {block} is not on the device, but mapped there: {run:?}");
            seen += 1;
        }
    }
    assert_eq!(seen, tables.len(), "residency covers every block");
}

fn summary(vec: &UnifiedVec<u32>) -> [u64; 4] {
    settle(vec);
    let ResidencySummary { host, device, both, zero, poisoned, shared } = vec.residency_summary();
    assert_eq!((poisoned, shared), (0, 0));
    [host, device, both, zero].map(|bytes| bytes / BLOCK)
}

/// Faults by cpu read, cpu write, gpu read, gpu write; then blocks to the device and to the host.
fn events(heap: &Heap, before: &mut Counters) -> ([bool; 4], [u64; 2]) {
    let now = heap.counters();
    let new = now.since(before);
    *before = now;
    let faults = [new.cpu_read_faults, new.cpu_write_faults, new.gpu_read_faults, new.gpu_write_faults];
    (faults.map(|count| count > 0), [new.blocks_to_device, new.blocks_to_host])
}

#[test]
fn every_access_moves_what_it_must_and_nothing_else() {
    const N: u64 = 40;
    let _turn = turn("transitions");
    for mode in [FaultMode::HandlerThread, FaultMode::InThread] {
        let Some(kit) = Kit::new("transitions", builder().fault_mode(mode)) else { return };
        let heap = kit.heap();
        // What results go to is in place before anything is counted.
        let _small = heap.boxed(0u64).unwrap();
        let blocks = usize::try_from(N).unwrap();
        let mut vec = heap.vec_zeroed::<u32>(blocks * BLOCK_WORDS).unwrap();
        let mut at = heap.counters();
        let mut step = |vec: &UnifiedVec<u32>, what: &str, state: [u64; 4], faults: [bool; 4], moved: [u64; 2]| {
            assert_eq!(summary(vec), state, "{mode:?}: {what}: host, device, both, zero");
            assert_eq!(events(heap, &mut at), (faults, moved), "{mode:?}: {what}");
            tables_agree(heap, vec, what);
        };
        let touch =
            |vec: &UnifiedVec<u32>| vec.read().unwrap().iter().step_by(1024).map(|x| u64::from(*x)).sum::<u64>();
        step(&vec, "allocated", [0, 0, 0, N], [false; 4], [0, 0]);
        assert_eq!(touch(&vec), 0);
        step(&vec, "read by the CPU", [N, 0, 0, 0], [true, false, false, false], [0, 0]);
        vec.write().unwrap().fill(1);
        step(&vec, "written by the CPU", [N, 0, 0, 0], [false; 4], [0, 0]);
        vec.prefetch_to_device().unwrap();
        step(&vec, "prefetched to the device", [0, N, 0, 0], [false; 4], [N, 0]);
        vec.prefetch_to_device().unwrap();
        step(&vec, "prefetched to the device again", [0, N, 0, 0], [false; 4], [0, 0]);
        assert_eq!(touch(&vec), N * 16);
        step(&vec, "read by the CPU where the GPU had it", [0, 0, N, 0], [true, false, false, false], [0, N]);
        vec.write().unwrap().chunks_mut(BLOCK_WORDS).for_each(|block| block[0] = 2);
        step(&vec, "written by the CPU again", [N, 0, 0, 0], [false, true, false, false], [0, 0]);
        kit.fill(&mut vec, 3).unwrap().wait().unwrap();
        step(&vec, "written by the GPU", [0, N, 0, 0], [false; 4], [N, 0]);
        kit.fill(&mut vec, 4).unwrap().wait().unwrap();
        step(&vec, "written by the GPU again", [0, N, 0, 0], [false; 4], [0, 0]);
        vec.prefetch_to_host().unwrap();
        step(&vec, "prefetched to the host", [N, 0, 0, 0], [false; 4], [0, N]);
        assert_eq!(touch(&vec), N * 16 * 4);
        vec.write().unwrap().chunks_mut(BLOCK_WORDS).for_each(|block| block[0] = 4);
        step(&vec, "read and written there", [N, 0, 0, 0], [false; 4], [0, 0]);
        kit.sum(&vec).unwrap();
        step(&vec, "read by the GPU", [0, 0, N, 0], [true, false, false, false], [N + 1, 1]);
        kit.fill(&mut vec, 5).unwrap().wait().unwrap();
        step(&vec, "written by the GPU where both had it", [0, N, 0, 0], [false; 4], [0, 0]);
        vec.write().unwrap().chunks_mut(BLOCK_WORDS).for_each(|block| block[0] = 6);
        step(&vec, "written by the CPU where the GPU had it", [N, 0, 0, 0], [false, true, false, false], [0, N]);
        assert!(vec.read().unwrap().chunks(BLOCK_WORDS).all(|block| block[0] == 6 && block[1] == 5));
    }
}

#[test]
fn a_kernel_that_reads_brings_copies_and_leaves_the_others() {
    let _turn = turn("kernel reads");
    let Some(kit) = Kit::new("kernel reads", builder()) else { return };
    let heap = kit.heap();
    let vec = heap.vec_with(35 * BLOCK_WORDS, |_| 2u32).unwrap();
    assert_eq!(kit.sum(&vec).unwrap(), 70 * BLOCK_WORDS as u64);
    assert_eq!(summary(&vec), [0, 0, 35, 0]);
    tables_agree(heap, &vec, "read by a kernel");
    let before = heap.counters();
    assert_eq!(kit.sum(&vec).unwrap(), 70 * BLOCK_WORDS as u64);
    let again = heap.counters().since(&before);
    assert_eq!(again.gpu_read_faults, 0, "what it writes is the result: {again:?}");
    assert!(vec.read().unwrap().iter().all(|word| *word == 2));
    assert_eq!(summary(&vec), [0, 0, 35, 0]);
    // Zeros are made where they are needed, not moved.
    let zeros = heap.vec_zeroed::<u32>(20 * BLOCK_WORDS).unwrap();
    assert_eq!(kit.sum(&zeros).unwrap(), 0);
    assert_eq!(summary(&zeros), [0, 20, 0, 0]);
    tables_agree(heap, &zeros, "zeros read by a kernel");
}

#[test]
fn prefetched_ranges_are_whole_blocks_and_no_more() {
    let _turn = turn("ranges");
    let Some(kit) = Kit::new("ranges", builder()) else { return };
    let heap = kit.heap();
    let vec = heap.vec_with(80 * BLOCK_WORDS, |i| u32::try_from(i).unwrap()).unwrap();
    let words = BLOCK_WORDS;
    let cases = [
        (0..1, 0..1),
        (words - 1..words + 1, 0..2),
        (30 * words..35 * words, 30..35),
        (79 * words + 3..80 * words, 79..80),
    ];
    for (range, blocks) in cases {
        vec.prefetch_range(Side::Device, range.clone()).unwrap();
        tables_agree(heap, &vec, "part on the device");
        let first = vec.raw().extent().start / BLOCK;
        for run in vec.residency() {
            let device = matches!(run.state.copies, Copies::Current { device: true, .. });
            for block in run.extent.start / BLOCK - first..run.extent.end() / BLOCK - first {
                assert_eq!(device, blocks.contains(&block), "{range:?}: block {block}");
            }
        }
        // Back to the host alone.
        let start = vec.ptr(0).address() + blocks.start * BLOCK;
        for block in 0..blocks.end - blocks.start {
            let word = (start + block * BLOCK) as *mut u32;
            // SAFETY: inside the vector, to which no reference exists.
            unsafe { word.write_volatile(word.read_volatile()) };
        }
        assert_eq!(summary(&vec), [80, 0, 0, 0]);
    }
    vec.prefetch_range(Side::Device, 5..5).unwrap();
    assert_eq!(summary(&vec), [80, 0, 0, 0]);
    assert!(vec.read().unwrap().iter().enumerate().all(|(i, word)| usize::try_from(*word) == Ok(i)));
}

#[test]
fn vram_stays_within_the_budget_and_comes_back() {
    let _turn = turn("vram");
    let budget = 24 * MIB;
    let Some(kit) = Kit::new("vram", builder().device_budget(budget)) else { return };
    let heap = kit.heap();
    for round in 0..20u32 {
        let mut vec = heap.vec_zeroed::<u32>((1 + usize::try_from(round % 4).unwrap()) << 20).unwrap();
        kit.fill(&mut vec, round).unwrap().wait().unwrap();
        assert!(heap.device_bytes() <= budget, "round {round}");
        assert!(heap.device_frames_resident().unwrap() <= budget, "round {round}");
        assert!(vec.read().unwrap().iter().all(|word| *word == round));
    }
}

/// Private memory of this process in bytes, and what its page tables take.
fn private() -> [u64; 2] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    ["RssAnon:", "VmPTE:"].map(|key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    })
}

#[test]
fn a_heap_of_64_gib_costs_memory_only_for_what_is_used() {
    const TEST: &str = "a_heap_of_64_gib_costs_memory_only_for_what_is_used";
    let _turn = turn(TEST);
    if is_child("metadata") {
        // The first context pays for the driver; what the second pays, any context does.
        let Some(_first) = common::context(TEST, builder()) else { return println!("measured") };
        let open = |bytes: u64| {
            let before = private();
            let context = common::context(TEST, builder().heap_size(bytes)).unwrap();
            let after = private();
            ([0, 1].map(|i| after[i].saturating_sub(before[i])), context)
        };
        let (any, _small) = open(64 * MIB);
        let (grown, large) = open(64 << 30);
        eprintln!("memory and page tables grew by {any:?} for 64 MiB, by {grown:?} for 64 GiB");
        assert!(large.heap().range().len == 64 << 30);
        assert!(grown[0] < any[0] + 4 * MIB && grown[1] < any[1] + MIB);
        assert!(large.heap().host_bytes() <= 16 * MIB && large.heap().device_bytes() <= 16 * MIB);

        let before = private();
        let used = large.heap().allocate(512 * MIB, 1).unwrap();
        let grown = private()[0].saturating_sub(before[0]);
        assert!(grown <= 512 * MIB / 1000, "{grown} bytes to keep track of 512 MiB");
        drop(used);
        return println!("measured");
    }
    let output = child(TEST, "metadata", |_| ());
    let text = told(&output);
    assert!(output.status.success() && text.contains("measured"), "{text}");
}

#[test]
fn the_last_address_of_a_large_heap_is_like_any_other() {
    let _turn = turn("large");
    let Some(kit) = Kit::new("large", builder().heap_size(64 << 30).device_budget(64 * MIB)) else { return };
    let heap = kit.heap();
    let range = heap.range();
    assert!(heap.residency(range.start.0, range.len).unwrap().len() < 100);
    let last = heap.residency(range.start.0 + range.len - 1, 1).unwrap();
    assert!(last.iter().all(|run| run.state.copies == Copies::Unallocated));
    assert!(heap.poisoned().is_empty());
    kit.works();
}
