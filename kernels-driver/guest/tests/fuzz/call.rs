//! One call: a struct that is filled well, then spoilt in up to two ways, each of which says with what the call may end.
//! What must hold afterwards follows from that: a call that was not spoilt succeeds, a spoilt one fails with the error of
//! one of its faults, what the header says is not written is not, and progress adds up. Which memory is mapped it does
//! *not* know: the caller says what may come of the range that it gave.

use std::os::fd::{FromRawFd, RawFd};

use crate::raw::random::Random;
use crate::raw::{PAGE, memory, shim};
use crate::shape::{Field, LOAD, SHAPES, Shape};
use crate::tally::{Tally, UNKNOWN, text};

/// Behind the last address that a program can have, on processors with five levels of page tables, too.
const END: u64 = 0x00ff_ffff_ffff_f000;
/// Room for a struct and what comes behind it.
const ROOM: usize = 3 * PAGE;

/// Memory for structs: pages, behind them a page that is not there, and the same pages elsewhere, where they can only be
/// read.
#[derive(Clone, Copy)]
pub struct Bench {
    at: usize,
    fixed: usize,
}

impl Bench {
    /// Maps it.
    pub fn new() -> Self {
        let made = Self::try_new();
        made.unwrap_or_else(|error| panic!("memory for structs: {error}"))
    }

    fn try_new() -> std::io::Result<Self> {
        // SAFETY: the name ends with a zero.
        let fd = memory::checked(unsafe { libc::memfd_create(c"structs".as_ptr(), libc::MFD_CLOEXEC) })?;
        // SAFETY: just made.
        let file = unsafe { std::fs::File::from_raw_fd(fd) };
        file.set_len(ROOM as u64)?;
        // The last page lies behind the file's end: it is SIGBUS to a program, and EFAULT to the kernel.
        let at = memory::map(0, ROOM + PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd)?;
        let fixed = memory::map(0, ROOM + PAGE, libc::PROT_READ, libc::MAP_SHARED, fd)?;
        Ok(Self { at, fixed })
    }

    fn bytes(self) -> &'static mut [u8] {
        // SAFETY: mapped by `new` for good; each thread has a bench of its own, and makes one call at a time on it.
        unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(self.at), ROOM) }
    }
}

/// What may come of the memory that a call speaks of.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Besides success.
    pub errnos: Vec<i32>,
    /// Success may not.
    pub fails: bool,
    /// If it ends with EFAULT for the range's sake, it came to here.
    pub stops_at: Option<u64>,
}

/// What fills the fields of a call, each those of its kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Values {
    /// An address and a length.
    pub range: (u64, u64),
    /// An enumerated value.
    pub choice: u32,
    /// Where to write states.
    pub states: u64,
    /// A file's number.
    pub file: RawFd,
    /// A place in it.
    pub offset: u64,
}

/// A call.
pub struct Call {
    /// Its place in [`SHAPES`].
    pub shape: usize,
    /// On which file.
    pub fd: RawFd,
    command: u64,
    pointer: usize,
    fixed: bool,
    given: usize,
    before: Vec<u8>,
    expected: Expected,
    spoilt: Vec<&'static str>,
}

/// What came of it.
pub struct Outcome {
    /// 0, or why not.
    pub errno: i32,
    /// The struct, as it is afterwards.
    pub after: Vec<u8>,
    /// Whether the caller gave room for all of it.
    pub whole: bool,
    /// Whether it could not be written, whatever the call did.
    pub fixed: bool,
}

impl Outcome {
    /// 8 bytes of the struct.
    pub fn word(&self, at: usize) -> u64 {
        word(&self.after, at)
    }

