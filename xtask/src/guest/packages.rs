//! Debian's packages for the guest, whatever release this machine has: the guest's own suites, from the archive that this
//! machine's apt uses, in a state of their own. It resolves versions and downloads; nothing is installed on the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::apt::{self, OsRelease};
use crate::command::{output, run_logged, say};
use crate::error::Error;

/// The release whose user space and compiler the guest has: the kernel is built with them.
const SUITE: &str = "trixie";
/// The package that always depends on the newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";
/// The least kernel that the shim is written for.
const MAJOR: &[u64] = &[7];
/// How old the package lists may be.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// The guest's package sources.
pub(crate) struct Archive {
    folder: PathBuf,
}

/// The newest kernel of the suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Release {
    /// As `uname -r` says: `7.3.4+deb13-cloud-amd64`.
    pub(crate) name: String,
    /// The version of its packages.
    pub(crate) version: String,
}

impl Release {
    /// The package of its source: it is named by the first two numbers.
    pub(crate) fn source(&self) -> String {
        let numbers: Vec<&str> = self.name.split(['.', '+', '-']).take(2).collect();
        format!("linux-source-{}", numbers.join("."))
    }
}

impl Archive {
    /// Makes apt's configuration below `folder`, and reads the package lists where they are missing or stale.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, Error> {
        let archive = Self { folder };
        for part in ["state/lists/partial", "cache/archives/partial", "parts"] {
            let part = archive.folder.join(part);
            fs::create_dir_all(&part).map_err(Error::io(format!("cannot make {}", part.display())))?;
        }
        archive.write("parts/guest.sources", &sources()?)?;
        archive.write("status", "")?;
        archive.write("apt.conf", &configuration(&archive.folder))?;
        archive.refresh()?;
        Ok(archive)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(Error::io(format!("cannot write {}", path.display())))
    }

    fn refresh(&self) -> Result<(), Error> {
        let stamp = self.folder.join("updated");
        let age = fs::metadata(&stamp).and_then(|stamp| stamp.modified()).ok().and_then(|when| when.elapsed().ok());
        if age.is_some_and(|age| age < STALE) {
            return Ok(());
        }
        say(&format!("guest: reading the package lists of {SUITE}"));
        match run_logged(self.apt("apt-get").args(["--error-on=any", "update"]), &self.folder.join("update.log")) {
            Ok(()) => self.write("updated", ""),
            // Without a network what was made before is as good as it was.
            Err(error) if age.is_some() => {
                say(&format!("guest: going on with the package lists of before: {error}"));
                Ok(())
            }
            Err(error) => Err(Error::Guest(format!(
                "the guest's packages come from Debian's archive, once, and it cannot be read: {error}. Is there a \
                 network? `cargo xtask test --no-guest` runs everything else"
            ))),
        }
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    /// The files that say where packages come from, for who installs into a folder.
    pub(crate) fn sources_file(&self) -> PathBuf {
        self.folder.join("parts/guest.sources")
    }

    /// The newest kernel.
    pub(crate) fn newest_kernel(&self) -> Result<Release, Error> {
        let shown = output(self.apt("apt-cache").args(["show", NEWEST]))?;
        newest(&stanzas(&String::from_utf8_lossy(&shown))).ok_or_else(|| {
            Error::Guest(format!("{SUITE}-backports has no {NEWEST} of version {}; the shim needs one", MAJOR[0]))
        })
    }

    /// The versions of `packages` that an installation would take, `name=version` each.
    pub(crate) fn versions(&self, packages: &[&str]) -> Result<Vec<String>, Error> {
        let shown = output(self.apt("apt-cache").arg("policy").args(packages))?;
        Ok(candidates(&String::from_utf8_lossy(&shown)))
    }

    /// Downloads packages of the kernel's version and unpacks them below `to`, without installing.
    pub(crate) fn unpack(&self, release: &Release, packages: &[String], to: &Path) -> Result<(), Error> {
        let debs = to.join("debs");
        fs::create_dir_all(&debs).map_err(Error::io(format!("cannot make {}", debs.display())))?;
        let versions = packages.iter().map(|package| format!("{package}={}", release.version));
        let log = to.join("log");
        run_logged(self.apt("apt-get").arg("download").args(versions).current_dir(&debs), &log)?;
        let failed = || Error::io(format!("cannot read {}", debs.display()));
        for deb in fs::read_dir(&debs).map_err(failed())? {
            let deb = deb.map_err(failed())?.path();
            run_logged(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(to), &log)?;
        }
        fs::remove_dir_all(&debs).map_err(Error::io(format!("cannot remove {}", debs.display())))
    }
}

