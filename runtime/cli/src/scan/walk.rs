//! Which files a scan is of: those that are named, and those in directories that are named. Nothing is opened but
//! directories, so that no pipe can hold it up; what is left out is counted with the reason, or named where it should
//! have been read.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What tells whether a file is still the same: device, number, length, and the times of the last change of its bytes
/// and of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    pub(crate) bytes: u64,
    changed: [i64; 4],
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let changed = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        Self { device: metadata.dev(), inode: metadata.ino(), bytes: metadata.len(), changed }
    }

    /// That of the file at `path` as it is now.
    pub(crate) fn now(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }
}

/// A regular file that is not empty.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) stamp: Stamp,
}

/// What should have been read and was not.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) path: PathBuf,
    /// Why, in words.
    pub(crate) reason: String,
}

/// Why something is rightly left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LeftOut {
    Empty,
    Link,
    SameFile,
    Pipe,
    Socket,
    Device,
    OtherFileSystem,
}

impl LeftOut {
    /// For people, behind a number.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Empty => "empty files",
            Self::Link => "symbolic links, not followed",
            Self::SameFile => "further names of files already seen",
            Self::Pipe => "pipes",
            Self::Socket => "sockets",
            Self::Device => "devices",
            Self::OtherFileSystem => "directories of other file systems",
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// In the order of the arguments, and of names in directories.
    pub(crate) files: Vec<Found>,
    pub(crate) unread: Vec<Unread>,
    pub(crate) left_out: BTreeMap<LeftOut, u64>,
    seen: HashSet<(u64, u64)>,
}

impl Walk {
    /// Goes through `paths`; a link among these is followed. `step` is told of each file.
    pub(crate) fn through(paths: &[PathBuf], one_file_system: bool, mut step: impl FnMut(&Self)) -> Self {
        let mut walk = Self::default();
        for path in paths {
            match fs::metadata(path) {
                Ok(metadata) => walk.below(path.clone(), metadata, one_file_system, &mut step),
                Err(error) => walk.cannot(path, &error),
            }
        }
        walk
    }

    fn below(&mut self, path: PathBuf, metadata: Metadata, one_file_system: bool, step: &mut impl FnMut(&Self)) {
        let device = metadata.dev();
        // The next one is the last.
        let mut pending = vec![(path, metadata)];
        while let Some((path, metadata)) = pending.pop() {
            if !metadata.is_dir() {
                self.enter(path, &metadata);
                step(self);
            } else if one_file_system && metadata.dev() != device {
                self.leave_out(LeftOut::OtherFileSystem);
            } else if self.seen.insert((metadata.dev(), metadata.ino())) {
                self.list(&path, &mut pending);
            }
        }
    }

    /// Puts what is in the directory on the list, by names from the last to the first.
    fn list(&mut self, directory: &Path, pending: &mut Vec<(PathBuf, Metadata)>) {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => return self.cannot(directory, &error),
        };
        let mut paths = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => paths.push(entry.path()),
                Err(error) => self.cannot(directory, &error),
            }
        }
        paths.sort_unstable_by(|one, other| other.cmp(one));
        for path in paths {
            match fs::symlink_metadata(&path) {
                Ok(metadata) => pending.push((path, metadata)),
                Err(error) => self.cannot(&path, &error),
            }
        }
    }

    fn enter(&mut self, path: PathBuf, metadata: &Metadata) {
        if let Some(reason) = special(metadata.file_type()) {
            return self.leave_out(reason);
        }
        let stamp = Stamp::of(metadata);
        // Another name costs no room: it is no duplicate.
        if !self.seen.insert((stamp.device, stamp.inode)) {
            self.leave_out(LeftOut::SameFile);
        } else if stamp.bytes == 0 {
            self.leave_out(LeftOut::Empty);
        } else {
            self.files.push(Found { path, stamp });
        }
    }

    fn leave_out(&mut self, reason: LeftOut) {
        *self.left_out.entry(reason).or_default() += 1;
    }

    fn cannot(&mut self, path: &Path, error: &io::Error) {
        self.unread.push(Unread { path: path.to_owned(), reason: error.to_string() });
    }
}

/// Why a file of this kind has no bytes of its own.
fn special(kind: FileType) -> Option<LeftOut> {
    match kind {
        _ if kind.is_file() => None,
        _ if kind.is_symlink() => Some(LeftOut::Link),
        _ if kind.is_fifo() => Some(LeftOut::Pipe),
        _ if kind.is_socket() => Some(LeftOut::Socket),
        _ => Some(LeftOut::Device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("limosa-walk-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("b/c")).unwrap();
        folder
    }

    #[test]
    fn files_come_by_name_each_once_and_links_are_counted() {
        let folder = scratch("names");
        for name in ["b/c/1", "b/.hidden", "a", "c"] {
            fs::write(folder.join(name), "x").unwrap();
        }
        fs::write(folder.join("empty"), "").unwrap();
        fs::hard_link(folder.join("a"), folder.join("z")).unwrap();
        symlink(".", folder.join("b/loop")).unwrap();
        symlink("missing", folder.join("broken")).unwrap();
        let paths = [folder.clone(), folder.join("b"), folder.join("missing")];
        let walk = Walk::through(&paths, true, |_| {});
        let names: Vec<_> = walk.files.iter().map(|file| file.path.strip_prefix(&folder).unwrap()).collect();
        assert_eq!(names, ["a", "b/.hidden", "b/c/1", "c"].map(Path::new));
        let left_out = [(LeftOut::Empty, 1), (LeftOut::Link, 2), (LeftOut::SameFile, 1)];
        assert_eq!(walk.left_out, left_out.into());
        assert_eq!((walk.unread.len(), walk.files.len()), (1, 4));
        assert!(walk.unread[0].path.ends_with("missing") && walk.unread[0].reason.contains("No such file"));
        // A link that is named is followed.
        let named = Walk::through(&[folder.join("b/loop")], false, |_| {});
        assert_eq!(named.files.len(), 2);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_changes_has_another_stamp() {
        let folder = scratch("stamp");
        let path = folder.join("file");
        fs::write(&path, "ab").unwrap();
        let before = Stamp::now(&path).unwrap();
        assert_eq!(Stamp::now(&path).unwrap(), before);
        fs::write(&path, "abc").unwrap();
        assert_ne!(Stamp::now(&path).unwrap(), before);
        fs::remove_dir_all(folder).unwrap();
    }
}
