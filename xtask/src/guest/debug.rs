//! The kernel that finds mistakes: Debian's source with the options of kernels-driver/guest/debug.config over the least
//! configuration there is. Building it takes long, so it is kept as it is, ready for modules to be built against it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::Cache;
use super::modules::tarball;
use super::packages::{Archive, Release};
use super::roots::{build_root, within};
use crate::command::{root, run, run_logged};
use crate::error::Error;

/// What building a kernel takes beside what modules do.
const PACKAGES: [&str; 6] = ["bc", "bison", "flex", "libelf-dev", "libssl-dev", "perl"];

/// An option that does not survive is one whose dependencies the fragment lacks: better told than missed. Objects are
/// not needed for building modules.
const BUILD: &str = "\
cd /limosa/linux
export MAKEFLAGS=-j$(nproc)
make CC=gcc-14 HOSTCC=gcc-14 tinyconfig
scripts/kconfig/merge_config.sh -m .config /limosa/debug.config
make CC=gcc-14 HOSTCC=gcc-14 olddefconfig
grep '^CONFIG_[A-Z0-9_]*=' /limosa/debug.config | grep -vxFf .config && { echo 'these options are lost'; exit 1; }
make CC=gcc-14 HOSTCC=gcc-14 bzImage modules
find . -name '*.o' -not -path './scripts/*' -not -path './tools/*' -delete
";

/// What its command line has besides. KASAN else reports one mistake and no other; and its check of addresses is wrong
/// for a moment of the boot where there are page tables of five levels.
pub(super) const COMMAND_LINE: [&str; 2] = ["kasan_multi_shot", "no5lvl"];

/// The built kernel.
pub(super) struct DebugKernel {
    /// The system that it was built in.
    pub(super) root: PathBuf,
    /// A folder with the kernel's tree in `linux`; modules are built beside it.
    pub(super) folder: PathBuf,
}

impl DebugKernel {
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("linux/arch/x86/boot/bzImage")
    }

    /// Builds it if it is not there.
    pub(super) fn make(cache: &Cache, archive: &Archive, release: &Release) -> Result<Self, Error> {
        let system = build_root(cache, archive, release, "debug-build", &PACKAGES)?;
        let fragment = root().join("kernels-driver/guest/debug.config");
        let options =
            fs::read_to_string(&fragment).map_err(Error::io(format!("cannot read {}", fragment.display())))?;
        let ingredients = [release.version.clone(), options, BUILD.to_owned()];
        let folder = cache.entry("debug", &ingredients, |to| {
            unpack(cache, archive, release, to)?;
            let copy = to.join("debug.config");
            fs::copy(&fragment, &copy).map_err(Error::io(format!("cannot write {}", copy.display())))?;
            // It takes so long that what it does is better seen.
            run(&mut within(cache, &system, to, BUILD))
        })?;
        Ok(Self { root: system, folder })
    }
}

fn unpack(cache: &Cache, archive: &Archive, release: &Release, to: &Path) -> Result<(), Error> {
    let whole = to.with_extension("whole");
    cache.remove(&whole)?;
    archive.unpack(release, &[release.source()], &whole)?;
    let linux = to.join("linux");
    fs::create_dir_all(&linux).map_err(Error::io(format!("cannot make {}", linux.display())))?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(tarball(&whole, release)).arg("--directory").arg(linux);
    run_logged(tar.args(["--use-compress-program=xz -T0", "--strip-components=1"]), &to.with_extension("log"))?;
    cache.remove(&whole)
}
