//! What changes contents, done to pages that nobody else holds: written, discarded, unmapped and mapped anew, moved away
//! and back, shared with a child, written to a disk and read from it, seen through a view of one's own. Before and after,
//! all of it is compared, by any path. Disturbers go on meanwhile.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::agent::{Agent, Op};
use crate::arena::{Arena, Held, Path, SLOT, SLOTS, TAG_CHILD, words};
use crate::raw::shim::Mapped;
use crate::raw::uapi::{COHERENT, POLICY_MAP, POLICY_MIGRATE, PRIVATE};
use crate::raw::{self, HUGE, PAGE, memory, shim};
use crate::trap;

/// The pages of the largest range.
const MOST: usize = HUGE / PAGE;

/// An owner, and what it has for its work.
struct Owner {
    agent: Agent,
    /// A place to move memory to.
    aside: usize,
    /// What is written to with O_DIRECT, and from where on.
    disk: Option<(File, i64)>,
}

/// Pages that are held.
struct Pages {
    held: Held,
    at: usize,
    len: usize,
}

/// Does all of them, in turn by chance.
pub fn work(agent: Agent) {
    // Beside the arena, and so for each owner: what is moved there leaves holes, too.
    let aside = Arena::address(0) + (agent.arena().len.next_multiple_of(1 << 30)) + (agent.index << 30);
    memory::anonymous(aside, HUGE).unwrap_or_else(|error| panic!("a place aside: {error}"));
    trap::watch(aside, HUGE);
    let offset = i64::try_from(agent.index * HUGE).unwrap_or(0);
    let disk = disk().map(|file| (file, offset));
    let mut owner = Owner { agent, aside, disk };
    while owner.agent.goes_on() {
        let op = match owner.agent.random.below(20) {
            0..4 => Op::Rewrite,
            4..7 => Op::Discard,
            7..9 => Op::Fresh,
            9..11 => Op::Unmap,
            11..13 => Op::Move,
            13..15 => Op::MoveLeaving,
            15 => Op::Fork,
            16..18 => Op::DirectIo,
            _ => Op::OwnView,
        };
        let done = owner.turn(op);
        owner.agent.note(op, done);
    }
    trap::forget(aside);
    let _ = memory::unmap(aside, HUGE);
}

/// Whether there is a disk for O_DIRECT, as in the guest there must be.
pub fn has_disk() -> bool {
    let has = disk().is_some();
    if !has {
        assert!(raw::factor().is_none(), "the guest lacks its disk with the serial number limosa-data");
        raw::skip_part("stress O_DIRECT", "no disk with the serial number limosa-data");
    }
    has
}

/// The disk that tests may write to.
fn disk() -> Option<File> {
    for entry in std::fs::read_dir("/sys/block").ok()?.flatten() {
        let serial = std::fs::read_to_string(entry.path().join("device/serial")).unwrap_or_default();
        if ["limosa-data", "data"].contains(&serial.trim()) {
            // A path of the disk's has a name here, too, but no file.
            let path = std::path::Path::new("/dev").join(entry.file_name());
            if let Ok(file) = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path) {
                return Some(file);
            }
        }
    }
    None
}

impl Owner {
    fn turn(&mut self, op: Op) -> bool {
        let shared = Arc::clone(&self.agent.shared);
        let arena = &shared.arena;
        let Some(mut pages) = self.hold(arena, op) else { return false };
        arena.check(&pages.held, self.path(arena));
        let done = match op {
            Op::Discard => self.discard(arena, &mut pages, |at, len| {
                memory::uninterrupted(|| memory::advise(at, len, libc::MADV_DONTNEED))
            }),
            Op::Unmap => self.discard(arena, &mut pages, |at, len| {
                memory::uninterrupted(|| memory::unmap(at, len))?;
                memory::uninterrupted(|| memory::replace(at, len)).map(drop)
            }),
            Op::Fresh => self.fresh(arena, &mut pages),
            Op::Move | Op::MoveLeaving => self.shift(arena, &mut pages, op == Op::MoveLeaving),
            Op::Fork => self.fork(arena, &mut pages),
            Op::DirectIo => self.direct(arena, &mut pages),
            Op::OwnView => self.own_view(arena, &mut pages),
            _ => {
                arena.write(&mut pages.held, self.path(arena));
                true
            }
        };
        arena.check(&pages.held, self.path(arena));
        arena.release(pages.held);
        done
    }

    fn hold(&mut self, arena: &Arena, op: Op) -> Option<Pages> {
        let (first, end) = arena.slots();
        let (first, pages) = (first / SLOTS, (end - first) / SLOTS);
        let random = &mut self.agent.random;
        let (page, count) = match random.below(16) {
            0 => (random.below(pages / MOST) * MOST, MOST),
            1..4 => {
                let count = 1 + random.below(64);
                (random.below(pages - count), count)
            }
            _ => {
                let count = 1 + random.below(4);
                (random.below(pages - count), count)
            }
        };
        let first = first + page;
        let held = arena.hold(first * SLOTS, count * SLOTS, self.agent.mark(op))?;
        Some(Pages { held, at: Arena::address(first * SLOTS), len: count * PAGE })
    }

