//! The files that a worker calls: devices it opened, some of them twice, and what is no device at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::disk;
use crate::raw::memory::checked;
use crate::raw::random::Random;
use crate::raw::shim::Device;
use crate::raw::uapi::{COUNTERS_TOLD, DIRECT, Info};

/// A device that is open.
pub struct Opened {
    /// It.
    pub device: Device,
    /// The same file by another number.
    pub again: OwnedFd,
    /// What it was when it was opened.
    pub first: Info,
    /// What its counters were when last asked: the file's, and the device's.
    pub counts: [[u64; COUNTERS_TOLD]; 2],
}

impl Opened {
    /// Opens a device.
    pub fn new(index: usize) -> io::Result<Self> {
        let device = Device::open(index)?;
        // SAFETY: a new number.
        let again = unsafe { OwnedFd::from_raw_fd(checked(libc::dup(device.as_raw_fd()))?) };
        let first = device.info()?;
        Ok(Self { device, again, first, counts: [[0; COUNTERS_TOLD]; 2] })
    }

    /// One of its numbers.
    pub fn fd(&self, random: &mut Random) -> RawFd {
        if random.once_in(4) { self.again.as_raw_fd() } else { self.device.as_raw_fd() }
    }
}

/// A file that calls name.
pub struct Named {
    /// What it is.
    pub name: &'static str,
    /// It; none: the number is nobody's.
    file: Option<OwnedFd>,
    /// Whether it is open for reading, and for writing.
    open_for: [bool; 2],
    /// Whether its data goes straight.
    pub direct: bool,
}

impl Named {
    /// Good ones and bad ones. The first is the disk, whose data goes straight.
    pub fn all(device: &Device) -> io::Result<Vec<Self>> {
        let open =
            |flags: i32, path: &str| OpenOptions::new().read(true).custom_flags(flags).open(path).map(OwnedFd::from);
        let scratch = std::env::temp_dir().join(format!("limosa-fuzz-{}", std::process::id()));
        std::fs::write(&scratch, [1; 8192])?;
        let in_memory = open(libc::O_DIRECT, &scratch.to_string_lossy());
        std::fs::remove_file(scratch)?;
        let program = std::env::current_exe()?;
        let write_only = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(disk::PATH)?;
        let pipe = Pipe::new()?;
        let named = |name, file, open_for, direct| Self { name, file: Some(file), open_for, direct };
        let mut all = vec![
            named("the disk", open(libc::O_DIRECT, disk::PATH)?, [true, false], true),
            named("the disk, buffered", open(0, disk::PATH)?, [true, false], false),
            named("the disk, for writing", write_only.into(), [false, true], true),
            named("a file in memory", in_memory?, [true, false], false),
            named("this program", open(libc::O_DIRECT, &program.to_string_lossy())?, [true, false], false),
            named("a folder", open(0, "/")?, [true, false], false),
            named("a name", open(libc::O_PATH, disk::PATH)?, [false; 2], false),
            named("zeros", open(0, "/dev/zero")?, [true, false], false),
            named("an end of a pipe", pipe.from, [true, false], false),
            named("the device itself", checked_dup(device.as_raw_fd())?, [true, true], false),
            Self { name: "none", file: None, open_for: [false; 2], direct: false },
        ];
        // The program's own disk may be anywhere.
        all[4].direct = device.probe(all[4].fd())?.verdict == DIRECT;
        Ok(all)
    }

    /// Its number.
    pub fn fd(&self) -> RawFd {
        self.file.as_ref().map_or(4321, AsRawFd::as_raw_fd)
    }

    /// Whether it can be asked for a direction: 0 is from it.
    pub fn is_open_for(&self, direction: u32) -> bool {
        self.open_for[usize::from(direction != 0)]
    }
}

fn checked_dup(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a new number.
    unsafe { Ok(OwnedFd::from_raw_fd(checked(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0))?)) }
}

/// Files that know none of the ioctls.
pub struct Others {
    null: File,
    pipe: Pipe,
}

impl Others {
    /// Opens them.
    pub fn new() -> io::Result<Self> {
        Ok(Self { null: OpenOptions::new().read(true).open("/dev/null")?, pipe: Pipe::new()? })
    }

    /// One of them, or the number of none, and what then comes.
    pub fn pick(&self, random: &mut Random) -> (RawFd, i32) {
        match random.below(4) {
            0 => (self.null.as_raw_fd(), libc::ENOTTY),
            1 => (self.pipe.from.as_raw_fd(), libc::ENOTTY),
            2 => (-1, libc::EBADF),
            _ => (1000, libc::EBADF),
        }
    }
}

/// A pipe: by it the kernel accesses memory in our place, and says EFAULT where we would get a signal.
pub struct Pipe {
    from: OwnedFd,
    to: OwnedFd,
}

impl Pipe {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: an array of two; both are new.
        unsafe {
            checked(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
            Ok(Self { from: OwnedFd::from_raw_fd(ends[0]), to: OwnedFd::from_raw_fd(ends[1]) })
        }
    }

    /// The word at an address.
    pub fn peek(&self, at: usize) -> io::Result<u64> {
        let mut word = 0_u64;
        move_word(self.to.as_raw_fd(), at, true)?;
        move_word(self.from.as_raw_fd(), (&raw mut word).expose_provenance(), false)?;
        Ok(word)
    }

    /// Writes the word at an address.
    pub fn poke(&self, at: usize, word: u64) -> io::Result<()> {
        move_word(self.to.as_raw_fd(), (&raw const word).expose_provenance(), true)?;
        let poked = move_word(self.from.as_raw_fd(), at, false);
        if poked.is_err() {
            let mut spilt = 0_u64; // what is still in it
            move_word(self.from.as_raw_fd(), (&raw mut spilt).expose_provenance(), false)?;
        }
        poked
    }
}

fn move_word(fd: RawFd, at: usize, out: bool) -> io::Result<()> {
    let pointer = std::ptr::with_exposed_provenance_mut(at);
    loop {
        // SAFETY: 8 bytes of our own, or bait, which the kernel says is none.
        let done = unsafe { if out { libc::write(fd, pointer, 8) } else { libc::read(fd, pointer, 8) } };
        match done {
            8 => return Ok(()),
            0.. => return Err(io::Error::other("a part of a word")),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
