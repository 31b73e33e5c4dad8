//! Fingerprints of blocks that lie in windows, and a hash table that chains the records of blocks with equal ones. It
//! does *not* read files, nor look into the chains.
//!
//! What launches rely on: a block that is listed lies in its window, and its record among the records; both are checked
//! in [`Window::list`]. Chains lead from record to record of the same table: only the kernel stores them, and
//! [`Record::set_next`].

use std::mem::offset_of;
use std::ops::Range;

use limosa::{BLOCK, Context, Event, GpuPtr, Heap, Kernel, Queue, ReadGuard, Result, Shareable};
use limosa::{UnifiedBox, UnifiedVec, WriteGuard};
use limosa_shaders::digest::{self, PIECE};
use limosa_shaders::hash_enter;

use super::index;

/// What is known of a block, as the kernels know it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Record(digest::Record);

// SAFETY: numbers only, every bit pattern valid; `repr(C)` without padding, which limosa-shaders asserts.
unsafe impl Shareable for Record {}

impl Record {
    /// The fingerprint; zeros where the block was never looked at.
    pub(crate) fn key(&self) -> [u32; 4] {
        self.0.key
    }

    /// Another record of its chain.
    pub(crate) fn next(&self) -> GpuPtr<Record> {
        GpuPtr::from_address(self.0.next)
    }

    /// Has it lead elsewhere.
    pub(crate) fn set_next(&mut self, next: GpuPtr<Record>) {
        self.0.next = next.address();
    }

    /// The index of its file.
    pub(crate) fn file(&self) -> usize {
        self.0.file as usize
    }

    /// Which block of the file it is.
    pub(crate) fn number(&self) -> u64 {
        u64::from(self.0.number)
    }
}

/// A block as the kernel is told of it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Listed(digest::Block);

// SAFETY: as for `Record`.
unsafe impl Shareable for Listed {}

/// A slot of the table.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Slot(hash_enter::Slot);

// SAFETY: as for `Record`.
unsafe impl Shareable for Slot {}

impl Slot {
    /// How many records are in its chain.
    pub(crate) fn count(&self) -> u32 {
        self.0.count
    }

    /// The index of the first record of its chain.
    pub(crate) fn head(&self) -> Option<usize> {
        self.0.head.checked_sub(1).map(|head| head as usize)
    }
}

/// A record for each block of all files.
pub(crate) struct Records(UnifiedVec<Record>);

impl Records {
    /// The most of them: the table counts them from 1 in 32 bits.
    pub(crate) const MOST: u64 = u32::MAX as u64 - 1;
    /// Bytes of one.
    pub(crate) const BYTES_EACH: u64 = size_of::<Record>() as u64;

    /// So many, without keys; at least one, which leads nowhere.
    pub(crate) fn new(heap: &Heap, count: u64) -> Result<Self> {
        heap.named("records").vec_zeroed(index(count.max(1))).map(Self)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.raw().len()
    }

    /// A pointer to one.
    pub(crate) fn ptr(&self, index: usize) -> GpuPtr<Record> {
        self.0.ptr(index)
    }

    /// Brings all to the host, for the CPU to walk them.
    pub(crate) fn bring(&self) -> Result<()> {
        self.0.prefetch_to_host()
    }

    pub(crate) fn read(&self) -> Result<ReadGuard<'_, Record>> {
        self.0.read()
    }

    pub(crate) fn write(&mut self) -> Result<WriteGuard<'_, Record>> {
        self.0.write()
    }
}

/// Memory for a window's bytes, and the list of the blocks in it.
pub(crate) struct Window {
    pub(crate) bytes: UnifiedVec<u8>,
    blocks: UnifiedVec<Listed>,
    listed: usize,
    /// The records of the blocks that are listed.
    records: Range<usize>,
    /// Bytes of the longest block.
    longest: u64,
}

/// Blocks that follow each other in a file and in a window. All but the last are of `block` bytes.
pub(crate) struct Run {
    /// Where the first begins in the window: a multiple of 16.
    pub(crate) at: u64,
    pub(crate) bytes: u64,
    pub(crate) block: u64,
    /// The index of the file.
    pub(crate) file: usize,
    /// Which of the file's blocks the first is.
    pub(crate) number: u64,
    /// The first one's record.
    pub(crate) record: u64,
}

impl Window {
    /// Room for `bytes` bytes, and for as many blocks as begin at multiples of `least`.
    pub(crate) fn new(heap: &Heap, bytes: u64, least: u64) -> Result<Self> {
        let heap = heap.named("window");
        // In blocks of their own: the CPU lists one window's while kernels go over another.
        let blocks = bytes.div_ceil(least).max(BLOCK / size_of::<Listed>() as u64);
        let (bytes, blocks) = (heap.vec_zeroed(index(bytes.max(BLOCK)))?, heap.vec_zeroed(index(blocks))?);
        Ok(Self { bytes, blocks, listed: 0, records: 0..0, longest: 0 })
    }

