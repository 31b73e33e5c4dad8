//! The views of the worker that knows its memory: made, mapped well and badly, accessed, and put away in any order. What an
//! access sees is what the model says of the mirrored page at that moment.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::files::Pipe;
use crate::model::{Model, address};
use crate::raw::random::Random;
use crate::raw::{PAGE, errno, memory};

/// Views at most.
pub const MOST: usize = 6;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// A view.
pub struct View {
    /// Its file; none when only the mapping is left.
    pub fd: Option<OwnedFd>,
    /// The first page that it mirrors.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Where it is mapped.
    pub at: Option<usize>,
}

impl View {
    /// Does something to it, or by it. False: it is no more.
    pub fn step(&mut self, random: &mut Random, model: &mut Model, pipe: &Pipe) -> Result<bool, String> {
        match (self.at, &self.fd) {
            (None, Some(fd)) => {
                let fd = fd.as_raw_fd();
                if random.once_in(3) {
                    return self.map_badly(random, fd).map(|()| true);
                }
                self.at = Some(
                    memory::map(0, self.len(), RW, libc::MAP_SHARED, fd).map_err(|e| format!("a view: mmap: {e}"))?,
                );
                Ok(true)
            }
            (Some(at), _) => self.use_mapping(at, random, model, pipe),
            (None, None) => Ok(false),
        }
    }

    fn len(&self) -> usize {
        self.count * PAGE
    }

    fn use_mapping(&mut self, at: usize, random: &mut Random, model: &mut Model, pipe: &Pipe) -> Result<bool, String> {
        match random.below(24) {
            0 => {
                self.fd = None; // the mapping keeps it
                Ok(true)
            }
            1 => {
                memory::unmap(at, self.len()).map_err(|error| format!("a view: munmap: {error}"))?;
                self.at = None;
                Ok(false)
            }
            2 => self.spoil_mapping(at, random).map(|()| true),
            3..12 => self.write(at, random, model, pipe).map(|()| true),
            _ => self.read(at, random, model, pipe).map(|()| true),
        }
    }

    fn map_badly(&self, random: &mut Random, fd: i32) -> Result<(), String> {
        let (shared, len) = (libc::MAP_SHARED, self.len());
        let result = match random.below(3) {
            0 => memory::map(0, len, RW, libc::MAP_PRIVATE, fd),
            1 => memory::map(0, len + PAGE, RW, shared, fd),
            _ if self.count > 1 => memory::map(0, len - PAGE, RW, shared, fd),
            _ => return Ok(()),
        };
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => Err(format!(
                "a view of {} pages: a mapping that is not all of it, or not shared: {other:?}",
                self.count
            )),
        }
    }

    /// What may not be done with a view's mapping.
    fn spoil_mapping(&self, at: usize, random: &mut Random) -> Result<(), String> {
        let result = match random.below(5) {
            0 if self.count > 1 => memory::unmap(at, PAGE),
            1 if self.count > 1 => memory::protect(at + PAGE, self.len() - PAGE, libc::PROT_READ),
            2 => memory::advise(at, PAGE, libc::MADV_DONTNEED),
            3 => {
                // Elsewhere.
                // SAFETY: nothing that Rust knows of lies there.
                let moved = unsafe {
                    let from = std::ptr::with_exposed_provenance_mut(at);
                    libc::mremap(from, self.len(), self.len() + PAGE, libc::MREMAP_MAYMOVE)
                };
                if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
            }
            _ => match &self.fd {
                Some(fd) => memory::map(0, self.len(), RW, libc::MAP_SHARED, fd.as_raw_fd()).map(drop),
                None => return Ok(()),
            },
        };
        match result {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBUSY | libc::EFAULT)) => Ok(()),
            other => Err(format!("a view of {} pages was split, moved or mapped twice: {other:?}", self.count)),
        }
    }

    fn read(&self, at: usize, random: &mut Random, model: &Model, pipe: &Pipe) -> Result<(), String> {
        let page = random.below(self.count);
        let is = model.page(self.first + page);
        let got = pipe.peek(at + page * PAGE + if random.once_in(2) { 0 } else { PAGE - 8 });
        let right = match &got {
            Ok(word) => is.readable() && *word == is.value,
            Err(error) => !is.readable() && error.raw_os_error() == Some(libc::EFAULT),
        };
        let place = address(self.first + page);
        if right { Ok(()) } else { Err(format!("reading {place:#x} by a view: {got:x?}, and the page is {is:x?}")) }
    }

    fn write(&self, at: usize, random: &mut Random, model: &mut Model, pipe: &Pipe) -> Result<(), String> {
        let page = random.below(self.count);
        let is = model.page(self.first + page);
        let value = model.next_value(self.first + page);
        for place in [at + page * PAGE, at + page * PAGE + PAGE - 8] {
            let got = pipe.poke(place, value);
            let right = if is.writable() { got.is_ok() } else { errno(&got) == libc::EFAULT };
            if !right {
                return Err(format!(
                    "writing {:#x} by a view: {got:?}, and the page is {is:x?}",
                    address(self.first + page)
                ));
            }
        }
        if is.writable() {
            model.set(self.first + page, value);
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(at) = self.at {
            let _ = memory::unmap(at, self.len());
        }
    }
}
