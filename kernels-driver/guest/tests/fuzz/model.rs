//! What a worker knows of its own memory: for each page of an area at a fixed place whether it is mapped, what it permits
//! and what it holds. It makes the system calls that change that, and compares.

use std::sync::atomic::Ordering;

use crate::raw::random::Random;
use crate::raw::{HUGE, PAGE, memory};

/// Pages of the area: two of 2 MiB and some.
pub const PAGES: usize = 1088;
/// Where it is: far below where the kernel puts what has no address.
pub const AREA: usize = 0x3000_0000_0000;

/// What lies at a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Hole,
    /// Private memory, which can be moved.
    Private,
    /// Shared memory, which cannot.
    Shared,
}

/// A page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// What it is.
    pub kind: Kind,
    /// PROT_*.
    pub protection: i32,
    /// Its first word, and its last.
    pub value: u64,
}

impl Page {
    /// Whether it can be read.
    pub fn readable(&self) -> bool {
        self.kind != Kind::Hole && self.protection != libc::PROT_NONE
    }

    /// Whether it can be written.
    pub fn writable(&self) -> bool {
        self.kind != Kind::Hole && self.protection & libc::PROT_WRITE != 0
    }
}

const HOLE: Page = Page { kind: Kind::Hole, protection: 0, value: 0 };
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// The area.
pub struct Model {
    /// Whether this is a child, whose writes to shared memory are its parent's, too.
    pub is_child: bool,
    pages: Vec<Page>,
    written: u64,
}

/// Where a page is.
pub fn address(page: usize) -> usize {
    AREA + page * PAGE
}

/// Some pages: the first and how many. Small, medium, or whole 2 MiB.
pub fn range(random: &mut Random) -> (usize, usize) {
    match random.below(256) {
        0..2 => (random.below(2) * HUGE / PAGE, HUGE / PAGE),
        2 => (0, PAGES),
        3..16 => {
            let count = 1 + random.below(64);
            (random.below(PAGES - count), count)
        }
        _ => {
            let count = 1 + random.below(6);
            (random.below(PAGES - count), count)
        }
    }
}

impl Model {
    /// All private memory.
    pub fn new() -> Self {
        let at = memory::anonymous(AREA, PAGES * PAGE).unwrap_or_else(|error| panic!("the area: {error}"));
        assert_eq!(at, AREA);
        Self { is_child: false, pages: vec![Page { kind: Kind::Private, protection: RW, value: 0 }; PAGES], written: 0 }
    }

    /// Whether a range is pages of the area.
    pub fn has(&self, start: u64, len: u64) -> bool {
        let (first, end) = (address(0) as u64, address(PAGES) as u64);
        start.is_multiple_of(PAGE as u64) && start >= first && start <= end && len <= end - start
    }

    /// What a page is.
    pub fn page(&self, page: usize) -> Page {
        self.pages[page]
    }

    /// The first page of some that is not mapped.
    pub fn first_hole(&self, first: usize, count: usize) -> Option<usize> {
        (first..first + count).find(|page| self.pages[*page].kind == Kind::Hole)
    }

    /// Changes some of it by a system call.
    pub fn step(&mut self, random: &mut Random) -> Result<(), String> {
        let (first, mut count) = range(random);
        if count > 64 {
            count = count.min(1 + random.below(PAGES));
        }
        let (at, len) = (address(first), count * PAGE);
        let result = match random.below(12) {
            0 => {
                self.fill(first, count, HOLE);
                memory::unmap(at, len)
            }
            1 | 2 => {
                self.fill(first, count, Page { kind: Kind::Private, protection: RW, value: 0 });
                memory::replace(at, len).map(drop)
            }
            3 => {
                self.fill(first, count, Page { kind: Kind::Shared, protection: RW, value: 0 });
                let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                memory::map(at, len, RW, flags, -1).map(drop)
            }
            4 | 5 if self.first_hole(first, count).is_none() => {
                let protection = *random.pick(&[libc::PROT_NONE, libc::PROT_READ, RW, RW, RW]);
                self.pages[first..first + count].iter_mut().for_each(|page| page.protection = protection);
                memory::protect(at, len, protection)
            }
            6 if self.first_hole(first, count).is_none() => {
                let private = self.pages[first..first + count].iter_mut().filter(|page| page.kind == Kind::Private);
                private.for_each(|page| page.value = 0);
                memory::advise(at, len, libc::MADV_DONTNEED)
            }
            7 => {
                let huge = random.once_in(2);
                let _ = memory::advise(at, len, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
                Ok(())
            }
            _ => {
                (first..first + count.min(8)).for_each(|page| self.write(page));
                Ok(())
            }
        };
        result.map_err(|error| format!("a system call on {count} pages at {at:#x}: {error}"))
    }

    fn fill(&mut self, first: usize, count: usize, with: Page) {
        self.pages[first..first + count].fill(with);
    }

    /// The next value that a page gets.
    pub fn next_value(&mut self, page: usize) -> u64 {
        self.written += 1;
        (page as u64) << 48 | self.written
    }

    /// Notes that a page holds a value.
    pub fn set(&mut self, page: usize, value: u64) {
        self.pages[page].value = value;
    }

    fn write(&mut self, page: usize) {
        let theirs = self.is_child && self.pages[page].kind == Kind::Shared;
        if self.pages[page].writable() && !theirs {
            let value = self.next_value(page);
            self.set(page, value);
            for at in ends(page) {
                // SAFETY: the page is mapped, and may be written.
                unsafe { memory::word(at) }.store(value, Ordering::Relaxed);
            }
        }
    }

    /// Whether a page, which can be read, has a value at both of its ends.
    pub fn holds(&self, page: usize, value: u64) -> bool {
        // SAFETY: the page is mapped, and may be read: the caller has just had it written to.
        self.pages[page].readable() && ends(page).all(|at| unsafe { memory::word(at) }.load(Ordering::Relaxed) == value)
    }

    /// Compares a page with what it must hold, if it may be read.
    pub fn check(&self, page: usize) -> Result<(), String> {
        let is = self.pages[page];
        for at in ends(page).filter(|_| is.readable()) {
            // SAFETY: the page is mapped, and may be read.
            let found = unsafe { memory::word(at) }.load(Ordering::Relaxed);
            if found != is.value {
                return Err(format!("page {page} at {at:#x}: expected {:#x}, found {found:#x} ({is:?})", is.value));
            }
        }
        Ok(())
    }
}

/// Where a page's first and last word are.
fn ends(page: usize) -> impl Iterator<Item = usize> {
    [address(page), address(page) + PAGE - 8].into_iter()
}
