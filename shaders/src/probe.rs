//! The runtime's start-up self-test: words read and written back changed, at a stride that visits many
//! pages cheaply. Patterns, and the verdict over a device, are the runtime's.

use crate::Kernel;

/// The kernel's arguments. Launch `count` invocations or more.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Where to: the address of the first `u32`.
    pub dst: u64,
    /// Where from: the address of the first `u32`.
    pub src: u64,
    /// Bytes from one word to the next on both sides, a multiple of 4.
    pub stride_bytes: u64,
    /// How many words.
    pub count: u64,
    /// The bits that are flipped on the way.
    pub mask: u32,
    /// Not read: it fills the struct to a multiple of 8 bytes.
    pub reserved: u32,
}
assert_layout!(Args, 40, { dst: 0, src: 8, stride_bytes: 16, count: 24, mask: 32, reserved: 36 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("probe");

/// What the kernel does with as many words as both slices have at the stride. A stride of less than a
/// word is taken as a word.
pub fn twin(dst: &mut [u32], src: &[u32], stride_bytes: usize, mask: u32) {
    let stride = (stride_bytes / size_of::<u32>()).max(1);
    for (to, from) in dst.iter_mut().step_by(stride).zip(src.iter().step_by(stride)) {
        *to = from ^ mask;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_words_at_the_stride_change() {
        let mut dst = [5; 5];
        super::twin(&mut dst, &[0, 1, 2, 3, 4], 8, 0xff);
        assert_eq!(dst, [0xff, 5, 0xfd, 5, 0xfb]);
    }
}
