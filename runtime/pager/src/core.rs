//! What the application's threads and the fault handlers share of a heap: both sides' memory, the cells, the pools.
//! It starts no threads and submits no work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::queue::ArrayQueue;
use limosa_gpu::{Device, Doorbell};
use limosa_model::policy::DeclaredNext;
use limosa_model::{BlockSet, CHUNK, ChunkIndex, HostAddr, HostRange, Side};
use limosa_os::{Delivery, FaultWindow, HugePages, Mapping, MemoryFile, Wakeup};

use crate::cell::{Cells, PerSide};
use crate::check::Declared;
use crate::config::{DEVICE_BUDGET_MIN, HeapConfig};
use crate::counters::LiveCounters;
use crate::error::PagerError;
use crate::launch::LaunchLog;
use crate::scheduler::{HeapId, Scheduler};
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
        // Host frames are reserved by the chunk, device frames by the block where chunks are used sparsely.
        let (delivery, huge) = match side {
            Side::Host => (config.fault_mode.delivery(), HugePages::Always),
            Side::Device => (Delivery::Thread, HugePages::OnRequest),
        };
        let file = Arc::new(MemoryFile::create(what, len, limit, huge)?);
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
    /// The launches that are to run or run, and what they hold.
    pub(crate) scheduler: Scheduler,
    pub(crate) id: HeapId,
    /// Wakes the reaper to look after launches for which nobody waits. Allowed in signal mode.
    pub(crate) reaper_bell: Wakeup,
    /// Wakes the reaper while it waits for the device.
    pub(crate) doorbell: Doorbell,
    /// Whether it does.
    pub(crate) reaper_watches: AtomicBool,
    /// What the running launch declared, in check mode.
    pub(crate) declared: Mutex<Option<Declared>>,
    /// Chunks to bring to the host when nothing else is to be done. Lock-free, so that signal mode may push.
    pub(crate) read_ahead: ArrayQueue<ChunkIndex>,
    pub(crate) config: HeapConfig,
    /// Chunks with pages that stand in for a kernel's data.
    pub(crate) stand_in_chunks: AtomicU64,
    stopping: AtomicBool,
    lost: AtomicBool,
}

impl Core {
    pub(crate) fn new(device: &Arc<Device>, config: HeapConfig) -> Result<Self, PagerError> {
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
            vram: Vram::new(config.device_budget, Box::<DeclaredNext>::default()),
            counters: LiveCounters::default(),
            launches: LaunchLog::default(),
            scheduler: Scheduler::default(),
            id: HeapId::next(),
            reaper_bell: Wakeup::new()?,
            doorbell: Doorbell::new(device)?,
            reaper_watches: AtomicBool::new(false),
            declared: Mutex::new(None),
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
        self.reaper_bell.ring();
        self.doorbell.ring();
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
