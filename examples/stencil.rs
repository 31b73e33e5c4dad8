//! Heat on a plate, some hundred steps from one grid to another and back: data that kernels use again and again stays
//! on the device, and the counters of moves prove it.

use std::error::Error;
use std::time::Instant;

use limosa::{Context, Counters};
use limosa_shaders::stencil;

const SIDE: usize = 512;
const STEPS: usize = 400;
/// How often the CPU looks at one cell.
const LOOK: usize = 100;

fn moves(counters: &Counters) -> String {
    let Counters { blocks_to_device, blocks_to_host, gpu_read_faults, gpu_write_faults, .. } = counters;
    let faults = gpu_read_faults + gpu_write_faults;
    format!("{blocks_to_device:>3} blocks to the device, {blocks_to_host:>2} to the host, {faults} faults of kernels")
}

fn main() -> Result<(), Box<dyn Error>> {
    let context = Context::new()?;
    let heap = context.heap();
    let kernel = context.kernel("stencil", stencil::KERNEL.spirv)?;
    let queue = context.queue()?;

    // The upper rim is hot.
    let heat = |i: usize| if i < SIDE { 100.0f32 } else { 0.0 };
    let mut now = heap.vec_with(SIDE * SIDE, heat)?;
    let mut next = heap.vec_zeroed::<f32>(SIDE * SIDE)?;
    let side = u32::try_from(SIDE)?;

    let (start, mut before) = (Instant::now(), heap.counters());
    for step in 1..=STEPS {
        let launch = queue.launch(&kernel, (SIDE * SIDE) as u64).args((next.overwrites(), now.reads()));
        // SAFETY: stencil writes all of `next` and reads `now`, as declared: both have `SIDE * SIDE` cells.
        let event = unsafe { launch.args((side, side)).submit()? };
        std::mem::swap(&mut now, &mut next);
        // The queue keeps the order, so only who wants to look has to wait.
        if step == 1 || step % LOOK == 0 {
            event.wait()?;
            let counters = heap.counters();
            println!("up to step {step:>3}: {}", moves(&counters.since(&before)));
            before = counters;
        }
        if step % LOOK == 0 && step < STEPS {
            // A look brings a copy of what surrounds the cell; the device keeps its own.
            println!("a look of the CPU: the cell below the rim has {:.3} degrees", now.read()?[SIDE + SIDE / 2]);
        }
    }
    let elapsed = start.elapsed().as_millis();
    println!("{STEPS} steps in {elapsed} ms; the last grid is {:?}", now.residency_summary());

    let mut expected: Vec<f32> = (0..SIDE * SIDE).map(heat).collect();
    let mut other = expected.clone();
    for _ in 0..STEPS {
        stencil::twin(&mut other, &expected, SIDE);
        std::mem::swap(&mut other, &mut expected);
    }
    let wrong = now.read()?.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
    println!("compared with the CPU's, bit by bit: {wrong} cells differ");
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} cells are wrong").into()) }
}
