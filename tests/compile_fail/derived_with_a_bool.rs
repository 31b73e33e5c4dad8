//! A field of which not all bits are values.
//! expect: E0277

use limosa::Shareable;

#[derive(Clone, Copy, Shareable)]
#[repr(C)]
struct Flagged {
    value: u32,
    flag: bool,
    rest: [u8; 3],
}

fn main() {}
