//! A launch of a scope is lent what ends before the scope does.
//! expect: E0597

use allocator_api2::vec::Vec;
use limosa::{Access, Context, GpuPtr, Result};
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
    limosa::scope(|scope| {
        let inner = words.clone();
        // SAFETY: none: this must not compile.
        unsafe { scope.submit(launch.with_allocator(&allocator, Access::Read), &inner) }.map(drop)
    })??;
    Ok(())
}
