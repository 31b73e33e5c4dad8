//! Guards: elements as the CPU sees them, for as long as no launch can be submitted that would conflict. They do *not*
//! wait: who makes one has.

use std::ops::{Deref, DerefMut};

use crate::pointer::GpuPtr;

/// Elements that the CPU may read.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// let vec = context.heap().vec_from(&[3u32, 4, 5])?;
/// let guard = vec.read()?;
/// // It is a slice.
/// assert_eq!(guard.iter().sum::<u32>(), 12);
/// // And it follows pointers, if they point into it.
/// assert_eq!(guard.follow(vec.ptr(2)), Some(&5));
/// assert_eq!(guard.follow(limosa::GpuPtr::null()), None);
/// # Ok(())
/// # }
/// ```
pub struct ReadGuard<'a, T> {
    pub(crate) elements: &'a [T],
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.elements
    }
}

impl<T> ReadGuard<'_, T> {
    /// The element that `pointer` points to, if it is one of these.
    #[must_use]
    pub fn follow(&self, pointer: GpuPtr<T>) -> Option<&T> {
        self.elements.get(index_in(self.elements, pointer)?)
    }
}

/// Elements that the CPU may read and write.
///
/// ```
/// # fn main() -> limosa::Result<()> {
/// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// let mut vec = context.heap().vec_from(&[3u32, 4, 5])?;
/// let second = vec.ptr(1);
/// let mut guard = vec.write()?;
/// guard[0] = 1;
/// if let Some(word) = guard.follow_mut(second) {
///     *word = 2;
/// }
/// assert_eq!(vec.to_vec()?, [1, 2, 5]);
/// # Ok(())
/// # }
/// ```
pub struct WriteGuard<'a, T> {
    pub(crate) elements: &'a mut [T],
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.elements
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.elements
    }
}

impl<T> WriteGuard<'_, T> {
    /// The element that `pointer` points to, if it is one of these.
    #[must_use]
    pub fn follow(&self, pointer: GpuPtr<T>) -> Option<&T> {
        self.elements.get(index_in(self.elements, pointer)?)
    }

    /// The element that `pointer` points to, if it is one of these.
    #[must_use]
    pub fn follow_mut(&mut self, pointer: GpuPtr<T>) -> Option<&mut T> {
        let index = index_in(self.elements, pointer)?;
        self.elements.get_mut(index)
    }
}

fn index_in<T>(elements: &[T], pointer: GpuPtr<T>) -> Option<usize> {
    let offset = pointer.address().checked_sub(elements.as_ptr() as u64)?;
    let size = (size_of::<T>() as u64).max(1);
    if offset % size == 0 { usize::try_from(offset / size).ok() } else { None }
}
