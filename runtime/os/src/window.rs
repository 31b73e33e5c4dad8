//! A mapping of a memory file whose accesses fault until somebody opens them: the application's view of a heap, and
//! the page table of a software GPU.
//!
//! Nothing is write-protected in place: to take rights away, a range is closed, and the next touch opens it anew. The
//! window does *not* keep track of what is open; a range may be opened twice and closed when it is not open.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use limosa_model::{Access, CHUNK, Extent, HostAddr, HostRange, PAGE};

use crate::error::OsError;
use crate::futex;
use crate::inject::{self, Call, Defect};
use crate::machine::complain;
use crate::mapping::{map_fd, map_file, map_part, populate};
use crate::memfile::MemoryFile;
use crate::peer_memory::PeerMemory;
use crate::reservation::Reservation;
use crate::uffd::{Delivery, Fault, Message, Opened, Userfaultfd};
use crate::wakeup::Wakeup;

/// Faults read at once.
pub(crate) const FAULTS_MAX: usize = 64;

/// Gaps that a window can have. There is one for each call of the kernel's that failed where it never ought to.
const GAPS_MAX: usize = 256;

/// A registered mapping of a whole memory file.
#[derive(Debug)]
pub struct FaultWindow {
    /// First: closing it wakes every thread that still waits, before the range goes away.
    uffd: Userfaultfd,
    reservation: Reservation,
    file: Arc<MemoryFile>,
    /// Ranges that could not be given the faults they ought to have. It does not grow: signal mode adds to it.
    gaps: Mutex<Vec<(Extent, Gap)>>,
    /// Whether there are any.
    has_gaps: AtomicBool,
}

/// What became of a range that the kernel would not have fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    /// It is open, and must be registered before it can be closed.
    Unregistered,
    /// Touches raise SIGSEGV.
    CutOff,
}

impl FaultWindow {
    /// Maps `len` bytes of `file` with nothing open, at the address `wish` if that is free.
    ///
    /// # Safety
    /// A thread that touches the window sleeps until its fault is served: the caller reads [`Self::faults`] (or, with
    /// [`Delivery::Signal`], has a handler installed) as long as the window lives.
    ///
    /// # Errors
    /// [`OsError::NoUserfaultfd`], [`OsError::KernelTooOld`], [`OsError::AddressSpace`], [`OsError::Mapping`].
    pub unsafe fn new(
        file: Arc<MemoryFile>,
        len: u64,
        delivery: Delivery,
        wish: Option<HostAddr>,
    ) -> Result<Self, OsError> {
        let uffd = Userfaultfd::open(delivery)?;
        let at_wish = wish.and_then(|base| Reservation::at_address(base, len).ok());
        let reservation = at_wish.map_or_else(|| Reservation::new(len), Ok)?;
        map_file(&reservation, &file)?;
        let (start, bytes) = reservation.at(Extent { start: 0, len: reservation.len() });
        // SAFETY: the caller serves the faults.
        unsafe { uffd.register(start as usize, bytes) }.map_err(|source| failed("registering", len, source))?;
        Ok(Self {
            uffd,
            reservation,
            file,
            gaps: Mutex::new(Vec::with_capacity(GAPS_MAX)),
            has_gaps: AtomicBool::new(false),
        })
    }

    /// Where it is, valid as long as `self`.
    #[must_use]
    pub fn range(&self) -> HostRange {
        self.reservation.range()
    }

    /// Whether `read(2)`, `write(2)` and their like may be given addresses in the window that are not open.
    #[must_use]
    pub fn serves_system_calls(&self) -> bool {
        self.uffd.serves_system_calls
    }

    /// Maps the pages of `extent` for `access` and wakes the threads that wait for them. The file's pages must exist.
    ///
    /// # Errors
    /// [`OsError::Mapping`], with part of the range perhaps open.
    pub fn open(&self, extent: Extent, access: Access) -> Result<(), OsError> {
        let access = if inject::seeded(Defect::SkipWriteProtect) { Access::Write } else { access };
        inject::fails(Call::Open).map_err(|source| failed("opening", extent.len, source))?;
        self.mend_gaps(extent)?;
        let (start, len) = self.reservation.at(extent);
        let (start, mut done) = (start as usize, 0);
        while done < len {
            match self.uffd.open_range(start + done, len - done, access) {
                Ok(Opened::All) => return Ok(()),
                Ok(Opened::Part(bytes)) => done += crate::reservation::to_usize(bytes),
                // Mapped, but with which rights? Closing what is left settles it: only this function maps pages.
                Ok(Opened::Occupied) => zap(start + done, len - done)?,
                Err(source) => return Err(failed("opening", extent.len, source)),
            }
        }
        Ok(())
    }

