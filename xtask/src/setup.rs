//! `cargo xtask setup`: finds what limosa needs of the machine and installs what is missing, saying what and why. It
//! removes nothing, changes no driver, and makes no call to apt where nothing is missing.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::apt::{self, OsRelease, Source};
use crate::command::{is_root, query, run, say};
use crate::error::Error;

const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/limosa-backports.sources";

/// For what a set-up is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To run the command and its demo.
    Run,
    /// To run the tests, which regenerate SPIR-V and have the driver's use validated.
    Test,
    /// To run the benches beside their peers.
    Bench,
    /// To boot the guest of the kernel shim's tests.
    Guest,
}

impl Purpose {
    /// Whether what is needed for `other` is needed for this.
    fn needs(self, other: Self) -> bool {
        self == other || other == Self::Run && self != Self::Guest || other == Self::Bench && self == Self::Test
    }
}

struct Package {
    name: &'static str,
    /// The least version, number by number; empty: any.
    least: &'static [u64],
    why: &'static str,
    purpose: Purpose,
}

const MESA: &str = "mesa-vulkan-drivers";
const QEMU: &str = "qemu-system-x86";
const PACKAGES: [Package; 13] = [
    Package {
        name: MESA,
        least: &[24],
        why: "lavapipe, the software Vulkan driver; Mesa 24 or newer",
        purpose: Purpose::Run,
    },
    Package { name: "libvulkan1", least: &[], why: "the Vulkan loader", purpose: Purpose::Run },
    Package { name: "glslang-tools", least: &[], why: "regenerates the SPIR-V of the shaders", purpose: Purpose::Test },
    Package { name: "spirv-tools", least: &[], why: "validates that SPIR-V", purpose: Purpose::Test },
    Package {
        name: "libclang1",
        least: &[],
        why: "reads the kernel module's header for its bindings in Rust",
        purpose: Purpose::Test,
    },
    Package {
        name: "vulkan-validationlayers",
        least: &[],
        why: "checks limosa's use of Vulkan in the tests",
        purpose: Purpose::Test,
    },
    Package {
        name: "fio",
        least: &[],
        why: "what the benches of file transfers compare with",
        purpose: Purpose::Bench,
    },
    Package {
        name: "xfsprogs",
        least: &[],
        why: "makes file systems that files are streamed from",
        purpose: Purpose::Test,
    },
    Package {
        name: "btrfs-progs",
        least: &[],
        why: "makes file systems that files are streamed from",
        purpose: Purpose::Test,
    },
    Package {
        name: QEMU,
        least: &[8],
        why: "the machine of the kernel shim's guest; QEMU 8 or newer",
        purpose: Purpose::Guest,
    },
    Package { name: "mmdebstrap", least: &[], why: "makes the guest's file systems", purpose: Purpose::Guest },
    Package { name: "e2fsprogs", least: &[], why: "makes the guest's disks", purpose: Purpose::Guest },
    Package { name: "xz-utils", least: &[], why: "unpacks the kernel's source", purpose: Purpose::Guest },
];

/// A package that is not there, or is too old.
struct Missing {
    package: &'static Package,
    found: Option<String>,
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// The text of a file that adds the backports suite.
    backports_file: Option<String>,
    /// The arguments of each `apt-get install`.
    installs: Vec<Vec<String>>,
}

/// Installs what is missing for `purpose`, or with `no_install` says what is missing and how to get it.
pub(crate) fn setup(purpose: Purpose, no_install: bool) -> Result<(), Error> {
    let os = OsRelease::parse(&std::fs::read_to_string("/etc/os-release").unwrap_or_default());
    let missing = find_missing(purpose, &os)?;
    if missing.is_empty() {
        say("set-up: nothing is missing");
        return Ok(());
    }
    let plan = plan(&os, &missing, &apt::read_sources(Path::new("/etc/apt"))?)?;
    let what = listing(&missing);
    let commands = commands_for_people(&plan);
    if no_install {
        return Err(Error::NotInstalled { what, commands });
    }
    let privilege = Privilege::find().ok_or(Error::NoPrivilege { commands })?;
    say(&format!("set-up: this is missing and will be installed by apt-get:\n{}", what.trim_end()));
    install(&plan, privilege)?;
    let missing = find_missing(purpose, &os)?;
    if missing.is_empty() {
        say("set-up: done");
        return Ok(());
    }
    Err(Error::StillMissing { what: listing(&missing) })
}

