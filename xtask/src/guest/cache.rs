//! What is kept between runs, below the target folder: one entry for each thing, named by what it was made from, so that
//! an entry that is there is right. A run holds the lock to its end: two at
//! a time would write each other's logs, and each would slow the other's guest beyond its limits.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::command::say;
use crate::error::Error;
use crate::setup::Privilege;

/// The folder of the cache, locked.
pub(crate) struct Cache {
    folder: PathBuf,
    privilege: Privilege,
    /// Held until this is dropped.
    _lock: File,
    /// The entries that this run uses: all others are of older packages or recipes.
    used: Mutex<Vec<String>>,
}

impl Cache {
    /// Opens the cache below the folder for build output, and waits for another run's end.
    pub(crate) fn open(target: &Path, privilege: Privilege) -> Result<Self, Error> {
        let folder = target.join("guest");
        fs::create_dir_all(&folder).map_err(Error::io(format!("cannot make the folder {}", folder.display())))?;
        let path = folder.join("lock");
        let failed = || Error::io(format!("cannot lock {}", path.display()));
        let lock = File::options().create(true).append(true).open(&path).map_err(failed())?;
        if lock.try_lock().is_err() {
            say(&format!("guest: waiting for another run, which holds {}", path.display()));
            lock.lock().map_err(failed())?;
        }
        Ok(Self { folder, privilege, _lock: lock, used: Mutex::new(Vec::new()) })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// The entry `kind`, made by `make` if none was made from the same `ingredients` before. `make` gets a path at which
    /// nothing is; what it leaves there becomes the entry only if it succeeds.
    pub(crate) fn entry(
        &self,
        kind: &str,
        ingredients: &[String],
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let name = format!("{kind}-{:016x}", hash(ingredients));
        let path = self.folder.join(&name);
        if let Ok(mut used) = self.used.lock() {
            used.push(name.clone());
        }
        if path.exists() {
            return Ok(path);
        }
        say(&format!("guest: making {kind}"));
        let unfinished = self.folder.join(format!("{name}.unfinished"));
        self.remove(&unfinished)?;
        make(&unfinished)?;
        fs::rename(&unfinished, &path).map_err(Error::io(format!("cannot make {}", path.display())))?;
        Ok(path)
    }

    /// Removes the entries of the `kinds` that this run did not use.
    pub(crate) fn settle(&self, kinds: &[&str]) -> Result<(), Error> {
        let used = self.used.lock().map_or_else(|_| Vec::new(), |used| used.clone());
        let failed = || Error::io(format!("cannot read {}", self.folder.display()));
        for entry in fs::read_dir(&self.folder).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name().to_string_lossy().into_owned();
            let kind = name.rsplit_once('-').map_or("", |(kind, _)| kind);
            if kinds.contains(&kind) && !used.contains(&name) {
                self.remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Removes a file or a tree that may be root's.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), Error> {
        if !path.exists() {
            return Ok(());
        }
        let shown = path.to_string_lossy();
        let mut command = self.privilege.command("rm", &["-rf", "--one-file-system", &shown]);
        crate::command::output(&mut command).map(drop)
    }
}

fn hash(ingredients: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    ingredients.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::TempDir;

    fn make(cache: &Cache, ingredient: &str, made: &mut u32) -> PathBuf {
        let make = |path: &Path| {
            *made += 1;
            fs::write(path, ingredient).map_err(Error::io("write"))
        };
        cache.entry("thing", &[ingredient.to_owned()], make).unwrap()
    }

    #[test]
    fn an_entry_is_made_once_and_goes_when_it_is_of_older_ingredients() {
        let temp = TempDir::new().unwrap();
        let cache = Cache::open(temp.path(), Privilege::Root).unwrap();
        let mut made = 0;
        let old = make(&cache, "1", &mut made);
        assert_eq!((make(&cache, "1", &mut made), made), (old.clone(), 1));
        drop(cache);
        let cache = Cache::open(temp.path(), Privilege::Root).unwrap();
        let new = make(&cache, "2", &mut made);
        cache.settle(&["other"]).unwrap();
        assert!(old.exists() && new.exists() && made == 2);
        cache.settle(&["thing"]).unwrap();
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn a_run_has_the_cache_for_itself_to_its_end() {
        let temp = TempDir::new().unwrap();
        let cache = Cache::open(temp.path(), Privilege::Root).unwrap();
        cache.settle(&["thing"]).unwrap();
        let other = File::open(cache.folder().join("lock")).unwrap();
        assert!(other.try_lock_shared().is_err());
        drop(cache);
        other.try_lock_shared().unwrap();
    }

    #[test]
    fn what_failed_is_no_entry() {
        let temp = TempDir::new().unwrap();
        let cache = Cache::open(temp.path(), Privilege::Root).unwrap();
        let half = |path: &Path| {
            fs::write(path, "half").unwrap();
            Err(Error::Guest("full".to_owned()))
        };
        assert!(cache.entry("thing", &[], half).is_err());
        let whole = cache.entry("thing", &[], |path| fs::write(path, "whole").map_err(Error::io("write"))).unwrap();
        assert_eq!(fs::read_to_string(whole).unwrap(), "whole");
    }
}
