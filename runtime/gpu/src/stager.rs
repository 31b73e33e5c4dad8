//! Copies between ordinary memory of the process and frames, by the device's transfer queue: for frames that the CPU
//! cannot map, or reads slowly. It does *not* order copies against kernels: whoever calls does.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use ash::vk;
use limosa_model::{CHUNK, HostRange};

use crate::buffer::{self, HostBuffer};
use crate::device::Device;
use crate::error::GpuError;
use crate::frame::Frame;
use crate::import::ImportedRange;
use crate::slot::Slot;

/// Bytes of a slot: large enough that submitting costs little beside copying, small enough for the CPU's cache, which
/// then holds the piece that the device reads next.
const PIECE: u64 = 512 << 10;
/// Slots in all: four copies at once keep both sides busy.
const SLOTS: u64 = 8;
/// Slots that one copy uses at most: one that the CPU works on, and one that the device does.
const SLOTS_PER_COPY: usize = 2;

/// Copies through staging memory. Any number of threads may use it; who finds no slot free waits for one.
pub struct Stager {
    idle: Mutex<Vec<Slot>>,
    returned: Condvar,
    /// What the slots are pieces of.
    staging: HostBuffer,
    /// Memory of somebody else's that the device reads and writes itself, so that nothing of it is copied twice.
    adopted: OnceLock<ImportedRange>,
    device: Arc<Device>,
}

/// A part of a copy: bytes from `offset` of the whole on.
#[derive(Clone, Copy)]
struct Piece {
    offset: u64,
    len: u64,
}

impl Stager {
    /// A stager with its staging memory: 4 MiB.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], [`GpuError::Driver`].
    pub fn new(device: &Arc<Device>) -> Result<Self, GpuError> {
        let staging = HostBuffer::new(device, SLOTS * PIECE, buffer::COPIED)?;
        let slots = (0..SLOTS).map(|index| Slot::new(device, index * PIECE)).collect::<Result<_, _>>()?;
        Ok(Self {
            idle: Mutex::new(slots),
            returned: Condvar::new(),
            staging,
            adopted: OnceLock::new(),
            device: Arc::clone(device),
        })
    }

    /// Has the device itself read and write `range` where it is the other end of a copy: once. Else such copies go through
    /// the staging memory.
    ///
    /// # Safety
    /// The range is memory of the process's own, mapped for reading and writing as long as `self` lives.
    ///
    /// # Errors
    /// [`GpuError::Import`] where the driver takes no memory of the process's; [`GpuError::OutOfMemory`].
    pub unsafe fn adopt(&self, range: HostRange) -> Result<(), GpuError> {
        // SAFETY: as the caller promises.
        let imported = unsafe { ImportedRange::new(&self.device, range)? };
        // Of two, the first stays.
        let _ = self.adopted.set(imported);
        Ok(())
    }

    /// Copies within memory that the device reaches, in one piece.
    fn copy_adopted(&self, len: u64, from: (vk::Buffer, u64), to: (vk::Buffer, u64)) -> Result<(), GpuError> {
        let mut held = Held::new(self);
        held.next(|_, _| ())?;
        let region = vk::BufferCopy::default().src_offset(from.1).dst_offset(to.1).size(len);
        held.submit(Piece { offset: 0, len }, |raw, commands| {
            // SAFETY: both buffers hold the region; the frame is borrowed, and the other's memory the caller's, until it is
            // done.
            unsafe { raw.cmd_copy_buffer(commands, from.0, to.0, &[region]) };
        })?;
        held.finish(|_, _| ())
    }

    fn adopted(&self, pointer: *const u8, len: u64) -> Option<(vk::Buffer, u64)> {
        self.adopted.get()?.find(pointer, len)
    }

