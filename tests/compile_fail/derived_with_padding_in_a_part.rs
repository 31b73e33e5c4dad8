//! Padding in a generic part of a structure.
//! expect: has padding

use limosa::Shareable;

#[derive(Clone, Copy, Shareable)]
#[repr(C)]
struct Pair<T> {
    first: u8,
    second: T,
}

#[derive(Clone, Copy, Shareable)]
#[repr(C)]
struct Outer {
    pair: Pair<u32>,
}

fn main() {}
