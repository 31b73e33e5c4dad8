//! DESIGN.md's table of events, one example a row: the exact actions, and the state afterwards.
//!
//! Every example is about block 0 of an allocation of four, whose host frames are not known to be blank.

// long-file: one table, row by row; parts of it would have to be looked for.

use limosa_model::{
    Access::{Read, Write},
    Action::{self, Close, Copy, GiveFrames, Load, Open, Stale, TakeFrames, WriteBack, Zero},
    BlockSet, Chunk, Copies, Hold, Plan, Refusal,
    Side::{Device, Host},
    Verdict,
};

const BLOCK: BlockSet = BlockSet::of(0);
const NONE: BlockSet = BlockSet::EMPTY;

/// The current copies, by initials, in the order host, device, file; "0" for a block that reads as zeros.
fn copies(initials: &str) -> Copies {
    let has = |initial: char| initials.contains(initial);
    if has('0') { Copies::Zero } else { Copies::Current { host: has('H'), device: has('D'), file: has('F') } }
}

fn plan_of(verdict: Verdict) -> Plan {
    match verdict {
        Verdict::Go(plan) => plan,
        other => panic!("expected a plan, got {other:?}"),
    }
}

fn assert_waits(verdict: Verdict) {
    assert!(matches!(verdict, Verdict::Wait(BLOCK)), "expected a wait, got {verdict:?}");
}

/// Carries a plan out and gives its actions.
fn run(chunk: &mut Chunk, event: impl FnOnce(&mut Chunk) -> Verdict) -> Vec<Action> {
    let plan = plan_of(event(chunk));
    chunk.commit(&plan);
    plan.actions().to_vec()
}

/// A chunk whose block 0 has the copies named by `initials`, with nothing held. The side that wrote last may have it
/// mapped: the CPU in "H" and "HDF", the GPU in "D", "HD", "DF" and "HDF"; in "HF" and "F" it is mapped nowhere.
fn having(initials: &str) -> Chunk {
    let mut chunk = Chunk::new();
    chunk.allocate(BlockSet::run(0, 4), true);
    let write = |chunk: &mut Chunk| run(chunk, |chunk| chunk.fault(Host, 0, NONE, Write));
    let save = |chunk: &mut Chunk| run(chunk, |chunk| chunk.write_back(BLOCK));
    let raise = |chunk: &mut Chunk| run(chunk, |chunk| chunk.fault(Device, 0, NONE, Read));
    let drop_host = |chunk: &mut Chunk| run(chunk, |chunk| chunk.drop_host(BLOCK));
    if initials == "0" {
        return chunk;
    }
    if initials == "D" {
        hold(&mut chunk, Write);
        chunk.release(BLOCK, Write);
        return chunk;
    }
    write(&mut chunk);
    if initials.contains('F') {
        save(&mut chunk);
    }
    if initials.contains('D') {
        raise(&mut chunk);
    }
    if !initials.contains('H') {
        drop_host(&mut chunk);
    }
    if initials == "HDF" {
        run(&mut chunk, |chunk| chunk.fault(Host, 0, NONE, Read));
    }
    assert_eq!(chunk.state(0).copies, copies(initials));
    chunk
}

/// A launch is admitted that holds block 0.
fn hold(chunk: &mut Chunk, access: limosa_model::Access) -> Vec<Action> {
    run(chunk, |chunk| chunk.acquire(BLOCK, access, false))
}

fn cpu(access: limosa_model::Access) -> impl Fn(&mut Chunk) -> Verdict {
    move |chunk| chunk.fault(Host, 0, NONE, access)
}

fn gpu(access: limosa_model::Access) -> impl Fn(&mut Chunk) -> Verdict {
    move |chunk| chunk.fault(Device, 0, NONE, access)
}

/// The event turns the copies `before` into `after` by exactly these actions.
fn row(before: &str, event: impl FnOnce(&mut Chunk) -> Verdict, actions: &[Action], after: &str) -> Chunk {
    let mut chunk = having(before);
    assert_eq!(run(&mut chunk, event), actions, "from {before}");
    assert_eq!(chunk.state(0).copies, copies(after), "from {before}");
    assert!(chunk.busy().is_empty());
    chunk
}

