//! The STREAM triad, `a = b + scale * c`: what memory bandwidth is measured by. Not tuned to any device.
//!
//! Each operation is rounded by itself, so a device that rounds to nearest and keeps denormal numbers
//! gives the twin's bits.

use crate::Kernel;

/// How many elements an invocation had best handle: `count / ITEMS` invocations come near memcpy.
pub const ITEMS: u64 = 16;

/// The kernel's arguments. Any number of invocations shares the elements; [`ITEMS`] each is fast. Addresses
/// that are multiples of 16 are faster than others.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The result: the address of `count` `f32`.
    pub a: u64,
    /// The address of `count` `f32`.
    pub b: u64,
    /// The address of `count` `f32`.
    pub c: u64,
    /// How many elements.
    pub count: u64,
    /// What `c` is multiplied by.
    pub scale: f32,
    /// Not read: it fills the struct to a multiple of 8 bytes.
    pub reserved: u32,
}
assert_layout!(Args, 40, { a: 0, b: 8, c: 16, count: 24, scale: 32, reserved: 36 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("triad");

/// What the kernel does, for the elements that all slices have.
pub fn twin(a: &mut [f32], b: &[f32], c: &[f32], scale: f32) {
    for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
        // Not mul_add: it would round once.
        *a = b + scale * c;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn products_are_rounded_before_they_are_added() {
        let tiny = f32::EPSILON;
        let mut a = [0.0; 2];
        super::twin(&mut a, &[1.0, -1.0], &[2.0, 1.0 + tiny], 1.0 + tiny);
        assert_eq!(a, [3.0 + 2.0 * tiny, 2.0 * tiny]);
    }
}
