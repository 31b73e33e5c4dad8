//! What happens around a heap in its process: children, panics, contexts that come and go, other people's signals.

#![cfg(feature = "inject")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::builder;
use common::failure::{BLOCK_WORDS, Kit, MIB, child, is_child, no_core, told, turn};
use limosa::{ContextBuilder, Error, FaultMode, OsError, PagerError, Side, UnifiedVec};

const MODES: [FaultMode; 2] = [FaultMode::HandlerThread, FaultMode::InThread];

fn small() -> ContextBuilder {
    builder().heap_size(256 * MIB).device_budget(64 * MIB)
}

/// Does `act` while CPU threads fault on some memory and a kernel on other; then everything must be right.
fn with_faults_going_on(kit: &Kit, act: impl FnOnce()) {
    let mut filled = kit.heap().vec_zeroed::<u32>(2 << 20).unwrap();
    let mut swept: Vec<UnifiedVec<u32>> =
        (0..3).map(|_| kit.heap().vec_zeroed::<u32>(16 * BLOCK_WORDS).unwrap()).collect();
    let going = AtomicBool::new(true);
    let rounds = std::thread::scope(|scope| {
        let going = &going;
        let sweep = |vec: &mut UnifiedVec<u32>| {
            let mut rounds = 0;
            while going.load(Ordering::Relaxed) || rounds == 0 {
                rounds += 1;
                vec.prefetch_to_device().unwrap();
                vec.write().unwrap().chunks_mut(BLOCK_WORDS).for_each(|block| block[7] += 1);
            }
            rounds
        };
        let sweepers: Vec<_> = swept.iter_mut().map(|vec| scope.spawn(move || sweep(vec))).collect();
        let filler = scope.spawn(|| {
            let mut rounds = 0;
            while going.load(Ordering::Relaxed) || rounds == 0 {
                rounds += 1;
                kit.fill(&mut filled, rounds).unwrap().wait().unwrap();
                assert!(filled.read().unwrap().iter().all(|word| *word == rounds));
            }
        });
        // Whatever `act` does, the threads end.
        let acted = catch_unwind(AssertUnwindSafe(act));
        going.store(false, Ordering::Relaxed);
        filler.join().unwrap();
        let rounds: Vec<u32> = sweepers.into_iter().map(|sweeper| sweeper.join().unwrap()).collect();
        acted.unwrap_or_else(|panic| resume_unwind(panic));
        rounds
    });
    for (vec, rounds) in swept.iter().zip(rounds) {
        assert!(vec.read().unwrap().chunks(BLOCK_WORDS).all(|block| block[7] == rounds));
    }
}

#[test]
fn commands_can_be_spawned_while_faults_go_on_and_inherit_nothing() {
    let _turn = turn("spawn");
    let files = || {
        let output = Command::new("ls").arg("/proc/self/fd").stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let without = files();
    for mode in MODES {
        let Some(kit) = Kit::new("spawn", small().fault_mode(mode)) else { return };
        with_faults_going_on(&kit, || {
            for _ in 0..20 {
                assert!(Command::new("true").status().unwrap().success());
            }
            assert_eq!(files(), without);
            // With a step between fork and exec the standard library takes the slow way: a real fork.
            let mut shell = Command::new("sh");
            shell.args(["-c", "exit 3"]);
            // SAFETY: the closure does nothing.
            unsafe { std::os::unix::process::CommandExt::pre_exec(&mut shell, || Ok(())) };
            assert_eq!(shell.status().unwrap().code(), Some(3));
        });
        kit.works();
    }
}

#[test]
fn a_forked_child_has_no_heap_and_its_parent_does_not_mind() {
    let _turn = turn("fork");
    for mode in MODES {
        let Some(kit) = Kit::new("fork", small().fault_mode(mode)) else { return };
        let mut data = kit.heap().vec_with(BLOCK_WORDS, |_| 5u32).unwrap();
        let open = data.ptr(0).as_ptr();
        let mut closed = kit.heap().vec_with(BLOCK_WORDS, |_| 6u32).unwrap();
        kit.fill(&mut closed, 8).unwrap().wait().unwrap();
        let device = kit.heap().device_range().unwrap().start.0 as *mut u32;
        let targets = [open, closed.ptr(0).as_ptr(), device];
        with_faults_going_on(&kit, || {
            for word in targets {
                // SAFETY: the child calls only what is allowed after fork: it sets a limit, touches and ends.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    no_core();
                    // SAFETY: an address that the parent has mapped; here it is to end the process.
                    unsafe {
                        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                        word.read_volatile();
                        libc::_exit(0);
                    }
                }
                let mut status = 0;
                // SAFETY: waits for the child made above.
                assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
                assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV, "{status:#x}");
            }
        });
        data.write().unwrap()[0] = 9;
        assert_eq!((data.read().unwrap()[0], closed.read().unwrap()[1]), (9, 8));
        kit.works();
    }
}

