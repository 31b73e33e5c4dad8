//! Why the residency of a block changed: what a subscriber is told beside the new state.

/// The event that made copies of a block come or go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The block came into use: it reads as zeros.
    Allocation,
    /// Its allocation ended.
    Free,
    /// A CPU thread touched it, or a block that brought it along.
    CpuFault,
    /// A kernel touched it, or a block that brought it along.
    GpuFault,
    /// A launch that declared it was admitted.
    Launch,
    /// The application asked for it.
    Prefetch,
    /// It made room in VRAM for others.
    Eviction,
    /// It was pinned to the host.
    Pin,
    /// Its contents were declared to be of no use.
    Discard,
    /// A stream of CPU reads was about to reach it.
    ReadAhead,
    /// Its host frame was given back, another copy being current.
    Reclaim,
    /// It was written to its backing file.
    WriteBack,
    /// The device was lost, and its copies with it.
    DeviceLost,
    /// It was lost, and reads as zeros now.
    Repair,
}
