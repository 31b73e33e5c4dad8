//! A reference to ordinary memory.
//! expect: hold no references

use limosa::Shareable;

#[derive(Clone, Copy, Shareable)]
#[repr(C)]
struct Borrowed<'a> {
    value: &'a u32,
}

fn main() {}
