//! Memory that another driver has published, here of an NVMe controller: a disk reaches it as it reaches the module's, but
//! the kernel maps each page of it once, and a home for both sides needs it twice.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs::{self, File};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use common::child::signal_of;
use common::files::{direct, disk, put};
use common::memory::{Memory, PAGE, word_at};
use common::peer::{forget, read, traced};
use common::unified::Unified;
use limosa::PeerChoice;
use limosa_guest::device::list;
use limosa_guest::trace::{Tally, tally};
use limosa_model::HostAddr;
use limosa_os::published;

const PAGES: usize = 64;

/// The controller's function.
fn controller() -> PathBuf {
    let ours = list().unwrap()[0].address.clone();
    let others: Vec<_> = published().into_iter().filter(|one| one.address != ours).collect();
    assert_eq!(others.len(), 1, "{others:?}");
    Path::new("/sys/bus/pci/devices").join(&others[0].address)
}

fn available(function: &Path) -> usize {
    fs::read_to_string(function.join("p2pmem/available")).unwrap().trim().parse().unwrap()
}

/// A part of its memory, which each call takes anew.
fn part(function: &Path) -> Memory {
    let file = File::options().read(true).write(true).open(function.join("p2pmem/allocate")).unwrap();
    Memory::of_file(file.as_raw_fd(), PAGES * PAGE, libc::MAP_SHARED)
}

/// Where its BARs are.
fn bars(function: &Path) -> Vec<Range<u64>> {
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
    let lines = fs::read_to_string(function.join("resource")).unwrap();
    let bars = lines.lines().map(|line| line.split_whitespace().map(number).collect::<Vec<_>>());
    bars.filter(|bar| bar[1] > bar[0]).map(|bar| bar[0]..bar[1] + 1).collect()
}

#[test]
fn a_disk_reads_into_it_without_system_memory() {
    let function = controller();
    put(&disk(), PAGES, 1);
    let memory = part(&function);
    forget();
    let (got, commands) = traced(|| read(&direct(&disk()), &memory));
    assert_eq!(got.unwrap(), PAGES * PAGE);
    let reads = || commands.iter().filter(|command| !command.write);
    let ways = bars(&function).into_iter().map(|bar| tally(reads(), &bar));
    let whole = Tally { inside: (PAGES * PAGE) as u64, outside: 0 };
    assert_eq!(ways.filter(|way| *way == whole).count(), 1, "{commands:?}");
    memory.check(1);
}

#[test]
fn it_is_mapped_once_and_so_no_home_for_both_sides() {
    let function = controller();
    let before = available(&function);
    let (one, other) = (part(&function), part(&function));
    assert_eq!(available(&function), before - 2 * PAGES * PAGE, "each mapping is memory of its own");
    one.fill(1);
    other.fill(2);
    one.check(1);
    // What the kernel makes a second mapping of otherwise has no pages here.
    // SAFETY: an old length of zero leaves the mapping as it is; the other is where nothing is.
    let again = unsafe { libc::mremap(one.at(0).cast(), 0, PAGE, libc::MREMAP_MAYMOVE) };
    if again != libc::MAP_FAILED {
        let word = word_at(HostAddr(again as u64));
        assert_eq!(signal_of(|| assert_eq!(word.load(Ordering::Relaxed), 0)), Some(libc::SIGBUS));
    }
    drop((one, other));
    common::until("it is free again", || available(&function) == before);

    let test = "published::it_is_mapped_once_and_so_no_home_for_both_sides";
    let Some(kit) = Unified::new(test, |builder| builder.peer_memory(PeerChoice::Shim(9))) else { return };
    let refused = kit.device_heap().vec_zeroed::<u32>(1).map(drop).unwrap_err().to_string();
    let address = function.file_name().unwrap().to_str().unwrap().to_owned();
    for part in ["/dev/limosa9 is not there", &address, "only once"] {
        assert!(refused.contains(part), "{refused}");
    }
}
