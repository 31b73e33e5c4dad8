//! Processes that end, fork, are interrupted, and share devices: none sees another's data, none leaves anything behind.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::child::{Child, in_child, signal_of};
use common::memory::{Memory, PAGE, page_bytes, word_at};
use common::{device, freed_to, open, until};
use limosa_guest::host;
use limosa_os::shim::uapi::{LIMOSA_INFO, LIMOSA_MIGRATE, LIMOSA_PLACE_PRIVATE, limosa_info, limosa_migrate};
use limosa_os::shim::{Place, Policy, Scope, Shim, ShimError};

#[test]
fn a_process_that_exits_gives_its_device_memory_back() {
    let shim = device();
    let before = shim.info().unwrap();
    in_child(|_| {
        let own = device();
        for memory in [Memory::pages(500), Memory::huge(2)] {
            memory.fill(1);
            own.migrate(memory.range(), Place::Private).unwrap();
            std::mem::forget(memory);
        }
        std::mem::forget(own);
    });
    freed_to(&shim, &before);
}

#[test]
fn a_process_that_execs_gives_its_device_memory_back() {
    let shim = device();
    let before = shim.info().unwrap();
    let child = Child::start(|_| {
        let (own, memory) = (device(), Memory::huge(2));
        memory.fill(1);
        own.migrate(memory.range(), Place::Private).unwrap();
        let view = own.view(memory.range(), Policy::Migrate).unwrap();
        word_at(view.range().start).load(Ordering::Relaxed);
        let error = std::process::Command::new("true").exec();
        panic!("{error}");
    });
    child.succeeds();
    freed_to(&shim, &before);
}

#[test]
fn a_file_that_goes_through_exec_speaks_of_no_memory() {
    // This very program is started anew, and asks through the file that it was left.
    const LEFT: &str = "LIMOSA_SELFTEST_FILE";
    if let Ok(left) = std::env::var(LEFT) {
        // SAFETY: the descriptor was left open for this process.
        let shim = unsafe { BorrowedFd::borrow_raw(left.parse().unwrap()) };
        let mut info = limosa_info { size: 64, ..Default::default() };
        // SAFETY: the request's own struct.
        let result = unsafe { libc::ioctl(shim.as_raw_fd(), LIMOSA_INFO.into(), &raw mut info) };
        assert_eq!((result, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)));
        return;
    }
    let shim = device();
    // SAFETY: a descriptor of our own, which is to be left open.
    assert_eq!(unsafe { libc::fcntl(shim.as_fd().as_raw_fd(), libc::F_SETFD, 0) }, 0);
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "a_file_that_goes_through_exec_speaks_of_no_memory"]);
    again.env(LEFT, shim.as_fd().as_raw_fd().to_string());
    assert!(again.status().unwrap().success());
}

#[test]
fn a_child_may_not_speak_through_its_parents_file() {
    let shim = device();
    let memory = Memory::pages(16);
    memory.fill(1);
    shim.migrate(memory.range(), Place::Private).unwrap();
    let view = shim.view(memory.range(), Policy::Map).unwrap();
    in_child(|_| {
        let other = |error: ShimError| assert!(matches!(error, ShimError::OtherProcess), "{error}");
        other(shim.info().unwrap_err());
        other(shim.limit(0).unwrap_err());
        other(shim.counters(Scope::Device).unwrap_err());
        other(shim.residency(memory.range()).unwrap_err());
        other(shim.migrate(memory.range(), Place::System).unwrap_err().cause);
        other(shim.view(memory.range(), Policy::Map).unwrap_err());
        other(view.set_policy(memory.range(), Policy::Migrate).unwrap_err());
        // A file of its own speaks of its own memory.
        let own = device();
        memory.is_in(&own, Some(Place::Private));
        own.migrate(memory.range(), Place::System).unwrap();
        memory.check(1);
    });
    assert_eq!(shim.info().unwrap().limit, device().info().unwrap().limit);
    memory.check(1);
}

