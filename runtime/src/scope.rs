//! Collections lent to launches by reference, as [`std::thread::scope`] does for threads: the scope waits for its launches
//! before it ends, however it ends, so that the borrows that begin in it cannot end too early. It does *not* submit by
//! itself.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, MutexGuard, PoisonError};

use limosa_gpu::GpuError;

use crate::Result;
use crate::event::Event;
use crate::launch::Launch;

/// Launches that are over before [`scope`] returns.
pub struct Scope<'scope, 'env: 'scope> {
    events: Mutex<Vec<Event>>,
    /// Invariant, as [`std::thread::Scope`] is and for the same reason: nobody may shorten `'scope`.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// Runs `body`, which may lend launches what it borrows, and waits for those launches, also where it panics.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use allocator_api2::vec::Vec;
/// use limosa::{Access, GpuPtr};
///
/// let context = limosa::Context::new()?;
/// let queue = context.queue()?;
/// let fill = context.kernel("fill", limosa_shaders::fill::KERNEL.spirv)?;
/// let allocator = context.heap().allocator();
/// let mut words = Vec::new_in(allocator.clone());
/// words.resize(1000, 0u32);
/// limosa::scope(|scope| {
///     let to = GpuPtr::<u32>::from_address(words.as_mut_ptr() as u64);
///     let launch = queue.launch(&fill, 1000).args((to, 1000u64, 7u32, 0u32));
///     // SAFETY: fill writes 1000 words, all of `words`; any bits are a `u32`.
///     unsafe { scope.submit(launch.with_allocator(&allocator, Access::Write), &mut words) }
/// })??;
/// assert!(words.iter().all(|word| *word == 7));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// What the first launch met that failed; each tells by its event, too.
pub fn scope<'env, R>(body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R) -> Result<R> {
    let scope = Scope { events: Mutex::default(), scope: PhantomData, env: PhantomData };
    let ended = End(&scope);
    let result = body(&scope);
    drop(ended);
    scope.events().iter().try_for_each(|event| event.wait())?;
    Ok(result)
}

impl<'scope> Scope<'scope, '_> {
    /// Submits `launch` and lends it `value`: a reference, or several in a tuple, to what lives longer than the scope; it
    /// is not dropped. The launch has declared the memory of it, by [`Launch::with_allocator`].
    ///
    /// # Safety
    /// As [`Launch::submit`]; and of what is lent, the kernel reads only what a thread that was given `value` could read
    /// without synchronisation, writes only what it could write, and leaves behind what it could have left. What was
    /// declared by [`Launch::with_allocator`] and is not lent, the caller keeps apart.
    ///
    /// # Errors
    /// As [`Launch::submit`]; nothing is lent then.
    pub unsafe fn submit<C: Send + 'scope>(&'scope self, launch: Launch<'_>, value: C) -> Result<Event> {
        let _never_dropped = ManuallyDrop::new(value);
        // SAFETY: as the caller promises. What `value` borrows stays borrowed as long as the scope, which waits.
        let event = unsafe { launch.submit()? };
        self.events().push(event.clone());
        Ok(event)
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for all launches of a scope when it ends.
struct End<'a, 'scope, 'env>(&'a Scope<'scope, 'env>);

impl Drop for End<'_, '_, '_> {
    fn drop(&mut self) {
        for event in self.0.events().iter() {
            let mark = event.inner.mark();
            // On a lost device nothing runs any more. While the driver has no memory to wait with, there is only asking.
            while mark.wait().is_err_and(|error| !matches!(error, GpuError::DeviceLost)) {
                std::thread::yield_now();
            }
            // Lets go of what the launch held. What it met, `scope` or the event tells.
            let _ = event.wait();
        }
    }
}
