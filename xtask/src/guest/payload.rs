//! What differs from run to run, as a disk of its own: the first process, modules, programs and the plan.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::protocol::{PLAN, Plan};
use crate::command::run_logged;
use crate::error::Error;

/// What the first process is called there.
pub(super) const FIRST: &str = "init";

/// Makes the disk in `folder` from `files`, of which the first is the first process, and the plan.
pub(super) fn make(folder: &Path, files: &[&Path], plan: &Plan) -> Result<PathBuf, Error> {
    let tree = folder.join("payload");
    let failed = |path: &Path| Error::io(format!("cannot put {} into the payload", path.display()));
    fs::create_dir(&tree).map_err(failed(&tree))?;
    let mut size = 0;
    for (number, file) in files.iter().enumerate() {
        let name = if number == 0 { FIRST.into() } else { file.file_name().unwrap_or_default().to_owned() };
        size += fs::copy(file, tree.join(name)).map_err(failed(file))?;
    }
    let text = serde_json::to_string(plan).unwrap_or_default();
    fs::write(tree.join(PLAN), text).map_err(failed(Path::new(PLAN)))?;
    let image = folder.join("payload.img");
    let size = format!("{}M", size / (1 << 20) * 9 / 8 + 16);
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "root_owner=0:0", "-d"]);
    // mkfs is in a folder that only root's shell looks in.
    mkfs.arg(&tree).arg(&image).arg(size).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    run_logged(&mut mkfs, &folder.join("mkfs.log"))?;
    fs::remove_dir_all(&tree).map_err(failed(&tree))?;
    Ok(image)
}
