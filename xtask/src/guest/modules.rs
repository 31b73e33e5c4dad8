//! Building kernel modules: every folder with a Kbuild file below kernels-driver, and of the kernel's own source what tests
//! the same mechanisms. Sources are copied, since Kbuild writes beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::Cache;
use super::packages::{Archive, Release};
use super::roots::within;
use crate::command::{output, root, run_logged, say};
use crate::error::Error;

/// What a kernel's modules are built with.
pub(super) struct Toolchain {
    /// The system with the compiler.
    pub(super) root: PathBuf,
    /// The kernel's build folder, seen from there.
    pub(super) build: String,
    /// A folder of the cache for objects of this kernel.
    pub(super) objects: PathBuf,
}

/// What is taken of the kernel's source: its tests of what the shim does, and what those include.
const TAKEN: [&str; 10] = [
    "lib/test_hmm.c",
    "lib/test_hmm_uapi.h",
    "mm/gup_test.h",
    "tools/include",
    "tools/testing/selftests/*.h",
    "tools/testing/selftests/mm/*.h",
    "tools/testing/selftests/mm/hmm-tests.c",
    "tools/testing/selftests/mm/vm_util.c",
    "tools/testing/selftests/mm/hugepage_settings.c",
    "tools/testing/selftests/lib.mk",
];

/// The kernel's own driver and test of HMM, built, and what measures that driver beside the shim.
const TEST_PROGRAMS: &str = "\
mkdir -p /limosa/test_hmm
cd /limosa/test_hmm
cp -u /limosa/source/lib/test_hmm.c /limosa/source/lib/test_hmm_uapi.h .
echo 'obj-m += test_hmm.o' > Kbuild
make -C $BUILD M=$PWD CC=gcc-14 CONFIG_DEBUG_INFO_BTF_MODULES= modules
cd /limosa/source/tools/testing/selftests/mm
gcc-14 -O2 -D_GNU_SOURCE= -U_FORTIFY_SOURCE -I/limosa/source -I.. -I. -I../../../include \
    -o /limosa/hmm-tests hmm-tests.c vm_util.c hugepage_settings.c -lpthread -lm
cd /limosa/kernels-driver/tests
gcc-14 -O2 -Wall -Wextra -I/limosa/source/lib -o /limosa/dmirror-bench dmirror-bench.c
";

/// Downloads the kernel's source and takes the tests of it.
pub(super) fn kernels_source(cache: &Cache, archive: &Archive, release: &Release) -> Result<PathBuf, Error> {
    let mut ingredients = vec![release.version.clone()];
    ingredients.extend(TAKEN.map(str::to_owned));
    cache.entry("source", &ingredients, |to| {
        let whole = to.with_extension("whole");
        cache.remove(&whole)?;
        archive.unpack(release, &[release.source()], &whole)?;
        fs::create_dir(to).map_err(Error::io(format!("cannot make {}", to.display())))?;
        let mut tar = Command::new("tar");
        tar.arg("--extract").arg("--file").arg(tarball(&whole, release)).arg("--directory").arg(to);
        tar.args([
            "--use-compress-program=xz -T0",
            "--strip-components=1",
            "--wildcards",
            "--no-wildcards-match-slash",
        ]);
        tar.args(TAKEN.map(|path| format!("{}/{path}", release.source())));
        run_logged(&mut tar, &to.with_extension("log"))?;
        cache.remove(&whole)
    })
}

/// Where the package of the kernel's source has it.
pub(super) fn tarball(unpacked: &Path, release: &Release) -> PathBuf {
    unpacked.join(format!("usr/src/{}.tar.xz", release.source()))
}

