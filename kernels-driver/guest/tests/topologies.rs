//! What is between GPU and SSD decides whether one reaches the other: on machines that differ in it, PROBE says what then
//! happens. Each test runs on each of them.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::device;
use common::files::{Mounted, buffered, direct, disk, put};
use common::peer::{probe, reads_go_as_told, writes_go_as_told};
use limosa_os::shim::uapi::*;

const PAGES: usize = 1024;

/// Verdict, reason, route and distance on the machine that this is.
fn expected() -> [u32; 4] {
    let machine = std::env::var("LIMOSA_GUEST_MACHINE").unwrap();
    let refused = |reason| [LIMOSA_VERDICT_REFUSED, reason, LIMOSA_ROUTE_NONE, 0];
    let direct = |route, distance| [LIMOSA_VERDICT_DIRECT, LIMOSA_REASON_NONE, route, distance];
    match machine.as_str() {
        "default" | "plain" => direct(LIMOSA_ROUTE_SWITCH, 4),
        "bridge" => direct(LIMOSA_ROUTE_SWITCH, 2),
        "trusted" => direct(LIMOSA_ROUTE_HOST_BRIDGE, 4),
        "ports" | "root" => refused(LIMOSA_REASON_NO_PATH),
        "redirect" => refused(LIMOSA_REASON_ACS_REDIRECT),
        // One way goes by the switch, the other does not: the kernel takes which it likes.
        "multipath" => [LIMOSA_VERDICT_UNKNOWN, LIMOSA_REASON_STACKED, LIMOSA_ROUTE_NONE, 0],
        other => panic!("a machine that is not known here: {other}"),
    }
}

fn told(probe: &limosa_probe) -> [u32; 4] {
    [probe.verdict, probe.reason, probe.route, probe.distance]
}

#[test]
fn transfers_with_the_disk_go_as_the_machine_lets_them() {
    let (shim, disk) = (device(), disk());
    put(&disk, PAGES, 1);
    assert_eq!(told(&reads_go_as_told(&shim, &direct(&disk), PAGES, 1)), expected());
    assert_eq!(told(&writes_go_as_told(&shim, &direct(&disk), &buffered(&disk), PAGES, 2)), expected());
}

#[test]
fn transfers_with_a_file_go_as_the_machine_lets_them() {
    let (shim, mounted) = (device(), Mounted::ext4(&disk()));
    let file = mounted.pages("file", PAGES, 3);
    assert_eq!(told(&reads_go_as_told(&shim, &file, PAGES, 3)), expected());
    let again = buffered(&mounted.file("file"));
    assert_eq!(told(&writes_go_as_told(&shim, &file, &again, PAGES, 4)), expected());
}

#[test]
fn what_goes_through_the_page_cache_is_told_and_works_on_every_machine() {
    let (shim, disk) = (device(), disk());
    put(&disk, PAGES, 5);
    let file = buffered(&disk);
    for direction in [LIMOSA_FROM_FILE, LIMOSA_TO_FILE] {
        let probe = probe(&shim, &file, direction).unwrap();
        assert_eq!(told(&probe), [LIMOSA_VERDICT_STAGED, LIMOSA_REASON_NOT_O_DIRECT, LIMOSA_ROUTE_NONE, 0]);
    }
    reads_go_as_told(&shim, &file, PAGES, 5);
    writes_go_as_told(&shim, &file, &buffered(&disk), PAGES, 6);
}
