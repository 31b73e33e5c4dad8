//! `cargo xtask guest`: the kernel shim's tests, in a virtual machine with the kernel that they are for. Packages are
//! resolved and unpacked into a cache, modules and tests are built, each machine of the manifest that has tests is booted,
//! and what its guest says and its kernel logs is judged. Nothing is installed on this machine but QEMU and what makes
//! disks.

mod boot;
mod cache;
mod channel;
mod debug;
mod desk;
mod log;
mod machine;
mod manifest;
mod modules;
mod monitor;
mod packages;
mod payload;
mod report;
mod roots;
mod topology;

/// The same file that the guest's first process is built with: one description of what both say.
#[path = "../../../kernels-driver/guest/src/protocol.rs"]
#[allow(unreachable_pub, dead_code)] // there it is a library's
mod protocol;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::apt::OsRelease;
use crate::command::{cargo, output, query, say};
use crate::error::Error;
use crate::setup::{Privilege, Purpose, setup};
use crate::steps::executables_in;

use boot::{Ended, Parts};
use cache::Cache;
use debug::DebugKernel;
pub(crate) use machine::Accel;
use manifest::{FOLDER, Machine, Manifest, PACKAGE, Settings, User};
use modules::Toolchain;
use packages::Archive;
use protocol::{Kind, Module, Plan, Program};
use report::Boot;

/// The first process's binary.
const INIT: &str = "limosa-guest-init";
/// The uid and gid of "nobody" on every Debian.
const NOBODY: u32 = 65534;

/// How many times slower the kernel that finds mistakes may be.
const DEBUG_FACTOR: u32 = 4;

/// What the user asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Options {
    pub(crate) no_install: bool,
    /// By what it is run; none: KVM where it works.
    pub(crate) accel: Option<Accel>,
    /// Only this machine, which then may be one that is booted on demand.
    pub(crate) machine: Option<String>,
    /// Under the kernel that finds mistakes.
    pub(crate) debug_kernel: bool,
    /// Only tests whose name contains one of these.
    pub(crate) filters: Vec<String>,
}

/// Whether this machine can make guests at all: said before anything is done that takes long.
pub(crate) fn ready() -> Result<(), Error> {
    let os = OsRelease::parse(&std::fs::read_to_string("/etc/os-release").unwrap_or_default());
    is_debian(&os)?;
    privilege().map(drop)
}

fn is_debian(os: &OsRelease) -> Result<(), Error> {
    if os.id == "debian" {
        return Ok(());
    }
    let name = if os.pretty_name.is_empty() { "no /etc/os-release" } else { &os.pretty_name };
    Err(Error::Guest(format!(
        "it is made of Debian's packages by Debian's tools, and this machine is not a Debian system ({name}).          `cargo xtask test --no-guest` runs everything else"
    )))
}

fn privilege() -> Result<Privilege, Error> {
    Privilege::find().ok_or_else(|| {
        let why =
            "making its file systems takes root, and sudo is not here or wants a password where nobody can type it";
        let how = "Run this as root, install sudo, or leave the guest out: `cargo xtask test --no-guest`";
        Error::Guest(format!("{why}. {how}"))
    })
}

/// `cargo xtask guest`: sets up, runs the tests, and appends what was skipped to `skips`.
pub(crate) fn test(options: &Options, skips: Option<&Path>) -> Result<(), Error> {
    ready()?;
    setup(Purpose::Guest, options.no_install)?;
    let built = Built::make(options)?;
    let accel = built.accel(options);
    let mut boots = Vec::new();
    for (name, machine) in built.manifest.chosen(options.machine.as_deref())? {
        let programs = built.programs(name, &options.filters)?;
        if !programs.is_empty() {
            boots.push(built.boot(options, accel, name, machine, programs)?);
        }
    }
    print!("{}", report::summary(&boots));
    if let Some(skips) = skips {
        report::write_skips(&boots, skips)?;
    }
    report::verdict(&boots)
}

/// `cargo xtask guest shell`: a shell in the guest.
pub(crate) fn shell(options: &Options) -> Result<(), Error> {
    ready()?;
    setup(Purpose::Guest, options.no_install)?;
    let built = Built::make(options)?;
    let name = options.machine.as_deref().unwrap_or(manifest::DEFAULT);
    let (name, machine) = built.manifest.chosen(Some(name))?[0];
    let accel = built.accel(options);
    let plan = Plan { shell: true, ..built.plan(name, machine, Vec::new(), options, accel)? };
    boot::shell(&built.parts(name, machine, &plan, accel, Path::new("")))
}

/// Everything that boots are made of.
struct Built {
    cache: Cache,
    manifest: Manifest,
    kernel: PathBuf,
    root: PathBuf,
    init: PathBuf,
    /// The test targets' executables, by name.
    tests: BTreeMap<String, PathBuf>,
    /// Modules, and programs that are no test targets.
    built: Vec<PathBuf>,
}

