//! How much is measured. Figures of different scales are *not* comparable.

/// Sizes and repetitions of a run.
pub(crate) struct Scale {
    /// For the report.
    pub(crate) name: &'static str,
    /// Bytes of a working set.
    pub(crate) bytes: usize,
    /// Bytes of each of the triad's arrays.
    pub(crate) array_bytes: usize,
    /// Measured rounds, after one that is not.
    pub(crate) rounds: usize,
    /// Launches of each kind in a round.
    pub(crate) launches: usize,
    /// Launches that are submitted before one wait.
    pub(crate) batch: usize,
    /// Bytes allocated between two pieces that are touched in the large heap.
    pub(crate) ballast_bytes: usize,
    /// Device memory of the oversubscription grid, in bytes.
    pub(crate) grid_bytes: usize,
    /// The power of two of a graph's nodes.
    pub(crate) graph_scale: u32,
}

impl Scale {
    /// Beyond the last-level cache of a large server (260 MiB where this was written).
    pub(crate) const FULL: Self = Self {
        name: "full",
        bytes: 512 << 20,
        array_bytes: 256 << 20,
        rounds: 9,
        launches: 200,
        batch: 256,
        ballast_bytes: 128 << 20,
        grid_bytes: 256 << 20,
        graph_scale: 20,
    };
    /// To see figures that are not far off, within minutes.
    pub(crate) const QUICK: Self = Self {
        name: "quick",
        bytes: 128 << 20,
        array_bytes: 128 << 20,
        rounds: 3,
        launches: 50,
        batch: 64,
        ballast_bytes: 4 << 20,
        grid_bytes: 64 << 20,
        graph_scale: 18,
    };
    /// To see that everything runs.
    pub(crate) const SMOKE: Self = Self {
        name: "smoke",
        bytes: 64 << 20,
        array_bytes: 8 << 20,
        rounds: 1,
        launches: 5,
        batch: 8,
        ballast_bytes: 2 << 20,
        grid_bytes: 16 << 20,
        graph_scale: 12,
    };
}