    /// 4 bytes of the struct.
    pub fn half(&self, at: usize) -> u32 {
        half(&self.after, at)
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Values that are nobody's.
fn odd(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => 1 << random.below(64),
        1 => u64::MAX,
        2 => random.next() & 0xFFF | 1,
        3 => 0xFFFF_8880_0000_0000,
        4 => random.next() % 4096 + 1,
        _ => random.next() | 1,
    }
}

/// The same in 4 bytes, and not below `least`.
fn odd_half(random: &mut Random, least: u32) -> u32 {
    u32::try_from(odd(random) & 0xFFFF_FFFF).unwrap_or(0).max(least)
}

impl Call {
    /// A call that is well-formed.
    pub fn new(shape: usize, fd: RawFd, values: Values, expected: Expected) -> Self {
        let of = &SHAPES[shape];
        let mut before = vec![0; of.size];
        put_half(&mut before, 0, u32::try_from(of.size).unwrap_or(0));
        for (at, field) in of.fields {
            match field {
                Field::Flags | Field::Reserved => {}
                Field::Enum(_) => put_half(&mut before, *at, values.choice),
                Field::Bytes | Field::Len => put_word(&mut before, *at, values.range.1),
                Field::States => put_word(&mut before, *at, values.states),
                Field::File => put_half(&mut before, *at, values.file.cast_unsigned()),
                Field::Offset => put_word(&mut before, *at, values.offset),
                Field::Range => {
                    put_word(&mut before, *at, values.range.0);
                    put_word(&mut before, *at + 8, values.range.1);
                }
            }
        }
        Self {
            shape,
            fd,
            command: of.command,
            pointer: 0,
            fixed: false,
            given: of.size,
            before,
            expected,
            spoilt: Vec::new(),
        }
    }

    fn of(&self) -> &'static Shape {
        &SHAPES[self.shape]
    }

    fn fault(&mut self, what: &'static str, errnos: &[i32]) {
        self.spoilt.push(what);
        self.expected.errnos.extend(errnos);
        self.expected.fails = true;
    }

    /// Notes what the caller did to the call.
    pub fn with_fault(mut self, what: &'static str, errnos: &[i32]) -> Self {
        self.fault(what, errnos);
        self
    }

    /// Spoils it in some of four ways: each at most once, so that none takes another's fault away.
    pub fn spoil(&mut self, random: &mut Random, bench: Bench, times: usize) {
        let mut done = [false; 4];
        for _ in 0..times {
            let way = [0, 0, 0, 0, 1, 1, 2, 3][random.below(8)];
            if !std::mem::replace(&mut done[way], true) {
                match way {
                    0 => self.spoil_field(random),
                    1 => self.spoil_size(random),
                    2 => self.spoil_pointer(random, bench),
                    _ => self.spoil_command(random),
                }
            }
        }
    }

    /// A field, if there is one that can be spoilt.
    fn spoil_field(&mut self, random: &mut Random) {
        let (at, field) = *random.pick(self.of().fields);
        match field {
            Field::Flags => {
                put_half(&mut self.before, at, odd_half(random, 1));
                self.fault("flags", &[libc::EOPNOTSUPP]);
            }
            Field::Reserved => {
                put_half(&mut self.before, at, odd_half(random, 1));
                self.fault("reserved", &[libc::EINVAL]);
            }
            Field::Enum(most) => {
                put_half(&mut self.before, at, odd_half(random, most + 1));
                self.fault("an enumerated value", &[libc::EINVAL]);
            }
            Field::Bytes => put_word(&mut self.before, at, odd(random)),
            Field::States => {
                let bait = *random.pick(&[1, 0xFFFF_8880_0000_0000, 1 << 63, END - 1]);
                put_word(&mut self.before, at, bait);
                // Written as the range is gone along: other faults come first, or nothing is left to write.
                self.fault("states", &[libc::EFAULT]);
            }
            Field::Range => self.spoil_range(random, at),
            Field::Len => {
                let (len, errnos): (_, &[i32]) = match random.below(4) {
                    0 => (0, &[libc::EINVAL]),
                    1 => ((random.next() << 12) | (1 + random.next() % 4095), &[libc::EINVAL]),
                    2 => (u64::MAX, &[libc::EINVAL]),
                    // More than any device has.
                    _ => ((1 << 40) << random.below(23), &[libc::ENOSPC]),
                };
                put_word(&mut self.before, at, len);
                self.fault("a length", errnos);
            }
            Field::File => {
                let fd = *random.pick(&[-1, i32::MIN, 5000, i32::MAX, -100]);
                put_half(&mut self.before, at, fd.cast_unsigned());
                self.fault("no file", &[libc::EBADF]);
            }
            Field::Offset => {
                let end = i64::MAX.cast_unsigned();
                let odd = 1 + random.next() % 511;
                let offset = *random.pick(&[odd, end & !511, end, 1 << 63, u64::MAX, !4095]);
                put_word(&mut self.before, at, offset);
                self.fault("a bad offset", &[libc::EINVAL]);
            }
        }
    }

