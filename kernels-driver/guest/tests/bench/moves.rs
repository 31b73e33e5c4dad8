//! Moving on request: 2 MiB as one against a copy within the kernel, and 4 KiB many with a call against one with a call.

use std::sync::atomic::Ordering;

use crate::raw::shim::Device;
use crate::raw::uapi::{PRIVATE, SYSTEM};
use crate::raw::{HUGE, PAGE, memory};
use crate::table::{Table, median, rate, time};

/// Touched memory at a multiple of 2 MiB, of large pages or of small ones.
pub fn touched(bytes: usize, huge: bool) -> usize {
    let at = memory::aligned(bytes).unwrap_or_else(|error| panic!("mmap: {error}"));
    let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    memory::advise(at, bytes, advice).unwrap_or_else(|error| panic!("madvise: {error}"));
    fill(at, bytes);
    at
}

/// Writes a word into each page: what it is follows from the page.
pub fn fill(at: usize, bytes: usize) {
    for offset in (0..bytes).step_by(PAGE) {
        // SAFETY: mapped by the caller.
        unsafe { memory::word(at + offset) }.store(offset as u64 | 1, Ordering::Relaxed);
    }
}

/// Reads those words, and compares.
pub fn compare(at: usize, bytes: usize) {
    for offset in (0..bytes).step_by(PAGE) {
        // SAFETY: mapped by the caller.
        let found = unsafe { memory::word(at + offset) }.load(Ordering::Relaxed);
        assert_eq!(found, offset as u64 | 1, "at {offset:#x}");
    }
}

/// Moves all of a range, and gives how often 2 MiB were moved as one.
pub fn migrate(device: &Device, at: usize, bytes: usize, to: u32) -> u64 {
    let (told, result) = device.migrate(at, bytes, to);
    assert!(result.is_ok() && told.left == 0, "{result:?} {told:?}");
    told.moved_huge
}

/// Bytes a second of the kernel's own copy: to the device, and from it.
fn memcpy() -> [f64; 2] {
    const FOLDER: &str = "/sys/kernel/debug/limosa";
    let folder = std::fs::read_dir(FOLDER).unwrap_or_else(|error| panic!("{FOLDER}: {error}")).flatten();
    let mut files: Vec<_> = folder.map(|entry| entry.path().join("memcpy")).filter(|path| path.exists()).collect();
    files.sort();
    let file = files.first().unwrap_or_else(|| panic!("no file memcpy below {FOLDER}"));
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let number = |name: &str| {
        let number = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        number.filter(|number| *number > 0.0).unwrap_or_else(|| panic!("{}: no {name} in {text:?}", file.display()))
    };
    ["to_device_ns", "to_system_ns"].map(|took| number("bytes") / number(took) * 1e9)
}

/// Folios of 2 MiB.
pub fn huge(device: &Device, bytes: usize, rounds: usize, table: &mut Table) {
    const NAMES: [[&str; 3]; 2] = [
        ["2 MiB folios to the device", "memcpy to the BAR", "2 MiB folios to the device / memcpy"],
        ["2 MiB folios to the system", "memcpy from the BAR", "2 MiB folios to the system / memcpy"],
    ];
    let bytes = bytes / HUGE * HUGE;
    let at = touched(bytes, true);
    let (mut moves, mut copies, mut as_one) = ([vec![], vec![]], [vec![], vec![]], u64::MAX);
    for round in 0..=rounds {
        let mut go = || {
            for (to, moves) in [PRIVATE, SYSTEM].into_iter().zip(&mut moves) {
                let took = time(|| as_one = as_one.min(migrate(device, at, bytes, to)));
                // The first round is for page tables, and for what the kernel has not split or freed yet.
                if round > 0 {
                    moves.push(rate(bytes, took));
                }
            }
        };
        if round % 2 == 0 {
            go();
        }
        for (rate, copies) in memcpy().into_iter().zip(&mut copies) {
            copies.push(rate);
        }
        if round % 2 == 1 {
            go();
        }
    }
    compare(at, bytes);
    table.add("of 2 MiB blocks, moved as one in the worst round", as_one as f64 / (bytes / HUGE) as f64, "of all");
    for ((moves, copies), names) in moves.into_iter().zip(copies).zip(NAMES) {
        let (moves, copies) = (median(moves), median(copies));
        table.add(names[0], moves / f64::from(1 << 20), "MiB/s");
        table.add(names[1], copies / f64::from(1 << 20), "MiB/s");
        table.at_least(names[2], moves / copies, "ratio", 0.7);
    }
    let _ = memory::unmap(at, bytes);
}

/// Pages of 4 KiB, with one call for all and with one for each.
pub fn batched(device: &Device, bytes: usize, rounds: usize, table: &mut Table) {
    let at = touched(bytes, false);
    let pages = bytes / PAGE;
    let (mut many, mut single, mut back) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..2 * (rounds + 1) {
        let took = if round % 2 == 0 {
            time(|| _ = migrate(device, at, bytes, PRIVATE))
        } else {
            time(|| (0..pages).for_each(|page| _ = migrate(device, at + page * PAGE, PAGE, PRIVATE)))
        };
        let took_back = time(|| _ = migrate(device, at, bytes, SYSTEM));
        if round > 1 {
            if round % 2 == 0 { &mut many } else { &mut single }.push(rate(pages, took));
            back.push(rate(pages, took_back));
        }
    }
    compare(at, bytes);
    let (many, single) = (median(many), median(single));
    table.add("4 KiB to the device, one call for all", many, "pages/s");
    table.add("4 KiB to the device, one call for each", single, "pages/s");
    table.add("4 KiB to the system, one call for all", median(back), "pages/s");
    table.at_least("4 KiB, one call for all / one for each", many / single, "ratio", 3.0);
    let _ = memory::unmap(at, bytes);
}
