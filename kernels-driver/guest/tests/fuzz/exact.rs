//! The worker that knows: one thread, one model of its memory. Every call's outcome follows from what was spoilt and from
//! the model, but for whether the device is full; and every page that is looked at holds what the model says.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::call::{Bench, Call, Expected, Outcome, Values};
use crate::disk::{self, Disk};
use crate::files::{Named, Opened, Others, Pipe};
use crate::model::{Kind, Model, PAGES, address, range};
use crate::pools::{self, Pool};
use crate::raw::random::Random;
use crate::raw::uapi::{self, COHERENT, DIRECT, LAST_ROUTE, LAST_VERDICT, PRIVATE};
use crate::raw::{HUGE, PAGE, memory};
use crate::shape::{COUNTERS, INFO, LIMIT, LOAD, MIGRATE, POLICY, POOL, PROBE, RESIDENCY, SHAPES, VIEW};
use crate::tally::Tally;
use crate::views::{MOST, View};

/// What is called, and how often of all.
const WEIGHTS: &[(usize, usize)] = &[
    (MIGRATE, 12),
    (RESIDENCY, 14),
    (POLICY, 18),
    (VIEW, 2),
    (INFO, 18),
    (COUNTERS, 14),
    (LIMIT, 13),
    (POOL, 2),
    (PROBE, 5),
    (LOAD, 9),
];

struct Worker {
    random: Random,
    model: Model,
    bench: Bench,
    tally: Tally,
    files: Vec<Opened>,
    others: Others,
    views: Vec<View>,
    pools: Vec<Pool>,
    disk: Disk,
    named: Vec<Named>,
    pipe: Pipe,
    states: usize,
}

/// Makes `calls` calls, or says which went wrong.
pub fn run(calls: u64, random: Random, tally: Tally, devices: &[usize]) -> Result<(), String> {
    let opened = devices.iter().chain(&devices[..1]).map(|index| Opened::new(*index));
    let files = opened.collect::<Result<Vec<_>, _>>().map_err(|error| format!("opening: {error}"))?;
    let fail = |error: std::io::Error| error.to_string();
    let mut worker = Worker {
        random,
        model: Model::new(),
        bench: Bench::new(),
        tally,
        disk: Disk::open().map_err(fail)?,
        named: Named::all(&files[0].device).map_err(fail)?,
        pools: Vec::new(),
        files,
        others: Others::new().map_err(fail)?,
        views: Vec::new(),
        pipe: Pipe::new().map_err(fail)?,
        states: memory::anonymous(0, PAGE).map_err(fail)?,
    };
    for call in 0..calls {
        worker.step(call).map_err(|why| format!("in call {call}: {why}"))?;
    }
    (0..PAGES).try_for_each(|page| worker.model.check(page))
}

impl Worker {
    fn step(&mut self, call: u64) -> Result<(), String> {
        if self.random.once_in(12) {
            self.model.step(&mut self.random)?;
        }
        if !self.views.is_empty() && self.random.once_in(6) {
            let place = self.random.below(self.views.len());
            if !self.views[place].step(&mut self.random, &mut self.model, &self.pipe)? {
                self.views.swap_remove(place);
            }
        }
        if !self.pools.is_empty() && self.random.once_in(12) {
            let place = self.random.below(self.pools.len());
            if !self.pools[place].step(&mut self.random, &self.pipe, &self.disk)? {
                self.pools.swap_remove(place);
            }
        }
        if self.random.once_in(24) {
            let (first, count) = range(&mut self.random);
            (first..first + count.min(4)).try_for_each(|page| self.model.check(page))?;
        }
        if call % 4096 == 4095 {
            self.as_child()?;
        }
        self.call()
    }

    fn call(&mut self) -> Result<(), String> {
        let mut shape = self.weighted();
        if SHAPES[shape].of_view && !self.views.iter().any(|view| view.fd.is_some()) {
            shape = VIEW;
        }
        if shape == VIEW && self.views.len() == MOST {
            let place = self.random.below(MOST);
            self.views.swap_remove(place);
        }
        if shape == POOL && self.pools.len() == pools::MOST {
            let place = self.random.below(pools::MOST);
            self.pools.swap_remove(place);
        }
        let file = self.random.below(self.files.len());
        let mut call = self.compose(shape, file)?;
        if self.random.once_in(12) {
            let (fd, errno) = self.other_file(shape);
            call.fd = fd;
            call = call.with_fault("another file", &[errno]);
        }
        let times = [0, 0, 0, 1, 1, 2][self.random.below(6)];
        call.spoil(&mut self.random, self.bench, times);
        self.make(call, shape, file)
    }