/// The guest's sources, from where this machine's own release comes.
fn sources() -> Result<String, Error> {
    let os = OsRelease::parse(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let sources = apt::read_sources(Path::new("/etc/apt"))?;
    let archive = apt::debian_archive(&sources, &os.codename)
        .ok_or_else(|| Error::NoArchive { codename: os.codename.clone(), suite: SUITE.to_owned() })?;
    let suites = format!("{SUITE} {SUITE}-backports");
    Ok(apt::sources_file(archive, &suites, "the kernel and the user space of its test guest"))
}

/// Apt's configuration for a state of its own. What the machine says about proxies stays in force.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::State \"{folder}/state\";\n\
         Dir::State::status \"{folder}/status\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         Dir::Etc::sourcelist \"/dev/null\";\n\
         Dir::Etc::sourceparts \"{folder}/parts\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         APT::Sandbox::User \"\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled \"false\";\n\
         Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled \"false\";\n"
    )
}

/// The stanzas of `apt-cache show`, fields by name.
fn stanzas(text: &str) -> Vec<BTreeMap<&str, &str>> {
    let stanzas = text.split("\n\n");
    stanzas.map(|stanza| stanza.lines().filter_map(|line| line.split_once(": ")).collect()).collect()
}

/// Of the versions of [`NEWEST`] the kernel that the newest stands for.
fn newest(stanzas: &[BTreeMap<&str, &str>]) -> Option<Release> {
    let release = |stanza: &BTreeMap<&str, &str>| {
        let version = *stanza.get("Version")?;
        let depends = stanza.get("Depends")?.split([',', '|']).map(str::trim);
        let mut images = depends.filter_map(|one| one.split(' ').next()?.strip_prefix("linux-image-"));
        let name = images.find(|name| name.starts_with(|c: char| c.is_ascii_digit()))?;
        apt::at_least(version, MAJOR).then(|| Release { name: name.to_owned(), version: version.to_owned() })
    };
    stanzas.iter().filter_map(release).max_by_key(|release| apt::numbers(&release.version))
}

/// Package and candidate of `apt-cache policy`, as `name=version`.
fn candidates(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut package = "";
    for line in text.lines() {
        if let Some(version) = line.trim_start().strip_prefix("Candidate: ") {
            found.push(format!("{package}={version}"));
        } else if !line.starts_with(' ') {
            package = line.trim_end_matches(':');
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "\
Package: linux-image-cloud-amd64
Version: 6.12.107-1
Depends: linux-image-6.12.107+deb13-cloud-amd64 (= 6.12.107-1)

Package: linux-image-cloud-amd64
Version: 7.2.12-1~bpo13+1
Depends: linux-image-7.2.12+deb13-cloud-amd64 (= 7.2.12-1~bpo13+1)

Package: linux-image-cloud-amd64
Version: 7.10.4-1~bpo13+1
Depends: linux-base-cloud-amd64 (= 7.10.4-1~bpo13+1), linux-image-7.10.4+deb13-cloud-amd64 (= 7.10.4-1~bpo13+1)
";

    #[test]
    fn the_newest_kernel_is_found_number_by_number() {
        let release = newest(&stanzas(SHOWN)).unwrap();
        let (name, version) = ("7.10.4+deb13-cloud-amd64".to_owned(), "7.10.4-1~bpo13+1".to_owned());
        assert_eq!(release, Release { name, version });
        assert_eq!(release.source(), "linux-source-7.10");
    }

    #[test]
    fn older_kernels_do_not_do() {
        let old = SHOWN.split("\n\n").next().unwrap();
        assert_eq!(newest(&stanzas(old)), None);
    }

    #[test]
    fn candidates_are_read() {
        let text = "gcc-14:\n  Installed: (none)\n  Candidate: 14.2.0-19\n  Version table:\n     14.2.0-19 500\n\
                    make:\n  Installed: (none)\n  Candidate: 4.4.1-2\n";
        assert_eq!(candidates(text), ["gcc-14=14.2.0-19", "make=4.4.1-2"]);
    }
}
