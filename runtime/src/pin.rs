//! Unified memory pinned to the host, for direct or asynchronous I/O of the kernel.
//!
//! A device that writes into a frame by DMA knows no page tables: migrating the block meanwhile would let the frame be
//! reused under it. A pin keeps the block where it is. Plain `read(2)` and `write(2)` need none.

use std::ops::{Deref, DerefMut};

use std::sync::Arc;

use limosa_model::{BLOCK, Extent};
use limosa_pager::PagerError;

use crate::allocation::RawAllocation;

/// Elements that the CPU owns and that nothing moves, until it is dropped. Launches that use them wait; do not wait for
/// such a launch meanwhile.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// use std::io::Read;
///
/// let mut vec = context.heap().vec_zeroed::<u8>(1 << 20)?;
/// let mut pin = vec.host_pin()?;
/// // Any I/O, also direct or asynchronous; here, an ordinary read.
/// std::io::repeat(7).read_exact(&mut pin).unwrap();
/// drop(pin);
/// assert_eq!(vec.read()?[1000], 7);
/// # Ok(())
/// # }
/// ```
pub struct HostPin<'a, T> {
    elements: &'a mut [T],
    _pin: Pinned,
}

/// The pin itself: ends when it is dropped, also if nothing borrows the memory any more.
pub(crate) struct Pinned {
    memory: Arc<RawAllocation>,
    extent: Extent,
}

impl Pinned {
    pub(crate) fn new(memory: &Arc<RawAllocation>, extent: Extent) -> crate::Result<Self> {
        if extent.len < BLOCK {
            return Err(PagerError::PinTooSmall { len: extent.len }.into());
        }
        memory.heap().pin(extent)?;
        Ok(Self { memory: Arc::clone(memory), extent })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.memory.heap().unpin(self.extent);
    }
}

impl<'a, T> HostPin<'a, T> {
    pub(crate) fn new(elements: &'a mut [T], pin: Pinned) -> Self {
        Self { elements, _pin: pin }
    }
}

impl<T> Deref for HostPin<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.elements
    }
}

impl<T> DerefMut for HostPin<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.elements
    }
}
