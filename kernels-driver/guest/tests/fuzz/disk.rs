//! The disk below the same switch as the devices, with contents that are known: a page that is read from any sector on has
//! the same first and last word, as the model of memory has it. It is written once, before the workers run.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::raw::PAGE;
use crate::raw::random::Random;

/// The disk that tests may write to.
pub const PATH: &str = "/run/limosa-data";
/// What its offsets are multiples of.
pub const SECTOR: usize = 512;
/// How much is known of its beginning, and of its end, in bytes.
const HEAD: u64 = 16 << 20;
const TAIL: u64 = 1 << 20;
/// Sectors in a page.
const OF_PAGE: u64 = (PAGE / SECTOR) as u64;

/// The first and the last word of a page that is read from the byte `offset` on.
pub fn value(offset: u64) -> u64 {
    (0xD15C << 48) | (offset / SECTOR as u64)
}

/// Writes it.
pub fn prepare() -> io::Result<()> {
    let disk = OpenOptions::new().write(true).open(PATH)?;
    let size = (&disk).seek(SeekFrom::End(0))?;
    for (start, end) in [(0, HEAD), (size - TAIL, size)] {
        let sectors = start / SECTOR as u64..end / SECTOR as u64;
        disk.write_all_at(&sectors.flat_map(sector).collect::<Vec<u8>>(), start)?;
    }
    disk.sync_all()
}

fn sector(number: u64) -> [u8; SECTOR] {
    let mut bytes = [0x5A; SECTOR];
    let first = number * SECTOR as u64;
    bytes[..8].copy_from_slice(&value(first).to_ne_bytes());
    // It is the last of the page that began seven sectors before.
    bytes[SECTOR - 8..].copy_from_slice(&value(first.saturating_sub((OF_PAGE - 1) * SECTOR as u64)).to_ne_bytes());
    bytes
}

/// It, open for direct reads.
pub struct Disk {
    /// The file.
    pub file: File,
    /// Its length in bytes.
    pub size: u64,
}

impl Disk {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(PATH)?;
        let size = (&file).seek(SeekFrom::End(0))?;
        Ok(Self { file, size })
    }

    /// A place from which `pages` pages are known; often one near the end, or behind it.
    pub fn place(&self, random: &mut Random, pages: usize) -> u64 {
        if random.once_in(8) {
            // Of the page that the file ends in the last word would be no other's.
            let before = random.below(usize::try_from(TAIL).unwrap_or(0) / PAGE) * PAGE;
            return self.size + 16 * PAGE as u64 - before as u64;
        }
        let room = usize::try_from(HEAD).unwrap_or(0) - pages * PAGE;
        (random.below(room / SECTOR) * SECTOR) as u64
    }
}
