//! What is known of each allocation: its name, its home, what it was promised, and what happened to it.
//!
//! An account is made with an allocation and entered in the cells of its blocks, so that a fault finds it under the lock
//! that it has anyhow. Small allocations that share a block share its account, and keep a name of their own. It does
//! *not* decide anything, and freed memory is nobody's: a new allocation at the same place begins at zero.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limosa_model::{Access, BLOCK, Block, BlockSet, Cause, DeclaredSets, Extent, HostRange, Plan, Priority, Side};

use crate::cell::Cell;
use crate::core::Core;
use crate::counters::{AllocationCounters, LiveAllocationCounters, add};
use crate::error::{PagerError, Share};
use crate::heap::Heap;
use crate::limit::Limit;
use crate::residency::ResidencySummary;

/// Allocations that an error names, at most.
const SHARES_MAX: usize = 3;

/// Where an allocation lives; chosen when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// In system RAM or device memory, whichever side used it last.
    #[default]
    Migrating,
    /// In memory that both sides see at all times: nothing ever moves or faults, no launch holds it, and it does not
    /// count against the device budget. For what both sides touch by turns in small pieces, and for flags: a kernel may
    /// wait for a CPU's store here, and nowhere else. On a card it is system RAM, so the device reads it over the bus. It
    /// takes whole blocks of 64 KiB. Vulkan orders CPU and GPU at submission and completion only: what both touch in
    /// between is the program's own `unsafe` business.
    Shared,
    /// As [`Home::Shared`], in device memory that other devices reach: an SSD reads and writes it without system RAM,
    /// where [`crate::PeerMemory`] can be had and the machine lets the two devices exchange data (`kernels-driver/P2P.md`).
    ///
    /// The CPU reaches it over the bus: its writes are combined, and its reads are slow, as each is a transaction that it
    /// waits for. So let a kernel read it, or copy it with one. Each allocation takes whole blocks of 64 KiB of the device's memory,
    /// and two file descriptors; it is not cut from a larger piece. It counts against no budget of the heap's.
    ///
    /// When the device's driver is unbound, the memory is gone: whoever touches it gets SIGBUS, a kernel on a software
    /// device likewise, and transfers fail. Nothing of it can be had back but by allocating anew; so stop what uses it
    /// before.
    SharedDevice,
}

/// What an allocation is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllocationOptions {
    /// What errors and lists call it.
    pub name: Option<Arc<str>>,
    /// Where it lives.
    pub home: Home,
    /// How much it is to stay on the device. Means nothing below 64 KiB and in a shared home.
    pub priority: Priority,
    /// The most bytes of it on the device at a time; `None`: as the budget has room. Means nothing in a shared home.
    pub device_limit: Option<u64>,
}

/// An allocation's name, or what there is in its place.
struct Called<'a>(Option<&'a str>, u64);

impl fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "\"{name}\""),
            None => write!(f, "an unnamed allocation of {} bytes", self.1),
        }
    }
}

/// A live allocation, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Its name, if it was given one.
    pub name: Option<Arc<str>>,
    /// Its bytes, by CPU address.
    pub range: HostRange,
    /// Where it lives.
    pub home: Home,
    /// How much it is to stay on the device.
    pub priority: Priority,
    /// The most bytes of it on the device at a time, in whole blocks, if that was limited.
    pub device_limit: Option<u64>,
    /// Where its blocks are now. Blocks are counted whole, also where smaller allocations share one.
    pub residency: ResidencySummary,
    /// What happened to its blocks since it was made. Smaller allocations than 64 KiB have those of their block, since
    /// that came into use.
    pub counters: AllocationCounters,
}

/// What is counted and limited together: the blocks of one allocation, or a block that small ones share.
#[derive(Debug)]
pub(crate) struct Account {
    start: u64,
    /// Bytes of its blocks; changes where an allocation grows or shrinks.
    len: AtomicU64,
    pub(crate) counters: LiveAllocationCounters,
    pub(crate) limit: Option<Limit>,
    /// What the errors of limits call it.
    name: Option<Arc<str>>,
}

impl Account {
    /// Its blocks.
    pub(crate) fn blocks(&self) -> Extent {
        Extent { start: self.start, len: self.len.load(Ordering::Relaxed) }
    }

    pub(crate) fn called(&self) -> String {
        Called(self.name.as_deref(), self.blocks().len).to_string()
    }

