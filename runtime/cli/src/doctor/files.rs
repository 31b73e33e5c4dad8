//! What `limosa doctor FILE…` says: which ways a file's data can take to the device and back, which of them was tried, why
//! a better one does not serve, and what would change it. Files are read a little, and never written.

use std::path::{Path, PathBuf};

use limosa::{Context, DataFile, Direction, FileFacts, FileKind, Tier};
use serde::Serialize;

use crate::error::with_causes;

/// Bytes of a file that are read to try a tier, at most.
const TRIED: u64 = 1 << 20;

/// What was found out about a file.
#[derive(Debug, Serialize)]
pub(super) struct FileReport {
    pub(super) file: PathBuf,
    /// Why it could not be opened; nothing else is known then.
    pub(super) problem: Option<String>,
    pub(super) facts: Option<Facts>,
    /// Best first.
    pub(super) reading: Vec<TierReport>,
    /// Best first; none if this user may not write it.
    pub(super) writing: Vec<TierReport>,
}

/// What the kernel says of a file.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    /// `regular`, `block_device` or `stream`.
    pub(super) kind: &'static str,
    pub(super) bytes: Option<u64>,
    /// How many of them the page cache has.
    pub(super) cached_bytes: Option<u64>,
    pub(super) file_system: String,
    /// The disk's name.
    pub(super) disk: Option<String>,
    pub(super) checksums: bool,
    /// What direct I/O wants: of memory, and of offsets and lengths.
    pub(super) direct_alignment: Option<[u32; 2]>,
    /// Why there is no direct I/O.
    pub(super) no_direct: Option<String>,
}

/// A tier for one direction.
#[derive(Debug, Serialize)]
pub(super) struct TierReport {
    pub(super) tier: String,
    pub(super) serves: bool,
    /// Bytes that were read by it to find out.
    pub(super) tried_bytes: u64,
    /// Why not, and what would change it.
    pub(super) obstacle: Option<String>,
}

/// Looks at each file.
pub(super) fn examine(context: Option<&Context>, files: &[PathBuf]) -> Vec<FileReport> {
    files.iter().map(|file| examine_one(context, file)).collect()
}

fn examine_one(context: Option<&Context>, path: &Path) -> FileReport {
    let mut report =
        FileReport { file: path.into(), problem: None, facts: None, reading: Vec::new(), writing: Vec::new() };
    // To open a pipe would wait for its other end.
    let file = match DataFile::options().read(true).storage(true).open(path) {
        Ok(file) => file,
        Err(error) => {
            report.problem = Some(with_causes(&error));
            return report;
        }
    };
    report.facts = Some(Facts::of(&file));
    let Some(context) = context else { return report };
    report.reading = tiers(context, &file, Direction::FromFile);
    for tier in report.reading.iter_mut().filter(|tier| tier.serves) {
        match try_to_read(context, &file, &tier.tier) {
            Ok(bytes) => tier.tried_bytes = bytes,
            Err(error) => (tier.serves, tier.obstacle) = (false, Some(with_causes(&error))),
        }
    }
    if let Ok(file) = DataFile::options().read(true).write(true).storage(true).open(path) {
        report.writing = tiers(context, &file, Direction::ToFile);
    }
    report
}

fn tiers(context: &Context, file: &DataFile, direction: Direction) -> Vec<TierReport> {
    let verdicts = context.tiers(file, direction).into_iter();
    let report = |verdict: limosa::TierVerdict| TierReport {
        tier: verdict.tier.to_string(),
        serves: verdict.obstacle.is_none(),
        tried_bytes: 0,
        obstacle: verdict.obstacle,
    };
    verdicts.map(report).collect()
}

/// Reads the start of the file by one tier.
fn try_to_read(context: &Context, file: &DataFile, tier: &str) -> limosa::Result<u64> {
    let len = file.len()?.unwrap_or(0).min(TRIED);
    let Some(tier) = Tier::ALL.into_iter().find(|other| other.to_string() == tier).filter(|_| len > 0) else {
        return Ok(0);
    };
    let mut target = context.heap().vec_zeroed::<u8>(usize::try_from(len).unwrap_or(0))?;
    let report = context.queue()?.read_file(file, 0, &mut target).tier(tier).submit()?.wait()?;
    Ok(report.bytes)
}

impl Facts {
    fn of(file: &DataFile) -> Self {
        let FileFacts { kind, file_system, direct, device, checksums } = file.facts().clone();
        let kind = match kind {
            FileKind::Regular => "regular",
            FileKind::BlockDevice => "block_device",
            FileKind::Stream => "stream",
        };
        let bytes = file.len().ok().flatten();
        Self {
            kind,
            bytes,
            cached_bytes: bytes.and_then(|bytes| file.cached_bytes(0, bytes)),
            file_system,
            disk: device.map(|device| device.name),
            checksums,
            direct_alignment: direct.as_ref().ok().map(|direct| [direct.memory_alignment, direct.offset_alignment]),
            no_direct: direct.err().map(|why| why.to_string()),
        }
    }
}
