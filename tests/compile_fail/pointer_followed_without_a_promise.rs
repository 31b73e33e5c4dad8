//! A pointer of both sides is followed like a reference.
//! expect: E0614

use limosa::{Context, Result};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    let pointer = vec.ptr(0);
    queue.launch(&kernel, 1).arg(vec.reads());
    vec.write()?[0] = 1;
    println!("{}", *pointer);
    Ok(())
}