    pub(crate) fn count_fault(&self, side: Side, access: Access) {
        let counter = match (side, access) {
            (Side::Host, Access::Read) => &self.counters.cpu_read_faults,
            (Side::Host, Access::Write) => &self.counters.cpu_write_faults,
            (Side::Device, Access::Read) => &self.counters.gpu_read_faults,
            (Side::Device, Access::Write) => &self.counters.gpu_write_faults,
        };
        add(counter, 1);
    }
}

/// The accounts of a chunk's blocks: one, nearly always.
#[derive(Debug, Default)]
pub(crate) struct Accounts(Vec<(BlockSet, Arc<Account>)>);

impl Accounts {
    fn enter(&mut self, blocks: BlockSet, account: Arc<Account>) {
        // It may have grown within the chunk.
        match self.0.iter_mut().find(|(_, other)| Arc::ptr_eq(other, &account)) {
            Some((own, _)) => *own |= blocks,
            None => self.0.push((blocks, account)),
        }
    }

    /// Takes the accounts of `blocks` out, which are those of whole allocations.
    fn leave(&mut self, blocks: BlockSet) -> Vec<(BlockSet, Arc<Account>)> {
        self.0.extract_if(.., |(own, _)| blocks.covers(*own)).collect()
    }

    /// Takes `blocks` out of one account.
    fn cut(&mut self, blocks: BlockSet, account: &Arc<Account>) {
        for (own, _) in self.0.iter_mut().filter(|(_, other)| Arc::ptr_eq(other, account)) {
            *own = *own - blocks;
        }
        self.0.retain(|(own, _)| !own.is_empty());
    }

    /// That of the block in `slot`, if it is allocated.
    pub(crate) fn of(&self, slot: u32) -> Option<&Arc<Account>> {
        self.0.iter().find(|(own, _)| own.contains(slot)).map(|(_, account)| account)
    }

    /// Those with a limit, each with its blocks of the chunk.
    pub(crate) fn limited(&self) -> impl Iterator<Item = (BlockSet, &Arc<Account>)> {
        self.0.iter().filter(|(_, account)| account.limit.is_some()).map(|(own, account)| (*own, account))
    }

    /// A plan was carried out.
    pub(crate) fn count_moves(&self, plan: &Plan) {
        for (own, account) in self.0.iter().filter(|(own, _)| !(*own & plan.covers).is_empty()) {
            let counters = &account.counters;
            let count = |counter, blocks: BlockSet| {
                let blocks = blocks & *own;
                if !blocks.is_empty() {
                    add(counter, blocks.count().into());
                }
            };
            count(&counters.blocks_to_device, plan.copies(Side::Device));
            count(&counters.blocks_to_host, plan.copies(Side::Host));
            match plan.cause {
                Cause::Eviction => count(&counters.blocks_evicted, plan.covers),
                Cause::Prefetch => count(&counters.blocks_prefetched, plan.brings()),
                _ => {}
            }
        }
    }
}

/// An allocation in the list.
#[derive(Debug)]
struct Entry {
    len: u64,
    name: Option<Arc<str>>,
    home: Home,
    account: Arc<Account>,
}

/// All live allocations of a heap. Its lock is taken last of all, and nothing touches the heap under it.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    /// By offset in the heap.
    entries: Mutex<BTreeMap<u64, Entry>>,
    /// Accounts with a limit: few.
    limited: Mutex<Vec<Arc<Account>>>,
    any_limited: AtomicBool,
}

impl Allocations {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is an account with a limit.
    pub(crate) fn any_limited(&self) -> bool {
        self.any_limited.load(Ordering::Acquire)
    }

    /// The accounts with a limit.
    pub(crate) fn limited(&self) -> Vec<Arc<Account>> {
        if self.any_limited() { self.lock_limited().clone() } else { Vec::new() }
    }

    fn lock_limited(&self) -> MutexGuard<'_, Vec<Arc<Account>>> {
        self.limited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_limited(&self, change: impl FnOnce(&mut Vec<Arc<Account>>)) {
        let mut limited = self.lock_limited();
        change(&mut limited);
        self.any_limited.store(!limited.is_empty(), Ordering::Release);
    }

    /// Calls `use_it` with the allocation that has a heap offset, and where it begins. Allocates nothing, so it is allowed
    /// in signal mode.
    fn find<T>(&self, offset: u64, use_it: impl FnOnce(u64, &Entry) -> T) -> Option<T> {
        let entries = self.lock();
        let (start, entry) = entries.range(..=offset).next_back()?;
        (offset - start < entry.len).then(|| use_it(*start, entry))
    }