#[test]
fn several_processes_on_several_devices_keep_their_own_data() {
    let devices = [open(0), open(1)];
    let before = devices.each_ref().map(|shim| shim.info().unwrap());
    let children: Vec<Child> = (0..4u64)
        .map(|number| {
            Child::start(move |_| {
                let own = [open(0), open(1)];
                let (small, huge) = (Memory::pages(300), Memory::huge(1));
                for round in 0..12 {
                    let seed = number << 32 | round;
                    let shim = &own[usize::try_from(round % 2).unwrap()];
                    for memory in [&small, &huge] {
                        memory.fill(seed);
                        shim.migrate(memory.range(), Place::Private).unwrap();
                        if round % 3 == 0 {
                            shim.migrate(memory.range(), Place::System).unwrap();
                        }
                        memory.check(seed);
                    }
                }
            })
        })
        .collect();
    children.into_iter().for_each(Child::succeeds);
    devices.iter().zip(&before).for_each(|(shim, before)| freed_to(shim, before));
}

#[test]
fn device_memory_handed_out_holds_nothing_of_another_process() {
    // All of the smaller device, so that every byte of it was the other's.
    let shim = open(1);
    let all = usize::try_from(shim.info().unwrap().private.free).unwrap() / PAGE;
    let before = shim.info().unwrap();
    in_child(|_| {
        let memory = Memory::pages(all);
        memory.fill(0xdead);
        assert_eq!(open(1).migrate(memory.range(), Place::Private).unwrap().moved, all as u64);
    });
    freed_to(&shim, &before);
    let memory = Memory::pages(all);
    assert_eq!(shim.migrate(memory.range(), Place::Private).unwrap().moved, all as u64);
    // In the memory itself, at some places, and through the CPU everywhere.
    let secret = page_bytes(0xdead, 0)[..8].to_vec();
    let step = (before.private.bytes / 16).next_multiple_of(PAGE as u64);
    for offset in (0..before.private.bytes).step_by(usize::try_from(step).unwrap()) {
        let bytes = host::vram(1, offset, 1 << 16).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "at {offset:#x} of the device is {:x?}", &bytes[..16]);
        assert_ne!(bytes[..8], secret);
    }
    memory.check_zero();
}

static TICKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn tick(_: i32) {
    TICKS.fetch_add(1, Ordering::SeqCst);
}

/// Interrupts the system calls of `thread` about each millisecond, until `done`.
fn interrupt_often(thread: libc::pthread_t, done: &AtomicBool) {
    // SAFETY: the handler only counts; without SA_RESTART system calls are interrupted.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(i32) = tick;
        action.sa_sigaction = handler as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    while !done.load(Ordering::Relaxed) {
        // SAFETY: the thread is there until it has said that it is done.
        unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_signal_stops_a_move_with_a_cursor_from_which_it_goes_on() {
    const PAGES: usize = 16 << 10;
    let shim = device();
    let memory = Memory::pages(PAGES);
    let done = AtomicBool::new(false);
    // SAFETY: a question about this thread.
    let here = unsafe { libc::pthread_self() };
    std::thread::scope(|scope| {
        scope.spawn(|| interrupt_often(here, &done));
        let interrupted = move_by_hand(&shim, &memory);
        // The client goes on by itself.
        let back = shim.migrate(memory.range(), Place::System).unwrap();
        let states = shim.residency(memory.range()).unwrap().states;
        done.store(true, Ordering::Relaxed);
        assert!(interrupted > 0, "{} signals and no EINTR", TICKS.load(Ordering::SeqCst));
        assert_eq!((back.moved, back.left, states.len()), (PAGES as u64, 0, PAGES));
    });
}

/// Moves all of `memory` by raw calls, each from where the last one stopped; how many stopped.
fn move_by_hand(shim: &Shim, memory: &Memory) -> u32 {
    let (mut interrupted, mut moved, mut at) = (0, 0, memory.range().start.0);
    let end = at + memory.range().len;
    while at < end {
        let place = LIMOSA_PLACE_PRIVATE;
        let mut migrate = limosa_migrate { size: 64, addr: at, len: end - at, to: place, ..Default::default() };
        // SAFETY: the request's own struct; it moves memory of the test's own.
        let result = unsafe { libc::ioctl(shim.as_fd().as_raw_fd(), LIMOSA_MIGRATE.into(), &raw mut migrate) };
        if result != 0 {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR));
            assert!(migrate.cursor > at && migrate.cursor < end, "{:#x} of {at:#x} to {end:#x}", migrate.cursor);
            interrupted += 1;
        }
        assert_eq!(migrate.moved + migrate.left, (migrate.cursor - at) / PAGE as u64);
        moved += migrate.moved;
        at = migrate.cursor;
    }
    assert_eq!(moved, memory.page_count() as u64);
    interrupted
}

