//! When launches on profiled queues were submitted, given to the device, and ran. Others have none of this.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use limosa_gpu::SpanCell;

use crate::error::PagerError;
use crate::event::LaunchEvent;
use crate::record::Reached;

/// What is noted of a launch on a profiled queue.
pub(crate) struct Timing {
    submitted: Instant,
    admitted: OnceLock<Instant>,
    pub(crate) span: Arc<SpanCell>,
}

impl Timing {
    pub(crate) fn start() -> Self {
        Self { submitted: Instant::now(), admitted: OnceLock::new(), span: Arc::default() }
    }

    pub(crate) fn admitted(&self) {
        // Once.
        let _ = self.admitted.set(Instant::now());
    }
}

/// When a launch came how far, in nanoseconds since its heap was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// It was submitted to its queue.
    pub submitted: u64,
    /// What it waited for was over, its data was where it must be, and it was given to the device.
    pub admitted: u64,
    /// Its kernel began: on an in-order queue when the device had done what it was given before, on an out-of-order queue
    /// when the device took it up.
    pub began: u64,
    /// Its kernel ended; on an out-of-order queue, and with it those that the device was given before.
    pub ended: u64,
    /// How far the device's clock, of which `began` and `ended` are, may be off from the host's, in nanoseconds. `None`:
    /// they cannot be compared, so `began` and `ended` count from somewhere else than the others, and only the time
    /// between them means anything.
    pub off_by: Option<u64>,
}

impl Profile {
    /// Nanoseconds from the kernel's beginning to its end, by the device's clock.
    #[must_use]
    pub fn device_time(&self) -> u64 {
        self.ended - self.began
    }
}

impl LaunchEvent {
    /// When the launch came how far. Waits for it.
    ///
    /// # Errors
    /// [`PagerError::NotProfiled`] if it is no launch of a profiled queue, or never ran; [`limosa_gpu::GpuError`] if the
    /// device's clock could not be read.
    pub fn profile(&self) -> Result<Profile, PagerError> {
        let none = |reason: &str| PagerError::NotProfiled { what: self.record.told(), reason: reason.into() };
        let timing =
            self.record.timing.as_ref().ok_or_else(|| none("only launches on a queue made with `profiled` have"))?;
        let Reached::Device(timeline, ticket) = self.record.reach() else { return Err(none("it never ran")) };
        timeline.wait(ticket).map_err(|error| self.heap.noticed(error))?;
        if let Some(queue) = &self.queue {
            queue.retire().map_err(|error| self.heap.noticed(error))?;
        }
        let span = timing.span.get().ok_or_else(|| none("its queue is gone"))?;
        let span = span.as_ref().map_err(|error| self.heap.noticed(error.clone()))?;
        let nanos = |instant| self.heap.core().throttle.nanos(instant);
        let (began, ended) = match span.ended_at {
            Some((at, _)) => {
                let ended = nanos(at);
                (ended.saturating_sub(span.ended - span.began), ended)
            }
            None => (span.began, span.ended),
        };
        Ok(Profile {
            submitted: nanos(timing.submitted),
            admitted: timing.admitted.get().map_or(0, |at| nanos(*at)),
            began,
            ended,
            off_by: span.ended_at.map(|(_, off)| u64::try_from(off.as_nanos()).unwrap_or(u64::MAX)),
        })
    }
}