    fn spoil_range(&mut self, random: &mut Random, at: usize) {
        let (address, len) = (word(&self.before, at), word(&self.before, at + 8));
        let (address, len, what, errnos): (_, _, _, &[i32]) = match random.below(6) {
            0 => (address + 1 + random.next() % 4095, len, "an unaligned address", &[libc::EINVAL]),
            1 => (address, (len + 1 + random.next() % 4095).max(1), "an unaligned length", &[libc::EINVAL]),
            2 => (address, 0, "no length", &[libc::EINVAL]),
            3 => (u64::MAX - 4095, 8192, "a range that wraps", &[libc::EINVAL]),
            4 => (0xFFFF_8880_0000_0000, 4096, "the kernel's addresses", &[libc::EINVAL]),
            _ => (END - 4096, 8192, "a range past the end", &[libc::EINVAL]),
        };
        put_word(&mut self.before, at, address);
        put_word(&mut self.before, at + 8, len);
        self.fault(what, errnos);
    }

    /// The size, or makes the struct longer than the kernel's, which is no fault if its end is zero.
    fn spoil_size(&mut self, random: &mut Random) {
        let size = self.of().size;
        match random.below(6) {
            0 | 1 => {
                let short = if random.once_in(4) { 0 } else { random.below(size) };
                self.resize(short);
                // The size of an earlier version is as good as the size of this one.
                if short < self.of().first {
                    self.fault("a size that is too small", &[libc::EINVAL]);
                }
            }
            2 => self.resize(size + 1 + random.below(256)),
            3 | 4 => {
                let far = random.once_in(8);
                let given = size + 1 + random.below(if far { PAGE - size } else { 64 });
                self.resize(given);
                let at = size + random.below(given - size);
                self.before[at] = 1 << random.below(8);
                self.fault("an end that is not zero", &[libc::E2BIG]);
            }
            _ => {
                self.given = *random.pick(&[PAGE + 1, 1 << 20, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]);
                put_half(&mut self.before, 0, u32::try_from(self.given).unwrap_or(0));
                self.fault("a size beyond all", &[libc::E2BIG, libc::EFAULT]);
            }
        }
    }

    fn resize(&mut self, given: usize) {
        self.given = given;
        put_half(&mut self.before, 0, u32::try_from(given).unwrap_or(0));
        self.before.resize(self.before.len().max(given), 0);
    }

    /// Makes it another call, that there is not.
    fn spoil_command(&mut self, random: &mut Random) {
        self.command = match random.below(4) {
            0 => self.command & !0xFF | (SHAPES.len() as u64 + random.next() % 246),
            1 => self.command | 0x4000_0000 | (random.next() % 256) << 16,
            2 => self.command | 0x8000_0000,
            _ => self.command ^ 0x100 << random.below(8),
        };
        self.fault("a command that there is not", &[libc::ENOTTY]);
    }

    /// Has the struct lie where it cannot be read, or not be written.
    fn spoil_pointer(&mut self, random: &mut Random, bench: Bench) {
        if random.once_in(3) {
            self.fixed = true;
            self.spoilt.push("a struct that cannot be written");
            self.expected.errnos.push(libc::EFAULT);
            // Where nothing comes out, it may well not be written.
            self.expected.fails |= self.of().out < self.of().size;
            return;
        }
        self.pointer = match random.below(6) {
            0 => 1 + random.below(4095),
            1 => 0xFFFF_8880_0000_0000,
            2 => 1 << 63,
            3 => bench.at + ROOM + random.below(PAGE - 8),
            4 => usize::try_from(END).unwrap_or(0) - random.below(8),
            // It is read to its middle.
            _ => bench.at + ROOM - 1 - random.below(3),
        };
        self.fault("a bad pointer", &[libc::EFAULT]);
    }

