//! Memory is under direct I/O while a launch writes it.
//! expect: E0502

use limosa::{Context, Result};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    let pin = vec.host_pin()?;
    let launch = queue.launch(&kernel, 1).with(vec.reads());
    // SAFETY: none: this must not compile.
    unsafe { launch.submit()? }.wait()?;
    println!("{}", pin[0]);
    Ok(())
}
