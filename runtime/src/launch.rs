//! A launch to be: its arguments and what it declares. It borrows both until it is submitted, and owns them from then on
//! until it has completed. It does *not* time itself.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use limosa_gpu::{ArgumentCheck, Given, GpuError};
use limosa_model::{Access, Extent};
use limosa_pager::LaunchMark;

use crate::event::Event;
use crate::kernel::Kernel;
use crate::pointer::GpuPtr;
use crate::queue::Queue;
use crate::raw::RawAllocation;
use crate::shareable::Shareable;
use crate::vec::UnifiedVec;
use crate::{Error, Result};

/// What a launch says that it does with memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Declared {
    Reads,
    Writes,
    Overwrites,
    Nothing,
}

/// Memory that a launch uses.
struct Use {
    memory: Arc<RawAllocation>,
    extent: Extent,
    declared: Declared,
}

/// How many invocations.
pub(crate) enum Grid {
    Invocations(u64),
    Each([u64; 3]),
    Groups([u32; 3]),
}

/// A launch to be: arguments in the order in which the kernel declares them, then [`Self::submit`].
///
/// Each argument is compared with the kernel's [`Kernel::arguments`]: place, size and type must agree, or nothing is
/// launched. Integers of one size stand for each other whatever their sign, a [`GpuPtr`] is a `uint64_t`, a float is
/// never an integer. An array or a structure may cover several declared arguments, each of them whole; of structures,
/// types are not compared ([`Shareable::SCALAR`]). Behind the last declared argument, anything up to the next multiple
/// of 8 bytes is taken for padding, which structures of C end in.
#[must_use = "a launch happens when it is submitted"]
pub struct Launch<'a> {
    queue: &'a Queue,
    kernel: &'a Kernel,
    grid: Grid,
    arguments: Vec<u8>,
    check: ArgumentCheck,
    /// The first argument that is not what the kernel declares.
    mismatch: Option<Box<GpuError>>,
    used: Vec<Use>,
    after: Vec<LaunchMark>,
    everything: bool,
    borrows: PhantomData<&'a ()>,
}

impl<'a> Launch<'a> {
    pub(crate) fn new(queue: &'a Queue, kernel: &'a Kernel, grid: Grid) -> Self {
        Launch {
            queue,
            kernel,
            grid,
            arguments: Vec::new(),
            check: ArgumentCheck::default(),
            mismatch: None,
            used: Vec::new(),
            after: Vec::new(),
            everything: false,
            borrows: PhantomData,
        }
    }

    /// An argument: pointer to the first element of `vec`, which the kernel only reads.
    pub fn reads<T: Shareable>(self, vec: &'a UnifiedVec<T>) -> Self {
        let pointer = vec.raw().ptr();
        self.with_reads(vec).value(pointer)
    }

    /// An argument: pointer to the first element of `vec`, which the kernel may read and write.
    pub fn writes<T: Shareable>(self, vec: &'a mut UnifiedVec<T>) -> Self {
        let pointer = vec.raw().ptr();
        self.with_writes(vec).value(pointer)
    }

    /// An argument: pointer to the first element of `vec`, of which the kernel replaces every byte without reading any
    /// before. What it held need not be moved, and is not to be relied on if the launch cannot be admitted.
    pub fn overwrites<T: Shareable>(mut self, vec: &'a mut UnifiedVec<T>) -> Self {
        let pointer = vec.raw().ptr();
        self.declare(vec.raw(), vec.raw().extent(), Declared::Overwrites);
        self.value(pointer)
    }

    /// An argument by value, in scalar layout: aligned to its own alignment.
    pub fn value<T: Shareable>(self, value: T) -> Self {
        self.argument(None, value)
    }

    /// As [`Self::value`], and the kernel must declare it by this name. Of several that it covers, the first counts.
    pub fn named<T: Shareable>(self, name: &str, value: T) -> Self {
        self.argument(Some(name), value)
    }

    fn argument<T: Shareable>(mut self, name: Option<&str>, value: T) -> Self {
        let () = T::CHECKED;
        let offset = self.arguments.len().next_multiple_of(align_of::<T>());
        let given = Given { scalar: T::SCALAR, offset, bytes: size_of::<T>(), name };
        if self.mismatch.is_none() {
            self.mismatch = self.check.take(&self.kernel.inner, given).err().map(Box::new);
        }
        self.arguments.resize(offset, 0);
        // SAFETY: a `Shareable` has no padding, so all its bytes are initialised.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        self.arguments.extend_from_slice(bytes);
        self
    }