impl Built {
    fn make(options: &Options) -> Result<Self, Error> {
        let mut manifest = Manifest::read()?;
        if options.debug_kernel {
            let words = debug::COMMAND_LINE.map(str::to_owned);
            manifest.machines.values_mut().for_each(|machine| machine.cmdline.extend(words.clone()));
        }
        let privilege = privilege()?;
        let cache = Cache::open(&target_folder()?, privilege)?;
        let archive = Archive::open(cache.folder().join("apt"))?;
        let release = archive.newest_kernel()?;
        say(&format!("guest: the newest kernel is {}", release.name));
        // Most of it is waiting for the network, but for cargo's part.
        let (build_root, root, source, kernel, (init, tests)) = thread::scope(|scope| {
            let build_root = scope.spawn(|| roots::build_root(&cache, &archive, &release, "build", &[]));
            let root = scope.spawn(|| roots::guest_image(&cache, &archive, &release));
            let source = scope.spawn(|| modules::kernels_source(&cache, &archive, &release));
            let kernel = scope.spawn(|| {
                let packages = [format!("linux-binary-{}", release.name)];
                let ingredients = [packages[0].clone(), release.version.clone()];
                cache.entry("kernel", &ingredients, |to| archive.unpack(&release, &packages, to))
            });
            let tests = executables_of_the_tests(&manifest);
            Ok::<_, Error>((joined(build_root)?, joined(root)?, joined(source)?, joined(kernel)?, tests?))
        })?;
        let (toolchain, kernel) = if options.debug_kernel {
            let debug = DebugKernel::make(&cache, &archive, &release)?;
            let (kernel, build) = (debug.image(), "/limosa/linux".to_owned());
            (Toolchain { root: debug.root, build, objects: debug.folder }, kernel)
        } else {
            let build = format!("/lib/modules/{}/build", release.name);
            // make does not see that the compiler or the headers are others.
            let ingredients = [release.name.clone(), release.version.clone(), build_root.display().to_string()];
            let made = |to: &Path| std::fs::create_dir(to).map_err(Error::io(format!("cannot make {}", to.display())));
            let objects = cache.entry("objects", &ingredients, made)?;
            let kernel = kernel.join(format!("usr/lib/modules/{}/vmlinuz", release.name));
            (Toolchain { root: build_root, build, objects }, kernel)
        };
        let built = modules::build(&cache, &toolchain, &source)?;
        // The other kernel's stay: who changes between both does not want to wait for them.
        let kinds: &[&str] =
            if options.debug_kernel { &["debug", "debug-build"] } else { &["build", "kernel", "objects"] };
        cache.settle(&[kinds, &["root", "source"]].concat())?;
        Ok(Self { cache, manifest, kernel, root, init, tests, built })
    }

    fn accel(&self, options: &Options) -> Accel {
        options.accel.unwrap_or_else(|| Accel::find(&self.kernel))
    }

    /// What runs on a machine, as far as the filters can be told to leave it. What was not built is an error: what is not
    /// run would else pass.
    fn programs(&self, machine: &str, filters: &[String]) -> Result<Vec<Program>, Error> {
        let tests = self.manifest.tests.iter().map(|(name, settings)| (name, settings, self.tests.get(name)));
        let others = self.manifest.programs.iter().map(|(name, settings)| {
            let called = settings.file.as_ref().unwrap_or(name).as_str();
            (name, settings, self.built(called))
        });
        let mut programs = Vec::new();
        let here = |settings: &Settings| settings.machines.iter().any(|one| one == machine);
        for (name, settings, file) in tests.chain(others).filter(|(_, settings, _)| here(settings)) {
            let file = file.ok_or_else(|| {
                Error::Guest(format!("there is no program for `{name}`: neither cargo nor the modules' build makes it"))
            })?;
            if wanted(name, settings, file, filters) {
                programs.push(program(name, settings, file));
            }
        }
        Ok(programs)
    }

    /// What the modules' build made, by the name of its file.
    fn built(&self, called: &str) -> Option<&PathBuf> {
        self.built.iter().find(|file| file.file_name().is_some_and(|found| found == called))
    }

    fn plan(
        &self,
        name: &str,
        machine: &Machine,
        mut programs: Vec<Program>,
        options: &Options,
        accel: Accel,
    ) -> Result<Plan, Error> {
        let factor = accel.factor() * if options.debug_kernel { DEBUG_FACTOR } else { 1 };
        programs.iter_mut().for_each(|program| program.limit *= u64::from(factor));
        let modules = machine.modules.iter().map(|words| self.module(words)).collect::<Result<_, _>>()?;
        Ok(Plan { machine: name.to_owned(), modules, programs, filters: options.filters.clone(), shell: false, factor })
    }

    fn module(&self, words: &str) -> Result<Module, Error> {
        let mut words = words.split_whitespace().map(str::to_owned);
        let name = words.next().unwrap_or_default();
        let file = format!("{name}.ko");
        if self.built(&file).is_none() {
            return Err(Error::Guest(format!("there is no {file}: no Kbuild file below kernels-driver makes it")));
        }
        Ok(Module { name, file, parameters: words.collect() })
    }

