//! Loads: a file's bytes into ordinary memory, which becomes memory of the device without being in system RAM. It does
//! *not* say whether a file can be loaded: [`Shim::probe`] does.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use limosa_model::{HostAddr, HostRange};

use super::call::{call, interrupted, size};
use super::uapi::{LIMOSA_LOAD, limosa_load};
use super::{Shim, ShimError};

/// What a load did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Bytes of the file that are in the memory now; fewer than were asked for where the file ended.
    pub bytes: u64,
    /// Pages that stand on the device, as the disk wrote them.
    pub pages: u64,
    /// How often 2 MiB of them are one.
    pub huge: u64,
    /// Pages that were there when the data came, so that the CPU copied it to them.
    pub copied: u64,
}

/// A load that stopped on its way. What was loaded before [`Self::cursor`] is there. Of the 2 MiB behind it, a page is as it
/// was, or as the file has it.
#[derive(Debug, thiserror::Error)]
#[error("{cause} (stopped at {:#x}, after {} bytes of the file)", cursor.0, done.bytes)]
pub struct LoadError {
    /// Why.
    #[source]
    pub cause: ShimError,
    /// The first address that was not dealt with.
    pub cursor: HostAddr,
    /// What became of the memory before it.
    pub done: Loaded,
}

const LOADING: &str = "loading a file into device memory";

impl Shim {
    /// Reads `into.len()` bytes of a file from `offset` on, as `read(2)` does. Whole pages that were never touched become
    /// memory of the device; the CPU's first access to one brings it back. The rest of the last page that the file reaches is
    /// zero, what lies behind is left as it is. Goes on after signals.
    ///
    /// `into` is whole pages (as [`super::Pages`]), its length and `offset` multiples of [`super::Alignment::offset`], the
    /// file open for reading with `O_DIRECT`, and its [`Shim::probe`] says [`super::Verdict::Direct`].
    ///
    /// # Errors
    /// With how far it came: [`ShimError::NotDirect`] (what the probe says, or memory that cannot stand on the device),
    /// [`ShimError::NotOpen`], [`ShimError::FileFailed`], [`ShimError::BadRange`], [`ShimError::BadOffset`],
    /// [`ShimError::DeviceFull`], [`ShimError::LimitReached`], [`ShimError::OutOfMemory`], [`ShimError::OtherProcess`],
    /// [`ShimError::DeviceGone`].
    ///
    /// # Example
    /// ```no_run
    /// use std::fs::OpenOptions;
    /// use std::os::unix::fs::OpenOptionsExt;
    ///
    /// use limosa_os::shim::{Pages, Shim};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// const O_DIRECT: i32 = 0o40000; // libc has it
    /// let device = Shim::open(0)?;
    /// let file = OpenOptions::new().read(true).custom_flags(O_DIRECT).open("weights.bin")?;
    /// let mut weights = Pages::new(file.metadata()?.len(), device.info()?.page_size)?;
    /// let loaded = device.load(&mut weights, &file, 0)?;
    /// println!("{} bytes, {} pages on the device: {:?}", loaded.bytes, loaded.pages, device.residency(weights.range())?.pages);
    /// # Ok(())
    /// # }
    /// ```
    pub fn load(&self, into: &mut [u8], file: impl AsFd, offset: u64) -> Result<Loaded, LoadError> {
        load(self.as_fd(), into, file.as_fd(), offset)
    }

    /// The same by a thread of its own: a load in flight, that owns the memory until it is waited for. Any number can be
    /// under way.
    ///
    /// # Errors
    /// The memory comes back with [`ShimError::TooManyFiles`] or [`ShimError::OutOfMemory`], as it begins with a thread and
    /// two descriptors.
    ///
    /// # Example
    /// ```no_run
    /// # use std::fs::File;
    /// # use limosa_os::shim::{Pages, Shim};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (device, file) = (Shim::open(0)?, File::open("weights.bin")?);
    /// let halves = [0, 1 << 30].map(|offset| device.start_load(Pages::new(1 << 30, 4096)?, &file, offset).map_err(|no| no.cause));
    /// for half in halves {
    ///     let (memory, outcome) = half?.wait();
    ///     println!("{:?}: {} bytes", memory.range(), outcome?.bytes);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_load<B>(&self, into: B, file: impl AsFd, offset: u64) -> Result<Load<B>, NotStarted<B>>
    where
        B: AsMut<[u8]> + Send + 'static,
    {
        let refuse = |memory, cause| Err(NotStarted { memory, cause });
        let (device, file) = match (self.as_fd().try_clone_to_owned(), file.as_fd().try_clone_to_owned()) {
            (Ok(device), Ok(file)) => (File::from(device), File::from(file)),
            (Err(error), _) | (_, Err(error)) => return refuse(into, ShimError::of(LOADING, error)),
        };
        // The memory follows when there is a thread: one that is not made would take it along.
        let (give, take) = mpsc::channel::<B>();
        let work = move || {
            let mut memory = take.recv().ok()?;
            let outcome = load(device.as_fd(), memory.as_mut(), file.as_fd(), offset);
            Some((memory, outcome))
        };
        let thread = match thread::Builder::new().name("limosa-load".into()).spawn(work) {
            Ok(thread) => thread,
            Err(_) => return refuse(into, ShimError::OutOfMemory),
        };
        match give.send(into) {
            Ok(()) => Ok(Load { thread: Some(thread) }),
            Err(mpsc::SendError(memory)) => refuse(memory, ShimError::OutOfMemory),
        }
    }
}

