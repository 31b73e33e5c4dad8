//! limosa's own streaming: from the disk to the device's memory by one call, against a read by O_DIRECT into system memory of
//! the same blocks, and against the same call for memory that migrates.

use limosa::{Context, DataFile, DeviceChoice, DeviceKind, Error, Home, Tier, UnifiedVec};

use crate::table::{Table, rate, time};
use crate::transfers::{BYTES, MIB, Target, disk, in_turns, read, traced};

fn ok<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("limosa: {error}"))
}

/// Reads of 16 MiB by one call each, and by `read()` of 1 MiB at a time.
pub fn streams(rounds: usize, table: &mut Table) {
    let (ram_file, system) = (disk(), Target::system());
    let context = Context::builder().device(DeviceChoice::Kind(DeviceKind::Cpu)).heap_size(1 << 30);
    let context = ok(context.host_limit(512 << 20).device_budget(64 << 20).build());
    let queue = ok(context.queue());
    let file = ok(DataFile::open(crate::transfers::path()));
    let memory = |home| std::cell::RefCell::new(ok(context.heap().in_home(home).vec_zeroed::<u64>(BYTES / 8)));
    let (device, migrating) = (memory(Home::SharedDevice), memory(Home::Migrating));
    let stream = |vec: &mut UnifiedVec<u64>, tier: Tier| {
        let report = ok(queue.read_file(&file, 0, vec).submit().and_then(|read| read.wait()));
        assert_eq!(report.tier(), Some(tier), "{report:?}");
    };
    // A first read of each proves its tier.
    stream(&mut device.borrow_mut(), Tier::P2p);
    stream(&mut migrating.borrow_mut(), Tier::Direct);
    let [outside, inside] = traced(|| stream(&mut device.borrow_mut(), Tier::P2p));
    assert!(inside >= BYTES as f64, "{inside} bytes of {BYTES} went to the device");
    let megabytes = |action: &dyn Fn()| rate(BYTES / MIB, time(action));
    let ram =
        || megabytes(&|| (0..BYTES).step_by(MIB).for_each(|offset| read(&ram_file, system.at + offset, MIB, offset)));
    let straight = || megabytes(&|| stream(&mut device.borrow_mut(), Tier::P2p));
    let direct = || megabytes(&|| stream(&mut migrating.borrow_mut(), Tier::Direct));
    let [ram, straight, direct] = in_turns(rounds, [&ram, &straight, &direct]);
    let device = device.borrow();
    let wrong = ok(device.read()).iter().zip(0u64..).position(|(word, number)| *word != number | 1 << 63);
    assert_eq!(wrong, None, "a word of the disk's");
    table.add("streamed to the device, P2p", straight, "MiB/s");
    table.add("streamed to migrating memory, Direct", direct, "MiB/s");
    table.at_least("streamed, P2p / O_DIRECT to RAM", straight / ram, "ratio", 0.75);
    table.no_more_than("streamed, bytes of P2p in RAM", outside, "bytes", 0.0);
}
