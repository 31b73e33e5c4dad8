//! Allocations of the module's that fail: each in its turn, and many at random. What was refused is told, what was moved is
//! counted, nothing is lost or kept, and all goes on when memory is there again. It needs a kernel with fault injection.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use common::memory::{Memory, PAGE, word_at};
use common::{Setting, Since, open, skip};
use limosa_guest::device::{Device, list};
use limosa_model::HostRange;
use limosa_os::shim::uapi::{LIMOSA_VIEW, limosa_view};
use limosa_os::shim::{MigrateError, Migrated, Place, Policy, Shim, ShimError};

/// The kernel's folders of what can fail: the module's own pages, and everybody's allocations and copies from and to
/// user space.
const OURS: &str = "/sys/kernel/debug/limosa/limosa_fail_alloc";
const EVERYBODYS: [&str; 3] =
    ["/sys/kernel/debug/failslab", "/sys/kernel/debug/fail_page_alloc", "/sys/kernel/debug/fail_usercopy"];

/// Whether this kernel can; skips the test where it cannot.
fn can_inject(test: &str) -> bool {
    let can = Path::new(OURS).exists();
    if !can {
        skip(test, "fault injection", "this kernel has none: `cargo xtask guest --debug-kernel` has");
    }
    can
}

/// Settings, restored the other way round: the last one set is what turns injection on.
struct Injection(Vec<Setting>);

impl Injection {
    /// One allocation of the module's own in so many percent fails.
    fn at_random(percent: u32) -> Self {
        let mut injection = Self::quiet(OURS);
        injection.set(OURS, "interval", "1");
        injection.set(OURS, "times", "-1");
        injection.set(OURS, "probability", &percent.to_string());
        injection
    }

    /// None fails but those that a [`Nth`] names: of the module's own, and of all that its calls make.
    fn for_nth() -> Self {
        let mut injection = Self::quiet(OURS);
        for kind in EVERYBODYS {
            injection.set(kind, "verbose", "0");
            for filter in ["ignore-gfp-wait", "ignore-gfp-highmem"] {
                injection.set(kind, filter, "N");
            }
            injection.set(kind, "min-order", "0");
        }
        injection
    }

    fn quiet(kind: &str) -> Self {
        let mut injection = Self(Vec::new());
        injection.set(kind, "verbose", "0");
        injection
    }