    /// Copies `len` bytes from `source` to `frame`, from `offset` on; all is there when it returns.
    ///
    /// # Safety
    /// `source` is good for reading `len` bytes, and nobody writes them or uses those of the frame meanwhile.
    ///
    /// # Errors
    /// [`GpuError::Extent`], [`GpuError::OutOfMemory`], [`GpuError::DeviceLost`]. The bytes are undefined then.
    pub unsafe fn upload(&self, frame: &Frame, offset: u64, source: *const u8, len: u64) -> Result<(), GpuError> {
        check("an upload", offset, len, 1)?;
        if let Some(own) = self.adopted(source, len) {
            return self.copy_adopted(len, own, (frame.buffer, offset));
        }
        let mut held = Held::new(self);
        for piece in pieces(len) {
            let slot = held.next(|_, _| ())?;
            // SAFETY: the piece lies within the source, and fits the slot, which no copy uses.
            unsafe {
                let target = self.memory(slot).as_ptr();
                source.add(bytes(piece.offset)).copy_to_nonoverlapping(target, bytes(piece.len));
            }
            let region =
                vk::BufferCopy::default().src_offset(slot.offset).dst_offset(offset + piece.offset).size(piece.len);
            held.submit(piece, |raw, commands| {
                // SAFETY: both buffers hold the region; the slot is held, and the frame borrowed, until it is done.
                unsafe { raw.cmd_copy_buffer(commands, self.staging.buffer, frame.buffer, &[region]) };
            })?;
        }
        held.finish(|_, _| ())
    }

    /// Copies `len` bytes of `frame` from `offset` on to `target`; all is there when it returns.
    ///
    /// # Safety
    /// `target` is good for writing `len` bytes, and nobody uses them or writes those of the frame meanwhile.
    ///
    /// # Errors
    /// [`GpuError::Extent`], [`GpuError::OutOfMemory`], [`GpuError::DeviceLost`]. The bytes are undefined then.
    pub unsafe fn download(&self, frame: &Frame, offset: u64, target: *mut u8, len: u64) -> Result<(), GpuError> {
        check("a download", offset, len, 1)?;
        if let Some(own) = self.adopted(target, len) {
            return self.copy_adopted(len, (frame.buffer, offset), own);
        }
        // SAFETY: the piece lies within the target, and within the slot, whose copy is done.
        let arrived = |slot: &Slot, piece: Piece| unsafe {
            let source = self.memory(slot).as_ptr();
            target.add(bytes(piece.offset)).copy_from_nonoverlapping(source, bytes(piece.len));
        };
        let mut held = Held::new(self);
        for piece in pieces(len) {
            let slot = held.next(arrived)?;
            let region =
                vk::BufferCopy::default().src_offset(offset + piece.offset).dst_offset(slot.offset).size(piece.len);
            held.submit(piece, |raw, commands| {
                // SAFETY: both buffers hold the region; the slot is held, and the frame borrowed, until it is done.
                unsafe { raw.cmd_copy_buffer(commands, frame.buffer, self.staging.buffer, &[region]) };
            })?;
        }
        held.finish(arrived)
    }

    /// Sets `len` bytes of `frame` from `offset` on to `byte`; both are multiples of 4, as Vulkan's fill wants. Nobody
    /// uses the bytes meanwhile.
    ///
    /// # Errors
    /// [`GpuError::Extent`], [`GpuError::OutOfMemory`], [`GpuError::DeviceLost`]. The bytes are undefined then.
    pub fn fill(&self, frame: &Frame, offset: u64, len: u64, byte: u8) -> Result<(), GpuError> {
        check("a fill", offset, len, 4)?;
        if len == 0 {
            return Ok(());
        }
        let mut held = Held::new(self);
        held.next(|_, _| ())?;
        held.submit(Piece { offset: 0, len }, |raw, commands| {
            // SAFETY: the buffer holds the bytes, and the frame is borrowed until it is done.
            unsafe { raw.cmd_fill_buffer(commands, frame.buffer, offset, len, u32::from_ne_bytes([byte; 4])) };
        })?;
        held.finish(|_, _| ())
    }

