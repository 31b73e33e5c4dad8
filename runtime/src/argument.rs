//! What launches are given: memory, with what the kernel does to it, and values. What the kernel declares is compared
//! elsewhere; nothing here knows a queue.

use std::marker::PhantomData;
use std::sync::Arc;

use limosa_gpu::Scalar;
use limosa_model::Extent;

use crate::allocation::RawAllocation;
use crate::launch::{Declared, Draft};
use crate::pointer::GpuPtr;
use crate::shareable::Shareable;

/// Elements of `T` that the kernel only reads: [`crate::UnifiedVec::reads`].
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// use limosa::{Reads, Writes};
/// # let kernel = context.kernel("copy", limosa_shaders::copy::KERNEL.spirv)?;
///
/// // SAFETY: copy reads `count` words of the second and writes those of the first.
/// let copy = unsafe {
///     kernel.promise::<(Writes<u32>, Reads<u32>, u64)>("both have `count` words", |(to, from, count)| {
///         *count <= to.len().min(from.len()) as u64
///     })?
/// };
/// let from = context.heap().vec_from(&[1u32, 2, 3])?;
/// let mut to = context.heap().vec_zeroed::<u32>(3)?;
/// context.queue()?.launch(&copy, 3).args((to.writes(), from.reads(), 3)).submit()?;
/// assert_eq!(to.to_vec()?, [1, 2, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reads<T>(PhantomData<fn() -> T>);

/// Elements of `T` that the kernel may read and write: [`crate::UnifiedVec::writes`].
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// use limosa::Writes;
/// # let kernel = context.kernel("fill", limosa_shaders::fill::KERNEL.spirv)?;
///
/// // SAFETY: fill writes `count` words.
/// let fill = unsafe {
///     kernel.promise::<(Writes<u32>, u64, u32)>("it has `count` words", |(vec, count, _)| *count <= vec.len() as u64)?
/// };
/// let mut vec = context.heap().vec_zeroed::<u32>(8)?;
/// context.queue()?.launch(&fill, 4).args((vec.slice_mut(2..6)?.writes(), 4, 1)).submit()?;
/// assert_eq!(vec.to_vec()?, [0, 0, 1, 1, 1, 1, 0, 0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Writes<T>(PhantomData<fn() -> T>);

/// Elements of `T` of which the kernel replaces every byte without reading any before: [`crate::UnifiedVec::overwrites`].
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// use limosa::Overwrites;
/// # let kernel = context.kernel("fill", limosa_shaders::fill::KERNEL.spirv)?;
///
/// // SAFETY: fill writes every word, if they are `count`.
/// let fill = unsafe {
///     kernel.promise::<(Overwrites<u32>, u64, u32)>("it has `count` words", |(vec, count, _)| *count == vec.len() as u64)?
/// };
/// let mut vec = context.heap().vec_with(1 << 20, |i| i as u32)?;
/// let before = context.heap().counters();
/// context.queue()?.launch(&fill, 1 << 20).args((vec.overwrites(), 1 << 20, 1)).submit()?.wait()?;
/// // What was there is not moved.
/// assert_eq!(context.heap().counters().since(&before).blocks_to_device, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Overwrites<T>(PhantomData<fn() -> T>);

/// Unified memory on loan to a launch: an argument (the address of the first element), or memory that the kernel finds by
/// pointers ([`crate::Launch::with`]). `U` is one of [`Reads`], [`Writes`] and [`Overwrites`].
///
/// The borrow ends when the launch is submitted; from then on guards wait for it.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// # let kernel = context.kernel("fill", limosa_shaders::fill::KERNEL.spirv)?;
/// # let queue = context.queue()?;
/// let mut vec = context.heap().vec_zeroed::<u32>(100)?;
/// let loan = vec.writes();
/// assert_eq!((loan.len(), loan.is_empty()), (100, false));
/// let launch = queue.launch(&kernel, 100).args((loan, 100u64, 7u32));
/// // SAFETY: fill writes `count` words, 100.
/// unsafe { launch.submit()? };
/// assert_eq!(vec.read()?[99], 7);
/// # Ok(())
/// # }
/// ```
#[must_use = "a loan is to be given to a launch"]
pub struct Loan<'a, U: Usage> {
    memory: &'a Arc<RawAllocation>,
    extent: Extent,
    usage: PhantomData<U>,
}

impl<'a, U: Usage> Loan<'a, U> {
    /// Of `extent`, which lies in `memory`; exclusively borrowed by the caller where the kernel writes.
    pub(crate) fn new(memory: &'a Arc<RawAllocation>, extent: Extent) -> Self {
        Self { memory, extent, usage: PhantomData }
    }

