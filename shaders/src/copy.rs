//! Copies words. The ranges do not overlap, and the kernel does not check that.

use crate::Kernel;

/// How many words an invocation had best handle: `count / ITEMS` invocations come near memcpy.
pub const ITEMS: u64 = 16;

/// The kernel's arguments. Any number of invocations shares the words; [`ITEMS`] each is fast. Addresses
/// that are multiples of 16 are faster than others.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Where to: the address of `count` `u32`.
    pub dst: u64,
    /// Where from: the address of `count` `u32`.
    pub src: u64,
    /// How many words.
    pub count: u64,
}
assert_layout!(Args, 24, { dst: 0, src: 8, count: 16 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("copy");

/// What the kernel does, for the words that both slices have.
pub fn twin(dst: &mut [u32], src: &[u32]) {
    for (to, from) in dst.iter_mut().zip(src) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_shorter_slice_decides() {
        let mut words = [0; 3];
        super::twin(&mut words, &[7, 8]);
        assert_eq!(words, [7, 8, 0]);
    }
}