    /// Maps those pages of `extent` that are not mapped, and wakes who waits in it: for a fault on what ought to be
    /// open, because it was opened just now or because the kernel took a page away. Rights that are there stay.
    ///
    /// # Errors
    /// [`OsError::Mapping`].
    pub fn reopen(&self, extent: Extent, access: Access) -> Result<(), OsError> {
        inject::fails(Call::Open).map_err(|source| failed("opening", extent.len, source))?;
        let (start, len) = self.reservation.at(extent);
        let (start, page, mut done) = (start as usize, crate::reservation::to_usize(PAGE), 0);
        while done < len {
            match self.uffd.open_range(start + done, len - done, access) {
                Ok(Opened::All) => break,
                Ok(Opened::Part(bytes)) => done += crate::reservation::to_usize(bytes),
                Ok(Opened::Occupied) => done += page,
                Err(source) => return Err(failed("opening", extent.len, source)),
            }
        }
        self.wake(extent)
    }

    /// Opens a whole chunk for writing with one huge mapping where the file's pages allow it: far cheaper
    /// than page by page. During the call the chunk is open to everyone, so its data must be in place already.
    ///
    /// # Errors
    /// [`OsError::Mapping`]; the chunk then still faults as before.
    pub fn open_chunk(&self, chunk: Extent) -> Result<(), OsError> {
        debug_assert!(chunk.start.is_multiple_of(CHUNK) && chunk.len == CHUNK);
        inject::fails(Call::OpenChunk).map_err(|source| failed("opening", chunk.len, source))?;
        self.mend_gaps(chunk)?;
        let (start, len) = self.reservation.at(chunk);
        self.uffd.unregister(start as usize, len).map_err(|source| failed("unregistering", chunk.len, source))?;
        // What was open for reading has left a page table behind, and a huge page is mapped only where there is none.
        // SAFETY: advice on a range of our own mapping; neither changes contents.
        let populated = unsafe {
            libc::madvise(start, len, libc::MADV_DONTNEED);
            populate(start, len)
        };
        if !inject::seeded(Defect::SkipReregister) && self.register(chunk).is_err() {
            // It is open, as it is to be; before it is closed it will be tried again.
            self.note_gap(chunk, Gap::Unregistered);
        }
        populated
    }

    /// Unmaps the pages of `extent`: the next touch faults. Their contents stay in the file.
    ///
    /// # Errors
    /// [`OsError::Mapping`].
    pub fn close(&self, extent: Extent) -> Result<(), OsError> {
        inject::fails(Call::Close).map_err(|source| failed("closing", extent.len, source))?;
        self.mend_gaps(extent)?;
        let (start, len) = self.reservation.at(extent);
        zap(start as usize, len)
    }

    /// Puts zeros of nobody's in the place of `extent`, without faults, until [`Self::restore`]: for accesses that must
    /// go on though there is no frame for them.
    ///
    /// # Errors
    /// [`OsError::Mapping`].
    pub fn substitute(&self, extent: Extent) -> Result<(), OsError> {
        let (start, len) = self.reservation.at(extent);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let flags = flags | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: replaces exactly a range that our reservation owns.
        if unsafe { libc::mmap(start, len, protection, flags, -1, 0) } == libc::MAP_FAILED {
            return Err(OsError::mapping("substituting", extent.len));
        }
        // Who waited there waits no longer for a page of the file.
        let _ = self.uffd.wake(start as usize, len);
        Ok(())
    }

    /// Ends a [`Self::substitute`], [`Self::expose`], [`Self::show`], [`Self::show_peer`] or [`Self::alias`]: the range faults again.
    ///
    /// # Errors
    /// [`OsError::Mapping`].
    pub fn restore(&self, extent: Extent) -> Result<(), OsError> {
        map_part(&self.reservation, &self.file, extent)?;
        self.register(extent).inspect_err(|_| self.note_gap(extent, Gap::Unregistered))?;
        let (start, len) = self.reservation.at(extent);
        // Whatever was touched between the two calls is not known to be open.
        zap(start as usize, len)
    }

    fn register(&self, extent: Extent) -> Result<(), OsError> {
        let (start, len) = self.reservation.at(extent);
        // SAFETY: whoever made the window serves its faults.
        let registered = unsafe { self.uffd.register(start as usize, len) };
        registered.map_err(|source| failed("registering", extent.len, source))
    }

