//! The CPU's walk over what the device has linked: along the chains of the hash table, by pointers, in place. It has
//! each duplicate lead to the first block of its contents, and joins neighbours that lead to neighbours.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use limosa::{GpuPtr, WriteGuard};

use super::plan::Cut;
use crate::error::CliError;
use crate::kernels::{Record, Records, Slot, Table};
use crate::progress::Spinner;

/// A file, as far as the walk is concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) bytes: u64,
    /// The index of its first block's record.
    pub(crate) first: u64,
    /// Whether it was read and is still what it was; else its blocks are nobody's duplicates.
    pub(crate) sound: bool,
}

/// Where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The file's index.
    pub(crate) file: usize,
    /// Bytes from its start.
    pub(crate) offset: u64,
}

/// Bytes that are elsewhere, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Duplicate {
    pub(crate) bytes: u64,
    pub(crate) at: Reverse<Place>,
    /// Where the same bytes are before it.
    pub(crate) of: Place,
    /// Whether all of its blocks equal the one at `of`, instead of those behind it.
    pub(crate) repeats: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    /// Blocks, and bytes in them, of all sound files.
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// Blocks, and bytes in them, that are elsewhere before.
    pub(crate) duplicate_blocks: u64,
    pub(crate) duplicate_bytes: u64,
    /// Blocks of which there are such.
    pub(crate) repeated: u64,
    /// The largest, from the largest on.
    pub(crate) largest: Vec<Duplicate>,
}

/// Walks the table; afterwards each record leads to the first of its contents, or nowhere if it is that itself.
pub(crate) fn walk(
    table: &Table,
    records: &mut Records,
    files: &[Counted],
    cut: Cut,
    top: usize,
) -> Result<Matches, CliError> {
    let _progress = Spinner::start("walking the duplicates");
    let failed = CliError::during("walking the duplicates");
    // In one go, instead of fault by fault.
    table.bring().and_then(|()| records.bring()).map_err(&failed)?;
    let first = records.ptr(0);
    let slots = table.read().map_err(&failed)?;
    let mut chains = Chains { records: records.write().map_err(&failed)?, first, files };
    let mut matches = Matches::default();
    for slot in slots.iter().filter(|slot| slot.count() > 0) {
        matches.repeated += u64::from(chains.settle(slot).ok_or(CliError::BrokenChain)?);
    }
    let mut largest = Largest { heap: BinaryHeap::new(), top };
    for (index, file) in files.iter().enumerate().filter(|(_, file)| file.sound) {
        matches.blocks += cut.blocks(file.bytes);
        matches.bytes += file.bytes;
        chains.join(index, cut, |blocks, duplicate| {
            matches.duplicate_blocks += blocks;
            matches.duplicate_bytes += duplicate.bytes;
            largest.offer(duplicate);
        });
    }
    matches.largest = largest.heap.into_sorted_vec().into_iter().map(|Reverse(duplicate)| duplicate).collect();
    Ok(matches)
}

/// The records, and what they lead to.
struct Chains<'a> {
    records: WriteGuard<'a, Record>,
    first: GpuPtr<Record>,
    files: &'a [Counted],
}

