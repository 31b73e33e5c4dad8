//! Repeats some bytes along a range: a fill by elements of any size, or a copy. The bytes and the range do not overlap,
//! and the kernel does not check that.

use crate::Kernel;

/// How many bytes an invocation had best handle: `len / BYTES` invocations come near memcpy.
pub const BYTES: u64 = 64;

/// The kernel's arguments. Any number of invocations shares the bytes. A copy is fastest where both addresses are alike
/// modulo 16, a fill where a pattern does.
///
/// Of the words of 4 bytes at the range's ends, what is not of the range is written, too, as it was.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Where to: the address of `len` bytes.
    pub dst: u64,
    /// Where from: the address of `period` bytes; 0 for `pattern`.
    pub src: u64,
    /// How many bytes.
    pub len: u64,
    /// After how many bytes the source begins again; at least 1. `len` or more: a copy.
    pub period: u64,
    /// With no source: what is repeated, its lowest byte first.
    pub pattern: u64,
}
assert_layout!(Args, 40, { dst: 0, src: 8, len: 16, period: 24, pattern: 32 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("repeat");

/// The element's bytes as a pattern, if they are as many as divide 8.
#[must_use]
pub fn pattern(element: &[u8]) -> Option<u64> {
    let fits = matches!(element.len(), 1 | 2 | 4 | 8);
    fits.then(|| {
        let mut bytes = [0; 8];
        twin(&mut bytes, element);
        u64::from_le_bytes(bytes)
    })
}

/// What the kernel does.
pub fn twin(dst: &mut [u8], src: &[u8]) {
    dst.iter_mut().zip(src.iter().cycle()).for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_begins_again() {
        let mut bytes = [0; 7];
        twin(&mut bytes, &[1, 2, 3]);
        assert_eq!(bytes, [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn only_what_divides_eight_is_a_pattern() {
        assert_eq!(pattern(&[0xab]), Some(0xabab_abab_abab_abab));
        assert_eq!(pattern(&[1, 0]), Some(0x0001_0001_0001_0001));
        assert_eq!((pattern(&[]), pattern(&[1, 2, 3])), (None, None));
    }
}
