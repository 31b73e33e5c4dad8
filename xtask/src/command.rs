//! Running other programs: their output goes to the terminal as it comes, and a failure becomes a named error. There
//! is no time limit and no retry here.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// Says a line about what xtask is doing, apart from what the programs it runs say.
pub(crate) fn say(text: &str) {
    println!("xtask: {text}");
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable when it runs xtask; the path of the build is for an executable that is run by hand.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// The cargo that runs us, with `arguments`, in the root of the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// A command as a user would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut text = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Says the command, runs it, and waits for it.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    say(&format!("$ {}", shown(command)));
    let status = command.status().map_err(Error::io(format!("cannot start `{}`", shown(command))))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Err(Error::Command { command: shown(command), outcome: status.to_string(), code })
}

/// Runs the command with all its output in a file, of which the end is shown if it fails.
pub(crate) fn run_logged(command: &mut Command, log: &Path) -> Result<(), Error> {
    let failed = || Error::io(format!("cannot write {}", log.display()));
    let file = std::fs::File::create(log).map_err(failed())?;
    command.stdin(Stdio::null()).stdout(file.try_clone().map_err(failed())?).stderr(file);
    let status = command.status().map_err(Error::io(format!("cannot start `{}`", shown(command))))?;
    if status.success() {
        return Ok(());
    }
    let text = std::fs::read(log).map_err(failed())?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Err(Error::Command { command: shown(command), outcome: status.to_string(), code })
}

/// Runs the command, whose errors still go to the terminal, and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>, Error> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(Error::io(format!("cannot start `{}`", shown(command))))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let code = output.status.code().and_then(|code| u8::try_from(code).ok());
    Err(Error::Command { command: shown(command), outcome: output.status.to_string(), code })
}

/// Runs a query whose exit status says "not found" and whose output is wanted all the same. Nothing if there is no
/// such program.
pub(crate) fn query(command: &mut Command) -> Result<Option<String>, Error> {
    match command.env("LC_ALL", "C").stderr(Stdio::null()).output() {
        Ok(output) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::Io { what: format!("cannot start `{}`", shown(command)), cause }),
    }
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A folder for temporary files, gone with this value.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// Makes a folder that everybody may enter and read.
    pub(crate) fn new() -> Result<Self, Error> {
        // In containers process ids repeat, and a run that was killed leaves its folder behind: take the next name.
        let names = (0..100).map(|number| format!("limosa-xtask-{}-{number}", std::process::id()));
        let mut paths = names.map(|name| std::env::temp_dir().join(name)).filter(|path| !path.exists());
        let path = paths.next().unwrap_or_else(|| std::env::temp_dir().join("limosa-xtask"));
        std::fs::create_dir(&path).map_err(Error::io(format!("cannot make the folder {}", path.display())))?;
        let dir = Self(path);
        set_mode(&dir.0, 0o755)?;
        Ok(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(cause) = std::fs::remove_dir_all(&self.0) {
            say(&format!("left behind: {} ({cause})", self.0.display()));
        }
    }
}

/// Sets the permissions of a file or folder, whatever the umask.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(Error::io(format!("cannot set the permissions of {}", path.display())))
}