#[test]
fn cpu_read_of_a_host_copy_opens_it_writable_only_if_it_is_the_only_one() {
    row("H", cpu(Read), &[Open(Host, BLOCK, Write)], "H");
    row("HF", cpu(Read), &[Open(Host, BLOCK, Read)], "HF");
    let chunk = row("HD", cpu(Read), &[Open(Host, BLOCK, Read)], "HD");
    assert!(chunk.open(Device).contains(0), "the GPU keeps its mapping");
}

#[test]
fn cpu_read_of_zeros_zeroes_a_frame() {
    row("0", cpu(Read), &[Zero(Host, BLOCK), Open(Host, BLOCK, Write)], "H");
    let mut chunk = Chunk::new();
    chunk.host_blanked(BLOCK);
    chunk.allocate(BLOCK, true);
    assert_eq!(run(&mut chunk, cpu(Read)), [Open(Host, BLOCK, Write)], "a blank frame needs no zeroing");
}

#[test]
fn cpu_read_of_a_file_copy_loads_it() {
    row("F", cpu(Read), &[Load(BLOCK), Open(Host, BLOCK, Read)], "HF");
}

#[test]
fn cpu_read_of_a_device_copy_copies_it_down_and_stops_gpu_writes() {
    let down = [Close(Device, BLOCK), Copy(Host, BLOCK), Open(Host, BLOCK, Read)];
    let chunk = row("D", cpu(Read), &down, "HD");
    assert!(!chunk.writable(Device).contains(0) && !chunk.writable(Host).contains(0));
    row("DF", cpu(Read), &[Copy(Host, BLOCK), Open(Host, BLOCK, Read)], "HDF");
}

#[test]
fn cpu_read_parks_at_a_write_hold_until_release() {
    let mut chunk = having("D");
    hold(&mut chunk, Write);
    assert_waits(chunk.fault(Host, 0, NONE, Read));
    chunk.release(BLOCK, Write);
    run(&mut chunk, cpu(Read));
    assert_eq!(chunk.state(0).copies, copies("HD"));
}

#[test]
fn cpu_write_leaves_the_host_copy_alone() {
    let away = [Close(Device, BLOCK), Stale(Device, BLOCK), Open(Host, BLOCK, Write), GiveFrames(Device, BLOCK)];
    row("H", cpu(Write), &[Open(Host, BLOCK, Write)], "H");
    row("HD", cpu(Write), &away, "H");
    row("HDF", cpu(Write), &away, "H");
    row("HF", cpu(Write), &[Open(Host, BLOCK, Write)], "H");
    row("F", cpu(Write), &[Load(BLOCK), Open(Host, BLOCK, Write)], "H");
    row("0", cpu(Write), &[Zero(Host, BLOCK), Open(Host, BLOCK, Write)], "H");
    let down = [
        Close(Device, BLOCK),
        Copy(Host, BLOCK),
        Stale(Device, BLOCK),
        Open(Host, BLOCK, Write),
        GiveFrames(Device, BLOCK),
    ];
    row("D", cpu(Write), &down, "H");
    row("DF", cpu(Write), &down, "H");
}

#[test]
fn cpu_write_parks_at_any_hold() {
    for access in [Read, Write] {
        let mut chunk = having("HD");
        hold(&mut chunk, access);
        assert_waits(chunk.fault(Host, 0, NONE, Write));
        chunk.release(BLOCK, access);
        run(&mut chunk, cpu(Write));
        assert_eq!(chunk.state(0).copies, copies("H"));
    }
}

#[test]
fn acquire_for_reading_takes_a_device_copy_as_it_is_mapped() {
    let acquire = |chunk: &mut Chunk| chunk.acquire(BLOCK, Read, false);
    let mut chunk = row("HD", acquire, &[], "HD");
    assert_eq!(chunk.state(0).hold, Hold::Read(1));
    hold(&mut chunk, Read);
    assert_eq!(chunk.state(0).hold, Hold::Read(2));
}

