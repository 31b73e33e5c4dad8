//! PID 1 of the guest: mounts, loads the modules, runs the plan that it finds in its payload, tells the host, and powers
//! off. It judges tests by themselves alone; the kernel's log is the host's to judge.
#![forbid(unsafe_code)]

mod channel;
mod mounts;
mod process;
mod programs;
mod tap;

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread;

use limosa_guest::protocol::{Event, Finished, Module, Outcome, PAYLOAD, PLAN, Plan};

use channel::Channel;

fn main() {
    if let Err(error) = run() {
        // Standard error is the console: it stands in the log, and the host misses the last word.
        eprintln!("limosa-guest-init: {error}");
    }
    // There is nothing to write back: no disk outlives the guest.
    let _ = fs::write("/proc/sysrq-trigger", "o");
    loop {
        thread::park();
    }
}

fn run() -> io::Result<()> {
    let plan = fs::read(Path::new(PAYLOAD).join(PLAN))?;
    let plan: Plan = serde_json::from_slice(&plan)?;
    mounts::mount_all()?;
    let channel = Channel::open()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    channel.say(&Event::Booted { kernel })?;
    channel.serve_tests()?;
    if plan.shell {
        for module in &plan.modules {
            insmod(module).unwrap_or_else(|error| eprintln!("{}: {error}", module.name));
        }
        shell()?;
        return channel.say(&Event::Done);
    }
    let loaded: Vec<&Module> = plan.modules.iter().take_while(|module| load(&channel, module)).collect();
    if loaded.len() == plan.modules.len() {
        programs::run_all(&plan, &channel)?;
    }
    for module in loaded.iter().rev() {
        step(&channel, &format!("unload {}", module.name), || tool("rmmod", &[&module.name]));
    }
    channel.say(&Event::Done)
}

fn load(channel: &Channel, module: &Module) -> bool {
    step(channel, &format!("load {}", module.name), || insmod(module))
}

fn insmod(module: &Module) -> io::Result<()> {
    let file = Path::new(PAYLOAD).join(&module.file);
    let mut words = vec![file.to_string_lossy().into_owned()];
    words.extend(module.parameters.iter().cloned());
    tool("insmod", &words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Something of our own that is told as a test. Says whether it went well.
fn step(channel: &Channel, name: &str, action: impl FnOnce() -> io::Result<()>) -> bool {
    const LIMIT_S: u64 = 60;
    let told = channel.say(&Event::Started { test: name.to_owned(), limit: LIMIT_S });
    let outcome = action().map_or_else(|error| Outcome::Failed(error.to_string()), |()| Outcome::Passed);
    let passed = outcome == Outcome::Passed;
    let finished = Finished { test: name.to_owned(), outcome, milliseconds: 0, output: String::new() };
    passed && told.is_ok() && channel.say(&Event::Finished(finished)).is_ok()
}

/// A program of the system. The kernel gives the first process no search path.
fn system(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
    command
}

/// Runs a tool of the system and waits for it.
fn tool(name: &str, arguments: &[&str]) -> io::Result<()> {
    let output = system(name).args(arguments).output();
    let output = output.map_err(|error| io::Error::other(format!("cannot run {name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{name} {}: {} ({})", arguments.join(" "), said.trim(), output.status)))
}

fn shell() -> io::Result<()> {
    println!("The payload is in {PAYLOAD}; leave with ^D or `exit`.");
    // A shell wants a terminal of its own for job control.
    let script = "exec setsid --ctty bash -i </dev/ttyS0 >/dev/ttyS0 2>&1";
    system("sh").args(["-c", script]).env("HOME", "/root").env("TERM", "vt220").current_dir(PAYLOAD).status()?;
    Ok(())
}
