//! What a queue does beside kernels: fills and copies, by a kernel of limosa's own, and prefetches and discards, by the
//! host, in the queue's order. All of it is safe: what is touched is borrowed until it is submitted, and known then.
//! The first fill or copy of a context makes its kernel: some drivers (lavapipe) wait with that until no kernel runs.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use limosa_gpu::repeat;
use limosa_model::{Access, BLOCK, Extent, Side};
use limosa_pager::{AllocationOptions, Heap, LaunchEvent, Marker};

use crate::allocation::RawAllocation;
use crate::event::Event;
use crate::queue::Queue;
use crate::shareable::Shareable;
use crate::slice::{UnifiedSlice, UnifiedSliceMut};
use crate::{Error, Result};

/// Part of an allocation.
struct Part {
    memory: Arc<RawAllocation>,
    extent: Extent,
}

impl Part {
    fn of<T: Shareable>(slice: &UnifiedSlice<'_, T>) -> Self {
        Self { memory: Arc::clone(slice.memory()), extent: slice.extent() }
    }

    fn address(&self) -> u64 {
        self.memory.ptr().address() + (self.extent.start - self.memory.extent().start)
    }
}

/// What is repeated along a range: so many bytes at an address, or a pattern.
struct Source {
    part: Option<Part>,
    period: u64,
    pattern: u64,
}

enum Action {
    Repeat { source: Source, target: Part },
    Prefetch(Side, Part),
    Discard(Part),
}

impl Action {
    /// That all of its memory is of the queue's heap: another's addresses would mean something else to the kernel.
    fn is_on(&self, heap: &Arc<Heap>) -> Result<()> {
        let parts = match self {
            Self::Repeat { source, target } => [Some(target), source.part.as_ref()],
            Self::Prefetch(_, part) | Self::Discard(part) => [Some(part), None],
        };
        let name = match self {
            Self::Repeat { .. } => "(fill or copy)",
            Self::Prefetch(..) => "(prefetch)",
            Self::Discard(_) => "(discard)",
        };
        parts.into_iter().flatten().find_map(|part| part.memory.foreign_to(heap, name)).map_or(Ok(()), Err)
    }
}

/// Something that a queue is to do, until [`Self::submit`]; made by [`Queue::fill`], [`Queue::copy`],
/// [`Queue::prefetch`], [`Queue::discard`] and those like them.
#[must_use = "it happens when it is submitted"]
pub struct Command<'a> {
    queue: &'a Queue,
    action: Result<Action>,
    after: Vec<LaunchEvent>,
    borrows: PhantomData<&'a mut ()>,
}

/// Each takes a whole vector, or a part of it: `queue.fill(vec.slice_mut(10..20)?, 7)`.
impl Queue {
    /// Begins to set all elements of `target` to `value`; what it held need not be moved.
    pub fn fill<'a, T: Shareable>(&'a self, target: impl Into<UnifiedSliceMut<'a, T>>, value: T) -> Command<'a> {
        let target = Part::of(target.into().shared());
        let source = source_of(&target.memory, value);
        Command::new(self, source.map(|source| Action::Repeat { source, target }))
    }

    /// Begins to copy the elements of `source` to `target`, which must be as many.
    pub fn copy<'a, T: Shareable>(
        &'a self,
        source: impl Into<UnifiedSlice<'a, T>>,
        target: impl Into<UnifiedSliceMut<'a, T>>,
    ) -> Command<'a> {
        let (source, target) = (source.into(), target.into());
        let (source_len, target_len) = (source.len(), target.len());
        if source_len != target_len {
            return Command::new(self, Err(Error::LengthsDiffer { source_len, target_len }));
        }
        let part = Part::of(&source);
        let period = part.extent.len;
        let source = Source { part: Some(part), period, pattern: 0 };
        Command::new(self, Ok(Action::Repeat { source, target: Part::of(target.shared()) }))
    }

    /// Begins to bring elements to `side`, by whole blocks of 64 KiB, as [`UnifiedVec::prefetch_to_device`](crate::UnifiedVec::prefetch_to_device) and
    /// [`UnifiedVec::prefetch_to_host`](crate::UnifiedVec::prefetch_to_host) do, but without waiting here, and in the queue's order: on an in-order queue when all before it is done, and before what
    /// comes behind it. Its event fails if it could not be brought; what is behind it on the queue goes on all the same.
    /// [`UnifiedVec::write`](crate::UnifiedVec::write) waits for it.
    ///
    /// ```
    /// # fn main() -> limosa::Result<()> {
    /// use limosa::Side;
    ///
    /// let context = limosa::Context::new()?;
    /// let vec = context.heap().vec_with(1 << 20, |i| i as u64)?;
    /// let moves = context.queue()?; // A queue of its own, so that kernels run meanwhile.
    /// let there = moves.prefetch(Side::Device, &vec).submit()?;
    /// there.wait()?;
    /// assert_eq!(vec.residency_summary().device, 8 << 20);
    /// # Ok(())
    /// # }
    /// ```
    pub fn prefetch<'a, T: Shareable>(&'a self, side: Side, part: impl Into<UnifiedSlice<'a, T>>) -> Command<'a> {
        Command::new(self, Ok(Action::Prefetch(side, Part::of(&part.into()))))
    }

    /// Begins to forget elements as [`UnifiedVec::discard`](crate::UnifiedVec::discard) does, but without waiting here, and in the queue's order.
    /// Guards wait for it.
    pub fn discard<'a, T: Shareable>(&'a self, part: impl Into<UnifiedSliceMut<'a, T>>) -> Command<'a> {
        Command::new(self, Ok(Action::Discard(Part::of(part.into().shared()))))
    }
}

