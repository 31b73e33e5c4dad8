//! One boot: the payload is made, QEMU started, the guest heard until its last word, the kernel's log judged. Time limits
//! are kept here too, for a guest that no longer keeps its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use super::channel::{Channel, Door, Heard};
use super::desk::Desk;
use super::log;
use super::machine::{self, Accel, Files};
use super::manifest::Machine;
use super::payload;
use super::protocol::{Event, Finished, Outcome, Plan};
use super::report::{self, Boot};
use crate::command::{TempDir, say};
use crate::error::Error;

/// How long a guest may take to its first word, on a real processor.
const FIRST_WORD: Duration = Duration::from_secs(20);
/// What a guest has beyond a test's own limit to end it and to tell.
const GRACE: Duration = Duration::from_secs(90);
/// How long it may take from its last word to its end.
const FAREWELL: Duration = Duration::from_secs(20);

/// What a boot is made of.
pub(super) struct Parts<'a> {
    pub(super) name: &'a str,
    pub(super) machine: &'a Machine,
    pub(super) kernel: &'a Path,
    pub(super) root: &'a Path,
    /// The first process, then modules and programs.
    pub(super) payload: Vec<&'a Path>,
    pub(super) plan: &'a Plan,
    pub(super) accel: Accel,
    /// Where the log is kept.
    pub(super) log: &'a Path,
}

/// How a boot went.
pub(super) enum Ended {
    Told(Boot),
    /// The guest never said a word.
    Silent(Boot),
}

/// Boots, hears everything and judges it.
pub(super) fn boot(parts: &Parts) -> Result<Ended, Error> {
    let start = Instant::now();
    let running = Running::start(parts, Some(parts.log))?;
    let mut boot = Boot { machine: format!("{} ({})", parts.name, parts.accel.name()), ..Boot::default() };
    let spoke = running.hear_all(parts, &mut boot);
    let text = fs::read(parts.log).map_err(Error::io(format!("cannot read {}", parts.log.display())))?;
    let text = String::from_utf8_lossy(&text);
    let reports = log::judge(&text);
    let said = fs::read_to_string(qemus_own(parts.log)).unwrap_or_default();
    if !boot.faults.is_empty() && !said.is_empty() {
        say(&format!("guest: QEMU said:\n{said}"));
    }
    if !reports.is_empty() {
        say(&format!("guest: the kernel's log tells of what went wrong:\n{}", log::shown(&reports)));
        boot.faults.extend(reports.into_iter().map(|report| format!("kernel: {}", report.first)));
    } else if !boot.faults.is_empty() {
        let lines: Vec<&str> = text.lines().collect();
        say(&format!("guest: the end of its log:\n{}", lines[lines.len().saturating_sub(30)..].join("\n")));
    }
    boot.took = start.elapsed();
    Ok(if spoke { Ended::Told(boot) } else { Ended::Silent(boot) })
}

/// Boots with the console on the terminal, and waits until the user is through.
pub(super) fn shell(parts: &Parts) -> Result<(), Error> {
    let mut running = Running::start(parts, None)?;
    let mut channel = None;
    while running.child.try_wait().map_err(Error::io("cannot wait for QEMU"))?.is_none() {
        channel = match channel {
            None => running.door.accept()?,
            Some(mut open) => match Channel::hear(&mut open)? {
                Heard::Event(Event::Done) | Heard::End => break,
                Heard::Event(_) | Heard::Nothing => Some(open),
            },
        };
        thread::sleep(Duration::from_millis(20));
    }
    running.farewell();
    Ok(())
}

/// What QEMU itself says, beside the kernel's log: it tells of each request that a test has made fail.
fn qemus_own(log: &Path) -> PathBuf {
    log.with_extension("qemu.log")
}

/// QEMU at work, and what it works on.
struct Running {
    child: Child,
    door: Door,
    vram: Vec<PathBuf>,
    _temp: TempDir,
}

