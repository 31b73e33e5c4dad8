//! The ceiling of everything that moves: memcpy, one thread, from and to cold memory in huge pages.

use std::time::Duration;

use crate::buffer::Buffer;
use crate::report::Row;
use crate::rounds::{gb_per_s, rotated, time};
use crate::scale::Scale;

/// 64 KiB, limosa's unit of migration.
pub(crate) const BLOCK: usize = 64 << 10;
/// 2 MiB, what migration grows to.
pub(crate) const CHUNK: usize = 2 << 20;

/// Two buffers to copy between.
pub(crate) struct Memcpy {
    source: Buffer,
    target: Buffer,
}

impl Memcpy {
    pub(crate) fn new(len: usize) -> Self {
        Self { source: Buffer::new(len), target: Buffer::new(len) }
    }

    /// Copies everything, `piece` bytes a call.
    pub(crate) fn all(&mut self, piece: usize) -> Duration {
        time(|| {
            for (to, from) in self.target.bytes_mut().chunks_mut(piece).zip(self.source.bytes().chunks(piece)) {
                to.copy_from_slice(from);
            }
        })
    }

    /// Copies these blocks of 64 KiB.
    pub(crate) fn blocks(&mut self, blocks: &[usize]) -> Duration {
        time(|| {
            for block in blocks {
                let range = block * BLOCK..(block + 1) * BLOCK;
                self.target.bytes_mut()[range.clone()].copy_from_slice(&self.source.bytes()[range]);
            }
        })
    }
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let mut memcpy = Memcpy::new(scale.bytes);
    let pieces = [(BLOCK, "64 KiB"), (CHUNK, "2 MiB"), (32 * CHUNK, "64 MiB")];
    let series = rotated(pieces.len(), scale.rounds, |arm| gb_per_s(scale.bytes, memcpy.all(pieces[arm].0)));
    let row = |((_, name), series)| Row::new(format!("memcpy, {name} a call"), series, "GB/s");
    pieces.into_iter().zip(&series).map(row).collect()
}