    fn weighted(&mut self) -> usize {
        let mut ticket = self.random.below(WEIGHTS.iter().map(|(_, weight)| weight).sum());
        for (shape, weight) in WEIGHTS {
            if ticket < *weight {
                return *shape;
            }
            ticket -= weight;
        }
        INFO
    }

    fn other_file(&mut self, shape: usize) -> (RawFd, i32) {
        if self.random.once_in(2) {
            return self.others.pick(&mut self.random);
        }
        if SHAPES[shape].of_view {
            return (self.files[0].fd(&mut self.random), libc::ENOTTY);
        }
        let views = self.views.iter().filter_map(|view| view.fd.as_ref());
        let mut any = views.chain(self.pools.iter().filter_map(|pool| pool.fd.as_ref()));
        match any.next() {
            Some(fd) => (fd.as_raw_fd(), libc::ENOTTY),
            None => self.others.pick(&mut self.random),
        }
    }

    /// A call that is well-formed, and what may come of it.
    fn compose(&mut self, shape: usize, file: usize) -> Result<Call, String> {
        let random = &mut self.random;
        let (first, count) = range(random);
        let span = (address(first) as u64, (count * PAGE) as u64);
        let hole = self.model.first_hole(first, count).map(|page| address(page) as u64);
        let (fd, none) = (self.files[file].fd(random), Expected::default());
        let mapped =
            Expected { errnos: hole.iter().map(|_| libc::EFAULT).collect(), fails: hole.is_some(), stops_at: hole };
        Ok(match shape {
            MIGRATE => {
                let to = *random.pick(&[0, PRIVATE, PRIVATE, COHERENT]);
                let mut expected = mapped;
                expected.errnos.push(libc::ENOMEM);
                // Only a device is full, and only what is on one counts.
                if to != 0 {
                    expected.errnos.extend([libc::ENOSPC, libc::EDQUOT]);
                }
                let call = Call::new(shape, fd, Values { range: span, choice: to, ..Values::default() }, expected);
                let missing = to == COHERENT && self.files[file].first.coherent_bytes == 0;
                if missing { call.with_fault("no coherent memory", &[libc::EOPNOTSUPP]) } else { call }
            }
            RESIDENCY => {
                let states = if random.once_in(2) { self.states as u64 } else { 0 };
                Call::new(shape, fd, Values { range: span, states, ..Values::default() }, mapped)
            }
            LIMIT => {
                let bytes = *random.pick(&[u64::MAX, u64::MAX, 0, 1 << 18, (1 << 20) + 1, 1 << 40]);
                Call::new(shape, fd, Values { range: (0, bytes), ..Values::default() }, none)
            }
            POOL => {
                let pages = if random.once_in(16) { 513 } else { 1 + random.below(8) };
                let errnos = vec![libc::ENOSPC, libc::EDQUOT, libc::ENOMEM];
                let range = (0, (pages * PAGE) as u64);
                Call::new(shape, fd, Values { range, ..Values::default() }, Expected { errnos, ..none })
            }
            PROBE => {
                let (named, choice) = (random.pick(&self.named), u32::from(random.once_in(2)));
                let values = Values { choice, file: named.fd(), ..Values::default() };
                let call = Call::new(shape, fd, values, none);
                if named.is_open_for(choice) { call } else { call.with_fault(named.name, &[libc::EBADF]) }
            }
            LOAD => return Ok(self.compose_load(fd, first, count)),
            POLICY => {
                let views: Vec<_> =
                    self.views.iter().filter_map(|view| Some((view, view.fd.as_ref()?.as_raw_fd()))).collect();
                let (view, fd) = random.pick(&views);
                let from = random.below(view.count);
                let len = 1 + random.below(view.count - from);
                let mut span = (address(view.first + from) as u64, (len * PAGE) as u64);
                let outside = random.once_in(4);
                if outside {
                    span.1 = ((view.count - from + 1) * PAGE) as u64;
                }
                let values = Values { range: span, choice: u32::from(random.once_in(2)), ..Values::default() };
                let call = Call::new(shape, *fd, values, none);
                if outside { call.with_fault("outside of the view", &[libc::EFAULT]) } else { call }
            }
            _ => {
                let values = Values { range: span, choice: u32::from(random.once_in(2)), ..Values::default() };
                Call::new(shape, fd, values, none)
            }
        })
    }

