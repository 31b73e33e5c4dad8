//! A file that the test itself serves to the kernel (FUSE, its protocol by hand): reads and writes of it fail, come short
//! or come late as the test says. It does *not* keep what is written.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::common::mounts::mount;
use crate::common::skip;
use crate::common::words::wait_until;

/// What is to happen.
#[derive(Clone, Default)]
pub(crate) struct Rules {
    /// What the file holds.
    pub(crate) data: Vec<u8>,
    /// Its length, as it says.
    pub(crate) len: u64,
    /// Where requests fail, and with which errno.
    pub(crate) fails: Option<(Range<u64>, i32)>,
    /// The most bytes of one answer.
    pub(crate) most: Option<usize>,
    /// Whether reads and writes wait for [`Served::release`].
    pub(crate) late: bool,
    /// How often the kernel asked for a request to be given up.
    pub(crate) interrupts: usize,
}

/// A request that waits for its answer.
struct Held {
    unique: u64,
    at: u64,
    len: usize,
    to_file: bool,
}

struct Server {
    device: File,
    rules: Mutex<Rules>,
    held: Mutex<Vec<Held>>,
    /// Whether the kernel is told to keep nothing of it: `FOPEN_DIRECT_IO`.
    uncached: bool,
}

/// The served file, until it is dropped.
pub(crate) struct Served {
    server: Arc<Server>,
    folder: PathBuf,
}

// Of linux/fuse.h.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
const ASYNC_READ: u32 = 1 << 0;
const BIG_WRITES: u32 = 1 << 5;
const ASYNC_DIRECT: u32 = 1 << 15;
const MAX_PAGES: u32 = 1 << 22;
const ROOT: u64 = 1;
const FILE: u64 = 2;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Words and longs as the protocol lays them out.
#[derive(Default)]
struct Reply(Vec<u8>);

impl Reply {
    fn words(mut self, words: &[u32]) -> Self {
        words.iter().for_each(|word| self.0.extend(word.to_le_bytes()));
        self
    }

    fn longs(mut self, longs: &[u64]) -> Self {
        longs.iter().for_each(|long| self.0.extend(long.to_le_bytes()));
        self
    }

    /// `struct fuse_attr`.
    fn attributes(self, node: u64, len: u64) -> Self {
        let mode = if node == ROOT { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o644 };
        self.longs(&[node, len, len.div_ceil(512), 0, 0, 0]).words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])
    }
}

