//! The smallest complete program: `y = a x + y` on the GPU, over memory that the CPU filled and reads afterwards.

use std::error::Error;

use limosa::Context;
use limosa_shaders::saxpy;

/// Not a multiple of anything: the kernel compares with the count.
const N: u32 = 1_000_003;

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
    let queue = context.queue()?;
    let launch = queue.launch(&kernel, u64::from(N) / saxpy::ITEMS).writes(&mut y).reads(&x);
    // SAFETY: saxpy reads and writes the first `N` elements of `y` and reads those of `x`, as declared.
    let event = unsafe { launch.value(u64::from(N)).value(3.0f32).submit()? };
    event.wait()?;
    println!("after the kernel:   y is {:?}", y.residency_summary());

    let wrong = y.read()?.iter().enumerate().filter(|(i, y)| **y != 5.0 * element(*i)).count();
    println!("read by the CPU:    y is {:?}", y.residency_summary());
    println!("y[7] = {}, {wrong} of {N} elements wrong", y.read()?[7]);
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} elements are wrong").into()) }
}
