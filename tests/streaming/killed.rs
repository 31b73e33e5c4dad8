//! A process that is killed while it writes. What is promised of a file that was there before: each aligned piece of 4 KiB
//! is wholly as it was or wholly new. And the kernel holds nothing of the process any more.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use limosa::Side;

use crate::common::builder;
use crate::common::failure::{is_child, turn};
use crate::common::mounts::{Disk, with_own_mounts};
use crate::common::views::FAULTING;
use crate::common::words::wait_until;
use crate::files::{Scratch, folders, open};

const LEN: usize = 16 << 20;
const PIECE: usize = 4096;
const PLACE: &str = "LIMOSA_TEST_PLACE";

/// A piece of which every word tells which write it is of.
fn piece(round: u64, at: usize) -> Vec<u8> {
    let word = round << 32 | at as u64;
    (0..PIECE / 8).flat_map(|i| (word ^ (i as u64) << 48).to_le_bytes()).collect()
}

/// Writes round after round, and says so, until it is killed.
fn write_for_ever(test: &str) {
    let Some(kit) = FAULTING.kit(test, builder()) else { return println!("skipped") };
    let place = std::env::var(PLACE).unwrap();
    let file = open(place.as_ref());
    let mut source = kit.heap().vec_zeroed::<u8>(LEN).unwrap();
    for round in 1.. {
        let mut bytes = source.write().unwrap();
        bytes.chunks_exact_mut(PIECE).zip(0..).for_each(|(part, at)| part.copy_from_slice(&piece(round, at)));
        source.raw().prefetch(if round % 2 == 0 { Side::Host } else { Side::Device }).unwrap();
        let writing = kit.queue.write_file(&source, &file, 0).request_bytes(256 << 10).submit().unwrap();
        println!("writing {round}");
        writing.wait().unwrap();
    }
}

/// Has a child write to `place` and be killed in the middle of a round.
fn killed(test: &str, place: &Path) -> bool {
    let old: Vec<u8> = (0..LEN / PIECE).flat_map(|at| piece(0, at)).collect();
    let file = File::options().write(true).create(true).truncate(false).open(place).unwrap();
    file.write_all_at(&old, 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("LIMOSA_TEST_CHILD", WRITER)
        .env(PLACE, place);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| line.ok().filter(|line| line.starts_with("writing 3") || line == "skipped"));
    child.kill().unwrap();
    child.wait().unwrap();
    let Some("writing 3") = line.as_deref() else { return false };
    let mut found = vec![0; LEN];
    File::open(place).unwrap().read_exact_at(&mut found, 0).unwrap();
    let mut rounds = [0; 5];
    for (at, part) in found.chunks_exact(PIECE).enumerate() {
        let round = (u64::from_le_bytes(part[..8].try_into().unwrap()) >> 32) & 0xffff;
        assert!(round < 5 && part == piece(round, at), "piece {at} is of no single write: {round}");
        rounds[usize::try_from(round).unwrap()] += 1;
    }
    // Two rounds were over, as had been told.
    assert_eq!(rounds[..2], [0, 0], "{rounds:?}");
    true
}

const WRITER: &str = "killed writer";

#[test]
fn pieces_of_a_file_are_old_or_new_after_a_kill() {
    let _turn = turn("killed");
    let test = "killed::pieces_of_a_file_are_old_or_new_after_a_kill";
    if is_child(WRITER) {
        return write_for_ever(test);
    }
    for folder in folders() {
        let scratch = Scratch::new(&folder, "killed");
        for _ in 0..3 {
            if !killed(test, &scratch.0) {
                return;
            }
        }
        std::fs::remove_file(&scratch.0).unwrap();
    }
}

#[test]
fn a_disk_can_be_detached_after_a_kill() {
    let _turn = turn("killed on a disk");
    let test = "killed::a_disk_can_be_detached_after_a_kill";
    if is_child(WRITER) {
        return write_for_ever(test);
    }
    with_own_mounts(test, |folder| {
        let image = folder.join("image");
        File::create(&image).unwrap().set_len(LEN as u64).unwrap();
        let Some(disk) = Disk::attach(test, &image) else { return };
        killed(test, &disk.0);
        // The kernel ends what the killed process had in flight in its own time.
        wait_until(disk.detach());
    });
}