    /// Elements.
    #[must_use]
    pub fn len(&self) -> usize {
        let size = size_of::<U::Element>().max(1) as u64;
        usize::try_from(self.extent.len / size).unwrap_or(usize::MAX)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The address of the first element.
    #[must_use]
    pub fn ptr(&self) -> GpuPtr<U::Element> {
        let offset = self.extent.start - self.memory.extent().start;
        GpuPtr::from_address(self.memory.ptr().address() + offset)
    }

    pub(crate) fn declare(&self, draft: &mut Draft) {
        draft.declare(self.memory, self.extent, U::DECLARED);
    }
}

/// What a kernel does with memory: [`Reads`], [`Writes`] or [`Overwrites`].
pub trait Usage: private::Usage {}
impl<U: private::Usage> Usage for U {}

/// What a launch takes as an argument: a [`Loan`], or a [`Shareable`] value, which is aligned to its own alignment
/// (scalar layout).
pub trait LaunchArgument<'a>: private::Argument<'a> {}
impl<'a, A: private::Argument<'a>> LaunchArgument<'a> for A {}

/// Up to 16 arguments, in the order in which the kernel declares them: a tuple of [`LaunchArgument`]s.
pub trait LaunchArguments<'a>: private::Arguments<'a> {}
impl<'a, A: private::Arguments<'a>> LaunchArguments<'a> for A {}

/// What a [`crate::SafeKernel`] takes in one place: [`Reads`], [`Writes`] or [`Overwrites`] of a type, or a
/// [`Shareable`] type for values.
pub trait Parameter: 'static {
    /// What a launch gives for it.
    type Given<'a>: LaunchArgument<'a>;
    #[doc(hidden)]
    const SCALAR: Option<Scalar>;
    #[doc(hidden)]
    const BYTES: usize;
    #[doc(hidden)]
    const ALIGN: usize;
}

/// What a [`crate::SafeKernel`] takes: a tuple of up to 16 [`Parameter`]s.
pub trait Parameters: 'static {
    /// What a launch gives for them: a tuple of [`Loan`]s and values.
    type Given<'a>: LaunchArguments<'a>;
    /// Scalar, bytes and alignment of each.
    #[doc(hidden)]
    const LAYOUT: &'static [(Option<Scalar>, usize, usize)];
}

pub(crate) mod private {
    use super::*;

    pub trait Usage: 'static {
        type Element: Shareable;
        const DECLARED: Declared;
    }

    pub trait Argument<'a> {
        fn give(self, draft: &mut Draft, name: Option<&str>);
    }

    pub trait Arguments<'a> {
        fn give_all(self, draft: &mut Draft);
    }
}

macro_rules! usage {
    ($($kind:ident),*) => {
        $(
            impl<T: Shareable> private::Usage for $kind<T> {
                type Element = T;
                const DECLARED: Declared = Declared::$kind;
            }

            impl<T: Shareable> Parameter for $kind<T> {
                type Given<'a> = Loan<'a, Self>;
                const SCALAR: Option<Scalar> = Some(Scalar::Pointer);
                const BYTES: usize = size_of::<GpuPtr<T>>();
                const ALIGN: usize = align_of::<GpuPtr<T>>();
            }
        )*
    };
}
usage!(Reads, Writes, Overwrites);

impl<T: Shareable> Parameter for T {
    type Given<'a> = T;
    const SCALAR: Option<Scalar> = T::SCALAR;
    const BYTES: usize = size_of::<T>();
    const ALIGN: usize = align_of::<T>();
}

impl<'a, U: Usage> private::Argument<'a> for Loan<'a, U> {
    fn give(self, draft: &mut Draft, name: Option<&str>) {
        self.declare(draft);
        draft.value(name, self.ptr());
    }
}

impl<'a, T: Shareable> private::Argument<'a> for T {
    fn give(self, draft: &mut Draft, name: Option<&str>) {
        draft.value(name, self);
    }
}

macro_rules! tuples {
    ($first:ident $($rest:ident)*) => {
        impl<'a, $first: LaunchArgument<'a>, $($rest: LaunchArgument<'a>),*> private::Arguments<'a> for ($first, $($rest,)*) {
            #[allow(non_snake_case, reason = "the names of the types stand for the values")]
            fn give_all(self, draft: &mut Draft) {
                let ($first, $($rest,)*) = self;
                $first.give(draft, None);
                $($rest.give(draft, None);)*
            }
        }

        impl<$first: Parameter, $($rest: Parameter),*> Parameters for ($first, $($rest,)*) {
            type Given<'a> = ($first::Given<'a>, $($rest::Given<'a>,)*);
            const LAYOUT: &'static [(Option<Scalar>, usize, usize)] = &[
                ($first::SCALAR, $first::BYTES, $first::ALIGN),
                $(($rest::SCALAR, $rest::BYTES, $rest::ALIGN),)*
            ];
        }

        tuples!($($rest)*);
    };
    () => {
        impl<'a> private::Arguments<'a> for () {
            fn give_all(self, _: &mut Draft) {}
        }

        impl Parameters for () {
            type Given<'a> = ();
            const LAYOUT: &'static [(Option<Scalar>, usize, usize)] = &[];
        }
    };
}
tuples!(A B C D E F G H I J K L M N O P);