#[test]
fn a_process_killed_in_the_middle_of_anything_leaves_nothing_behind() {
    let shim = device();
    let before = shim.info().unwrap();
    for round in 0..24u32 {
        let mut child = Child::start(|parent| {
            let own = device();
            let memory = if round % 2 == 0 { Memory::pages(4096) } else { Memory::huge(8) };
            let view = own.view(memory.range(), Policy::Migrate).unwrap();
            memory.fill_part(0, 64, 1);
            parent.tell();
            loop {
                own.migrate(memory.range(), Place::Private).unwrap();
                memory.check_part(0, 64, 1);
                word_at(view.range().start).load(Ordering::Relaxed);
                own.migrate(memory.range(), Place::System).unwrap();
            }
        });
        child.wait();
        // At another moment each time.
        (0..round * 2000).for_each(|_| std::hint::spin_loop());
        child.kill();
        assert_eq!(child.ended(), Err(libc::SIGKILL));
    }
    freed_to(&shim, &before);
}

#[test]
fn threads_that_move_memory_to_and_fro_lose_no_write_of_others() {
    const PAGES: usize = 256;
    const ADDITIONS: u64 = 10_000;
    let shim = device();
    for memory in [Memory::pages(PAGES), Memory::huge(1)] {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let movers: Vec<_> = [Place::Private, Place::System]
                .into_iter()
                .map(|to| {
                    let (shim, memory, done) = (&shim, &memory, &done);
                    scope.spawn(move || {
                        while !done.load(Ordering::Relaxed) {
                            shim.migrate(memory.range(), to).unwrap();
                        }
                    })
                })
                .collect();
            let adders: Vec<_> = (0..2u64)
                .map(|number| {
                    let memory = &memory;
                    scope.spawn(move || {
                        for i in 0..ADDITIONS {
                            let page = usize::try_from((i * 7 + number * 3) % PAGES as u64).unwrap();
                            memory.word(page, 0).fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            adders.into_iter().for_each(|thread| thread.join().unwrap());
            done.store(true, Ordering::Relaxed);
            movers.into_iter().for_each(|thread| thread.join().unwrap());
        });
        let sum: u64 = (0..PAGES).map(|page| memory.word(page, 0).load(Ordering::Relaxed)).sum();
        assert_eq!(sum, 2 * ADDITIONS);
    }
}

#[test]
fn a_view_is_not_where_a_child_could_use_it() {
    let shim = device();
    let memory = Memory::pages(16);
    memory.fill(1);
    let view = shim.view(memory.range(), Policy::Map).unwrap();
    let address = view.range().start;
    assert_eq!(word_at(address).load(Ordering::Relaxed), memory.word(0, 0).load(Ordering::Relaxed));
    let touch = || {
        word_at(address).load(Ordering::Relaxed);
    };
    assert_eq!(signal_of(touch), Some(libc::SIGSEGV));
    until("the view works in the parent", || word_at(address).load(Ordering::Relaxed) != 0);
}