#[test]
fn acquire_for_reading_brings_up_what_is_elsewhere() {
    let acquire = |chunk: &mut Chunk| chunk.acquire(BLOCK, Read, false);
    let up = [TakeFrames(BLOCK), Close(Host, BLOCK), Copy(Device, BLOCK), Open(Device, BLOCK, Read)];
    let chunk = row("H", acquire, &up, "HD");
    assert_eq!(chunk.state(0).hold, Hold::Read(1));
    assert!(chunk.writable(Host).is_empty(), "the CPU loses write access");
    row("HF", acquire, &[TakeFrames(BLOCK), Copy(Device, BLOCK), Open(Device, BLOCK, Read)], "HDF");
    let loaded = [TakeFrames(BLOCK), Load(BLOCK), Copy(Device, BLOCK), Open(Device, BLOCK, Read)];
    row("F", acquire, &loaded, "HDF");
    let mut chunk = having("0");
    let actions = hold(&mut chunk, Read);
    // What the mapping of the only copy allows is a question of its own: see the last tests below.
    assert_eq!(actions[..2], [TakeFrames(BLOCK), Zero(Device, BLOCK)]);
    assert!(matches!(actions[2..], [Open(Device, BLOCK, _)]));
    assert_eq!(chunk.state(0).copies, copies("D"));
}

#[test]
fn acquire_for_writing_leaves_the_device_copy_alone() {
    let acquire = |chunk: &mut Chunk| chunk.acquire(BLOCK, Write, false);
    let up =
        [TakeFrames(BLOCK), Close(Host, BLOCK), Copy(Device, BLOCK), Stale(Host, BLOCK), Open(Device, BLOCK, Write)];
    let chunk = row("H", acquire, &up, "D");
    assert_eq!(chunk.state(0).hold, Hold::Write);
    assert!(chunk.open(Host).is_empty(), "the CPU's mapping is closed");
    row("HDF", acquire, &[Close(Host, BLOCK), Stale(Host, BLOCK), Open(Device, BLOCK, Write)], "D");
    row("D", acquire, &[], "D");
    row("0", acquire, &[TakeFrames(BLOCK), Zero(Device, BLOCK), Open(Device, BLOCK, Write)], "D");
    let loaded = [TakeFrames(BLOCK), Load(BLOCK), Copy(Device, BLOCK), Open(Device, BLOCK, Write)];
    row("F", acquire, &loaded, "D");
}

#[test]
fn acquire_for_writing_queues_behind_any_hold() {
    for access in [Read, Write] {
        let mut chunk = having("D");
        hold(&mut chunk, access);
        assert_waits(chunk.acquire(BLOCK, Write, false));
        chunk.release(BLOCK, access);
        hold(&mut chunk, Write);
    }
}

#[test]
fn acquire_for_reading_queues_behind_a_write_hold() {
    let mut chunk = having("D");
    hold(&mut chunk, Write);
    assert_waits(chunk.acquire(BLOCK, Read, false));
}

#[test]
fn successors_of_a_writer_need_nothing_and_end_one_by_one() {
    for access in [Read, Write] {
        let mut chunk = having("D");
        hold(&mut chunk, Write);
        assert!(!chunk.can_hold(BLOCK, NONE, NONE) && chunk.can_hold(BLOCK, BLOCK, BLOCK));
        assert!(matches!(chunk.succeed(BLOCK, access), Verdict::Done));
        assert_waits(chunk.fault(Host, 0, NONE, Read));
        chunk.release(BLOCK, Write);
        assert_eq!(chunk.state(0).hold, if access == Read { Hold::Read(1) } else { Hold::Write });
        chunk.release(BLOCK, access);
        assert_eq!(chunk.state(0).hold, Hold::None);
    }
}

