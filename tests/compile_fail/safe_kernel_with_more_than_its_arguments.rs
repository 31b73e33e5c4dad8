//! What was not promised is overwritten beside what was.
//! expect: E0599

use limosa::{Context, Result, Writes};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    let mut other = context.heap().vec_zeroed::<u32>(1024)?;
    // SAFETY: fill writes `count` words.
    let fill = unsafe { kernel.promise::<(Writes<u32>, u64, u32)>("", |(vec, count, _)| *count <= vec.len() as u64)? };
    queue.launch(&fill, 1).args((vec.writes(), 1, 1)).with(other.overwrites()).submit()?.wait()
}