/// A load that did not begin.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct NotStarted<B> {
    /// What was to be loaded into, as it was.
    pub memory: B,
    /// Why.
    #[source]
    pub cause: ShimError,
}

type Ended<B> = (B, Result<Loaded, LoadError>);

/// A load in flight. It owns its memory until [`Self::wait`] gives it back; to drop it waits, too, and drops the memory.
/// (Without that, the memory would still be safe: its thread keeps it, and the kernel maps it only when the data is there.)
#[derive(Debug)]
pub struct Load<B> {
    thread: Option<JoinHandle<Option<Ended<B>>>>,
}

impl<B> Load<B> {
    /// Whether it has ended, so that [`Self::wait`] returns at once.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for its end: the memory, and what [`Shim::load`] says.
    ///
    /// # Panics
    /// If `B::as_mut` did.
    pub fn wait(mut self) -> (B, Result<Loaded, LoadError>) {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Some(ended))) => ended,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => unreachable!("a load has one thread, that was given its memory"),
        }
    }
}

impl<B> Drop for Load<B> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic of `B::as_mut` was told by the panic's own hook.
            let _ = thread.join();
        }
    }
}

fn load(device: BorrowedFd<'_>, into: &mut [u8], file: BorrowedFd<'_>, offset: u64) -> Result<Loaded, LoadError> {
    let range = HostRange { start: HostAddr(into.as_mut_ptr().expose_provenance() as u64), len: into.len() as u64 };
    let mut done = Loaded::default();
    let mut passed = 0;
    loop {
        let cursor = range.start.0 + passed;
        let mut load = limosa_load {
            size: size::<limosa_load>(),
            addr: cursor,
            len: range.len - passed,
            offset: offset.saturating_add(passed),
            fd: file.as_raw_fd(),
            // Where it is if the call does not begin.
            cursor,
            ..Default::default()
        };
        // SAFETY: the request's own struct; the range that is written is what is left of `into`, which is borrowed alone.
        let result = unsafe { call(device, LIMOSA_LOAD, &mut load) };
        done.bytes += load.bytes;
        done.pages += load.loaded;
        done.huge += load.loaded_huge;
        done.copied += load.copied;
        passed = load.cursor.wrapping_sub(range.start.0).min(range.len);
        match result {
            Ok(()) => return Ok(done),
            Err(error) if interrupted(&error) => {
                if passed == range.len {
                    return Ok(done);
                }
            }
            Err(error) => {
                let cursor = HostAddr(range.start.0 + passed);
                return Err(LoadError { cause: ShimError::of_load(range, offset, cursor, error), cursor, done });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pages;
    use super::*;

    /// Something that is no device: the call fails before anything is done.
    fn null() -> Shim {
        Shim { file: File::open("/dev/null").unwrap() }
    }

    #[test]
    fn a_load_that_fails_leaves_the_memory_and_says_where_it_stopped() {
        let (mut pages, file) = (Pages::new(8192, 4096).unwrap(), File::open("/dev/zero").unwrap());
        pages.fill(7);
        let error = null().load(&mut pages, &file, 0).unwrap_err();
        assert_eq!((error.cursor, error.done), (pages.range().start, Loaded::default()));
        assert!(matches!(error.cause, ShimError::Failed { .. }), "{error}");
        assert!(pages.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_load_in_flight_owns_its_memory_and_gives_it_back() {
        let file = File::open("/dev/zero").unwrap();
        let mut loads = Vec::new();
        for number in 0..4_u8 {
            let mut pages = Pages::new(4096, 4096).unwrap();
            pages[0] = number;
            loads.push(null().start_load(pages, &file, 0).unwrap());
        }
        for (number, load) in (0..).zip(loads) {
            let (pages, outcome) = load.wait();
            assert_eq!((pages[0], outcome.is_err()), (number, true));
        }
    }

    /// Memory that tells when it is dropped, and is not given to a load before the test says so.
    #[derive(Debug)]
    struct Told(mpsc::Receiver<()>, mpsc::Sender<()>, Vec<u8>);

    impl AsMut<[u8]> for Told {
        fn as_mut(&mut self) -> &mut [u8] {
            self.0.recv().unwrap();
            &mut self.2
        }
    }

    impl Drop for Told {
        fn drop(&mut self) {
            self.1.send(()).unwrap();
        }
    }

    #[test]
    fn to_drop_a_load_in_flight_waits_for_its_end() {
        let (go, wait) = mpsc::channel();
        let (told, gone) = mpsc::channel();
        let load = null().start_load(Told(wait, told, vec![0]), File::open("/dev/zero").unwrap(), 0).unwrap();
        assert!(!load.has_ended());
        let dropper = thread::spawn(move || drop(load));
        assert!(gone.try_recv().is_err(), "the memory is kept while the load is under way");
        go.send(()).unwrap();
        dropper.join().unwrap();
        gone.try_recv().expect("the memory went with the load, and before the drop returned");
    }
}
