//! Reports of memory that goes back and forth because both sides use it at once, by CPU address.

use std::time::Instant;

use limosa_model::HostRange;
use limosa_pager::Whereabouts;

/// A range that the CPU and kernels use at the same time, so that it moves all the time: [`crate::Heap::thrashing`].
///
/// Such blocks are throttled: they come alone, and who has one keeps it for up to 4 ms before the other side gets it.
/// What helps: to put what the CPU and kernels use at the same time into different blocks of 64 KiB, or to have
/// launches declare it, so that the CPU waits for them.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// for one in context.heap().thrashing() {
///     println!("{} bytes at {:#x} have moved {} times", one.range.len, one.range.start.0, one.moves);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thrashing {
    /// Its blocks, by CPU address: of one allocation, or of blocks that small ones share.
    pub range: HostRange,
    /// Where its first allocated byte is, with the allocation's name.
    pub place: Option<Whereabouts>,
    /// Changes of sides, those of all its blocks added up.
    pub moves: u64,
    /// The first of them.
    pub since: Instant,
    /// The last of them so far.
    pub last: Instant,
}