fn find_missing(purpose: Purpose, os: &OsRelease) -> Result<Vec<Missing>, Error> {
    let wanted: Vec<&'static Package> = PACKAGES.iter().filter(|package| purpose.needs(package.purpose)).collect();
    let mut command = Command::new("dpkg-query");
    command.args(["--show", "--showformat=${Package}\\t${db:Status-Status}\\t${Version}\\n"]);
    command.args(wanted.iter().map(|package| package.name));
    let Some(text) = query(&mut command)? else {
        return Err(not_debian(os));
    };
    let installed = apt::parse_dpkg(&text);
    let missing = wanted.into_iter().filter_map(|package| {
        let found = installed.get(package.name).cloned();
        let fits = found.as_ref().is_some_and(|version| apt::at_least(version, package.least));
        (!fits).then_some(Missing { package, found })
    });
    Ok(missing.collect())
}

fn plan(os: &OsRelease, missing: &[Missing], sources: &[Source]) -> Result<Plan, Error> {
    let from_backports = match (os.id.as_str(), os.version) {
        ("debian", Some(12)) => true,
        ("debian", Some(found)) if found < 12 => return Err(Error::DebianTooOld { found }),
        ("debian", _) => false,
        // Debian's descendants have its packages under its names. Whether their Mesa is new enough shows afterwards.
        _ if os.id_like.split_whitespace().any(|like| like == "debian" || like == "ubuntu") => false,
        _ => return Err(not_debian(os)),
    };
    // What asks for a version is there in an older one.
    let (newer, others): (Vec<&Missing>, Vec<&Missing>) = missing.iter().partition(|one| !one.package.least.is_empty());
    let mut plan = Plan { backports_file: None, installs: Vec::new() };
    if from_backports && !newer.is_empty() {
        let suite = format!("{}-backports", os.codename);
        if !apt::has_suite(sources, &suite) {
            let archive = apt::debian_archive(sources, &os.codename)
                .ok_or_else(|| Error::NoArchive { codename: os.codename.clone(), suite: suite.clone() })?;
            let needs = "newer versions of some packages than this release has";
            plan.backports_file = Some(apt::sources_file(archive, &suite, needs));
        }
        // Alone: the suite that is preferred here would otherwise give its versions of the other packages too.
        let names = newer.iter().map(|one| one.package.name.to_owned());
        plan.installs.push(["-t".to_owned(), suite].into_iter().chain(names).collect());
    }
    let plain: Vec<String> =
        others.iter().chain(newer.iter().filter(|_| !from_backports)).map(|one| one.package.name.to_owned()).collect();
    if !plain.is_empty() {
        plan.installs.push(plain);
    }
    Ok(plan)
}

fn not_debian(os: &OsRelease) -> Error {
    let found = [&os.pretty_name, &os.id].into_iter().find(|name| !name.is_empty());
    Error::NotDebian { found: found.map_or_else(|| "no /etc/os-release".to_owned(), String::clone) }
}

