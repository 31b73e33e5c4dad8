//! How much is measured. Figures of different scales are *not* comparable.

/// Sizes and repetitions of a run.
pub(crate) struct Scale {
    /// Bytes of a working set.
    pub(crate) bytes: usize,
    /// Bytes of each of the triad's arrays.
    pub(crate) array_bytes: usize,
    /// Measured rounds, after one that is not.
    pub(crate) rounds: usize,
    /// Launches of each kind in a round.
    pub(crate) launches: usize,
    /// Bytes allocated between two pieces that are touched in the large heap.
    pub(crate) ballast_bytes: usize,
}

impl Scale {
    /// Beyond the last-level cache of a large server (260 MiB where this was written).
    pub(crate) const FULL: Self =
        Self { bytes: 512 << 20, array_bytes: 256 << 20, rounds: 9, launches: 200, ballast_bytes: 128 << 20 };
    /// To see that everything runs.
    pub(crate) const QUICK: Self =
        Self { bytes: 128 << 20, array_bytes: 128 << 20, rounds: 3, launches: 50, ballast_bytes: 4 << 20 };
}
