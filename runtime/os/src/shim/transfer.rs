//! Reads and writes of windows in flight, by the kernel's own queue (io_uring). It does *not* tell which way their data
//! goes: [`super::Shim::probe`] does.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};

use super::{Direction, ShimError, Window};
use crate::ring::{Completion, QueueFull, Request, RingError, RingFile, RovingRing};

/// What one request transfers at most: what Linux does, in whole pages.
const MOST: u32 = 0x7fff_f000;

/// Transfers under way between files and windows, each of which owns its window until it has ended.
///
/// To drop it waits for all that are under way. It is of the process that made it, and of no child. Where the thread that
/// began a transfer ends before it, the kernel may end the transfer, too ([`ShimError::FileFailed`], "canceled").
///
/// # Example
/// ```no_run
/// use std::fs::OpenOptions;
/// use std::os::unix::fs::OpenOptionsExt;
///
/// use limosa_os::shim::{Shim, Transfers};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// const O_DIRECT: i32 = 0o40000; // libc has it
/// let file = OpenOptions::new().read(true).custom_flags(O_DIRECT).open("weights.bin")?;
/// let (first, second) = Shim::open(0)?.pool(2 << 20)?.map()?.split_at(1 << 20);
/// let mut transfers = Transfers::new(2)?;
/// transfers.read(first, &file, 0)?;
/// transfers.read(second, &file, 1 << 20)?;
/// while let Some(done) = transfers.wait()? {
///     println!("{} bytes from {} on are in {:?}", done.result?, done.offset, done.window.range());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Transfers {
    /// Its requests refer to what is in `flying`.
    ring: RovingRing,
    flying: HashMap<u64, Flying>,
    next: u64,
    process: u32,
}

/// What a request under way keeps.
struct Flying {
    window: Window,
    direction: Direction,
    offset: u64,
    /// Until the kernel has taken the request from the queue it knows the file by its number alone.
    file: OwnedFd,
}

/// A transfer that has ended.
#[derive(Debug)]
pub struct Transferred {
    /// Its window.
    pub window: Window,
    /// Where it began in the file, in bytes.
    pub offset: u64,
    /// How many bytes were transferred. It is fewer than the window has where the file ended, where an error came in between
    /// (which the next transfer meets), or of more than 2 GiB. Else [`ShimError::NoTransfer`], [`ShimError::FileFailed`],
    /// [`ShimError::NotOpen`], [`ShimError::DeviceGone`], [`ShimError::OutOfMemory`].
    pub result: Result<u64, ShimError>,
}

/// A transfer that did not begin.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct NotSubmitted {
    /// Its window, as it was.
    pub window: Window,
    /// Why.
    #[source]
    pub cause: ShimError,
}

impl Transfers {
    /// Room for `most` transfers under way, at least one and at most 4096.
    ///
    /// # Errors
    /// [`ShimError::NoQueue`], [`ShimError::OutOfMemory`], [`ShimError::TooManyFiles`].
    pub fn new(most: u32) -> Result<Self, ShimError> {
        let ring = RovingRing::new(most)?;
        Ok(Self { ring, flying: HashMap::new(), next: 0, process: std::process::id() })
    }

    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.flying.len()
    }

    /// Begins to read into all of the window from the file's byte `offset` on. The file may be closed meanwhile.
    ///
    /// # Errors
    /// With the window: [`ShimError::QueueFull`], [`ShimError::BadOffset`] (2⁶³ and beyond), [`ShimError::TooManyFiles`],
    /// [`ShimError::OutOfMemory`], [`ShimError::OtherProcess`]. All else comes with the end of it.
    pub fn read(&mut self, into: Window, file: impl AsFd, offset: u64) -> Result<(), NotSubmitted> {
        self.begin(into, &file, offset, Direction::FromFile)
    }

    /// Begins to write all of the window to the file from its byte `offset` on. The file may be closed meanwhile.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn write(&mut self, from: Window, file: impl AsFd, offset: u64) -> Result<(), NotSubmitted> {
        self.begin(from, &file, offset, Direction::ToFile)
    }

    fn begin(
        &mut self,
        window: Window,
        file: &impl AsFd,
        offset: u64,
        direction: Direction,
    ) -> Result<(), NotSubmitted> {
        let file = match self.check(file, offset) {
            Ok(file) => file,
            Err(cause) => return Err(NotSubmitted { window, cause }),
        };
        let (number, flying) = (self.next, Flying { window, direction, offset, file });
        // SAFETY: the memory and the file are in `flying`, and stay there until the completion comes, in this process.
        if let Err(full) = unsafe { self.ring.0.push(number, &flying.request()) } {
            return Err(NotSubmitted { window: flying.window, cause: full.into() });
        }
        self.next += 1;
        self.flying.insert(number, flying);
        // What the kernel does not take now it takes when it is waited for.
        let _ = self.ring.0.submit();
        Ok(())
    }

    /// Whether one more can begin; the file, for as long as it lasts.
    fn check(&self, file: &impl AsFd, offset: u64) -> Result<OwnedFd, ShimError> {
        if self.process != std::process::id() {
            return Err(ShimError::OtherProcess);
        }
        // All ones would be where the file's own position is.
        if i64::try_from(offset).is_err() {
            return Err(ShimError::BadOffset { offset });
        }
        file.as_fd().try_clone_to_owned().map_err(|error| ShimError::of("beginning a transfer", error))
    }

    /// Waits for one of those under way to end, whichever is first; `None` if there is none.
    ///
    /// # Errors
    /// [`ShimError::OtherProcess`] in a child; [`ShimError::Failed`] where the queue itself fails: then those under way
    /// remain so.
    pub fn wait(&mut self) -> Result<Option<Transferred>, ShimError> {
        if self.process != std::process::id() {
            return Err(ShimError::OtherProcess);
        }
        while !self.flying.is_empty() {
            let Some(ended) = self.ring.0.next() else {
                self.ring.0.wait()?;
                continue;
            };
            if let Some(flying) = self.flying.remove(&ended.token) {
                return Ok(Some(flying.ended(ended)));
            }
        }
        Ok(None)
    }
}

