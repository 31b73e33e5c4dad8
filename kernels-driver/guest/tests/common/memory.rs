//! Private anonymous memory of a test's own, with a pattern that tells each word from every other.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use limosa_model::{HostAddr, HostRange};
use limosa_os::shim::{Place, Shim};

pub const PAGE: usize = 4096;
pub const HUGE: usize = 2 << 20;
const WORDS: usize = PAGE / 8;

/// Memory, aligned to 2 MiB, unmapped when dropped. Its words are atomics: whoever shares it may race.
pub struct Memory {
    base: usize,
    len: usize,
}

impl Memory {
    /// So many pages of 4 KiB, never touched.
    pub fn pages(pages: usize) -> Self {
        let memory = Self::new(pages * PAGE);
        memory.advise(libc::MADV_NOHUGEPAGE);
        memory
    }

    /// So many times 2 MiB, never touched; a touch makes all 2 MiB.
    pub fn huge(count: usize) -> Self {
        let memory = Self::new(count * HUGE);
        memory.advise(libc::MADV_HUGEPAGE);
        memory
    }

    fn new(len: usize) -> Self {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: fresh memory at an address of the kernel's choice.
        let raw = unsafe { libc::mmap(ptr::null_mut(), len + HUGE, protection, flags, -1, 0) };
        assert_ne!(raw, libc::MAP_FAILED);
        let base = (raw as usize).next_multiple_of(HUGE);
        unmap(raw as usize, base - raw as usize);
        unmap(base + len, raw as usize + HUGE - base);
        Self { base, len }
    }

    /// A file's first bytes, shared or private.
    pub fn of_file(fd: i32, len: usize, flags: i32) -> Self {
        Self::mapped(fd, 0, len, libc::PROT_READ | libc::PROT_WRITE, flags).unwrap()
    }

    /// A part of a file, if it can be mapped so.
    pub fn mapped(fd: i32, offset: usize, len: usize, rights: i32, flags: i32) -> std::io::Result<Self> {
        let offset = libc::off_t::try_from(offset).unwrap();
        // SAFETY: fresh memory at an address of the kernel's choice.
        let raw = unsafe { libc::mmap(ptr::null_mut(), len, rights, flags, fd, offset) };
        if raw == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self { base: raw as usize, len })
    }

    pub fn advise(&self, advice: i32) {
        self.advise_part(0, self.page_count(), advice);
    }

    pub fn advise_part(&self, first: usize, pages: usize, advice: i32) {
        // SAFETY: advice on memory of our own; what it makes of the contents is what the test is about.
        let result = unsafe { libc::madvise(self.at(first).cast(), pages * PAGE, advice) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    pub fn protect(&self, first: usize, pages: usize, protection: i32) {
        // SAFETY: memory of our own.
        let result = unsafe { libc::mprotect(self.at(first).cast(), pages * PAGE, protection) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// Unmaps a part; the rest stays.
    pub fn punch(&self, first: usize, pages: usize) {
        unmap(self.at(first) as usize, pages * PAGE);
    }

    pub fn page_count(&self) -> usize {
        self.len / PAGE
    }

    pub fn range(&self) -> HostRange {
        self.part(0, self.page_count())
    }

    pub fn part(&self, first: usize, pages: usize) -> HostRange {
        HostRange { start: HostAddr(self.at(first) as u64), len: (pages * PAGE) as u64 }
    }

    /// The first byte of a page.
    pub fn at(&self, page: usize) -> *mut u8 {
        assert!(page <= self.page_count());
        (self.base + page * PAGE) as *mut u8
    }

    /// A word; on an unmapped page, a touch of it kills.
    pub fn word(&self, page: usize, word: usize) -> &AtomicU64 {
        assert!(page < self.page_count() && word < WORDS);
        word_at(HostAddr((self.base + page * PAGE + word * 8) as u64))
    }

    /// Writes the pattern of `seed` to each word.
    pub fn fill(&self, seed: u64) {
        self.fill_part(0, self.page_count(), seed);
    }

    pub fn fill_part(&self, first: usize, pages: usize, seed: u64) {
        for page in first..first + pages {
            (0..WORDS).for_each(|word| self.word(page, word).store(pattern(seed, page, word), Ordering::Relaxed));
        }
    }

    /// Fails unless each word has the pattern of `seed`.
    pub fn check(&self, seed: u64) {
        self.check_part(0, self.page_count(), seed);
    }

    pub fn check_part(&self, first: usize, pages: usize, seed: u64) {
        for page in first..first + pages {
            for word in 0..WORDS {
                let found = self.word(page, word).load(Ordering::Relaxed);
                assert_eq!(found, pattern(seed, page, word), "word {word} of page {page}");
            }
        }
    }

    /// Fails unless each word is zero.
    pub fn check_zero(&self) {
        for page in 0..self.page_count() {
            let all_zero = (0..WORDS).all(|word| self.word(page, word).load(Ordering::Relaxed) == 0);
            assert!(all_zero, "page {page} is not zero");
        }
    }

    /// Fails unless all of it is in one place.
    pub fn is_in(&self, shim: &Shim, place: Option<Place>) {
        self.part_is_in(shim, 0, self.page_count(), place);
    }

    pub fn part_is_in(&self, shim: &Shim, first: usize, pages: usize, place: Option<Place>) {
        if pages == 0 {
            return;
        }
        let states = shim.residency(self.part(first, pages)).unwrap().states;
        let wrong = states.iter().position(|state| state.place() != place);
        assert!(wrong.is_none(), "page {:?} of {pages} is not in {place:?}: {:?}", wrong, states[wrong.unwrap()]);
    }

    /// Gives up the address without unmapping: the mapping went elsewhere.
    pub fn moved_to(mut self, base: usize) -> Self {
        let moved = Self { base, len: self.len };
        self.len = 0;
        moved
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        unmap(self.base, self.len);
    }
}

/// A word anywhere in this process; a touch of one that is not mapped kills.
pub fn word_at(address: HostAddr) -> &'static AtomicU64 {
    assert!(address.0 != 0 && address.0.is_multiple_of(8));
    // SAFETY: aligned, and only ever used as an atomic. Whether it is mapped is what tests are about: a touch that the
    // kernel refuses is a signal, which ends the process.
    unsafe { &*(address.0 as *const AtomicU64) }
}

/// What `fill` writes.
pub fn pattern(seed: u64, page: usize, word: usize) -> u64 {
    ((page * WORDS + word) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// The bytes of a page that `fill` wrote.
pub fn page_bytes(seed: u64, page: usize) -> Vec<u8> {
    (0..WORDS).flat_map(|word| pattern(seed, page, word).to_ne_bytes()).collect()
}

pub fn unmap(start: usize, len: usize) {
    if len > 0 {
        // SAFETY: memory of a test's own.
        assert_eq!(unsafe { libc::munmap(start as *mut libc::c_void, len) }, 0);
    }
}

/// An unnamed file in memory.
pub fn memory_file(len: usize) -> std::fs::File {
    use std::os::fd::FromRawFd;
    // SAFETY: the name ends in NUL; the descriptor is new and nobody else's.
    let file =
        unsafe { std::fs::File::from_raw_fd(libc::memfd_create(c"limosa-selftest".as_ptr(), libc::MFD_CLOEXEC)) };
    file.set_len(len as u64).unwrap();
    file
}
