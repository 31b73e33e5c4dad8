//! How a stretch of a file is cut into requests: an aligned body of requests of one size, and what is too small or too
//! crooked for direct I/O at its ends. It does *not* know files, memory or paths.

/// What direct I/O asks for, in bytes; powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Of offsets in the file and of lengths.
    pub offset: u64,
    /// Of addresses.
    pub memory: u64,
}

impl Alignment {
    /// None: I/O through the page cache.
    pub const NONE: Self = Self { offset: 1, memory: 1 };
}

/// One request to be: `len` bytes, at least one, from `at` on, counted from the stretch's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub at: u64,
    /// Bytes.
    pub len: u64,
    /// Whether file offset, length and address are aligned.
    pub aligned: bool,
}

/// A stretch being cut: from its start to its end, without gaps or overlaps.
#[derive(Clone, Debug)]
pub struct Cut {
    offset: u64,
    len: u64,
    align: u64,
    request: u64,
    /// Where the aligned part begins and ends, if there is one.
    body: std::ops::Range<u64>,
    at: u64,
}

impl Cut {
    /// Cuts `len` bytes, at `offset` in the file and at an address of which `address` are the lowest bits, into requests
    /// of at most `request` bytes (at least one unit of alignment). Where address and offset do not become aligned
    /// together, nothing is aligned.
    #[must_use]
    pub fn new(offset: u64, len: u64, address: u64, alignment: Alignment, request: u64) -> Self {
        Self::within(offset, len, address, alignment, request, u64::MAX)
    }

    /// The same of a file that is read and ends at byte `end`: no unit beyond, and not that which has the end, counts as
    /// aligned, since the drive would fill all of it.
    #[must_use]
    pub fn within(offset: u64, len: u64, address: u64, alignment: Alignment, request: u64, end: u64) -> Self {
        // Requests after the first are aligned by their lengths alone.
        let align = alignment.offset.max(alignment.memory).max(1);
        let start = offset.next_multiple_of(align) - offset;
        let end = (offset + len).min(end);
        let end = (end - end % align).saturating_sub(offset);
        let straight = address.wrapping_add(start).is_multiple_of(alignment.memory.max(1));
        let body = if straight && start < end { start..end } else { 0..0 };
        Self { offset, len, align, request: (request - request % align).max(align), body, at: 0 }
    }

    /// Whether anything of it is aligned.
    #[must_use]
    pub fn has_body(&self) -> bool {
        !self.body.is_empty()
    }
}

impl Iterator for Cut {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let at = self.at;
        if at >= self.len {
            return None;
        }
        let aligned = self.body.contains(&at);
        let end = match aligned {
            true => self.body.end,
            false if at < self.body.start => self.body.start,
            false => self.len,
        };
        // Requests end at the file's own boundaries, so that one that is widened to them touches no unit twice.
        let reach = self.offset + at + self.request;
        self.at = end.min(reach - reach % self.align - self.offset);
        Some(Piece { at, len: self.at - at, aligned })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_the_stretch_and_only_aligned_ones_say_so(
            offset in 0u64..1 << 20, len in 0u64..1 << 18, address in 0u64..8192,
            offset_shift in 0u32..13, memory_shift in 0u32..13, request in 1u64..1 << 17,
        ) {
            let alignment = Alignment { offset: 1 << offset_shift, memory: 1 << memory_shift };
            let cut = Cut::new(offset, len, address, alignment, request);
            let has_body = cut.has_body();
            let pieces: Vec<Piece> = cut.collect();
            let mut at = 0;
            for piece in &pieces {
                prop_assert_eq!(piece.at, at);
                prop_assert!(piece.len > 0 && piece.len <= request.max(alignment.offset).max(alignment.memory));
                let fits = (offset + at).is_multiple_of(alignment.offset)
                    && piece.len.is_multiple_of(alignment.offset)
                    && (address + at).is_multiple_of(alignment.memory);
                prop_assert!(!piece.aligned || fits);
                at += piece.len;
            }
            prop_assert_eq!(at, len);
            prop_assert_eq!(pieces.iter().any(|piece| piece.aligned), has_body);
        }

        #[test]
        fn where_offset_and_address_agree_less_than_two_units_are_crooked(
            offset in 0u64..1 << 20, len in 0u64..1 << 18, request in 4096u64..1 << 17,
        ) {
            let alignment = Alignment { offset: 4096, memory: 512 };
            let crooked: u64 = Cut::new(offset, len, offset, alignment, request)
                .filter(|piece| !piece.aligned)
                .map(|piece| piece.len)
                .sum();
            prop_assert!(crooked < 2 * 4096);
        }
    }

    #[test]
    fn a_stretch_is_cut_at_the_files_boundaries() {
        let alignment = Alignment { offset: 4096, memory: 512 };
        let told = |cut: Cut| cut.map(|piece| (piece.at, piece.len, piece.aligned)).collect::<Vec<_>>();
        let pieces = told(Cut::new(1000, 20000, 1000, alignment, 8192));
        assert_eq!(pieces, [(0, 3096, false), (3096, 8192, true), (11288, 8192, true), (19480, 520, false)]);
        let ends = told(Cut::within(0, 20000, 0, alignment, 8192, 9000));
        assert_eq!(ends, [(0, 8192, true), (8192, 8192, false), (16384, 3616, false)]);
        // The address never is aligned when the offset is.
        assert!(Cut::new(0, 20000, 8, alignment, 8192).all(|piece| !piece.aligned));
        assert_eq!(Cut::new(5, 0, 5, alignment, 8192).count(), 0);
    }
}