impl Flying {
    fn request(&self) -> Request<'_> {
        Request {
            file: RingFile::Fd(self.file.as_fd()),
            direction: self.direction,
            offset: Some(self.offset),
            memory: self.window.pointer(0, 0),
            len: u32::try_from(self.window.len()).unwrap_or(MOST).min(MOST),
            buffer: None,
        }
    }

    fn ended(self, completion: Completion) -> Transferred {
        let operation = match self.direction {
            Direction::FromFile => "reading a file into device memory",
            Direction::ToFile => "writing device memory to a file",
        };
        let result = completion.result.map(u64::from);
        let result = result.map_err(|failure| ShimError::of_transfer(operation, failure.source));
        Transferred { window: self.window, offset: self.offset, result }
    }
}

impl From<QueueFull> for ShimError {
    fn from(QueueFull: QueueFull) -> Self {
        Self::QueueFull
    }
}

impl From<RingError> for ShimError {
    fn from(error: RingError) -> Self {
        match error {
            RingError::Unavailable { source } => Self::NoQueue { source },
            RingError::OtherProcess => Self::OtherProcess,
            RingError::OutOfMemory { .. } => Self::OutOfMemory,
            RingError::TooManyFiles { .. } => Self::TooManyFiles,
            RingError::Failed { operation, source } => Self::Failed { operation, source },
            // What registering says, which is not done here.
            RingError::MemoryLimit { .. } | RingError::BadMemory { .. } | RingError::Unregistered { .. } => {
                Self::Unsupported { operation: "registering for transfers" }
            }
        }
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        while let Ok(Some(_)) = self.wait() {}
        // In a child, or where the queue fails: nobody knows when they end, so their memory stays.
        self.flying.drain().for_each(|(_, flying)| mem::forget(flying));
    }
}

