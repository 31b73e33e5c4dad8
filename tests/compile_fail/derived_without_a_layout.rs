//! A layout that the compiler may choose.
//! expect: fixed layout

use limosa::Shareable;

#[derive(Clone, Copy, Shareable)]
struct Loose {
    value: u32,
}

fn main() {}
