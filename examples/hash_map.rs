//! A hash table with open addressing, filled by the CPU and probed by a kernel through a pointer to its header.
//!
//! It is written out here; the example `collections` has an ordinary `HashMap`.

use std::collections::HashMap;
use std::error::Error;

use limosa::{Context, GpuPtr, Shareable};
use limosa_shaders::hash_find::{self, EMPTY};

const SLOTS: usize = 1 << 18;
const PAIRS: u64 = 150_000;
const KEYS: usize = 300_000;
const MISSING: u64 = u64::MAX;

#[repr(C)]
#[derive(Clone, Copy, Shareable)]
struct Slot {
    key: u64,
    value: u64,
}

/// What the kernel is given the address of.
#[repr(C)]
#[derive(Clone, Copy, Shareable)]
struct Table {
    slots: GpuPtr<Slot>,
    mask: u64,
}

/// Puts a pair into the first free slot of those that the kernel will look at.
fn insert(slots: &mut [Slot], mask: u64, key: u64, value: u64) -> Result<(), Box<dyn Error>> {
    for at in hash_find::probes(key, mask).take(SLOTS) {
        let slot = &mut slots[usize::try_from(at)?];
        if slot.key == EMPTY || slot.key == key {
            *slot = Slot { key, value };
            return Ok(());
        }
    }
    Err("the table is full".into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let context = Context::new()?;
    let heap = context.heap();
    let kernel = context.kernel("hash_find", hash_find::KERNEL.spirv)?;
    let queue = context.queue()?;

    let mut slots = heap.vec_with(SLOTS, |_| Slot { key: EMPTY, value: 0 })?;
    let table = heap.boxed(Table { slots: slots.ptr(0), mask: SLOTS as u64 - 1 })?;
    let mask = table.get()?.mask;
    let keys = heap.vec_with(KEYS, |i| i as u64 * 5)?;
    let mut values = heap.vec_zeroed::<u64>(KEYS)?;
    let mut pairs = HashMap::new();

    // The second round gives keys that are there new values: what the CPU writes, the next launch sees.
    for round in 1..=2u64 {
        {
            let mut slots = slots.write()?;
            for i in (0..PAIRS).step_by(usize::try_from(round)?) {
                insert(&mut slots, mask, i * 7, i * round)?;
                pairs.insert(i * 7, i * round);
            }
        }
        println!("round {round}, filled by the CPU: {:?}", slots.residency_summary());
        let before = heap.counters();
        let launch = queue.launch(&kernel, KEYS as u64).arg(table.as_vec().reads()).with(slots.reads());
        let launch = launch.args((keys.reads(), values.writes(), KEYS as u64, MISSING));
        // SAFETY: hash_find reads `table`, `slots` through it, and `keys`, and writes `values`, as declared.
        unsafe { launch.submit()? }.wait()?;
        let moved = heap.counters().since(&before).blocks_to_device;
        println!(
            "round {round}, probed by the GPU: {:?}, {moved} blocks moved, keys and all",
            slots.residency_summary()
        );
        if values.read()?[..] != hash_find::twin(&pairs, &keys.read()?, MISSING) {
            return Err("the GPU found something else than the CPU".into());
        }
        let hits = values.read()?.iter().filter(|value| **value != MISSING).count();
        println!("round {round}: {hits} of {KEYS} keys found in a table {} % full", pairs.len() * 100 / SLOTS);
    }
    Ok(())
}
