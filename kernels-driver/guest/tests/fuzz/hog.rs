//! Takes a device's memory but for a little, so that the others meet its end. Untouched memory is enough for that.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

use crate::raw::shim::{self, Device};
use crate::raw::uapi::PRIVATE;
use crate::raw::{PAGE, memory};

/// A process that has the memory until this is dropped.
pub struct Hog(Child);

impl Hog {
    /// Starts one, which leaves `spare` bytes of the first device.
    pub fn start(spare: u64) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--hog").arg(spare.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        print!("hog: {line}");
        if line.starts_with("took") { Ok(Self(child)) } else { Err(std::io::Error::other("the hog failed")) }
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The process: takes, says so, and waits for the end of its input.
pub fn run(spare: u64) {
    let mut kept = Vec::new();
    for device in shim::devices().unwrap_or_else(|error| panic!("/dev/limosa*: {error}")) {
        let spare = spare << (4 * device.index.min(4));
        kept.push((take(&device, spare), device));
    }
    println!("took all but {spare} bytes and more of {} devices", kept.len());
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}

fn take(device: &Device, spare: u64) -> usize {
    let info = device.info().unwrap_or_else(|error| panic!("fd {}: {error}", device.as_raw_fd()));
    let want = usize::try_from(info.private_free.saturating_sub(spare)).unwrap_or(0) / PAGE * PAGE;
    if want == 0 {
        return 0;
    }
    let at = memory::aligned(want).unwrap_or_else(|error| panic!("mmap: {error}"));
    let (told, result) = device.migrate(at, want, PRIVATE);
    assert!(result.is_ok(), "{result:?} {told:?}");
    at
}
