//! What the application's threads and the fault handlers share of a heap: both sides' memory, the cells, the pools.
//! It starts no threads and submits no work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::queue::ArrayQueue;
use limosa_model::{BlockSet, CHUNK, ChunkIndex, HostAddr, HostRange, Side};
use limosa_os::{FaultWindow, Mapping, MemoryFile, Wakeup};

use crate::cell::{Cells, PerSide};
use crate::check::Declared;
use crate::config::{DEVICE_BUDGET_MIN, HeapConfig};
use crate::counters::LiveCounters;
use crate::error::PagerError;
use crate::launch::LaunchLog;
use crate::vram::Vram;

/// One end of migration: the frames, our mapping of them, and the window through which they are used.
pub(crate) struct SideMemory {
    /// First: nothing may fault on a file that is gone.
    pub(crate) window: FaultWindow,
    pub(crate) mapping: Mapping,
    /// Rings for the side's handler thread.
    pub(crate) bell: Wakeup,
}

impl SideMemory {
    fn new(what: &'static str, len: u64, limit: u64, config: &HeapConfig, side: Side) -> Result<Self, PagerError> {
        let file = Arc::new(MemoryFile::create(what, len, limit)?);
        let delivery = match side {
            Side::Host => config.fault_mode.delivery(),
            Side::Device => limosa_os::Delivery::Thread,
        };
        // SAFETY: the handlers are started with the heap and stopped when it is dropped, when nothing that could
        // touch the window is left.
        let window = unsafe { FaultWindow::new(Arc::clone(&file), len, delivery)? };
        Ok(Self { window, mapping: Mapping::new(file, len)?, bell: Wakeup::new()? })
    }
}

/// Chunks that wait to be read ahead, at most; more are forgotten.
const READ_AHEAD_QUEUE: usize = 64;

/// The shared part of a heap.
pub(crate) struct Core {
    pub(crate) sides: PerSide<SideMemory>,
    pub(crate) cells: Cells,
    pub(crate) vram: Vram,
    pub(crate) counters: LiveCounters,
    pub(crate) launches: LaunchLog,
    /// What the running launch declared, in check mode.
    pub(crate) declared: Mutex<Option<Declared>>,
    /// In check mode, the launches of all queues run one at a time.
    pub(crate) check_turn: Mutex<()>,
    /// Chunks to bring to the host when nothing else is to be done. Lock-free, so that signal mode may push.
    pub(crate) read_ahead: ArrayQueue<ChunkIndex>,
    pub(crate) config: HeapConfig,
    /// Chunks with pages that stand in for a kernel's data.
    pub(crate) stand_in_chunks: AtomicU64,
    stopping: AtomicBool,
    lost: AtomicBool,
}

impl Core {
    pub(crate) fn new(config: HeapConfig) -> Result<Self, PagerError> {
        if config.device_budget < DEVICE_BUDGET_MIN {
            return Err(PagerError::BudgetTooSmall { given: config.device_budget, minimum: DEVICE_BUDGET_MIN });
        }
        let len = limosa_model::geometry::round_up(config.heap_bytes.max(CHUNK), CHUNK);
        let device_limit = config.device_budget.saturating_add(crate::stand_in::STAND_IN_BYTES);
        Ok(Self {
            sides: PerSide {
                host: SideMemory::new("host memory", len, config.host_limit, &config, Side::Host)?,
                device: SideMemory::new("software device memory", len, device_limit, &config, Side::Device)?,
            },
            cells: Cells::new(len / CHUNK),
            vram: Vram::new(config.device_budget),
            counters: LiveCounters::default(),
            launches: LaunchLog::default(),
            declared: Mutex::new(None),
            check_turn: Mutex::new(()),
            read_ahead: ArrayQueue::new(READ_AHEAD_QUEUE),
            config,
            stand_in_chunks: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        })
    }

    /// Where the application's view is.
    pub(crate) fn host_range(&self) -> HostRange {
        self.sides.host.window.range()
    }

    /// The CPU's address of a heap offset.
    pub(crate) fn address(&self, offset: u64) -> HostAddr {
        self.host_range().start.offset(offset)
    }

    pub(crate) fn declared(&self) -> MutexGuard<'_, Option<Declared>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the threads of `side` that are parked on `blocks`.
    pub(crate) fn wake(&self, side: Side, chunk: ChunkIndex, blocks: BlockSet) {
        for (first, count) in blocks.runs() {
            // Fails only on a range that is not registered, where nobody can be parked.
            let _ = self.sides.get(side).window.wake(chunk.run(first, count));
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.sides.host.bell.ring();
        self.sides.device.bell.ring();
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn mark_lost(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }

    pub(crate) fn lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }
}
