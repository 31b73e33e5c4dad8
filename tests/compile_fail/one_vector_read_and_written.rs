//! One vector is given to be read and to be overwritten.
//! expect: E0502

use limosa::{Context, Result};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    let launch = queue.launch(&kernel, 1).args((vec.reads(), vec.overwrites()));
    // SAFETY: none: this must not compile.
    unsafe { launch.submit()? }.wait()
}
