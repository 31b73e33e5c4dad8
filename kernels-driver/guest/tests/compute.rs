//! Compute kernels on malloc'ed memory: lavapipe's threads are the GPU, the view is its page table, and a pointer of the
//! CPU's is good on both sides but for the view's delta.
#![allow(clippy::unwrap_used)] // tests

mod common;
#[path = "../examples/malloc.rs"]
mod malloc;
#[allow(dead_code)] // its main takes a file's name
#[path = "../examples/nvme.rs"]
mod nvme;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::gpu::Gpu;
use common::{Since, device};
use limosa_model::{HostAddr, HostRange};
use limosa_os::shim::{Place, Policy, whole_pages};
use limosa_shaders::{fill, histogram, triad};

const COUNT: usize = 1 << 16;
const PAGE: u64 = 4096;

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr().addr() as u64
}

/// The least range of whole pages that has all of these in it.
fn around(parts: &[(u64, usize)]) -> HostRange {
    let start = parts.iter().map(|(start, _)| start / PAGE * PAGE).min().unwrap();
    let end = parts.iter().map(|(start, len)| (start + *len as u64).next_multiple_of(PAGE)).max().unwrap();
    HostRange { start: HostAddr(start), len: end - start }
}

/// The bits of a small whole number as an f32.
fn float(number: usize) -> f32 {
    f32::from(u16::try_from(number % 1000).unwrap())
}

#[test]
fn the_example_verifies_its_result() {
    malloc::main().unwrap();
}

#[test]
fn the_example_of_files_verifies_its_result() {
    nvme::run("/run/limosa-data").unwrap();
}

#[test]
fn a_kernel_computes_on_vectors_of_plain_malloc() {
    let shim = device();
    let mut a = vec![0f32; COUNT];
    let b: Vec<f32> = (0..COUNT).map(float).collect();
    let c: Vec<f32> = (0..COUNT).map(|i| 2.0 * float(i)).collect();
    let bytes = COUNT * 4;
    let range = around(&[(address(&a), bytes), (address(&b), bytes), (address(&c), bytes)]);
    let view = shim.view(range, Policy::Map).unwrap();
    let Some(gpu) = Gpu::over("a_kernel_computes_on_vectors_of_plain_malloc", &view) else { return };
    let kernel = gpu.kernel(triad::KERNEL);
    for policy in [Policy::Map, Policy::Migrate] {
        view.set_policy(range, policy).unwrap();
        // Away from where the view has it, and what the CPU writes is back.
        for vector in [&a, &b] {
            shim.migrate(whole_pages(vector, PAGE), Place::Private).unwrap();
        }
        a.fill(0.0);
        let since = Since::now(&shim);
        // The last word is the f32 3.0, and padding.
        let factor = u64::from(3f32.to_bits());
        let arguments = [a.as_mut_ptr().addr() as u64, address(&b), address(&c), COUNT as u64, factor];
        gpu.run(&kernel, &arguments);
        let counted = since.counted();
        assert!(counted.gpu_faults > 0 && counted.cpu_faults == 0, "{counted:?}");
        let there = shim.residency(whole_pages(&a, PAGE)).unwrap().pages;
        assert_eq!(there.private > 0, policy == Policy::Migrate, "{there:?}");
        // What a kernel has once used it finds again without a fault.
        let since = Since::now(&shim);
        gpu.run(&kernel, &arguments);
        assert_eq!(since.counted().gpu_faults, 0, "{policy:?}: {:?}", since.counted());
        let wrong = (0..COUNT).find(|i| a[*i] != 7.0 * float(*i));
        assert_eq!(wrong, None, "{policy:?}: {:?}", wrong.map(|i| a[i]));
    }
}

#[test]
fn a_kernel_and_cpu_threads_add_to_the_same_counts_while_pages_move() {
    const LAUNCHES: u64 = 2;
    let shim = device();
    let bytes: Vec<u8> = (0..COUNT).map(|i| u8::try_from(i * i % 251).unwrap()).collect();
    let counts: Vec<AtomicU64> = (0..histogram::COUNTS).map(|_| AtomicU64::new(0)).collect();
    let range = around(&[(address(&bytes), bytes.len()), (address(&counts), histogram::COUNTS * 8)]);
    let view = shim.view(range, Policy::Map).unwrap();
    let Some(gpu) = Gpu::over("a_kernel_and_cpu_threads_add_to_the_same_counts", &view) else { return };
    let kernel = gpu.kernel(histogram::KERNEL);
    let arguments = [address(&bytes), bytes.len() as u64, address(&counts)];
    // The driver compiles it at its first launch, which takes longer than all the rest.
    gpu.run(&kernel, &arguments);
    for policy in [Policy::Map, Policy::Migrate] {
        view.set_policy(range, policy).unwrap();
        counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        let since = Since::now(&shim);
        let done = AtomicBool::new(false);
        let added: u64 = std::thread::scope(|scope| {
            let (shim, counts, done, bytes) = (&shim, &counts, &done, &bytes);
            let adder = scope.spawn(move || {
                let mut rounds = 0;
                while !done.load(Ordering::Relaxed) {
                    for count in counts {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    rounds += 1;
                }
                rounds
            });
            let mover = scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    for to in [Place::Private, Place::System] {
                        // The page of the counts, with whatever malloc has beside them.
                        let start = HostAddr(address(counts) / PAGE * PAGE);
                        shim.migrate(HostRange { start, len: PAGE }, to).unwrap();
                        shim.migrate(whole_pages(bytes, PAGE), to).unwrap();
                    }
                }
            });
            (0..LAUNCHES).for_each(|_| gpu.run(&kernel, &arguments));
            done.store(true, Ordering::Relaxed);
            mover.join().unwrap();
            adder.join().unwrap()
        });
        let counted = since.counted();
        assert!(counted.gpu_faults > 0 && counted.pages_to_device > 0, "nothing moved: {counted:?}");
        let mut twin = [0u64; histogram::COUNTS];
        histogram::twin(&bytes, &mut twin);
        let expected: Vec<u64> = twin.iter().map(|count| count * LAUNCHES + added).collect();
        let found: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(found, expected, "{policy:?}, {added} rounds of the CPU's, {counted:?}");
    }
}

#[test]
fn a_kernel_writes_memory_that_nobody_touched_before_on_the_device() {
    let shim = device();
    let memory = common::memory::Memory::huge(2);
    let view = shim.view(memory.range(), Policy::Migrate).unwrap();
    let Some(gpu) = Gpu::over("a_kernel_writes_memory_that_nobody_touched_before", &view) else { return };
    let since = Since::now(&shim);
    let words = memory.range().len / 4;
    gpu.run(&gpu.kernel(fill::KERNEL), &[memory.range().start.0, words, 0x0bad_cafe]);
    let counted = since.counted();
    assert_eq!((counted.pages_to_device, counted.pages_to_system), (1024, 0), "{counted:?}");
    memory.is_in(&shim, Some(Place::Private));
    for page in 0..1024 {
        assert_eq!(memory.word(page, 7).load(Ordering::Relaxed), 0x0bad_cafe_0bad_cafe);
    }
}