    /// Lists the blocks of `runs`, whose records follow each other but for gaps. Waits for launches on the window.
    pub(crate) fn list(&mut self, runs: &[Run], records: &Records) -> Result<()> {
        let Self { bytes, blocks, listed, records: range, longest } = self;
        let mut list = blocks.write()?;
        let mut free = list.iter_mut();
        (*listed, *range, *longest) = (0, 0..0, 0);
        for run in runs {
            // That they are there.
            bytes.slice(index(run.at)..index((run.at + run.bytes).next_multiple_of(16)))?;
            let first = index(run.record);
            let own = first..first + index(run.bytes.div_ceil(run.block));
            records.0.slice(own.clone())?;
            let starts = (0..run.bytes).step_by(index(run.block));
            for ((start, record), free) in starts.zip(own.clone()).zip(&mut free) {
                let bytes_of = run.block.min(run.bytes - start);
                *free = Listed(digest::Block {
                    source: bytes.ptr(index(run.at + start)).address(),
                    record: records.ptr(record).address(),
                    bytes: low(bytes_of),
                    file: low(run.file as u64),
                    number: low(run.number + start / run.block),
                    reserved: 0,
                });
                *longest = bytes_of.max(*longest);
                *listed += 1;
            }
            *range = if *range == (0..0) { own } else { range.start.min(own.start)..range.end.max(own.end) };
        }
        Ok(())
    }
}

/// A number that was checked to fit: lengths of blocks, files, blocks of a file.
fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A hash table of the records' keys, in as many parts as it takes for each to be on the device as a whole.
pub(crate) struct Table {
    slots: UnifiedVec<Slot>,
    parts: usize,
    homeless: UnifiedBox<u32>,
}

impl Table {
    /// A table that is half empty with `count` records, in parts of `part` bytes at most, if that is a few.
    pub(crate) fn new(heap: &Heap, count: u64, part: u64) -> Result<Self> {
        let slots = (2 * count).next_power_of_two().max(BLOCK / size_of::<Slot>() as u64);
        let slots = slots.next_power_of_two();
        let mut parts = 1;
        while slots / parts * size_of::<Slot>() as u64 > part && parts < slots {
            parts *= 2;
        }
        let vec = heap.named("hash table").vec_zeroed(index(slots))?;
        Ok(Self { slots: vec, parts: index(parts), homeless: heap.boxed(0)? })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.slots.raw().len()
    }

    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    /// Records for which there was no slot.
    pub(crate) fn homeless(&self) -> Result<u32> {
        self.homeless.get()
    }

    /// Brings all to the host, for the CPU to walk it.
    pub(crate) fn bring(&self) -> Result<()> {
        self.slots.prefetch_to_host()
    }

    pub(crate) fn read(&self) -> Result<ReadGuard<'_, Slot>> {
        self.slots.read()
    }
}

/// Both kernels, ready to run.
pub(crate) struct Finder {
    digest: Kernel,
    enter: Kernel,
    queue: Queue,
}

impl Finder {
    pub(crate) fn new(context: &Context) -> Result<Self> {
        let kernel = |kernel: limosa_shaders::Kernel| context.kernel(kernel.name, kernel.spirv);
        Ok(Self { digest: kernel(digest::KERNEL)?, enter: kernel(hash_enter::KERNEL)?, queue: context.queue()? })
    }

    /// Has the device fingerprint the blocks that are listed. `None` if there are none.
    pub(crate) fn digest(&self, window: &mut Window, records: &mut Records) -> Result<Option<Event>> {
        const { assert!(offset_of!(digest::Args, blocks) == 0 && size_of::<digest::Args>() == 8) };
        if window.listed == 0 {
            return Ok(None);
        }
        let groups = [low(window.longest.div_ceil(PIECE)), low(window.listed as u64), 1];
        let launch = self.queue.launch_groups(&self.digest, groups);
        let launch = launch.arg(window.blocks.slice(0..window.listed)?.reads()).with(window.bytes.reads());
        let launch = launch.with(records.0.slice_mut(window.records.clone())?.writes());
        // SAFETY: the kernel reads a listed block for each row, and the bytes that these name, and adds to their records:
        // `list` made sure that they lie where this declares.
        unsafe { launch.submit() }.map(Some)
    }

    /// Has the device enter all records, at most so many in a launch; answers the launches in order.
    pub(crate) fn enter(&self, records: &mut Records, table: &mut Table, at_once: u64) -> Result<Vec<Event>> {
        // The order of the launch's arguments below.
        const {
            assert!(offset_of!(hash_enter::Args, count) == 8 && offset_of!(hash_enter::Args, first) == 16);
            assert!(offset_of!(hash_enter::Args, slots) == 24 && offset_of!(hash_enter::Args, mask) == 32);
            assert!(offset_of!(hash_enter::Args, homeless) == 40 && offset_of!(hash_enter::Args, parts) == 48);
            assert!(offset_of!(hash_enter::Args, part) == 52);
        }
        let (all, slots) = (records.0.len(), table.slots.len() / table.parts);
        let mut events = Vec::new();
        for part in 0..table.parts {
            for start in (0..all).step_by(index(at_once)) {
                let end = all.min(start + index(at_once));
                let (first, count) = (records.ptr(0), (end - start) as u64);
                let launch = self.queue.launch(&self.enter, count).arg(records.0.slice_mut(start..end)?.writes());
                let launch = launch.args((count, first));
                let launch = launch.arg(table.slots.slice_mut(part * slots..(part + 1) * slots)?.writes());
                let launch = launch.args((slots as u64 - 1, table.homeless.as_mut_vec().writes()));
                let launch = launch.args((low(table.parts as u64 - 1), low(part as u64)));
                // SAFETY: the kernel writes these records, the part's slots and the counter, as declared.
                events.push(unsafe { launch.submit() }?);
            }
        }
        Ok(events)
    }
}
