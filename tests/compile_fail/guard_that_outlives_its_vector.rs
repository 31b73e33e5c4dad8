//! A guard is used after its vector is gone.
//! expect: E0505

use limosa::{Context, Result};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    let guard = vec.read()?;
    drop(vec);
    println!("{}", guard[0]);
    vec = context.heap().vec_zeroed(1)?;
    queue.launch(&kernel, 1).arg(vec.reads());
    Ok(())
}
