//! Two queues and the CPU at once: while a kernel works on one part of the data, the next is brought to the device, and a
//! second queue adds up the part before. Events keep the order that matters. (Kernels of in-order queues take turns on the
//! device: the timeline shows how the prefetches overlap them.)

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use limosa::{Context, Counters, Event, Kernel, Queue, UnifiedVec};
use limosa_shaders::saxpy;

const PARTS: usize = 8;
/// Elements of a part: 4 MiB of them.
const LEN: usize = 1 << 20;
/// Kernels that work on each part.
const STEPS: usize = 6;

/// Small whole numbers, which an f32 holds exactly.
fn element(i: usize) -> f32 {
    u8::try_from(i % 100).map_or(0.0, f32::from)
}

type Part = UnifiedVec<f32>;

/// `y = x + y`, after the launch of `after`.
fn add(queue: &Queue, kernel: &Kernel, y: &mut Part, x: &Part, after: Option<&Event>) -> limosa::Result<Arc<Event>> {
    let launch = queue.launch(kernel, LEN as u64 / saxpy::ITEMS).args((y.writes(), x.reads()));
    let launch = launch.args((LEN as u64, 1.0f32));
    let launch = if let Some(event) = after { launch.after(event) } else { launch };
    // SAFETY: saxpy writes `y` and reads `x`, `LEN` elements each, as declared.
    Ok(Arc::new(unsafe { launch.submit()? }))
}

/// When the launches for a part were submitted, the next part was there, and both queues were done with this one.
type Row = [Duration; 4];

/// Adds `x` to each part some times, and all parts up. Overlapped, nothing is waited for but what must be.
fn run(context: &Context, overlapped: bool) -> limosa::Result<(Vec<f32>, Vec<Row>)> {
    let heap = context.heap();
    let kernel = context.kernel("saxpy", saxpy::KERNEL.spirv)?;
    let (work, sums) = (context.queue()?, context.queue()?);
    let x = heap.vec_with(LEN, element)?;
    let parts = (0..PARTS).map(|part| heap.vec_with(LEN, |i| element(i + part)));
    let mut parts = parts.collect::<limosa::Result<Vec<Part>>>()?;
    let mut sum = heap.vec_zeroed::<f32>(LEN)?;
    x.prefetch_to_device()?;
    parts[0].prefetch_to_device()?;

    let start = Instant::now();
    let rows = std::thread::scope(|scope| -> limosa::Result<Vec<Row>> {
        // A thread for each part notes when its events come.
        let note = |worked: Arc<Event>, added: Arc<Event>| {
            scope.spawn(move || -> limosa::Result<[Duration; 2]> {
                worked.wait()?;
                let worked = start.elapsed();
                added.wait()?;
                Ok([worked, start.elapsed()])
            })
        };
        let mut noted = Vec::new();
        for part in 0..PARTS {
            let launched = start.elapsed();
            let mut worked = add(&work, &kernel, &mut parts[part], &x, None)?;
            for _ in 1..STEPS {
                worked = add(&work, &kernel, &mut parts[part], &x, None)?;
            }
            // The other queue adds the part up once this queue is done with it.
            let added = add(&sums, &kernel, &mut sum, &parts[part], Some(&worked))?;
            let done = note(worked, Arc::clone(&added));
            if !overlapped {
                added.wait()?;
            }
            if let Some(next) = parts.get(part + 1) {
                next.prefetch_to_device()?;
            }
            noted.push((launched, start.elapsed(), done));
        }
        let row = |(launched, prefetched, done): (_, _, std::thread::ScopedJoinHandle<_>)| {
            // A thread that only waits does not panic.
            let [worked, added] = done.join().unwrap_or(Ok([Duration::ZERO; 2]))?;
            Ok([launched, prefetched, worked, added])
        };
        noted.into_iter().map(row).collect()
    })?;
    Ok((sum.to_vec()?, rows))
}

fn main() -> Result<(), Box<dyn Error>> {
    let context = Context::new()?;
    // Memory that is used for the first time has to be had from the system: that is not to be measured.
    run(&context, false)?;
    for overlapped in [false, true] {
        let (sum, rows) = run(&context, overlapped)?;
        let added = |i: usize, part: usize| (0..STEPS).fold(element(i + part), |sum, _| sum + element(i));
        if !sum.iter().enumerate().all(|(i, sum)| *sum == (0..PARTS).map(|part| added(i, part)).sum()) {
            return Err("the sums are not those of the CPU".into());
        }
        let total = rows.last().map_or(Duration::ZERO, |[.., added]| *added);
        if !overlapped {
            println!("in turn: {total:.1?}");
            continue;
        }
        println!("in ms       launched  next part there  work done  added up");
        for (part, row) in rows.iter().enumerate() {
            let [launched, prefetched, worked, added] = row.map(|time| time.as_secs_f64() * 1e3);
            let there = if part + 1 < PARTS { format!("{prefetched:.1}") } else { "-".to_owned() };
            println!("part {part}:{launched:>13.1}{there:>17}{worked:>11.1}{added:>10.1}");
        }
        let prefetches = PARTS - 1;
        let hidden = rows[..prefetches].iter().filter(|[_, prefetched, worked, _]| prefetched < worked).count();
        println!("overlapped: {total:.1?}, {hidden} of {prefetches} prefetches done before the work they were beside");
    }
    let Counters { blocks_to_device, gpu_read_faults, gpu_write_faults, .. } = context.heap().counters();
    let faults = gpu_read_faults + gpu_write_faults;
    println!(
        "{blocks_to_device} blocks moved to the device in all, {faults} faults of kernels, and the sums are right"
    );
    Ok(())
}