impl Chains<'_> {
    /// Has all records of a chain lead to the first of them that is of a sound file. Answers whether there are others of
    /// these; none if the chain is not one.
    fn settle(&mut self, slot: &Slot) -> Option<bool> {
        let (mut pointer, mut first, mut sound) = (self.first.add(slot.head()? as u64), None, 0u32);
        for _ in 0..slot.count() {
            let record = self.records.follow(pointer)?;
            if self.files.get(record.file())?.sound {
                sound += 1;
                // Records are in the order of files and blocks.
                let before = first.is_none_or(|first: GpuPtr<Record>| pointer.address() < first.address());
                first = if before { Some(pointer) } else { first };
            }
            pointer = record.next();
        }
        if !pointer.is_null() {
            return None;
        }
        let mut pointer = self.first.add(slot.head()? as u64);
        for _ in 0..slot.count() {
            let record = self.records.follow_mut(pointer)?;
            let next = record.next();
            let of = first.filter(|first| *first != pointer && self.files[record.file()].sound);
            record.set_next(of.unwrap_or_default());
            pointer = next;
        }
        Some(sound > 1)
    }

    /// Gives away the duplicates of a file, neighbours joined, with the number of blocks of each.
    fn join(&self, file: usize, cut: Cut, mut give: impl FnMut(u64, Duplicate)) {
        let Counted { bytes, first, .. } = self.files[file];
        let mut open: Option<(u64, Duplicate)> = None;
        for number in 0..cut.blocks(bytes) {
            let offset = number * cut.block;
            let length = cut.block.min(bytes - offset);
            let of = self.place_of(first + number, cut);
            let goes_on = open.as_mut().zip(of).is_some_and(|((blocks, duplicate), of)| {
                duplicate.continue_with(*blocks, of, length) && {
                    *blocks += 1;
                    true
                }
            });
            if !goes_on {
                if let Some((blocks, duplicate)) = open.take() {
                    give(blocks, duplicate);
                }
                let at = Reverse(Place { file, offset });
                open = of.map(|of| (1, Duplicate { bytes: length, at, of, repeats: false }));
            }
        }
        if let Some((blocks, duplicate)) = open {
            give(blocks, duplicate);
        }
    }

    /// Where the first block of the same contents is, if it is another.
    fn place_of(&self, record: u64, cut: Cut) -> Option<Place> {
        let record = self.records.follow(self.first.add(record))?;
        let original = self.records.follow(record.next())?;
        Some(Place { file: original.file(), offset: original.number() * cut.block })
    }
}

impl Duplicate {
    /// Adds a block of `length` bytes that equals that at `of`, if it belongs to these.
    fn continue_with(&mut self, blocks: u64, of: Place, length: u64) -> bool {
        let next = Place { offset: self.of.offset + self.bytes, ..self.of };
        let repeats = of == self.of && (self.repeats || blocks == 1);
        if !(repeats || (!self.repeats && of == next)) {
            return false;
        }
        self.repeats = repeats;
        self.bytes += length;
        true
    }
}

/// The largest of many.
struct Largest {
    /// The smallest is on top, to be replaced.
    heap: BinaryHeap<Reverse<Duplicate>>,
    top: usize,
}

impl Largest {
    fn offer(&mut self, duplicate: Duplicate) {
        self.heap.push(Reverse(duplicate));
        if self.heap.len() > self.top {
            self.heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(file: usize, offset: u64) -> Place {
        Place { file, offset }
    }

    #[test]
    fn neighbours_are_joined_where_they_lead_to_neighbours_or_to_one() {
        let new = || Duplicate { bytes: 4, at: Reverse(place(1, 0)), of: place(0, 8), repeats: false };
        let mut on = new();
        assert!(on.continue_with(1, place(0, 12), 4) && on.continue_with(2, place(0, 16), 2));
        assert_eq!((on.bytes, on.repeats), (10, false));
        assert!(!on.continue_with(3, place(0, 8), 4), "what goes on does not begin to repeat");
        let mut same = new();
        assert!(same.continue_with(1, place(0, 8), 4) && same.continue_with(2, place(0, 8), 4));
        assert!(same.repeats && !same.continue_with(3, place(0, 20), 4) && same.bytes == 12);
        assert!(!new().continue_with(1, place(2, 12), 4), "another file");
    }

    #[test]
    fn the_largest_are_kept_in_order() {
        let mut largest = Largest { heap: BinaryHeap::new(), top: 2 };
        for (bytes, file) in [(1, 0), (5, 3), (3, 0), (5, 2), (4, 0)] {
            largest.offer(Duplicate { bytes, at: Reverse(place(file, 0)), of: place(0, 0), repeats: false });
        }
        let kept: Vec<_> = largest.heap.into_sorted_vec().iter().map(|kept| (kept.0.bytes, kept.0.at.0.file)).collect();
        assert_eq!(kept, [(5, 2), (5, 3)]);
    }
}
