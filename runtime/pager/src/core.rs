//! What the application's threads and the fault handlers share of a heap: both sides' memory, the cells, the pools.
//! It starts no threads and submits no work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::queue::ArrayQueue;
use limosa_gpu::{Device, Doorbell};
use limosa_model::{Access, Arena, BlockSet, CHUNK, ChunkIndex, DeclaredSets, HostAddr, HostRange, Side};
use limosa_os::{HugePages, Wakeup};

use crate::allocation::Allocations;
use crate::cell::Cells;
use crate::check::Declared;
use crate::config::{DeviceClass, HeapConfig};
use crate::counters::LiveCounters;
use crate::error::PagerError;
use crate::host_frames::HostPool;
use crate::launch::LaunchLog;
use crate::notifier::Notifier;
use crate::peers::Peers;
use crate::record::HeapId;
use crate::scheduler::Scheduler;
use crate::side::{SideMemory, SideOptions};
use crate::stream::Pumps;
use crate::throttle::Throttle;
use crate::view::DeviceView;
use crate::vram::Vram;
use crate::watch::Watches;

/// Chunks that wait to be read ahead, at most; more are forgotten.
const READ_AHEAD_QUEUE: usize = 64;

/// Faulting threads that wait for the handler in signal mode at a time; more of them ask again.
const POSTED_MAX: usize = 256;

/// The shared part of a heap.
pub(crate) struct Core {
    /// Handlers may look into it, but never wait for it: whoever frees holds it over moves.
    pub(crate) arena: Mutex<Arena>,
    pub(crate) host: SideMemory,
    pub(crate) view: Box<dyn DeviceView>,
    pub(crate) cells: Cells,
    pub(crate) vram: Vram,
    pub(crate) host_pool: HostPool,
    pub(crate) counters: LiveCounters,
    pub(crate) allocations: Allocations,
    pub(crate) peers: Peers,
    pub(crate) watches: Watches,
    pub(crate) throttle: Throttle,
    pub(crate) launches: LaunchLog,
    /// The launches that are to run or run, and what they hold.
    pub(crate) scheduler: Scheduler,
    /// Threads that call the application when something is over.
    pub(crate) notifier: Notifier,
    /// Moves file data.
    pub(crate) pumps: Pumps,
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
    /// CPU accesses that signal mode leaves to the handler thread, by offset.
    pub(crate) posted: ArrayQueue<(u64, Access)>,
    pub(crate) config: HeapConfig,
    /// What a kernel's access to memory that is not on the device does.
    pub(crate) class: DeviceClass,
    /// Blocks of shared homes.
    pub(crate) shared_blocks: AtomicU64,
    /// Chunks with pages that stand in for a kernel's data.
    pub(crate) stand_in_chunks: AtomicU64,
    stopping: AtomicBool,
    /// A call of the driver's has told of a loss of the device that is still to be dealt with.
    pub(crate) losing: AtomicBool,
    lost: AtomicBool,
}

impl Core {
    /// The shared part of a heap whose device is reached by `view`.
    pub(crate) fn new(device: &Arc<Device>, view: Box<dyn DeviceView>, config: HeapConfig) -> Result<Self, PagerError> {
        let len = config.len();
        let best = if view.faulting().is_some() { DeviceClass::Faulting } else { DeviceClass::Declared };
        let host = SideMemory::new(SideOptions {
            what: "host memory",
            len,
            limit: config.host_limit,
            delivery: config.fault_mode.delivery(),
            // Frames are reserved by the chunk.
            huge: HugePages::Always,
            wish: view.wish(),
        })?;
        let heap = host.window.range().len;
        let arena = if config.check { Arena::guarded(heap, config.check_edge) } else { Arena::new(heap) };
        Ok(Self {
            arena: Mutex::new(arena),
            host,
            cells: Cells::new(len / CHUNK),
            vram: Vram::new(view.frames_for(config.device_budget)),
            host_pool: HostPool::new(config.host_budget, config.host_limit)?,
            counters: LiveCounters::default(),
            allocations: Allocations::default(),
            peers: Peers::default(),
            watches: Watches::default(),
            throttle: Throttle::default(),
            launches: LaunchLog::default(),
            scheduler: Scheduler::default(),
            notifier: Notifier::default(),
            pumps: Pumps::default(),
            id: HeapId::next(),
            reaper_bell: Wakeup::new()?,
            doorbell: Doorbell::new(device)?,
            reaper_watches: AtomicBool::new(false),
            declared: Mutex::new(None),
            read_ahead: ArrayQueue::new(READ_AHEAD_QUEUE),
            posted: ArrayQueue::new(POSTED_MAX),
            view,
            class: config.device_class.unwrap_or(best),
            config,
            shared_blocks: AtomicU64::new(0),
            stand_in_chunks: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            losing: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        })
    }

    /// The memory of a side whose accesses that miss are faults.
    pub(crate) fn memory(&self, side: Side) -> Option<&SideMemory> {
        match side {
            Side::Host => Some(&self.host),
            Side::Device => self.view.faulting(),
        }
    }

    /// Unmaps blocks on `side`.
    pub(crate) fn close(&self, side: Side, chunk: ChunkIndex, blocks: BlockSet) -> Result<(), PagerError> {
        match side {
            Side::Host => Ok(self.host.close(chunk, blocks)?),
            Side::Device => self.view.close(chunk, blocks),
        }
    }

    /// Where the application's view is.
    pub(crate) fn host_range(&self) -> HostRange {
        self.host.window.range()
    }

    /// The CPU's address of a heap offset.
    pub(crate) fn address(&self, offset: u64) -> HostAddr {
        self.host_range().start.offset(offset)
    }

    pub(crate) fn declared(&self) -> MutexGuard<'_, Option<Declared>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that is allocated, to be written.
    pub(crate) fn whole_heap(&self) -> DeclaredSets {
        let chunks = self.cells.iter().map(|(chunk, cell)| (chunk, cell.migrating()));
        DeclaredSets::writing(chunks.filter(|(_, blocks)| !blocks.is_empty()))
    }

    /// Wakes the threads of `side` that are parked on `blocks`.
    pub(crate) fn wake(&self, side: Side, chunk: ChunkIndex, blocks: BlockSet) {
        let Some(memory) = self.memory(side) else { return };
        for (first, count) in blocks.runs() {
            // Fails only on a range that is not registered, where nobody can be parked.
            let _ = memory.window.wake(chunk.run(first, count));
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.ordering_point();
        self.ring_handlers();
        self.host_pool.bell.ring();
        self.reaper_bell.ring();
        self.doorbell.ring();
        self.pumps.look_around();
    }

    /// Has the reaper look after the launches now, also while it waits for the device. Not for signal mode.
    pub(crate) fn call_reaper(&self) {
        self.reaper_bell.ring();
        if self.reaper_watches.load(Ordering::SeqCst) {
            self.doorbell.ring();
        }
    }

    /// Has the threads that serve faults look around.
    pub(crate) fn ring_handlers(&self) {
        for memory in [Side::Host, Side::Device].into_iter().filter_map(|side| self.memory(side)) {
            memory.bell.ring();
        }
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
