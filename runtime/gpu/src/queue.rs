//! A queue on a timeline semaphore. What is in flight owns what it uses; completion gives it back.
//!
//! # In order
//! A launch on an in-order queue begins with a barrier: it waits for all that the hardware queue was given before, and
//! sees what that wrote.
//!
//! # Out of order
//! There, launches have no execution barrier between them: who submits gives the device only what no launch in flight
//! conflicts with. What they must see is made visible otherwise (Vulkan specification, chapter 7):
//! - what launches wrote that are over: a launch waits for the last ticket that the host saw reached, of whichever queue
//!   of the device. The signal of a ticket comes after all commands that were submitted to the hardware queue before, and
//!   makes available all that the device wrote (7.4.1); the wait makes it visible to all commands of the submission
//!   (7.4.2). Since it was reached already, nobody waits. That the host saw it is not enough: a submission makes visible
//!   what the *host* wrote (7.9).
//! - what copies wrote: a barrier behind transfers, which whoever submits has waited for.
//! - what the host wrote: the submission (7.9).
//!
//! Tickets are reached in order all the same, since each signal comes after all commands before it. So a launch may be
//! done earlier than it is told to be, never later.
//!
//! Several queues share the device's one hardware queue for kernels. There is no completion thread: finished work is retired by
//! the next call that waits or asks for it. It does *not* order work on different queues.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ash::vk;

use crate::device::Device;
use crate::error::GpuError;
use crate::inject::{self, VulkanCall};
use crate::kernel::Kernel;
use crate::timeline::{Bound, Ticket, Timeline};
use crate::timestamps::{DeviceSpan, Pair, Timestamps};

/// A launch that was not submitted, given back with the reason.
pub struct Refused {
    /// Why.
    pub error: GpuError,
    /// What was to be launched.
    pub submission: Submission,
}

/// One kernel launch.
pub struct Submission {
    /// What to run.
    pub kernel: Arc<Kernel>,
    /// Workgroups in each dimension.
    pub groups: [u32; 3],
    /// The whole argument block, the translation word first.
    pub arguments: Vec<u8>,
    /// Kept until the launch has completed, then dropped by whoever retires it.
    pub keep: Box<dyn Any + Send>,
    /// Where to say when it ran, if the queue is profiled: when it is retired.
    pub span: Option<Arc<SpanCell>>,
}

/// When a launch ran, once that is known.
pub type SpanCell = OnceLock<Result<DeviceSpan, GpuError>>;

impl Submission {
    /// Whether the kernel can be called so on its device.
    ///
    /// # Errors
    /// [`GpuError::ArgumentsTooLarge`], [`GpuError::ArgumentsMissing`], [`GpuError::GridTooLarge`].
    pub fn check(&self) -> Result<(), GpuError> {
        self.kernel.check(self.groups, self.arguments.len())
    }
}

struct InFlight {
    ticket: Ticket,
    commands: vk::CommandBuffer,
    /// What it waits for: a semaphore in use must stay.
    _after: Vec<Bound>,
    timing: Option<(Pair, Arc<SpanCell>)>,
    _kernel: Arc<Kernel>,
    _keep: Box<dyn Any + Send>,
}

struct State {
    pool: vk::CommandPool,
    idle: Vec<vk::CommandBuffer>,
    /// Of a profiled queue.
    timestamps: Option<Timestamps>,
    in_flight: VecDeque<InFlight>,
    last: u64,
}

/// What kind of queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueOptions {
    /// Launches may run beside those that were submitted before.
    pub out_of_order: bool,
    /// When launches ran is told.
    pub profiled: bool,
}

/// A stream of launches.
pub struct Queue {
    options: QueueOptions,
    timeline: Arc<Timeline>,
    state: Mutex<State>,
    device: Arc<Device>,
}

