//! The smallest complete program: `y = a x + y` on the GPU, over memory that the CPU filled and reads afterwards.

use std::error::Error;

use limosa::{Context, Reads, Writes};
use limosa_shaders::saxpy;

/// Not a multiple of anything: the kernel compares with the count.
const N: u32 = 1_000_003;

/// What the kernel takes: y, x, the number of elements, a.
type Saxpy = (Writes<f32>, Reads<f32>, u64, f32);

fn main() -> Result<(), Box<dyn Error>> {
    let context = Context::new()?;
    let heap = context.heap();
    // Small whole numbers, which an f32 holds exactly.
    let element = |i: usize| u16::try_from(i % 1000).map_or(0.0, f32::from);
    let x = heap.vec_with(N as usize, element)?;
    let mut y = heap.vec_with(N as usize, |i| 2.0 * element(i))?;
    println!("on {}, class {:?}", context.adapter().name, context.device_class());
    println!("filled by the CPU:  y is {:?}", y.residency_summary());

    let kernel = context.kernel("saxpy", saxpy::KERNEL.spirv)?;
    // SAFETY: saxpy reads and writes the first `count` elements of `y`, reads those of `x`, and touches nothing else.
    let kernel = unsafe {
        kernel.promise::<Saxpy>("y and x have `count` elements", |(y, x, count, _)| {
            *count <= y.len().min(x.len()) as u64
        })?
    };
    let queue = context.queue()?;
    let event =
        queue.launch(&kernel, u64::from(N) / saxpy::ITEMS).args((y.writes(), x.reads(), u64::from(N), 3.0)).submit()?;
    event.wait()?;
    println!("after the kernel:   y is {:?}", y.residency_summary());

    let wrong = y.read()?.iter().enumerate().filter(|(i, y)| **y != 5.0 * element(*i)).count();
    println!("read by the CPU:    y is {:?}", y.residency_summary());
    println!("y[7] = {}, {wrong} of {N} elements wrong", y.read()?[7]);
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} elements are wrong").into()) }
}
