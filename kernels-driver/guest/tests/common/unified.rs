//! limosa itself, on lavapipe: what the runtime's users have, with the kernels that the tests need.

use std::path::Path;

use limosa::{
    Context, ContextBuilder, DataFile, DeviceChoice, DeviceKind, FaultMode, Heap, Home, Kernel, Queue, Tier,
    TransferReport, UnifiedVec,
};
use limosa_shaders::{fill, reduce};

pub const FAULT_MODES: [FaultMode; 2] = [FaultMode::HandlerThread, FaultMode::InThread];

/// Opens a file or disk for both directions.
pub fn data_file(path: &Path) -> DataFile {
    DataFile::options().read(true).write(true).open(path).unwrap()
}

/// Why a tier was not taken, as a report has it.
pub fn reason(report: &TransferReport, tier: Tier) -> &str {
    let reason = report.reasons.iter().find(|one| one.tier == tier);
    &reason.unwrap_or_else(|| panic!("no reason against {tier}: {report:?}")).reason
}

pub struct Unified {
    pub queue: Queue,
    fill: Kernel,
    reduce: Kernel,
    pub context: Context,
}

impl Unified {
    /// A small context, with what `choose` says besides. `None`, said aloud, where there is no lavapipe.
    pub fn new(test: &str, choose: impl FnOnce(ContextBuilder) -> ContextBuilder) -> Option<Self> {
        let builder = Context::builder().device(DeviceChoice::Kind(DeviceKind::Cpu)).heap_size(1 << 30);
        let context = match choose(builder.host_limit(512 << 20).device_budget(64 << 20)).build() {
            Ok(context) => context,
            Err(limosa::Error::Pager(limosa::PagerError::Gpu(error))) => {
                super::skip(test, "lavapipe", &error.to_string());
                return None;
            }
            Err(error) => panic!("{test}: {error}"),
        };
        let kernel = |kernel: limosa_shaders::Kernel| context.kernel(kernel.name, kernel.spirv).unwrap();
        let (fill, reduce) = (kernel(fill::KERNEL), kernel(reduce::KERNEL));
        Some(Self { queue: context.queue().unwrap(), fill, reduce, context })
    }

    /// For allocations in the device's memory.
    pub fn device_heap(&self) -> Heap {
        self.context.heap().in_home(Home::SharedDevice)
    }

    /// Reads a file from its beginning on until `vec` is full.
    pub fn read(&self, file: &DataFile, vec: &mut UnifiedVec<u32>) -> TransferReport {
        self.queue.read_file(file, 0, vec).submit().unwrap().wait().unwrap()
    }

    /// Has a kernel fill `vec`.
    pub fn fill(&self, vec: &mut UnifiedVec<u32>, value: u32) {
        let count = vec.len() as u64;
        let launch = self.queue.launch(&self.fill, count.div_ceil(fill::ITEMS));
        // SAFETY: fill writes the words of `vec`, as declared.
        unsafe { launch.args((vec.writes(), count, value, 0u32)).submit() }.unwrap().wait().unwrap();
    }

    /// What a kernel finds to be the sum of `vec`.
    pub fn sum(&self, vec: &UnifiedVec<u32>) -> u64 {
        let mut total = self.context.heap().boxed(0u64).unwrap();
        let count = vec.len() as u64;
        let launch = self.queue.launch(&self.reduce, count.div_ceil(reduce::ITEMS));
        // SAFETY: reduce reads the words of `vec` and adds to `total`, as declared.
        let event = unsafe { launch.args((vec.reads(), total.as_mut_vec().writes(), count)).submit() };
        event.unwrap().wait().unwrap();
        total.get().unwrap()
    }
}
