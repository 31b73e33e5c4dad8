//! Timestamps: when launches began and ended, by the device's clock, and where that is on the host's. Only profiled
//! queues have any. They do *not* say what a device did in between.

use std::time::{Duration, Instant};

use ash::vk;

use crate::adapter::Adapter;
use crate::device::Device;
use crate::error::GpuError;
use crate::inject::VulkanCall;

/// Launches that one query pool serves at a time.
const PAIRS: u32 = 64;
/// How often the clocks are compared for one launch, for the closest pair of readings.
const COMPARISONS: usize = 3;

/// When a launch ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSpan {
    /// Its beginning, in nanoseconds on the device's clock, which starts anywhere.
    pub began: u64,
    /// Its end on the same clock.
    pub ended: u64,
    /// Its end on the host's clock and how far that may be off, if the device's can be compared.
    pub ended_at: Option<(Instant, Duration)>,
}

/// A device's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceClock {
    /// Bits that count; above, it starts again.
    mask: u64,
    /// Nanoseconds of a tick in units of 2⁻²⁰.
    period: u64,
}

impl DeviceClock {
    /// `None` if the family's queues have no timestamps.
    pub(crate) fn of(valid_bits: u32, period: f32) -> Option<Self> {
        let mask = u64::MAX.checked_shr(64u32.checked_sub(valid_bits)?)?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // some nanoseconds; a cast saturates
        let period = (f64::from(period) * f64::from(1 << 20)).round() as u64;
        (period > 0).then_some(Self { mask, period })
    }

    fn nanos(self, ticks: u64) -> u64 {
        u64::try_from((u128::from(ticks & self.mask) * u128::from(self.period)) >> 20).unwrap_or(u64::MAX)
    }

    /// From one reading to a later one, in nanoseconds.
    fn between(self, earlier: u64, later: u64) -> u64 {
        self.nanos(later.wrapping_sub(earlier))
    }
}

/// How the device's clock is compared with the host's.
pub(crate) enum Calibration {
    Khr(ash::khr::calibrated_timestamps::Device),
    Ext(ash::ext::calibrated_timestamps::Device),
}

impl Calibration {
    /// What `adapter` was found to have, and the device was made with.
    pub(crate) fn of(adapter: &Adapter, instance: &ash::Instance, device: &ash::Device) -> Option<Self> {
        match adapter.calibration? {
            name if name == ash::khr::calibrated_timestamps::NAME => {
                Some(Self::Khr(ash::khr::calibrated_timestamps::Device::new(instance, device)))
            }
            _ => Some(Self::Ext(ash::ext::calibrated_timestamps::Device::new(instance, device))),
        }
    }

    /// Ticks now.
    fn read(&self) -> Result<u64, GpuError> {
        let info = [vk::CalibratedTimestampInfoKHR::default().time_domain(vk::TimeDomainKHR::DEVICE)];
        // SAFETY: the device was made with the extension, and every device has its own domain.
        let read = VulkanCall::CalibrateTimestamps.make(|| unsafe {
            match self {
                Self::Khr(device) => device.get_calibrated_timestamps(&info),
                Self::Ext(device) => device.get_calibrated_timestamps(&info),
            }
        })?;
        let lacking = || GpuError::Driver { call: VulkanCall::CalibrateTimestamps.name(), code: "no timestamp".into() };
        read.0.first().copied().ok_or_else(lacking)
    }
}

/// Two queries: the beginning and the end of a launch.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pool: vk::QueryPool,
    first: u32,
}

/// The queries of a queue. Whoever uses it answers for one at a time.
pub(crate) struct Timestamps {
    clock: DeviceClock,
    pools: Vec<vk::QueryPool>,
    idle: Vec<Pair>,
}

impl Timestamps {
    /// # Errors
    /// [`GpuError::NoTimestamps`], [`GpuError::OutOfMemory`].
    pub(crate) fn new(device: &Device) -> Result<Self, GpuError> {
        let clock =
            device.adapter.clock.ok_or_else(|| GpuError::NoTimestamps { device: device.adapter.name.clone() })?;
        let mut made = Self { clock, pools: Vec::new(), idle: Vec::new() };
        made.grow(device)?;
        Ok(made)
    }

