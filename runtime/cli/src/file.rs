//! The file of the demo's second part: which it is, and reading it with plain `read(2)`, for the twins. How the device
//! comes by it is not its business.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why there is no file to look at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It is not there, or may not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// A directory.
    #[error("{} is a directory: --file takes a regular file", path.display())]
    Directory { path: PathBuf },
    /// A pipe, a device or the like: it has no size, and might not end.
    #[error("{} is not a regular file: --file takes one", path.display())]
    NotRegular { path: PathBuf },
    /// Nothing is in it.
    #[error("{} is empty: there is nothing to fingerprint", path.display())]
    Empty { path: PathBuf },
    /// Someone else cut it.
    #[error("{} became shorter while it was read: {read} bytes where {expected} were expected", path.display())]
    Shortened { path: PathBuf, read: u64, expected: u64 },
}

/// A file to read, and how much of it.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    /// How it came to be chosen, for people.
    pub(crate) chosen: &'static str,
    /// Bytes in all.
    pub(crate) size: u64,
    /// Bytes to be read, from the start.
    pub(crate) len: u64,
}

impl Source {
    /// The first `limit` bytes of the file at `path`; by default that of [`default_path`].
    pub(crate) fn choose(path: Option<&Path>, limit: u64) -> Result<Self, FileError> {
        let (path, chosen) = match path {
            Some(path) => (path.to_owned(), "as asked for"),
            None => default_path()?,
        };
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(source) => return Err(FileError::Unreadable { path, source }),
        };
        let size = metadata.len();
        match metadata.file_type() {
            kind if kind.is_dir() => Err(FileError::Directory { path }),
            kind if !kind.is_file() => Err(FileError::NotRegular { path }),
            _ if size == 0 => Err(FileError::Empty { path }),
            _ => Ok(Self { path, chosen, size, len: size.min(limit) }),
        }
    }

    /// The path, for people.
    pub(crate) fn name(&self) -> impl std::fmt::Display {
        self.path.display()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file into ordinary memory, and gives it away in pieces of `size` bytes.
    pub(crate) fn for_each(&self, size: usize, mut take: impl FnMut(&[u8])) -> Result<(), FileError> {
        let mut file = self.open()?;
        let mut buffer = vec![0; size];
        let mut read = 0;
        while read < self.len {
            let piece = usize::try_from(self.len - read).unwrap_or(size).min(size);
            read += self.fill(&mut file, &mut buffer[..piece], read)?;
            take(&buffer[..piece]);
        }
        Ok(())
    }

    fn open(&self) -> Result<File, FileError> {
        File::open(&self.path).map_err(|source| self.unreadable(source))
    }

    fn unreadable(&self, source: io::Error) -> FileError {
        FileError::Unreadable { path: self.path.clone(), source }
    }

    /// Fills all of `target`; `before` bytes were read earlier.
    fn fill(&self, file: &mut File, target: &mut [u8], before: u64) -> Result<u64, FileError> {
        let mut filled = 0;
        while filled < target.len() {
            match file.read(&mut target[filled..]) {
                Ok(0) => {
                    let (path, read) = (self.path.clone(), before + filled as u64);
                    return Err(FileError::Shortened { path, read, expected: self.len });
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.unreadable(source)),
            }
        }
        Ok(filled as u64)
    }
}

/// The largest file of the Rust toolchain; without one this program itself.
fn default_path() -> Result<(PathBuf, &'static str), FileError> {
    let folders = sysroot().into_iter().chain(rustup());
    if let Some(path) = folders.filter_map(|folder| largest(&folder)).next() {
        return Ok((path, "the largest file of the Rust toolchain"));
    }
    let own = std::env::current_exe();
    let own = own.map_err(|source| FileError::Unreadable { path: PathBuf::from("/proc/self/exe"), source })?;
    Ok((own, "this program itself: there is no Rust toolchain"))
}

/// The libraries of the toolchain that `rustc` belongs to.
fn sysroot() -> Option<PathBuf> {
    let rustc = Command::new("rustc").args(["--print", "sysroot"]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = rustc.ok().filter(|output| output.status.success())?;
    let path = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(path.trim_end()).join("lib"))
}

/// Where rustup keeps its toolchains.
fn rustup() -> Option<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup")))?;
    Some(home.join("toolchains"))
}

/// The largest regular file that is not empty under `folder`; links are not followed, and what cannot be read is
/// passed over.
fn largest(folder: &Path) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut best: Option<(u64, PathBuf)> = None;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && metadata.len() > best.as_ref().map_or(0, |(size, _)| *size) {
                best = Some((metadata.len(), entry.path()));
            }
        }
    }
    best.map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("limosa-file-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("inner")).unwrap();
        folder
    }

    #[test]
    fn the_largest_file_is_found_in_any_folder() {
        let folder = scratch("largest");
        assert_eq!(largest(&folder), None);
        fs::write(folder.join("small"), "ab").unwrap();
        fs::write(folder.join("inner/large"), "abc").unwrap();
        assert_eq!(largest(&folder), Some(folder.join("inner/large")));
        assert_eq!(largest(&folder.join("missing")), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_read_is_the_start_of_the_file() {
        let folder = scratch("read");
        let path = folder.join("bytes");
        fs::write(&path, "0123456789").unwrap();
        let source = Source::choose(Some(&path), 7).unwrap();
        assert_eq!((source.size, source.len), (10, 7));
        let mut pieces = Vec::new();
        source.for_each(3, |piece| pieces.push(piece.to_vec())).unwrap();
        assert_eq!(pieces, [&b"012"[..], b"345", b"6"]);
        fs::write(&path, "0123").unwrap();
        let error = source.for_each(7, |_| {}).unwrap_err();
        assert!(matches!(error, FileError::Shortened { read: 4, expected: 7, .. }), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }
}
