//! One part of a vector is lent for writing twice.
//! expect: E0382

use limosa::{Context, Result};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    let part = vec.slice_mut(0..512)?;
    let launch = queue.launch(&kernel, 1).args((part.writes(), 1u64, 1u32)).with(part.writes());
    // SAFETY: none: this must not compile.
    unsafe { launch.submit()? }.wait()
}
