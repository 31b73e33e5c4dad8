//! malloc → migrate → GPU → CPU: ordinary vectors, moved to the device's memory, computed on by a kernel where they are,
//! and read by the CPU, which brings them back. Any pointer of the CPU's is good in the kernel.
//!
//! It needs the kernel module, so it runs in the guest: `cargo xtask guest -- compute::the_example`; elsewhere it
//! says so and ends. It stands here and not among the examples of the public crate, since that does not use the module
//! yet: what it uses are the module's client (`limosa_os::shim`) and kernels (`limosa_gpu`) by themselves.

use std::error::Error;
use std::sync::Arc;

use limosa_gpu::{
    Device, DeviceChoice, DeviceKind, ImportedRange, Instance, Kernel, Queue, QueueOptions, Source, Submission,
    Translation,
};
use limosa_model::{HostAddr, HostRange};
use limosa_os::shim::{self, Place, Policy, Scope, Shim, whole_pages};
use limosa_shaders::saxpy;

/// Not a multiple of anything.
const N: u16 = 50_021;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let Some(number) = shim::devices().first().copied() else {
        println!("SKIP malloc: there is no /dev/limosaN: the kernel module is not loaded");
        return Ok(());
    };
    let device = Shim::open(number)?;
    let info = device.info()?;
    println!("/dev/limosa{number}: {} MiB of device memory", info.private.bytes >> 20);

    // malloc
    let x: Vec<f32> = (0..N).map(f32::from).collect();
    let mut y: Vec<f32> = (0..N).map(|i| 2.0 * f32::from(i)).collect();

    // migrate
    for (name, vector) in [("x", &x), ("y", &y)] {
        let range = whole_pages(vector, info.page_size);
        let moved = device.migrate(range, Place::Private)?;
        println!("{name}: {} pages moved; now {:?}", moved.moved, device.residency(range)?.pages);
    }

    // GPU
    let range = around(&[&x, &y], info.page_size);
    // SAFETY: saxpy reads `x` and writes `y`, `N` elements each, which nobody else uses until it has returned.
    unsafe { run_saxpy(&device, range, [y.as_mut_ptr().addr(), x.as_ptr().addr()])? };
    println!("the kernel is done; y is {:?}", device.residency(whole_pages(&y, info.page_size))?.pages);

    // CPU
    let wrong = y.iter().zip(0..N).filter(|(y, i)| **y != 5.0 * f32::from(*i)).count();
    let counters = device.counters(Scope::File)?;
    println!("y[7] = {}; the CPU took {} faults for {} pages", y[7], counters.cpu_faults, counters.cpu_fault_pages);
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} of {N} elements are wrong").into()) }
}

/// The least range of whole pages that has all of these in it. What else lies there does not matter.
fn around(vectors: &[&Vec<f32>], page: u64) -> HostRange {
    let starts = vectors.iter().map(|vector| vector.as_ptr().addr() as u64);
    let ends = vectors.iter().map(|vector| vector.as_ptr_range().end.addr() as u64);
    let start = starts.min().unwrap_or(0) / page * page;
    HostRange { start: HostAddr(start), len: ends.max().unwrap_or(start).next_multiple_of(page) - start }
}

/// Runs `y = 3 x + y` on a software GPU that reaches `range` through a view.
///
/// # Safety
/// `y` and `x` are arrays of `N` elements within `range`, which nobody else writes meanwhile, nor reads `y`.
unsafe fn run_saxpy(device: &Shim, range: HostRange, [y, x]: [usize; 2]) -> Result<(), Box<dyn Error>> {
    let view = device.view(range, Policy::Migrate)?;
    let instance = Instance::new()?;
    let gpu = Device::open(&instance, instance.choose(&DeviceChoice::Kind(DeviceKind::Cpu))?)?;
    // SAFETY: the view outlives it, and the kernel module serves what the GPU's threads touch.
    let window = unsafe { ImportedRange::new(&gpu, view.range())? };
    // What is added to a pointer to reach it through the view.
    let translation = Translation::Delta(window.base().delta_from(view.mirrored().start));

    let words = saxpy::KERNEL.words();
    let source = Source { name: saxpy::KERNEL.name, words: &words, entry: "main", constants: &[] };
    let kernel = Kernel::new(&gpu, &source, translation)?;
    let groups = kernel.groups_for(u64::from(N))?;
    let arguments = [translation.word(), y as u64, x as u64, u64::from(N), u64::from(3f32.to_bits())];
    let arguments = arguments.into_iter().flat_map(u64::to_ne_bytes).collect();
    let queue = Queue::new(&gpu, QueueOptions::default())?;
    let submission = Submission { kernel: Arc::clone(&kernel), groups, arguments, keep: Box::new(()), span: None };
    // SAFETY: it is waited for here, and the caller keeps the arrays.
    let ticket = unsafe { queue.submit(submission, Vec::new()) }.map_err(|refused| refused.error)?;
    queue.wait(ticket)?;
    Ok(())
}
