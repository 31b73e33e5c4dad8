//! Asking the host: what a test cannot see from inside. Requests go through the runner, which alone may open the channel,
//! so that a test that is killed leaves no half of an answer to the next.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use crate::protocol::{Answer, Ask, Trace};
use crate::trace::{self, Command};

/// Where the runner listens.
pub const SOCKET: &str = "/run/limosa-host";

/// The `length` bytes from `offset` on of the memory behind BAR 2 of a device, in the host's own file: what truly reached
/// the device. Devices are numbered as in [`crate::device::list`].
///
/// # Errors
/// If this is not the guest, or the host has no such bytes.
pub fn vram(device: usize, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    ask(&Ask::Vram { device, offset, length })
}

/// Takes a device off the machine: [`DATA`](crate::protocol::DATA), or `gpu0` and so on. Returns when the guest's kernel
/// is asked for it; what it does then takes its time.
///
/// # Errors
/// If this is not the guest, or there is no such device.
pub fn unplug(device: &str) -> io::Result<()> {
    ask(&Ask::Unplug(device.to_owned())).map(drop)
}

/// Puts a device back.
///
/// # Errors
/// As [`unplug`], or if it is still there.
pub fn plug(device: &str) -> io::Result<()> {
    ask(&Ask::Plug(device.to_owned())).map(drop)
}

/// The data disk at a halt, until this is dropped: the first request passes, others wait.
#[derive(Debug)]
pub struct Hold(());

impl Hold {
    /// Halts it.
    ///
    /// # Errors
    /// If this is not the guest.
    pub fn new() -> io::Result<Self> {
        ask(&Ask::Hold(true)).map(|_| Self(()))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Who is gone holds nothing.
        let _ = ask(&Ask::Hold(false));
    }
}

/// The data disk with a bad end, until this is dropped: to read there is an error of the disk's.
#[derive(Debug)]
pub struct Cut(());

impl Cut {
    /// Makes what is behind so many bytes bad.
    ///
    /// # Errors
    /// If this is not the guest.
    pub fn behind(bytes: u64) -> io::Result<Self> {
        ask(&Ask::Cut(Some(bytes))).map(|_| Self(()))
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // Who is gone cuts nothing.
        let _ = ask(&Ask::Cut(None));
    }
}

/// The trace of what the data disk's controller is asked to do, until this is dropped. One at a time.
#[derive(Debug)]
pub struct Tracing(());

impl Tracing {
    /// Begins it.
    ///
    /// # Errors
    /// If this is not the guest.
    pub fn new() -> io::Result<Self> {
        ask(&Ask::Trace(Trace::Begin)).map(|_| Self(()))
    }

    /// The commands since it began: those that are complete, and what is under way.
    ///
    /// # Errors
    /// As before, and if the trace is too long.
    pub fn commands(&self) -> io::Result<Vec<Command>> {
        let lines = ask(&Ask::Trace(Trace::Look))?;
        trace::parse(&String::from_utf8_lossy(&lines)).map_err(io::Error::other)
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        // Who is gone traces nothing.
        let _ = ask(&Ask::Trace(Trace::End));
    }
}

fn ask(request: &Ask) -> io::Result<Vec<u8>> {
    let socket = UnixStream::connect(SOCKET)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    (&socket).write_all(&line)?;
    answer(&mut BufReader::new(socket))
}

/// Reads an answer and its bytes.
///
/// # Errors
/// If the host refused, or the channel broke.
pub fn answer(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    match serde_json::from_str(&line)? {
        Answer::Bytes(length) => {
            let mut bytes = Vec::new();
            from.take(length).read_to_end(&mut bytes)?;
            let whole = u64::try_from(bytes.len()).is_ok_and(|got| got == length);
            whole.then_some(bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        }
        Answer::Refused(why) => Err(io::Error::other(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_line_and_its_bytes() {
        let mut text: &[u8] = b"{\"bytes\":3}\n\0\n\xffrest";
        assert_eq!(answer(&mut text).unwrap(), [0, b'\n', 0xff]);
        assert_eq!(text, b"rest");
        let error = answer(&mut &b"{\"refused\":\"no such device\"}\n"[..]).unwrap_err();
        assert_eq!(error.to_string(), "no such device");
        assert_eq!(answer(&mut &b"{\"bytes\":3}\nab"[..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
