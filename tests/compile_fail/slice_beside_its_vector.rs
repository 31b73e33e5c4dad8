//! A vector is read while a part of it is written.
//! expect: E0502

use limosa::{Context, Result};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    let part = vec.slice_mut(0..512)?;
    let launch = queue.launch(&kernel, 1).arg(vec.reads()).with(part.writes());
    // SAFETY: none: this must not compile.
    unsafe { launch.submit()? }.wait()
}
