//! The first program of the README: a triad on the GPU over memory that the CPU filled.

use limosa::{Context, Result};
use limosa_shaders::triad;

const N: u16 = u16::MAX;

fn main() -> Result<()> {
    let context = Context::new()?;
    let heap = context.heap();
    let element = |i: usize| u16::try_from(i).map_or(0.0, f32::from);
    let b = heap.vec_with(N.into(), element)?;
    let c = heap.vec_with(N.into(), |i| 2.0 * element(i))?;
    let mut a = heap.vec_zeroed::<f32>(N.into())?;

    let kernel = context.kernel("triad", triad::KERNEL.spirv)?;
    let queue = context.queue()?;
    let launch = queue.launch(&kernel, N.into());
    let launch = launch.args((a.writes(), b.reads(), c.reads(), u64::from(N), 3.0f32));
    // SAFETY: triad writes `a` and reads `b` and `c`, `N` elements each, as declared.
    let event = unsafe { launch.submit()? };
    event.wait()?;

    let wrong = a.read()?.iter().zip(0..N).filter(|(a, i)| **a != 7.0 * f32::from(*i)).count();
    println!("a[7] = {}, {wrong} wrong elements, now {:?}", a.read()?[7], a.residency_summary());
    assert_eq!(wrong, 0);
    Ok(())
}
