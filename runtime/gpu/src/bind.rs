//! What is to be bound where, and how neighbours become one. It does *not* ask the driver for anything.

use limosa_model::{BLOCK, CHUNK, Extent};

use crate::frame::Frame;

/// One extent of a sparse range, and what is to lie behind it.
#[derive(Clone, Copy)]
pub struct Bind<'a> {
    /// Whole blocks of the range.
    pub extent: Extent,
    /// A frame, with the offset in it in bytes (whole blocks) from which on it is bound; none to bind nothing.
    pub frame: Option<(&'a Frame, u64)>,
}

/// A run of bytes of one segment that is bound as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run<M> {
    pub(crate) segment: u64,
    /// From the segment's start, in bytes.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Which memory, from which offset on.
    pub(crate) memory: Option<(M, u64)>,
}

/// The binds as few runs, ascending: cut where a segment of `segment` bytes ends, joined where one goes on as another
/// ends, in the range and in memory. The extents do not overlap.
pub(crate) fn merged<M: Copy + PartialEq>(mut binds: Vec<(Extent, Option<(M, u64)>)>, segment: u64) -> Vec<Run<M>> {
    binds.sort_unstable_by_key(|(extent, _)| extent.start);
    let mut runs: Vec<Run<M>> = Vec::new();
    for (extent, memory) in binds {
        let mut done = 0;
        while done < extent.len {
            let start = extent.start + done;
            let len = (extent.len - done).min(segment - start % segment);
            let memory = memory.map(|(object, offset)| (object, offset + done));
            let run = Run { segment: start / segment, offset: start % segment, len, memory };
            match runs.last_mut().filter(|last| last.is_continued_by(&run)) {
                Some(last) => last.len += len,
                None => runs.push(run),
            }
            done += len;
        }
    }
    runs
}

impl<M: Copy + PartialEq> Run<M> {
    fn is_continued_by(&self, next: &Self) -> bool {
        let memory = self.memory.map(|(object, offset)| (object, offset + self.len));
        self.segment == next.segment && self.offset + self.len == next.offset && memory == next.memory
    }
}

/// What is wrong with `bind` for a range of `len` bytes, if anything.
pub(crate) fn fault(bind: &Bind<'_>, len: u64) -> Option<&'static str> {
    let Extent { start, len: bytes } = bind.extent;
    if !start.is_multiple_of(BLOCK) || !bytes.is_multiple_of(BLOCK) {
        return Some("it is not of whole blocks");
    }
    if start.checked_add(bytes).is_none_or(|end| end > len) {
        return Some("it is not within the range");
    }
    match bind.frame {
        Some((_, offset)) if !offset.is_multiple_of(BLOCK) => Some("its place in the frame is not of whole blocks"),
        Some((_, offset)) if offset.checked_add(bytes).is_none_or(|end| end > CHUNK) => {
            Some("the frame ends before it")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEGMENT: u64 = 8;

    fn run(segment: u64, offset: u64, len: u64, memory: Option<(u8, u64)>) -> Run<u8> {
        Run { segment, offset, len, memory }
    }

    fn bind(start: u64, len: u64, memory: Option<(u8, u64)>) -> (Extent, Option<(u8, u64)>) {
        (Extent { start, len }, memory)
    }

    #[test]
    fn neighbours_become_one() {
        let contiguous = vec![bind(0, 2, Some((1, 10))), bind(2, 2, Some((1, 12)))];
        assert_eq!(merged(contiguous, SEGMENT), [run(0, 0, 4, Some((1, 10)))]);
        let swapped = vec![bind(2, 2, Some((1, 12))), bind(0, 2, Some((1, 10)))];
        assert_eq!(merged(swapped, SEGMENT), [run(0, 0, 4, Some((1, 10)))]);
        assert_eq!(merged(vec![bind(0, 2, None), bind(2, 2, None)], SEGMENT), [run(0, 0, 4, None)]);
    }

    #[test]
    fn what_does_not_continue_stays_apart() {
        for second in
            [bind(2, 2, Some((2, 12))), bind(2, 2, Some((1, 13))), bind(3, 2, Some((1, 12))), bind(2, 2, None)]
        {
            assert_eq!(merged(vec![bind(0, 2, Some((1, 10))), second], SEGMENT).len(), 2, "{second:?}");
        }
        // Contiguous in memory, but there is a gap in the range.
        assert_eq!(merged(vec![bind(0, 2, None), bind(3, 2, None)], SEGMENT).len(), 2);
    }

    #[test]
    fn borders_of_segments_cut() {
        let over = vec![bind(6, 12, Some((1, 100)))];
        let runs = [run(0, 6, 2, Some((1, 100))), run(1, 0, 8, Some((1, 102))), run(2, 0, 2, Some((1, 110)))];
        assert_eq!(merged(over, SEGMENT), runs);
        assert!(merged(vec![bind(3, 0, None)], SEGMENT).is_empty());
    }

    #[test]
    fn bad_extents_are_found() {
        let fault = |start, len| fault(&Bind { extent: Extent { start, len }, frame: None }, CHUNK);
        assert_eq!(fault(0, CHUNK), None);
        for (start, len) in [(1, BLOCK), (0, 5), (CHUNK, BLOCK), (u64::MAX / BLOCK * BLOCK, BLOCK)] {
            assert!(fault(start, len).is_some(), "{start} {len}");
        }
    }

    proptest! {
        /// Unit by unit the runs say what the binds said, no two of them could be one, and none crosses a border.
        #[test]
        fn runs_say_what_the_binds_said(parts in prop::collection::vec((1u64..6, prop::option::of((0u8..2, 0u64..4)), any::<bool>()), 0..20)) {
            let (mut binds, mut expected, mut at) = (Vec::new(), Vec::new(), 0);
            for (len, memory, gap) in parts {
                at += u64::from(gap);
                binds.push(bind(at, len, memory));
                expected.extend((0..len).map(|unit| (at + unit, memory.map(|(object, offset)| (object, offset + unit)))));
                at += len;
            }
            binds.reverse();
            let runs = merged(binds, SEGMENT);
            let units = |run: &Run<u8>| {
                let Run { segment, offset, len, memory } = *run;
                (0..len).map(move |unit| (segment * SEGMENT + offset + unit, memory.map(|(object, at)| (object, at + unit))))
            };
            prop_assert_eq!(runs.iter().flat_map(units).collect::<Vec<_>>(), expected);
            prop_assert!(runs.iter().all(|run| run.offset + run.len <= SEGMENT));
            prop_assert!(runs.windows(2).all(|pair| !pair[0].is_continued_by(&pair[1])));
        }
    }
}