    /// The first allocated byte of `extent`.
    pub(crate) fn first_in(&self, extent: Extent) -> Option<u64> {
        let entries = self.lock();
        let before = entries.range(..=extent.start).next_back().filter(|(start, one)| extent.start - **start < one.len);
        let (start, _) = before.or_else(|| entries.range(extent.start..extent.end()).next())?;
        Some(extent.start.max(*start))
    }

    /// The allocation that has a heap offset.
    pub(crate) fn extent_at(&self, offset: u64) -> Option<Extent> {
        self.find(offset, |start, entry| Extent { start, len: entry.len })
    }

    /// Calls `use_it` with the name of the allocation that starts at heap offset `start`, if there is one and it has one.
    pub(crate) fn with_name<T>(&self, start: u64, use_it: impl FnOnce(Option<&Arc<str>>) -> T) -> T {
        use_it(self.lock().get(&start).and_then(|entry| entry.name.as_ref()))
    }
}

impl Core {
    /// The allocations that have most of `sets`.
    pub(crate) fn largest_shares(&self, sets: &DeclaredSets) -> Vec<Share> {
        let mut bytes: BTreeMap<u64, (Arc<Account>, u64)> = BTreeMap::new();
        for (chunk, sets) in sets.chunks() {
            let Some(cell) = self.cells.get(chunk) else { continue };
            for (own, account) in cell.lock().accounts.0.iter().filter(|(own, _)| !(*own & sets.all()).is_empty()) {
                let share = bytes.entry(account.start).or_insert_with(|| (Arc::clone(account), 0));
                share.1 += u64::from((*own & sets.all()).count()) * BLOCK;
            }
        }
        let mut shares: Vec<_> = bytes.into_values().collect();
        shares.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let named = |(account, bytes): (Arc<Account>, u64)| Share { allocation: account.called(), bytes };
        shares.into_iter().take(SHARES_MAX).map(named).collect()
    }

    /// An allocation has begun; `fresh` are the blocks that came into use with it, still of no account, and `own` says
    /// whether it shares them with no other.
    pub(crate) fn open_account(&self, extent: Extent, fresh: Option<Extent>, own: bool, options: &AllocationOptions) {
        let own = own && options.home == Home::Migrating;
        let known = |offset| {
            let cell = self.cells.get(Block::containing(offset).chunk())?;
            cell.lock().accounts.of(Block::containing(offset).slot()).map(Arc::clone)
        };
        let account = match fresh {
            None => known(extent.start),
            Some(blocks) => {
                let limit = options.device_limit.filter(|_| own);
                let limit = limit.map(|bytes| Limit::new(bytes.max(self.least_device_limit())));
                let counters = LiveAllocationCounters::default();
                let (start, len) = (blocks.start, AtomicU64::new(blocks.len));
                let account = Arc::new(Account { start, len, counters, limit, name: options.name.clone() });
                self.enter_account(blocks, &account, if own { options.priority } else { Priority::Normal });
                if account.limit.is_some() {
                    self.allocations.set_limited(|all| all.push(Arc::clone(&account)));
                }
                Some(account)
            }
        };
        if let Some(account) = account {
            let entry = Entry { len: extent.len, name: options.name.clone(), home: options.home, account };
            self.allocations.lock().insert(extent.start, entry);
        }
    }

    fn enter_account(&self, blocks: Extent, account: &Arc<Account>, priority: Priority) {
        for (chunk, set) in blocks.chunks() {
            let cell = self.cells.get_or_make(chunk);
            cell.lock().accounts.enter(set, Arc::clone(account));
            if account.limit.is_some() {
                self.adopt_frames(chunk, cell, set, account);
            }
            if priority != Priority::Normal {
                self.say(chunk, |blocks| blocks.prioritize(set, priority));
            }
        }
    }

    fn account_of(&self, start: u64) -> Option<Arc<Account>> {
        self.allocations.lock().get(&start).map(|entry| Arc::clone(&entry.account))
    }

    /// The allocation that begins at `start` has got `blocks` at its end.
    pub(crate) fn extend_account(&self, start: u64, blocks: Extent) {
        let Some(account) = self.account_of(start) else { return };
        let first = Block::containing(start);
        let priority = |cell: &Cell| cell.lock().chunk.priorities().at(first.slot());
        let priority = self.cells.get(first.chunk()).map_or_else(Priority::default, priority);
        self.enter_account(blocks, &account, priority);
        account.len.store(blocks.end() - account.start, Ordering::Relaxed);
    }

