//! Rings for real, of both kinds, where the machine has io_uring.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::file::FileErrorKind;
use crate::file::tests::{Scratch, pattern};
use crate::reservation::Reservation;
use crate::skip::skip;
use crate::staging::Staging;

/// `None`, said aloud, where io_uring may not be used.
fn ring(by: RingKind, test: &str, depth: u32) -> Option<Ring> {
    match Ring::with(by, depth) {
        Ok(ring) => Some(ring),
        Err(error @ RingError::Unavailable { .. }) => {
            skip(test, "io_uring", &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn read(file: &impl AsFd, memory: NonNull<u8>, len: u32) -> Request<'_> {
    let file = RingFile::Fd(file.as_fd());
    Request { file, direction: Direction::FromFile, offset: None, memory: memory.as_ptr(), len, buffer: None }
}

/// Pushes; the tests below keep its promise: they use no memory before they have taken its completion.
fn push(ring: &mut Ring, token: u64, request: &Request<'_>) -> Result<(), QueueFull> {
    // SAFETY: as above; the memory is of a `Staging` that is dropped after the ring.
    unsafe { ring.push(token, request) }
}

fn take(ring: &mut Ring) -> Completion {
    loop {
        if let Some(completion) = ring.next() {
            return completion;
        }
        ring.wait().unwrap();
    }
}

fn kind(completion: Completion) -> FileErrorKind {
    completion.result.unwrap_err().kind
}

fn bytes(memory: NonNull<u8>, len: usize) -> Vec<u8> {
    // SAFETY: of a slot that is at least so long, and that nobody writes meanwhile.
    unsafe { std::slice::from_raw_parts(memory.as_ptr(), len) }.to_vec()
}

/// A buffer of a `Staging` that is dropped after the ring; `None`, said aloud, where too little may be locked.
fn buffer(test: &str, ring: &mut Ring, memory: NonNull<u8>, len: usize) -> Option<BufferId> {
    // SAFETY: as above.
    match unsafe { ring.register_buffer(memory, len) } {
        Ok(buffer) => Some(buffer),
        Err(error @ RingError::MemoryLimit { .. }) => {
            skip(test, "memory that may be locked", &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Has tests run with rings of both kinds.
macro_rules! of_both_kinds {
    ($($test:ident),* $(,)?) => {
        mod by_uring {
            $(#[test] fn $test() { super::$test(super::RingKind::IoUring); })*
        }
        mod by_threads {
            $(#[test] fn $test() { super::$test(super::RingKind::Threads); })*
        }
    };
}

of_both_kinds!(
    data_arrives_where_it_should_whatever_is_registered,
    a_full_queue_says_so_and_goes_on,
    what_waits_can_be_cancelled_and_the_rest_goes_on,
    completions_come_without_waiting_too,
    several_completions_are_waited_for_but_not_for_ever,
    no_wake_is_lost,
    a_wake_while_another_is_heard_does_not_silence_the_next,
    a_wake_and_completions_do_not_hide_each_other,
    to_drop_a_ring_gives_all_memory_back,
    each_failure_comes_with_its_completion,
    what_can_be_registered_has_limits,
    streams_that_wait_hold_nothing_up,
    what_waits_for_room_can_be_cancelled,
    a_pipe_with_a_name_is_read,
    a_ring_is_of_no_use_in_a_child,
);

/// Numbers of no particular order, the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

fn data_arrives_where_it_should_whatever_is_registered(by: RingKind) {
    const LEN: usize = 1 << 20;
    const SLOTS: usize = 16;
    let staging = Staging::new(SLOTS, LEN / 8).unwrap();
    let Some(mut ring) = ring(by, "data_arrives", 16) else { return };
    let scratch = Scratch::new();
    let file = scratch.open();
    let mut oracle = pattern(LEN, 0);
    file.write_at(&oracle, 0).unwrap();
    let place = ring.register_file(file.as_fd()).unwrap();
    let Some(buffer) = buffer("data_arrives", &mut ring, staging.slot(0), LEN * 2) else { return };
    let mut numbers = Numbers(7);
    for round in 0..60 {
        // Parts that do not overlap, each its own eighth, some of them behind the end.
        let mut sent = Vec::new();
        for part in 0..9 {
            let (start, len) = (numbers.below(LEN / 16), 1 + numbers.below(LEN / 16));
            let (offset, memory) = (part * (LEN / 8) + start, staging.slot(part));
            let writes = round % 3 == 1 && part < 8;
            let data = pattern(len, round);
            if writes {
                // SAFETY: the slot is nobody else's now.
                unsafe { memory.as_ptr().copy_from_nonoverlapping(data.as_ptr(), len) };
                oracle[offset..offset + len].copy_from_slice(&data);
            }
            let request = Request {
                file: if numbers.below(2) == 0 { RingFile::Slot(place) } else { RingFile::Fd(file.as_fd()) },
                direction: if writes { Direction::ToFile } else { Direction::FromFile },
                offset: Some(offset as u64),
                memory: memory.as_ptr(),
                len: u32::try_from(len).unwrap(),
                buffer: (numbers.below(2) == 0).then_some(buffer),
            };
            push(&mut ring, part as u64, &request).unwrap();
            sent.push((offset, len));
        }
        assert_eq!(ring.in_flight(), 9);
        let mut seen = [false; 9];
        for _ in 0..9 {
            let done = take(&mut ring);
            let part = usize::try_from(done.token).unwrap();
            assert!(!std::mem::replace(&mut seen[part], true), "a completion comes once");
            let (offset, len) = sent[part];
            let there = LEN.saturating_sub(offset).min(len);
            assert_eq!(done.result.unwrap() as usize, there);
            assert!(
                bytes(staging.slot(part), there) == oracle[offset.min(LEN)..][..there],
                "round {round}, part {part}"
            );
        }
        assert!(ring.in_flight() == 0 && ring.next().is_none());
    }
    let mut found = vec![0; LEN];
    assert_eq!(file.read_at(&mut found, 0).unwrap(), LEN);
    assert!(found == oracle);
}

fn a_full_queue_says_so_and_goes_on(by: RingKind) {
    let staging = Staging::new(1, 1).unwrap();
    for depth in [1, 3, 64] {
        let Some(mut ring) = ring(by, "a_full_queue", depth) else { return };
        let (reader, mut writer) = pipe().unwrap();
        for token in 0..depth.into() {
            push(&mut ring, token, &read(&reader, staging.slot(0), 1)).unwrap();
        }
        let one_more = read(&reader, staging.slot(0), 1);
        assert_eq!(push(&mut ring, 99, &one_more), Err(QueueFull));
        ring.submit().unwrap();
        assert_eq!(push(&mut ring, 99, &one_more), Err(QueueFull), "they are still in flight");
        writer.write_all(b"x").unwrap();
        assert_eq!(take(&mut ring).result.unwrap(), 1);
        push(&mut ring, 99, &one_more).unwrap();
        drop(writer);
        (0..depth).for_each(|_| assert_eq!(take(&mut ring).result.unwrap(), 0, "the end"));
    }
}

fn what_waits_can_be_cancelled_and_the_rest_goes_on(by: RingKind) {
    let staging = Staging::new(1, 16).unwrap();
    let Some(mut ring) = ring(by, "what_waits_can_be_cancelled", 8) else { return };
    let (reader, mut writer) = pipe().unwrap();
    let (other, _other_writer) = pipe().unwrap();
    let (first, second) = (read(&reader, staging.slot(0), 1), read(&other, staging.slot(0), 1));
    push(&mut ring, 1, &first).unwrap();
    push(&mut ring, 2, &second).unwrap();
    // One that the kernel has not seen, and then one that it has.
    ring.cancel(2);
    let ended = take(&mut ring);
    assert_eq!((ended.token, kind(ended)), (2, FileErrorKind::Cancelled));
    push(&mut ring, 3, &second).unwrap();
    ring.submit().unwrap();
    ring.cancel(3);
    ring.cancel(77); // there is none
    let ended = take(&mut ring);
    assert_eq!((ended.token, kind(ended)), (3, FileErrorKind::Cancelled));
    assert_eq!(ring.in_flight(), 1);
    // More than the queue holds.
    (0..100).for_each(|_| ring.cancel(77));
    writer.write_all(b"z").unwrap();
    let ended = take(&mut ring);
    assert_eq!((ended.token, ended.result.unwrap(), bytes(staging.slot(0), 1)), (1, 1, b"z".to_vec()));
}

fn completions_come_without_waiting_too(by: RingKind) {
    let staging = Staging::new(1, 16).unwrap();
    let Some(mut ring) = ring(by, "completions_come_without_waiting", 8) else { return };
    let (reader, mut writer) = pipe().unwrap();
    push(&mut ring, 1, &read(&reader, staging.slot(0), 3)).unwrap();
    ring.submit().unwrap();
    assert!(ring.next().is_none());
    writer.write_all(b"abc").unwrap();
    loop {
        ring.submit().unwrap();
        if let Some(done) = ring.next() {
            assert_eq!(done.result.unwrap(), 3);
            break;
        }
    }
}

fn several_completions_are_waited_for_but_not_for_ever(by: RingKind) {
    let Some(mut ring) = ring(by, "several_completions_are_waited_for_but_not_for_ever", 8) else { return };
    let staging = Staging::new(4, 4096).unwrap();
    let ends: Vec<(PipeReader, PipeWriter)> = (0..4).map(|_| pipe().unwrap()).collect();
    for (token, (reader, _)) in ends.iter().enumerate() {
        push(&mut ring, token as u64, &read(reader, staging.slot(token), 16)).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (_, writer) in &ends[..2] {
                (&*writer).write_all(b"x").unwrap();
                std::thread::yield_now();
            }
        });
        ring.wait_for(2).unwrap();
    });
    // Both, unless the writer took very long.
    let first = std::iter::from_fn(|| ring.next()).count();
    assert!((1..=2).contains(&first), "{first}");
    (first..2).for_each(|_| drop(take(&mut ring)));
    // More than will come.
    (&ends[2].1).write_all(b"x").unwrap();
    ring.wait_for(2).unwrap();
    assert_eq!(take(&mut ring).token, 2);
    // A wake is heard, too.
    let waker = ring.waker();
    std::thread::scope(|scope| {
        scope.spawn(|| waker.wake());
        ring.wait_for(4).unwrap();
    });
    assert_eq!(ring.in_flight(), 1);
}

fn no_wake_is_lost(by: RingKind) {
    const EACH: u64 = 10_000;
    let Some(mut ring) = ring(by, "no_wake_is_lost", 4) else { return };
    // A wake before the wait.
    ring.waker().wake();
    ring.waker().wake();
    ring.wait().unwrap();
    // Each waits until it has been seen: one wake lost and nobody goes on.
    let seen = Arc::new([const { AtomicU64::new(0) }; 3]);
    let sent = Arc::new([const { AtomicU64::new(0) }; 3]);
    let threads = [0, 1, 2].map(|me| {
        let (waker, seen, sent) = (ring.waker(), seen.clone(), sent.clone());
        std::thread::spawn(move || {
            for number in 1..=EACH {
                sent[me].store(number, Ordering::Relaxed);
                waker.wake();
                // Every other time many are in a row.
                while number % 2 == 0 && seen[me].load(Ordering::Relaxed) < number {
                    std::thread::yield_now();
                }
            }
        })
    });
    while seen.iter().any(|seen| seen.load(Ordering::Relaxed) < EACH) {
        ring.wait().unwrap();
        for (seen, sent) in seen.iter().zip(sent.iter()) {
            seen.store(sent.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn a_wake_while_another_is_heard_does_not_silence_the_next(by: RingKind) {
    let Some(mut ring) = ring(by, "a_wake_while_another_is_heard", 4) else { return };
    let waker = ring.waker();
    waker.wake();
    ring.waker.bell.hear(|| waker.wake());
    waker.wake();
    ring.wait().unwrap();
}

fn a_wake_and_completions_do_not_hide_each_other(by: RingKind) {
    let staging = Staging::new(1, 16).unwrap();
    let Some(mut ring) = ring(by, "a_wake_and_completions", 4) else { return };
    let (reader, mut writer) = pipe().unwrap();
    let waker = ring.waker();
    for _ in 0..1000 {
        push(&mut ring, 5, &read(&reader, staging.slot(0), 1)).unwrap();
        waker.wake();
        ring.wait().unwrap(); // submits it, too
        writer.write_all(b"x").unwrap();
        waker.wake();
        assert_eq!(take(&mut ring).result.unwrap(), 1);
    }
    // A ring's waker outlives it.
    drop(ring);
    waker.wake();
}

/// Two pipes with a read pending on each, one that the kernel has and one that it has not seen.
fn pending(ring: &mut Ring, staging: &Staging) -> [(PipeReader, PipeWriter); 2] {
    let pipes = [pipe().unwrap(), pipe().unwrap()];
    push(ring, 1, &read(&pipes[0].0, staging.slot(0), 8)).unwrap();
    ring.submit().unwrap();
    push(ring, 2, &read(&pipes[1].0, staging.slot(0), 8)).unwrap();
    pipes
}

fn to_drop_a_ring_gives_all_memory_back(by: RingKind) {
    for _ in 0..50 {
        let staging = Staging::new(1, 16).unwrap();
        let Some(mut ring) = ring(by, "to_drop_a_ring", 8) else { return };
        let pipes = pending(&mut ring, &staging);
        ring.waker().wake();
        drop(ring);
        for (reader, mut writer) in pipes {
            // A request would keep the pipe open for reading.
            drop(reader);
            let written = writer.write_all(&[9; 8]);
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe, "the kernel has it still");
        }
        assert_eq!(bytes(staging.slot(0), 16), [0; 16]);
    }
}

fn each_failure_comes_with_its_completion(by: RingKind) {
    let staging = Staging::new(1, 4096).unwrap();
    let Some(mut ring) = ring(by, "each_failure_comes", 8) else { return };
    let memory = staging.slot(0);
    let open = |path: &str| std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut expect = |request: Request<'_>, meaning| {
        push(&mut ring, 1, &request).unwrap();
        assert_eq!(kind(take(&mut ring)), meaning);
    };
    let full = open("/dev/full");
    expect(Request { direction: Direction::ToFile, ..read(&full, memory, 8) }, FileErrorKind::NoSpace);
    let process = open("/proc/self/mem");
    expect(Request { offset: Some(0), ..read(&process, memory, 8) }, FileErrorKind::Io);
    let folder = std::fs::File::open("/").unwrap();
    expect(read(&folder, memory, 8), FileErrorKind::Directory);
    let scratch = Scratch::new();
    let file = scratch.open();
    file.write_at(&[1; 8], 0).unwrap();
    // All ones are no position of the file's own.
    expect(Request { offset: Some(u64::MAX), ..read(&file, memory, 8) }, FileErrorKind::Refused);
    expect(Request { offset: Some(1 << 63), ..read(&file, memory, 8) }, FileErrorKind::Refused);
    let nowhere = Reservation::new(4096).unwrap();
    let unmapped = NonNull::new(nowhere.range().start.0 as *mut u8).unwrap();
    expect(Request { offset: Some(0), ..read(&file, unmapped, 8) }, FileErrorKind::BadMemory);
    let only_read = std::fs::File::open("/dev/null").unwrap();
    expect(Request { direction: Direction::ToFile, ..read(&only_read, memory, 8) }, FileErrorKind::NotOpenFor);
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    expect(Request { direction: Direction::ToFile, ..read(&writer, memory, 8) }, FileErrorKind::Gone);
    expect(
        Request { offset: Some(0), file: RingFile::Slot(FileSlot(63)), ..read(&file, memory, 8) },
        FileErrorKind::NotOpenFor,
    );
    let unknown = Request { offset: Some(0), buffer: Some(BufferId(63)), ..read(&file, memory, 8) };
    expect(unknown, FileErrorKind::BadMemory);
    // And then it works.
    push(&mut ring, 1, &Request { offset: Some(0), ..read(&file, memory, 8) }).unwrap();
    assert_eq!(take(&mut ring).result.unwrap(), 8);
}

fn what_can_be_registered_has_limits(by: RingKind) {
    let staging = Staging::new(1, 8192).unwrap();
    let Some(mut ring) = ring(by, "what_can_be_registered", 8) else { return };
    let scratch = Scratch::new();
    let file = scratch.open();
    let slots: Vec<_> = (0..FILES).map(|_| ring.register_file(file.as_fd()).unwrap()).collect();
    let error = ring.register_file(file.as_fd()).unwrap_err();
    assert!(matches!(error, RingError::Unregistered { .. }), "{error}");
    // A request that was pushed goes to the file that it was pushed for.
    file.write_at(b"old", 0).unwrap();
    let request = Request { file: RingFile::Slot(slots[5]), offset: Some(0), ..read(&file, staging.slot(0), 3) };
    push(&mut ring, 1, &request).unwrap();
    ring.forget_file(slots[5]).unwrap();
    assert_eq!(take(&mut ring).result.unwrap(), 3);
    assert_eq!(ring.register_file(file.as_fd()).unwrap(), slots[5]);

    // Threads find it with the request.
    if by == RingKind::IoUring {
        let nowhere = Reservation::new(1 << 31).unwrap();
        let nowhere = NonNull::new(nowhere.range().start.0 as *mut u8).unwrap();
        for (memory, len) in [(nowhere, 4096), (staging.slot(0), (1 << 30) + 1)] {
            // SAFETY: it fails.
            let error = unsafe { ring.register_buffer(memory, len) }.unwrap_err();
            assert!(matches!(error, RingError::BadMemory { .. }), "{error}");
        }
    }
    for _ in 0..BUFFERS {
        if buffer("what_can_be_registered", &mut ring, staging.slot(0), 4096).is_none() {
            return;
        }
    }
    // SAFETY: the ring is dropped first.
    let error = unsafe { ring.register_buffer(staging.slot(0), 4096) }.unwrap_err();
    assert!(matches!(error, RingError::Unregistered { .. }), "{error}");
}

/// What io_uring does by itself takes threads: more streams wait than threads may be busy, and a file is read meanwhile.
fn streams_that_wait_hold_nothing_up(by: RingKind) {
    const STREAMS: u64 = 40;
    let staging = Staging::new(64, 16).unwrap();
    let Some(mut ring) = ring(by, "streams_that_wait", 64) else { return };
    let scratch = Scratch::new();
    let file = scratch.open();
    file.write_at(b"data", 0).unwrap();
    let mut pipes: Vec<_> = (0..STREAMS).map(|_| pipe().unwrap()).collect();
    for (token, (reader, _)) in (0..).zip(&pipes) {
        push(&mut ring, token, &read(reader, staging.slot(usize::try_from(token).unwrap()), 4)).unwrap();
    }
    ring.submit().unwrap();
    let at_offset = Request { offset: Some(0), ..read(&file, staging.slot(50), 4) };
    for token in 100..110 {
        push(&mut ring, token, &at_offset).unwrap();
        let done = take(&mut ring);
        assert_eq!((done.token, done.result.unwrap(), bytes(staging.slot(50), 4)), (token, 4, b"data".to_vec()));
    }
    // In the order of their data, not of their requests.
    for token in (0..STREAMS).rev() {
        let at = usize::try_from(token).unwrap();
        pipes[at].1.write_all(&[at.try_into().unwrap(); 4]).unwrap();
        let done = take(&mut ring);
        assert_eq!((done.token, done.result.unwrap()), (token, 4));
        assert_eq!(bytes(staging.slot(at), 4), [u8::try_from(at).unwrap(); 4]);
    }
    assert_eq!(ring.in_flight(), 0);
}

/// A pipe that is full, and data that is more than it holds.
fn what_waits_for_room_can_be_cancelled(by: RingKind) {
    const LEN: u32 = 1 << 20;
    let staging = Staging::new(1, LEN as usize).unwrap();
    let Some(mut ring) = ring(by, "what_waits_for_room", 8) else { return };
    let (mut reader, writer) = pipe().unwrap();
    let request = Request { direction: Direction::ToFile, ..read(&writer, staging.slot(0), LEN) };
    let mut written = 0;
    for token in 0.. {
        push(&mut ring, token, &request).unwrap();
        ring.submit().unwrap();
        if token == 0 {
            // It has begun, and does not come to its end.
            reader.read_exact(&mut [0]).unwrap();
        }
        // Until it holds no more, which an interrupted write tells.
        ring.cancel(token);
        match take(&mut ring).result {
            Ok(bytes) => written += bytes as usize,
            Err(failure) => {
                assert_eq!(failure.kind, FileErrorKind::Cancelled);
                break;
            }
        }
    }
    let begun = ring.in_flight();
    drop(ring);
    drop(writer);
    let mut found = Vec::new();
    reader.read_to_end(&mut found).unwrap();
    assert_eq!((begun, found.len() + 1), (0, written));
}

/// Where the pipe has a name, whose open file the kernel may know less of.
fn a_pipe_with_a_name_is_read(by: RingKind) {
    let staging = Staging::new(1, 16).unwrap();
    let Some(mut ring) = ring(by, "a_pipe_with_a_name", 8) else { return };
    let scratch = Scratch::fifo();
    let mut both = std::fs::File::options().read(true).write(true).open(scratch.path()).unwrap();
    let request = read(&both, staging.slot(0), 8);
    push(&mut ring, 1, &request).unwrap();
    push(&mut ring, 2, &request).unwrap();
    ring.submit().unwrap();
    (&both).write_all(b"abc").unwrap();
    let done = take(&mut ring);
    assert_eq!((done.result.unwrap(), bytes(staging.slot(0), 3)), (3, b"abc".to_vec()));
    // The other one found nothing.
    ring.cancel(3 - done.token);
    assert_eq!(kind(take(&mut ring)), FileErrorKind::Cancelled);
    // With an offset, too, which means nothing here.
    both.write_all(b"d").unwrap();
    push(&mut ring, 1, &Request { offset: Some(0), ..read(&both, staging.slot(0), 8) }).unwrap();
    assert_eq!(take(&mut ring).result.unwrap(), 1);
    // One that was not to wait is waited for, too.
    let hasty = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(scratch.path()).unwrap();
    push(&mut ring, 1, &read(&hasty, staging.slot(0), 8)).unwrap();
    ring.submit().unwrap();
    both.write_all(b"e").unwrap();
    assert!(matches!(take(&mut ring).result, Ok(1) | Err(IoFailure { kind: FileErrorKind::NotReady, .. })));
}

/// A child has the ring's memory, and nothing else of it.
fn a_ring_is_of_no_use_in_a_child(by: RingKind) {
    let staging = Staging::new(1, 16).unwrap();
    let Some(mut ring) = ring(by, "a_ring_is_of_no_use", 8) else { return };
    let (reader, mut writer) = pipe().unwrap();
    push(&mut ring, 1, &read(&reader, staging.slot(0), 1)).unwrap();
    ring.submit().unwrap();
    // SAFETY: the child calls nothing but the ring, which allocates nothing then, and ends.
    match unsafe { libc::fork() } {
        0 => {
            let refused = matches!(ring.submit(), Err(RingError::OtherProcess))
                && matches!(ring.wait(), Err(RingError::OtherProcess))
                && ring.next().is_none();
            drop(ring);
            // SAFETY: ends the child, without what the test's process would do at its end.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: a status of ours.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
    writer.write_all(b"x").unwrap();
    assert_eq!(take(&mut ring).result.unwrap(), 1);
}

#[test]
fn a_ring_tells_its_kind() {
    let ring = Ring::with(RingKind::Threads, 1).unwrap();
    assert_eq!((ring.kind(), ring.kind().to_string()), (RingKind::Threads, "threads".into()));
    assert!(ring.why_not_uring().is_none(), "nobody asked for another");
    let ring = Ring::new(1).unwrap();
    assert_eq!(ring.kind() == RingKind::IoUring, ring.why_not_uring().is_none());
}
