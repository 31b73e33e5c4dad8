//! lavapipe as the GPU: its threads run compute kernels on a view, which is imported as memory of the host's.

use std::sync::Arc;

use limosa_gpu::{
    Device, DeviceChoice, DeviceKind, ImportedRange, Instance, Kernel, Queue, QueueOptions, Source, Submission, Ticket,
    Translation,
};
use limosa_os::shim::View;

/// Kernels over one view. It goes before the view: kernels are waited for.
pub struct Gpu {
    queue: Queue,
    translation: Translation,
    _window: ImportedRange,
    device: Arc<Device>,
}

impl Gpu {
    /// `None`, said aloud, where there is no lavapipe.
    pub fn over(test: &str, view: &View) -> Option<Self> {
        let device = Instance::new().and_then(|instance| {
            let adapter = instance.choose(&DeviceChoice::Kind(DeviceKind::Cpu))?;
            Device::open(&instance, adapter)
        });
        let device = match device {
            Ok(device) => device,
            Err(error) => {
                super::skip(test, "lavapipe", &error.to_string());
                return None;
            }
        };
        // SAFETY: the tests keep the view longer than this, and the kernel serves accesses to it.
        let window = unsafe { ImportedRange::new(&device, view.range()) }.unwrap();
        let translation = Translation::Delta(window.base().delta_from(view.mirrored().start));
        let queue = Queue::new(&device, QueueOptions::default()).unwrap();
        Some(Self { queue, translation, _window: window, device })
    }

    pub fn kernel(&self, kernel: limosa_shaders::Kernel) -> Arc<Kernel> {
        let words = kernel.words();
        let source = Source { name: kernel.name, words: &words, entry: "main", constants: &[] };
        Kernel::new(&self.device, &source, self.translation).unwrap()
    }

    /// Starts a kernel; `words` are its arguments, pointers as the CPU has them.
    pub fn launch(&self, kernel: &Arc<Kernel>, words: &[u64]) -> Ticket {
        let words = std::iter::once(self.translation.word()).chain(words.iter().copied());
        let submission = Submission {
            kernel: Arc::clone(kernel),
            groups: [8, 1, 1],
            arguments: words.flat_map(u64::to_ne_bytes).collect(),
            keep: Box::new(()),
            span: None,
        };
        // SAFETY: the tests keep what the kernels reach until they are waited for.
        unsafe { self.queue.submit(submission, Vec::new()) }.map_err(|refused| refused.error).unwrap()
    }

    pub fn wait(&self, ticket: Ticket) {
        self.queue.wait(ticket).unwrap();
    }

    pub fn run(&self, kernel: &Arc<Kernel>, words: &[u64]) {
        self.wait(self.launch(kernel, words));
    }
}