/// The source of a fill.
fn source_of<T: Shareable>(target: &RawAllocation, value: T) -> Result<Source> {
    let () = T::CHECKED;
    // SAFETY: a `Shareable` has no padding, so all its bytes are initialised.
    let bytes = unsafe { std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
    let period = bytes.len() as u64;
    if let Some(pattern) = repeat::pattern(bytes) {
        return Ok(Source { part: None, period, pattern });
    }
    if bytes.is_empty() {
        return Ok(Source { part: None, period: 1, pattern: 0 });
    }
    // In a block of its own, so that storing it waits for no launch that holds a neighbour.
    let len = period.max(BLOCK);
    let memory = RawAllocation::with(target.heap(), len, BLOCK, AllocationOptions::default())?;
    // SAFETY: inside the allocation, of which nobody else knows yet.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.ptr().as_ptr(), bytes.len()) };
    let extent = Extent { len: period, ..memory.extent() };
    Ok(Source { part: Some(Part { memory, extent }), period, pattern: 0 })
}

impl<'a> Command<'a> {
    fn new(queue: &'a Queue, action: Result<Action>) -> Self {
        let action = action.and_then(|action| action.is_on(queue.inner.heap()).map(|()| action));
        Self { queue, action, after: Vec::new(), borrows: PhantomData }
    }

    /// It begins only when `event` is over; if that failed, it does not happen. See [`crate::Launch::after`].
    pub fn after(self, event: &Event) -> Self {
        self.after_all([event])
    }

    /// As [`Self::after`] of each of `events`: a `&[Event]`, or whatever gives references.
    pub fn after_all<'e>(mut self, events: impl IntoIterator<Item = &'e Event>) -> Self {
        self.after.extend(events.into_iter().map(|event| event.inner.clone()));
        self
    }

    /// Submits it.
    ///
    /// # Errors
    /// [`Error::LengthsDiffer`] of a copy, [`crate::PagerError::SetTooLarge`] and
    /// [`crate::PagerError::RangeTooLarge`] for what does not fit the device budget, [`crate::PagerError::OverDeviceLimit`], [`crate::GpuError::DeviceLost`],
    /// [`crate::GpuError::OutOfMemory`], [`crate::OsError`]. Nothing will happen then. What goes wrong later is told by the
    /// event.
    pub fn submit(self) -> Result<Event> {
        let (queue, after) = (&self.queue.inner, self.after);
        let inner = match self.action? {
            Action::Repeat { target, .. } if target.extent.len == 0 => queue.marker(Marker::Passes, &after)?,
            Action::Repeat { source, target } => return repeat_on(self.queue, source, target, after),
            Action::Prefetch(side, Part { memory, extent }) => {
                let event = queue.prefetch(side, vec![extent], Arc::clone(&memory), &after)?;
                memory.uses.note(&event.mark(), extent, Access::Read);
                event
            }
            Action::Discard(Part { memory, extent }) => {
                let behind = memory.unheld_conflicts(extent, Access::Write);
                let event = queue.discard(vec![extent], Arc::clone(&memory), &after, behind)?;
                memory.uses.note(&event.mark(), extent, Access::Write);
                event
            }
        };
        Ok(Event { inner })
    }
}

fn repeat_on(queue: &Queue, source: Source, target: Part, after: Vec<LaunchEvent>) -> Result<Event> {
    let kernel = queue.inner.heap().repeat_kernel()?;
    let from = source.part.as_ref().map_or(0, Part::address);
    let words = [target.address(), from, target.extent.len, source.period, source.pattern];
    let groups = kernel.groups_for(target.extent.len.div_ceil(repeat::BYTES))?;
    let mut behind = target.memory.unheld_conflicts(target.extent, Access::Write);
    let read = source.part.iter().flat_map(|part| part.memory.unheld_conflicts(part.extent, Access::Read));
    behind.extend(read);
    let mut keep: Vec<Arc<RawAllocation>> = vec![Arc::clone(&target.memory)];
    keep.extend(source.part.as_ref().map(|part| Arc::clone(&part.memory)));
    let launch = limosa_pager::Launch {
        kernel,
        // Nobody can ask for it.
        tally: Arc::default(),
        groups,
        arguments: words.iter().flat_map(|word| word.to_ne_bytes()).collect(),
        // It is limosa's own kernel: they are right.
        pointers: Vec::new(),
        reads: source.part.iter().map(|part| part.extent).collect(),
        writes: Vec::new(),
        // Blocks that it has only in part count as written.
        overwrites: vec![target.extent],
        everything: false,
        undeclared: false,
        after,
        behind,
        keep: Box::new(keep) as Box<dyn Any + Send>,
    };
    // SAFETY: the kernel touches what is declared, which is kept; guards wait for the launch by the marks noted below,
    // and none exists now, since both sides are borrowed.
    let inner = unsafe { queue.inner.launch(launch) }?;
    target.memory.uses.note(&inner.mark(), target.extent, Access::Write);
    if let Some(part) = &source.part {
        part.memory.uses.note(&inner.mark(), part.extent, Access::Read);
    }
    Ok(Event { inner })
}
