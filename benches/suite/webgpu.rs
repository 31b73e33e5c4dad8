//! wgpu, the peer: what a program on the usual Rust layer over Vulkan pays for the same empty launches. It takes minutes
//! to build, so it is there only with the feature `wgpu`.

#[cfg(feature = "wgpu")]
pub(crate) use peer::WebGpu;
#[cfg(not(feature = "wgpu"))]
pub(crate) use stand_in::WebGpu;

#[cfg(feature = "wgpu")]
mod peer {
    use pollster::block_on;

    /// A device with a queue and a kernel that does nothing.
    pub(crate) struct WebGpu {
        device: wgpu::Device,
        queue: wgpu::Queue,
        pipeline: wgpu::ComputePipeline,
    }

    impl WebGpu {
        /// The device of this name.
        pub(crate) fn open(name: &str) -> Result<Self, String> {
            let mut options = wgpu::InstanceDescriptor::new_without_display_handle();
            // No validation layers: a release build of a user's has none.
            (options.backends, options.flags) = (wgpu::Backends::VULKAN, wgpu::InstanceFlags::empty());
            // lavapipe is not quite conformant, which wgpu wants to be told that we know.
            options.flags |= wgpu::InstanceFlags::ALLOW_UNDERLYING_NONCOMPLIANT_ADAPTER;
            let adapters = block_on(wgpu::Instance::new(options).enumerate_adapters(wgpu::Backends::VULKAN));
            let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name == name);
            let adapter = adapter.ok_or_else(|| format!("wgpu finds no device called {name}"))?;
            let opened = block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()));
            let (device, queue) = opened.map_err(|error| format!("wgpu does not open {name}: {error}"))?;
            let source = wgpu::ShaderSource::Wgsl("@compute @workgroup_size(256) fn main() {}".into());
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            Ok(Self { device, queue, pipeline })
        }

        /// Records and submits an empty launch.
        pub(crate) fn submit(&self) {
            let mut commands = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&self.pipeline);
            pass.dispatch_workgroups(1, 1, 1);
            drop(pass);
            self.queue.submit([commands.finish()]);
        }

        /// Waits for all that was submitted.
        pub(crate) fn wait(&self) {
            self.device.poll(wgpu::PollType::Wait { submission_index: None, timeout: None }).unwrap();
        }
    }
}

#[cfg(not(feature = "wgpu"))]
mod stand_in {
    /// Never made.
    pub(crate) enum WebGpu {}

    impl WebGpu {
        pub(crate) fn open(_: &str) -> Result<Self, String> {
            Err("built without the feature `wgpu`; `cargo xtask bench` builds with it".to_owned())
        }

        pub(crate) fn submit(&self) {
            match *self {}
        }

        pub(crate) fn wait(&self) {
            match *self {}
        }
    }
}