    /// Makes the call. What is wrong with what came of it is the error.
    pub fn make(mut self, random: &mut Random, bench: Bench, tally: Tally) -> Result<Outcome, String> {
        let at = if self.pointer != 0 {
            self.pointer
        } else {
            // Anywhere, and often up against the end of what can be written.
            let len = self.before.len();
            let offset = if random.once_in(2) { ROOM - len } else { random.below(ROOM - len) };
            bench.bytes()[offset..offset + len].copy_from_slice(&self.before);
            // What follows it is none of the kernel's business.
            if offset + len < ROOM {
                bench.bytes()[offset + len] = 0xA5;
            }
            if self.fixed { bench.fixed + offset } else { bench.at + offset }
        };
        let start = if self.fixed { bench.fixed } else { bench.at };
        let result = shim::raw(self.fd, self.command, at);
        let errno = crate::raw::errno(&result);
        tally.count(if self.command == self.of().command { self.shape } else { UNKNOWN }, errno);
        let after = if self.pointer == 0 {
            bench.bytes()[at - start..][..self.before.len()].to_vec()
        } else {
            self.before.clone()
        };
        let outcome = Outcome { errno, after, whole: self.given >= self.of().size, fixed: self.fixed };
        let wrong = self.judge(&outcome).or_else(|| {
            let behind = (at + self.before.len()).wrapping_sub(start);
            let kept = self.pointer != 0 || behind >= ROOM || bench.bytes()[behind] == 0xA5;
            (!kept).then(|| "what follows the struct was written".into())
        });
        match wrong {
            None => Ok(outcome),
            Some(why) => {
                self.before.truncate(96);
                Err(format!(
                    "{why}\n  {} ({:#x}) on fd {} at {at:#x}: {}, expected {:?} {:?}\n  before {:02x?}\n  after  {:02x?}",
                    self.of().name,
                    self.command,
                    self.fd,
                    text(errno),
                    self.spoilt,
                    self.expected,
                    self.before,
                    &outcome.after[..outcome.after.len().min(96)],
                ))
            }
        }
    }

    fn judge(&self, outcome: &Outcome) -> Option<String> {
        let (of, errno) = (self.of(), outcome.errno);
        if errno == 0 && self.expected.fails {
            return Some("it succeeded, and must not".into());
        }
        if errno != 0 && !self.expected.errnos.contains(&errno) {
            return Some("an error that it must not end with".into());
        }
        let refused =
            [libc::EINVAL, libc::E2BIG, libc::EOPNOTSUPP, libc::EPERM, libc::ENOTTY, libc::EBADF].contains(&errno);
        if refused && outcome.after != self.before && !self.has_begun_at_nothing(outcome) {
            return Some("the struct was written, though the call was refused".into());
        }
        let out = of.out.min(self.before.len());
        if outcome.after[..out] != self.before[..out] {
            return Some("what goes in was written".into());
        }
        let end = of.size.min(self.given).min(self.before.len());
        if outcome.after[end..] != self.before[end..] {
            return Some("what the kernel does not know was written".into());
        }
        if refused || self.pointer != 0 || self.given < of.size {
            return None;
        }
        // Not changed at all: it stopped before its way.
        if errno != 0 && outcome.after == self.before && (!self.spoilt.is_empty() || self.expected.stops_at.is_none()) {
            return None;
        }
        self.judge_progress(outcome)
    }

    /// Of a load it is told that it came nowhere also where it was refused.
    fn has_begun_at_nothing(&self, outcome: &Outcome) -> bool {
        let out = self.of().out;
        let nothing = outcome.after.get(out + 8..self.given.min(self.of().size));
        self.shape == LOAD
            && nothing.is_some_and(|told| told.iter().all(|byte| *byte == 0))
            && outcome.word(out) == outcome.word(8)
    }

    fn judge_progress(&self, outcome: &Outcome) -> Option<String> {
        let (cursor, counts) = self.of().progress?;
        let (address, len, errno) = (outcome.word(8), outcome.word(16), outcome.errno);
        let cursor = outcome.word(cursor);
        if cursor < address || cursor > address.wrapping_add(len) || !cursor.is_multiple_of(PAGE as u64) {
            return Some("the cursor is not in the range".into());
        }
        if errno == 0 && cursor != address + len {
            return Some("it succeeded before the end".into());
        }
        if errno != 0 && cursor == address + len {
            return Some("it came to the end and failed".into());
        }
        let pages: u64 = counts.iter().map(|at| outcome.word(*at)).sum();
        let mut dealt_with = cursor - address;
        if self.shape == LOAD {
            let (bytes, huge) = (outcome.word(48), outcome.word(64));
            if bytes > dealt_with || (bytes < dealt_with && errno != 0) || huge * 512 > outcome.word(56) {
                return Some("it was more, or less, than what is before the cursor".into());
            }
            // Where the file ended there is no more.
            dealt_with = bytes.next_multiple_of(PAGE as u64);
        }
        if pages * PAGE as u64 != dealt_with {
            return Some("the counts do not add up to the pages before the cursor".into());
        }
        let stops = self.expected.stops_at.filter(|_| errno == libc::EFAULT && self.spoilt.is_empty());
        if stops.is_some_and(|stop| stop != cursor) {
            return Some("it stopped elsewhere than at the first page that is not mapped".into());
        }
        None
    }
}

fn put_word(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
}

fn put_half(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}