    fn grow(&mut self, device: &Device) -> Result<(), GpuError> {
        let create = vk::QueryPoolCreateInfo::default().query_type(vk::QueryType::TIMESTAMP).query_count(2 * PAIRS);
        // SAFETY: the structure lives through the call.
        let pool = VulkanCall::CreateQueryPool.make(|| unsafe { device.raw.create_query_pool(&create, None) })?;
        self.pools.push(pool);
        self.idle.extend((0..PAIRS).map(|pair| Pair { pool, first: 2 * pair }));
        Ok(())
    }

    pub(crate) fn take(&mut self, device: &Device) -> Result<Pair, GpuError> {
        if self.idle.is_empty() {
            self.grow(device)?;
        }
        self.idle.pop().ok_or(GpuError::OutOfMemory { call: VulkanCall::CreateQueryPool.name() })
    }

    /// No command buffer in flight uses it any more.
    pub(crate) fn give(&mut self, pair: Pair) {
        self.idle.push(pair);
    }

    /// What a pair says of a launch that has completed.
    pub(crate) fn read(&self, device: &Device, pair: Pair) -> Result<DeviceSpan, GpuError> {
        let mut ticks = [0u64; 2];
        let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
        VulkanCall::QueryResults.make(|| {
            // SAFETY: both were written by commands that have completed, so nothing is waited for.
            unsafe { device.raw.get_query_pool_results(pair.pool, pair.first, &mut ticks, flags) }
        })?;
        let began = self.clock.nanos(ticks[0]);
        let ended_at =
            device.calibration.as_ref().map(|calibration| self.on_host(calibration, ticks[1])).transpose()?;
        Ok(DeviceSpan { began, ended: began + self.clock.between(ticks[0], ticks[1]), ended_at })
    }

    /// Where `ticks`, which lie in the past, are on the host's clock: by the closest of some readings of both.
    fn on_host(&self, calibration: &Calibration, ticks: u64) -> Result<(Instant, Duration), GpuError> {
        let mut best: Option<(Instant, Duration)> = None;
        for _ in 0..COMPARISONS {
            let before = Instant::now();
            let now = calibration.read()?;
            let took = before.elapsed();
            if best.is_none_or(|(_, off)| took < off) {
                let middle = before + took / 2;
                let ago = Duration::from_nanos(self.clock.between(ticks, now));
                best = Some((middle.checked_sub(ago).unwrap_or(middle), took));
            }
        }
        best.ok_or(GpuError::OutOfMemory { call: VulkanCall::CalibrateTimestamps.name() })
    }

    /// # Safety
    /// Nothing in flight uses a pair.
    pub(crate) unsafe fn destroy(&mut self, device: &Device) {
        for pool in self.pools.drain(..) {
            // SAFETY: promised.
            unsafe { device.raw.destroy_query_pool(pool, None) };
        }
    }
}

impl Pair {
    /// Notes the beginning, once what comes before has completed `stage`.
    ///
    /// # Safety
    /// `commands` is being recorded, and nothing in flight uses the pair.
    pub(crate) unsafe fn begin(self, raw: &ash::Device, commands: vk::CommandBuffer, stage: vk::PipelineStageFlags2) {
        // SAFETY: promised.
        unsafe {
            raw.cmd_reset_query_pool(commands, self.pool, self.first, 2);
            raw.cmd_write_timestamp2(commands, stage, self.pool, self.first);
        }
    }

    /// Notes the end of the kernels recorded before.
    ///
    /// # Safety
    /// As for [`Self::begin`], which came before.
    pub(crate) unsafe fn end(self, raw: &ash::Device, commands: vk::CommandBuffer) {
        let stage = vk::PipelineStageFlags2::COMPUTE_SHADER;
        // SAFETY: promised.
        unsafe { raw.cmd_write_timestamp2(commands, stage, self.pool, self.first + 1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_start_again() {
        let clock = DeviceClock::of(36, 52.08).unwrap();
        let last = (1 << 36) - 1;
        assert_eq!(clock.between(last - 3, 2), clock.nanos(6));
        assert_eq!(clock.between(last, last), 0);
        // The bits above do not count.
        assert_eq!(clock.between(last - 3 + (7 << 36), 2 + (9 << 36)), clock.nanos(6));
        assert!((312..=313).contains(&clock.nanos(6)));
        let whole = DeviceClock::of(64, 1.0).unwrap();
        assert_eq!((whole.nanos(u64::MAX), whole.between(u64::MAX, 4)), (u64::MAX, 5));
        assert!(DeviceClock::of(0, 1.0).is_none() && DeviceClock::of(64, 0.0).is_none());
    }
}