impl Server {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap()
    }

    fn answer(&self, unique: u64, error: i32, body: &[u8]) {
        let head = Reply::default().words(&[u32::try_from(16 + body.len()).unwrap(), (-error).cast_unsigned()]);
        let mut reply = head.longs(&[unique]).0;
        reply.extend(body);
        // Fails for what the kernel has given up meanwhile.
        let _ = (&self.device).write(&reply);
    }

    /// Answers a read or a write.
    fn serve(&self, Held { unique, at, len, to_file }: &Held) {
        let mut rules = self.rules();
        if let Some((range, errno)) = &rules.fails
            && *at < range.end
            && range.start < at + *len as u64
        {
            return self.answer(*unique, *errno, &[]);
        }
        let at = usize::try_from(*at).unwrap();
        let len = rules.most.map_or(*len, |most| most.min(*len));
        if *to_file {
            let end = rules.data.len().max(at + len);
            rules.data.resize(end, 0);
            rules.len = rules.len.max(end as u64);
            return self.answer(*unique, 0, &Reply::default().words(&[u32::try_from(len).unwrap(), 0]).0);
        }
        let end = (at + len).min(rules.data.len());
        self.answer(*unique, 0, rules.data.get(at..end).unwrap_or_default());
    }

    fn run(&self) {
        let mut request = vec![0; (1 << 20) + 65536];
        // Fails when it is unmounted.
        while let Ok(len) = (&self.device).read(&mut request) {
            let (opcode, unique, node) = (word(&request, 4), long(&request, 8), long(&request, 16));
            let body = &request[40..len];
            match opcode {
                INIT => {
                    let flags = word(body, 12) & (ASYNC_READ | BIG_WRITES | ASYNC_DIRECT | MAX_PAGES);
                    let reply = Reply::default().words(&[7, 31, 128 << 10, flags, 128 | 96 << 16, 1 << 20, 1, 256]);
                    self.answer(unique, 0, &reply.words(&[0; 8]).0);
                }
                LOOKUP if node == ROOT && body.starts_with(b"data\0") => {
                    let reply = Reply::default().longs(&[FILE, 0, 0, 0]).words(&[0, 0]);
                    self.answer(unique, 0, &reply.attributes(FILE, self.rules().len).0);
                }
                LOOKUP => self.answer(unique, libc::ENOENT, &[]),
                SETATTR if word(body, 0) & 8 != 0 => {
                    let len = long(body, 16);
                    self.rules().len = len;
                    self.answer(unique, 0, &Reply::default().longs(&[0, 0]).attributes(node, len).0);
                }
                GETATTR | SETATTR => {
                    self.answer(unique, 0, &Reply::default().longs(&[0, 0]).attributes(node, self.rules().len).0);
                }
                OPEN => self.answer(unique, 0, &Reply::default().longs(&[0]).words(&[u32::from(self.uncached), 0]).0),
                READ | WRITE => {
                    let (at, len) = (long(body, 8), word(body, 16) as usize);
                    if opcode == WRITE {
                        self.keep(at, &body[40..40 + len]);
                    }
                    let held = Held { unique, at, len, to_file: opcode == WRITE };
                    let rules = self.rules();
                    if rules.late {
                        self.held.lock().unwrap().push(held);
                    } else {
                        drop(rules);
                        self.serve(&held);
                    }
                }
                STATFS => {
                    let reply = Reply::default().longs(&[1 << 20, 1 << 20, 1 << 20, 9, 9]).words(&[4096, 255, 4096]);
                    self.answer(unique, 0, &reply.words(&[0; 7]).0);
                }
                RELEASE | FSYNC | FLUSH => self.answer(unique, 0, &[]),
                INTERRUPT => self.rules().interrupts += 1,
                FORGET | BATCH_FORGET => {}
                DESTROY => return,
                _ => self.answer(unique, libc::ENOSYS, &[]),
            }
        }
    }

    /// Takes what is written, as far as it will be told to have been.
    fn keep(&self, at: u64, bytes: &[u8]) {
        let mut rules = self.rules();
        let fails =
            rules.fails.as_ref().is_some_and(|(range, _)| at < range.end && range.start < at + bytes.len() as u64);
        let (at, taken) = (usize::try_from(at).unwrap(), rules.most.map_or(bytes.len(), |most| most.min(bytes.len())));
        if !fails {
            let end = rules.data.len().max(at + taken);
            rules.data.resize(end, 0);
            rules.data[at..at + taken].copy_from_slice(&bytes[..taken]);
        }
    }
}

impl Served {
    /// Serves `rules` in a folder in `at`. `None`, said aloud, where there is no FUSE.
    pub(crate) fn new(test: &str, at: &Path, uncached: bool, rules: Rules) -> Option<Self> {
        let device = match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            Ok(device) => device,
            Err(error) => {
                skip(test, "FUSE", &error.to_string());
                return None;
            }
        };
        let name = (0..).map(|i| at.join(format!("served-{i}"))).find(|path| !path.exists()).unwrap();
        std::fs::create_dir(&name).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount("limosa", &name, "fuse", &options).unwrap();
        let server = Server { device, rules: Mutex::new(rules), held: Mutex::default(), uncached };
        let served = Self { server: Arc::new(server), folder: name };
        let server = Arc::clone(&served.server);
        std::thread::spawn(move || server.run());
        Some(served)
    }

    /// The same of `data`, with nothing wrong.
    pub(crate) fn with(test: &str, at: &Path, uncached: bool, data: Vec<u8>) -> Option<Self> {
        let len = data.len() as u64;
        Self::new(test, at, uncached, Rules { data, len, ..Rules::default() })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Has something else happen from here on.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.server.rules());
    }

    pub(crate) fn rules(&self) -> Rules {
        self.server.rules().clone()
    }

    /// Waits until the kernel has asked for so much that is late.
    pub(crate) fn wait_for_held(&self, count: usize) {
        wait_until(|| self.server.held.lock().unwrap().len() >= count);
    }

    /// Answers what is late so far, in an order that nobody expects.
    pub(crate) fn answer(&self) {
        let mut held = std::mem::take(&mut *self.server.held.lock().unwrap());
        held.sort_by_key(|held| (held.at / 4096).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        held.iter().for_each(|held| self.server.serve(held));
    }

    /// Answers what is late, and all that comes from here on.
    pub(crate) fn release(&self) {
        self.set(|rules| rules.late = false);
        self.answer();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Whatever came of the test: nobody may wait for ever.
        self.release();
        let folder = std::ffi::CString::new(self.folder.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: a string that ends.
        unsafe { libc::umount2(folder.as_ptr(), libc::MNT_DETACH) };
    }
}
