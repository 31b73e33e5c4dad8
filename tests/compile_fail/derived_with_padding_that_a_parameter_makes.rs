//! Padding that shows only where the type is used.
//! expect: has padding

use limosa::{Context, Result, Shareable};

#[derive(Clone, Copy, Shareable)]
#[repr(C)]
struct Pair<T> {
    first: u32,
    second: T,
}

fn main() -> Result<()> {
    Context::new()?.heap().vec_from(&[Pair { first: 1, second: 2u64 }])?;
    Ok(())
}
