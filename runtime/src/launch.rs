//! A launch to be: its arguments and what it declares. It borrows both until it is submitted, and owns them from then on
//! until it has completed. It does *not* time itself.

use std::sync::Arc;

use limosa_gpu::{ArgumentCheck, Given, GpuError, Scalar};
use limosa_model::{Access, Extent};
use limosa_pager::LaunchEvent;

use crate::allocation::RawAllocation;
use crate::argument::{LaunchArgument, LaunchArguments, Loan, Parameters, Usage};
use crate::event::Event;
use crate::kernel::Kernel;
use crate::pointer::GpuPtr;
use crate::queue::Queue;
use crate::safe_kernel::SafeKernel;
use crate::shareable::Shareable;
use crate::{Error, Result};

/// What a launch says that it does with memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    Reads,
    Writes,
    Overwrites,
    Nothing,
}

impl Declared {
    fn access(self) -> Option<Access> {
        match self {
            Self::Reads => Some(Access::Read),
            Self::Writes | Self::Overwrites => Some(Access::Write),
            Self::Nothing => None,
        }
    }
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

/// What has been said of a launch so far.
pub struct Draft {
    kernel: Kernel,
    arguments: Vec<u8>,
    /// Where among them pointers are; empty unless they are checked.
    pointers: Vec<usize>,
    checks_pointers: bool,
    check: ArgumentCheck,
    /// The first thing that is wrong with what was given.
    mismatch: Option<Box<Error>>,
    used: Vec<Use>,
    /// Declared by address alone: nothing keeps it but the caller.
    ranges: Vec<(GpuPtr<u8>, u64, Access)>,
    after: Vec<LaunchEvent>,
    everything: bool,
}

impl Draft {
    pub(crate) fn declare(&mut self, memory: &Arc<RawAllocation>, extent: Extent, declared: Declared) {
        self.used.push(Use { memory: Arc::clone(memory), extent, declared });
    }

    pub(crate) fn declare_access(&mut self, memory: &Arc<RawAllocation>, extent: Extent, access: Access) {
        self.declare(memory, extent, if access == Access::Read { Declared::Reads } else { Declared::Writes });
    }

    pub(crate) fn value<T: Shareable>(&mut self, name: Option<&str>, value: T) {
        let () = T::CHECKED;
        let offset = self.arguments.len().next_multiple_of(align_of::<T>());
        let given = Given { scalar: T::SCALAR, offset, bytes: size_of::<T>(), name };
        if self.mismatch.is_none()
            && let Err(error) = self.check.take(&self.kernel.inner, given)
        {
            self.refuse(error.into());
        }
        if self.checks_pointers && T::SCALAR == Some(Scalar::Pointer) {
            self.pointers.extend((offset..offset + size_of::<T>()).step_by(8));
        }
        self.arguments.resize(offset, 0);
        // SAFETY: a `Shareable` has no padding, so all its bytes are initialised.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        self.arguments.extend_from_slice(bytes);
    }

    /// The launch will not happen, for this reason if none came before.
    fn refuse(&mut self, error: Error) {
        self.mismatch.get_or_insert_with(|| Box::new(error));
    }
}

/// A launch to be: arguments in the order in which the kernel declares them, then `submit`.
///
/// `K` is [`Kernel`], of which whoever submits promises what it does with these arguments, or a [`SafeKernel`], of which
/// whoever made it has.
///
/// Each argument is compared with the kernel's [`Kernel::arguments`]: place, size and type must agree, or nothing is
/// launched. Integers of one size stand for each other whatever their sign, a [`GpuPtr`] is a `uint64_t`, a float is
/// never an integer. An array or a structure may cover several declared arguments, each of them whole; of structures,
/// types are not compared ([`Shareable::SCALAR`]). Behind the last declared argument, anything up to the next multiple
/// of 8 bytes is taken for padding, which structures of C end in.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// # let kernel = context.kernel("fill", limosa_shaders::fill::KERNEL.spirv)?;
/// # let queue = context.queue()?;
/// use limosa::Access;
///
/// let mut vec = context.heap().vec_zeroed::<u32>(100)?;
/// // In one tuple …
/// let launch = queue.launch(&kernel, 100).args((vec.writes(), 50u64, 7u32));
/// // SAFETY: fill writes 50 words of `vec`, as declared.
/// let first = unsafe { launch.submit()? };
/// // … or one by one, by name, after another launch, and by a pointer to memory that is declared as a range.
/// let half = vec.ptr(50);
/// let launch = queue.launch(&kernel, 100).arg(half).named("count", 50u64).named("value", 8u32).after(&first);
/// // SAFETY: fill writes the last 50 words; nobody else uses them before it has completed.
/// unsafe { launch.with_range(half, 50, Access::Write).submit()?.wait()? };
/// assert_eq!((vec.read()?[49], vec.read()?[50]), (7, 8));
///
/// // A mistake is an error before anything runs: the count is a u64.
/// let launch = queue.launch(&kernel, 100).args((vec.writes(), 50u32, 7u32));
/// // SAFETY: as above.
/// let refused = unsafe { launch.submit() }.err().unwrap();
/// assert_eq!(refused.to_string(), "fill: argument 2 (count) is a u64 in the module, but a u32 was given");
/// # Ok(())
/// # }
/// ```
#[must_use = "a launch happens when it is submitted"]
pub struct Launch<'a, K = Kernel> {
    queue: &'a Queue,
    kernel: &'a K,
    grid: Grid,
    pub(crate) draft: Draft,
}

