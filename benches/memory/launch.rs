//! The latency of a launch that does nothing (one workgroup filling zero words), beside raw Vulkan that records,
//! submits and waits for the same: submit to end of wait. Unit: µs (the median of a round). Bound: 1.10 of
//! raw Vulkan, with four resident arguments declared.

use limosa::{FaultMode, ViewKind};
use limosa_shaders::fill::{Args, KERNEL};

use crate::raw::Device;
use crate::report::{Bound, Row};
use crate::resident::{HEAP_BYTES, context_by};
use crate::rounds::{percentile, rotated, time};
use crate::scale::Scale;

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    [ViewKind::Import, ViewKind::Sparse].into_iter().flat_map(|view| by(view, scale)).collect()
}

fn by(view: ViewKind, scale: &Scale) -> Vec<Row> {
    let context = context_by(view, FaultMode::HandlerThread, HEAP_BYTES);
    let (kernel, queue) = (context.kernel(KERNEL.name, KERNEL.spirv).unwrap(), context.queue().unwrap());
    let mut target = context.heap().vec_zeroed::<u32>(1 << 20).unwrap();
    let device = Device::open(&context.adapter().name);
    let pipeline = device.pipeline(&KERNEL.words());
    let arguments = Args { dst: 0, count: 0, value: 0, reserved: 0 };
    let recorded = device.record(&pipeline, 1, &arguments);
    let resident: [_; 3] = std::array::from_fn(|_| context.heap().vec_zeroed::<u32>(1 << 20).unwrap());
    resident.iter().for_each(|vec| vec.prefetch_to_device().unwrap());

    let series = rotated(4, scale.rounds * 2, |arm| {
        let mut one = || {
            let taken = time(|| match arm {
                0 => {
                    let launch = queue.launch(&kernel, 1).args((target.writes(), 0u64, 0u32, 0u32));
                    // SAFETY: fill writes none of the vector's words.
                    unsafe { launch.submit() }.unwrap().wait().unwrap();
                }
                // SAFETY: fill of no words touches nothing.
                1 => unsafe { device.launch(&pipeline, 1, &arguments) },
                2 => {
                    let launch = queue.launch(&kernel, 1).args((target.writes(), 0u64, 0u32, 0u32));
                    let launch = resident.iter().fold(launch, |launch, vec| launch.with(vec.reads()));
                    // SAFETY: as above.
                    unsafe { launch.submit() }.unwrap().wait().unwrap();
                }
                // SAFETY: as above; each submission ends before the next.
                _ => unsafe { device.submit(recorded) },
            });
            taken.as_secs_f64() * 1e6
        };
        let times: Vec<f64> = (0..scale.launches).map(|_| one()).collect();
        percentile(&times, 50)
    });
    let [ours, raw, declared, resubmitted] = &series[..] else { return Vec::new() };
    let four = Row::new(format!("empty launch, four resident arguments declared, {view}"), format!("{declared} µs"));
    let row = Row::new(format!("empty launch, {view}"), format!("{ours} µs"));
    vec![
        row.beside(format!("raw Vulkan, recorded each time, {raw} µs"), ours.ratio_to(raw)),
        four.beside(format!("raw Vulkan, recorded each time, {raw} µs"), declared.ratio_to(raw))
            .bound(Bound::AtMost(1.10)),
        Row::new("empty launch, raw Vulkan, recorded once", format!("{resubmitted} µs")),
    ]
}
