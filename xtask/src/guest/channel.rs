//! The host's end of the channel: hears the guest line by line, and answers what its tests ask of the desk. Whether what
//! it hears is good is not judged here.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::protocol::{Answer, Ask, Event};
use crate::error::Error;

/// How often who listens looks at the time.
const TICK: Duration = Duration::from_millis(200);
/// How long the guest may take to take an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something heard, or not.
#[derive(Debug)]
pub(super) enum Heard {
    Event(Event),
    /// Nothing for now.
    Nothing,
    /// The guest is gone.
    End,
}

/// Where the guest will call.
pub(super) struct Door {
    listener: UnixListener,
    desk: Arc<Desk>,
}

/// The guest on the line.
pub(super) struct Channel {
    stream: BufReader<UnixStream>,
    desk: Arc<Desk>,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
}

impl Door {
    /// Listens at `path` for a guest whose tests ask at `desk`.
    pub(super) fn open(path: &Path, desk: Desk) -> Result<Self, Error> {
        let failed = || Error::io(format!("cannot listen at {}", path.display()));
        let listener = UnixListener::bind(path).map_err(failed())?;
        listener.set_nonblocking(true).map_err(failed())?;
        Ok(Self { listener, desk: Arc::new(desk) })
    }

    /// The channel, once QEMU has called.
    pub(super) fn accept(&self) -> Result<Option<Channel>, Error> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(cause) => return Err(Error::Io { what: "cannot accept the guest's call".to_owned(), cause }),
        };
        let prepared = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(TICK)));
        let prepared = prepared.and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        prepared.map_err(Error::io("cannot prepare the guest's channel"))?;
        Ok(Some(Channel { stream: BufReader::new(stream), desk: Arc::clone(&self.desk), line: Vec::new() }))
    }
}

impl Channel {
    /// The next event. A request is answered and then nothing was heard, so that who listens looks at the time: a guest
    /// that asks for ever ends, too.
    pub(super) fn hear(&mut self) -> Result<Heard, Error> {
        match self.stream.read_until(b'\n', &mut self.line) {
            Ok(0) => return Ok(Heard::End),
            Ok(_) => {}
            Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(Heard::Nothing);
            }
            Err(cause) if cause.kind() == ErrorKind::ConnectionReset => return Ok(Heard::End),
            Err(cause) => return Err(Error::Io { what: "cannot hear the guest".to_owned(), cause }),
        }
        let line = std::mem::take(&mut self.line);
        match serde_json::from_slice(&line) {
            Ok(Event::Ask(ask)) => {
                self.answer(&ask).map_err(Error::io("cannot answer the guest"))?;
                Ok(Heard::Nothing)
            }
            Ok(event) => Ok(Heard::Event(event)),
            Err(error) => {
                let detail = format!("{error}: {}", String::from_utf8_lossy(&line));
                Err(Error::Output { what: "a line of the guest's".to_owned(), detail })
            }
        }
    }

    fn answer(&mut self, ask: &Ask) -> io::Result<()> {
        let (head, bytes) = match self.desk.serve(ask) {
            Ok(bytes) => (Answer::Bytes(bytes.len() as u64), bytes),
            Err(why) => (Answer::Refused(why), Vec::new()),
        };
        let mut text = serde_json::to_vec(&head)?;
        text.push(b'\n');
        text.extend(bytes);
        self.stream.get_mut().write_all(&text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::command::TempDir;

    #[test]
    fn requests_are_answered_and_events_heard() {
        let temp = TempDir::new().unwrap();
        let (socket, vram) = (temp.path().join("socket"), temp.path().join("vram"));
        std::fs::write(&vram, b"0123456789").unwrap();
        let desk = Desk {
            vram: vec![File::open(vram).unwrap()],
            monitor: temp.path().join("monitor"),
            trace: temp.path().join("trace"),
            pluggable: BTreeMap::new(),
            traced_from: AtomicU64::new(0),
            plugged: AtomicU64::new(0),
        };
        let door = Door::open(&socket, desk).unwrap();
        let mut guest = UnixStream::connect(&socket).unwrap();
        let mut channel = door.accept().unwrap().unwrap();
        assert!(matches!(channel.hear().unwrap(), Heard::Nothing));
        let lines: [&[u8]; 3] = [
            b"{\"ask\":{\"vram\":{\"device\":0,\"offset\":7,\"length\":3}}}\n",
            b"{\"ask\":{\"vram\":{\"device\":0,\"offset\":8,\"length\":3}}}\n",
            b"\"done\"\n\"do",
        ];
        lines.iter().for_each(|line| guest.write_all(line).unwrap());
        assert!(matches!(channel.hear().unwrap(), Heard::Nothing));
        assert!(matches!(channel.hear().unwrap(), Heard::Nothing));
        assert!(matches!(channel.hear().unwrap(), Heard::Event(Event::Done)));
        // A line that comes in two parts is one.
        assert!(matches!(channel.hear().unwrap(), Heard::Nothing));
        guest.write_all(b"ne\"\n").unwrap();
        assert!(matches!(channel.hear().unwrap(), Heard::Event(Event::Done)));
        let mut answers = BufReader::new(guest.try_clone().unwrap());
        let mut text = String::new();
        answers.read_line(&mut text).unwrap();
        assert_eq!(text, "{\"bytes\":3}\n");
        let mut bytes = [0; 3];
        io::Read::read_exact(&mut answers, &mut bytes).unwrap();
        assert_eq!(&bytes, b"789");
        text.clear();
        answers.read_line(&mut text).unwrap();
        assert!(text.starts_with("{\"refused\":") && text.contains("beyond"), "{text}");
        drop((guest, answers));
        assert!(matches!(channel.hear().unwrap(), Heard::End));
    }
}
