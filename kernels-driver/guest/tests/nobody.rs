//! The guest itself, for tests that run as an unprivileged user.

#![allow(clippy::unwrap_used)] // tests

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use limosa_guest::host;

#[test]
fn tests_of_nobody_have_no_rights_but_may_ask_the_host() {
    let own = fs::metadata("/proc/self").unwrap();
    assert_eq!((own.uid(), own.gid()), (65534, 65534));
    assert_eq!(fs::write("/proc/sys/vm/drop_caches", "1").unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(host::vram(0, 0, 64).unwrap().len(), 64);
}
