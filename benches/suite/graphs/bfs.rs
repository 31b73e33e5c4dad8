//! Breadth-first search, level by level; of a part of the nodes, only if the level has some of them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use limosa::{BLOCK, Context, Home, Kernel, Queue, UnifiedVec};
use limosa_shaders::bfs::{self, Graph, UNREACHED};

use super::{Csr, PARTS, context, processors, rows};
use crate::report::Row;
use crate::rounds::{rotated, time};
use crate::scale::Scale;

/// A hub: in the quadrant of all zeros.
const SOURCE: u32 = 0;

struct Unified<'a> {
    graph: &'a Csr,
    offsets: UnifiedVec<u32>,
    targets: UnifiedVec<u32>,
    levels: UnifiedVec<u32>,
    /// The last level on which each part has nodes. Both sides touch it level by level.
    parts: UnifiedVec<u32>,
    kernel: Kernel,
    queue: Queue,
    context: Context,
}

impl<'a> Unified<'a> {
    fn new(graph: &'a Csr, budget: Option<usize>) -> Self {
        let context = context(budget);
        let heap = context.heap();
        Self {
            graph,
            offsets: heap.vec_from(&graph.offsets).unwrap(),
            targets: heap.vec_from(&graph.targets).unwrap(),
            levels: heap.vec_zeroed(graph.nodes()).unwrap(),
            parts: heap.in_home(Home::Shared).vec_zeroed(PARTS).unwrap(),
            kernel: context.kernel(bfs::KERNEL.name, bfs::KERNEL.spirv).unwrap(),
            queue: context.queue().unwrap(),
            context,
        }
    }

    fn bytes(graph: &Csr) -> usize {
        4 * (graph.offsets.len() + graph.targets.len() + graph.nodes())
    }

    /// Nothing is reached but the source.
    fn reset(&mut self) {
        self.levels.write().unwrap().fill(UNREACHED);
        self.levels.write().unwrap()[SOURCE as usize] = 0;
        self.levels.prefetch_to_device().unwrap();
        let mut parts = self.parts.write().unwrap();
        parts.fill(UNREACHED);
        parts[SOURCE as usize / (self.graph.nodes() / PARTS)] = 0;
    }

    fn search(&mut self) -> Duration {
        self.reset();
        let shift = (self.graph.nodes() / PARTS).trailing_zeros();
        time(|| {
            for level in 0.. {
                let last = self.parts.to_vec().unwrap();
                let due: Vec<_> =
                    self.graph.parts().zip(last).filter(|(_, last)| *last == level).map(|(nodes, _)| nodes).collect();
                if due.is_empty() {
                    break;
                }
                for nodes in due {
                    let edges = self.graph.edges(nodes.clone());
                    let launch = self.queue.launch(&self.kernel, nodes.len() as u64).arg(self.offsets.reads());
                    let launch = launch.arg(self.targets.ptr(0)).with(self.targets.slice(edges).unwrap().reads());
                    let launch = launch.args((self.levels.writes(), self.parts.writes()));
                    let launch = launch.args((nodes.start as u64, nodes.len() as u64, level, shift));
                    // SAFETY: bfs reads `offsets` and, of `targets`, the edges of `nodes`; it writes `levels`, `parts`.
                    unsafe { launch.submit() }.unwrap();
                }
                self.queue.wait_idle().unwrap();
            }
        })
    }
}

/// The same level by level on all processors. Gives the levels.
fn on_all_processors(graph: &Csr) -> Vec<u32> {
    let levels: Vec<AtomicU32> = (0..graph.nodes()).map(|_| AtomicU32::new(UNREACHED)).collect();
    levels[SOURCE as usize].store(0, Ordering::Relaxed);
    let mut front = vec![SOURCE];
    for level in 1.. {
        if front.is_empty() {
            break;
        }
        let follow = |nodes: &[u32]| {
            let mut reached = Vec::new();
            for node in nodes {
                for target in &graph.targets[graph.edges(*node as usize..*node as usize + 1)] {
                    let its = &levels[*target as usize];
                    let (unreached, relaxed) = (its.load(Ordering::Relaxed) == UNREACHED, Ordering::Relaxed);
                    if unreached && its.compare_exchange(UNREACHED, level, relaxed, relaxed).is_ok() {
                        reached.push(*target);
                    }
                }
            }
            reached
        };
        front = std::thread::scope(|scope| {
            let parts = front.chunks(front.len().div_ceil(processors()));
            let running: Vec<_> = parts.map(|part| scope.spawn(move || follow(part))).collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
    }
    levels.into_iter().map(AtomicU32::into_inner).collect()
}

pub(super) fn run(graph: &Csr, scale: &Scale) -> Vec<Row> {
    let twin = || bfs::levels(Graph { offsets: &graph.offsets, targets: &graph.targets }, SOURCE);
    let expected = twin();
    let reached = (0..graph.nodes()).filter(|node| expected[*node] != UNREACHED);
    let followed: usize = reached.map(|node| graph.edges(node..node + 1).len()).sum();
    let bytes = Unified::bytes(graph);
    let mut unified = [Unified::new(graph, None), Unified::new(graph, Some(bytes / 2))];
    let mut moved = 0;
    let series = rotated(4, scale.rounds, |arm| {
        let mut levels = Vec::new();
        let taken = match arm {
            0 => time(|| levels = twin()),
            1 => time(|| levels = on_all_processors(graph)),
            _ => {
                let before = unified[arm - 2].context.heap().counters();
                let taken = unified[arm - 2].search();
                if arm == 3 {
                    moved = unified[1].context.heap().counters().since(&before).blocks_to_device;
                }
                levels = unified[arm - 2].levels.to_vec().unwrap();
                taken
            }
        };
        assert!(levels == expected, "BFS, arm {arm}: the levels are not the twin's");
        followed as f64 / taken.as_secs_f64() / 1e6
    });
    let budget = unified[1].context.heap().device_budget() >> 20;
    let moved = (moved * BLOCK) >> 20;
    let note = format!("{} MiB of graph, {budget} MiB of device memory", bytes >> 20);
    rows("BFS", &series, &format!("{note}; the last search moved {moved} MiB to it"))
}
