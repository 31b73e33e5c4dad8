//! What is like the others and right: that they fail for their own reasons.
//! expect: nothing

use limosa::{Context, GpuPtr, Result, Shareable};
use limosa_shaders::fill;

#[derive(Clone, Copy, Shareable)]
#[repr(C)]
struct Node<T> {
    next: GpuPtr<Node<T>>,
    first: T,
    second: T,
}

fn main() -> Result<()> {
    let context = Context::new()?;
    let kernel = context.kernel("fill", fill::KERNEL.spirv)?;
    let queue = context.queue()?;
    let mut vec = context.heap().vec_zeroed::<u32>(1024)?;
    let nodes = context.heap().vec_from(&[Node { next: GpuPtr::from_address(0), first: 1u32, second: 2 }])?;
    println!("{} {}", vec.read()?[0], nodes.read()?[0].first + nodes.read()?[0].second);
    let launch = queue.launch(&kernel, 1).writes(&mut vec).value(1024u64).value(1u32).value(0u32);
    // SAFETY: fill writes the words of `vec`.
    unsafe { launch.submit()? }.wait()?;
    vec.write()?[0] = 2;
    println!("{}", vec.host_pin()?[0]);
    Ok(())
}