    /// The allocation that begins at `start` gives up `blocks` at its end.
    pub(crate) fn cut_account(&self, start: u64, blocks: Extent) {
        let Some(account) = self.account_of(start) else { return };
        // So that nobody is about to enter a frame of theirs.
        let _frames = self.vram.lock();
        for (chunk, set) in blocks.chunks() {
            let Some(cell) = self.cells.get(chunk) else { continue };
            cell.lock().accounts.cut(set, &account);
            account.limit.iter().for_each(|limit| limit.forget(chunk, set));
        }
        account.len.store(blocks.start - account.start, Ordering::Relaxed);
    }

    /// The allocation that begins at `start` is `len` bytes long now.
    pub(crate) fn resize_entry(&self, start: u64, len: u64) {
        if let Some(entry) = self.allocations.lock().get_mut(&start) {
            entry.len = len;
        }
    }

    /// An allocation has ended; `fallow` are the blocks that fell out of use with it.
    pub(crate) fn close_account(&self, start: u64, fallow: Option<Extent>) {
        let entry = self.allocations.lock().remove(&start);
        for (chunk, set) in fallow.into_iter().flat_map(Extent::chunks) {
            let left = self.cells.get(chunk).map(|cell| cell.lock().accounts.leave(set));
            drop(left);
        }
        if let Some(Entry { account, .. }) = entry.filter(|entry| entry.account.limit.is_some()) {
            self.allocations.set_limited(|all| all.retain(|other| !Arc::ptr_eq(other, &account)));
        }
    }
}

impl Heap {
    /// What is allocated now, in ascending order of addresses. Each is as it was at some instant of the call.
    #[must_use]
    pub fn allocations(&self) -> Vec<Allocation> {
        let starts: Vec<u64> = self.core().allocations.lock().keys().copied().collect();
        starts.into_iter().filter_map(|start| self.allocation(start)).collect()
    }

    /// The allocation that contains heap offset `offset`.
    #[must_use]
    pub fn allocation(&self, offset: u64) -> Option<Allocation> {
        let core = self.core();
        let found = core.allocations.find(offset, |start, entry| {
            (Extent { start, len: entry.len }, entry.name.clone(), entry.home, Arc::clone(&entry.account))
        });
        let (extent, name, home, account) = found?;
        Some(Allocation {
            name,
            range: HostRange { start: self.address(extent.start), len: extent.len },
            home,
            priority: self.priority_at(extent.start),
            device_limit: account.limit.as_ref().map(Limit::bytes),
            residency: self.residency_summary(extent),
            counters: account.counters.snapshot(),
        })
    }

    /// The priority of the block that contains heap offset `offset`.
    #[must_use]
    pub fn priority_at(&self, offset: u64) -> Priority {
        let block = Block::containing(offset);
        let cell = self.core().cells.get(block.chunk());
        cell.map_or_else(Priority::default, |cell| cell.lock().chunk.priorities().at(block.slot()))
    }

    fn account_at<T>(&self, offset: u64, ask: impl FnOnce(&Account) -> T) -> Option<T> {
        self.core().allocations.find(offset, |_, entry| ask(&entry.account))
    }

    /// The device limit, in bytes, of the allocation that contains heap offset `offset`, if it has one.
    #[must_use]
    pub fn device_limit_at(&self, offset: u64) -> Option<u64> {
        self.account_at(offset, |account| account.limit.as_ref().map(Limit::bytes))?
    }

    /// What happened to the allocation that contains heap offset `offset`; nothing if there is none.
    #[must_use]
    pub fn counters_at(&self, offset: u64) -> AllocationCounters {
        self.account_at(offset, |account| account.counters.snapshot()).unwrap_or_default()
    }

    /// Sets the priority of the blocks of which `extent` has every allocated byte, until they are freed. Blocks that small
    /// allocations share stay as they are, as do those of shared homes.
    ///
    /// # Errors
    /// [`PagerError::NotAllocated`] if part of it is not allocated; nothing is changed then.
    pub fn set_priority(&self, extent: Extent, priority: Priority) -> Result<(), PagerError> {
        // The lock keeps allocations from being freed meanwhile.
        let arena = self.arena();
        self.check_allocated(&[extent])?;
        for (chunk, set) in arena.own_blocks(extent).chunks() {
            self.core().say(chunk, |blocks| blocks.prioritize(set - blocks.shared(), priority));
        }
        Ok(())
    }
}
