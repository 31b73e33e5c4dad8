//! The same by the CPU: it reads all files anew with `read(2)`, takes fingerprints by the kernel's twin, finds
//! duplicates by a map of its own, and compares each byte for byte with what it is a duplicate of.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use limosa_shaders::digest;

use super::matches::{Counted, Matches, Place};
use super::plan::Cut;
use super::walk::{Found, Stamp};
use crate::error::CliError;
use crate::kernels::Records;
use crate::progress::Bytes;

/// Verifies what the walk has left in the records, and what it counted. Answers how many blocks were compared with what
/// they are duplicates of.
pub(crate) fn verify(
    files: &[Found],
    counted: &[Counted],
    cut: Cut,
    records: &Records,
    matches: &Matches,
) -> Result<u64, CliError> {
    let sound = || counted.iter().enumerate().filter(|(_, file)| file.sound);
    let progress = Bytes::start("verifying", sound().map(|(_, file)| file.bytes).sum());
    let found = records.read().map_err(CliError::during("verifying"))?;
    let mut twin = Twin { files, cut, first: HashMap::new(), original: None, blocks: 0, bytes: 0 };
    let mut done = 0;
    for (index, file) in sound() {
        let mut number = file.first;
        twin.file(index, |place, key, original| {
            let record = found.follow(records.ptr(0).add(number)).ok_or(CliError::BrokenChain)?;
            let leads = found.follow(record.next());
            let leads = leads.map(|of| Place { file: of.file(), offset: of.number() * cut.block });
            number += 1;
            if (record.key(), leads) == (key, original) {
                return Ok(());
            }
            let name = |place: Place| format!("{} at {}", files[place.file].path.display(), place.offset);
            let led = |leads: Option<Place>| leads.map_or_else(|| "no other".to_owned(), name);
            Err(CliError::Block {
                place: name(place),
                found: (record.key(), led(leads)),
                expected: (key, led(original)),
            })
        })?;
        done += file.bytes;
        progress.at(done);
    }
    let (found, expected) = ([matches.duplicate_blocks, matches.duplicate_bytes], [twin.blocks, twin.bytes]);
    if found == expected { Ok(twin.blocks) } else { Err(CliError::Duplicates { found, expected }) }
}

/// What the CPU knows of the files so far.
struct Twin<'a> {
    files: &'a [Found],
    cut: Cut,
    /// Where each fingerprint came first.
    first: HashMap<[u32; 4], Place>,
    /// The file opened last to compare with.
    original: Option<(usize, File)>,
    /// Duplicates.
    blocks: u64,
    bytes: u64,
}

impl Twin<'_> {
    /// Goes over a file; `take` is given the place, the fingerprint and the original of each block.
    fn file(
        &mut self,
        index: usize,
        mut take: impl FnMut(Place, [u32; 4], Option<Place>) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let Found { path, stamp } = &self.files[index];
        let failed = |source: io::Error| CliError::Reread { path: path.clone(), source };
        // The last look comes first in the error, too: what changed under the scan's feet is no mismatch.
        let changed = || CliError::ChangedSince { path: path.clone() };
        let unchanged = || Stamp::now(path).is_ok_and(|now| now == *stamp);
        if !unchanged() {
            return Err(changed());
        }
        let file = File::open(path).map_err(failed)?;
        let mut block = vec![0; usize::try_from(self.cut.block).unwrap_or(usize::MAX)];
        for offset in (0..stamp.bytes).step_by(block.len()) {
            let length = usize::try_from(stamp.bytes - offset).unwrap_or(usize::MAX).min(block.len());
            let bytes = &mut block[..length];
            file.read_exact_at(bytes, offset).map_err(failed)?;
            let (place, key) = (Place { file: index, offset }, digest::twin(bytes));
            let original = self.first.get(&key).copied();
            let outcome = match original {
                Some(original) => self.compare(place, bytes, original),
                None => {
                    self.first.insert(key, place);
                    Ok(())
                }
            };
            let outcome = outcome.and_then(|()| take(place, key, original));
            outcome.map_err(|error| if unchanged() { error } else { changed() })?;
        }
        Ok(())
    }

    /// That a block equals the one that is its original.
    fn compare(&mut self, place: Place, bytes: &[u8], original: Place) -> Result<(), CliError> {
        let path = &self.files[original.file].path;
        let failed = |source: io::Error| CliError::Reread { path: path.clone(), source };
        let file = match self.original.take() {
            Some((index, file)) if index == original.file => file,
            _ => File::open(path).map_err(failed)?,
        };
        let mut others = vec![0; bytes.len()];
        let read = file.read_exact_at(&mut others, original.offset);
        self.original = Some((original.file, file));
        // The end of a file that is too short for it cannot be equal.
        if read.is_err() || others != bytes {
            let name = |place: Place| format!("{} at {}", self.files[place.file].path.display(), place.offset);
            return Err(CliError::Collision { place: name(place), original: name(original) });
        }
        self.blocks += 1;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}
