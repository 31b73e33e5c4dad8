//! What was tried of files, with which tier, and what came of it. It does *not* try anything: `proof` does.

use std::collections::{HashMap, HashSet};

use limosa_model::Side;
use limosa_os::DataFile;
use limosa_os::shim::Direction;

use super::tier::{Experience, Tier};

/// A file of less than this is believed to be like others of its file system: to try each of many small ones would cost
/// more than it tells.
const ALIKE_BELOW: u64 = 1 << 20;

/// What is tried: of a file, by its number, with which tier, which way, on which side.
pub(super) type Tried = (u64, Tier, Direction, Side);

/// A file's file system and disk, in the place of the file.
type Alike = (String, Option<String>, Tier, Direction, Side);

/// What came of all trials.
#[derive(Default)]
pub(super) struct Trials {
    proven: HashSet<Tried>,
    failed: HashMap<Tried, String>,
    /// Of which a file was proven.
    alike: HashSet<Alike>,
}

fn kind_of((_, tier, direction, side): Tried, file: &DataFile) -> Alike {
    let disk = file.facts().device.as_ref().map(|device| device.name.clone());
    (file.facts().file_system.clone(), disk, tier, direction, side)
}

impl Trials {
    /// It serves.
    pub(super) fn proves(&mut self, trial: Tried, file: &DataFile) {
        self.proven.insert(trial);
        self.alike.insert(kind_of(trial, file));
    }

    /// It does not, and why.
    pub(super) fn refutes(&mut self, trial: Tried, reason: String) {
        self.failed.insert(trial, reason);
    }

    pub(super) fn is_refuted(&self, trial: &Tried) -> bool {
        self.failed.contains_key(trial)
    }

    /// Whether a tier need not be tried for a file of `bytes` bytes.
    pub(super) fn believes(&self, trial: Tried, file: &DataFile, bytes: u64) -> bool {
        let alike = || file.facts().device.is_some() && self.alike.contains(&kind_of(trial, file));
        self.proven.contains(&trial) || bytes < ALIKE_BELOW && alike()
    }

    /// A file is closed.
    pub(super) fn forget(&mut self, file: u64) {
        self.proven.retain(|(other, ..)| *other != file);
        self.failed.retain(|(other, ..), _| *other != file);
    }

    /// What is known of a stretch that is to be moved; `hot`: whether the page cache has it.
    pub(super) fn of(&self, file: u64, direction: Direction, side: Side, hot: bool) -> Known<'_> {
        Known { failed: &self.failed, file, direction, side, hot }
    }
}

/// What is known of a stretch.
pub(super) struct Known<'a> {
    failed: &'a HashMap<Tried, String>,
    file: u64,
    direction: Direction,
    side: Side,
    hot: bool,
}

impl Experience for Known<'_> {
    fn failed(&self, tier: Tier) -> Option<String> {
        self.failed.get(&(self.file, tier, self.direction, self.side)).cloned()
    }

    fn is_hot(&self) -> bool {
        self.hot
    }
}
