//! An address range of the device's whose memory is bound block by block: `SparseView`'s Vulkan half.
//!
//! The range is one or several sparse buffers, and what lies behind each block is up to whoever owns the range. It
//! does *not* keep the frames that are bound, and does not make kernels that are running leave a block alone.

use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;
use limosa_model::{BLOCK, CHUNK, DeviceAddr, HostAddr};
use limosa_shaders::translation;

use crate::bind::{self, Bind, Run};
use crate::buffer::{self, HostBuffer};
use crate::device::Device;
use crate::error::GpuError;
use crate::hardware::HardwareQueue;
use crate::kernel::Translation;
use crate::timeline::{Bound, Ticket, Timeline};

/// A range of device addresses to which frames are bound.
pub struct SparseRange {
    segments: Vec<Segment>,
    /// Bytes of each segment but the last, which may be shorter; a power of two.
    segment_len: u64,
    len: u64,
    /// How far the binds have come, and the last that was submitted.
    timeline: Arc<Timeline>,
    last: Mutex<Ticket>,
    /// For kernels, where the segments' distances from the CPU's range differ.
    table: Option<HostBuffer>,
    queue: Arc<HardwareQueue>,
    device: Arc<Device>,
}

struct Segment {
    buffer: vk::Buffer,
    base: DeviceAddr,
}

impl SparseRange {
    /// A range of `len` bytes (whole chunks) with nothing bound. Its segments are no longer than the device's limit,
    /// and than `segment_limit` bytes where that is given.
    ///
    /// # Errors
    /// [`GpuError::Sparse`] where the device or its driver cannot, [`GpuError::OutOfMemory`].
    pub fn new(device: &Arc<Device>, len: u64, segment_limit: Option<u64>) -> Result<Self, GpuError> {
        let adapter = &device.adapter;
        let refused = |reason: String| GpuError::Sparse { device: adapter.name.clone(), bytes: len, reason };
        let Some(queue) = &device.sparse else {
            return Err(refused(format!("it lacks {}", adapter.sparse_missing.join(", "))));
        };
        if len == 0 || !len.is_multiple_of(CHUNK) {
            return Err(refused(format!("it is not of whole chunks of {CHUNK} bytes")));
        }
        let limit = adapter.limits.segment_bytes.min(segment_limit.unwrap_or(u64::MAX));
        if limit < CHUNK {
            return Err(refused(format!("its segments may have at most {limit} bytes, which is less than a chunk")));
        }
        let mut range = Self {
            segments: Vec::new(),
            segment_len: 1 << limit.ilog2(),
            len,
            timeline: Timeline::new(device)?,
            last: Mutex::new(Ticket(0)),
            table: None,
            queue: Arc::clone(queue),
            device: Arc::clone(device),
        };
        let mut offset = 0;
        while offset < len {
            let bytes = range.segment_len.min(len - offset);
            range.add_segment(bytes).map_err(|error| match error {
                GpuError::Driver { call, code } => refused(format!("{call} answered {code}")),
                other => other,
            })?;
            offset += bytes;
        }
        Ok(range)
    }

    /// The device address of the first byte. Those of the first segment follow without a gap.
    #[must_use]
    pub fn base(&self) -> DeviceAddr {
        self.segments.first().map_or(DeviceAddr(0), |segment| segment.base)
    }

    /// The device address of the byte at `offset`, if the range has one.
    #[must_use]
    pub fn address(&self, offset: u64) -> Option<DeviceAddr> {
        let segment = self.segments.get(usize::try_from(offset / self.segment_len).ok()?)?;
        (offset < self.len).then(|| DeviceAddr(segment.base.0 + offset % self.segment_len))
    }

