//! Streaming: bytes between files and unified memory, as commands of queues. What is moved is borrowed until it is
//! submitted, and kept until it is over. Which way the bytes take is the pager's to say.

use std::marker::PhantomData;
use std::sync::Arc;

use limosa_model::{Access, Extent, Side};
use limosa_pager::{
    Direction, LaunchEvent, LaunchMark, Part, Progress, Tier, TransferOptions, TransferReport as Report,
};

use crate::allocation::RawAllocation;
use crate::data_file::DataFile;
use crate::event::Event;
use crate::queue::Queue;
use crate::shareable::Shareable;
use crate::slice::{UnifiedSlice, UnifiedSliceMut};
use crate::{Context, Error, Result};

pub use limosa_pager::{TierReason, TierShare, TierVerdict};

/// What became of a transfer.
pub type TransferReport = Report;

/// One part of a transfer to be, with the memory that it is of.
struct Planned {
    memory: Arc<RawAllocation>,
    part: Part,
}

/// Transfers between files and memory to be, until [`Self::submit`]: one command with one event, whose parts are in flight
/// together. Made by [`Queue::read_file`], [`Queue::write_file`] and [`Queue::transfers`].
#[must_use = "it happens when it is submitted"]
pub struct Transfers<'a> {
    queue: &'a Queue,
    planned: Result<Vec<Planned>>,
    options: TransferOptions,
    after: Vec<LaunchEvent>,
    borrows: PhantomData<&'a mut ()>,
}

impl Queue {
    /// Begins to read elements from byte `offset` of a file on: as many as `target` has. By default they arrive on the
    /// device; where they do not fit its budget, on the host, and [`TransferReport::displaced`] says so.
    ///
    /// The event fails with [`crate::PagerError::FileEnded`] if the file has no more, [`crate::PagerError::FileFailed`] if
    /// it could not be read, [`crate::PagerError::Cancelled`]; each says how many bytes had arrived. What did not arrive is
    /// as it was before, or what the file has there. (Of a file that is made shorter while it is read past the page cache, up to
    /// one unit of the drive's behind its new end may be what the drive has there.)
    ///
    /// On the device, memory under a transfer is held as if a launch wrote it: the CPU's touches wait. On the host guards
    /// wait, and launches do, but raw accesses of the CPU's are the program's to order. On an in-order queue a transfer
    /// begins when all before it is over, and what is behind it waits; to have kernels run meanwhile, take another queue,
    /// or one that is out of order.
    ///
    /// ```no_run
    /// # fn main() -> limosa::Result<()> {
    /// let context = limosa::Context::new()?;
    /// let reads = context.queue_builder().out_of_order().build()?;
    /// let (a, b) = (limosa::DataFile::open("a.bin")?, limosa::DataFile::open("b.bin")?);
    /// let mut first = context.heap().vec_zeroed::<f32>(1 << 20)?;
    /// let mut second = context.heap().vec_zeroed::<f32>(1 << 20)?;
    /// let one = reads.read_file(&a, 0, &mut first).submit()?;
    /// let other = reads.read_file(&b, 4096, second.slice_mut(0..1000)?).submit()?;
    /// println!("{:?}", one.progress());
    /// println!("{:?}", one.wait()?.tiers);
    /// other.cancel();
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_file<'a, T: Shareable>(
        &'a self,
        file: &DataFile,
        offset: u64,
        target: impl Into<UnifiedSliceMut<'a, T>>,
    ) -> Transfers<'a> {
        self.transfers().read(file, offset, target)
    }

    /// Begins to write elements to a file, from byte `offset` on. What only the device has is written from there.
    ///
    /// The event is over when the file system has all of it; [`DataFile::sync`] makes it stay. It fails with
    /// [`crate::PagerError::FileFailed`], of a full disk, too.
    pub fn write_file<'a, T: Shareable>(
        &'a self,
        source: impl Into<UnifiedSlice<'a, T>>,
        file: &DataFile,
        offset: u64,
    ) -> Transfers<'a> {
        self.transfers().write(source, file, offset)
    }

    /// Begins a transfer of many parts, of any files: for small reads in numbers, and several drives at once.
    ///
    /// ```no_run
    /// # fn main() -> limosa::Result<()> {
    /// # let context = limosa::Context::new()?;
    /// # let (queue, file) = (context.queue()?, limosa::DataFile::open("a.bin")?);
    /// # let mut pages = context.heap().vec_zeroed::<u8>(1 << 20)?;
    /// let mut reads = queue.transfers();
    /// let mut rest = pages.slice_mut(0..1 << 20)?;
    /// for page in [7, 3, 9u64] {
    ///     let (first, others) = rest.split_at(4096)?;
    ///     (reads, rest) = (reads.read(&file, page * 4096, first), others);
    /// }
    /// reads.submit()?.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn transfers(&self) -> Transfers<'_> {
        let options = TransferOptions::default();
        Transfers { queue: self, planned: Ok(Vec::new()), options, after: Vec::new(), borrows: PhantomData }
    }
}