/// A [`Kernel`] or a [`SafeKernel`].
pub trait Launchable {
    #[doc(hidden)]
    fn kernel(&self) -> &Kernel;
}

impl<'a, K: Launchable> Launch<'a, K> {
    pub(crate) fn new(queue: &'a Queue, kernel: &'a K, grid: Grid) -> Self {
        let draft = Draft {
            kernel: kernel.kernel().clone(),
            // Room for all that the kernel takes: to grow step by step costs more.
            arguments: Vec::with_capacity(kernel.kernel().argument_bytes().next_multiple_of(8)),
            pointers: Vec::new(),
            checks_pointers: queue.inner.heap().config().check,
            check: ArgumentCheck::default(),
            mismatch: None,
            used: Vec::new(),
            ranges: Vec::new(),
            after: Vec::new(),
            everything: false,
        };
        Launch { queue, kernel, grid, draft }
    }

    /// The launch begins only when `event` is over, also one of another queue or context. If that failed, the launch does
    /// not run, and fails with [`crate::PagerError::AfterFailed`].
    pub fn after(self, event: &Event) -> Self {
        self.after_all([event])
    }

    /// As [`Self::after`] of each of `events`: a `&[Event]`, or whatever gives references.
    pub fn after_all<'e>(mut self, events: impl IntoIterator<Item = &'e Event>) -> Self {
        self.draft.after.extend(events.into_iter().map(|event| event.inner.clone()));
        self
    }

    fn groups(&self) -> Result<[u32; 3], GpuError> {
        let kernel = &self.draft.kernel.inner;
        match self.grid {
            Grid::Groups(groups) => Ok(groups),
            Grid::Each(counts) => kernel.groups_for_each(counts),
            Grid::Invocations(count) => kernel.groups_for(count),
        }
    }

    /// The heap's extent of a raw range.
    fn extent_of(&self, (pointer, bytes, _): &(GpuPtr<u8>, u64, Access)) -> Result<Extent> {
        let (heap, start) = (self.queue.inner.heap().range(), pointer.address());
        let offset = start.checked_sub(heap.start.0).filter(|offset| offset.saturating_add(*bytes) <= heap.len);
        let outside = crate::PagerError::NotAllocated { start, len: *bytes };
        offset.map(|start| Extent { start, len: *bytes }).ok_or(Error::Pager(outside))
    }

    /// # Safety
    /// That of [`Launch::submit`].
    unsafe fn submit_draft(self) -> Result<Event> {
        let groups = self.groups();
        let ranges = self.draft.ranges.iter().map(|range| Ok((self.extent_of(range)?, range.2)));
        let ranges: Result<Vec<(Extent, Access)>> = ranges.collect();
        let Draft { kernel, arguments, pointers, check, mismatch, used, after, everything, .. } = self.draft;
        if let Some(mismatch) = mismatch {
            return Err(*mismatch);
        }
        check.finish(&kernel.inner, arguments.len())?;
        let foreign = |one: &Use| one.memory.foreign_to(self.queue.inner.heap(), kernel.name());
        used.iter().find_map(foreign).map_or(Ok(()), Err)?;
        let (groups, ranges) = (groups?, ranges?);
        let extents = |wanted: Declared, raw: Option<Access>| -> Vec<Extent> {
            let used = used.iter().filter(|one| one.declared == wanted).map(|one| one.extent);
            used.chain(ranges.iter().filter(|(_, access)| Some(*access) == raw).map(|(extent, _)| *extent)).collect()
        };
        let behind =
            used.iter().filter_map(|one| Some(one.memory.unheld_conflicts(one.extent, one.declared.access()?)));
        let behind = behind.flatten().collect();
        let keep: Vec<_> = used.iter().map(|one| Arc::clone(&one.memory)).collect();
        let launch = limosa_pager::Launch {
            kernel: kernel.inner,
            tally: kernel.tally,
            groups,
            arguments,
            pointers,
            reads: extents(Declared::Reads, Some(Access::Read)),
            writes: extents(Declared::Writes, Some(Access::Write)),
            overwrites: extents(Declared::Overwrites, None),
            everything,
            undeclared: used.iter().any(|one| one.declared == Declared::Nothing),
            after,
            behind,
            keep: Box::new(keep),
        };
        // SAFETY: what is declared is kept; guards wait for the launch by the marks noted below, and none exists
        // now, since the arguments are borrowed. The rest is the caller's promise.
        let inner = unsafe { self.queue.inner.launch(launch) }.map_err(Error::from)?;
        for Use { memory, extent, declared } in &used {
            if let Some(access) = declared.access() {
                memory.uses.note(&inner.mark(), *extent, access);
            }
        }
        Ok(Event { inner })
    }
}

