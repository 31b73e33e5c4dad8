//! A guard for writing is taken while a launch to be reads the same vector.
//! expect: E0502

use limosa::{Context, Result};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    let launch = queue.launch(&kernel, 1).arg(vec.reads());
    vec.write()?[0] = 1;
    // SAFETY: none: this must not compile.
    unsafe { launch.submit()? }.wait()
}
