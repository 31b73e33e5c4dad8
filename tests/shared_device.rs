//! Homes in device memory that other devices reach: whose it is, what there is of it, and what becomes of it. RAM stands
//! for the device's here, but for one test; the guest's tests have the real one, and `shared_home` what all shared homes do.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::ExitStatusExt;

use common::failure::{BLOCK, BLOCK_WORDS, Kit, MIB, child, is_child, no_core, told, turn};
use common::views::MODES;
use common::words::wait_until;
use common::{builder, skip};
use limosa::inject;
use limosa::{
    ContextBuilder, DataFile, Direction, Error, FaultMode, Home, OsError, PagerError, PeerChoice, PeerProvider, Side,
    Tier, ViewKind,
};

/// A device with so much memory of RAM, until the test ends.
struct StandIn;

impl StandIn {
    fn of(bytes: u64) -> Self {
        inject::stand_in_for_peer_memory(bytes);
        Self
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        inject::stand_in_for_peer_memory(0);
    }
}

fn import() -> ContextBuilder {
    builder().view(ViewKind::Import)
}

fn lacks(result: limosa::Result<impl Sized>) -> String {
    match result.map(drop) {
        Err(Error::Pager(PagerError::Os(error @ OsError::NoPeerMemory { .. }))) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_allocation_has_whole_blocks_of_the_device_and_gives_them_back() {
    let _turn = turn("blocks of the device");
    let _device = StandIn::of(8 * MIB);
    let Some(kit) = Kit::new("blocks of the device", import().host_limit(32 * MIB)) else { return };
    let device = kit.heap().in_home(Home::SharedDevice);
    let before = (kit.heap().host_bytes(), kit.heap().device_bytes());
    let tiny = device.boxed(7u32).unwrap();
    let large = device.vec_with(3 * (1 << 20) / 4, |i| u32::try_from(i).unwrap()).unwrap();
    assert_eq!(large.raw().range().start.0 % (2 * MIB), 0, "for large pages");
    assert_eq!(inject::peer_memory_used(), BLOCK + 3 * MIB);
    assert_eq!(kit.heap().shared_device_bytes(), BLOCK + 3 * MIB);
    assert_eq!(kit.heap().host_bytes(), before.0, "no RAM");
    assert!(kit.heap().device_bytes() <= before.1, "none of the budget");
    assert_eq!(large.raw().peer_provider(), Some(PeerProvider::StandIn));
    assert_eq!(kit.heap().vec_zeroed::<u32>(1).unwrap().raw().peer_provider(), None);
    let listed = kit.heap().allocations();
    assert!(listed.iter().filter(|one| one.home == Home::SharedDevice).count() == 2, "{listed:?}");
    assert_eq!((tiny.get().unwrap(), large.read().unwrap()[77_777]), (7, 77_777));
    drop(tiny);
    assert_eq!(inject::peer_memory_used(), 3 * MIB);
    // What is allocated keeps the heap, and the device's memory.
    let heap = kit.heap().clone();
    drop((device, kit));
    assert_eq!(large.read().unwrap()[77_777], 77_777);
    drop(heap);
    assert_eq!(inject::peer_memory_used(), 3 * MIB);
    drop(large);
    assert_eq!(inject::peer_memory_used(), 0);
}

#[test]
fn what_there_is_too_little_of_is_told_and_is_there_again_later() {
    let _turn = turn("too little");
    let _device = StandIn::of(4 * MIB);
    let Some(kit) = Kit::new("too little", import()) else { return };
    let device = kit.heap().in_home(Home::SharedDevice);
    let kept = device.vec_zeroed::<u8>(3 << 20).unwrap();
    for _ in 0..3 {
        let error = lacks(device.vec_zeroed::<u8>(2 << 20));
        assert!(error.contains("2097152 bytes") && error.contains("are in use"), "{error}");
    }
    drop(kept);
    let mut all = device.vec_zeroed::<u32>(1 << 20).unwrap();
    kit.fill(&mut all, 3).unwrap().wait().unwrap();
    assert!(all.read().unwrap().iter().all(|word| *word == 3));
    kit.works();
}

#[test]
fn what_was_freed_is_zero_when_it_comes_again_whatever_it_is_then() {
    let _turn = turn("zero again");
    let _device = StandIn::of(4 * MIB);
    let Some(kit) = Kit::new("zero again", import()) else { return };
    let homes = [Home::SharedDevice, Home::Migrating, Home::Shared, Home::SharedDevice];
    for (round, home) in homes.into_iter().cycle().take(16).enumerate() {
        let mut vec = kit.heap().in_home(home).vec_zeroed::<u32>(40 * BLOCK_WORDS).unwrap();
        assert!(vec.read().unwrap().iter().all(|word| *word == 0), "round {round}, {home:?}");
        kit.fill(&mut vec, 5).unwrap().wait().unwrap();
        assert_eq!(kit.sum(&vec).unwrap(), 5 * 40 * BLOCK_WORDS as u64, "round {round}, {home:?}");
    }
}

#[test]
fn a_sparse_view_refuses_by_name_and_says_why() {
    let _turn = turn("refused by a view");
    let _device = StandIn::of(4 * MIB);
    let Some(kit) = Kit::new("refused by a view", builder().view(ViewKind::Sparse)) else { return };
    let refused = kit.heap().in_home(Home::SharedDevice).vec_zeroed::<u32>(1).map(drop).unwrap_err();
    assert!(matches!(refused, Error::Pager(PagerError::NoSharedHome { .. })), "{refused}");
    assert!(refused.to_string().contains("binds nothing"), "{refused}");
    assert_eq!(inject::peer_memory_used(), 0);
    kit.works();
}

#[test]
fn without_the_module_it_is_told_what_is_missing_and_what_to_do() {
    let _turn = turn("no provider");
    let none = u32::MAX;
    let Some(kit) = Kit::new("no provider", import().peer_memory(PeerChoice::Shim(none))) else { return };
    let error = lacks(kit.heap().in_home(Home::SharedDevice).vec_zeroed::<u32>(1));
    assert!(error.contains(&format!("/dev/limosa{none}")) && error.contains("load the module"), "{error}");
    kit.works();
}

/// The files of RAM that stand for a device's memory lose their pages, as a pool does when the driver is unbound.
fn unbind(bytes: u64) {
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let pools: Vec<File> = open
        .filter(|path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:limosa")))
        .filter(|path| fs::metadata(path).is_ok_and(|file| file.len() == bytes))
        .map(|path| OpenOptions::new().write(true).open(path).unwrap())
        .collect();
    assert_eq!(pools.len(), 1);
    pools.iter().for_each(|pool| pool.set_len(0).unwrap());
}

#[test]
fn a_touch_after_the_driver_was_unbound_is_sigbus_and_the_rest_goes_on() {
    let test = "a_touch_after_the_driver_was_unbound_is_sigbus_and_the_rest_goes_on";
    let _turn = turn(test);
    for mode in MODES {
        let case = format!("{mode:?}");
        if is_child(&case) {
            no_core();
            let _device = StandIn::of(4 * MIB);
            let kit = Kit::new(test, import().fault_mode(mode)).unwrap();
            let vec = kit.heap().in_home(Home::SharedDevice).vec_zeroed::<u32>(3 * BLOCK_WORDS).unwrap();
            assert_eq!(kit.sum(&vec).unwrap(), 0);
            unbind(3 * BLOCK);
            kit.works();
            println!("still here");
            let found = vec.read().unwrap()[BLOCK_WORDS];
            println!("found {found}");
        }
    }
    if MODES.iter().any(|mode| is_child(&format!("{mode:?}"))) {
        return;
    }
    let Some(_) = Kit::new(test, import()) else { return };
    for mode in MODES {
        let output = child(test, &format!("{mode:?}"), |_| {});
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{mode:?}: {}", told(&output));
        assert!(told(&output).contains("still here") && !told(&output).contains("found"), "{}", told(&output));
        let named = told(&output).contains("its driver was unbound");
        assert_eq!(named, mode == FaultMode::InThread, "who serves faults itself can tell: {}", told(&output));
    }
}

#[test]
fn a_file_comes_straight_where_it_can_and_else_the_reasons_are_told() {
    let _turn = turn("streamed");
    let _device = StandIn::of(8 * MIB);
    let Some(kit) = Kit::new("streamed", import()) else { return };
    let words: Vec<u32> = (0..3 << 18).map(|i: u32| i.wrapping_mul(0x9E37_79B1)).collect();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for (folder, direct) in [(std::env::temp_dir(), true), ("/dev/shm".into(), false)] {
        let path = folder.join(format!("limosa-shared-device-{}", std::process::id()));
        fs::write(&path, &bytes).unwrap();
        let file = DataFile::options().read(true).write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        // What the machine's file system cannot do is no matter of this test's.
        let direct = direct && file.facts().direct.is_ok();
        file.sync().unwrap();
        file.forget_cache().unwrap();
        let mut vec = kit.heap().in_home(Home::SharedDevice).vec_zeroed::<u32>(words.len()).unwrap();
        let read = kit.queue.read_file(&file, 0, &mut vec).submit().unwrap().wait().unwrap();
        assert_eq!(read.tier(), Some(if direct { Tier::P2p } else { Tier::Buffered }), "{read:?}");
        assert_eq!(read.reasons.is_empty(), direct, "{read:?}");
        assert_eq!(kit.sum(&vec).unwrap(), words.iter().map(|word| u64::from(*word)).sum::<u64>());
        assert!(vec.read().unwrap()[..] == words[..]);
        kit.fill(&mut vec, 6).unwrap().wait().unwrap();
        let written = kit.queue.write_file(&vec, &file, 0).submit().unwrap().wait().unwrap();
        assert_eq!(written.tier(), read.tier(), "{written:?}");
        let mut again = kit.heap().vec_zeroed::<u32>(words.len()).unwrap();
        kit.queue.read_file(&file, 0, &mut again).submit().unwrap().wait().unwrap();
        assert!(again.read().unwrap().iter().all(|word| *word == 6));
        // What migrates cannot have it, and is told what could.
        let p2p = kit.context.tiers(&file, Direction::FromFile).swap_remove(0).obstacle.unwrap();
        let expected = if direct { "they would be" } else { "no direct I/O" };
        assert!(p2p.contains("Home::SharedDevice") && p2p.contains(expected), "{p2p}");
        drop(vec);
        // What a transfer kept goes when its event is told, by another thread.
        wait_until(|| inject::peer_memory_used() == 0);
    }
}

#[test]
fn the_memory_of_a_real_device_is_one_memory_for_both_sides() {
    let test = "the_memory_of_a_real_device_is_one_memory_for_both_sides";
    let _turn = turn(test);
    let Some(kit) = Kit::new(test, import()) else { return };
    let device = kit.heap().in_home(Home::SharedDevice);
    let mut vec = match device.vec_with(1 << 20, |i| u32::try_from(i).unwrap()) {
        Err(Error::Pager(PagerError::Os(error @ OsError::NoPeerMemory { .. }))) => {
            return skip(test, "a device whose memory others reach", &error.to_string());
        }
        other => other.unwrap(),
    };
    assert!(matches!(vec.raw().peer_provider(), Some(PeerProvider::Shim { .. })));
    assert_eq!(kit.sum(&vec).unwrap(), (0..1u64 << 20).sum::<u64>());
    kit.fill(&mut vec, 9).unwrap().wait().unwrap();
    assert!(vec.read().unwrap().iter().all(|word| *word == 9));
    vec.raw().prefetch(Side::Device).unwrap();
    assert_eq!(vec.residency_summary().shared, 4 * MIB);
}