impl<'a> Launch<'a> {
    /// The next argument.
    pub fn arg(mut self, argument: impl LaunchArgument<'a>) -> Self {
        argument.give(&mut self.draft, None);
        self
    }

    /// The next argument, and the kernel must declare it by this name. Of several that it covers, the first counts.
    pub fn named(mut self, name: &str, argument: impl LaunchArgument<'a>) -> Self {
        argument.give(&mut self.draft, Some(name));
        self
    }

    /// The next arguments: a tuple.
    pub fn args(mut self, arguments: impl LaunchArguments<'a>) -> Self {
        arguments.give_all(&mut self.draft);
        self
    }

    /// No argument: memory that the kernel finds by pointers in other memory.
    pub fn with<U: Usage>(mut self, loan: Loan<'a, U>) -> Self {
        loan.declare(&mut self.draft);
        self
    }

    /// No argument: the launch keeps `memory` alive, declares nothing of it, and may touch it where the device can
    /// fault. Who else uses it meanwhile is the caller's to order.
    pub fn keeps(mut self, memory: &Arc<RawAllocation>) -> Self {
        self.draft.declare(memory, memory.extent(), Declared::Nothing);
        self
    }

    /// No argument: the launch keeps `memory` alive, and holds it for `access` from its admission to its completion.
    /// Who else uses it meanwhile is the caller's to order.
    pub fn with_raw(mut self, memory: &Arc<RawAllocation>, access: Access) -> Self {
        self.draft.declare_access(memory, memory.extent(), access);
        self
    }

    /// No argument: the launch holds `count` elements from `pointer` on for `access`, from its admission to its
    /// completion. It keeps nothing alive; who frees or uses them meanwhile is the caller's to order.
    pub fn with_range<T: 'static>(mut self, pointer: GpuPtr<T>, count: usize, access: Access) -> Self {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        self.draft.ranges.push((GpuPtr::from_address(pointer.address()), bytes, access));
        self
    }

    /// No argument: the kernel may touch anything on the heap. Where it cannot fault, it then holds all that is allocated,
    /// which must fit into the budget.
    pub fn with_whole_heap(mut self) -> Self {
        self.draft.everything = true;
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
    /// [`crate::GpuError::OutOfMemory`], [`crate::PagerError::NotAllocated`] of a raw range outside the heap,
    /// [`crate::PagerError::SetTooLarge`], [`crate::PagerError::OverDeviceLimit`], [`crate::PagerError::ForeignMemory`], [`crate::PagerError::ForeignKernel`]; with
    /// [`crate::ContextBuilder::check`] [`crate::PagerError::StrayPointer`]. Nothing was launched then.
    pub unsafe fn submit(self) -> Result<Event> {
        // SAFETY: passed on.
        unsafe { self.submit_draft() }
    }
}

impl<'a, P: Parameters> Launch<'a, SafeKernel<P>> {
    /// The arguments: a tuple.
    pub fn args(mut self, arguments: P::Given<'a>) -> Self {
        if let Err(error) = self.kernel.allow(&arguments) {
            self.draft.refuse(error);
        }
        crate::argument::private::Arguments::give_all(arguments, &mut self.draft);
        self
    }

    /// Submits the launch.
    ///
    /// # Errors
    /// [`Error::Requirement`] if the kernel must not be given these arguments; else those of [`Launch::submit`] for a
    /// [`Kernel`].
    pub fn submit(self) -> Result<Event> {
        // SAFETY: whoever made the kernel has promised that it touches nothing but its arguments, and those as its
        // parameters say, given any that it allows; others were refused.
        unsafe { self.submit_draft() }
    }
}
