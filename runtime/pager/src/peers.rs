//! Homes in device memory that both sides see, and that other devices reach: whose memory they are, and where in it.
//!
//! Each allocation has memory of its own, in whole blocks. It does *not* bring it into the views, as that is done with
//! every shared home: [`crate::shared`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limosa_model::{Extent, HostAddr};
use limosa_os::PeerMemory;

use crate::core::Core;
use crate::heap::Heap;

/// The memory of one allocation.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its blocks, which show all of the memory in its order.
    pub(crate) blocks: Extent,
    pub(crate) memory: Arc<PeerMemory>,
}

/// Those of a heap. Its lock is taken last of all, and nothing touches the heap under it.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// By where their blocks begin.
    all: Mutex<BTreeMap<u64, Peer>>,
    any: AtomicBool,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, peer: Peer) {
        self.any.store(true, Ordering::Release);
        self.lock().insert(peer.blocks.start, peer);
    }

    /// Takes what begins at heap offset `start` out, if there is something.
    pub(crate) fn leave(&self, start: u64) -> Option<Peer> {
        self.any.load(Ordering::Acquire).then(|| self.lock().remove(&start))?
    }

    /// Whether heap offset `offset` is in such memory. Allocates nothing, so it is allowed in signal mode.
    pub(crate) fn contain(&self, offset: u64) -> bool {
        self.any.load(Ordering::Acquire) && find(&self.lock(), Extent { start: offset, len: 1 }).is_some()
    }
}

fn find(all: &BTreeMap<u64, Peer>, extent: Extent) -> Option<&Peer> {
    let (_, peer) = all.range(..=extent.start).next_back()?;
    (extent.end() <= peer.blocks.end()).then_some(peer)
}

impl Core {
    /// The device memory that `extent` is, and where the CPU has it: what is read there from a file that is open with
    /// `O_DIRECT`, or written, is for the two devices alone, where [`limosa_os::shim::Shim::probe`] says so. `None`: it is
    /// none, or not all of one allocation.
    ///
    /// The pointer is good as long as the allocation is, and it is the system's calls that may be given it: io_uring does not
    /// register such memory, and nobody pins it for long.
    pub(crate) fn peer_memory_of(&self, extent: Extent) -> Option<(Arc<PeerMemory>, *mut u8)> {
        if !self.peers.any.load(Ordering::Acquire) {
            return None;
        }
        let memory = find(&self.peers.lock(), extent).map(|peer| Arc::clone(&peer.memory))?;
        let HostAddr(address) = self.address(extent.start);
        Some((memory, address as *mut u8))
    }
}

impl Heap {
    /// The device memory that heap offset `offset` is, if it is of [`crate::Home::SharedDevice`].
    #[must_use]
    pub fn peer_memory_at(&self, offset: u64) -> Option<Arc<PeerMemory>> {
        self.core().peer_memory_of(Extent { start: offset, len: 1 }).map(|(memory, _)| memory)
    }

    /// Bytes of device memory that allocations of [`crate::Home::SharedDevice`] take.
    #[must_use]
    pub fn shared_device_bytes(&self) -> u64 {
        self.core().peers.lock().values().map(|peer| peer.blocks.len).sum()
    }
}
