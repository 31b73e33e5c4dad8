//! An enumeration.
//! expect: structures only

use limosa::Shareable;

#[derive(Clone, Copy, Shareable)]
#[repr(u32)]
enum Choice {
    One,
    Two,
}

fn main() {}