    /// A load, mostly from the disk. What is wrong with its file is told before what is wrong with its range, and nothing is
    /// read then.
    fn compose_load(&mut self, fd: RawFd, first: usize, count: usize) -> Call {
        let random = &mut self.random;
        let named = if random.once_in(4) { random.pick(&self.named) } else { &self.named[0] };
        // What stands in this program is not known here.
        let named = if named.direct && named.is_open_for(0) { &self.named[0] } else { named };
        let offset = self.disk.place(random, count);
        let range = (address(first) as u64, (count * PAGE) as u64);
        let errnos = vec![libc::ENOSPC, libc::EDQUOT, libc::ENOMEM];
        let values = Values { range, file: named.fd(), offset, ..Values::default() };
        let call = Call::new(LOAD, fd, values, Expected { errnos, ..Expected::default() });
        if !named.is_open_for(0) {
            return call.with_fault(named.name, &[libc::EBADF]);
        }
        if !named.direct {
            return call.with_fault(named.name, &[libc::EOPNOTSUPP]);
        }
        let mut pages = (first..first + count).map(|page| self.model.page(page));
        match pages.find(|page| !page.writable() || page.kind == Kind::Shared) {
            None => call,
            Some(page) if !page.writable() => call.with_fault("memory that is not written", &[libc::EFAULT]),
            Some(_) => call.with_fault("shared memory", &[libc::EOPNOTSUPP]),
        }
    }

    fn make(&mut self, call: Call, shape: usize, file: usize) -> Result<(), String> {
        let watched = matches!(shape, VIEW | POOL) || matches!(shape, MIGRATE | LOAD) && self.random.once_in(4);
        let before = if watched { Some((self.info(file)?, lowest_free()?)) } else { None };
        let outcome = call.make(&mut self.random, self.bench, self.tally)?;
        if let Some((info, lowest)) = before {
            let now = self.info(file)?;
            if now.used > info.used.max(info.limit) {
                return Err(format!("the limit was passed: {info:?}, then {now:?}"));
            }
            if outcome.errno != 0 && lowest_free()? != lowest {
                return Err(format!("a failed call left a file open: {lowest}, then {}", lowest_free()?));
            }
        }
        if shape == LOAD && outcome.whole {
            return self.judge_load(&outcome);
        }
        if outcome.errno == 0 && outcome.whole { self.succeeded(shape, file, &outcome) } else { Ok(()) }
    }

    fn succeeded(&mut self, shape: usize, file: usize, outcome: &Outcome) -> Result<(), String> {
        match shape {
            INFO => self.judge_info(file),
            LIMIT => self.judge_limit(file, outcome.word(8)),
            MIGRATE => self.judge_migrate(file, outcome),
            RESIDENCY => self.judge_residency(outcome),
            COUNTERS => self.judge_counters(file, outcome),
            VIEW => {
                let fd = outcome.half(28).cast_signed();
                if fd < 3 {
                    return Err(format!("a view by the number {fd}"));
                }
                // SAFETY: the module has just made it.
                let fd = Some(unsafe { OwnedFd::from_raw_fd(fd) });
                let place = |bytes: u64| usize::try_from(bytes).unwrap_or(0);
                let first = (place(outcome.word(8)) - address(0)) / PAGE;
                self.views.push(View { fd, first, count: place(outcome.word(16)) / PAGE, at: None });
                Ok(())
            }
            POOL => {
                let fd = outcome.half(16).cast_signed();
                if fd < 3 {
                    return Err(format!("a pool by the number {fd}"));
                }
                // SAFETY: the module has just made it.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                let pages = usize::try_from(outcome.word(8)).unwrap_or(0) / PAGE;
                self.pools.push(Pool::new(fd, pages));
                Ok(())
            }
            PROBE => self.judge_probe(outcome),
            _ => Ok(()),
        }
    }