fn listing(missing: &[Missing]) -> String {
    let mut text = String::new();
    for Missing { package, found } in missing {
        let found = found.as_ref().map_or_else(String::new, |version| format!(" (installed: {version}, too old)"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}: {}{found}", package.name, package.why);
    }
    text
}

fn install_arguments(packages: &[String]) -> Vec<&str> {
    // A bare machine may be installing its own updates just now: wait for dpkg's lock rather than fail on it.
    let fixed = ["install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"];
    fixed.into_iter().chain(packages.iter().map(String::as_str)).collect()
}

fn commands_for_people(plan: &Plan) -> String {
    let mut text = String::new();
    if let Some(file) = &plan.backports_file {
        let _ = writeln!(text, "  cat > {BACKPORTS_FILE} <<'END'\n{}\nEND", file.trim_end());
    }
    let _ = writeln!(text, "  apt-get update");
    for packages in &plan.installs {
        let _ = writeln!(text, "  apt-get {}", install_arguments(packages).join(" "));
    }
    text.trim_end().to_owned()
}

fn install(plan: &Plan, privilege: Privilege) -> Result<(), Error> {
    if let Some(file) = &plan.backports_file {
        say(&format!("set-up: some packages of this release are too old; adding its backports as {BACKPORTS_FILE}"));
        privilege.write(BACKPORTS_FILE, file)?;
    }
    run(&mut privilege.command("apt-get", &["update"]))?;
    for packages in &plan.installs {
        run(&mut privilege.command("apt-get", &install_arguments(packages)))?;
    }
    Ok(())
}

/// How we come by root's rights.
#[derive(Clone, Copy)]
pub(crate) enum Privilege {
    Root,
    /// At a terminal sudo may ask for a password.
    SudoAsking,
    SudoSilent,
}

impl Privilege {
    pub(crate) fn find() -> Option<Self> {
        if is_root() {
            return Some(Self::Root);
        }
        let works = |arguments: &[&str]| {
            let mut sudo = Command::new("sudo");
            sudo.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            sudo.status().is_ok_and(|status| status.success())
        };
        if works(&["-n", "true"]) {
            Some(Self::SudoSilent)
        } else if works(&["--version"]) && std::io::stdin().is_terminal() {
            Some(Self::SudoAsking)
        } else {
            None
        }
    }

    pub(crate) fn command(self, program: &str, arguments: &[&str]) -> Command {
        let sudo: &[&str] = match self {
            Self::Root => &[],
            Self::SudoAsking => &["sudo"],
            Self::SudoSilent => &["sudo", "-n"],
        };
        // sudo drops the environment, so the variable goes by env.
        let mut words = sudo.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", program]);
        let mut command = Command::new(words.next().unwrap_or(program));
        command.args(words).args(arguments);
        command
    }

    fn write(self, path: &str, text: &str) -> Result<(), Error> {
        let what = || format!("cannot write {path}");
        let mut tee = self.command("tee", &[path]);
        let mut child = tee.stdin(Stdio::piped()).spawn().map_err(Error::io(what()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes()).map_err(Error::io(what()))?;
        }
        let status = child.wait().map_err(Error::io(what()))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Command { command: format!("tee {path}"), outcome: status.to_string(), code: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(id: &str, like: &str, version: Option<u32>) -> OsRelease {
        OsRelease {
            id: id.to_owned(),
            id_like: like.to_owned(),
            version,
            codename: "bookworm".to_owned(),
            pretty_name: String::new(),
        }
    }

    fn all_missing() -> Vec<Missing> {
        PACKAGES.iter().map(|package| Missing { package, found: None }).collect()
    }

    fn archive() -> Vec<Source> {
        apt::parse_list("deb [signed-by=/k.gpg] http://archive.example/debian bookworm main\n")
    }

    #[test]
    fn debian_12_takes_what_is_too_old_alone_from_backports() {
        let plan = plan(&os("debian", "", Some(12)), &all_missing(), &archive()).unwrap();
        let file = plan.backports_file.as_ref().unwrap();
        assert!(file.contains("URIs: http://archive.example/debian\nSuites: bookworm-backports\n"), "{file}");
        assert!(file.contains("Signed-By: /k.gpg\n"), "{file}");
        assert_eq!(plan.installs[0], ["-t", "bookworm-backports", MESA, QEMU]);
        assert_eq!(plan.installs[1][..4], ["libvulkan1", "glslang-tools", "spirv-tools", "libclang1"]);
        let commands = commands_for_people(&plan);
        let order = ["cat >", "apt-get update", "-t bookworm-backports mesa", "libvulkan1"];
        let places: Vec<usize> = order.iter().map(|part| commands.find(part).unwrap()).collect();
        assert!(places.is_sorted(), "{commands}");
    }

    #[test]
    fn backports_that_are_there_are_not_added() {
        let mut sources = archive();
        sources.extend(apt::parse_list("deb http://other.example/debian bookworm-backports main\n"));
        let plan = plan(&os("debian", "", Some(12)), &all_missing(), &sources).unwrap();
        assert_eq!(plan.backports_file, None);
        assert_eq!(plan.installs[0], ["-t", "bookworm-backports", MESA, QEMU]);
    }

    #[test]
    fn without_what_is_too_old_backports_are_not_needed() {
        let mut missing = all_missing();
        missing.retain(|one| one.package.least.is_empty());
        let plan = plan(&os("debian", "", Some(12)), &missing, &[]).unwrap();
        assert_eq!((plan.backports_file, plan.installs.len()), (None, 1));
    }

    #[test]
    fn later_debian_and_its_descendants_take_the_plain_package() {
        for os in [os("debian", "", Some(13)), os("debian", "", None), os("ubuntu", "debian", Some(24))] {
            let plan = plan(&os, &all_missing(), &[]).unwrap();
            assert_eq!((&plan.backports_file, plan.installs.len()), (&None, 1));
            assert!(plan.installs[0].contains(&MESA.to_owned()));
        }
    }

    #[test]
    fn systems_that_do_not_fit_are_named() {
        let missing = all_missing();
        assert!(matches!(plan(&os("debian", "", Some(11)), &missing, &[]), Err(Error::DebianTooOld { found: 11 })));
        assert!(matches!(plan(&os("debian", "", Some(12)), &missing, &[]), Err(Error::NoArchive { .. })));
        let error = plan(&os("fedora", "", Some(42)), &missing, &[]).unwrap_err().to_string();
        assert!(error.contains("fedora") && error.contains("Mesa 24"), "{error}");
    }

    #[test]
    fn what_is_missing_is_listed_with_its_reason() {
        let missing = [Missing { package: &PACKAGES[0], found: Some("22.3.6-1".to_owned()) }];
        let text = listing(&missing);
        assert!(text.contains("lavapipe") && text.contains("22.3.6-1, too old"), "{text}");
    }
}