#[test]
fn a_writer_that_succeeds_readers_takes_the_host_copy_away_and_bars_the_cpu_until_it_ends() {
    let mut chunk = having("HD");
    hold(&mut chunk, Read);
    run(&mut chunk, cpu(Read));
    let actions = run(&mut chunk, |chunk| chunk.succeed(BLOCK, Write));
    assert_eq!(actions[0], Close(Host, BLOCK));
    assert!(actions.contains(&Open(Device, BLOCK, Write)), "{actions:?}");
    assert_eq!((chunk.state(0).copies, chunk.state(0).hold), (copies("D"), Hold::Write));
    // Another reader behind both.
    assert!(matches!(chunk.succeed(BLOCK, Read), Verdict::Done));
    chunk.release(BLOCK, Read);
    chunk.release(BLOCK, Write);
    assert_eq!(chunk.state(0).hold, Hold::Read(1));
    assert_waits(chunk.fault(Host, 0, NONE, Write));
    chunk.release(BLOCK, Read);
}

#[test]
fn acquire_for_overwriting_copies_nothing() {
    let acquire = |chunk: &mut Chunk| chunk.acquire(BLOCK, Write, true);
    let actions = [TakeFrames(BLOCK), Close(Host, BLOCK), Stale(Host, BLOCK), Open(Device, BLOCK, Write)];
    let chunk = row("H", acquire, &actions, "D");
    assert_eq!(chunk.state(0).hold, Hold::Write);
    row("F", acquire, &[TakeFrames(BLOCK), Open(Device, BLOCK, Write)], "D");
    row("0", acquire, &[TakeFrames(BLOCK), Open(Device, BLOCK, Write)], "D");
}

#[test]
fn release_ends_one_hold_and_changes_no_copy() {
    let mut chunk = having("HD");
    hold(&mut chunk, Read);
    hold(&mut chunk, Read);
    chunk.release(BLOCK, Read);
    assert_eq!((chunk.state(0).hold, chunk.state(0).copies), (Hold::Read(1), copies("HD")));
    assert_waits(chunk.fault(Host, 0, NONE, Write));
    chunk.release(BLOCK, Read);
    assert_eq!((chunk.state(0).hold, chunk.state(0).copies), (Hold::None, copies("HD")));
    run(&mut chunk, cpu(Write));
}

#[test]
fn what_is_read_into_keeps_what_it_had_but_zeros() {
    let receive = |chunk: &mut Chunk| chunk.receive(BLOCK).0;
    let up =
        [TakeFrames(BLOCK), Close(Host, BLOCK), Copy(Device, BLOCK), Stale(Host, BLOCK), Open(Device, BLOCK, Write)];
    let chunk = row("H", receive, &up, "D");
    assert_eq!(chunk.state(0).hold, limosa_model::Hold::Write);
    row("D", receive, &[], "D");
    row("0", receive, &[TakeFrames(BLOCK), Open(Device, BLOCK, Write)], "D");
    for (initials, blank) in [("0", BLOCK), ("H", NONE), ("D", NONE), ("HD", NONE), ("F", NONE)] {
        assert_eq!(having(initials).receive(BLOCK).1, blank, "{initials}");
    }
    for access in [Read, Write] {
        let mut chunk = having("D");
        hold(&mut chunk, access);
        assert_waits(chunk.receive(BLOCK).0);
    }
    let mut chunk = having("H");
    run(&mut chunk, |chunk| chunk.pin(BLOCK));
    assert_waits(chunk.receive(BLOCK).0);
}

#[test]
fn a_pin_in_place_takes_only_what_the_cpu_alone_has_and_may_write() {
    for (initials, pinned) in [("0", false), ("D", false), ("HD", false), ("F", false), ("HF", false), ("HDF", false)] {
        let mut chunk = having(initials);
        assert_eq!(chunk.pin_in_place(BLOCK), pinned, "{initials}");
        assert!(chunk.pinned().is_empty());
    }
    let mut chunk = having("H");
    assert!(chunk.pin_in_place(BLOCK) && chunk.pin_in_place(BLOCK));
    // All or nothing: block 1 was never touched.
    assert!(!chunk.pin_in_place(BlockSet::run(0, 2)));
    assert_waits(chunk.acquire(BLOCK, Read, false));
    assert_waits(chunk.receive(BLOCK).0);
    chunk.unpin(BLOCK);
    assert_eq!(chunk.pinned(), BLOCK);
    chunk.unpin(BLOCK);
    assert!(chunk.pinned().is_empty());
    let plan = plan_of(chunk.acquire(BLOCK, Read, false));
    assert!(!chunk.pin_in_place(BLOCK), "a launch is about to have it");
    chunk.commit(&plan);
    assert!(!chunk.pin_in_place(BLOCK), "what a launch reads is its own");
}