    /// An argument: a pointer, without saying what is reached through it.
    pub fn pointer<T: 'static>(self, pointer: GpuPtr<T>) -> Self {
        self.value(pointer)
    }

    /// No argument: the kernel reads `vec` by pointers that it finds elsewhere.
    pub fn with_reads<T: Shareable>(mut self, vec: &'a UnifiedVec<T>) -> Self {
        self.declare(vec.raw(), vec.raw().extent(), Declared::Reads);
        self
    }

    /// No argument: the kernel may read and write `vec` by pointers that it finds elsewhere.
    pub fn with_writes<T: Shareable>(mut self, vec: &'a mut UnifiedVec<T>) -> Self {
        self.declare(vec.raw(), vec.raw().extent(), Declared::Writes);
        self
    }

    /// No argument: the kernel reads some elements of `vec`; those beyond its end do not count.
    pub fn with_reads_of<T: Shareable>(mut self, vec: &'a UnifiedVec<T>, range: Range<usize>) -> Self {
        self.declare(vec.raw(), vec.bytes_of(range), Declared::Reads);
        self
    }

    /// No argument: the kernel may read and write some elements of `vec`; those beyond its end do not count.
    pub fn with_writes_of<T: Shareable>(mut self, vec: &'a mut UnifiedVec<T>, range: Range<usize>) -> Self {
        self.declare(vec.raw(), vec.bytes_of(range), Declared::Writes);
        self
    }

    /// No argument: the launch keeps `memory` alive, declares nothing of it, and may touch it where the device can
    /// fault. Who else uses it meanwhile is the caller's to order.
    pub fn keeps(mut self, memory: &Arc<RawAllocation>) -> Self {
        self.declare(memory, memory.extent(), Declared::Nothing);
        self
    }

    /// No argument: the launch keeps `memory` alive, and holds it for `access` from its admission to its completion.
    /// Who else uses it meanwhile is the caller's to order.
    pub fn with_raw(mut self, memory: &Arc<RawAllocation>, access: Access) -> Self {
        let declared = if access == Access::Read { Declared::Reads } else { Declared::Writes };
        self.declare(memory, memory.extent(), declared);
        self
    }

    /// The launch begins only when that of `event` has completed, also on another queue.
    pub fn after(mut self, event: &Event) -> Self {
        self.after.push(event.inner.mark());
        self
    }

    fn declare(&mut self, memory: &Arc<RawAllocation>, extent: Extent, declared: Declared) {
        self.used.push(Use { memory: Arc::clone(memory), extent, declared });
    }

    /// No argument: the kernel may touch anything on the heap. Where it cannot fault, it then holds all that is allocated,
    /// which must fit into the budget.
    pub fn with_whole_heap(mut self) -> Self {
        self.everything = true;
        self
    }

    /// Submits the launch.
    ///
    /// # Safety
    /// Given these arguments, the kernel touches nothing but what was declared here, and that only as declared. With
    /// raw memory or the whole heap, the caller orders all other accesses to what the kernel touches.
    ///
    /// # Errors
    /// [`crate::GpuError::ArgumentMismatch`], [`crate::GpuError::ArgumentName`], [`crate::GpuError::ArgumentsSurplus`],
    /// [`crate::GpuError::ArgumentsMissing`], [`crate::GpuError::GridTooLarge`], [`crate::GpuError::DeviceLost`],
    /// [`crate::GpuError::OutOfMemory`]. Nothing was launched then.
    pub unsafe fn submit(self) -> Result<Event> {
        if let Some(mismatch) = self.mismatch {
            return Err((*mismatch).into());
        }
        self.check.finish(&self.kernel.inner, self.arguments.len())?;
        let groups = match self.grid {
            Grid::Groups(groups) => groups,
            Grid::Each(counts) => self.kernel.inner.groups_for_each(counts)?,
            Grid::Invocations(count) => self.kernel.inner.groups_for(count)?,
        };
        let extents = |wanted: Declared| -> Vec<Extent> {
            self.used.iter().filter(|one| one.declared == wanted).map(|one| one.extent).collect()
        };
        let keep: Vec<_> = self.used.iter().map(|one| Arc::clone(&one.memory)).collect();
        let launch = limosa_pager::Launch {
            kernel: Arc::clone(&self.kernel.inner),
            groups,
            arguments: self.arguments,
            reads: extents(Declared::Reads),
            writes: extents(Declared::Writes),
            overwrites: extents(Declared::Overwrites),
            everything: self.everything,
            undeclared: self.used.iter().any(|one| one.declared == Declared::Nothing),
            after: self.after,
            keep: Box::new(keep),
        };
        // SAFETY: what is declared is kept; guards wait for the launch by the marks noted below, and none exists
        // now, since the arguments are borrowed. The rest is the caller's promise.
        let inner = unsafe { self.queue.inner.launch(launch) }.map_err(Error::from)?;
        for Use { memory, declared, .. } in &self.used {
            match declared {
                Declared::Reads => memory.uses.note(&inner.mark(), Access::Read),
                Declared::Writes | Declared::Overwrites => memory.uses.note(&inner.mark(), Access::Write),
                Declared::Nothing => {}
            }
        }
        Ok(Event { inner })
    }
}
