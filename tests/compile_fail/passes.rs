//! What is like the others and right: that they fail for their own reasons.
//! expect: nothing

use allocator_api2::vec::Vec;
use limosa::{Access, Context, GpuPtr, Result, Shareable, Writes};
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
    let launch = queue.launch(&kernel, 1).args((vec.writes(), 1024u64, 1u32, 0u32));
    // SAFETY: fill writes the words of `vec`.
    unsafe { launch.submit()? }.wait()?;
    vec.write()?[0] = 2;
    // SAFETY: fill writes `count` words.
    let fill = unsafe { kernel.promise::<(Writes<u32>, u64, u32)>("", |(vec, count, _)| *count <= vec.len() as u64)? };
    queue.launch(&fill, 1).args((vec.writes(), 1, 1)).submit()?.wait()?;
    let (mut low, high) = vec.slice_mut(0..1024)?.split_at(512)?;
    let launch = queue.launch(&kernel, 1).args((high.writes(), 512u64, 1u32));
    low.write()?[0] = 3;
    // SAFETY: fill writes the words of `high`.
    unsafe { launch.submit()? }.wait()?;
    low.write()?[1] = 3;
    println!("{}", vec.host_pin()?[0]);

    let allocator = context.heap().allocator();
    let mut words = Vec::new_in(allocator.clone());
    words.resize(1000, 0u32);
    let launch = || {
        let to = GpuPtr::<u32>::from_address(words.as_ptr() as u64);
        queue.launch(&kernel, 1).args((to, 1000u64, 1u32, 0u32))
    };
    let (first, second) = (launch(), launch());
    // SAFETY: fill writes the words of `words`.
    words = unsafe { first.lend_mut(words, &allocator).submit()? }.wait()?;
    limosa::scope(|scope| {
        // SAFETY: as before.
        unsafe { scope.submit(second.with_allocator(&allocator, Access::Write), &mut words) }.map(drop)
    })??;
    words.push(1);
    Ok(())
}
