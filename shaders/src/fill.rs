//! Fills words with a value. Bytes and patterns longer than a word are not its business.

use crate::Kernel;

/// How many words an invocation had best handle: `count / ITEMS` invocations come near memcpy.
pub const ITEMS: u64 = 16;

/// The kernel's arguments. Any number of invocations shares the words; [`ITEMS`] each is fast. Addresses
/// that are multiples of 16 are faster than others.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Where the words lie: the address of `count` `u32`.
    pub dst: u64,
    /// How many words.
    pub count: u64,
    /// What each becomes.
    pub value: u32,
    /// Not read: it fills the struct to a multiple of 8 bytes.
    pub reserved: u32,
}
assert_layout!(Args, 24, { dst: 0, count: 8, value: 16, reserved: 20 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("fill");

/// What the kernel does.
pub fn twin(dst: &mut [u32], value: u32) {
    dst.fill(value);
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_word_has_the_value() {
        let mut words = [1, 2, 3];
        super::twin(&mut words, 9);
        assert_eq!(words, [9, 9, 9]);
    }
}
