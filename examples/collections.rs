//! Ordinary collections in unified memory: a kernel looks keys up in a `hashbrown::HashMap` that was filled by ordinary
//! code, and a `Vec` on the device doubles its capacity without a block moving.

use std::error::Error;

use allocator_api2::vec::Vec;
use hashbrown::HashMap;
use limosa::{Context, Heap, Kernel, Queue, UnifiedAllocator};
use limosa_shaders::map_find::{self, Layout, Mixed, Table};

const KEYS: u64 = 100_000;
const PRIME: u64 = 99_991;
const MISSING: u64 = u64::MAX;

type Map = HashMap<u64, u64, Mixed, UnifiedAllocator>;

/// How the hashbrown that is linked in lays its tables out, found out on a map of some pairs.
fn layout(heap: &Heap) -> Result<Layout, Box<dyn Error>> {
    let allocator = heap.allocator();
    let mut sample = Map::with_hasher_in(Mixed::default(), allocator.clone());
    sample.extend((0..100).map(|i| (i * 7, i)));
    let key = sample.keys().next().ok_or("the map is empty")?;
    let table = allocator.allocation_of(std::ptr::from_ref(key) as u64).ok_or("the map is elsewhere")?;
    let mut bytes = vec![0; usize::try_from(table.len)?];
    // SAFETY: nobody writes the map meanwhile.
    unsafe { heap.try_read(table.start.0, &mut bytes)? };
    Ok(Layout::verified(&bytes, &sample.iter().map(|(key, value)| (*key, *value)).collect())?)
}

/// Where the map's table is: in the allocation that any of its keys is in.
fn table(map: &Map, layout: Layout) -> Option<Table> {
    let Some(key) = map.keys().next() else { return Some(Table::default()) };
    let memory = map.allocator().allocation_of(std::ptr::from_ref(key) as u64)?;
    layout.table(memory.start.0, memory.len)
}

/// Looks all keys up, and gives the map back with what was found.
fn search(
    queue: &Queue,
    kernel: &Kernel,
    heap: &Heap,
    (map, layout): (Map, Layout),
) -> Result<(Map, std::vec::Vec<u64>), Box<dyn Error>> {
    let Table { control, mask, width } = table(&map, layout).ok_or("not a table")?;
    let allocator = map.allocator().clone();
    let keys = heap.vec_with(usize::try_from(KEYS)?, |i| i as u64)?;
    let mut values = heap.vec_zeroed::<u64>(usize::try_from(KEYS)?)?;
    let launch = queue.launch(kernel, KEYS).args((control, mask, width));
    let launch = launch.args((keys.reads(), values.writes(), KEYS, MISSING)).lend(map, &allocator);
    // SAFETY: map_find reads the map's table, whose layout was verified, and `keys`, and writes `values`.
    let map = unsafe { launch.submit()? }.wait()?;
    Ok((map, values.to_vec()?))
}

fn main() -> Result<(), Box<dyn Error>> {
    let context = Context::new()?;
    let (heap, queue) = (context.heap(), context.queue()?);
    let kernel = context.kernel("map_find", map_find::KERNEL.spirv)?;
    let layout = layout(heap)?;

    // How often a number is a square or a cube modulo a prime, counted as one does it: by entries.
    let allocator = heap.allocator();
    let mut counts = Map::with_hasher_in(Mixed::default(), allocator.clone());
    let keys: std::vec::Vec<u64> = (0..KEYS).collect();
    for power in 2..=3 {
        for i in 0..KEYS {
            *counts.entry((1..power).fold(i, |product, _| product * i % PRIME)).or_insert(0) += 1;
        }
        counts.retain(|_, count| *count % 5 != 0);
        println!("{} of {KEYS} numbers counted by the CPU: {:?}", counts.len(), allocator.residency_summary());
        let found;
        (counts, found) = search(&queue, &kernel, heap, (counts, layout))?;
        println!("looked up by the GPU: {:?}", allocator.residency_summary());
        let pairs = counts.iter().map(|(key, value)| (*key, *value)).collect();
        if found != map_find::twin(&pairs, &keys, MISSING) {
            return Err("the GPU found something else than the CPU".into());
        }
    }

    let allocator = heap.allocator();
    let mut numbers = Vec::with_capacity_in(1 << 20, allocator.clone());
    numbers.extend(0..1u64 << 20);
    allocator.prefetch_to_device()?;
    let before = heap.counters();
    numbers.reserve_exact(1 << 20);
    let moved = heap.counters().since(&before);
    println!("a Vec of 8 MiB grows to 16: {:?}", allocator.residency_summary());
    if moved.blocks_to_host + moved.blocks_to_device != 0 || numbers[12_345] != 12_345 {
        return Err("growing moved blocks".into());
    }
    Ok(())
}
