//! A software device, and launches on it. It does *not* check what kernels compute.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test uses its part; a failing test may panic

use std::io::Write;
use std::sync::Arc;

use limosa_gpu::{
    Bind, Bound, Device, DeviceChoice, DeviceKind, Frame, FrameKind, FramePool, GpuError, Instance, Kernel, Queue,
    QueueOptions, Source, SpanCell, SparseRange, Submission, Translation,
};
use limosa_model::{BLOCK, Extent};
use limosa_shaders::{copy, fill};

/// The software device. Where there is none, or it has no sparse memory, says so, and the test ends.
pub fn device(test: &str) -> Option<Arc<Device>> {
    let opened = Instance::new().and_then(|instance| {
        let adapter = instance.choose(&DeviceChoice::Kind(DeviceKind::Cpu))?;
        Device::open(&instance, adapter)
    });
    let why = match opened {
        Ok(device) if device.adapter.sparse_missing.is_empty() => return Some(device),
        Ok(device) => format!("it lacks {}", device.adapter.sparse_missing.join(", ")),
        Err(error) => error.to_string(),
    };
    let line = format!("SKIP {test}: needs a software device with sparse memory: {why}\n");
    eprint!("{line}");
    if let Ok(path) = std::env::var("LIMOSA_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
    None
}

pub fn blocks(first: u64, count: u64) -> Extent {
    Extent { start: first * BLOCK, len: count * BLOCK }
}

pub fn bind_to(extent: Extent, frame: &Frame, offset: u64) -> Bind<'_> {
    Bind { extent, frame: Some((frame, offset)) }
}

pub fn unbind(extent: Extent) -> Bind<'static> {
    Bind { extent, frame: None }
}

/// Binds; each test keeps its frames to its end.
pub fn bind(range: &SparseRange, binds: &[Bind<'_>]) -> Bound {
    // SAFETY: as said.
    unsafe { range.bind(binds) }.unwrap()
}

pub fn frame(pool: &Arc<FramePool>) -> Arc<Frame> {
    pool.allocate(FrameKind::Device).unwrap()
}

/// The kernels of the tests, and a queue to launch them on.
pub struct Kernels {
    pub queue: Queue,
    fill: Arc<Kernel>,
    copy: Arc<Kernel>,
    translation: Translation,
}

impl Kernels {
    pub fn new(device: &Arc<Device>, translation: Translation) -> Result<Self, GpuError> {
        let kernel = |kernel: limosa_shaders::Kernel| {
            let words = kernel.words();
            let source = Source { name: kernel.name, words: &words, entry: "main", constants: &[] };
            Kernel::new(device, &source, translation)
        };
        Ok(Self {
            queue: Queue::new(device, QueueOptions { profiled: true, ..QueueOptions::default() })?,
            fill: kernel(fill::KERNEL)?,
            copy: kernel(copy::KERNEL)?,
            translation,
        })
    }

    /// Writes `value` to `count` words at `dst`.
    pub fn fill(&self, dst: u64, count: u64, value: u32, after: Option<&Bound>) -> Result<(), GpuError> {
        self.launch(&self.fill, &[dst, count, u64::from(value)], after)
    }

    /// Copies `count` words.
    pub fn copy(&self, dst: u64, src: u64, count: u64, after: Option<&Bound>) -> Result<(), GpuError> {
        self.launch(&self.copy, &[dst, src, count], after)
    }

    fn launch(&self, kernel: &Arc<Kernel>, words: &[u64], after: Option<&Bound>) -> Result<(), GpuError> {
        let words = std::iter::once(self.translation.word()).chain(words.iter().copied());
        let span = Arc::new(SpanCell::new());
        let submission = Submission {
            kernel: Arc::clone(kernel),
            groups: [4, 1, 1],
            arguments: words.flat_map(u64::to_ne_bytes).collect(),
            keep: Box::new(()),
            span: Some(Arc::clone(&span)),
        };
        // SAFETY: the test keeps ranges and frames to its end, and each launch is waited for.
        let ticket = unsafe { self.queue.submit(submission, after.into_iter().cloned().collect()) }
            .map_err(|refused| refused.error)?;
        self.queue.wait(ticket)?;
        span.get().unwrap().clone().map(drop)
    }
}