#[test]
fn gpu_fault_is_an_acquire_without_a_hold() {
    let up = [TakeFrames(BLOCK), Close(Host, BLOCK), Copy(Device, BLOCK), Open(Device, BLOCK, Read)];
    let chunk = row("H", gpu(Read), &up, "HD");
    assert_eq!(chunk.state(0).hold, Hold::None);
    let alone =
        [TakeFrames(BLOCK), Close(Host, BLOCK), Copy(Device, BLOCK), Stale(Host, BLOCK), Open(Device, BLOCK, Write)];
    let chunk = row("H", gpu(Write), &alone, "D");
    assert_eq!(chunk.state(0).hold, Hold::None);
    row("HD", gpu(Write), &[Stale(Host, BLOCK), Open(Device, BLOCK, Write)], "D");
}

#[test]
fn gpu_fault_waits_for_a_move() {
    let mut chunk = having("H");
    let plan = plan_of(chunk.prefetch(Device, BLOCK));
    assert_waits(chunk.fault(Device, 0, NONE, Read));
    chunk.commit(&plan);
    run(&mut chunk, gpu(Read));
}

#[test]
fn evict_makes_no_copy_where_there_is_another() {
    let away = [Close(Device, BLOCK), Stale(Device, BLOCK), GiveFrames(Device, BLOCK)];
    row("HD", |chunk| chunk.evict(BLOCK), &away, "H");
    row("DF", |chunk| chunk.evict(BLOCK), &away, "F");
    let chunk = row("HDF", |chunk| chunk.evict(BLOCK), &away, "HF");
    assert!(chunk.open(Host).contains(0), "the CPU keeps its mapping");
}

#[test]
fn evict_copies_the_only_copy_down() {
    let away = [Close(Device, BLOCK), Copy(Host, BLOCK), Stale(Device, BLOCK), GiveFrames(Device, BLOCK)];
    row("D", |chunk| chunk.evict(BLOCK), &away, "H");
}

#[test]
fn evict_and_drop_wait_for_holds() {
    for access in [Read, Write] {
        let mut chunk = having("HD");
        hold(&mut chunk, access);
        assert_waits(chunk.evict(BLOCK));
        assert_waits(chunk.drop_host(BLOCK));
    }
}

#[test]
fn evict_and_drop_have_nothing_to_do_elsewhere() {
    for initials in ["0", "H", "F", "HF"] {
        assert!(matches!(having(initials).evict(BLOCK), Verdict::Done));
    }
    for initials in ["0", "H", "D", "F", "DF"] {
        assert!(matches!(having(initials).drop_host(BLOCK), Verdict::Done), "never the last copy");
    }
}

#[test]
fn drop_host_gives_the_frame_back() {
    row("HD", |chunk| chunk.drop_host(BLOCK), &[Stale(Host, BLOCK), GiveFrames(Host, BLOCK)], "D");
    row("HF", |chunk| chunk.drop_host(BLOCK), &[Stale(Host, BLOCK), GiveFrames(Host, BLOCK)], "F");
    let open = [Close(Host, BLOCK), Stale(Host, BLOCK), GiveFrames(Host, BLOCK)];
    row("HDF", |chunk| chunk.drop_host(BLOCK), &open, "DF");
}

#[test]
fn write_back_protects_writes_and_leaves_the_block_clean() {
    let mut chunk = row("H", |chunk| chunk.write_back(BLOCK), &[Close(Host, BLOCK), WriteBack(BLOCK)], "HF");
    assert!(matches!(chunk.write_back(BLOCK), Verdict::Done), "clean");
    row("HD", |chunk| chunk.write_back(BLOCK), &[WriteBack(BLOCK)], "HDF");
    let down = [Close(Device, BLOCK), Copy(Host, BLOCK), WriteBack(BLOCK)];
    row("D", |chunk| chunk.write_back(BLOCK), &down, "HDF");
}

