//! A search tree whose nodes the CPU links by pointers, and which a kernel searches by following them: nothing is
//! flattened, copied or translated in between.

use std::collections::BTreeMap;
use std::error::Error;

use limosa::{Context, GpuPtr, Heap, Kernel, Queue, Shareable, UnifiedVec, WriteGuard};
use limosa_shaders::lookup;

const NODES: usize = 100_000;
const KEYS: usize = 200_000;
const MISSING: u64 = u64::MAX;

#[repr(C)]
#[derive(Clone, Copy, Default, Shareable)]
struct Node {
    key: u64,
    value: u64,
    left: GpuPtr<Node>,
    right: GpuPtr<Node>,
}

/// Links the node at `new` into the tree below `root`, as one does in any language with pointers.
fn insert(nodes: &mut WriteGuard<Node>, root: GpuPtr<Node>, new: GpuPtr<Node>) -> Option<()> {
    let key = nodes.follow(new)?.key;
    let mut at = root;
    loop {
        let node = nodes.follow_mut(at)?;
        let link = if key < node.key { &mut node.left } else { &mut node.right };
        if link.is_null() {
            *link = new;
            return Some(());
        }
        at = *link;
    }
}

fn search(queue: &Queue, kernel: &Kernel, heap: &Heap, nodes: &UnifiedVec<Node>) -> limosa::Result<Vec<u64>> {
    let keys = heap.vec_with(KEYS, |i| i as u64)?;
    let mut values = heap.vec_zeroed::<u64>(KEYS)?;
    // The pointer is the argument. That the kernel reaches all of `nodes` by it is said beside it.
    let launch = queue.launch(kernel, KEYS as u64).arg(nodes.ptr(0)).with(nodes.reads());
    let launch = launch.args((keys.reads(), values.writes(), KEYS as u64, MISSING));
    // SAFETY: lookup reads `keys`, writes `values` and follows pointers, which all lead into `nodes`, as declared.
    unsafe { launch.submit()? }.wait()?;
    values.to_vec()
}

fn main() -> Result<(), Box<dyn Error>> {
    let context = Context::new()?;
    let heap = context.heap();
    let kernel = context.kernel("lookup", lookup::KERNEL.spirv)?;
    let queue = context.queue()?;

    // Distinct keys in an order that keeps the tree shallow.
    let key = |i: usize| (i as u64 * 48_271 + 1_000) % 200_003;
    let mut nodes = heap.vec_with(NODES, |i| Node { key: key(i), value: i as u64, ..Node::default() })?;
    let root = nodes.ptr(0);
    let pointers: Vec<_> = (0..NODES).map(|i| nodes.ptr(i)).collect();
    let keys: Vec<u64> = (0..KEYS as u64).collect();
    let mut pairs = BTreeMap::from([(key(0), 0)]);

    // The second half is linked in after the kernel has searched the first: the tree goes to and fro.
    for part in [1..NODES / 2, NODES / 2..NODES] {
        {
            let mut tree = nodes.write()?;
            for i in part {
                insert(&mut tree, root, pointers[i]).ok_or("a pointer leads out of the tree")?;
                pairs.insert(key(i), i as u64);
            }
        }
        println!("{} nodes linked by the CPU: {:?}", pairs.len(), nodes.residency_summary());
        let before = heap.counters();
        let found = search(&queue, &kernel, heap, &nodes)?;
        let moved = heap.counters().since(&before).blocks_to_device;
        println!("searched by the GPU:       {:?}, {moved} blocks moved, keys and all", nodes.residency_summary());
        if found != lookup::twin(&pairs, &keys, MISSING) {
            return Err("the GPU found something else than the CPU".into());
        }
        let hits = found.iter().filter(|value| **value != MISSING).count();
        println!("{hits} of {KEYS} keys found, as by a BTreeMap");
    }
    Ok(())
}
