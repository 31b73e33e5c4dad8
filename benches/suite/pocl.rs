//! The triad in OpenCL's shared virtual memory, which is nearest to what limosa does: on a software device by PoCL, where
//! it is installed. Beside it the triad through the heap, on data that is resident. Unit: GB/s of the 12 bytes an
//! element. No bound: the two devices compile kernels each in their own way.

use limosa::{FaultMode, UnifiedVec};
use limosa_shaders::triad;

use crate::opencl::{Floats, Kernel, OpenCl};
use crate::report::Row;
use crate::resident::{HEAP_BYTES, context};
use crate::rounds::{gb_per_s, rotated, time};
use crate::scale::Scale;

const SCALE: f32 = 3.0;
const START: [f32; 3] = [0.0, 2.0, 0.5];
/// The same sums as triad.comp's: rounded twice.
const SOURCE: &str = "
#pragma OPENCL FP_CONTRACT OFF
kernel void triad(global float4 *a, global const float4 *b, global const float4 *c, float scale) {
    size_t i = get_global_id(0);
    a[i] = b[i] + scale * c[i];
}";

struct Peer<'a> {
    arrays: [Floats<'a>; 3],
    kernel: Kernel<'a>,
}

impl<'a> Peer<'a> {
    fn new(cl: &'a OpenCl, count: usize) -> Result<Self, String> {
        let array = |value: f32| {
            let mut floats = cl.floats(count)?;
            floats.with(|floats| floats.fill(value))?;
            Ok::<_, String>(floats)
        };
        let arrays = [array(START[0])?, array(START[1])?, array(START[2])?];
        Ok(Self { arrays, kernel: cl.kernel(SOURCE, "triad")? })
    }

    fn launch(&self, count: usize) {
        let [a, b, c] = &self.arrays;
        // SAFETY: triad takes three pointers and a float, and handles 4 elements an invocation.
        unsafe { self.kernel.launch(&[a, b, c], SCALE, count / 4) }.unwrap();
    }
}

fn check(array: &[f32]) {
    let expected = START[1] + SCALE * START[2];
    assert!(array.iter().all(|value| *value == expected), "triad: not all elements are {expected}");
}

pub(crate) fn run(scale: &Scale) -> Vec<Row> {
    let name = "triad, OpenCL shared virtual memory";
    let count = scale.array_bytes / 4;
    let cl = match OpenCl::open() {
        Ok(cl) => cl,
        Err(why) => return vec![Row::left_out(name, why)],
    };
    let mut peer = match Peer::new(&cl, count) {
        Ok(peer) => peer,
        Err(why) => return vec![Row::left_out(name, format!("{}: {why}", cl.name))],
    };
    let context = context(FaultMode::HandlerThread, HEAP_BYTES);
    let mut vecs: [UnifiedVec<f32>; 3] = START.map(|value| context.heap().vec_with(count, |_| value).unwrap());
    vecs.iter().for_each(|vec| vec.prefetch_to_device().unwrap());
    let (queue, kernel) = (context.queue().unwrap(), context.kernel("triad", triad::KERNEL.spirv).unwrap());
    let series = rotated(2, scale.rounds, |arm| {
        let taken = time(|| match arm {
            0 => peer.launch(count),
            _ => {
                let [a, b, c] = &mut vecs;
                let launch =
                    queue.launch(&kernel, count as u64 / triad::ITEMS).args((a.overwrites(), b.reads(), c.reads()));
                // SAFETY: triad replaces `count` elements of `a`, and reads as many of the others.
                unsafe { launch.args((count as u64, SCALE, 0u32)).submit() }.unwrap().wait().unwrap();
            }
        });
        gb_per_s(12 * count, taken)
    });
    peer.arrays[0].with(|array| check(array)).unwrap();
    check(&vecs[0].read().unwrap());
    let grain = if cl.fine_grained { "fine" } else { "coarse" };
    let row = Row::new("triad, unified resident, beside OpenCL", &series[1], "GB/s").beside(name, &series[0]);
    vec![row.note(format!("OpenCL: {}, {grain} grain", cl.name))]
}