#[test]
fn a_panic_between_launch_and_wait_harms_nobody() {
    let _turn = turn("panic");
    let Some(kit) = Kit::new("panic", builder()) else { return };
    for _ in 0..3 {
        let panicked = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut vec = kit.heap().vec_zeroed::<u32>(4 << 20).unwrap();
                let queue = kit.context.queue().unwrap();
                let _event = kit.fill_on(&queue, &mut vec, 1).unwrap();
                // Unlike panic!, without a message for the log.
                resume_unwind(Box::new("as meant"));
            });
            thread.join()
        });
        assert!(panicked.is_err());
        kit.works();
    }
    // The context itself unwound, with all that was made of it.
    let panicked = catch_unwind(|| {
        let kit = Kit::new("panic", small()).unwrap();
        let mut vec = kit.heap().vec_zeroed::<u32>(4 << 20).unwrap();
        let _event = kit.fill(&mut vec, 1).unwrap();
        resume_unwind(Box::new("as meant"));
    });
    assert!(panicked.is_err());
    kit.works();
}

#[test]
fn a_panic_with_guards_held_leaves_the_data_usable() {
    let _turn = turn("guards");
    let Some(kit) = Kit::new("guards", builder()) else { return };
    let mut vec = kit.heap().vec_with(BLOCK_WORDS, |_| 1u32).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut words = vec.write().unwrap();
        words[0] = 2;
        resume_unwind(Box::new("as meant"));
    }));
    assert!(panicked.is_err());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _words = vec.read().unwrap();
        resume_unwind(Box::new("as meant"));
    }));
    assert!(panicked.is_err());
    // A panic in the closure that makes the elements gives the memory back.
    let before = kit.heap().host_bytes();
    for _ in 0..20 {
        let made = catch_unwind(AssertUnwindSafe(|| {
            kit.heap().vec_with(4 << 20, |i| if i < 9 { 0u32 } else { resume_unwind(Box::new("as meant")) })
        }));
        assert!(made.is_err());
    }
    assert!(kit.heap().host_bytes() <= before + 16 * MIB, "{}", kit.heap().host_bytes());
    assert_eq!(kit.sum(&vec).unwrap(), BLOCK_WORDS as u64 + 1);
    vec.write().unwrap()[0] = 1;
    assert_eq!(kit.sum(&vec).unwrap(), BLOCK_WORDS as u64);
}

#[test]
fn contexts_can_be_dropped_with_launches_in_flight() {
    let _turn = turn("in flight");
    for order in 0..5 {
        let Some(kit) = Kit::new("in flight", small()) else { return };
        let mut vec = kit.heap().vec_zeroed::<u32>(8 << 20).unwrap();
        let events: Vec<_> = (0..4).map(|i| kit.fill(&mut vec, i).unwrap()).collect();
        let Kit { queue, fill, copy, reduce, context } = kit;
        drop((copy, reduce));
        match order {
            0 => drop((context, queue, vec, events, fill)),
            1 => drop((vec, events, fill, queue, context)),
            2 => drop((events, fill, context, vec, queue)),
            3 => drop((queue, context, fill, vec, events)),
            _ => {
                drop((context, queue, fill, events));
                // Kept alive by itself alone.
                assert!(vec.read().unwrap().iter().all(|word| *word == 3));
            }
        }
    }
}

/// Descriptors, threads and mappings of this process.
fn held() -> [usize; 3] {
    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    [count("/proc/self/fd"), count("/proc/self/task"), maps]
}

#[test]
fn contexts_that_come_and_go_leave_nothing_behind() {
    let _turn = turn("leaks");
    let Some(_) = common::context("leaks", small()) else { return };
    let round = |mode| {
        let kit = Kit::new("leaks", small().fault_mode(mode)).unwrap();
        kit.works();
        // With something in every state, also a stray touch.
        let gone = kit.heap().vec_with(BLOCK_WORDS, |_| 1u32).unwrap();
        let address = gone.ptr(0).address();
        drop(gone);
        assert!(kit.sum_at(address + 4 * MIB, 8).is_err());
    };
    for mode in MODES {
        round(mode);
    }
    let before = held();
    for _ in 0..12 {
        MODES.into_iter().for_each(round);
    }
    let after = held();
    assert_eq!(before[..2], after[..2], "descriptors and threads");
    assert!(after[2] <= before[2] + 8, "mappings: {} became {}", before[2], after[2]);
}

#[test]
fn contexts_live_beside_each_other() {
    let _turn = turn("two");
    let Some(first) = Kit::new("two", small()) else { return };
    let second = Kit::new("two", small().fault_mode(FaultMode::InThread)).unwrap();
    let third = Kit::new("two", small().fault_mode(FaultMode::InThread)).unwrap();
    let kits = [&first, &second, &third];
    std::thread::scope(|scope| {
        for kit in kits {
            scope.spawn(move || with_faults_going_on(kit, || (0..5).for_each(|_| kit.works())));
        }
    });
    let mut ranges: Vec<_> = kits.iter().map(|kit| kit.heap().range()).collect();
    ranges.sort_by_key(|range| range.start.0);
    assert!(ranges.windows(2).all(|pair| pair[0].start.0 + pair[0].len <= pair[1].start.0));
    drop(second);
    first.works();
    third.works();
    // One heap does not take the other's memory for its own.
    let vec = first.heap().vec_zeroed::<u32>(9).unwrap();
    assert!(third.heap().residency(vec.ptr(0).address(), 4).is_err());
}

