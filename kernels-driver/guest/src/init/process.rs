//! A test's process: in a control group of its own, so that nothing of it is left whatever it forked, with a time limit,
//! its output caught. It knows nothing of tests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use limosa_guest::protocol::Plan;

use crate::system;

const GROUP: &str = "/sys/fs/cgroup/test";
const OUTPUT: &str = "/run/output";
/// Where tests append a line for each test that they skip, as under `cargo xtask test`.
const SKIPS: &str = "/run/skips";
/// How much of an output is told.
const OUTPUT_MAX: u64 = 64 << 10;
/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(30);

/// How a process ended.
pub(crate) enum Ending {
    /// By itself.
    Exited(ExitStatus),
    /// It was killed at its limit.
    TimedOut,
    /// It was killed at its limit and is still there: it is stuck in the kernel.
    Stuck,
}

/// What a process did.
pub(crate) struct Report {
    pub(crate) ending: Ending,
    pub(crate) took: Duration,
    /// Standard output and error as they came; of a long one the end.
    pub(crate) output: String,
    /// What it skipped, `SKIP …` each.
    pub(crate) skips: Vec<String>,
}

/// Runs `program` with `arguments` as `user`.
pub(crate) fn run(
    program: &Path,
    arguments: &[&str],
    user: Option<u32>,
    limit: Duration,
    plan: &Plan,
) -> io::Result<Report> {
    fs::create_dir_all(GROUP)?;
    let output = OpenOptions::new().create(true).append(true).read(true).open(OUTPUT)?;
    output.set_len(0)?;
    File::create(SKIPS)?;
    set_mode(SKIPS)?;

    // The group is entered before the program is: nothing it does escapes.
    let mut command = system("sh");
    command.args(["-c", "echo $$ > \"$0\" && exec \"$@\"", &format!("{GROUP}/cgroup.procs")]);
    if let Some(user) = user {
        command.args(["setpriv", &format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
    }
    command.arg(program).args(arguments).current_dir("/tmp");
    command.env("LIMOSA_SKIPS", SKIPS).env("LIMOSA_GUEST_FACTOR", plan.factor.to_string());
    command.env("LIMOSA_GUEST_MACHINE", &plan.machine);
    command.env("LIMOSA_EXPECT", "lavapipe").env("HOME", "/tmp").env("RUST_BACKTRACE", "1");
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);

    let start = Instant::now();
    let mut child = command.spawn()?;
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    let ending = match ended.recv_timeout(limit) {
        Ok(status) => Ending::Exited(status?),
        Err(_) => {
            // What it waits for is in the log then.
            fs::write("/proc/sysrq-trigger", "w")?;
            fs::write("/proc/sysrq-trigger", "l")?;
            kill_group()?;
            if ended.recv_timeout(DEATH).is_ok() { Ending::TimedOut } else { Ending::Stuck }
        }
    };
    let took = start.elapsed();
    kill_group()?;
    let gone = group_is_gone();
    let ending = if gone { ending } else { Ending::Stuck };
    let skips =
        fs::read_to_string(SKIPS)?.lines().filter(|line| line.starts_with("SKIP ")).map(str::to_owned).collect();
    Ok(Report { ending, took, output: end_of(&output)?, skips })
}

fn kill_group() -> io::Result<()> {
    fs::write(Path::new(GROUP).join("cgroup.kill"), "1")
}

/// Waits until the group is empty, and removes it.
fn group_is_gone() -> bool {
    let deadline = Instant::now() + DEATH;
    while fs::remove_dir(GROUP).is_err() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

fn end_of(mut file: &File) -> io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_MAX)))?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn set_mode(path: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
}