    /// Of files that are known the verdict is known, too.
    fn judge_probe(&self, outcome: &Outcome) -> Result<(), String> {
        let named = self.named.iter().find(|named| named.fd() == outcome.half(8).cast_signed());
        let Some(named) = named else { return Err("a file that there is not".into()) };
        let [verdict, reason, route, distance, memory, offset] =
            [16, 20, 24, 28, 32, 36].map(|place| outcome.half(place));
        let right = (verdict == DIRECT) == named.direct
            && (verdict == DIRECT) == (reason == 0)
            && verdict <= LAST_VERDICT
            && route <= LAST_ROUTE
            && (route == 0) == (distance == 0)
            && (memory == 0) == (offset == 0)
            && (verdict != DIRECT || route > 0 && offset.is_power_of_two());
        let told = || format!("{}: {verdict} {reason} {route} {distance} {memory} {offset}", named.name);
        if right { Ok(()) } else { Err(told()) }
    }

    /// What was loaded is there. Behind the cursor a page is as it was, or as the file has it, if the call got so far.
    fn judge_load(&mut self, outcome: &Outcome) -> Result<(), String> {
        let (start, len, offset, cursor) = (outcome.word(8), outcome.word(16), outcome.word(24), outcome.word(40));
        let left = self.disk.size.saturating_sub(offset);
        let bytes = match outcome.errno {
            0 | libc::ENOSPC | libc::EDQUOT | libc::ENOMEM => outcome.word(48),
            // It may have done what it could not tell, if there was something to do.
            libc::EFAULT if outcome.fixed && self.model.has(start, len) => 0,
            _ => return Ok(()),
        };
        if !outcome.fixed && bytes != (cursor - start).min(left) {
            return Err(format!(
                "a load of {bytes} bytes to {cursor:#x}, and the disk has {left}: {len} from {offset:#x} on"
            ));
        }
        let page_of = |at: u64| usize::try_from(at - address(0) as u64).unwrap_or(0) / PAGE;
        for at in (0..len.min(left)).step_by(PAGE) {
            let (page, value) = (page_of(start + at), disk::value(offset + at));
            if at < bytes || self.model.holds(page, value) {
                self.model.set(page, value);
            }
        }
        Ok(())
    }

    fn info(&self, file: usize) -> Result<uapi::Info, String> {
        self.files[file].device.info().map_err(|error| format!("INFO: {error}"))
    }

    fn judge_info(&self, file: usize) -> Result<(), String> {
        let (info, first) = (self.info(file)?, self.files[file].first);
        let right = (info.page_size as usize, info.private_bytes, info.coherent_bytes)
            == (PAGE, first.private_bytes, first.coherent_bytes)
            && [0, HUGE].contains(&(info.huge_size as usize))
            && info.private_free <= info.private_bytes
            && info.coherent_free <= info.coherent_bytes
            && info.used <= info.private_bytes + info.coherent_bytes
            && info.limit <= first.limit;
        if right { Ok(()) } else { Err(format!("{info:?} after {first:?}")) }
    }

    fn judge_limit(&self, file: usize, bytes: u64) -> Result<(), String> {
        let (limit, expected) =
            (self.info(file)?.limit, (bytes / PAGE as u64 * PAGE as u64).min(self.files[file].first.limit));
        if limit == expected { Ok(()) } else { Err(format!("LIMIT {bytes}: it is {limit}, not {expected}")) }
    }