impl Queue {
    /// A queue with nothing in it.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`]; [`GpuError::NoTimestamps`] if it is to be profiled and cannot be.
    pub fn new(device: &Arc<Device>, options: QueueOptions) -> Result<Self, GpuError> {
        let timeline = Timeline::new(device)?;
        // From here on dropping it cleans up: a null pool may be destroyed.
        let state = State {
            pool: vk::CommandPool::null(),
            idle: Vec::new(),
            timestamps: options.profiled.then(|| Timestamps::new(device)).transpose()?,
            in_flight: VecDeque::new(),
            last: 0,
        };
        let queue = Self { options, timeline, state: Mutex::new(state), device: Arc::clone(device) };
        let create = vk::CommandPoolCreateInfo::default()
            .queue_family_index(device.adapter.queue_family)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
        // SAFETY: the structures live through the call.
        let pool = VulkanCall::CreateCommandPool.make(|| unsafe { device.raw.create_command_pool(&create, None) })?;
        queue.lock().pool = pool;
        Ok(queue)
    }

    /// Whether launches run in the order of their submission.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        !self.options.out_of_order
    }

    /// Whether it tells when launches ran.
    #[must_use]
    pub fn is_profiled(&self) -> bool {
        self.options.profiled
    }

    /// Submits a launch behind `after` on the device: what has been submitted elsewhere and it needs; on an in-order
    /// queue also behind what the queue holds already, on one that is not also behind the last that is known to be over.
    ///
    /// # Safety
    /// On an out-of-order queue, no launch in flight conflicts with it.
    /// Everything that the kernel reaches through `arguments` stays valid until the launch has completed: by what
    /// `keep` owns, or by the caller's own doing.
    ///
    /// # Errors
    /// [`GpuError::ArgumentsTooLarge`], [`GpuError::ArgumentsMissing`], [`GpuError::GridTooLarge`],
    /// [`GpuError::DeviceLost`], [`GpuError::OutOfMemory`].
    pub unsafe fn submit(&self, submission: Submission, after: Vec<Bound>) -> Result<Ticket, Box<Refused>> {
        match self.try_submit(&submission, &after) {
            Ok((ticket, commands, pair, mut state)) => {
                let Submission { kernel, keep, span, .. } = submission;
                let timing = pair.zip(span);
                state.in_flight.push_back(InFlight {
                    ticket,
                    commands,
                    _after: after,
                    timing,
                    _kernel: kernel,
                    _keep: keep,
                });
                Ok(ticket)
            }
            Err(error) => Err(Box::new(Refused { error, submission })),
        }
    }

    fn try_submit(
        &self,
        submission: &Submission,
        after: &[Bound],
    ) -> Result<(Ticket, vk::CommandBuffer, Option<Pair>, MutexGuard<'_, State>), GpuError> {
        submission.check()?;
        if inject::device_lost() {
            return Err(GpuError::DeviceLost);
        }
        let mut state = self.lock();
        let commands = self.commands(&mut state)?;
        let ticket = Ticket(state.last + 1);
        let timed = state.timestamps.as_mut().filter(|_| submission.span.is_some());
        let pair = timed.map(|timestamps| timestamps.take(&self.device)).transpose();
        let recorded = pair.clone().and_then(|pair| self.record(commands, submission, pair));
        let result = recorded.and_then(|()| {
            // SAFETY: the commands are recorded; they, the kernel and both timelines are kept until they complete.
            unsafe { self.device.compute.submit(&self.device.raw, commands, after, (&self.timeline, ticket)) }
        });
        let pair = pair.ok().flatten();
        match result {
            Ok(()) => {
                state.last = ticket.0;
                Ok((ticket, commands, pair, state))
            }
            Err(error) => {
                state.idle.push(commands);
                if let Some((timestamps, pair)) = state.timestamps.as_mut().zip(pair) {
                    timestamps.give(pair);
                }
                Err(error)
            }
        }
    }

    /// How far it has come.
    #[must_use]
    pub fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// Waits until `ticket` is reached, and retires what has completed.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`], [`GpuError::OutOfMemory`].
    pub fn wait(&self, ticket: Ticket) -> Result<(), GpuError> {
        self.timeline.wait(ticket)?;
        self.retire()
    }

    /// Waits for everything submitted so far.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`], [`GpuError::OutOfMemory`].
    pub fn wait_idle(&self) -> Result<(), GpuError> {
        let last = Ticket(self.lock().last);
        self.wait(last)
    }

    /// Gives back what completed launches kept.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`], [`GpuError::OutOfMemory`].
    pub fn retire(&self) -> Result<(), GpuError> {
        let completed = self.timeline.value()?;
        let mut state = self.lock();
        let done = state.in_flight.iter().take_while(|launch| launch.ticket.0 <= completed).count();
        let finished: Vec<_> = state.in_flight.drain(..done).collect();
        state.idle.extend(finished.iter().map(|launch| launch.commands));
        if let Some(timestamps) = &mut state.timestamps {
            for (pair, span) in finished.iter().filter_map(|launch| launch.timing.as_ref()) {
                // Nobody else sets it.
                let _ = span.set(timestamps.read(&self.device, *pair));
                timestamps.give(*pair);
            }
        }
        // What a launch kept may do anything when it is dropped, also submit to this queue.
        drop(state);
        drop(finished);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commands(&self, state: &mut State) -> Result<vk::CommandBuffer, GpuError> {
        if let Some(commands) = state.idle.pop() {
            return Ok(commands);
        }
        let allocate = vk::CommandBufferAllocateInfo::default().command_pool(state.pool).command_buffer_count(1);
        // SAFETY: the pool is guarded by the lock that `state` proves.
        let made = VulkanCall::AllocateCommandBuffers
            .make(|| unsafe { self.device.raw.allocate_command_buffers(&allocate) })?;
        made.first().copied().ok_or(GpuError::OutOfMemory { call: "vkAllocateCommandBuffers" })
    }

    fn record(&self, commands: vk::CommandBuffer, submission: &Submission, pair: Option<Pair>) -> Result<(), GpuError> {
        let Submission { kernel, groups, arguments, .. } = submission;
        let raw = &self.device.raw;
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        let shader = vk::PipelineStageFlags2::COMPUTE_SHADER;
        let everything = vk::AccessFlags2::MEMORY_READ | vk::AccessFlags2::MEMORY_WRITE;
        // Behind what was submitted before, or only the copies of that, and visible to the host when it is done.
        let (earlier, turn) = match self.options.out_of_order {
            false => (vk::PipelineStageFlags2::ALL_COMMANDS, shader),
            // It has its turn as soon as the device takes it up.
            true => (vk::PipelineStageFlags2::ALL_TRANSFER, vk::PipelineStageFlags2::TOP_OF_PIPE),
        };
        let before = [vk::MemoryBarrier2::default()
            .src_stage_mask(earlier)
            .src_access_mask(vk::AccessFlags2::MEMORY_WRITE)
            .dst_stage_mask(shader)
            .dst_access_mask(everything)];
        let after = [vk::MemoryBarrier2::default()
            .src_stage_mask(shader)
            .src_access_mask(vk::AccessFlags2::SHADER_WRITE)
            .dst_stage_mask(vk::PipelineStageFlags2::HOST)
            .dst_access_mask(vk::AccessFlags2::HOST_READ | vk::AccessFlags2::HOST_WRITE)];
        // SAFETY: the command buffer is ours and not in flight; the kernel is kept until it completes.
        VulkanCall::RecordCommands.make(|| unsafe {
            raw.begin_command_buffer(commands, &begin).and_then(|()| {
                raw.cmd_pipeline_barrier2(commands, &vk::DependencyInfo::default().memory_barriers(&before));
                raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, kernel.pipeline);
                if let Some(pair) = pair {
                    pair.begin(raw, commands, turn);
                }
                let arguments = arguments.get(..kernel.pushed_bytes()).unwrap_or(arguments);
                if !arguments.is_empty() {
                    let stage = vk::ShaderStageFlags::COMPUTE;
                    raw.cmd_push_constants(commands, kernel.layout, stage, 0, arguments);
                }
                raw.cmd_dispatch(commands, groups[0], groups[1], groups[2]);
                if let Some(pair) = pair {
                    pair.end(raw, commands);
                }
                raw.cmd_pipeline_barrier2(commands, &vk::DependencyInfo::default().memory_barriers(&after));
                raw.end_command_buffer(commands)
            })
        })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Fails on a lost device, where nothing runs any more.
        let _ = self.timeline.settle(Ticket(state.last));
        // SAFETY: nothing of ours is in use.
        unsafe {
            self.device.raw.destroy_command_pool(state.pool, None);
            if let Some(timestamps) = &mut state.timestamps {
                timestamps.destroy(&self.device);
            }
        }
    }
}