    /// Where a slot's bytes are.
    fn memory(&self, slot: &Slot) -> NonNull<u8> {
        // SAFETY: the slots are pieces of the staging memory.
        unsafe { self.staging.mapped().add(bytes(slot.offset)) }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot, as soon as there is one.
    fn slot(&self) -> Option<Slot> {
        let waited = self.returned.wait_while(self.idle(), |idle| idle.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// The slots that one copy holds, the one that was submitted first in front. Dropped, it gives them back, after the
/// device has done with them.
struct Held<'a> {
    stager: &'a Stager,
    /// What the device works on.
    in_flight: VecDeque<(Slot, Piece)>,
    /// What the CPU works on.
    current: Option<Slot>,
}

impl<'a> Held<'a> {
    fn new(stager: &'a Stager) -> Self {
        Self { stager, in_flight: VecDeque::new(), current: None }
    }

    /// A slot that the device does not use: another one while there are some, else the oldest of those held, whose
    /// piece has `arrived`. Only who holds none waits for others to give one back, so nobody waits for each other.
    fn next(&mut self, arrived: impl Fn(&Slot, Piece)) -> Result<&Slot, GpuError> {
        let slot = if self.in_flight.is_empty() {
            self.stager.slot()
        } else if self.in_flight.len() < SLOTS_PER_COPY {
            self.stager.idle().pop()
        } else {
            None
        };
        if let Some(slot) = slot {
            return Ok(self.current.insert(slot));
        }
        self.settle(arrived)?;
        self.current.as_ref().ok_or(GpuError::OutOfMemory { call: "a staging slot" })
    }

    /// Lets the device do what `record` records, with the slot that [`Self::next`] gave.
    fn submit(&mut self, piece: Piece, record: impl FnOnce(&ash::Device, vk::CommandBuffer)) -> Result<(), GpuError> {
        if let Some(slot) = &mut self.current {
            slot.submit(&self.stager.device, record)?;
        }
        self.in_flight.extend(self.current.take().map(|slot| (slot, piece)));
        Ok(())
    }

    /// Waits for the oldest piece in flight; its slot becomes the current one.
    fn settle(&mut self, arrived: impl Fn(&Slot, Piece)) -> Result<(), GpuError> {
        if let Some((slot, piece)) = self.in_flight.front() {
            slot.wait()?;
            arrived(slot, *piece);
        }
        self.current = self.in_flight.pop_front().map(|(slot, _)| slot);
        Ok(())
    }

    /// Waits for every piece.
    fn finish(mut self, arrived: impl Fn(&Slot, Piece)) -> Result<(), GpuError> {
        while !self.in_flight.is_empty() {
            self.settle(&arrived)?;
            self.give_back();
        }
        Ok(())
    }

    fn give_back(&mut self) {
        if let Some(slot) = self.current.take() {
            self.stager.idle().push(slot);
            self.stager.returned.notify_one();
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.give_back();
        while let Some((slot, _)) = self.in_flight.pop_front() {
            slot.settle();
            self.current = Some(slot);
            self.give_back();
        }
    }
}

/// A copy of `len` bytes in pieces that fit a slot.
fn pieces(len: u64) -> impl Iterator<Item = Piece> {
    (0..len.div_ceil(PIECE)).map(move |index| Piece { offset: index * PIECE, len: PIECE.min(len - index * PIECE) })
}

/// Whether a frame has these bytes, and they are of whole units.
fn check(what: &'static str, start: u64, len: u64, unit: u64) -> Result<(), GpuError> {
    let refused = |reason| Err(GpuError::Extent { what, start, len, reason });
    if start.checked_add(len).is_none_or(|end| end > CHUNK) {
        refused("it is not within a frame")
    } else if !start.is_multiple_of(unit) || !len.is_multiple_of(unit) {
        refused("it is not of whole words of 4 bytes")
    } else {
        Ok(())
    }
}

/// A length within a frame or the staging memory, as pointers want it.
#[allow(clippy::cast_possible_truncation)] // at most a few MiB
const fn bytes(len: u64) -> usize {
    len as usize
}
