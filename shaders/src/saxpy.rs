//! `y = a * x + y`, the customary first kernel. Not tuned to any device.
//!
//! Each operation is rounded by itself, as in [`crate::triad`].

use crate::Kernel;

/// How many elements an invocation had best handle.
pub const ITEMS: u64 = 16;

/// The kernel's arguments. Any number of invocations shares the elements; [`ITEMS`] each is fast. Addresses
/// that are multiples of 16 are faster than others.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// What is added to: the address of `count` `f32`.
    pub y: u64,
    /// The address of `count` `f32`.
    pub x: u64,
    /// How many elements.
    pub count: u64,
    /// What `x` is multiplied by.
    pub a: f32,
    /// Not read: it fills the struct to a multiple of 8 bytes.
    pub reserved: u32,
}
assert_layout!(Args, 32, { y: 0, x: 8, count: 16, a: 24, reserved: 28 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("saxpy");

/// What the kernel does, for the elements that both slices have.
pub fn twin(y: &mut [f32], x: &[f32], a: f32) {
    for (y, x) in y.iter_mut().zip(x) {
        // Not mul_add: it would round once.
        *y += a * x;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn products_are_rounded_before_they_are_added() {
        let tiny = f32::EPSILON;
        let mut y = [-1.0, 1.0, 9.0];
        super::twin(&mut y, &[1.0 + tiny, 2.0], 1.0 + tiny);
        assert_eq!(y, [2.0 * tiny, 3.0 + 2.0 * tiny, 9.0]);
    }
}
