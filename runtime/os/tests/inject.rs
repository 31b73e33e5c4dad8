//! What goes on where Linux refuses something. In a process of its own: injected failures are process-wide.

#![allow(clippy::unwrap_used)] // a test

use std::io::{Write, pipe};
use std::os::fd::AsFd;

use limosa_os::inject::{Call, clear, fail};
use limosa_os::shim::{Direction, ShimError, Transfers};
use limosa_os::{Request, Ring, RingError, RingFile, RingKind};

#[test]
fn a_ring_goes_by_threads_where_the_kernel_has_none() {
    fail(Call::Ring);
    let refused = Ring::with(RingKind::IoUring, 4).unwrap_err();
    assert!(matches!(refused, RingError::Unavailable { .. }), "{refused}");
    assert!(matches!(Transfers::new(1), Err(ShimError::NoQueue { .. })));
    let mut ring = Ring::new(4).unwrap();
    clear();
    assert_eq!(ring.kind(), RingKind::Threads);
    assert!(matches!(ring.why_not_uring(), Some(RingError::Unavailable { .. })));
    let (reader, mut writer) = pipe().unwrap();
    let mut three = [0; 3];
    let (file, memory) = (RingFile::Fd(reader.as_fd()), three.as_mut_ptr());
    let request = Request { file, direction: Direction::FromFile, offset: None, memory, len: 3, buffer: None };
    // SAFETY: nobody uses `three` before the completion has been taken.
    unsafe { ring.push(1, &request) }.unwrap();
    writer.write_all(b"abc").unwrap();
    ring.wait().unwrap();
    assert_eq!(ring.next().unwrap().result.unwrap(), 3);
    assert_eq!(&three, b"abc");
}
