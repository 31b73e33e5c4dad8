//! NVMe → device memory → GPU → CPU, without system RAM, in both ways that there are: a pool, which is memory on the
//! device for reads and writes of files, and a load, which makes ordinary memory stand there.
//!
//! It needs the kernel module and a disk that reaches the device, so it runs in the guest: `cargo xtask guest --
//! compute::the_example`; elsewhere it says so and ends. `nvme FILE` uses that file or disk, and **overwrites it**.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use limosa_gpu::{
    Device, DeviceChoice, DeviceKind, ImportedRange, Instance, Kernel, Queue, QueueOptions, Source, Submission,
    Translation,
};
use limosa_model::HostRange;
use limosa_os::shim::{self, Direction, Pages, Policy, Scope, Shim, Transfers, Verdict};
use limosa_shaders::saxpy;

/// Elements of x, and of y behind it.
const N: u16 = 50_176;
const BYTES: u64 = 2 * 4 * N as u64;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().nth(1).unwrap_or_else(|| "/run/limosa-data".into()))
}

/// The whole of it, with the file or disk of that name.
pub(crate) fn run(path: &str) -> Result<(), Box<dyn Error>> {
    let Some(number) = shim::devices().first().copied() else {
        println!("SKIP nvme: there is no /dev/limosaN: the kernel module is not loaded");
        return Ok(());
    };
    let device = Shim::open(number)?;
    let file = write(path)?;
    let probe = device.probe(&file, Direction::FromFile)?;
    println!("{path} → /dev/limosa{number}: {probe}");
    if probe.verdict != Verdict::Direct {
        return Err("that is not what this example is about".into());
    }
    by_pool(&device, &file)?;
    by_load(&device, &file)
}

/// x = 0, 1, 2 … and y = 0, 2, 4 … to a file, which is then open for direct reads.
fn write(path: &str) -> Result<File, Box<dyn Error>> {
    let x = (0..N).map(f32::from);
    let y = (0..N).map(|i| 2.0 * f32::from(i));
    let bytes: Vec<u8> = x.chain(y).flat_map(f32::to_ne_bytes).collect();
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    Ok(OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?)
}

fn by_pool(device: &Shim, file: &File) -> Result<(), Box<dyn Error>> {
    // NVMe → device memory, in two transfers at a time
    let (x, y) = device.pool(BYTES)?.map()?.split_at(BYTES / 2);
    let all = HostRange { start: x.range().start, len: BYTES };
    let mut transfers = Transfers::new(2)?;
    transfers.read(x, file, 0)?;
    transfers.read(y, file, BYTES / 2)?;
    let mut windows = Vec::new();
    while let Some(done) = transfers.wait()? {
        println!("pool: {} bytes from byte {} on", done.result?, done.offset);
        windows.push(done.window);
    }

    // GPU
    // SAFETY: it reaches the two windows, which are whole and kept; nobody else uses them.
    unsafe { run_saxpy(all, all)? };

    // CPU
    windows.sort_by_key(|window| window.range().start.0);
    let mut y = vec![0; windows[1].range().len.try_into()?];
    windows[1].copy_out(0, &mut y);
    verify(&y)
}

fn by_load(device: &Shim, file: &File) -> Result<(), Box<dyn Error>> {
    // NVMe → ordinary memory, which is on the device
    let mut memory = Pages::new(BYTES, device.info()?.page_size)?;
    let loaded = device.load(&mut memory, file, 0)?;
    println!("load: {} bytes; {:?}", loaded.bytes, device.residency(memory.range())?.pages);

    // GPU
    let view = device.view(memory.range(), Policy::Map)?;
    // SAFETY: the view shows all of the memory; nobody else uses it.
    unsafe { run_saxpy(view.range(), memory.range())? };
    drop(view);

    // CPU
    verify(&memory[memory.len() / 2..])?;
    let counters = device.counters(Scope::File)?;
    println!("the CPU took {} faults for {} pages", counters.cpu_faults, counters.cpu_fault_pages);
    Ok(())
}

/// y = 3 x + y made 0, 5, 10 … of it.
fn verify(y: &[u8]) -> Result<(), Box<dyn Error>> {
    let y = y.chunks_exact(4).map(|bytes| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let wrong = y.zip(0..N).filter(|(y, i)| *y != 5.0 * f32::from(*i)).count();
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} of {N} elements are wrong").into()) }
}

/// Runs `y = 3 x + y` on a software GPU for the arrays in `memory`, which it reaches at `seen`.
///
/// # Safety
/// `seen` is mapped, and shows the `N` elements of x and those of y behind it; nobody else uses them meanwhile.
unsafe fn run_saxpy(seen: HostRange, memory: HostRange) -> Result<(), Box<dyn Error>> {
    let instance = Instance::new()?;
    let gpu = Device::open(&instance, instance.choose(&DeviceChoice::Kind(DeviceKind::Cpu))?)?;
    // SAFETY: mapped for longer, the caller says.
    let window = unsafe { ImportedRange::new(&gpu, seen)? };
    // What is added to a pointer into the memory to reach it from the GPU.
    let translation = Translation::Delta(window.base().delta_from(memory.start));
    let words = saxpy::KERNEL.words();
    let source = Source { name: saxpy::KERNEL.name, words: &words, entry: "main", constants: &[] };
    let kernel = Kernel::new(&gpu, &source, translation)?;
    let groups = kernel.groups_for(u64::from(N))?;
    let (x, y) = (memory.start.0, memory.start.0 + BYTES / 2);
    let arguments = [translation.word(), y, x, u64::from(N), u64::from(3f32.to_bits())];
    let arguments = arguments.into_iter().flat_map(u64::to_ne_bytes).collect();
    let queue = Queue::new(&gpu, QueueOptions::default())?;
    let submission = Submission { kernel: Arc::clone(&kernel), groups, arguments, keep: Box::new(()), span: None };
    // SAFETY: it is waited for here, and the caller keeps the arrays.
    let ticket = unsafe { queue.submit(submission, Vec::new()) }.map_err(|refused| refused.error)?;
    queue.wait(ticket)?;
    Ok(())
}
