//! Files as the tests of streaming use them: with contents that can be computed again, gone when the test is.

use std::path::{Path, PathBuf};

use limosa::DataFile;

/// Bytes that repeat nowhere near.
pub(crate) fn byte(i: usize, seed: u32) -> u8 {
    let mut word = u32::try_from(i / 4).unwrap().wrapping_mul(0x9E37_79B1) ^ seed.wrapping_mul(0x85EB_CA6B);
    word ^= word >> 15;
    word.wrapping_mul(0x2C1B_3C6D).to_le_bytes()[i % 4]
}

/// So many bytes of them.
pub(crate) fn bytes(len: usize, seed: u32) -> Vec<u8> {
    (0..len).map(|i| byte(i, seed)).collect()
}

/// The first place at which two differ.
pub(crate) fn difference(found: &[u8], expected: &[u8]) -> Option<usize> {
    let same = found.len() == expected.len();
    found
        .iter()
        .zip(expected)
        .position(|(one, other)| one != other)
        .or((!same).then_some(found.len().min(expected.len())))
}

/// Open for both, with nothing of it in the page cache.
pub(crate) fn open(path: &Path) -> DataFile {
    let file = DataFile::options().read(true).write(true).open(path).unwrap();
    file.forget_cache().unwrap();
    file
}

/// Folders for anybody's files: on a disk, and in memory.
pub(crate) fn folders() -> [PathBuf; 2] {
    [std::env::temp_dir(), "/dev/shm".into()]
}

/// A file that goes with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self(folder.join(format!("limosa-{name}-{}", std::process::id())))
    }

    pub(crate) fn with(folder: &Path, name: &str, bytes: &[u8]) -> Self {
        let scratch = Self::new(folder, name);
        std::fs::write(&scratch.0, bytes).unwrap();
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Numbers that look random, the same each time.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    pub(crate) fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }

    /// A number up to `most`, often one that is of interest.
    pub(crate) fn crooked(&mut self, most: usize) -> usize {
        let near = self.of(&[0, 512, 4096, 65536, 1 << 20, 2 << 20]);
        let number = match self.below(4) {
            0 => self.below(most + 1),
            1 => near,
            2 => near + self.below(5000),
            _ => near.saturating_sub(1 + self.below(700)),
        };
        number.min(most)
    }
}
