//! How files are cut: into blocks, which have numbers through all files, and these into windows, each of which is read
//! at once and gone over by one launch. It knows lengths only.
//!
//! A block begins at a multiple of the block size in its file. In a window, what comes from a file begins at a multiple
//! of [`ALIGN`], as direct reads want it; a window holds the ends of few large files, or many small files whole.

use std::ops::Range;

/// Where parts begin in a window.
pub(crate) const ALIGN: u64 = 4096;

/// Sizes of what is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Bytes of a block: a multiple of [`ALIGN`].
    pub(crate) block: u64,
    /// Bytes of a window: a multiple of the block.
    pub(crate) window: u64,
    /// The most files in a window: each takes descriptors while it is read.
    pub(crate) files: usize,
}

impl Cut {
    /// Blocks of a file of so many bytes.
    pub(crate) fn blocks(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.block)
    }
}

/// Whole blocks of a file, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The file's index.
    pub(crate) file: usize,
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// Where it begins in the window.
    pub(crate) at: u64,
    pub(crate) bytes: u64,
    /// Its blocks' numbers through all files.
    pub(crate) blocks: Range<u64>,
    /// Whether it has the file's end.
    pub(crate) last: bool,
}

/// All windows of files with these lengths, one after the other.
pub(crate) struct Windows<'a> {
    cut: Cut,
    lengths: &'a [u64],
    file: usize,
    offset: u64,
    block: u64,
}

impl<'a> Windows<'a> {
    pub(crate) fn new(cut: Cut, lengths: &'a [u64]) -> Self {
        Self { cut, lengths, file: 0, offset: 0, block: 0 }
    }
}

impl Iterator for Windows<'_> {
    type Item = Vec<Part>;

    fn next(&mut self) -> Option<Vec<Part>> {
        let Cut { block, window, files } = self.cut;
        let (mut parts, mut at) = (Vec::new(), 0u64);
        while let Some(length) = self.lengths.get(self.file) {
            let (left, room) = (length - self.offset, window - at);
            let bytes = if left > room { room / block * block } else { left };
            if (bytes == 0 && left > 0) || parts.len() == files {
                break;
            }
            let blocks = self.block..self.block + self.cut.blocks(bytes);
            let last = bytes == left;
            self.block = blocks.end;
            if bytes > 0 {
                parts.push(Part { file: self.file, offset: self.offset, at, bytes, blocks, last });
            }
            at = (at + bytes).next_multiple_of(ALIGN);
            (self.file, self.offset) = if last { (self.file + 1, 0) } else { (self.file, self.offset + bytes) };
        }
        (!parts.is_empty()).then_some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number from a sequence that looks random.
    fn next(state: &mut u64, below: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % below
    }

    /// Every byte of every file is in one part, blocks are numbered in order, and parts lie apart in their windows.
    #[test]
    fn windows_hold_all_files_in_order() {
        let mut state = 1;
        for _ in 0..500 {
            let block = ALIGN << next(&mut state, 4);
            let window = block * (1 + next(&mut state, 6));
            let cut = Cut { block, window, files: 1 + usize::try_from(next(&mut state, 8)).unwrap() };
            let lengths: Vec<u64> = (0..next(&mut state, 12)).map(|_| next(&mut state, 5 * window)).collect();
            let (mut read, mut blocks) = (vec![0; lengths.len()], 0);
            for parts in Windows::new(cut, &lengths) {
                assert!(!parts.is_empty() && parts.len() <= cut.files);
                let mut end = 0;
                for part in parts {
                    assert!(part.at >= end && part.at.is_multiple_of(ALIGN) && part.bytes > 0);
                    end = part.at + part.bytes;
                    assert!(end <= window, "{part:?} in {cut:?}");
                    assert_eq!((part.offset, part.offset % block), (read[part.file], 0));
                    assert_eq!(part.blocks, blocks..blocks + part.bytes.div_ceil(block));
                    blocks = part.blocks.end;
                    read[part.file] += part.bytes;
                    assert_eq!(part.last, read[part.file] == lengths[part.file]);
                }
            }
            assert_eq!(read, lengths);
            assert_eq!(blocks, lengths.iter().map(|length| cut.blocks(*length)).sum::<u64>());
        }
    }

    #[test]
    fn small_files_share_a_window() {
        let cut = Cut { block: 1 << 16, window: 1 << 16, files: 3 };
        let ats: Vec<Vec<u64>> = Windows::new(cut, &[1, 4096, 4097, 5, 1 << 16])
            .map(|parts| parts.iter().map(|part| part.at).collect())
            .collect();
        assert_eq!(ats, [vec![0, 4096, 8192], vec![0], vec![0]]);
    }
}
