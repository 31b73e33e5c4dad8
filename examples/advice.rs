//! Advice at work: three programs, each run without and with a word on how its memory is used. The results are the
//! same; what moves is not.

use std::error::Error;

use limosa::{Advice, BLOCK, Context, Counters, Kernel, Queue, UnifiedVec};
use limosa_shaders::fill;

/// Words of a block of 64 KiB.
const WORDS: usize = 16 << 10;
/// Device memory, in blocks.
const BUDGET: u64 = 128;
const ROUNDS: u32 = 8;

struct Bench {
    context: Context,
    kernel: Kernel,
    queue: Queue,
}

impl Bench {
    fn blocks(&self, count: usize) -> limosa::Result<UnifiedVec<u32>> {
        self.context.heap().vec_with(count * WORDS, |_| 0)
    }

    /// A kernel writes all of `vec`. Waiting for each keeps the runtime from seeing what the queue needs next.
    fn write(&self, vec: &mut UnifiedVec<u32>, value: u32) -> limosa::Result<()> {
        let count = vec.len() as u64;
        let launch = self.queue.launch(&self.kernel, count / fill::ITEMS).arg(vec.writes());
        // SAFETY: fill writes the `count` words of `vec`, as declared.
        unsafe { launch.args((count, value)).submit()? }.wait()
    }
}

/// Both sides read a table over and over: it is prefetched for kernels, and the CPU reads it, too.
fn read_by_both(bench: &Bench, advice: Advice) -> limosa::Result<u32> {
    let mut table = bench.blocks(32)?;
    bench.write(&mut table, 7)?;
    table.advise(advice)?;
    let mut sum = 0;
    for _ in 0..ROUNDS {
        table.prefetch_to_device()?;
        sum += table.read()?.iter().step_by(WORDS).sum::<u32>();
    }
    Ok(sum)
}

/// Kernels take turns with four buffers, which do not fit together; the first matters more than the others.
fn one_matters(bench: &Bench, advice: Advice) -> limosa::Result<u32> {
    turns(bench, [(40, advice), (40, Advice::None), (40, Advice::None), (40, Advice::None)])
}

/// Kernels take turns with two buffers and a log, which does not fit beside them and which only the CPU reads.
fn one_is_a_log(bench: &Bench, advice: Advice) -> limosa::Result<u32> {
    turns(bench, [(60, Advice::None), (40, advice), (60, Advice::None)])
}

/// Kernels write buffers of so many blocks in turn; whoever was used least recently is evicted, but for advice.
fn turns<const N: usize>(bench: &Bench, buffers: [(usize, Advice); N]) -> limosa::Result<u32> {
    let mut vecs = Vec::new();
    for (blocks, advice) in buffers {
        let vec = bench.blocks(blocks)?;
        vec.advise(advice)?;
        vecs.push(vec);
    }
    for round in 1..=ROUNDS {
        vecs.iter_mut().try_for_each(|vec| bench.write(vec, round))?;
    }
    vecs.iter().try_fold(0, |sum, vec| Ok(sum + vec.read()?.iter().step_by(WORDS).sum::<u32>()))
}

type Program = fn(&Bench, Advice) -> limosa::Result<u32>;

fn main() -> Result<(), Box<dyn Error>> {
    let context = Context::builder().device_budget(BUDGET * BLOCK).build()?;
    let bench = Bench { kernel: context.kernel("fill", fill::KERNEL.spirv)?, queue: context.queue()?, context };
    println!("device memory of {BUDGET} blocks, {ROUNDS} rounds; in blocks of 64 KiB:");
    println!(
        "{:<36}{:<14}{:>10}{:>9}{:>9}{:>12}",
        "program", "advice", "to device", "to host", "evicted", "CPU faults"
    );
    let programs: [(&str, Program, Advice, u32); 3] = [
        ("both sides read a table", read_by_both, Advice::ReadMostly, ROUNDS * 32 * 7),
        ("four buffers too many, one matters", one_matters, Advice::PreferDevice, ROUNDS * 160),
        ("two buffers and a log", one_is_a_log, Advice::PreferHost, ROUNDS * 160),
    ];
    for (name, program, advice, expected) in programs {
        for advice in [Advice::None, advice] {
            let before = bench.context.heap().counters();
            let sum = program(&bench, advice)?;
            let after = bench.context.heap().counters();
            let Counters { blocks_to_device, blocks_to_host, blocks_evicted, cpu_read_faults, .. } =
                after.since(&before);
            let advice = format!("{advice:?}");
            println!(
                "{name:<36}{advice:<14}{blocks_to_device:>10}{blocks_to_host:>9}{blocks_evicted:>9}{cpu_read_faults:>12}"
            );
            if sum != expected {
                return Err(format!("{name}: {sum} instead of {expected}").into());
            }
        }
    }
    Ok(())
}
