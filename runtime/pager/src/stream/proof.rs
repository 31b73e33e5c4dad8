//! Proofs: a tier is believed once a unit of the file, read by it over a sentinel, is byte for byte what the page cache
//! reads there; or, written by it, is read back so. It does *not* choose tiers.

use std::ptr::NonNull;

use limosa_os::DataFile;
use limosa_os::shim::Direction;
use limosa_os::{FileError, FileErrorKind};

/// What memory holds before it is read into. Nobody's zeros, and no text.
const SENTINEL: u8 = 0xB5;
/// Tries, since somebody may be writing to the file.
const TRIES: u32 = 3;

/// What came of a proof.
pub(super) enum Proof {
    /// It was as it should be, or there is no second way to look at it.
    Holds,
    /// There was nothing to compare: the file ends before.
    Empty,
    /// Why the tier does not serve.
    Fails(String),
}

/// Tries direct I/O between `len` bytes at `memory` and the file's at `offset`, all of which is aligned. What is to be
/// read is left in place of the sentinel; what could not be proven leaves the memory as it was.
///
/// # Safety
/// `memory` is good for `len` bytes, and nobody else uses them meanwhile.
///
/// # Errors
/// The file's, where that says nothing of the tier: the transfer itself will meet it.
pub(super) unsafe fn prove(
    file: &DataFile,
    direction: Direction,
    memory: NonNull<u8>,
    offset: u64,
    len: usize,
) -> Result<Proof, FileError> {
    // SAFETY: as the caller promises.
    let own = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), len) };
    let before = own.to_vec();
    let mut twin = vec![0; len];
    for _ in 0..TRIES {
        if direction == Direction::FromFile {
            own.fill(SENTINEL);
        }
        // SAFETY: as the caller promises; the slice is not used meanwhile.
        let moved = unsafe {
            match direction {
                Direction::FromFile => file.read_direct_at(memory, len, offset),
                Direction::ToFile => file.write_direct_at(memory, len, offset),
            }
        };
        let moved = match moved {
            Ok(moved) => moved,
            Err(error) => {
                own.copy_from_slice(&before);
                return match error.kind() {
                    FileErrorKind::Refused | FileErrorKind::BadMemory => {
                        Ok(Proof::Fails(format!("it was tried: {error}")))
                    }
                    _ => Err(error),
                };
            }
        };
        let cached = file.is_readable().then(|| file.read_at(&mut twin[..moved], offset)).transpose()?;
        match cached {
            Some(cached) if cached == moved && twin[..moved] == own[..moved] => {
                own[moved..].copy_from_slice(&before[moved..]);
                return Ok(if moved == 0 { Proof::Empty } else { Proof::Holds });
            }
            // There is no second way to look at it.
            None => return Ok(Proof::Holds),
            Some(_) => {}
        }
    }
    own.copy_from_slice(&before);
    let bytes = format!("{len} bytes at byte {offset}");
    Ok(Proof::Fails(format!(
        "it was tried with {bytes}, {TRIES} times, and what arrived was not what the page cache reads there"
    )))
}