    /// Maps the pages of `extent`, which exist, for good: touches fault no more, until [`Self::restore`].
    ///
    /// # Errors
    /// [`OsError::Mapping`].
    pub fn expose(&self, extent: Extent) -> Result<(), OsError> {
        inject::fails(Call::Open).map_err(|source| failed("opening", extent.len, source))?;
        let (start, len) = self.reservation.at(extent);
        self.uffd.unregister(start as usize, len).map_err(|source| failed("unregistering", extent.len, source))?;
        // SAFETY: a range of our own mapping.
        unsafe { populate(start, len) }
    }

    /// Shows the pages of another file at the same offsets, which exist, without faults, until [`Self::restore`].
    ///
    /// # Errors
    /// [`OsError::Mapping`].
    pub fn show(&self, extent: Extent, file: &MemoryFile) -> Result<(), OsError> {
        inject::fails(Call::Open).map_err(|source| failed("opening", extent.len, source))?;
        map_part(&self.reservation, file, extent)?;
        let (start, len) = self.reservation.at(extent);
        // SAFETY: the range just mapped.
        unsafe { populate(start, len) }
    }

    /// Shows device memory, from `offset` of it on, without faults of ours, until [`Self::restore`]. Its pages come at
    /// their first touch. When the device's driver goes, they go: a touch is then SIGBUS.
    ///
    /// # Errors
    /// [`OsError::Mapping`].
    pub fn show_peer(&self, extent: Extent, memory: &PeerMemory, offset: u64) -> Result<(), OsError> {
        inject::fails(Call::Open).map_err(|source| failed("opening", extent.len, source))?;
        map_fd(&self.reservation, extent, memory.as_fd().as_raw_fd(), offset)?;
        // Who waited there waits no longer.
        let (start, len) = self.reservation.at(extent);
        let _ = self.uffd.wake(start as usize, len);
        Ok(())
    }

    /// Shows memory that is mapped elsewhere in the process, without faults, until [`Self::restore`]: whoever touches
    /// either touches both.
    ///
    /// # Safety
    /// `memory` is the start of as many bytes of a shared mapping; what it maps stays until [`Self::restore`].
    ///
    /// # Errors
    /// [`OsError::Mapping`]: the kernel makes no second mapping of memory that a driver has mapped by page frames.
    pub unsafe fn alias(&self, extent: Extent, memory: *mut u8) -> Result<(), OsError> {
        inject::fails(Call::Open).map_err(|source| failed("opening", extent.len, source))?;
        let (start, len) = self.reservation.at(extent);
        inject::fails(Call::Map).map_err(|source| failed("mapping a second time", extent.len, source))?;
        // Elsewhere first, then moved: some kernels unmap the target before they find that they cannot map there what
        // is asked for, which would leave a hole in our reservation for others to fall into.
        // SAFETY: an old length of zero leaves the other mapping as it is; the new one is where nothing is.
        let second = unsafe { libc::mremap(memory.cast(), 0, len, libc::MREMAP_MAYMOVE) };
        if second == libc::MAP_FAILED {
            return Err(OsError::mapping("mapping a second time", extent.len));
        }
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: moves the mapping just made, and replaces exactly a range that our reservation owns.
        if unsafe { libc::mremap(second, len, len, flags, start) } == libc::MAP_FAILED {
            let error = OsError::mapping("moving a second mapping", extent.len);
            // SAFETY: the mapping just made, which nobody knows of.
            unsafe { libc::munmap(second, len) };
            return Err(error);
        }
        // Who waited there waits no longer.
        let _ = self.uffd.wake(start as usize, len);
        // SAFETY: advice on the range just mapped.
        match unsafe { libc::madvise(start, len, libc::MADV_DONTFORK) } {
            0 => Ok(()),
            _ => Err(OsError::mapping("keeping from children", extent.len)),
        }
    }

    /// Makes touches of `extent` raise SIGBUS until it is closed and opened again; SIGSEGV where the kernel will not.
    ///
    /// # Errors
    /// [`OsError::Mapping`].
    pub fn poison(&self, extent: Extent) -> Result<(), OsError> {
        let (start, len) = self.reservation.at(extent);
        zap(start as usize, len)?;
        self.uffd.poison(start as usize, len).or_else(|_| self.cut_off(extent))
    }