    /// What was moved is there, as nobody has touched it since.
    fn judge_migrate(&mut self, file: usize, outcome: &Outcome) -> Result<(), String> {
        let (to, moved, huge) = (outcome.half(24), outcome.word(40), outcome.word(48));
        if huge * 512 > moved {
            return Err(format!("{huge} times 2 MiB in {moved} pages"));
        }
        let at = |place: usize| usize::try_from(outcome.word(place)).unwrap_or(0);
        let (first, count) = ((at(8) - address(0)) / PAGE, at(16) / PAGE);
        // What may not be read is told as absent.
        if !self.random.once_in(4) || (first..first + count).any(|page| !self.model.page(page).readable()) {
            return Ok(());
        }
        let (told, result) = self.files[file].device.residency(at(8), at(16));
        result.map_err(|error| format!("RESIDENCY after MIGRATE: {error}"))?;
        let there = [told.in_system, told.in_private, told.in_coherent][to as usize];
        let gone = to == 0 && told.in_private + told.in_coherent > outcome.word(56);
        if there < moved || gone { Err(format!("moved {moved} to {to}, but now {told:?}")) } else { Ok(()) }
    }

    /// The bytes say what the counts say.
    fn judge_residency(&self, outcome: &Outcome) -> Result<(), String> {
        let pages = usize::try_from(outcome.word(16)).unwrap_or(0) / PAGE;
        if outcome.word(24) != self.states as u64 {
            return Ok(());
        }
        let mut counts = [0_u64; 4];
        for page in 0..pages {
            // SAFETY: a page of our own, which holds a byte for each page of the area.
            let state = unsafe { std::ptr::with_exposed_provenance::<u8>(self.states + page).read_volatile() };
            let place = usize::from(state & 0x0F);
            if place > 3 || state & 0xC0 != 0 || (place == 0 && state != 0) {
                return Err(format!("page {page} of {pages} is in the state {state:#x}"));
            }
            counts[place] += 1;
        }
        let told = [40, 48, 56, 64].map(|place| outcome.word(place));
        if told == counts { Ok(()) } else { Err(format!("RESIDENCY says {told:?}, its bytes {counts:?}")) }
    }

    fn judge_counters(&mut self, file: usize, outcome: &Outcome) -> Result<(), String> {
        let before = &mut self.files[file].counts[usize::from(outcome.half(8) == 1)];
        for (place, before) in before.iter_mut().enumerate() {
            let now = outcome.word(16 + 8 * place);
            if now < *before {
                return Err(format!("{} went from {before} to {now}", uapi::COUNTER_NAMES[place]));
            }
            *before = now;
        }
        Ok(())
    }

    /// A child is another address space: no file is its own, and what it writes is not ours.
    fn as_child(&mut self) -> Result<(), String> {
        // SAFETY: one thread; the child ends itself.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let status = match self.be_child() {
                Ok(()) => 0,
                Err(why) => {
                    println!("in a child: {why}");
                    1
                }
            };
            // SAFETY: ends the child.
            unsafe { libc::_exit(status) };
        }
        let mut status = 0;
        // SAFETY: our own child.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        if status == 0 { Ok(()) } else { Err(format!("the child's status is {status:#x}")) }
    }

    fn be_child(&mut self) -> Result<(), String> {
        self.model.is_child = true;
        for (shape, of) in SHAPES.iter().enumerate() {
            if of.of_view && !self.views.iter().any(|view| view.fd.is_some()) {
                continue;
            }
            // Before anything is done, so what is mapped is no matter: but the range of a POLICY may be looked at first.
            let mut call = self.compose(shape, 0)?.with_fault("another's file", &[libc::EPERM]);
            if self.random.once_in(4) {
                call.spoil(&mut self.random, self.bench, 1);
            }
            call.make(&mut self.random, self.bench, self.tally)?;
        }
        if let Some(at) = self.views.iter().find_map(|view| view.at) {
            let seen = self.pipe.peek(at);
            if seen.as_ref().err().and_then(std::io::Error::raw_os_error) != Some(libc::EFAULT) {
                return Err(format!("a view is there after fork: {seen:?}"));
            }
        }
        self.pools.iter().try_for_each(|pool| pool.check(&self.pipe))?;
        for _ in 0..16 {
            let page = self.random.below(PAGES);
            self.model.check(page)?;
        }
        (0..4).try_for_each(|_| self.model.step(&mut self.random))
    }
}

/// The number that the next file would have.
fn lowest_free() -> Result<i32, String> {
    // SAFETY: a new number, given back at once.
    unsafe {
        let fd = libc::dup(0);
        libc::close(fd);
        if fd < 0 { Err("no more files".into()) } else { Ok(fd) }
    }
}