#[test]
fn write_back_leaves_a_block_dirty_that_is_written_meanwhile() {
    let mut chunk = having("H");
    let plan = plan_of(chunk.write_back(BLOCK));
    assert_waits(chunk.fault(Host, 0, NONE, Write));
    chunk.commit(&plan);
    run(&mut chunk, cpu(Write));
    assert_eq!(chunk.state(0).copies, copies("H"));
}

#[test]
fn prefetch_to_the_device_moves_without_a_hold() {
    let up =
        [TakeFrames(BLOCK), Close(Host, BLOCK), Copy(Device, BLOCK), Stale(Host, BLOCK), Open(Device, BLOCK, Write)];
    let mut chunk = row("H", |chunk| chunk.prefetch(Device, BLOCK), &up, "D");
    assert_eq!(chunk.state(0).hold, Hold::None);
    assert!(matches!(chunk.prefetch(Device, BLOCK), Verdict::Done));
    hold(&mut chunk, Read);
    assert!(matches!(chunk.prefetch(Device, BLOCK), Verdict::Done), "what is held is there already");
}

#[test]
fn prefetch_to_the_host_moves_and_opens() {
    let down = [
        Close(Device, BLOCK),
        Copy(Host, BLOCK),
        Stale(Device, BLOCK),
        Open(Host, BLOCK, Write),
        GiveFrames(Device, BLOCK),
    ];
    row("D", |chunk| chunk.prefetch(Host, BLOCK), &down, "H");
    row("F", |chunk| chunk.prefetch(Host, BLOCK), &[Load(BLOCK), Open(Host, BLOCK, Write)], "H");
    for access in [Read, Write] {
        let mut chunk = having("D");
        hold(&mut chunk, access);
        assert_waits(chunk.prefetch(Host, BLOCK));
    }
}

#[test]
fn duplicating_leaves_the_other_copy_and_opens_both_for_reading() {
    let up = [
        TakeFrames(BLOCK),
        Close(Host, BLOCK),
        Copy(Device, BLOCK),
        Open(Host, BLOCK, Read),
        Open(Device, BLOCK, Read),
    ];
    let mut chunk = row("H", |chunk| chunk.duplicate(Device, BLOCK), &up, "HD");
    assert!(matches!(chunk.duplicate(Device, BLOCK), Verdict::Done));
    assert!(matches!(chunk.duplicate(Host, BLOCK), Verdict::Done));
    let down = [Close(Device, BLOCK), Copy(Host, BLOCK), Open(Host, BLOCK, Read), Open(Device, BLOCK, Read)];
    row("D", |chunk| chunk.duplicate(Host, BLOCK), &down, "HD");
    row("F", |chunk| chunk.duplicate(Host, BLOCK), &[Load(BLOCK), Open(Host, BLOCK, Read)], "HF");
    let mut chunk = having("D");
    hold(&mut chunk, Write);
    assert_waits(chunk.duplicate(Host, BLOCK));
    assert!(matches!(chunk.duplicate(Device, BLOCK), Verdict::Done), "what is held is there already");
}

#[test]
fn discard_reads_as_zeros_and_frees_the_device_frame() {
    for before in ["D", "DF"] {
        let mut chunk = having(before);
        let mut actions = run(&mut chunk, |chunk| chunk.discard(BLOCK));
        actions.retain(|action| *action != GiveFrames(Host, BLOCK)); // see the last tests below
        assert_eq!(actions, [Close(Device, BLOCK), Stale(Device, BLOCK), GiveFrames(Device, BLOCK)]);
        assert_eq!(chunk.state(0).copies, Copies::Zero);
        assert_eq!(run(&mut chunk, cpu(Read)), [Zero(Host, BLOCK), Open(Host, BLOCK, Write)]);
    }
    assert!(matches!(having("0").discard(BLOCK), Verdict::Done));
}

#[test]
fn discard_waits_for_holds() {
    for access in [Read, Write] {
        let mut chunk = having("HD");
        hold(&mut chunk, access);
        assert_waits(chunk.discard(BLOCK));
    }
}

