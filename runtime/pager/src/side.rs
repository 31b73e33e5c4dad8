//! Memory of ours with a window whose accesses fault: the host's end of migration, and the device's where it is software.
//! It does *not* decide what is open.

use std::sync::Arc;

use limosa_model::{Access, BlockSet, ChunkIndex, HostAddr};
use limosa_os::{Delivery, FaultWindow, HugePages, Mapping, MemoryFile, OsError, Wakeup};

/// The frames, our mapping of them, and the window through which they are used.
pub(crate) struct SideMemory {
    /// First: nothing may fault on a file that is gone.
    pub(crate) window: FaultWindow,
    pub(crate) mapping: Mapping,
    /// Rings for the side's handler thread.
    pub(crate) bell: Wakeup,
}

/// How a side's memory is made.
pub(crate) struct SideOptions {
    /// Names it in errors.
    pub(crate) what: &'static str,
    pub(crate) len: u64,
    /// The most bytes of frames.
    pub(crate) limit: u64,
    pub(crate) delivery: Delivery,
    pub(crate) huge: HugePages,
    /// Where the window had best be.
    pub(crate) wish: Option<HostAddr>,
}

impl SideMemory {
    pub(crate) fn new(options: SideOptions) -> Result<Self, OsError> {
        let SideOptions { what, len, limit, delivery, huge, wish } = options;
        let file = Arc::new(MemoryFile::create(what, len, limit, huge)?);
        // SAFETY: the handlers are started with the heap and stopped when it is dropped, when nothing that could
        // touch the window is left.
        let window = unsafe { FaultWindow::new(Arc::clone(&file), len, delivery, wish)? };
        Ok(Self { window, mapping: Mapping::new(file, len)?, bell: Wakeup::new()? })
    }

    /// Maps the blocks for `access`; a whole chunk for writing as one huge page where there is one.
    pub(crate) fn open(&self, chunk: ChunkIndex, blocks: BlockSet, access: Access) -> Result<(), OsError> {
        if blocks.is_all() && access == Access::Write {
            return self.window.open_chunk(chunk.extent());
        }
        blocks.runs().try_for_each(|(first, count)| self.window.open(chunk.run(first, count), access))
    }

    /// Unmaps the blocks.
    pub(crate) fn close(&self, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), OsError> {
        blocks.runs().try_for_each(|(first, count)| self.window.close(chunk.run(first, count)))
    }

    /// Sets every byte of the blocks.
    ///
    /// # Safety
    /// Their frames are there, and nobody else uses them meanwhile.
    pub(crate) unsafe fn fill(&self, chunk: ChunkIndex, blocks: BlockSet, byte: u8) {
        for (first, count) in blocks.runs() {
            // SAFETY: as the caller promises.
            unsafe { self.mapping.fill(chunk.run(first, count), byte) };
        }
    }
}