    /// Has touches of `extent` raise SIGSEGV, until it is opened or closed. Its contents stay in the file.
    fn cut_off(&self, extent: Extent) -> Result<(), OsError> {
        let (start, len) = self.reservation.at(extent);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: replaces exactly a range that our reservation owns.
        if unsafe { libc::mmap(start, len, libc::PROT_NONE, flags, -1, 0) } == libc::MAP_FAILED {
            return Err(OsError::mapping("cutting off", extent.len));
        }
        self.note_gap(extent, Gap::CutOff);
        // Who waited there waits no longer.
        let _ = self.uffd.wake(start as usize, len);
        Ok(())
    }

    fn note_gap(&self, extent: Extent, gap: Gap) {
        let mut gaps = self.gaps();
        if gaps.contains(&(extent, gap)) {
            return;
        }
        if gaps.len() >= GAPS_MAX {
            // Memory must not be allocated in signal mode; and a range that is open without anybody who traps what
            // touches it must not be forgotten: its data would be wrong later, without a word.
            complain(b"limosa: the kernel refused to watch too many ranges of a heap: cannot go on\n");
            std::process::abort();
        }
        gaps.push((extent, gap));
        self.has_gaps.store(true, Ordering::SeqCst);
    }

    /// Has the gaps that `extent` meets fault again: what is there is opened or closed next.
    fn mend_gaps(&self, extent: Extent) -> Result<(), OsError> {
        if !self.has_gaps.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut gaps = self.gaps();
        let meets = |(other, _): &(Extent, Gap)| other.start < extent.end() && extent.start < other.end();
        while let Some(at) = gaps.iter().position(meets) {
            let (gap, kind) = gaps[at];
            if kind == Gap::CutOff {
                map_part(&self.reservation, &self.file, gap)?;
            }
            self.register(gap)?;
            gaps.swap_remove(at);
        }
        self.has_gaps.store(!gaps.is_empty(), Ordering::SeqCst);
        Ok(())
    }

    fn gaps(&self) -> MutexGuard<'_, Vec<(Extent, Gap)>> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the threads that wait in `extent`; those whose page is still closed fault again.
    ///
    /// # Errors
    /// [`OsError::Mapping`].
    pub fn wake(&self, extent: Extent) -> Result<(), OsError> {
        let (start, len) = self.reservation.at(extent);
        self.uffd.wake(start as usize, len).map_err(|source| failed("waking", extent.len, source))
    }

    /// Reads the faults that are pending now, at most 64, and hands each to `serve`. Gives their number.
    pub fn faults(&self, mut serve: impl FnMut(Fault)) -> usize {
        let mut messages = [Message::default(); FAULTS_MAX];
        let got = self.uffd.read(&mut messages);
        for fault in messages[..got].iter().filter_map(Message::fault) {
            serve(fault);
        }
        got
    }

    /// Sleeps until a fault is pending or `wakeup` rings, at most for `limit` if there is one.
    pub fn wait(&self, wakeup: &Wakeup, limit: Option<Duration>) {
        let poll = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [poll(self.uffd.raw()), poll(wakeup.raw())];
        let limit = limit.map(futex::timespec);
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the array is ours; its length is given. The limit is null or a time of ours.
        unsafe { libc::ppoll(fds.as_mut_ptr(), 2, limit, std::ptr::null()) };
    }
}

fn zap(start: usize, len: usize) -> Result<(), OsError> {
    // SAFETY: the range lies in a shared mapping of ours: dropping its page-table entries loses no data.
    if unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) } != 0 {
        return Err(OsError::mapping("closing", len as u64));
    }
    Ok(())
}

fn failed(operation: &'static str, bytes: u64, source: io::Error) -> OsError {
    OsError::Mapping { operation, bytes, source }
}

#[cfg(test)]
mod tests {
    use crate::memfile::HugePages;

    use super::*;

    fn window() -> FaultWindow {
        let file = MemoryFile::create("a test", CHUNK, CHUNK, HugePages::OnRequest).unwrap();
        // SAFETY: nothing closed is touched.
        unsafe { FaultWindow::new(Arc::new(file), CHUNK, Delivery::Thread, None).unwrap() }
    }

    /// Whether something is mapped all over the window.
    fn is_whole(window: &FaultWindow) -> bool {
        let (start, len) = window.reservation.at(Extent { start: 0, len: CHUNK });
        // SAFETY: writing back touches no contents; it fails where nothing is mapped.
        unsafe { libc::msync(start, len, libc::MS_ASYNC) == 0 }
    }

