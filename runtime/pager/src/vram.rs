//! Software VRAM under a budget: which chunks of the device's linear memory file have frames.
//!
//! On an imported view frame offset = heap offset, so frames cannot move to another block; they are taken and given
//! back by the chunk, which keeps them huge. A chunk that no longer holds device data keeps its frames, warm, until
//! another needs the room. Evicting data is *not* done here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use limosa_model::{CHUNK, ChunkIndex, Side};

use crate::cell::Cell;
use crate::core::Core;
use crate::error::PagerError;

#[derive(Debug)]
pub(crate) struct Vram {
    budget: u64,
    used: AtomicU64,
    /// Held while frames are taken or given back. Comes before any cell's lock.
    pool: Mutex<()>,
}

impl Vram {
    pub(crate) fn new(budget: u64) -> Self {
        Self { budget: budget / CHUNK * CHUNK, used: AtomicU64::new(0), pool: Mutex::new(()) }
    }

    /// Keeps frames from being taken or given back meanwhile.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that may be used: whole chunks.
    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes whose frames exist.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Core {
    /// Makes sure that the chunk has VRAM frames. Its blocks that need them are busy, so that nobody takes them away.
    pub(crate) fn take_frames(&self, chunk: ChunkIndex, cell: &Cell) -> Result<(), PagerError> {
        if cell.vram_reserved.load(Ordering::Acquire) {
            return Ok(());
        }
        let _pool = self.vram.lock();
        if cell.vram_reserved.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.vram.used() + CHUNK > self.vram.budget && !self.reclaim_idle_frames() {
            return Err(PagerError::DeviceMemoryFull { budget: self.vram.budget });
        }
        self.sides.device.mapping.populate(chunk.extent())?;
        self.vram.used.fetch_add(CHUNK, Ordering::Relaxed);
        cell.vram_reserved.store(true, Ordering::Release);
        Ok(())
    }

    /// Frees the frames of one chunk that holds no device data. Gives whether there was one.
    fn reclaim_idle_frames(&self) -> bool {
        self.cells.iter().any(|(chunk, cell)| {
            // A cell that is locked right now is in use.
            cell.vram_reserved.load(Ordering::Acquire)
                && cell.try_lock().is_some_and(|mut state| {
                    let idle = state.chunk.current(Side::Device).is_empty()
                        && state.chunk.busy().is_empty()
                        && state.stand_in.device.is_empty();
                    idle && self.free_frames(chunk, cell, &mut state.huge.device)
                })
        })
    }

    /// Gives the chunk's VRAM back; the caller has made sure that nothing uses it.
    fn free_frames(&self, chunk: ChunkIndex, cell: &Cell, huge: &mut bool) -> bool {
        if self.sides.device.mapping.file().discard(chunk.extent()).is_err() {
            return false;
        }
        *huge = false;
        cell.vram_reserved.store(false, Ordering::Release);
        self.vram.used.fetch_sub(CHUNK, Ordering::Relaxed);
        true
    }
}