impl fmt::Debug for Transfers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfers").field("ring", &self.ring.0).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;

    use super::super::pool::tests::{file, is_mapped};
    use super::*;
    use crate::skip::skip;

    const PAGE: u64 = 4096;

    fn window(pages: u64) -> Window {
        let len = pages * PAGE;
        Window::of(file(len).as_fd(), usize::try_from(len).unwrap()).unwrap()
    }

    /// `None`, said aloud, where io_uring may not be used.
    fn transfers(test: &str, most: u32) -> Option<Transfers> {
        match Transfers::new(most) {
            Ok(transfers) => Some(transfers),
            Err(error @ ShimError::NoQueue { .. }) => {
                skip(test, "io_uring", &error.to_string());
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn bytes(window: &Window) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(window.len()).unwrap()];
        window.copy_out(0, &mut bytes);
        bytes
    }

    #[test]
    fn several_windows_are_filled_and_come_back_each_with_its_own() {
        let Some(mut transfers) = transfers("several_windows_are_filled", 4) else { return };
        let disk = file(3 * PAGE + 100);
        disk.write_all_at(&[1; 4096], 0).unwrap();
        disk.write_all_at(&[2; 4096], PAGE).unwrap();
        disk.write_all_at(&[3; 100], 3 * PAGE).unwrap();
        let (first, rest) = window(3).split_at(PAGE);
        let (second, third) = rest.split_at(PAGE);
        for (window, offset) in [(first, 0), (second, PAGE), (third, 3 * PAGE)] {
            transfers.read(window, &disk, offset).unwrap();
        }
        // The kernel has it.
        drop(disk);
        let mut ended = 0;
        while let Some(done) = transfers.wait().unwrap() {
            let (value, len) = [(1, 4096), (2, 4096), (0, 0), (3, 100)][usize::try_from(done.offset / PAGE).unwrap()];
            assert_eq!(done.result.unwrap(), len);
            let len = usize::try_from(len).unwrap();
            assert_eq!(bytes(&done.window)[..len], vec![value; len]);
            assert_eq!(bytes(&done.window)[len..], vec![0; 4096 - len], "behind the end nothing is written");
            ended += 1;
        }
        assert_eq!((ended, transfers.under_way()), (3, 0));
    }

    #[test]
    fn a_window_is_written_to_a_file() {
        let Some(mut transfers) = transfers("a_window_is_written", 1) else { return };
        let (disk, mut window) = (file(0), window(1));
        window.copy_in(0, &[9; 4096]);
        transfers.write(window, &disk, PAGE).unwrap();
        assert_eq!(transfers.wait().unwrap().unwrap().result.unwrap(), PAGE);
        let mut found = [0; 4096];
        disk.read_exact_at(&mut found, PAGE).unwrap();
        assert_eq!(found, [9; 4096]);
    }

    #[test]
    fn what_cannot_begin_gives_its_window_back() {
        let Some(mut transfers) = transfers("what_cannot_begin", 1) else { return };
        let (pipe, _other_end) = UnixStream::pair().unwrap();
        let mut marked = window(1);
        marked.copy_in(0, b"mine");
        for offset in [u64::MAX, 1 << 63] {
            let refused = transfers.read(marked, &pipe, offset).unwrap_err();
            assert!(matches!(refused.cause, ShimError::BadOffset { .. }), "{refused}");
            marked = refused.window;
        }
        // It does not end before the other end writes or goes.
        transfers.read(window(1), &pipe, 0).unwrap();
        let refused = transfers.read(marked, &pipe, 0).unwrap_err();
        assert!(matches!(refused.cause, ShimError::QueueFull), "{refused}");
        assert_eq!(bytes(&refused.window)[..4], *b"mine");
        drop(_other_end);
        assert_eq!(transfers.wait().unwrap().unwrap().result.unwrap(), 0);
    }

    #[test]
    fn what_a_file_refuses_is_told_at_the_end() {
        let Some(mut transfers) = transfers("what_a_file_refuses", 8) else { return };
        let folder = File::open("/").unwrap();
        transfers.read(window(1), &folder, 0).unwrap();
        let result = transfers.wait().unwrap().unwrap().result;
        assert!(matches!(result, Err(ShimError::FileFailed { .. })), "{result:?}");
        let only_read = File::open("/dev/null").unwrap();
        transfers.write(window(1), &only_read, 0).unwrap();
        let result = transfers.wait().unwrap().unwrap().result;
        assert!(matches!(result, Err(ShimError::NotOpen { .. })), "{result:?}");
        assert!(transfers.wait().unwrap().is_none());
    }

    #[test]
    fn to_drop_transfers_waits_for_them() {
        let Some(mut transfers) = transfers("to_drop_transfers_waits", 1) else { return };
        let (pipe, other_end) = UnixStream::pair().unwrap();
        let pool = file(PAGE);
        let into = Window::of(pool.as_fd(), 4096).unwrap();
        transfers.read(into, &pipe, 0).unwrap();
        let (begin, begun) = std::sync::mpsc::channel();
        let dropper = std::thread::spawn(move || {
            begin.send(()).unwrap();
            drop(transfers);
        });
        begun.recv().unwrap();
        // Long enough for a drop that does not wait.
        (0..200).for_each(|_| assert!(is_mapped(&pool), "the window is kept as long as the transfer is under way"));
        std::io::Write::write_all(&mut &other_end, &[5; 4096]).unwrap();
        dropper.join().unwrap();
        let mut found = [0; 4096];
        pool.read_exact_at(&mut found, 0).unwrap();
        assert_eq!((found, is_mapped(&pool)), ([5; 4096], false), "it had ended, and then the window went");
    }
}
