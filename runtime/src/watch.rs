//! Being told when residency changes, by CPU address. It does *not* tell of accesses.

use std::time::Duration;

use limosa_model::{Cause, Copies, HostRange};
use limosa_pager::ResidencyEvent;

/// What a [`ResidencyWatch`] tells.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// use limosa::{Cause, WatchEvent};
///
/// let vec = context.heap().vec_zeroed::<u8>(1 << 20)?;
/// let watch = context.heap().watch(vec.raw().range())?;
/// drop(vec);
/// assert!(matches!(watch.next(), WatchEvent::Changed { cause: Cause::Free, .. }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Copies of blocks have come or gone.
    Changed {
        /// The blocks, by CPU address.
        range: HostRange,
        /// Which copies of each of them are current now.
        copies: Copies,
        /// What made them so.
        cause: Cause,
    },
    /// The device is lost; told once, after the changes that this has made.
    DeviceLost,
}

/// A subscription to the residency of a range, from [`crate::Heap::watch`]: every change of it, whatever caused it, in
/// order for each block. Ends when it is dropped, and keeps the heap open until then.
///
/// Changes wait in a ring of fixed size. If nobody reads, later ones are dropped and [counted](Self::missed): nothing
/// is ever held up by a watch.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// let vec = context.heap().vec_zeroed::<u8>(1 << 20)?;
/// let watch = context.heap().watch(vec.raw().range())?;
/// vec.prefetch_to_device()?;
/// while let Some(event) = watch.try_next() {
///     println!("{event:?}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct ResidencyWatch {
    inner: limosa_pager::ResidencyWatch,
}

impl ResidencyWatch {
    pub(crate) fn new(inner: limosa_pager::ResidencyWatch) -> Self {
        Self { inner }
    }

    /// The next event, if there is one already.
    pub fn try_next(&self) -> Option<WatchEvent> {
        self.inner.try_next().map(|event| self.by_address(event))
    }

    /// The next event; waits for it, for ever if none comes.
    pub fn next(&self) -> WatchEvent {
        self.by_address(self.inner.next())
    }

    /// The next event; waits for it, at most for `limit`.
    pub fn next_within(&self, limit: Duration) -> Option<WatchEvent> {
        self.inner.next_within(limit).map(|event| self.by_address(event))
    }

    /// Changes that were dropped because nobody had read those before them: ask [`crate::Heap::residency`] how things
    /// stand.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.inner.missed()
    }

    fn by_address(&self, event: ResidencyEvent) -> WatchEvent {
        match event {
            ResidencyEvent::DeviceLost => WatchEvent::DeviceLost,
            ResidencyEvent::Changed(change) => {
                let start = self.inner.heap().address(change.extent.start);
                let range = HostRange { start, len: change.extent.len };
                WatchEvent::Changed { range, copies: change.copies, cause: change.cause }
            }
        }
    }
}