    /// Sets what this kind has; not each kind has everything.
    fn set(&mut self, kind: &str, name: &str, value: &str) {
        let path = format!("{kind}/{name}");
        if Path::new(&path).exists() {
            self.0.push(Setting::set(&path, value));
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

/// This thread's next allocation but so many fails, until this is dropped.
struct Nth(File);

impl Nth {
    fn new() -> Self {
        Self(OpenOptions::new().read(true).write(true).open("/proc/thread-self/fail-nth").unwrap())
    }

    /// What `call` gives with its `nth` allocation failing; whether it made so many.
    fn fails<T>(&mut self, nth: u32, call: impl FnOnce() -> T) -> (T, bool) {
        let text = nth.to_string();
        self.0.write_all_at(text.as_bytes(), 0).unwrap();
        let result = call();
        let mut left = [0; 16];
        // To ask allocates, too: that it fails says that there were fewer.
        let read = self.0.read_at(&mut left, 0);
        self.off();
        (result, read.is_ok() && left[0] == b'0')
    }

    fn off(&self) {
        // The write itself may be what fails; then nothing is left to fail.
        while self.0.write_all_at(b"0", 0).is_err() {}
    }
}

impl Drop for Nth {
    fn drop(&mut self) {
        self.off();
    }
}

/// An error that a refused allocation or copy may come to.
fn refused(error: &ShimError) {
    let expected = matches!(error, ShimError::DeviceFull | ShimError::OutOfMemory | ShimError::NotMapped { .. });
    // EFAULT of a call that names no range: its struct could not be copied.
    let uncopied = matches!(error, ShimError::Failed { source, .. } if source.raw_os_error() == Some(libc::EFAULT));
    assert!(expected || uncopied, "{error}");
}

/// A device whose memory nobody uses, some memory on it or not, and what must hold of both.
struct Bench<'a> {
    shim: &'a Shim,
    memory: Memory,
    free: u64,
    refusals: u64,
}

impl<'a> Bench<'a> {
    fn new(shim: &'a Shim, memory: Memory) -> Self {
        memory.fill(1);
        Self { shim, memory, free: shim.info().unwrap().private.free, refusals: 0 }
    }

    /// Pages on the device: as residency, the file's share and the device's free memory tell alike.
    fn on_device(&self) -> u64 {
        let pages = self.shim.residency(self.memory.range()).unwrap().pages;
        let info = self.shim.info().unwrap();
        assert_eq!((pages.private + pages.system, pages.absent), (self.memory.page_count() as u64, 0));
        assert_eq!((info.used, self.free - info.private.free), (pages.private * PAGE as u64, info.used));
        pages.private
    }

    /// That a move from `before` pages on the device told what it did; how many it moved.
    fn told(&mut self, before: u64, to: Place, result: Result<Migrated, MigrateError>) -> u64 {
        let after = self.on_device();
        let done = match result {
            Ok(done) => done,
            Err(error) => {
                refused(&error.cause);
                self.refusals += 1;
                // The answer itself could not be copied: what it would have told is not known.
                if matches!(error.cause, ShimError::NotMapped { .. }) {
                    return before.abs_diff(after);
                }
                error.done
            }
        };
        assert_eq!(done.moved, if to == Place::Private { after - before } else { before - after }, "{done:?}");
        done.moved
    }

    /// Moves all, whatever is refused.
    fn migrate(&mut self, to: Place) -> u64 {
        let before = self.on_device();
        let result = self.shim.migrate(self.memory.range(), to);
        self.told(before, to, result)
    }

    /// Without injection: all there is works, and nothing was kept.
    fn works(&mut self) {
        self.memory.check(1);
        let pages = self.memory.page_count() as u64;
        for to in [Place::System, Place::Private] {
            self.shim.migrate(self.memory.range(), to).unwrap();
        }
        assert_eq!(self.on_device(), pages);
        self.memory.check(1);
        self.shim.migrate(self.memory.range(), Place::System).unwrap();
        assert_eq!((self.on_device(), self.shim.info().unwrap().private.free), (0, self.free));
    }
}

#[test]
fn whichever_allocation_of_a_move_fails_it_says_how_far_it_came() {
    if !can_inject("whichever_allocation_of_a_move_fails_it_says_how_far_it_came") {
        return;
    }
    let shim = open(1);
    for memory in [Memory::pages(24), Memory::huge(1)] {
        let mut bench = Bench::new(&shim, memory);
        for to in [Place::Private, Place::System] {
            let from = if to == Place::Private { Place::System } else { Place::Private };
            let (mut nth, refusals) = (1, bench.refusals);
            loop {
                bench.shim.migrate(bench.memory.range(), from).unwrap();
                let before = bench.on_device();
                let injection = Injection::for_nth();
                let range = bench.memory.range();
                let (result, made) = Nth::new().fails(nth, || shim.migrate(range, to));
                drop(injection);
                bench.told(before, to, result);
                if !made || nth >= 100 {
                    break;
                }
                nth += 1;
            }
            assert!(nth > 1 && bench.refusals > refusals, "{nth} to {to:?}: {} refusals", bench.refusals);
            println!("to {to:?}: {nth} allocations, {} refusals", bench.refusals - refusals);
        }
        bench.works();
    }
}

/// The view's file alone: no failing call but the module's own.
fn view(shim: &Shim, range: HostRange) -> io::Result<OwnedFd> {
    let size = u32::try_from(size_of::<limosa_view>()).unwrap();
    let mut view = limosa_view { size, addr: range.start.0, len: range.len, fd: -1, ..Default::default() };
    // SAFETY: the request's own struct.
    let result = unsafe { libc::ioctl(shim.as_fd().as_raw_fd(), LIMOSA_VIEW.into(), &raw mut view) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(view.fd) })
}

#[test]
fn whichever_allocation_of_a_question_or_a_view_fails_it_is_told_and_nothing_is_kept() {
    if !can_inject("whichever_allocation_of_a_question_or_a_view_fails_it_is_told_and_nothing_is_kept") {
        return;
    }
    let shim = open(1);
    let mut bench = Bench::new(&shim, Memory::pages(300));
    assert_eq!(bench.migrate(Place::Private), 300);
    let expected = shim.residency(bench.memory.range()).unwrap();
    let files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (mut refusals, open_files, range) = (0, files(), bench.memory.range());
    for nth in 1..60 {
        let injection = Injection::for_nth();
        let (answer, _) = Nth::new().fails(nth, || shim.residency(range));
        let (made, _) = Nth::new().fails(nth, || view(&shim, range));
        drop(injection);
        match answer {
            Ok(answer) => assert_eq!(answer, expected),
            Err(error) => refused(&error),
        }
        if let Err(error) = &made {
            let told = error.raw_os_error();
            assert!([libc::ENOMEM, libc::EFAULT, libc::EMFILE, libc::ENFILE].map(Some).contains(&told), "{error}");
            refusals += 1;
        }
        drop(made);
        assert_eq!((files(), bench.on_device()), (open_files, 300));
    }
    assert!(refusals > 0);
    println!("{refusals} views were refused");
    bench.works();
}

#[test]
fn moves_and_touches_of_both_sides_lose_nothing_while_memory_fails_at_random() {
    if !can_inject("moves_and_touches_of_both_sides_lose_nothing_while_memory_fails_at_random") {
        return;
    }
    let shim = open(1);
    for memory in [Memory::pages(200), Memory::huge(2)] {
        let mut bench = Bench::new(&shim, memory);
        let view = shim.view(bench.memory.range(), Policy::Migrate).unwrap();
        let since = Since::now(&shim);
        let (mut up, mut down) = (0, 0);
        let injection = Injection::at_random(20);
        for round in 0..20 {
            up += bench.migrate(Place::Private);
            // A touch that finds no memory for its page comes again until there is some.
            for page in (round % 7..bench.memory.page_count()).step_by(7) {
                let through = word_at(view.address_of(bench.memory.part(page, 1).start).unwrap());
                assert_eq!(through.load(Ordering::Relaxed), bench.memory.word(page, 0).load(Ordering::Relaxed));
            }
            bench.memory.check_part(0, 40, 1);
            down += bench.migrate(Place::System);
        }
        drop(injection);
        let counted = since.counted();
        assert!(bench.refusals > 0, "nothing was refused");
        assert_eq!(counted.pages_to_device, up + counted.gpu_pages_moved);
        assert_eq!(counted.pages_to_system, down + counted.cpu_fault_pages);
        assert_eq!(counted.pages_to_device - counted.pages_to_system, bench.on_device());
        println!("{} refusals: {counted:?}", bench.refusals);
        drop(view);
        bench.works();
    }
}

/// The second device, bound again when this is dropped.
struct Second(Device);

impl Drop for Second {
    fn drop(&mut self) {
        if self.0.driver().is_none() {
            self.0.bind("limosa").unwrap();
        }
    }
}

#[test]
fn a_device_goes_with_all_data_kept_while_memory_fails_and_comes_back_when_there_is_some() {
    if !can_inject("a_device_goes_with_all_data_kept_while_memory_fails_and_comes_back_when_there_is_some") {
        return;
    }
    let second = Second(list().unwrap().swap_remove(1));
    let shim = open(1);
    let (small, huge) = (Memory::pages(500), Memory::huge(2));
    small.fill(1);
    huge.fill(2);
    for memory in [&small, &huge] {
        shim.migrate(memory.range(), Place::Private).unwrap();
    }
    let injection = Injection::at_random(40);
    second.0.unbind().unwrap();
    drop(injection);
    small.check(1);
    huge.check(2);
    assert!(matches!(shim.info(), Err(ShimError::DeviceGone)));
    // Of the module's own allocations alone: core, refused one while it adds a device's pages, keeps those that it added
    // already, and no driver can be bound to the device again.
    let injection = Injection::at_random(100);
    second.0.bind("limosa").unwrap();
    let new = open(1);
    let error = new.migrate(small.range(), Place::Private).unwrap_err();
    assert!(matches!(error.cause, ShimError::DeviceFull) && error.done.moved == 0, "{error}");
    second.0.unbind().unwrap();
    drop(injection);
    second.0.bind("limosa").unwrap();
    let new = open(1);
    let info = new.info().unwrap();
    assert_eq!((info.private.free, info.used), (info.private.bytes, 0));
    Bench::new(&new, small).works();
}