impl<'a> Transfers<'a> {
    /// Adds a read; see [`Queue::read_file`].
    pub fn read<T: Shareable>(self, file: &DataFile, offset: u64, target: impl Into<UnifiedSliceMut<'a, T>>) -> Self {
        let target = target.into();
        self.add(file, offset, target.shared().memory(), target.shared().extent(), Direction::FromFile)
    }

    /// Adds a write; see [`Queue::write_file`].
    pub fn write<T: Shareable>(self, source: impl Into<UnifiedSlice<'a, T>>, file: &DataFile, offset: u64) -> Self {
        let source = source.into();
        self.add(file, offset, source.memory(), source.extent(), Direction::ToFile)
    }

    fn add(
        mut self,
        file: &DataFile,
        offset: u64,
        memory: &Arc<RawAllocation>,
        extent: Extent,
        direction: Direction,
    ) -> Self {
        if let Ok(planned) = &mut self.planned {
            match memory.foreign_to(self.queue.inner.heap(), "(transfer)") {
                Some(foreign) => self.planned = Err(foreign),
                None => {
                    let part = Part { file: Arc::clone(&file.inner), offset, extent, direction };
                    planned.push(Planned { memory: Arc::clone(memory), part });
                }
            }
        }
        self
    }

    /// Where what is read is to arrive. On the device it must fit the budget then.
    pub fn to(mut self, side: Side) -> Self {
        self.options.side = Some(side);
        self
    }

    /// The only way that it may take; the event fails with [`crate::PagerError::TierUnusable`] if that does not serve. Of
    /// memory that is in several places, some may have been moved by then: [`Transfer::report`] tells.
    pub fn tier(mut self, tier: Tier) -> Self {
        self.options.tier = Some(tier);
        self
    }

    /// The most requests that the kernel is to have at a time, at least one. Default: as many as serve the transfer.
    pub fn depth(mut self, requests: u32) -> Self {
        self.options.depth = Some(requests);
        self
    }

    /// The most bytes of one request. Default: what suits the drive, 1 to 2 MiB.
    pub fn request_bytes(mut self, bytes: u64) -> Self {
        self.options.request = Some(bytes);
        self
    }

    /// It begins only when `event` is over; if that failed, it does not happen. See [`crate::Launch::after`].
    pub fn after(self, event: &Event) -> Self {
        self.after_all([event])
    }

