//! Files for streaming: opened once, through the page cache and past it, with what is known of them. They do *not* move
//! anything by themselves: queues do, and [`DataFile::read_into`] where that suits.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use limosa_model::Access;
use limosa_pager::{Direction, FileFacts, OpenHow, Part, Transfers};

use crate::Result;
use crate::shareable::Shareable;
use crate::slice::{UnifiedSlice, UnifiedSliceMut};
use crate::streaming::{Transfer, TransferReport};

/// A file, a block device or a pipe whose data goes to unified memory, or comes from there. Cheap to clone.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let path = std::env::temp_dir().join(format!("limosa-doc-{}", std::process::id()));
/// std::fs::write(&path, vec![7; 1 << 20])?;
/// let context = limosa::Context::builder().heap_size(1 << 30).build()?;
/// let file = limosa::DataFile::open(&path)?;
/// let mut bytes = context.heap().vec_zeroed::<u8>(1 << 20)?;
/// let report = context.queue()?.read_file(&file, 0, &mut bytes).submit()?.wait()?;
/// println!("{} bytes, {:?}, and no better because of {:?}", report.bytes, report.tiers, report.reasons);
/// assert!(bytes.read()?.iter().all(|byte| *byte == 7));
/// # Ok(std::fs::remove_file(path)?)
/// # }
/// ```
#[derive(Clone)]
pub struct DataFile {
    pub(crate) inner: Arc<limosa_pager::DataFile>,
}

/// How a file is to be opened: [`DataFile::options`].
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "it is opened by `open`"]
pub struct DataFileOptions {
    how: OpenHow,
}

impl DataFileOptions {
    /// For reading.
    pub fn read(mut self, read: bool) -> Self {
        self.how.read = read;
        self
    }

    /// For writing.
    pub fn write(mut self, write: bool) -> Self {
        self.how.write = write;
        self
    }

    /// Creates it if there is none.
    pub fn create(mut self, create: bool) -> Self {
        self.how.create = create;
        self
    }

    /// Creates it, and fails if there is one.
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.how.create_new = create_new;
        self
    }

    /// Empties it.
    pub fn truncate(mut self, truncate: bool) -> Self {
        self.how.truncate = truncate;
        self
    }

    /// Only what keeps data, a file or a disk: a pipe or a socket is refused, and nobody is waited for. Without, to open a
    /// named pipe waits for its other end.
    pub fn storage(mut self, storage: bool) -> Self {
        self.how.storage = storage;
        self
    }

    /// Opens the file.
    ///
    /// # Errors
    /// [`crate::PagerError::File`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<DataFile> {
        Ok(DataFile::of(limosa_pager::DataFile::open(path.as_ref(), self.how)?))
    }
}

impl DataFile {
    fn of(inner: limosa_pager::DataFile) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`crate::PagerError::File`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().read(true).open(path)
    }

    /// Says how a file is to be opened.
    pub fn options() -> DataFileOptions {
        DataFileOptions::default()
    }

    /// Takes an open file, or a pipe's end; with direct I/O, if it can be opened a second time.
    ///
    /// # Errors
    /// [`crate::PagerError::File`].
    pub fn from_file(file: impl Into<std::os::fd::OwnedFd>) -> Result<Self> {
        Ok(Self::of(limosa_pager::DataFile::from_fd(file.into())?))
    }

    /// The name that errors call it by.
    #[must_use]
    pub fn name(&self) -> &Path {
        self.inner.name()
    }

    /// What is known of it: its file system, its disk, what direct I/O asks for.
    #[must_use]
    pub fn facts(&self) -> &FileFacts {
        self.inner.facts()
    }

    /// Its length in bytes at this moment; `None` of a pipe.
    ///
    /// # Errors
    /// [`crate::PagerError::File`].
    pub fn len(&self) -> Result<Option<u64>> {
        Ok(self.inner.len()?)
    }

    /// How many of `len` bytes from `offset` on the page cache has, by whole pages; `None` where the kernel does not tell
    /// (Linux before 6.5, and overlay file systems). What it has wholly is read from there.
    #[must_use]
    pub fn cached_bytes(&self, offset: u64, len: u64) -> Option<u64> {
        self.inner.cached_bytes(offset, len)
    }

    /// Has what was written stay, whatever happens to the machine. Waits for the drive.
    ///
    /// # Errors
    /// [`crate::PagerError::File`].
    pub fn sync(&self) -> Result<()> {
        Ok(self.inner.sync()?)
    }

    /// Drops what the page cache has of it, so that the drive is read anew: for measurements.
    ///
    /// # Errors
    /// [`crate::PagerError::File`].
    pub fn forget_cache(&self) -> Result<()> {
        Ok(self.inner.forget_cache()?)
    }

    /// Reads elements from byte `offset` on, and waits for that. Up to 1 MiB that the CPU alone has is read by this thread,
    /// with nothing in between; all else as by [`crate::Queue::read_file`].
    ///
    /// # Errors
    /// As the events of transfers; see [`crate::Queue::read_file`].
    pub fn read_into<'a, T: Shareable>(
        &self,
        offset: u64,
        target: impl Into<UnifiedSliceMut<'a, T>>,
    ) -> Result<TransferReport> {
        let target = target.into();
        self.now(offset, target.shared(), Direction::FromFile)
    }

    /// Writes elements from byte `offset` on, and waits until the file system has them. As [`Self::read_into`].
    ///
    /// # Errors
    /// As the events of transfers; see [`crate::Queue::write_file`].
    pub fn write_from<'a, T: Shareable>(
        &self,
        offset: u64,
        source: impl Into<UnifiedSlice<'a, T>>,
    ) -> Result<TransferReport> {
        self.now(offset, &source.into(), Direction::ToFile)
    }

    fn now<T: Shareable>(
        &self,
        offset: u64,
        memory: &UnifiedSlice<'_, T>,
        direction: Direction,
    ) -> Result<TransferReport> {
        let extent = memory.extent();
        let access = if direction == Direction::FromFile { Access::Write } else { Access::Read };
        memory.memory().settle(extent, access)?;
        let heap = memory.memory().heap();
        let part = Part { file: Arc::clone(&self.inner), offset, extent, direction };
        if let Some(report) = heap.transfer_now(&part)? {
            return Ok(report);
        }
        let queue = limosa_pager::LaunchQueue::new(heap)?;
        let options = limosa_pager::TransferOptions { side: heap.side_of(extent), ..Default::default() };
        let keep = Box::new(Arc::clone(memory.memory()));
        let transfers = Transfers { parts: vec![part], options, after: Vec::new(), behind: Vec::new(), keep };
        Transfer::of(queue.transfer(transfers)?).wait()
    }
}

impl fmt::Debug for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataFile").field("name", &self.name()).field("facts", self.facts()).finish()
    }
}