    fn path<'a>(&mut self, arena: &'a Arena) -> &'a Path {
        self.agent.random.pick(&arena.paths)
    }

    /// Has the kernel forget what is there: from then on it is zero, by every path.
    fn discard(&mut self, arena: &Arena, pages: &mut Pages, by: fn(usize, usize) -> std::io::Result<()>) -> bool {
        if let Err(error) = by(pages.at, pages.len) {
            // Of locked memory nothing is discarded, or only what comes before it: it is all zeroed by hand.
            if error.raw_os_error() != Some(libc::EINVAL) {
                arena.fail(&format!("discarding {:#x} bytes at {:#x}: {error}", pages.len, pages.at));
            }
            let path = self.path(arena);
            for slot in pages.held.first..pages.held.first + pages.len / SLOT {
                words(path, slot).for_each(|word| word.store(0, Ordering::Relaxed));
            }
        }
        Arena::zeroed(&mut pages.held);
        arena.check(&pages.held, self.path(arena));
        if self.agent.random.once_in(2) {
            arena.write(&mut pages.held, self.path(arena));
        }
        true
    }

    /// Untouched memory goes to a device: what it finds there is nobody's secret, but zero.
    fn fresh(&mut self, arena: &Arena, pages: &mut Pages) -> bool {
        self.discard_all(arena, pages);
        let Some(device) = (!arena.devices.is_empty()).then(|| self.agent.random.pick(&arena.devices)) else {
            return false;
        };
        let (_, result) = device.migrate(pages.at, pages.len, *self.agent.random.pick(&[PRIVATE, PRIVATE, COHERENT]));
        for path in &arena.paths[1..] {
            arena.check(&pages.held, path);
        }
        arena.check(&pages.held, &arena.paths[0]);
        result.is_ok()
    }

    fn discard_all(&mut self, arena: &Arena, pages: &mut Pages) {
        memory::uninterrupted(|| memory::replace(pages.at, pages.len)).unwrap_or_else(|error| {
            arena.fail(&format!("mmap over {:#x} bytes at {:#x}: {error}", pages.len, pages.at))
        });
        Arena::zeroed(&mut pages.held);
    }

    /// Away and back. There it is the same, and what is written there is here afterwards.
    fn shift(&mut self, arena: &Arena, pages: &mut Pages, leaving: bool) -> bool {
        let whole = !leaving && self.agent.random.once_in(2);
        // Where it is aside has the same distance from 2 MiB, so that tables move whole.
        let to = self.aside + if whole { 0 } else { pages.at % HUGE % (HUGE - pages.len + PAGE) / PAGE * PAGE };
        move_pages(arena, pages.at, to, pages.len, whole, leaving);
        // The rights move along.
        memory::uninterrupted(|| memory::protect(to, pages.len, libc::PROT_READ | libc::PROT_WRITE))
            .unwrap_or_else(|error| arena.fail(&format!("mprotect of what was moved: {error}")));
        let there = Path { name: "moved away".into(), base: to - pages.held.first * SLOT, view: None };
        arena.check(&pages.held, &there);
        if self.agent.random.once_in(2) {
            arena.write(&mut pages.held, &there);
        }
        move_pages(arena, to, pages.at, pages.len, whole, false);
        memory::uninterrupted(|| memory::replace(to, pages.len))
            .unwrap_or_else(|error| arena.fail(&format!("mmap aside: {error}")));
        true
    }

    /// A child has its own copy, and keeps it while we write ours.
    fn fork(&mut self, arena: &Arena, pages: &mut Pages) -> bool {
        let mut ours = [0; 2];
        // SAFETY: an array of two; a child of many threads makes system calls and looks at memory, and nothing else.
        unsafe {
            if libc::pipe2(ours.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
                return false;
            }
            let child = libc::fork();
            if child == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::_exit(as_child(arena, pages, ours[0]));
            }
            libc::close(ours[0]);
            if child > 0 {
                arena.write(&mut pages.held, self.path(arena));
                arena.check(&pages.held, self.path(arena));
            }
            // Closing would not do: other children have the other end, too.
            libc::write(ours[1], (&raw const ours).cast(), 1);
            libc::close(ours[1]);
            let mut status = 0;
            while child > 0 && libc::waitpid(child, &raw mut status, 0) < 0 {}
            if status != 0 {
                arena.fail(&format!("a child ended with status {status:#x}: it says more above"));
            }
            child > 0
        }
    }

    /// To the disk, and back over something else.
    fn direct(&mut self, arena: &Arena, pages: &mut Pages) -> bool {
        let Some((file, offset)) = &self.disk else { return false };
        let (fd, offset) = (file.as_raw_fd(), *offset);
        if !transfer(arena, fd, pages, offset, true) {
            return false;
        }
        let _ = memory::advise(pages.at, pages.len, libc::MADV_DONTNEED);
        // Half of the time something lies there, on a device perhaps.
        if self.agent.random.once_in(2) {
            let path = self.path(arena);
            for slot in pages.held.first..pages.held.first + pages.len / SLOT {
                words(path, slot).for_each(|word| word.store(TAG_CHILD << 56, Ordering::Relaxed));
            }
        }
        while !transfer(arena, fd, pages, offset, false) {}
        true
    }

    /// A view of just these pages, or of some around them, that comes and goes.
    fn own_view(&mut self, arena: &Arena, pages: &mut Pages) -> bool {
        let Some(device) = (!arena.devices.is_empty()).then(|| self.agent.random.pick(&arena.devices)) else {
            return false;
        };
        let around = self.agent.random.below(8).min((pages.at - Arena::address(0)) / PAGE) * PAGE;
        let policy = *self.agent.random.pick(&[POLICY_MAP, POLICY_MIGRATE]);
        let view = match Mapped::new(device, pages.at - around, around + pages.len, policy) {
            Ok(view) => view,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOMEM)) => return false,
            Err(error) => arena.fail(&format!("a view of {:#x} bytes at {:#x}: {error}", pages.len, pages.at)),
        };
        trap::watch(view.at, view.len);
        let path =
            Path { name: "a view of one's own".into(), base: view.at + around - pages.held.first * SLOT, view: None };
        arena.check(&pages.held, &path);
        arena.write(&mut pages.held, &path);
        arena.check(&pages.held, self.path(arena));
        arena.write(&mut pages.held, self.path(arena));
        arena.check(&pages.held, &path);
        if self.agent.random.once_in(2) {
            let _ = shim::policy(view.fd.as_raw_fd(), pages.at, pages.len, policy ^ 1);
        }
        arena.check(&pages.held, &path);
        trap::forget(view.at);
        true
    }
}