    /// As [`Self::after`] of each of `events`.
    pub fn after_all<'e>(mut self, events: impl IntoIterator<Item = &'e Event>) -> Self {
        self.after.extend(events.into_iter().map(|event| event.inner.clone()));
        self
    }

    /// Submits it.
    ///
    /// # Errors
    /// [`crate::PagerError::File`] for a file that is not open for it; [`crate::PagerError::RangeTooLarge`] and
    /// [`crate::PagerError::OverDeviceLimit`] where [`Self::to`] asked for the device;
    /// [`crate::PagerError::NoStreaming`] where the system has neither io_uring nor threads; [`crate::PagerError::ForeignMemory`];
    /// [`crate::GpuError::DeviceLost`]. Nothing is moved then. What goes wrong later is told by the event.
    pub fn submit(self) -> Result<Transfer> {
        let planned = self.planned?;
        let used = used_by(&planned);
        let behind: Vec<LaunchMark> = used
            .iter()
            // Pins of the host's memory do not keep each other out, nor do shared homes.
            .flat_map(|(memory, extent, access)| memory.uses.conflicts_with(*extent, *access))
            .collect();
        let keep: Vec<Arc<RawAllocation>> = used.iter().map(|(memory, ..)| Arc::clone(memory)).collect();
        let transfers = limosa_pager::Transfers {
            parts: planned.into_iter().map(|planned| planned.part).collect(),
            options: self.options,
            after: self.after,
            behind,
            keep: Box::new(keep),
        };
        let inner = self.queue.inner.transfer(transfers)?;
        let mark = inner.event().mark();
        for (memory, extent, access) in &used {
            memory.uses.note(&mark, *extent, *access);
        }
        Ok(Transfer::of(inner))
    }
}

/// What memory is used, and how; parts that follow each other in it are one.
fn used_by(planned: &[Planned]) -> Vec<(Arc<RawAllocation>, Extent, Access)> {
    let mut used: Vec<(Arc<RawAllocation>, Extent, Access)> = Vec::new();
    for Planned { memory, part: Part { extent, direction, .. } } in planned {
        let access = if *direction == Direction::FromFile { Access::Write } else { Access::Read };
        match used.last_mut() {
            Some((last, before, same))
                if Arc::ptr_eq(last, memory) && *same == access && before.end() == extent.start =>
            {
                before.len += extent.len;
            }
            _ => used.push((Arc::clone(memory), *extent, access)),
        }
    }
    used
}

/// A transfer that was submitted. Cheap to clone; dropping it neither waits nor cancels.
#[derive(Clone)]
pub struct Transfer {
    inner: limosa_pager::Transfer,
    event: Event,
}

impl Transfer {
    pub(crate) fn of(inner: limosa_pager::Transfer) -> Self {
        let event = Event { inner: inner.event().clone() };
        Self { inner, event }
    }

    /// Its event: to be waited for, awaited, called back on, or named in others' `after`.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Waits until it is over, and tells what became of it.
    ///
    /// # Errors
    /// Why it failed; see [`Queue::read_file`]. [`Self::report`] tells what arrived then, too.
    pub fn wait(&self) -> Result<TransferReport> {
        self.event.wait()?;
        Ok(self.report())
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.inner.progress()
    }

    /// What became of it so far; all of it once the event is over, also if that failed.
    #[must_use]
    pub fn report(&self) -> TransferReport {
        self.inner.report()
    }

    /// Has it end early. Its event fails with [`crate::PagerError::Cancelled`], once the kernel has given back all memory;
    /// what a drive is busy with is waited for. If it is over already, nothing happens.
    pub fn cancel(&self) {
        self.inner.cancel();
    }
}

impl Context {
    /// Which tiers serve a file in one direction, for aligned memory on the device of this context, as far as can be told
    /// without moving anything; and what would change it.
    ///
    /// ```
    /// # fn main() -> limosa::Result<()> {
    /// # let context = limosa::Context::builder().heap_size(1 << 30).build()?;
    /// let file = limosa::DataFile::open("/proc/self/exe")?;
    /// for verdict in context.tiers(&file, limosa::Direction::FromFile) {
    ///     println!("{}: {}", verdict.tier, verdict.obstacle.as_deref().unwrap_or("serves"));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tiers(&self, file: &DataFile, direction: Direction) -> Vec<TierVerdict> {
        self.heap().inner.tiers(&file.inner, direction)
    }
}

// The parts of a transfer are moved by another thread.
const _: () = {
    const fn is_send<T: Send + Sync>() {}
    is_send::<Transfer>();
    is_send::<Error>();
};
