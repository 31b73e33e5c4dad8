//! Counts how often each byte occurs. The kernel adds to the counts that are there: the caller clears them.

use crate::Kernel;

/// How many bytes an invocation had best handle: it keeps the atomic additions, up to 256 a workgroup, few. Above
/// 2²⁴ bytes an invocation the workgroup's own counts, of 32 bits, may overflow.
pub const ITEMS: u64 = 512;

/// One for each value of a byte.
pub const COUNTS: usize = 256;

/// The kernel's arguments. Any number of invocations shares the bytes; [`ITEMS`] each is fast.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The address of `bytes` bytes, a multiple of 16. What lies behind them, up to the next multiple of 16, is
    /// read, too, and does not count.
    pub src: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The address of [`COUNTS`] `u64` that are added to.
    pub counts: u64,
}
assert_layout!(Args, 24, { src: 0, bytes: 8, counts: 16 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("histogram");

/// What the kernel does.
pub fn twin(bytes: &[u8], counts: &mut [u64; COUNTS]) {
    for byte in bytes {
        let count = &mut counts[usize::from(*byte)];
        *count = count.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_are_added_to() {
        let mut counts = [0; super::COUNTS];
        counts[7] = 10;
        super::twin(&[7, 255, 7, 0], &mut counts);
        assert_eq!((counts[0], counts[7], counts[255]), (1, 12, 1));
        assert_eq!(counts.iter().sum::<u64>(), 14);
    }
}
