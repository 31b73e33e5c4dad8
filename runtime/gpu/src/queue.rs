//! An in-order queue on a timeline semaphore. What is in flight owns what it uses; completion gives it back.
//!
//! Several queues share the device's one hardware queue. There is no completion thread: finished work is retired by
//! the next call that looks. It does *not* order work on different queues.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ash::vk;

use crate::device::Device;
use crate::error::GpuError;
use crate::inject;
use crate::kernel::Kernel;

/// A place in a queue's timeline: reached when the work that was given it, and all before, is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

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
}

struct InFlight {
    ticket: Ticket,
    commands: vk::CommandBuffer,
    kernel: Arc<Kernel>,
    _keep: Box<dyn Any + Send>,
}

struct State {
    pool: vk::CommandPool,
    idle: Vec<vk::CommandBuffer>,
    in_flight: VecDeque<InFlight>,
    last: u64,
}

/// An in-order stream of launches.
pub struct Queue {
    timeline: vk::Semaphore,
    state: Mutex<State>,
    device: Arc<Device>,
}

impl Queue {
    /// A queue with nothing in it.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`].
    pub fn new(device: &Arc<Device>) -> Result<Self, GpuError> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let create = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the structures live through the call.
        let timeline = unsafe { device.raw.create_semaphore(&create, None) };
        let timeline = timeline.map_err(|error| GpuError::of("vkCreateSemaphore", error))?;
        let create = vk::CommandPoolCreateInfo::default()
            .queue_family_index(device.adapter.queue_family)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
        // SAFETY: the structures live through the call; the semaphore goes if the pool cannot be made.
        let pool = unsafe { device.raw.create_command_pool(&create, None) }.map_err(|error| {
            // SAFETY: just made and unused.
            unsafe { device.raw.destroy_semaphore(timeline, None) };
            GpuError::of("vkCreateCommandPool", error)
        })?;
        let state = State { pool, idle: Vec::new(), in_flight: VecDeque::new(), last: 0 };
        Ok(Self { timeline, state: Mutex::new(state), device: Arc::clone(device) })
    }

    /// Submits a launch behind what the queue holds already.
    ///
    /// # Safety
    /// Everything that the kernel reaches through `arguments` stays valid until the launch has completed: by what
    /// `keep` owns, or by the caller's own doing.
    ///
    /// # Errors
    /// [`GpuError::ArgumentsTooLarge`], [`GpuError::ArgumentsMissing`], [`GpuError::GridTooLarge`],
    /// [`GpuError::DeviceLost`], [`GpuError::OutOfMemory`]. The launch has not happened then, and is dropped.
    pub unsafe fn submit(&self, submission: Submission) -> Result<Ticket, GpuError> {
        let Submission { kernel, groups, arguments, keep } = submission;
        kernel.check(groups, arguments.len())?;
        if inject::device_lost() {
            return Err(GpuError::DeviceLost);
        }
        let finished = self.retire()?;
        drop(finished);
        let mut state = self.lock();
        let commands = self.commands(&mut state)?;
        let ticket = Ticket(state.last + 1);
        if let Err(error) =
            self.record(commands, &kernel, groups, &arguments).and_then(|()| self.enqueue(commands, ticket))
        {
            state.idle.push(commands);
            return Err(error);
        }
        state.last = ticket.0;
        state.in_flight.push_back(InFlight { ticket, commands, kernel, _keep: keep });
        Ok(ticket)
    }

    /// Waits until `ticket` is reached, and retires what has completed.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn wait(&self, ticket: Ticket) -> Result<(), GpuError> {
        let (semaphores, values) = ([self.timeline], [ticket.0]);
        let wait = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the semaphore lives as long as `self`.
        let result = unsafe { self.device.raw.wait_semaphores(&wait, u64::MAX) };
        result.map_err(|error| GpuError::of("vkWaitSemaphores", error))?;
        if inject::device_lost() {
            return Err(GpuError::DeviceLost);
        }
        drop(self.retire()?);
        Ok(())
    }

    /// Whether `ticket` has been reached.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn reached(&self, ticket: Ticket) -> Result<bool, GpuError> {
        Ok(self.completed()? >= ticket.0)
    }

    /// Waits for everything submitted so far.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn wait_idle(&self) -> Result<(), GpuError> {
        let last = Ticket(self.lock().last);
        self.wait(last)
    }

    /// The kernel that runs now: the oldest that has not completed. Never waits, and gives nothing if another thread
    /// is submitting at this moment.
    #[must_use]
    pub fn running(&self) -> Option<Arc<Kernel>> {
        let completed = self.completed().ok()?;
        let state = self.state.try_lock().ok()?;
        state.in_flight.iter().find(|launch| launch.ticket.0 > completed).map(|launch| Arc::clone(&launch.kernel))
    }

    /// Takes out what has completed. The caller drops it without the lock: what a launch kept may do anything then.
    fn retire(&self) -> Result<Vec<InFlight>, GpuError> {
        let completed = self.completed()?;
        let mut state = self.lock();
        let done = state.in_flight.iter().take_while(|launch| launch.ticket.0 <= completed).count();
        let finished: Vec<_> = state.in_flight.drain(..done).collect();
        state.idle.extend(finished.iter().map(|launch| launch.commands));
        Ok(finished)
    }

    fn completed(&self) -> Result<u64, GpuError> {
        // SAFETY: the semaphore lives as long as `self`.
        let value = unsafe { self.device.raw.get_semaphore_counter_value(self.timeline) };
        value.map_err(|error| GpuError::of("vkGetSemaphoreCounterValue", error))
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
        let made = unsafe { self.device.raw.allocate_command_buffers(&allocate) };
        let made = made.map_err(|error| GpuError::of("vkAllocateCommandBuffers", error))?;
        made.first().copied().ok_or(GpuError::OutOfMemory { call: "vkAllocateCommandBuffers" })
    }

    fn record(
        &self,
        commands: vk::CommandBuffer,
        kernel: &Kernel,
        groups: [u32; 3],
        arguments: &[u8],
    ) -> Result<(), GpuError> {
        let raw = &self.device.raw;
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        let shader = vk::PipelineStageFlags2::COMPUTE_SHADER;
        let everything = vk::AccessFlags2::MEMORY_READ | vk::AccessFlags2::MEMORY_WRITE;
        // Behind the launch before it on this queue, and visible to the host when it is done.
        let before = [vk::MemoryBarrier2::default()
            .src_stage_mask(shader)
            .src_access_mask(vk::AccessFlags2::SHADER_WRITE)
            .dst_stage_mask(shader)
            .dst_access_mask(everything)];
        let after = [vk::MemoryBarrier2::default()
            .src_stage_mask(shader)
            .src_access_mask(vk::AccessFlags2::SHADER_WRITE)
            .dst_stage_mask(vk::PipelineStageFlags2::HOST)
            .dst_access_mask(vk::AccessFlags2::HOST_READ | vk::AccessFlags2::HOST_WRITE)];
        // SAFETY: the command buffer is ours and not in flight; the kernel is kept until it completes.
        let result = unsafe {
            raw.begin_command_buffer(commands, &begin).and_then(|()| {
                raw.cmd_pipeline_barrier2(commands, &vk::DependencyInfo::default().memory_barriers(&before));
                raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, kernel.pipeline);
                if !arguments.is_empty() {
                    let stage = vk::ShaderStageFlags::COMPUTE;
                    raw.cmd_push_constants(commands, kernel.layout, stage, 0, arguments);
                }
                raw.cmd_dispatch(commands, groups[0], groups[1], groups[2]);
                raw.cmd_pipeline_barrier2(commands, &vk::DependencyInfo::default().memory_barriers(&after));
                raw.end_command_buffer(commands)
            })
        };
        result.map_err(|error| GpuError::of("recording a launch", error))
    }

    fn enqueue(&self, commands: vk::CommandBuffer, ticket: Ticket) -> Result<(), GpuError> {
        let buffers = [vk::CommandBufferSubmitInfo::default().command_buffer(commands)];
        let signals = [vk::SemaphoreSubmitInfo::default()
            .semaphore(self.timeline)
            .value(ticket.0)
            .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)];
        let submit = [vk::SubmitInfo2::default().command_buffer_infos(&buffers).signal_semaphore_infos(&signals)];
        let queue = self.device.queue.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the lock makes us the queue's only user; the structures live through the call.
        let result = unsafe { self.device.raw.queue_submit2(*queue, &submit, vk::Fence::null()) };
        result.map_err(|error| GpuError::of("vkQueueSubmit2", error))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (semaphores, values) = ([self.timeline], [state.last]);
        let wait = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: after the wait (or on a lost device) nothing of ours is in use.
        unsafe {
            let _ = self.device.raw.wait_semaphores(&wait, u64::MAX);
            self.device.raw.destroy_command_pool(state.pool, None);
            self.device.raw.destroy_semaphore(self.timeline, None);
        }
    }
}
