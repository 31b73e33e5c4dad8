//! A launch writes what a guard still reads.
//! expect: E0502

use limosa::{Context, Result};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    let guard = vec.read()?;
    let launch = queue.launch(&kernel, 1).arg(vec.writes());
    // SAFETY: none: this must not compile.
    unsafe { launch.submit()? }.wait()?;
    println!("{}", guard[0]);
    Ok(())
}
