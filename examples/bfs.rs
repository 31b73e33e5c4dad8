//! Breadth-first search on a graph that is larger than device memory: an R-MAT graph, with the hubs and the tails of a
//! social network, level by level and part by part. Each launch says which part of the edges it reads.

use std::error::Error;
use std::time::Instant;

use limosa::{BLOCK, Context, Event, Home};
use limosa_shaders::bfs::{self, Graph, UNREACHED};

/// Of nodes, and of edges for each of them.
const SCALE: u32 = 18;
const EDGES_OF_NODE: usize = 16;
const NODES: usize = 1 << SCALE;
/// Device memory; the edges alone take twice as much.
const BUDGET: u64 = 16 << 20;
/// A hub: in the quadrant of all zeros.
const SOURCE: u32 = 0;
/// Parts of 2¹⁴ nodes.
const PART_SHIFT: u32 = 14;
const PARTS: usize = NODES >> PART_SHIFT;

/// The R-MAT graph of Graph500's parameters, each edge in both directions, by its nodes' edges.
fn rmat() -> (Vec<u32>, Vec<u32>) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) % 100
    };
    // Each bit of both ends by chance: quadrants of 57, 19, 19 and 5 %. An odd factor spreads the hubs.
    let mut edge = || {
        let (mut from, mut to) = (0u32, 0u32);
        for _ in 0..SCALE {
            let (high, low) = match random() {
                0..57 => (0, 0),
                57..76 => (0, 1),
                76..95 => (1, 0),
                _ => (1, 1),
            };
            (from, to) = (from << 1 | high, to << 1 | low);
        }
        [from, to].map(|node| node.wrapping_mul(0x9e37_79b1) % (1 << SCALE))
    };
    let pairs: Vec<[u32; 2]> = (0..NODES * EDGES_OF_NODE).map(|_| edge()).collect();
    let both = || pairs.iter().flat_map(|[a, b]| [(*a as usize, *b), (*b as usize, *a)]);
    // Counting sort: of each node's edges, first the end, then, edge by edge, the start.
    let mut offsets = vec![0u32; NODES + 1];
    both().for_each(|(from, _)| offsets[from] += 1);
    for node in 0..NODES {
        offsets[node + 1] += offsets[node];
    }
    let mut targets = vec![0; 2 * pairs.len()];
    for (from, to) in both() {
        offsets[from] -= 1;
        targets[offsets[from] as usize] = to;
    }
    (offsets, targets)
}

fn main() -> Result<(), Box<dyn Error>> {
    let context = Context::builder().device_budget(BUDGET).build()?;
    let heap = context.heap();
    let kernel = context.kernel("bfs", bfs::KERNEL.spirv)?;
    let queue = context.queue()?;
    let (ends, heads) = rmat();
    let expected = bfs::levels(Graph { offsets: &ends, targets: &heads }, SOURCE);
    let reached: Vec<usize> = (0..NODES).filter(|node| expected[*node] != UNREACHED).collect();
    let followed: u128 = reached.iter().map(|node| u128::from(ends[node + 1] - ends[*node])).sum();
    let (offsets, targets) = (heap.vec_from(&ends)?, heap.vec_from(&heads)?);
    let mib = targets.raw().len() >> 20;
    println!("{NODES} nodes, {} edges: {mib} MiB, for {} MiB of device memory", heads.len(), BUDGET >> 20);

    for declared in [true, false] {
        if !declared && !context.serves_undeclared() {
            println!("by faults: undeclared use is not served here");
            continue;
        }
        let mut levels = heap.vec_with(NODES, |node| if node == SOURCE as usize { 0 } else { UNREACHED })?;
        // The last level on which each part has nodes. Both sides touch it level by level: it is shared, and never moves.
        let mut parts = heap.in_home(Home::Shared).vec_with(PARTS, |_| UNREACHED)?;
        parts.write()?[(SOURCE >> PART_SHIFT) as usize] = 0;
        let (start, before) = (Instant::now(), heap.counters());
        let mut level = 0;
        loop {
            let (last, mut events) = (parts.to_vec()?, Vec::new());
            for part in (0..PARTS).filter(|part| last[*part] == level) {
                let nodes = part << PART_SHIFT..(part + 1) << PART_SHIFT;
                let edges = ends[nodes.start] as usize..ends[nodes.end] as usize;
                let launch = queue.launch(&kernel, nodes.len() as u64).args((offsets.reads(), targets.ptr(0)));
                let launch =
                    if declared { launch.with(targets.slice(edges)?.reads()) } else { launch.keeps(targets.raw()) };
                let launch = launch.args((levels.writes(), parts.writes()));
                let launch = launch.args((nodes.start as u64, nodes.len() as u64, level, PART_SHIFT));
                // SAFETY: bfs reads `offsets` and, of `targets`, the edges of `nodes`; it writes `levels` and `parts`.
                // What is not declared of that is kept, nobody writes it, and the device serves faults.
                events.push(unsafe { launch.submit()? });
            }
            if events.is_empty() {
                break;
            }
            events.iter().try_for_each(Event::wait)?;
            level += 1;
        }
        let (micros, counters) = (start.elapsed().as_micros(), heap.counters().since(&before));
        let name = if declared { "declared" } else { "by faults" };
        println!("{name}: {level} levels in {} ms, {} million edges/s", micros / 1000, followed / micros.max(1));
        let (moved, evicted) = ((counters.blocks_to_device * BLOCK) >> 20, counters.blocks_evicted);
        let faults = counters.gpu_read_faults + counters.gpu_write_faults;
        println!("  {moved} MiB moved to the device, {evicted} blocks evicted, {faults} faults of kernels");
        println!("  the edges are {:?}", targets.residency_summary());
        if levels.read()?[..] != expected[..] {
            return Err(format!("{name}: the levels are not those that the CPU finds").into());
        }
    }
    println!("{} nodes reached, on the levels that the CPU finds", reached.len());
    Ok(())
}