#[test]
fn free_ends_the_allocation() {
    let mut chunk = having("HDF");
    let blocks = BlockSet::run(0, 4);
    run(&mut chunk, |chunk| chunk.discard(blocks));
    chunk.free(blocks);
    assert_eq!(chunk.state(0).copies, Copies::Unallocated);
    assert!(matches!(chunk.fault(Host, 0, NONE, Read), Verdict::Refuse(Refusal::Unallocated, BLOCK)));
}

#[test]
fn device_lost_poisons_what_nothing_else_has() {
    for (before, after) in [("HD", "H"), ("DF", "F"), ("HDF", "HF"), ("H", "H"), ("F", "F"), ("0", "0")] {
        let mut chunk = having(before);
        assert_eq!(chunk.device_lost(), Ok(NONE));
        assert_eq!(chunk.state(0).copies, copies(after));
        assert!(chunk.open(Device).is_empty());
    }
    let mut chunk = having("D");
    hold(&mut chunk, Write);
    assert_eq!(chunk.device_lost(), Ok(BLOCK));
    assert_eq!((chunk.state(0).copies, chunk.state(0).hold), (Copies::Poisoned, Hold::None));
    assert!(matches!(chunk.fault(Host, 0, NONE, Read), Verdict::Refuse(Refusal::Poisoned, BLOCK)));
    assert_eq!(chunk.repair(BlockSet::ALL), BLOCK);
    assert_eq!(chunk.state(0).copies, Copies::Zero);
}

#[test]
fn device_lost_waits_for_a_move() {
    let mut chunk = having("H");
    let plan = plan_of(chunk.prefetch(Device, BLOCK));
    assert_eq!(chunk.device_lost(), Err(BLOCK));
    chunk.abort(&plan, TakeFrames(BLOCK));
    assert_eq!(chunk.device_lost(), Ok(NONE));
    assert_eq!(chunk.state(0).copies, copies("H"));
}

#[test]
fn a_failed_load_poisons() {
    let mut chunk = having("F");
    let plan = plan_of(chunk.fault(Host, 0, NONE, Read));
    chunk.fail(&plan, BLOCK);
    assert_eq!(chunk.state(0).copies, Copies::Poisoned);
    assert_eq!(chunk.repair(BLOCK), BLOCK);
    assert_eq!(chunk.state(0).copies, Copies::Zero);
}

#[test]
fn a_failed_write_back_leaves_the_block_dirty() {
    let mut chunk = having("H");
    let plan = plan_of(chunk.write_back(BLOCK));
    chunk.abort(&plan, WriteBack(BLOCK));
    assert_eq!(chunk.state(0).copies, copies("H"));
    assert!(chunk.busy().is_empty());
}

#[test]
fn growth_never_crosses_an_allocation() {
    let mut chunk = Chunk::new();
    for (first, count) in [(0, 2), (2, 3), (5, 1)] {
        chunk.allocate(BlockSet::run(first, count), true);
    }
    for side in [Host, Device] {
        let mut chunk = chunk.clone();
        let plan = plan_of(chunk.fault(side, 3, BlockSet::ALL, Write));
        assert_eq!(plan.covers, BlockSet::run(2, 3));
        chunk.commit(&plan);
        assert_eq!(chunk.current(side), BlockSet::run(2, 3));
    }
}

// What follows are rules that the table implies and that are easily broken.

#[test]
fn discard_frees_the_host_frame_too() {
    let gone = [Close(Host, BLOCK), Stale(Host, BLOCK), GiveFrames(Host, BLOCK)];
    row("H", |chunk| chunk.discard(BLOCK), &gone, "0");
}

#[test]
fn a_cpu_read_does_not_unmap_what_a_launch_reads() {
    let mut chunk = having("D");
    hold(&mut chunk, Read);
    let actions = run(&mut chunk, cpu(Read));
    assert!(!actions.contains(&Close(Device, BLOCK)), "unmapped under the launch that holds it: {actions:?}");
    assert!(chunk.open(Device).contains(0));
}

