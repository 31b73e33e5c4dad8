//! Which tier serves a device's memory on machines where the disk reaches it and where it does not, and what is told.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::files::{contents, disk, put};
use common::memory::PAGE;
use common::peer::{forget, traced, way};
use common::unified::{Unified, data_file, reason};
use limosa::{Direction, Tier};

const PAGES: usize = 700;
const BYTES: usize = PAGES * PAGE;

/// Why not P2p, on the machine that this is; `None`: P2p.
fn expected() -> Option<&'static str> {
    let machine = std::env::var("LIMOSA_GUEST_MACHINE").unwrap();
    match machine.as_str() {
        "trusted" => None,
        "ports" => Some("no bridge is above both devices"),
        "multipath" => Some("several disks or paths"),
        other => panic!("a machine that is not known here: {other}"),
    }
}

#[test]
fn the_disk_serves_a_devices_memory_as_the_machine_lets_it() {
    let Some(kit) = Unified::new("the_disk_serves_a_devices_memory_as_the_machine_lets_it", |builder| builder) else {
        return;
    };
    put(&disk(), PAGES, 1);
    let file = data_file(&disk());
    let mut vec = kit.device_heap().vec_zeroed::<u32>(BYTES / 4).unwrap();
    forget();
    let (report, commands) = traced(|| kit.read(&file, &mut vec));
    let way = way(&commands, false);
    let outlook = kit.context.tiers(&file, Direction::FromFile).swap_remove(0).obstacle.unwrap();
    match expected() {
        None => {
            assert_eq!(report.tier(), Some(Tier::P2p), "{report:?}");
            assert!(way.inside >= BYTES as u64, "{way:?}");
            assert!(outlook.contains("they would be"), "{outlook}");
        }
        Some(why) => {
            assert_eq!(report.tier(), Some(Tier::Staged), "{report:?}");
            assert!(reason(&report, Tier::P2p).contains(why), "{report:?}");
            assert_eq!(way.inside, 0, "{way:?}");
            assert!(outlook.contains("would not be either") && outlook.contains(why), "{outlook}");
        }
    }
    let bytes: Vec<u8> = vec.read().unwrap().iter().flat_map(|word| word.to_ne_bytes()).collect();
    assert!(bytes == contents(PAGES, 1));
}
