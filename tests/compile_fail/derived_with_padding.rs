//! Bytes that nobody initialises.
//! expect: has padding

use limosa::Shareable;

#[derive(Clone, Copy, Shareable)]
#[repr(C)]
struct Gap {
    small: u32,
    large: u64,
}

fn main() {}
