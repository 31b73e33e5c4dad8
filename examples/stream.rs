//! A file summed by the GPU while the drive reads the next part of it: two buffers, two queues, and events between them.
//! `cargo run --release --example stream FILE`; without one, a file of its own.

use std::error::Error;
use std::path::PathBuf;

use limosa::{Context, DataFile, Event};
use limosa_shaders::reduce;

/// Words of a part: 8 MiB.
const PART: usize = 2 << 20;
/// Words of the file that is made where none is given: 96 MiB.
const WORDS: u32 = 24 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let own = std::env::temp_dir().join(format!("limosa-stream-{}", std::process::id()));
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    if given.is_none() {
        std::fs::write(&own, (0..WORDS).flat_map(u32::to_ne_bytes).collect::<Vec<u8>>())?;
    }
    let summed = sum(given.as_ref().unwrap_or(&own));
    let _ = std::fs::remove_file(own);
    summed
}

fn sum(path: &PathBuf) -> Result<(), Box<dyn Error>> {
    let (context, file) = (Context::new()?, DataFile::open(path)?);
    let heap = context.heap();
    // So that the drive is read, and not what the page cache has of it.
    file.forget_cache()?;
    let words = usize::try_from(file.len()?.ok_or("a pipe has no length")? / 4)?;
    let (reads, sums) = (context.queue_builder().out_of_order().build()?, context.queue()?);
    let kernel = context.kernel("reduce", reduce::KERNEL.spirv)?;
    let mut total = heap.vec_zeroed::<u64>(1)?;
    let mut buffers = [heap.vec_zeroed::<u32>(PART)?, heap.vec_zeroed::<u32>(PART)?];
    // The launch that used each buffer last: what is read into it comes after.
    let mut used: [Option<Event>; 2] = [None, None];
    let mut last = None;
    for (turn, start) in (0..words).step_by(PART).enumerate() {
        let (buffer, used) = (&mut buffers[turn % 2], &mut used[turn % 2]);
        let count = PART.min(words - start);
        let read =
            reads.read_file(&file, start as u64 * 4, buffer.slice_mut(0..count)?).after_all(used.iter()).submit()?;
        let launch = sums.launch(&kernel, (count as u64).div_ceil(reduce::ITEMS)).after(read.event());
        // SAFETY: reduce reads `count` words of the buffer and adds to the one word of the total.
        *used = Some(unsafe { launch.args((buffer.reads(), total.writes(), count as u64)).submit()? });
        last = Some(read);
    }
    sums.wait_idle()?;
    println!("the sum of {words} words of {} is {}", path.display(), total.read()?[0]);
    if let Some(report) = last.map(|read| read.wait()).transpose()? {
        println!("the last {} bytes came {:?}", report.bytes, report.tiers);
        report.reasons.iter().for_each(|better| println!("not {}: {}", better.tier, better.reason));
    }
    let bytes = std::fs::read(path)?;
    let twin =
        bytes.chunks_exact(4).map(|word| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))).sum();
    if total.read()?[0] == twin { Ok(()) } else { Err(format!("the CPU's sum is {twin}").into()) }
}
