//! The two Debian systems: the one that modules are built in, and the guest's own as an image of a disk. Both are made by
//! mmdebstrap into the cache and not changed afterwards.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::Cache;
use super::packages::{Archive, Release};
use crate::command::run_logged;
use crate::error::Error;

/// What the guest's system has besides Debian's least.
const GUEST_PACKAGES: [&str; 8] =
    ["mesa-vulkan-drivers", "libvulkan1", "kmod", "util-linux", "e2fsprogs", "xfsprogs", "btrfs-progs", "dmsetup"];
/// What building modules takes, the kernel's own packages aside.
const BUILD_PACKAGES: [&str; 3] = ["gcc-14", "make", "libc6-dev"];

/// The first process: as soon as the payload is mounted, it is the payload's. The root so knows nothing of the tests.
const FIRST: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
for disk in /sys/block/nvme*; do
	if grep -q limosa-payload "$disk/device/serial" && grep -q 0 "$disk/hidden"; then
		mount -t ext4 -o ro "/dev/${disk##*/}" /payload && exec /payload/init
	fi
done
echo "limosa: no payload"
"#;

/// The disk's signature in its partition table: by it the kernel finds its root, whatever the order of the disks.
const SIGNATURE: u32 = 0x4c49_4d4f;
/// Where the partition begins, in sectors and bytes.
const START_SECTOR: u32 = 2048;
const START: u64 = 1 << 20;
/// The size of the root's file system.
const ROOT_MIB: u64 = 1024;

/// The kernel's name of the root's partition.
pub(super) fn root_partition() -> String {
    format!("PARTUUID={SIGNATURE:08x}-01")
}

/// The system for building, with the headers of a kernel. `more` are packages besides.
pub(super) fn build_root(
    cache: &Cache,
    archive: &Archive,
    release: &Release,
    kind: &str,
    more: &[&str],
) -> Result<PathBuf, Error> {
    let of_kernel = [format!("linux-headers-{}", release.name), "linux-libc-dev".to_owned()];
    let mut packages: Vec<String> = of_kernel.iter().map(|name| format!("{name}={}", release.version)).collect();
    packages.extend(BUILD_PACKAGES.iter().chain(more).map(|&name| name.to_owned()));
    // A newer compiler is another system, too.
    let plain: Vec<&str> = BUILD_PACKAGES.iter().chain(more).copied().collect();
    let mut ingredients = packages.clone();
    ingredients.extend(archive.versions(&plain)?);
    cache.entry(kind, &ingredients, |to| debootstrap(cache, archive, &packages, &[], to))
}

/// The guest's disk, with the modules of a kernel: file systems, disks made of disks, and disks of others.
pub(super) fn guest_image(cache: &Cache, archive: &Archive, release: &Release) -> Result<PathBuf, Error> {
    let documents = ["doc", "man", "info", "locale"].map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*"));
    let script = format!("cat > \"$1/sbin/limosa-first\" <<'END'\n{FIRST}END\n");
    let arrange = [
        format!("--customize-hook={script}"),
        format!("--customize-hook=chroot \"$1\" depmod {}", release.name),
        "--customize-hook=chmod 755 \"$1/sbin/limosa-first\"; mkdir -p \"$1/payload\"".to_owned(),
    ];
    let options: Vec<String> = documents.into_iter().chain(arrange).collect();
    let mut packages: Vec<String> = GUEST_PACKAGES.map(str::to_owned).to_vec();
    packages.push(format!("linux-modules-{}={}", release.name, release.version));
    let mut ingredients = archive.versions(&GUEST_PACKAGES)?;
    ingredients.extend(packages.iter().cloned());
    ingredients.extend(options.iter().cloned());
    ingredients.push(format!("{SIGNATURE} {START} {ROOT_MIB}"));
    cache.entry("root", &ingredients, |image| {
        let tree = image.with_extension("tree");
        cache.remove(&tree)?;
        debootstrap(cache, archive, &packages, &options, &tree)?;
        disk_of(cache, &tree, image)?;
        cache.remove(&tree)
    })
}