#[test]
fn too_many_heaps_with_signals_are_refused_by_name() {
    let _turn = turn("too many");
    let tiny = || builder().heap_size(32 * MIB).device_budget(16 * MIB).fault_mode(FaultMode::InThread);
    let Some(first) = Kit::new("too many", tiny()) else { return };
    let mut contexts = Vec::new();
    let error = loop {
        match tiny().build() {
            Ok(context) => contexts.push(context),
            Err(error) => break error,
        }
        assert!(contexts.len() < 100);
    };
    let text = error.to_string();
    let Error::Pager(PagerError::Os(OsError::TooManySignalHeaps { limit })) = error else { panic!("{text}") };
    assert_eq!(limit, contexts.len() + 1);
    assert!(text.contains(&limit.to_string()) && text.contains("handler thread"), "{text}");
    first.works();
    contexts.pop();
    Kit::of(tiny().build().unwrap()).works();
    common::context("too many", tiny().fault_mode(FaultMode::HandlerThread)).unwrap();
}

/// A page behind the end of a file: touching it raises a SIGBUS that has nothing to do with limosa.
fn foreign_page() -> *mut u8 {
    // SAFETY: an empty file of ours, mapped at an address of the kernel's choice.
    unsafe {
        let file = libc::memfd_create(c"foreign".as_ptr(), libc::MFD_CLOEXEC);
        let page =
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file, 0);
        assert!(file >= 0 && page != libc::MAP_FAILED);
        page.cast()
    }
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// The application's handler: puts memory where it was missing.
extern "C" fn repairs(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the kernel passes valid information; the page is the one of `foreign_page`.
    unsafe {
        let page = ((*info).si_addr().addr() & !4095) as *mut libc::c_void;
        libc::mmap(page, 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
    }
}

/// An application's handler of the old kind.
extern "C" fn leaves(_: libc::c_int) {
    // SAFETY: allowed in a signal handler.
    unsafe { libc::_exit(77) };
}

fn install(handler: usize, flags: libc::c_int) {
    // SAFETY: all-zero bytes are a valid action; the handler is of the kind that the flags say.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()), 0);
    }
}

#[test]
fn a_foreign_sigbus_goes_to_whom_it_went_before() {
    const TEST: &str = "a_foreign_sigbus_goes_to_whom_it_went_before";
    let _turn = turn(TEST);
    let cases = ["repairs", "leaves", "ignores", "none"];
    if let Some(case) = cases.into_iter().find(|case| is_child(case)) {
        no_core();
        match case {
            "repairs" => install(repairs as *const () as usize, libc::SA_SIGINFO),
            "leaves" => install(leaves as *const () as usize, 0),
            "ignores" => install(libc::SIG_IGN, 0),
            _ => {}
        }
        let Some(kit) = Kit::new(TEST, small().fault_mode(FaultMode::InThread)) else { return };
        kit.works();
        for calls in 1..4 {
            // SAFETY: a page of ours, which the handler makes usable.
            unsafe { foreign_page().write_volatile(5) };
            assert_eq!(CALLS.load(Ordering::Relaxed), calls);
            kit.works();
        }
        println!("served both");
        return;
    }
    let Some(_) = common::context(TEST, small()) else { return };
    for case in cases {
        let output = child(TEST, case, |_| ());
        let text = told(&output);
        match case {
            "repairs" => assert!(output.status.success() && text.contains("served both"), "{text}"),
            "leaves" => assert_eq!(output.status.code(), Some(77), "{text}"),
            _ => assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{case}: {text}"),
        }
    }
}

#[test]
fn a_cpu_touch_of_what_is_not_allocated_ends_by_sigbus_with_the_cause() {
    const TEST: &str = "a_cpu_touch_of_what_is_not_allocated_ends_by_sigbus_with_the_cause";
    let _turn = turn(TEST);
    let cases = ["thread freed", "thread never", "signal freed", "signal never"];
    if let Some(case) = cases.into_iter().find(|case| is_child(case)) {
        no_core();
        let mode = if case.starts_with("thread") { MODES[0] } else { MODES[1] };
        let Some(kit) = Kit::new(TEST, small().fault_mode(mode)) else { return };
        let gone = kit.heap().vec_with(BLOCK_WORDS, |_| 1u32).unwrap();
        let freed = gone.ptr(0).as_ptr();
        gone.raw().prefetch(Side::Device).unwrap();
        drop(gone);
        let range = kit.heap().range();
        let word = if case.ends_with("freed") { freed } else { (range.start.0 + range.len - 4) as *mut u32 };
        // SAFETY: it is to end the process.
        println!("survived, and read {}", unsafe { word.read_volatile() });
        return;
    }
    let Some(_) = common::context(TEST, small()) else { return };
    for case in cases {
        let output = child(TEST, case, |_| ());
        let text = told(&output);
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{case}: {text}");
        assert!(text.contains("limosa: a CPU thread read 0x") && text.contains("not allocated"), "{case}: {text}");
    }
}
