//! Where the files are: on the disk, and on a loop device over memory, which is faster than most drives. Nothing of them
//! can stay behind, however the process ends: the files have no names, and the device goes with its last user.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use limosa::DataFile;

/// A file, or a device, full of bytes that repeat nowhere near.
pub(crate) struct Place {
    /// As rows call it.
    pub(crate) name: &'static str,
    /// What it is, for people.
    pub(crate) what: String,
    /// For limosa, for fio and for the peers.
    pub(crate) path: PathBuf,
    pub(crate) file: DataFile,
    pub(crate) bytes: usize,
    /// Keeps it there.
    _open: File,
}

/// The names of all places.
pub(crate) const NAMES: [&str; 2] = ["disk", "loop"];

/// Opens the place of that name.
pub(crate) fn open(name: &'static str, bytes: usize) -> Result<Place, String> {
    if name == NAMES[0] { on_disk(name, bytes) } else { on_loop(name, bytes) }
}

/// A file in the first folder for such that is on a disk.
fn on_disk(name: &'static str, bytes: usize) -> Result<Place, String> {
    let mut why = Vec::new();
    for folder in [std::env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from(".")] {
        let tried = nameless(&folder).and_then(|open| fill(&open, bytes).map(|()| open));
        match tried.map_err(|error| error.to_string()).and_then(|open| place(name, open, bytes)) {
            Ok(place) if place.file.facts().device.is_some() && place.file.facts().direct.is_ok() => return Ok(place),
            Ok(place) => why.push(format!("{} is no folder on a disk: {}", folder.display(), place.what)),
            Err(error) => why.push(format!("{}: {error}", folder.display())),
        }
    }
    Err(why.join("; "))
}

/// A loop device on a file in memory. The limits of the machine's memory are tmpfs's business.
fn on_loop(name: &'static str, bytes: usize) -> Result<Place, String> {
    let folder = Path::new("/dev/shm");
    let made = nameless(folder).and_then(|backing| {
        fill(&backing, bytes)?;
        attach(&backing)
    });
    let (device, path) = made.map_err(|error| format!("no loop device on a file in {}: {error}", folder.display()))?;
    Ok(Place { path, ..place(name, device, bytes)? })
}

fn place(name: &'static str, open: File, bytes: usize) -> Result<Place, String> {
    // fio finds a file without a name by it, too.
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd()));
    let file = DataFile::options().read(true).write(true).open(&path).map_err(|error| error.to_string())?;
    let facts = file.facts();
    let device = facts.device.as_ref().map_or("no disk", |device| device.name.as_str());
    let what = format!("{} of {} MiB, on {device}", facts.file_system, bytes >> 20);
    Ok(Place { name, what, path, file, bytes, _open: open })
}

fn nameless(folder: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(folder)
}

/// Writes all of it, so that reads find data and writes find room.
fn fill(file: &File, bytes: usize) -> io::Result<()> {
    const PIECE: usize = 1 << 20;
    let mut piece = vec![0; PIECE];
    for start in (0..bytes).step_by(PIECE) {
        for (at, word) in piece.chunks_exact_mut(8).enumerate() {
            let number = (start + 8 * at) as u64;
            word.copy_from_slice(&(number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) | 1).to_le_bytes());
        }
        file.write_all_at(&piece[..PIECE.min(bytes - start)], start as u64)?;
    }
    file.sync_all()
}

/// `struct loop_config` of linux/loop.h, with `struct loop_info64` in it.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit.
    places: [u64; 5],
    /// lo_number, lo_encrypt_type, lo_encrypt_key_size.
    numbers: [u32; 3],
    flags: u32,
    /// lo_file_name, lo_crypt_name, lo_encrypt_key.
    names: [u8; 160],
    init: [u64; 2],
    reserved: [u64; 8],
}

const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
/// It is gone when nobody has it open any more.
const AUTOCLEAR: u32 = 4;

/// Gives a loop device on the file, open, and its path.
fn attach(backing: &File) -> io::Result<(File, PathBuf)> {
    const TRIES: u32 = 8;
    let both = || OpenOptions::new().read(true).write(true).clone();
    let control = both().open("/dev/loop-control")?;
    let mut outcome = Err(io::ErrorKind::ResourceBusy.into());
    for _ in 0..TRIES {
        // SAFETY: a system call without memory.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = both().open(&path)?;
        let config = LoopConfig {
            fd: backing.as_raw_fd().cast_unsigned(),
            block_size: 0,
            places: [0; 5],
            numbers: [0; 3],
            flags: AUTOCLEAR,
            names: [0; 160],
            init: [0; 2],
            reserved: [0; 8],
        };
        // SAFETY: the structure that the call reads.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } == 0 {
            return Ok((device, path));
        }
        // Somebody else may have taken it meanwhile.
        outcome = Err(io::Error::last_os_error());
    }
    outcome
}
