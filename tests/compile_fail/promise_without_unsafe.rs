//! Promising what a kernel does is unsafe.
//! expect: E0133

use limosa::{Context, Result, Writes};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    let fill = kernel.promise::<(Writes<u32>, u64, u32)>("", |_| true)?;
    queue.launch(&fill, 1).args((vec.writes(), 1, 1)).submit()?.wait()
}
