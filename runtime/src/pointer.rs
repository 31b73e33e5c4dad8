//! Pointers that mean the same on CPU and GPU, to be stored in data structures. They do *not* keep anything alive.

use std::fmt;
use std::marker::PhantomData;

/// The address of a `T` in unified memory, or null. Eight bytes; in a kernel, a `uint64_t` for `limosa_gpu`.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// use limosa::{GpuPtr, Shareable};
///
/// #[derive(Clone, Copy, Shareable)]
/// #[repr(C)]
/// struct Node {
///     value: u64,
///     next: GpuPtr<Node>,
/// }
///
/// let mut list = context.heap().vec_from(&[Node { value: 1, next: GpuPtr::null() }; 3])?;
/// let pointers: Vec<GpuPtr<Node>> = (0..3).map(|i| list.ptr(i)).collect();
/// let mut nodes = list.write()?;
/// nodes[0].next = pointers[2];
/// // On the CPU, a guard follows pointers; in a kernel, limosa.glsl does.
/// assert!(nodes.follow(nodes[0].next).is_some_and(|node| node.next.is_null()));
/// assert_eq!(pointers[0].add(2), pointers[2]);
/// assert_eq!(pointers[2].address() - pointers[0].address(), 32);
/// # Ok(())
/// # }
/// ```
#[repr(transparent)]
pub struct GpuPtr<T> {
    address: u64,
    target: PhantomData<fn() -> T>,
}

impl<T> GpuPtr<T> {
    /// Points nowhere.
    #[must_use]
    pub const fn null() -> Self {
        Self::from_address(0)
    }

    /// From a CPU address.
    #[must_use]
    pub const fn from_address(address: u64) -> Self {
        Self { address, target: PhantomData }
    }

    /// The CPU address.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.address
    }

    /// Whether it points nowhere.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.address == 0
    }

    /// The pointer `elements` further on; wraps at the end of the address space.
    #[must_use]
    pub const fn add(self, elements: u64) -> Self {
        Self::from_address(self.address.wrapping_add(elements.wrapping_mul(size_of::<T>() as u64)))
    }

    /// As an ordinary pointer. Using it is as unsafe as of any other, and must not race with launches.
    #[must_use]
    pub const fn as_ptr(self) -> *mut T {
        self.address as *mut T
    }
}

impl<T> Clone for GpuPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for GpuPtr<T> {}

impl<T> PartialEq for GpuPtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl<T> Eq for GpuPtr<T> {}

impl<T> Default for GpuPtr<T> {
    fn default() -> Self {
        Self::null()
    }
}

impl<T> fmt::Debug for GpuPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GpuPtr({:#x})", self.address)
    }
}
