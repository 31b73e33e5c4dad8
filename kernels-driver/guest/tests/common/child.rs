//! Children by fork(), as tests of memory need them: they share what the parent had, and talk with it by bytes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A running child.
pub struct Child {
    pub pid: i32,
    stream: UnixStream,
}

/// The other end.
pub struct Parent(UnixStream);

impl Parent {
    /// Says to the parent that a point is reached.
    pub fn tell(&mut self) {
        self.0.write_all(b"x").unwrap();
    }

    /// Waits until the parent says so.
    pub fn wait(&mut self) {
        self.0.read_exact(&mut [0]).unwrap();
    }
}

impl Child {
    /// A child that does `action` and ends; one that panics ends with status 1.
    pub fn start(action: impl FnOnce(&mut Parent)) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // SAFETY: the child runs on a copy of this thread alone. What it uses of the others' (the allocator, standard error)
        // the C library makes good on fork, or nobody else uses in a test's process.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            drop(ours);
            let mut parent = Parent(theirs);
            let status = i32::from(catch_unwind(AssertUnwindSafe(|| action(&mut parent))).is_err());
            // SAFETY: ends the process; nothing of the parent's is to be dropped here.
            unsafe { libc::_exit(status) };
        }
        Self { pid, stream: ours }
    }

    /// Waits until the child says so.
    pub fn wait(&mut self) {
        self.stream.read_exact(&mut [0]).unwrap();
    }

    /// Says to the child that a point is reached.
    pub fn tell(&mut self) {
        self.stream.write_all(b"x").unwrap();
    }

    pub fn kill(&self) {
        // SAFETY: a child of ours that was not waited for.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
    }

    /// How it ended: exit status or signal.
    pub fn ended(self) -> Result<i32, i32> {
        let mut status = 0;
        loop {
            // SAFETY: a child of ours that was not waited for.
            let waited = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
            if waited == self.pid {
                break;
            }
            assert_eq!(std::io::Error::last_os_error().kind(), std::io::ErrorKind::Interrupted);
        }
        if libc::WIFSIGNALED(status) { Err(libc::WTERMSIG(status)) } else { Ok(libc::WEXITSTATUS(status)) }
    }

    /// Fails unless it ended well.
    pub fn succeeds(self) {
        assert_eq!(self.ended(), Ok(0), "a child failed: exit status, or the signal that ended it");
    }
}

/// Fails unless `action`, done in a child, succeeds.
pub fn in_child(action: impl FnOnce(&mut Parent)) {
    Child::start(action).succeeds();
}

/// The signal that ends a child which does `action`, if one does.
pub fn signal_of(action: impl FnOnce()) -> Option<i32> {
    Child::start(|_| action()).ended().err()
}
