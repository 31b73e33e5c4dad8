//! An in-order queue on a timeline semaphore. What is in flight owns what it uses; completion gives it back.
//!
//! Several queues share the device's one hardware queue. There is no completion thread: finished work is retired by
//! the next call that waits or asks for it. It does *not* order work on different queues.

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
}

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
    _kernel: Arc<Kernel>,
    _keep: Box<dyn Any + Send>,
}

struct State {
    pool: vk::CommandPool,
    idle: Vec<vk::CommandBuffer>,
    in_flight: VecDeque<InFlight>,
    last: u64,
}

/// How far a queue has come. It keeps nothing alive but the device, so that anyone may look, also a fault handler.
pub struct Timeline {
    semaphore: vk::Semaphore,
    device: Arc<Device>,
}

impl Timeline {
    fn new(device: &Arc<Device>) -> Result<Arc<Self>, GpuError> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let create = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the structures live through the call.
        let semaphore = unsafe { device.raw.create_semaphore(&create, None) };
        let semaphore = semaphore.map_err(|error| GpuError::of("vkCreateSemaphore", error))?;
        Ok(Arc::new(Self { semaphore, device: Arc::clone(device) }))
    }

    /// Whether `ticket` has been reached.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn reached(&self, ticket: Ticket) -> Result<bool, GpuError> {
        Ok(self.value()? >= ticket.0)
    }

    /// Waits until `ticket` is reached.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn wait(&self, ticket: Ticket) -> Result<(), GpuError> {
        let (semaphores, values) = ([self.semaphore], [ticket.0]);
        let wait = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the semaphore lives as long as `self`.
        let result = unsafe { self.device.raw.wait_semaphores(&wait, u64::MAX) };
        result.map_err(|error| GpuError::of("vkWaitSemaphores", error))?;
        if inject::device_lost() { Err(GpuError::DeviceLost) } else { Ok(()) }
    }

    /// Waits until any of these is reached. All are of one device.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn wait_any(waits: &[(Arc<Self>, Ticket)]) -> Result<(), GpuError> {
        let Some((first, _)) = waits.first() else { return Ok(()) };
        let semaphores: Vec<_> = waits.iter().map(|(timeline, _)| timeline.semaphore).collect();
        let values: Vec<_> = waits.iter().map(|(_, ticket)| ticket.0).collect();
        let wait =
            vk::SemaphoreWaitInfo::default().flags(vk::SemaphoreWaitFlags::ANY).semaphores(&semaphores).values(&values);
        // SAFETY: the semaphores live as long as `waits`.
        let result = unsafe { first.device.raw.wait_semaphores(&wait, u64::MAX) };
        result.map_err(|error| GpuError::of("vkWaitSemaphores", error))?;
        if inject::device_lost() { Err(GpuError::DeviceLost) } else { Ok(()) }
    }

    fn value(&self) -> Result<u64, GpuError> {
        // SAFETY: the semaphore lives as long as `self`.
        let value = unsafe { self.device.raw.get_semaphore_counter_value(self.semaphore) };
        value.map_err(|error| GpuError::of("vkGetSemaphoreCounterValue", error))
    }
}

/// A timeline that the host moves on: for waking a thread that waits for the device.
pub struct Doorbell {
    timeline: Arc<Timeline>,
    rung: Mutex<u64>,
}

impl Doorbell {
    /// A bell not yet rung.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`].
    pub fn new(device: &Arc<Device>) -> Result<Self, GpuError> {
        Ok(Self { timeline: Timeline::new(device)?, rung: Mutex::new(0) })
    }

    /// Rings. Not for signal mode.
    pub fn ring(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        *rung += 1;
        let signal = vk::SemaphoreSignalInfo::default().semaphore(self.timeline.semaphore).value(*rung);
        // SAFETY: the semaphore lives as long as `self`, and the lock makes its values ascend. It fails only on a
        // lost device, where nobody waits.
        let _ = unsafe { self.timeline.device.raw.signal_semaphore(&signal) };
    }

    /// What to wait for to be woken by the next ring.
    #[must_use]
    pub fn next(&self) -> (Arc<Timeline>, Ticket) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&self.timeline), Ticket(*rung + 1))
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        // SAFETY: a queue waits for its last signal before it lets go of its timeline.
        unsafe { self.device.raw.destroy_semaphore(self.semaphore, None) };
    }
}

/// An in-order stream of launches.
pub struct Queue {
    timeline: Arc<Timeline>,
    state: Mutex<State>,
    device: Arc<Device>,
}

impl Queue {
    /// A queue with nothing in it.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`].
    pub fn new(device: &Arc<Device>) -> Result<Self, GpuError> {
        let timeline = Timeline::new(device)?;
        let create = vk::CommandPoolCreateInfo::default()
            .queue_family_index(device.adapter.queue_family)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
        // SAFETY: the structures live through the call.
        let pool = unsafe { device.raw.create_command_pool(&create, None) };
        let pool = pool.map_err(|error| GpuError::of("vkCreateCommandPool", error))?;
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
    /// [`GpuError::DeviceLost`], [`GpuError::OutOfMemory`].
    pub unsafe fn submit(&self, submission: Submission) -> Result<Ticket, Box<Refused>> {
        match self.try_submit(&submission) {
            Ok((ticket, commands, mut state)) => {
                let Submission { kernel, keep, .. } = submission;
                state.in_flight.push_back(InFlight { ticket, commands, _kernel: kernel, _keep: keep });
                Ok(ticket)
            }
            Err(error) => Err(Box::new(Refused { error, submission })),
        }
    }

    fn try_submit(
        &self,
        submission: &Submission,
    ) -> Result<(Ticket, vk::CommandBuffer, MutexGuard<'_, State>), GpuError> {
        submission.check()?;
        if inject::device_lost() {
            return Err(GpuError::DeviceLost);
        }
        let mut state = self.lock();
        let commands = self.commands(&mut state)?;
        let ticket = Ticket(state.last + 1);
        let Submission { kernel, groups, arguments, .. } = submission;
        if let Err(error) =
            self.record(commands, kernel, *groups, arguments).and_then(|()| self.enqueue(commands, ticket))
        {
            state.idle.push(commands);
            return Err(error);
        }
        state.last = ticket.0;
        Ok((ticket, commands, state))
    }

    /// How far it has come.
    #[must_use]
    pub fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// Waits until `ticket` is reached, and retires what has completed.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn wait(&self, ticket: Ticket) -> Result<(), GpuError> {
        self.timeline.wait(ticket)?;
        self.retire()
    }

    /// Waits for everything submitted so far.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn wait_idle(&self) -> Result<(), GpuError> {
        let last = Ticket(self.lock().last);
        self.wait(last)
    }

    /// Gives back what completed launches kept.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`].
    pub fn retire(&self) -> Result<(), GpuError> {
        let completed = self.timeline.value()?;
        let mut state = self.lock();
        let done = state.in_flight.iter().take_while(|launch| launch.ticket.0 <= completed).count();
        let finished: Vec<_> = state.in_flight.drain(..done).collect();
        state.idle.extend(finished.iter().map(|launch| launch.commands));
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
                let arguments = arguments.get(..kernel.pushed_bytes()).unwrap_or(arguments);
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
            .semaphore(self.timeline.semaphore)
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
        // Fails on a lost device, where nothing runs any more.
        let _ = self.timeline.wait(Ticket(state.last));
        // SAFETY: nothing of ours is in use.
        unsafe { self.device.raw.destroy_command_pool(state.pool, None) };
    }
}