#[test]
fn a_write_back_does_not_unmap_what_a_launch_reads() {
    let mut chunk = having("D");
    hold(&mut chunk, Read);
    let actions = run(&mut chunk, |chunk| chunk.write_back(BLOCK));
    assert!(!actions.contains(&Close(Device, BLOCK)), "unmapped under the launch that holds it: {actions:?}");
}

#[test]
fn a_read_hold_opens_for_no_gpu_write_but_a_fault_is_served() {
    let mut chunk = having("D");
    hold(&mut chunk, Read);
    assert!(chunk.writable(Device).is_empty(), "the first write faults");
    // A fault on a block that is open already: the mapping sets are upper bounds.
    run(&mut chunk, gpu(Read));
    assert!(chunk.writable(Device).is_empty());
    // A kernel that writes what a launch behind it reads must not wait for that launch.
    run(&mut chunk, gpu(Write));
    assert_eq!(chunk.writable(Device), BLOCK);
    chunk.release(BLOCK, Read);
}

#[test]
fn a_pin_makes_the_cpu_the_owner_and_nothing_moves_until_it_ends() {
    let down = [
        Close(Device, BLOCK),
        Copy(Host, BLOCK),
        Stale(Device, BLOCK),
        Open(Host, BLOCK, Write),
        GiveFrames(Device, BLOCK),
    ];
    let mut chunk = row("D", |chunk| chunk.pin(BLOCK), &down, "H");
    run(&mut chunk, |chunk| chunk.pin(BLOCK));
    for _ in 0..2 {
        assert_eq!(chunk.pinned(), BLOCK);
        for access in [Read, Write] {
            assert_waits(chunk.fault(Device, 0, NONE, access));
            assert_waits(chunk.acquire(BLOCK, access, false));
        }
        assert!(!chunk.can_hold(BLOCK, NONE, NONE) && !chunk.can_hold(NONE, BLOCK, NONE));
        assert_waits(chunk.prefetch(Device, BLOCK));
        assert_waits(chunk.discard(BLOCK));
        assert_waits(chunk.write_back(BLOCK));
        run(&mut chunk, cpu(Write));
        chunk.unpin(BLOCK);
    }
    run(&mut chunk, gpu(Write));
    hold(&mut chunk, Read);
    assert_waits(chunk.pin(BLOCK));
}

/// A chunk whose block 0 is on the device alone, with a host frame that is blank and known to be.
fn with_blank_host_frame() -> Chunk {
    let mut chunk = Chunk::new();
    chunk.host_blanked(BLOCK);
    chunk.allocate(BLOCK, true);
    hold(&mut chunk, Write);
    chunk.release(BLOCK, Write);
    chunk
}

#[test]
fn a_failed_write_back_leaves_data_in_a_frame_no_longer_blank() {
    let mut chunk = with_blank_host_frame();
    let plan = plan_of(chunk.write_back(BLOCK));
    assert!(plan.actions().contains(&Copy(Host, BLOCK)), "by the time that the write fails, the copy is made");
    chunk.abort(&plan, WriteBack(BLOCK));
    run(&mut chunk, |chunk| chunk.discard(BLOCK));
    assert!(run(&mut chunk, cpu(Read)).contains(&Zero(Host, BLOCK)), "the copy would be read for zeros");
}

#[test]
fn a_failed_load_leaves_data_in_a_frame_no_longer_blank() {
    for lost in [NONE, BLOCK] {
        let mut chunk = with_blank_host_frame();
        run(&mut chunk, |chunk| chunk.write_back(BLOCK));
        run(&mut chunk, |chunk| chunk.evict(BLOCK));
        run(&mut chunk, |chunk| chunk.drop_host(BLOCK));
        let plan = plan_of(chunk.fault(Host, 0, NONE, Read));
        chunk.fail(&plan, lost);
        chunk.repair(BLOCK);
        if lost.is_empty() {
            run(&mut chunk, |chunk| chunk.discard(BLOCK));
        }
        assert!(run(&mut chunk, cpu(Read)).contains(&Zero(Host, BLOCK)));
    }
}