    fn parts<'a>(
        &'a self,
        name: &'a str,
        machine: &'a Machine,
        plan: &'a Plan,
        accel: Accel,
        log: &'a Path,
    ) -> Parts<'a> {
        let payload =
            [&self.init].into_iter().chain(&self.built).chain(self.tests.values()).map(PathBuf::as_path).collect();
        Parts { name, machine, kernel: &self.kernel, root: &self.root, payload, plan, accel, log }
    }

    /// Boots one machine; once more, without KVM, if the guest does not come up. On a busy machine that happens: no
    /// code of ours has run by then.
    fn boot(
        &self,
        options: &Options,
        accel: Accel,
        name: &str,
        machine: &Machine,
        programs: Vec<Program>,
    ) -> Result<Boot, Error> {
        let log = self.cache.folder().join(format!("{name}.log"));
        let boot = |accel: Accel| {
            say(&format!("guest: booting the machine {name} by {}; its log is {}", accel.name(), log.display()));
            let plan = self.plan(name, machine, programs.clone(), options, accel)?;
            boot::boot(&self.parts(name, machine, &plan, accel, &log))
        };
        let first = match boot(accel)? {
            Ended::Told(boot) => return Ok(boot),
            Ended::Silent(boot) => boot,
        };
        let again = if options.accel.is_none() { Accel::Tcg } else { accel };
        let faults = first.faults.first().map_or("", String::as_str);
        say(&format!("guest: it did not come up ({faults}); once more by {}", again.name()));
        match boot(again)? {
            Ended::Told(boot) | Ended::Silent(boot) => Ok(boot),
        }
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|_| Err(Error::Guest("a thread of ours panicked".to_owned())))
}

fn program(name: &str, settings: &Settings, file: &Path) -> Program {
    Program {
        name: name.to_owned(),
        file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        kind: settings.kind,
        arguments: settings.arguments.clone(),
        limit: settings.limit,
        user: (settings.user == User::Nobody).then_some(NOBODY),
        skips: settings.skips.clone(),
    }
}

/// Whether a filter may mean a test of this program, so that no machine is booted for nothing.
fn wanted(name: &str, settings: &Settings, file: &Path, filters: &[String]) -> bool {
    let of_list = |filter: &str| {
        let list = query(Command::new(file).args(["--list", "--format", "terse"])).ok().flatten().unwrap_or_default();
        list.lines().any(|test| format!("{name}::{}", test.trim_end_matches(": test")).contains(filter))
    };
    filters.is_empty()
        || filters.iter().any(|filter| match settings.kind {
            Kind::Libtest => of_list(filter),
            // Only their run tells their tests' names.
            Kind::Tap | Kind::Plain => name.contains(filter.as_str()) || filter.starts_with(name),
        })
}

/// The first process and the tests, built with the features of the whole workspace's tests: with others the runtime would
/// be built anew.
fn executables_of_the_tests(manifest: &Manifest) -> Result<(PathBuf, BTreeMap<String, PathBuf>), Error> {
    let features = format!("inject,{PACKAGE}/guest");
    let mut build = cargo(&["test", "--workspace", "--no-run", "--features", &features]);
    build.args(manifest.tests.keys().flat_map(|name| ["--test", name]));
    let mut plain = cargo(&["build", "--workspace", "--features", &features, "--bin", INIT]);
    let messages = |build: &mut Command| {
        let built = output(build.arg("--message-format=json-render-diagnostics"))?;
        Ok::<_, Error>(String::from_utf8_lossy(&built).into_owned())
    };
    let init = executables_in(FOLDER, &messages(&mut plain)?, "bin").remove(INIT);
    let init = init.ok_or_else(|| Error::Output {
        what: "cargo's messages".to_owned(),
        detail: format!("no executable {INIT}"),
    })?;
    let tests = executables_in(FOLDER, &messages(&mut build)?, "test").into_iter();
    let tests = tests.filter(|(name, _)| manifest.tests.contains_key(name));
    Ok((PathBuf::from(init), tests.map(|(name, path)| (name, PathBuf::from(path))).collect()))
}

/// Where cargo builds.
fn target_folder() -> Result<PathBuf, Error> {
    let json = output(&mut cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_slice(&json).unwrap_or_default();
    let folder = metadata["target_directory"].as_str().map(PathBuf::from);
    folder.ok_or_else(|| Error::Output { what: "`cargo metadata`".to_owned(), detail: "no target folder".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_debians_packages_is_told_what_it_can_do() {
        let os = |text: &str| OsRelease::parse(text);
        assert!(is_debian(&os("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n")).is_ok());
        for (text, name) in [("ID=fedora\nPRETTY_NAME=\"Fedora 42\"\n", "Fedora 42"), ("", "no /etc/os-release")] {
            let error = is_debian(&os(text)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("--no-guest"), "{error}");
        }
    }
}
