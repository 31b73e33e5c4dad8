//! How a kernel turns a CPU address into the GPU's: the numbers that `limosa.glsl` and the runtime agree
//! on, and a twin of the translation. It does not choose a mode and places no table in GPU memory.

/// The specialization constant that holds the mode.
pub const CONSTANT_ID: u32 = 0;

/// The mode, the value of the specialization constant [`CONSTANT_ID`] (a `u32`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// The addresses are equal; `limosa_view` is not read.
    Identity = 0,
    /// `limosa_view` is added to the CPU address, wrapping.
    Delta = 1,
    /// `limosa_view` is the GPU address of a [`table`].
    Table = 2,
}

/// The words of a table: one delta (wrapping) for each block of `1 << shift` bytes from `base` on.
pub fn table(base: u64, shift: u32, deltas: &[u64]) -> Vec<u64> {
    let mut words = vec![base, u64::from(shift)];
    words.extend_from_slice(deltas);
    words
}

/// The GPU address of `pointer` by a [`table`], or none where it lies outside (there a kernel reads
/// beyond the table).
pub fn twin(table: &[u64], pointer: u64) -> Option<u64> {
    let (base, shift) = (*table.first()?, *table.get(1)?);
    let block = pointer.checked_sub(base)?.checked_shr(u32::try_from(shift).ok()?)?;
    let delta = table.get(usize::try_from(block).ok()?.checked_add(2)?)?;
    Some(pointer.wrapping_add(*delta))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_has_its_delta() {
        let words = table(0x7000_0000, 16, &[0x1000_0000, 0u64.wrapping_sub(0x2000_0000)]);
        assert_eq!(twin(&words, 0x7000_0008), Some(0x8000_0008));
        assert_eq!(twin(&words, 0x7001_0010), Some(0x5001_0010));
        assert_eq!(twin(&words, 0x7002_0000), None);
        assert_eq!(twin(&words, 0x6fff_ffff), None);
    }
}
