//! QEMU's monitor (QMP): commands to a machine that runs. What they mean is for others to know.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open monitor.
pub(super) struct Monitor(BufReader<UnixStream>);

impl Monitor {
    /// Opens the monitor that listens at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut monitor = Self(BufReader::new(stream));
        monitor.execute("qmp_capabilities", json!({})).map_err(io::Error::other)?;
        Ok(monitor)
    }

    /// Has a command done, and gives what it returns. What QEMU tells beside it is left out.
    pub(super) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        self.say_and_hear(&json!({"execute": command, "arguments": arguments}))
            .map_err(|error| format!("QEMU's monitor: {error}"))?
            .map_err(|error| format!("QEMU's {command}: {error}"))
    }

    /// The same for a command as people type it.
    pub(super) fn type_in(&mut self, line: &str) -> Result<(), String> {
        match self.execute("human-monitor-command", json!({"command-line": line}))? {
            Value::String(said) if !said.trim().is_empty() => Err(format!("QEMU's `{line}`: {}", said.trim())),
            _ => Ok(()),
        }
    }

    fn say_and_hear(&mut self, command: &Value) -> io::Result<Result<Value, String>> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)?;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut heard: Value = serde_json::from_str(&line)?;
            if let Some(value) = heard.get_mut("return") {
                return Ok(Ok(value.take()));
            }
            if let Some(error) = heard.get("error") {
                return Ok(Err(error["desc"].as_str().unwrap_or("no reason").to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::command::TempDir;

    #[test]
    fn greetings_and_events_are_no_answers_and_errors_are_told() {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("monitor");
        let listener = UnixListener::bind(&path).unwrap();
        let qemu = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = [
                r#"{"QMP":{"version":{}}}"#,
                r#"{"return":{}}"#,
                r#"{"event":"DEVICE_DELETED","data":{"device":"data"}}"#,
                r#"{"return":"Error: no such device\r\n"}"#,
                r#"{"error":{"class":"GenericError","desc":"not there"}}"#,
                r#"{"return":{"a":1}}"#,
            ];
            stream.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
            let mut asked = String::new();
            stream.read_to_string(&mut asked).unwrap();
            asked
        });
        let mut monitor = Monitor::open(&path).unwrap();
        assert!(monitor.type_in("device_del date").unwrap_err().contains("no such device"));
        assert!(monitor.execute("device_del", json!({"id": "date"})).unwrap_err().contains("not there"));
        assert_eq!(monitor.execute("query", json!({})).unwrap()["a"], 1);
        drop(monitor);
        let asked = qemu.join().unwrap();
        assert!(asked.starts_with(r#"{"arguments":{},"execute":"qmp_capabilities"}"#), "{asked}");
        assert!(asked.contains(r#""command-line":"device_del date""#), "{asked}");
    }
}