impl Running {
    fn start(parts: &Parts, log: Option<&Path>) -> Result<Self, Error> {
        let temp = TempDir::new()?;
        let payload = payload::make(temp.path(), &parts.payload, parts.plan)?;
        let memory = machine::memory_folder(temp.path(), parts.machine);
        let unique = temp.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let numbers = 0..parts.machine.vram.len();
        let vram: Vec<PathBuf> = numbers.map(|number| memory.join(format!("{unique}-vram{number}"))).collect();
        let files = Files {
            kernel: parts.kernel.to_owned(),
            root: parts.root.to_owned(),
            payload,
            log: log.map(Path::to_owned),
            socket: temp.path().join("channel"),
            monitor: temp.path().join("monitor"),
            trace: temp.path().join("trace"),
            swap: temp.path().join("swap"),
            data: temp.path().join("data"),
            vram: vram.clone(),
        };
        let desk = Desk {
            vram: files.make(parts.machine)?,
            monitor: files.monitor.clone(),
            trace: files.trace.clone(),
            pluggable: machine::pluggable(parts.machine),
            traced_from: AtomicU64::new(0),
            plugged: AtomicU64::new(0),
        };
        let door = Door::open(&files.socket, desk)?;
        let mut command = machine::command(parts.machine, &files, parts.accel, parts.plan.factor);
        if let Some(log) = log {
            let said = qemus_own(log);
            let said = fs::File::create(&said).map_err(Error::io(format!("cannot make {}", said.display())))?;
            command.stdin(Stdio::null()).stderr(said);
        }
        // What it keeps of altered disks goes where the rest is.
        command.env("TMPDIR", temp.path());
        let child = command.spawn().map_err(Error::io(format!("cannot start {}", machine::QEMU)))?;
        Ok(Self { child, door, vram, _temp: temp })
    }

    /// Hears the guest to its end. Says whether it ever spoke. A channel that breaks is a fault, and no more: why it broke
    /// may stand in the kernel's log, which is judged all the same.
    fn hear_all(mut self, parts: &Parts, boot: &mut Boot) -> bool {
        let mut spoke = false;
        if let Err(error) = self.hear_until_done(parts, boot, &mut spoke) {
            boot.faults.push(format!("the channel: {error}"));
            self.kill();
        }
        spoke
    }

    fn hear_until_done(&mut self, parts: &Parts, boot: &mut Boot, spoke: &mut bool) -> Result<(), Error> {
        let mut channel = None;
        let mut deadline = Instant::now() + FIRST_WORD * parts.plan.factor;
        let mut doing = "booting".to_owned();
        loop {
            let heard = match &mut channel {
                Some(channel) => Channel::hear(channel)?,
                None => {
                    channel = self.door.accept()?;
                    thread::sleep(Duration::from_millis(20));
                    Heard::Nothing
                }
            };
            match heard {
                Heard::Event(Event::Booted { kernel }) => {
                    say(&format!("guest: {} is up with Linux {kernel}", parts.name));
                    *spoke = true;
                    Files::forget_memory(&self.vram);
                    deadline = Instant::now() + GRACE;
                }
                Heard::Event(Event::Started { test, limit }) => {
                    deadline = Instant::now() + Duration::from_secs(limit) + GRACE;
                    doing = test;
                }
                Heard::Event(Event::Finished(test)) => {
                    println!("{}", report::line(&test));
                    boot.tests.push(test);
                    deadline = Instant::now() + GRACE;
                }
                Heard::Event(Event::Done) => break,
                // Requests are the channel's own.
                Heard::Event(Event::Ask(_)) | Heard::Nothing => {}
                Heard::End => {
                    boot.faults.push(format!("the guest ended without its last word, during: {doing}"));
                    break;
                }
            }
            if Instant::now() > deadline {
                boot.faults.push(format!("the guest said nothing any more, during: {doing}"));
                let why = "the guest hung".to_owned();
                let (outcome, output) = (Outcome::Failed(why), String::new());
                boot.tests.push(Finished { test: doing, outcome, milliseconds: 0, output });
                self.kill();
                return Ok(());
            }
        }
        self.farewell();
        Ok(())
    }

    /// Waits for QEMU's end, and ends it if it takes too long.
    fn farewell(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }

    fn kill(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        Files::forget_memory(&self.vram);
    }
}
