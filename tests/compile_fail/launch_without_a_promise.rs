//! What a kernel touches is promised with `unsafe` only.
//! expect: E0133

use limosa::{Context, Result};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    queue.launch(&kernel, 1).arg(vec.writes()).submit()?.wait()
}
