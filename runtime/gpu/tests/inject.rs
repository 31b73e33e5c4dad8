//! Every kind of Vulkan call fails once: with a named error, leaving nothing behind, and all works afterwards. Injection
//! is process-wide, so this is one test.
#![allow(clippy::unwrap_used)] // a failing test may panic

mod common;

use std::alloc::Layout;
use std::sync::Arc;

use common::{Kernels, bind_to, blocks, device};
use limosa_gpu::inject::{VulkanCall, clear, fail, lose_device};
use limosa_gpu::{
    Device, DeviceChoice, DeviceKind, Frame, FrameKind, FramePool, GpuError, ImportedRange, Instance, SparseRange,
    Stager,
};
use limosa_model::{CHUNK, HostAddr, HostRange, PAGE};

const HOST: HostAddr = HostAddr(0x10_0000_0000);

/// In the order in which they are to go.
struct Made {
    kernels: Kernels,
    range: SparseRange,
    stager: Stager,
    frame: Arc<Frame>,
    pool: Arc<FramePool>,
}

impl Made {
    fn new() -> Result<Self, GpuError> {
        let instance = Instance::new()?;
        let device = Device::open(&instance, instance.choose(&DeviceChoice::Kind(DeviceKind::Cpu))?)?;
        import(&device)?;
        let pool = FramePool::new(&device)?;
        let frame = pool.allocate(FrameKind::Device)?;
        let stager = Stager::new(&device)?;
        // Several segments, so that there is a table.
        let mut range = SparseRange::new(&device, 3 * CHUNK, Some(CHUNK))?;
        let kernels = Kernels::new(&device, range.translate_from(HOST)?)?;
        Ok(Self { kernels, range, stager, frame, pool })
    }

    /// A frame's way: taken, filled, bound, written by a kernel, read.
    fn work(&self, value: u32) -> Result<(), GpuError> {
        let other = self.pool.allocate(FrameKind::HostVisible)?;
        self.stager.fill(&other, 0, CHUNK, 0)?;
        self.stager.fill(&self.frame, 0, CHUNK, 0)?;
        // SAFETY: both frames live as long as work may use them: the queue and the range are waited for below.
        let bound = unsafe { self.range.bind(&[bind_to(blocks(31, 2), &self.frame, 0)]) }?;
        let worked = self.kernels.fill(HOST.offset(CHUNK - 4).0, 2, value, Some(&bound));
        let mut words = [0u32; 2];
        let offset = blocks(1, 1).start - 4;
        // SAFETY: the array has room.
        unsafe { self.stager.download(&self.frame, offset, words.as_mut_ptr().cast(), 8) }?;
        worked?;
        assert_eq!(words, [value; 2]);
        Ok(())
    }
}

/// Imports a page, where the device can.
fn import(device: &Arc<Device>) -> Result<(), GpuError> {
    if device.adapter.limits.import_alignment == 0 {
        return Err(GpuError::OutOfMemory { call: VulkanCall::HostPointerProperties.name() });
    }
    let page = Layout::from_size_align(usize::try_from(PAGE).unwrap(), usize::try_from(PAGE).unwrap()).unwrap();
    // SAFETY: the page is given back after the import that uses it.
    unsafe {
        let pointer = std::alloc::alloc_zeroed(page);
        let imported =
            ImportedRange::new(device, HostRange { start: HostAddr(pointer.addr() as u64), len: PAGE }).map(drop);
        std::alloc::dealloc(pointer, page);
        imported
    }
}

/// How many files are open and ranges mapped: on the software device, memory is both.
fn held() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (std::fs::read_dir("/proc/self/fd").unwrap().count(), maps.lines().count())
}

fn failed(call: VulkanCall, result: Result<(), GpuError>) {
    let Err(GpuError::OutOfMemory { call: named }) = result else { panic!("{call:?}: {result:?}") };
    assert_eq!(named, call.name());
}

#[test]
fn every_call_may_fail() {
    if device("every_call_may_fail").is_none() {
        return;
    }
    // From nothing: what had been made until the call failed is gone.
    for call in VulkanCall::ALL {
        let mut before = (0, 0);
        for round in 0..6 {
            fail(*call);
            failed(*call, Made::new().and_then(|made| made.work(1)));
            clear();
            // The first rounds fill the driver's caches.
            before = if round < 2 { held() } else { before };
        }
        let after = held();
        assert!(after.0 <= before.0 && after.1 <= before.1 + 8, "{call:?} leaves something: {before:?} {after:?}");
    }
    // In the midst of work: the same objects go on.
    let made = Made::new().unwrap();
    made.work(1).unwrap();
    for (value, call) in (2..).zip(VulkanCall::ALL) {
        fail(*call);
        let result = made.work(value);
        clear();
        // The others are made once, at the start.
        if result.is_err() {
            println!("{call:?} fails at work");
            failed(*call, result);
        }
        made.work(value).unwrap();
    }
    lose_device();
    assert!(matches!(made.work(0), Err(GpuError::DeviceLost)));
    // SAFETY: nothing is bound.
    assert!(matches!(unsafe { made.range.bind(&[bind_to(blocks(0, 1), &made.frame, 0)]) }, Err(GpuError::DeviceLost)));
    clear();
    made.work(7).unwrap();
}
