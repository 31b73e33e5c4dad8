//! Where the state of each chunk lives, and how threads wait for it.
//!
//! Cells are made when something is allocated in their chunk, never on a fault, and stay until the heap goes: a
//! fault looks its cell up without a lock and without memory. They do *not* decide anything.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use limosa_model::thrash::Thrash;
use limosa_model::{BlockSet, Chunk, ChunkIndex, Side};
use limosa_os::futex;

use crate::allocation::Accounts;
use crate::host_frames::HostFrames;

/// A value for each side.
#[derive(Debug, Default)]
pub(crate) struct PerSide<T> {
    pub(crate) host: T,
    pub(crate) device: T,
}

impl<T> PerSide<T> {
    pub(crate) fn get(&self, side: Side) -> &T {
        match side {
            Side::Host => &self.host,
            Side::Device => &self.device,
        }
    }

    pub(crate) fn get_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Host => &mut self.host,
            Side::Device => &mut self.device,
        }
    }
}

/// What the mutex of a cell guards.
#[derive(Debug, Default)]
pub(crate) struct CellState {
    pub(crate) chunk: Chunk,
    /// How often blocks of it came into use.
    pub(crate) lives: u32,
    /// Of which allocations its blocks are.
    pub(crate) accounts: Accounts,
    /// Which blocks go back and forth.
    pub(crate) thrash: Thrash,
    /// Blocks on which threads of this side sleep in the kernel until they are released.
    pub(crate) parked: PerSide<BlockSet>,
    /// Whether the chunk may be mapped as one huge page there, which a partial close takes away as a whole.
    pub(crate) huge: PerSide<bool>,
    /// Blocks on whose pages something stands in for data: a touch raises SIGBUS (host), or a kernel runs on with
    /// arbitrary contents (device).
    pub(crate) stand_in: PerSide<BlockSet>,
    /// Those on the device for which there was not even a frame: zeros of nobody's are mapped in their place.
    pub(crate) substituted: BlockSet,
    /// Whether the chunk's device frames were made as one huge page: giving a part back unmaps all of it.
    pub(crate) one_page: bool,
    /// Its host frames.
    pub(crate) host: HostFrames,
    /// Whether the chunk is among those noted for giving them back.
    pub(crate) noted_spare: bool,
}

/// A chunk's state with what is needed to wait for it.
///
/// The mutex is std's: it is one futex word without a queue in user space, so that the in-thread mode may take it in a
/// signal handler. The interrupted thread cannot hold it, since nothing touches the heap under it.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    state: Mutex<CellState>,
    /// Counts releases of blocks; who must wait sleeps until it changes.
    epoch: AtomicU32,
    sleepers: AtomicU32,
    /// How far to read ahead once a stream of CPU accesses leaves this chunk; 0 if none came through.
    pub(crate) stream: PerSide<AtomicU32>,
    /// The blocks that have device frames, as the bits of a `BlockSet`. Changes under the VRAM pool's lock only.
    pub(crate) frames: AtomicU32,
}

// Metadata stays below 0.1 % of what it describes: with its place in the table, below 2 KiB a chunk.
const _: () = assert!(size_of::<Cell>() + size_of::<OnceLock<Box<Cell>>>() < 2048);

impl Cell {
    pub(crate) fn lock(&self) -> MutexGuard<'_, CellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The allocated blocks that are of no shared home.
    pub(crate) fn migrating(&self) -> BlockSet {
        let state = self.lock();
        state.chunk.allocated() - state.chunk.shared()
    }

    /// The epoch to wait on; read under the lock, together with the state that made the wait necessary.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Sleeps until blocks of the chunk are released after `seen`.
    pub(crate) fn wait(&self, seen: u32) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.epoch() == seen {
            futex::wait(&self.epoch, seen);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether any thread sleeps in [`Self::wait`].
    pub(crate) fn has_sleepers(&self) -> bool {
        self.sleepers.load(Ordering::SeqCst) > 0
    }

    /// Blocks were released: wakes those that sleep in [`Self::wait`].
    pub(crate) fn released(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.has_sleepers() {
            futex::wake_all(&self.epoch);
        }
    }
}

/// Chunks under one node of the table: 128 MiB.
const FAN_OUT: usize = 64;
type Node = Box<[OnceLock<Box<Cell>>; FAN_OUT]>;

/// All cells of a heap: a two-level table that costs memory only where cells are.
#[derive(Debug)]
pub(crate) struct Cells {
    nodes: Vec<OnceLock<Node>>,
}

impl Cells {
    pub(crate) fn new(chunks: u64) -> Self {
        let nodes = usize::try_from(chunks).unwrap_or(usize::MAX).div_ceil(FAN_OUT);
        Self { nodes: std::iter::repeat_with(OnceLock::new).take(nodes).collect() }
    }

    /// The chunk's cell, if anything was ever allocated in it.
    pub(crate) fn get(&self, chunk: ChunkIndex) -> Option<&Cell> {
        let index = chunk.0 as usize;
        let node = self.nodes.get(index / FAN_OUT)?.get()?;
        Some(node[index % FAN_OUT].get()?)
    }

    /// The chunk's cell, made if it is not there.
    pub(crate) fn get_or_make(&self, chunk: ChunkIndex) -> &Cell {
        let index = chunk.0 as usize;
        let node = self.nodes[index / FAN_OUT].get_or_init(|| Box::new([const { OnceLock::new() }; FAN_OUT]));
        node[index % FAN_OUT].get_or_init(Box::default)
    }

    /// All cells there are, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ChunkIndex, &Cell)> {
        let nodes = (0u32..).step_by(FAN_OUT).zip(&self.nodes);
        nodes.filter_map(|(first, node)| Some((first, node.get()?))).flat_map(|(first, node)| {
            let cells = (first..).zip(node.iter());
            cells.filter_map(|(index, cell)| Some((ChunkIndex(index), &**cell.get()?)))
        })
    }
}
