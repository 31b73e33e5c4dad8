//! File systems that only a test sees: mounted in a child with a table of mounts of its own, with which they go, however
//! it ends.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::failure::{child, is_child, told};
use super::skip;

/// Runs `body` in a child made of this test, `test` by its full name, where mounts are its own. Skips aloud without root.
pub fn with_own_mounts(test: &str, body: impl FnOnce(&Path)) {
    if is_child(test) {
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
        // All of it in memory, and gone with the mount.
        if let Err(error) = mount("none", &folder, "tmpfs", "size=1g") {
            return skip(test, "mounts", &error.to_string());
        }
        return body(&folder);
    }
    // SAFETY: a query.
    if unsafe { libc::geteuid() } != 0 {
        return skip(test, "mounts", "only root may mount");
    }
    let name = format!("limosa-mounts-{}-{}", std::process::id(), test.replace(':', "-"));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir(&folder).unwrap();
    let output = child(test, test, |command| {
        command.env(FOLDER, &folder);
        // SAFETY: system calls on constants only, between fork and exec.
        unsafe { command.pre_exec(own_table) };
    });
    print!("{}", String::from_utf8_lossy(&output.stdout));
    std::fs::remove_dir(&folder).unwrap();
    assert!(output.status.success(), "{}", told(&output));
}

const FOLDER: &str = "LIMOSA_TEST_FOLDER";

fn own_table() -> io::Result<()> {
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: constants, and null where there is nothing to say.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null()) == 0
    };
    // What may not be done shows at the first mount.
    let _ = done;
    Ok(())
}

/// Mounts for this process.
pub fn mount(source: &str, folder: &Path, kind: &str, data: &str) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let text = |bytes: &[u8]| CString::new(bytes).unwrap();
    let [source, folder, kind, data] =
        [source.as_bytes(), folder.as_os_str().as_bytes(), kind.as_bytes(), data.as_bytes()].map(text);
    // SAFETY: strings that end, for the length of the call.
    let done = unsafe { libc::mount(source.as_ptr(), folder.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A file of `bytes` in `folder` with a file system of `kind`, mounted. `None`, said aloud, where its tools or the kernel's
/// part are missing.
pub fn mounted(test: &str, folder: &Path, kind: &str, bytes: u64) -> Option<PathBuf> {
    let (image, place) = (folder.join(format!("{kind}.image")), folder.join(kind));
    std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
    std::fs::create_dir(&place).unwrap();
    let quiet = if kind == "ext4" { "-qF" } else { "-qf" };
    let ran = |command: &mut Command| match command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(told(&output)),
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = ran(Command::new(format!("mkfs.{kind}")).arg(quiet).arg(&image)) {
        skip(test, &format!("mkfs.{kind}"), &why);
        return None;
    }
    // mount(8) finds a loop device, which goes when it is unmounted.
    match ran(Command::new("mount").args(["-t", kind, "-o", "loop"]).arg(&image).arg(&place)) {
        Ok(()) => Some(place),
        Err(why) => {
            skip(test, kind, &why);
            None
        }
    }
}

/// Attaches a file as a disk, until it is dropped.
pub struct Disk(pub PathBuf);

impl Disk {
    pub fn attach(test: &str, image: &Path) -> Option<Self> {
        let output = Command::new("/usr/sbin/losetup").args(["-f", "--show", "--direct-io=on"]).arg(image).output();
        match output {
            Ok(output) if output.status.success() => {
                Some(Self(String::from_utf8(output.stdout).unwrap().trim().into()))
            }
            Ok(output) => {
                skip(test, "loop devices", &told(&output));
                None
            }
            Err(error) => {
                skip(test, "loop devices", &error.to_string());
                None
            }
        }
    }

    /// Detaches it, as soon as nobody has it open any more; asks whether that is so.
    pub fn detach(self) -> impl Fn() -> bool {
        let backing = Path::new("/sys/block").join(self.0.file_name().unwrap()).join("loop/backing_file");
        drop(self);
        move || !backing.exists()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("/usr/sbin/losetup").arg("-d").arg(&self.0).status();
    }
}
