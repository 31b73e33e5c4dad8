//! fio on the same file, the measure of what a drive can do: io_uring and direct I/O, in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use limosa::Direction;
use serde_json::Value;

use super::load::{Figures, Load};

/// Whether it is there, and which.
pub(crate) fn version() -> Result<String, String> {
    let output = Command::new("fio").arg("--version").output();
    let output = output.map_err(|error| format!("fio cannot be run (apt-get install fio): {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Puts a load on `bytes` bytes of a file. Its memory is `depth` requests, again and again.
pub(crate) fn run(path: &Path, load: &Load, bytes: usize, file: usize) -> Result<Figures, String> {
    let direction = if load.direction == Direction::FromFile { "read" } else { "write" };
    let random = if load.random { "rand" } else { "" };
    let mut command = Command::new("fio");
    command.args(["--name=limosa", "--ioengine=io_uring", "--direct=1", "--output-format=json"]);
    // The file is there, and stays as long as it is. A process of its own would be a session of its own, which the
    // kernel gives as much of the processors as all of ours together.
    command.args(["--allow_file_create=0", "--fallocate=none", "--norandommap", "--thread"]);
    command.arg(format!("--filename={}", path.display())).arg(format!("--rw={random}{direction}"));
    command.arg(format!("--bs={}", load.request)).arg(format!("--iodepth={}", load.depth));
    command.arg(format!("--size={file}")).arg(format!("--io_size={bytes}"));
    let output = command.output().map_err(|error| format!("fio: {error}"))?;
    if !output.status.success() {
        return Err(format!("fio ends with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    figures(&output.stdout, direction).ok_or_else(|| "fio's JSON is not understood".to_owned())
}

fn figures(text: &[u8], direction: &str) -> Option<Figures> {
    // What it warns of stands before.
    let start = text.iter().position(|byte| *byte == b'{')?;
    let document: Value = serde_json::from_slice(&text[start..]).ok()?;
    let job = &document["jobs"][0];
    let side = &job[direction];
    let bytes = side["io_bytes"].as_u64()?;
    // Of its rates, not its time, which is in whole milliseconds.
    let rate = side["bw_bytes"].as_f64().filter(|rate| *rate > 0.0)?;
    let ran = job["job_runtime"].as_f64()? / 1e3;
    Some(Figures {
        bytes: usize::try_from(bytes).ok()?,
        requests: side["total_ios"].as_f64()?,
        time: Duration::from_secs_f64(bytes as f64 / rate),
        cpu: (job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?) / 100.0 * ran,
    })
}