/// All of the pages to the disk, or from it. Memory that is protected just now is tried again.
fn transfer(arena: &Arena, fd: i32, pages: &Pages, offset: i64, write: bool) -> bool {
    let mut done = 0;
    while done < pages.len {
        let at = offset + i64::try_from(done).unwrap_or(0);
        match memory::transfer(fd, pages.at + done, pages.len - done, at, write) {
            Ok(0) => return false,
            Ok(bytes) => done += bytes,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EINTR | libc::EAGAIN)) => {
                std::thread::yield_now();
            }
            Err(error) => arena.fail(&format!("O_DIRECT, write {write}, {:#x} bytes: {error}", pages.len)),
        }
    }
    true
}

/// mremap() in one, or page by page: where it stops in the middle of one, the rest is moved so.
fn move_pages(arena: &Arena, from: usize, to: usize, len: usize, whole: bool, leaving: bool) {
    if whole && memory::shift(from, len, to, 0).is_ok() {
        return;
    }
    let flags = if leaving { libc::MREMAP_DONTUNMAP } else { 0 };
    for page in (0..len).step_by(PAGE) {
        loop {
            match memory::shift(from + page, PAGE, to + page, flags) {
                Ok(_) => break,
                // Moved already.
                Err(error) if whole && error.raw_os_error() == Some(libc::EFAULT) => break,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM | libc::EINTR)) => {
                    std::thread::yield_now();
                }
                Err(error) => arena.fail(&format!("mremap of {:#x} to {:#x}: {error}", from + page, to + page)),
            }
        }
    }
}

/// In the child: what was there at the fork, before and after the parent writes, and what it writes itself after that.
fn as_child(arena: &Arena, pages: &Pages, parent: i32) -> i32 {
    // A disturber had it protected, perhaps, and is not here to give the rights back.
    if memory::protect(pages.at, pages.len, libc::PROT_READ | libc::PROT_WRITE).is_err() {
        return 2;
    }
    let own = &arena.paths[0];
    arena.check(&pages.held, own);
    let mut byte = 0_u8;
    // SAFETY: one byte.
    while unsafe { libc::read(parent, (&raw mut byte).cast(), 1) } < 0 {}
    arena.check(&pages.held, own);
    for slot in pages.held.first..pages.held.first + pages.len / SLOT {
        words(own, slot).for_each(|word| word.store(TAG_CHILD << 56 | slot as u64, Ordering::Relaxed));
        if words(own, slot).any(|word| word.load(Ordering::Relaxed) != TAG_CHILD << 56 | slot as u64) {
            return 3;
        }
    }
    0
}
