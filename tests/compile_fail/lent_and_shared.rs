//! A launch is lent what other handles of this thread reach, too.
//! expect: E0277

use std::rc::Rc;

use allocator_api2::vec::Vec;
use limosa::{Context, GpuPtr, Result};
use limosa_shaders::fill;

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let allocator = context.heap().allocator();
    let mut words = Vec::new_in(allocator.clone());
    words.resize(1000, 0u32);
    let to = GpuPtr::<u32>::from_address(words.as_ptr() as u64);
    let launch = queue.launch(&kernel, 1).args((to, 1000u64, 1u32, 0u32));
    let words = Rc::new(words);
    // SAFETY: none: this must not compile.
    let lent = unsafe { launch.lend(Rc::clone(&words), &allocator).submit() }?;
    println!("{}", words[0]);
    lent.wait()?;
    Ok(())
}