    /// Binds frames to extents of the range, and nothing to others: in one call to the driver, with neighbours bound
    /// as one. The extents do not overlap. Binds are carried out in the order of the calls; the answer tells when.
    ///
    /// # Safety
    /// Each frame lives until the bind is done, and from then on as long as it is bound and a kernel may reach it.
    ///
    /// # Errors
    /// [`GpuError::Extent`], [`GpuError::OutOfMemory`], [`GpuError::DeviceLost`]. Nothing is bound then.
    pub unsafe fn bind(&self, binds: &[Bind<'_>]) -> Result<Bound, GpuError> {
        for one in binds {
            if let Some(reason) = bind::fault(one, self.len) {
                return Err(GpuError::Extent { what: "a bind", start: one.extent.start, len: one.extent.len, reason });
            }
        }
        let memory = |one: &Bind<'_>| {
            let (frame, offset) = one.frame?;
            let (object, start) = frame.memory();
            Some((object, start + offset))
        };
        let wanted = binds.iter().map(|one| (one.extent, memory(one))).collect();
        let runs = bind::merged(wanted, self.segment_len);
        let raw: Vec<_> = runs.iter().map(sparse_bind).collect();
        let mut infos = Vec::new();
        let parts = runs.chunk_by(|one, next| one.segment == next.segment);
        let mut rest = &raw[..];
        for part in parts {
            let (binds, others) = rest.split_at(part.len());
            rest = others;
            let segment = part.first().and_then(|run| self.segments.get(usize::try_from(run.segment).ok()?));
            let info = vk::SparseBufferMemoryBindInfo::default().binds(binds);
            infos.extend(segment.map(|segment| info.buffer(segment.buffer)));
        }
        // Vulkan does not order binds by itself: each waits for the one before it. The lock is for the order, and
        // because a buffer is bound by one thread at a time.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !infos.is_empty() {
            let done = Ticket(last.0 + 1);
            // SAFETY: the buffers live as long as `self`, which waits for the binds; the extents were looked at; the
            // caller keeps the frames.
            unsafe { self.queue.bind(&self.device.raw, &infos, &self.timeline, *last, done) }?;
            *last = done;
        }
        Ok((Arc::clone(&self.timeline), *last))
    }

    /// How kernels are to translate pointers into the CPU's range from `host_base` on, which stands for this one. It
    /// is to be called before the first launch: a table that an earlier call made is gone.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], [`GpuError::Driver`], where a table is needed.
    pub fn translate_from(&mut self, host_base: HostAddr) -> Result<Translation, GpuError> {
        let starts = (0..self.len).step_by(usize::try_from(self.segment_len).unwrap_or(usize::MAX));
        let deltas: Vec<_> = self
            .segments
            .iter()
            .zip(starts)
            .map(|(segment, start)| segment.base.delta_from(host_base.offset(start)))
            .collect();
        let first = deltas.first().copied().unwrap_or(0);
        if deltas.iter().all(|delta| *delta == first) {
            return Ok(if first == 0 { Translation::Identity } else { Translation::Delta(first) });
        }
        let words = translation::table(host_base.0, self.segment_len.ilog2(), &deltas);
        let table = HostBuffer::new(&self.device, size_of_val(&words[..]) as u64, buffer::REACHED)?;
        // SAFETY: the buffer has room for the words, and a mapping begins at a page; the device does not use it yet.
        let address = unsafe {
            table.mapped().cast::<u64>().as_ptr().copy_from_nonoverlapping(words.as_ptr(), words.len());
            buffer::address(&self.device, table.buffer)
        };
        self.table = Some(table);
        Ok(Translation::Table(address))
    }

    fn add_segment(&mut self, len: u64) -> Result<(), GpuError> {
        let buffer = buffer::create(&self.device, &description(&self.device, len))?;
        // SAFETY: the buffer is alive, and sparse.
        let (alignment, base) = unsafe {
            let requirements = self.device.raw.get_buffer_memory_requirements(buffer);
            (requirements.alignment, buffer::address(&self.device, buffer))
        };
        self.segments.push(Segment { buffer, base });
        if alignment == 0 || !BLOCK.is_multiple_of(alignment) {
            let reason =
                format!("the driver binds units of {alignment} bytes, which blocks of {BLOCK} are not made of");
            return Err(GpuError::Sparse { device: self.device.adapter.name.clone(), bytes: self.len, reason });
        }
        Ok(())
    }
}

impl Drop for SparseRange {
    fn drop(&mut self) {
        let last = *self.last.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Fails on a lost device, where nothing runs any more.
        let _ = self.timeline.settle(last);
        for segment in &self.segments {
            // SAFETY: no bind is in flight, and whoever submits work that uses the range keeps it until that is done.
            unsafe { self.device.raw.destroy_buffer(segment.buffer, None) };
        }
    }
}

/// A sparse buffer of `len` bytes. What is bound to it may lie behind other buffers too: a frame's own.
pub(crate) fn description(device: &Device, len: u64) -> vk::BufferCreateInfo<'_> {
    let flags = vk::BufferCreateFlags::SPARSE_BINDING
        | vk::BufferCreateFlags::SPARSE_RESIDENCY
        | vk::BufferCreateFlags::SPARSE_ALIASED;
    buffer::describe(device, len, buffer::REACHED | buffer::COPIED, flags)
}

fn sparse_bind(run: &Run<vk::DeviceMemory>) -> vk::SparseMemoryBind {
    let bind = vk::SparseMemoryBind::default().resource_offset(run.offset).size(run.len);
    match run.memory {
        Some((memory, offset)) => bind.memory(memory).memory_offset(offset),
        None => bind,
    }
}