/// Builds everything and gives the modules and the programs, each by the name of its file.
pub(super) fn build(cache: &Cache, toolchain: &Toolchain, source: &Path) -> Result<Vec<PathBuf>, Error> {
    let objects = &toolchain.objects;
    let copied = objects.join("source");
    fs::create_dir_all(objects).map_err(Error::io(format!("cannot make {}", objects.display())))?;
    copy(&[&source.join("."), &copied])?;
    let ours = root().join("kernels-driver");
    let shim = objects.join("kernels-driver");
    copy(&[&ours.join("."), &shim])?;
    let script = format!("BUILD={}\n{TEST_PROGRAMS}", toolchain.build);
    run_logged(&mut within(cache, &toolchain.root, objects, &script), &objects.join("test-programs.log"))?;

    let mut folders = Vec::new();
    with_kbuild(&ours, &mut folders)?;
    // Companions use what the shim exports: outer folders come first.
    folders.sort();
    let mut symbols = Vec::new();
    for folder in &folders {
        let inside = folder.strip_prefix(&ours).unwrap_or(folder);
        let folder = Path::new("/limosa/kernels-driver").join(inside);
        let folder = folder.to_string_lossy().trim_end_matches('/').to_owned();
        say(&format!("guest: building the modules of kernels-driver/{}", inside.display()));
        let script = format!(
            "make -C {} M={folder} CC=gcc-14 W=1 CONFIG_DEBUG_INFO_BTF_MODULES= LINUX_LIB=/limosa/source/lib \
             KBUILD_EXTRA_SYMBOLS='{}' modules",
            toolchain.build,
            symbols.join(" ")
        );
        symbols.push(format!("{folder}/Module.symvers"));
        // The compiler's warnings are to be seen: nothing is logged away.
        output(&mut within(cache, &toolchain.root, objects, &script))?;
    }
    let mut built = vec![objects.join("hmm-tests"), objects.join("dmirror-bench")];
    let folders = folders.iter().map(|folder| shim.join(folder.strip_prefix(&ours).unwrap_or(folder)));
    for folder in folders.chain([objects.join("test_hmm")]) {
        built.extend(made(&folder)?);
    }
    Ok(built)
}

/// The modules that the last build in a folder made; others may lie there from before.
fn made(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = folder.join("modules.order");
    let text = fs::read_to_string(&list).map_err(Error::io(format!("cannot read {}", list.display())))?;
    let names = text.lines().filter_map(|line| Path::new(line).file_name());
    Ok(names.map(|name| folder.join(name).with_extension("ko")).collect())
}

/// Copies what is newer than its copy, so that make builds only what changed.
fn copy(paths: &[&Path; 2]) -> Result<(), Error> {
    output(Command::new("cp").args(["-r", "-u", "--preserve=timestamps", "--no-target-directory"]).args(paths))
        .map(drop)
}

fn with_kbuild(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    if folder.join("Kbuild").exists() {
        found.push(folder.to_owned());
    }
    for entry in entries(folder)? {
        if entry.is_dir() {
            with_kbuild(&entry, found)?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = || Error::io(format!("cannot read the folder {}", folder.display()));
    let entries = fs::read_dir(folder).map_err(failed())?;
    entries.map(|entry| Ok(entry.map_err(failed())?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::TempDir;

    #[test]
    fn only_what_the_last_build_made_is_taken() {
        let temp = TempDir::new().unwrap();
        fs::write(temp.path().join("old.ko"), "").unwrap();
        fs::write(temp.path().join("modules.order"), "/limosa/kernels-driver/limosa.o\nlimosa_dmirror.o\n").unwrap();
        let expected = ["limosa.ko", "limosa_dmirror.ko"].map(|name| temp.path().join(name));
        assert_eq!(made(temp.path()).unwrap(), expected);
    }

    #[test]
    fn every_folder_with_a_kbuild_file_is_found() {
        let temp = TempDir::new().unwrap();
        let inner = temp.path().join("tests/dmirror");
        fs::create_dir_all(&inner).unwrap();
        for folder in [temp.path(), &inner] {
            fs::write(folder.join("Kbuild"), "").unwrap();
        }
        let mut found = Vec::new();
        with_kbuild(temp.path(), &mut found).unwrap();
        assert_eq!(found, [temp.path(), &inner]);
    }
}
