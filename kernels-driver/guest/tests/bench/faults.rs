//! Moving on access: a CPU that walks along memory on the device, a GPU that stays on what it has mapped, and two threads
//! that toss one page.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::moves::{compare, fill, migrate, touched};
use crate::raw::shim::{Device, Mapped};
use crate::raw::uapi::{COUNTER_NAMES, POLICY_MAP, POLICY_MIGRATE, PRIVATE, SCOPE_FILE};
use crate::raw::{PAGE, memory};
use crate::table::{Table, median, rate, time};

/// How many pages a CPU's fault brings back at most: the module's parameter.
const AROUND: &str = "/sys/module/limosa/parameters/fault_around_max";
/// Accesses of each of the two threads that toss a page.
const TOSSES: u64 = 2000;

fn counter(device: &Device, name: &str) -> u64 {
    let counts = device.counters(SCOPE_FILE).unwrap_or_else(|error| panic!("COUNTERS: {error}"));
    COUNTER_NAMES
        .iter()
        .zip(counts)
        .find(|(of, _)| **of == name)
        .map(|(_, count)| count)
        .unwrap_or_else(|| panic!("no counter {name}"))
}

/// The CPU reads along what is on the device: with fault-around as it is, and with none.
pub fn streak(device: &Device, bytes: usize, rounds: usize, table: &mut Table) {
    let usual = std::fs::read_to_string(AROUND).unwrap_or_else(|error| panic!("{AROUND}: {error}"));
    let at = touched(bytes, false);
    let (mut rates, mut faults) = ([vec![], vec![]], [vec![], vec![]]);
    for round in 0..2 * (rounds + 1) {
        let way = round % 2;
        let limit = if way == 0 { usual.trim() } else { "1" };
        std::fs::write(AROUND, limit).unwrap_or_else(|error| panic!("{AROUND}: {error}"));
        migrate(device, at, bytes, PRIVATE);
        let before = counter(device, "cpu_faults");
        let took = time(|| compare(at, bytes));
        if round > 1 {
            rates[way].push(rate(bytes / PAGE, took));
            faults[way].push((counter(device, "cpu_faults") - before) as f64);
        }
    }
    std::fs::write(AROUND, usual.trim()).unwrap_or_else(|error| panic!("{AROUND}: {error}"));
    let [around, single] = rates.map(median);
    let [faults, singly] = faults.map(median);
    table.add("CPU streak, faults with fault-around", faults, "faults");
    table.add("CPU streak, faults without", singly, "faults");
    table.add("CPU streak with fault-around", around, "pages/s");
    table.add("CPU streak, a fault for each page", single, "pages/s");
    table.at_least("CPU streak, fault-around / single pages", around / single, "ratio", 2.0);
    let _ = memory::unmap(at, bytes);
}

/// The GPU reads and writes all of a range again and again: once mapped it takes no faults.
pub fn steady(device: &Device, bytes: usize, table: &mut Table) {
    const NAMES: [[&str; 2]; 2] = [
        ["GPU, first pass, system memory", "GPU, faults in 10 more passes, system memory"],
        ["GPU, first pass, moves to the device", "GPU, faults in 10 more passes, device memory"],
    ];
    for (policy, [first, steady]) in [POLICY_MAP, POLICY_MIGRATE].into_iter().zip(NAMES) {
        let at = touched(bytes, false);
        let view = Mapped::new(device, at, bytes, policy).unwrap_or_else(|error| panic!("a view: {error}"));
        let pass = |write: u64| {
            for offset in (0..bytes).step_by(PAGE) {
                view.write(offset, view.read(offset) ^ write);
            }
        };
        let took = time(|| pass(1));
        // What the first pass mapped for reading alone, and what the kernel does late.
        pass(1);
        let before = counter(device, "gpu_faults");
        (0..10).for_each(|_| pass(1));
        let faults = counter(device, "gpu_faults") - before;
        table.add(first, rate(bytes / PAGE, took), "pages/s");
        table.no_more_than(steady, faults as f64, "faults", 0.0);
        fill(at, bytes);
        drop(view);
        let _ = memory::unmap(at, bytes);
    }
}

/// CPU and GPU add to one word by turns: each access moves its page, but for the guard.
pub fn ping_pong(device: &Device, rounds: usize, table: &mut Table) {
    let (mut times, mut moves, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let at = touched(2 << 20, false);
        let view = Mapped::new(device, at, 2 << 20, POLICY_MIGRATE).unwrap_or_else(|error| panic!("a view: {error}"));
        let (turn, start) = (AtomicU64::new(0), Barrier::new(2));
        let before = [counter(device, "gpu_pages_moved"), counter(device, "gpu_moves_held")];
        let toss = |own: u64, address: usize| {
            start.wait();
            for _ in 0..TOSSES {
                while turn.load(Ordering::Acquire) % 2 != own {
                    std::thread::yield_now();
                }
                // SAFETY: mapped above, until the threads have ended.
                unsafe { memory::word(address) }.fetch_add(2, Ordering::Relaxed);
                turn.fetch_add(1, Ordering::Release);
            }
        };
        let took = time(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| toss(0, at));
                scope.spawn(|| toss(1, view.at));
            });
        });
        // SAFETY: as above.
        let found = unsafe { memory::word(at) }.load(Ordering::Relaxed);
        assert_eq!(found, 1 + 4 * TOSSES, "what both added");
        times.push(took.as_secs_f64() * 1e6 / (2 * TOSSES) as f64);
        moves.push((counter(device, "gpu_pages_moved") - before[0]) as f64);
        held.push((counter(device, "gpu_moves_held") - before[1]) as f64);
        drop(view);
        let _ = memory::unmap(at, 2 << 20);
    }
    table.add("one page tossed between CPU and GPU, an access", median(times), "us");
    table.add("one page tossed, moves to the device in 4000 accesses", median(moves), "moves");
    table.add("one page tossed, moves that the guard held back", median(held), "times");
}
