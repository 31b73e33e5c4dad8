//! The channel to the host: a virtio port, one line of JSON after the other. Answers come only to what was asked, so who
//! asks holds the channel until the answer is there.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use limosa_guest::host::{SOCKET, answer};
use limosa_guest::protocol::{Answer, Ask, CHANNEL, Event};

/// The open channel.
#[derive(Clone)]
pub(crate) struct Channel(Arc<Mutex<BufReader<File>>>);

impl Channel {
    /// Waits for the port and opens it.
    pub(crate) fn open() -> io::Result<Self> {
        // Its name comes by a message of the device's own, some time after the device.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(port) = find()? {
                let file = OpenOptions::new().read(true).write(true).open(port)?;
                return Ok(Self(Arc::new(Mutex::new(BufReader::new(file)))));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("there is no virtio port {CHANNEL}")));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Says a line.
    pub(crate) fn say(&self, event: &Event) -> io::Result<()> {
        let channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        say(channel.get_ref(), event)
    }

    fn ask(&self, ask: Ask) -> io::Result<Vec<u8>> {
        let mut channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        say(channel.get_ref(), &Event::Ask(ask))?;
        answer(&mut *channel)
    }

    /// Serves the tests' requests from now on, one after the other.
    pub(crate) fn serve_tests(&self) -> io::Result<()> {
        let listener = UnixListener::bind(SOCKET)?;
        // Tests of other users ask, too.
        fs::set_permissions(SOCKET, Permissions::from_mode(0o666))?;
        let channel = self.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A test that dies or errs in the middle is its own affair.
                let _ = channel.serve(&client);
            }
        });
        Ok(())
    }

    fn serve(&self, client: &UnixStream) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line)?;
        let got = serde_json::from_str(&line).map_err(io::Error::other).and_then(|ask| self.ask(ask));
        let (head, bytes) = match got {
            Ok(bytes) => (Answer::Bytes(u64::try_from(bytes.len()).map_err(io::Error::other)?), bytes),
            Err(error) => (Answer::Refused(error.to_string()), Vec::new()),
        };
        let mut client = client;
        writeln!(client, "{}", serde_json::to_string(&head)?)?;
        client.write_all(&bytes)
    }
}

/// One write a line.
fn say(mut port: &File, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    port.write_all(&line)
}

fn find() -> io::Result<Option<String>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else { return Ok(None) };
    for port in ports {
        let port = port?;
        if fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == CHANNEL) {
            return Ok(Some(format!("/dev/{}", port.file_name().to_string_lossy())));
        }
    }
    Ok(None)
}