fn debootstrap(
    cache: &Cache,
    archive: &Archive,
    packages: &[String],
    options: &[String],
    to: &Path,
) -> Result<(), Error> {
    let sources = archive.sources_file();
    let include = format!("--include={}", packages.join(","));
    let (to_shown, sources) = (to.to_string_lossy(), sources.to_string_lossy());
    let mut arguments = vec!["--mode=root", "--variant=minbase", "--architectures=amd64", &include];
    // A tree that is cut off in the making is made anew: it need not survive a loss of power.
    arguments.push("--dpkgopt=force-unsafe-io");
    arguments.extend(options.iter().map(String::as_str));
    arguments.extend(["trixie", &to_shown, &sources]);
    run_logged(&mut cache.privilege().command("mmdebstrap", &arguments), &to.with_extension("log"))
}

/// Makes a disk with one partition that has the tree's files.
fn disk_of(cache: &Cache, tree: &Path, image: &Path) -> Result<(), Error> {
    let failed = || Error::io(format!("cannot write {}", image.display()));
    let mut file = fs::File::create(image).map_err(failed())?;
    file.set_len(START + (ROOT_MIB << 20)).map_err(failed())?;
    file.write_all(&partition_table(u32::try_from(ROOT_MIB << 11).unwrap_or(u32::MAX))).map_err(failed())?;
    file.seek(SeekFrom::End(0)).map_err(failed())?;
    let (tree, shown, size) = (tree.to_string_lossy(), image.to_string_lossy(), format!("{ROOT_MIB}M"));
    let offset = format!("offset={START},lazy_itable_init=1,nodiscard");
    let arguments = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", &offset, "-d", &tree, &shown, &size];
    // As root where the tree is root's: not everything in it is readable by others.
    run_logged(&mut cache.privilege().command("mkfs.ext4", &arguments), &image.with_extension("log"))
}

/// The first sector of a disk: a signature and one Linux partition.
fn partition_table(sectors: u32) -> [u8; 512] {
    const LINUX: u8 = 0x83;
    let mut sector = [0; 512];
    sector[440..444].copy_from_slice(&SIGNATURE.to_le_bytes());
    // The old addresses of cylinder, head and sector are at their largest: look at the new ones.
    sector[446..454].copy_from_slice(&[0, 0xfe, 0xff, 0xff, LINUX, 0xfe, 0xff, 0xff]);
    sector[454..458].copy_from_slice(&START_SECTOR.to_le_bytes());
    sector[458..462].copy_from_slice(&sectors.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// A command that runs `script` in a build root, with `at` visible there as `/limosa`. The mounts are in a name space of
/// their own and go with it, however it ends.
pub(super) fn within(cache: &Cache, root: &Path, at: &Path, script: &str) -> Command {
    const ENTER: &str = "set -e\n\
        mkdir -p \"$1/limosa\"\n\
        mount --bind \"$2\" \"$1/limosa\"\n\
        mount -t proc proc \"$1/proc\"\n\
        exec chroot \"$1\" sh -ec \"$3\"";
    let (root, at) = (root.to_string_lossy(), at.to_string_lossy());
    let arguments = ["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh", &root, &at, script];
    cache.privilege().command("unshare", &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_table_names_the_root() {
        let sector = partition_table(0x20_0000);
        assert_eq!(sector[510..], [0x55, 0xaa]);
        assert_eq!(sector[454..462], [0, 8, 0, 0, 0, 0, 0x20, 0]);
        assert_eq!(u64::from(START_SECTOR) * 512, START);
        let signature = u32::from_le_bytes(sector[440..444].try_into().unwrap());
        assert_eq!(root_partition(), format!("PARTUUID={signature:08x}-01"));
    }
}
