//! Proofs: a tier is believed once a unit of the file, read by it over a sentinel, is byte for byte what the page cache
//! reads there; or, written by it, is read back so. It does *not* choose tiers.

use std::ptr::NonNull;
use std::sync::Arc;

use limosa_os::DataFile;
use limosa_os::shim::Direction;
use limosa_os::{FileError, FileErrorKind};

use super::pump::locked;
use crate::core::Core;
use crate::error::PagerError;
use crate::handler;

/// What memory holds before it is read into. Nobody's zeros, and no text.
const SENTINEL: u8 = 0xB5;
/// Tries, since somebody may be writing to the file.
const TRIES: u32 = 3;

/// What came of a proof.
pub(super) enum Proof {
    /// The tier serves.
    Proven,
    /// The file ends within the unit: of so little not all is known.
    Open,
    /// It does not serve, and why.
    Failed(String),
}

/// What is to be tried: a unit of a file, and memory for it, all of which is aligned.
pub(super) struct Unit {
    pub(super) file: Arc<DataFile>,
    pub(super) direction: Direction,
    pub(super) offset: u64,
    pub(super) memory: NonNull<u8>,
    pub(super) len: usize,
}

/// The memory of a unit, on its way to the thread that tries it.
struct Sent(Unit);

// SAFETY: whoever begins a proof leaves the memory to it.
unsafe impl Send for Sent {}

/// Tries direct I/O of a unit in a thread of its own, since a file may not answer for long, and has the pump told of what
/// came of it.
///
/// # Safety
/// The memory is good for the unit, and nobody else uses it, until the pump is told.
///
/// # Errors
/// [`PagerError::Os`] if there is no thread: nothing is tried then.
pub(super) unsafe fn begin(core: Arc<Core>, transfer: usize, unit: Unit) -> Result<(), PagerError> {
    let sent = Sent(unit);
    let run = move || {
        let Sent(unit) = { sent };
        // SAFETY: as the caller promises.
        let proof = unsafe { prove(&unit) };
        // The file is the transfer's alone by the time that it ends.
        drop(unit);
        locked(&core.pumps.proofs).push((transfer, proof.map_err(PagerError::from)));
        core.pumps.look_around();
    };
    handler::spawn("limosa-proof", run).map(drop)
}

/// Tries it. What is to be read is left in place of the sentinel; what could not be proven leaves the memory as it was.
///
/// # Safety
/// The memory is good for the unit, and nobody else uses it meanwhile.
///
/// # Errors
/// The file's, where that says nothing of the tier: the transfer itself will meet it.
unsafe fn prove(unit: &Unit) -> Result<Proof, FileError> {
    let Unit { file, direction, offset, memory, len } = unit;
    let (direction, offset, memory, len) = (*direction, *offset, *memory, *len);
    // SAFETY: as the caller promises; each time for a moment. What is to be written is only looked at: others read it, too.
    let now = |len: usize| unsafe { std::slice::from_raw_parts(memory.as_ptr(), len) };
    let before = now(len).to_vec();
    let put = |from: usize, bytes: &[u8]| {
        if direction == Direction::FromFile {
            // SAFETY: within the memory, which is nobody else's.
            unsafe { memory.as_ptr().add(from).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
    };
    let (sentinel, mut twin) = (vec![SENTINEL; len], vec![0; len]);
    for _ in 0..TRIES {
        put(0, &sentinel);
        // SAFETY: as the caller promises; nothing refers to the memory now.
        let moved = unsafe {
            match direction {
                Direction::FromFile => file.read_direct_at(memory, len, offset),
                Direction::ToFile => file.write_direct_at(memory, len, offset),
            }
        };
        let moved = match moved {
            Ok(moved) => moved,
            Err(error) => {
                put(0, &before);
                return match error.kind() {
                    FileErrorKind::Refused | FileErrorKind::BadMemory => {
                        Ok(Proof::Failed(format!("it was tried: {error}")))
                    }
                    _ => Err(error),
                };
            }
        };
        let cached = file.is_readable().then(|| file.read_at(&mut twin[..moved], offset)).transpose();
        let cached = cached.inspect_err(|_| put(0, &before))?;
        match cached {
            Some(cached) if cached == moved && twin[..moved] == *now(moved) => {
                put(moved, &before[moved..]);
                return Ok(if moved == len { Proof::Proven } else { Proof::Open });
            }
            // There is no second way to look at it.
            None => return Ok(Proof::Proven),
            Some(_) => {}
        }
    }
    put(0, &before);
    let bytes = format!("{len} bytes at byte {offset}");
    Ok(Proof::Failed(format!(
        "it was tried with {bytes}, {TRIES} times, and what arrived was not what the page cache reads there"
    )))
}