    #[test]
    fn an_alias_is_the_same_memory_and_one_that_fails_leaves_no_hole() {
        let (window, part) = (window(), Extent { start: CHUNK / 2, len: CHUNK / 4 });
        let other = Memory::new(part.len, libc::MAP_SHARED);
        // SAFETY: the mapping stays until the end.
        unsafe { window.alias(part, other.0).unwrap() };
        let (start, len) = window.reservation.at(part);
        // SAFETY: the alias and what it is of, both mapped for writing.
        unsafe {
            start.cast::<u8>().add(len - 1).write_volatile(7);
            assert_eq!(other.0.add(len - 1).read_volatile(), 7);
        }
        assert!(is_whole(&window));
        window.restore(part).unwrap();
        assert!(is_whole(&window));

        let private = Memory::new(part.len, libc::MAP_PRIVATE);
        // SAFETY: the kernel finds that it is not shared, and refuses.
        let refused = unsafe { window.alias(part, private.0) };
        assert!(matches!(refused, Err(OsError::Mapping { .. })), "{refused:?}");
        assert!(is_whole(&window), "a hole in the reservation");
        window.restore(part).unwrap();
    }

    #[test]
    fn two_windows_show_one_memory_of_a_device_from_any_page_of_it_on_and_children_do_not() {
        let page = |number: u64| Extent { start: number * PAGE, len: PAGE };
        let file = crate::shim::test_pool(4 * PAGE);
        let memory = PeerMemory::stand_in(file.try_clone().unwrap(), 4 * PAGE);
        let (one, other) = (window(), window());
        let [at_one, at_other] = [(&one, page(9)), (&other, page(70))].map(|(window, extent)| {
            window.show_peer(extent, &memory, 2 * PAGE).unwrap();
            window.reservation.at(extent).0.cast::<u64>()
        });
        // SAFETY: both show a page of a file.
        unsafe {
            at_one.write_volatile(7);
            assert_eq!(at_other.read_volatile(), 7);
        }
        let mut word = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut word, 2 * PAGE).unwrap();
        assert_eq!(u64::from_ne_bytes(word), 7);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let flags = |at: *mut u64| {
            let begins = format!("{:x}-", at.addr());
            let rest = maps.split_once(&begins).unwrap().1;
            rest.lines().find(|line| line.starts_with("VmFlags:")).unwrap().contains(" dc")
        };
        assert!(flags(at_one) && flags(at_other), "a child would have it");

        drop(memory);
        // SAFETY: what is mapped keeps the memory.
        unsafe { assert_eq!(at_one.read_volatile(), 7) };
        one.restore(page(9)).unwrap();
        other.restore(page(70)).unwrap();
        assert!(is_whole(&one) && is_whole(&other));
        assert!(!crate::shim::test_is_mapped(&file), "it is the device's again");
    }

    #[test]
    fn device_memory_that_is_gone_leaves_the_window_whole() {
        let (window, part) = (window(), Extent { start: CHUNK / 2, len: CHUNK / 4 });
        let null = PeerMemory::stand_in(std::fs::File::open("/dev/null").unwrap(), part.len);
        let refused = window.show_peer(part, &null, 0);
        assert!(matches!(refused, Err(OsError::Mapping { .. })), "{refused:?}");
        assert!(is_whole(&window), "a hole in the reservation");
        window.restore(part).unwrap();
        assert!(is_whole(&window));
    }

    #[test]
    fn gaps_are_noted_once_and_without_taking_memory() {
        let window = window();
        let capacity = window.gaps().capacity();
        for _ in 0..3 {
            for page in 0..CHUNK / PAGE / 4 {
                window.note_gap(Extent { start: page * PAGE, len: PAGE }, Gap::Unregistered);
            }
        }
        let noted = window.gaps().clone();
        assert_eq!((noted.len() as u64, window.gaps().capacity()), (CHUNK / PAGE / 4, capacity));
        window.close(Extent { start: 0, len: CHUNK }).unwrap();
        assert!(window.gaps().is_empty(), "all of them fault again");
    }

    /// Memory beside all windows.
    struct Memory(*mut u8, usize);

    impl Memory {
        fn new(len: u64, sharing: libc::c_int) -> Self {
            let len = usize::try_from(len).unwrap();
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, sharing | libc::MAP_ANONYMOUS);
            // SAFETY: a new mapping.
            let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
            assert_ne!(start, libc::MAP_FAILED);
            Self(start.cast(), len)
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: our own mapping.
            unsafe { libc::munmap(self.0.cast(), self.1) };
        }
    }
}
