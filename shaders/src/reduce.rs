//! Sums 32-bit words into a 64-bit total. The kernel adds to what is there: the caller clears the total.

use crate::Kernel;

/// How many words an invocation had best handle.
pub const ITEMS: u64 = 64;

/// The kernel's arguments. Any number of invocations shares the words; [`ITEMS`] each keeps
/// the atomic additions, one a workgroup, few.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The address of `count` `u32`.
    pub src: u64,
    /// The address of the `u64` that the sum is added to.
    pub total: u64,
    /// How many words.
    pub count: u64,
}
assert_layout!(Args, 24, { src: 0, total: 8, count: 16 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("reduce");

/// What the kernel adds to the total, wrapping.
pub fn twin(src: &[u32]) -> u64 {
    src.iter().fold(0, |sum, word| sum.wrapping_add(u64::from(*word)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn sums_exceed_32_bits() {
        assert_eq!(super::twin(&[u32::MAX; 3]), 3 * u64::from(u32::MAX));
        assert_eq!(super::twin(&(0..=1000).collect::<Vec<_>>()), 500_500);
    }
}
