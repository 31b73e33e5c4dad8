//! The structs of the ioctls as tables: where each field is and what it means. All else (how to fill one well, how to
//! spoil it, and what must then come) follows from these tables and the header's words.

use limosa_os::shim::uapi::{limosa_load, limosa_pool};

use crate::raw::uapi;

/// What a field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `flags`: 4 bytes, zero.
    Flags,
    /// 4 bytes, zero.
    Reserved,
    /// 4 bytes: one of 0 to the number given.
    Enum(u32),
    /// 8 bytes: any number is one of bytes.
    Bytes,
    /// 8 bytes: an address, and 8 more that are its length.
    Range,
    /// 8 bytes: where to write one byte for each page, or zero.
    States,
    /// 8 bytes: a length.
    Len,
    /// 4 bytes: a file's number.
    File,
    /// 8 bytes: a place in a file.
    Offset,
}

/// An ioctl.
#[derive(Debug)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// Its number.
    pub command: u64,
    /// The size of its struct.
    pub size: usize,
    /// The size of its struct's first version: what is shorter is malformed.
    pub first: usize,
    /// Whether it is one of a view's.
    pub of_view: bool,
    /// What the caller fills in, but for `size`.
    pub fields: &'static [(usize, Field)],
    /// Bytes from where on the kernel writes; `size` if it writes none.
    pub out: usize,
    /// Where `cursor` is, if it tells how far it came; the counts that add up to the pages before it follow.
    pub progress: Option<(usize, &'static [usize])>,
    /// What it must have ended with, beside what all must.
    pub must: &'static [i32],
}

/// All of them.
pub const SHAPES: &[Shape] = &[
    Shape {
        name: "INFO",
        command: uapi::INFO,
        size: size_of::<uapi::Info>(),
        first: std::mem::offset_of!(uapi::Info, p2p_bytes),
        of_view: false,
        fields: &[(4, Field::Flags)],
        out: 8,
        progress: None,
        must: &[],
    },
    Shape {
        name: "LIMIT",
        command: uapi::LIMIT,
        size: size_of::<uapi::Limit>(),
        first: size_of::<uapi::Limit>(),
        of_view: false,
        fields: &[(4, Field::Flags), (8, Field::Bytes)],
        out: 16,
        progress: None,
        must: &[],
    },
    Shape {
        name: "MIGRATE",
        command: uapi::MIGRATE,
        size: size_of::<uapi::Migrate>(),
        first: size_of::<uapi::Migrate>(),
        of_view: false,
        fields: &[(4, Field::Flags), (8, Field::Range), (24, Field::Enum(2)), (28, Field::Reserved)],
        out: 32,
        progress: Some((32, &[40, 56])),
        must: &[libc::ENOSPC, libc::EDQUOT],
    },
    Shape {
        name: "RESIDENCY",
        command: uapi::RESIDENCY,
        size: size_of::<uapi::Residency>(),
        first: size_of::<uapi::Residency>(),
        of_view: false,
        fields: &[(4, Field::Flags), (8, Field::Range), (24, Field::States)],
        out: 32,
        progress: Some((32, &[40, 48, 56, 64])),
        must: &[],
    },
    Shape {
        name: "COUNTERS",
        command: uapi::COUNTERS,
        size: size_of::<uapi::Counters>(),
        first: std::mem::offset_of!(uapi::Counters, pages_loaded),
        of_view: false,
        fields: &[(4, Field::Flags), (8, Field::Enum(1)), (12, Field::Reserved)],
        out: 16,
        progress: None,
        must: &[],
    },
    Shape {
        name: "VIEW",
        command: uapi::VIEW,
        size: size_of::<uapi::View>(),
        first: size_of::<uapi::View>(),
        of_view: false,
        fields: &[(4, Field::Flags), (8, Field::Range), (24, Field::Enum(1))],
        out: 28,
        progress: None,
        must: &[],
    },
    Shape {
        name: "POLICY",
        command: uapi::POLICY,
        size: size_of::<uapi::Policy>(),
        first: size_of::<uapi::Policy>(),
        of_view: true,
        fields: &[(4, Field::Flags), (8, Field::Range), (24, Field::Enum(1)), (28, Field::Reserved)],
        out: 32,
        progress: None,
        must: &[],
    },
    Shape {
        name: "POOL",
        command: uapi::POOL,
        size: size_of::<limosa_pool>(),
        first: size_of::<limosa_pool>(),
        of_view: false,
        fields: &[(4, Field::Flags), (8, Field::Len), (20, Field::Reserved)],
        out: 16,
        progress: None,
        must: &[libc::ENOSPC, libc::EDQUOT],
    },
    Shape {
        name: "PROBE",
        command: uapi::PROBE,
        size: size_of::<uapi::Probe>(),
        first: size_of::<uapi::Probe>(),
        of_view: false,
        fields: &[(4, Field::Flags), (8, Field::File), (12, Field::Enum(1))],
        out: 16,
        progress: None,
        must: &[libc::EBADF],
    },
    Shape {
        name: "LOAD",
        command: uapi::LOAD,
        size: size_of::<limosa_load>(),
        first: size_of::<limosa_load>(),
        of_view: false,
        fields: &[(4, Field::Flags), (8, Field::Range), (24, Field::Offset), (32, Field::File), (36, Field::Reserved)],
        out: 40,
        progress: Some((40, &[56, 72])),
        must: &[libc::EBADF, libc::ENOSPC, libc::EDQUOT],
    },
];
const _: () = {
    assert!(SHAPES[INFO].first == 64 && SHAPES[MIGRATE].size == 64 && SHAPES[RESIDENCY].size == 64 + 8);
    assert!(SHAPES[COUNTERS].first == 128 && SHAPES[VIEW].size == 32 && SHAPES[POLICY].size == 32);
    assert!(SHAPES[POOL].size == 24 && SHAPES[PROBE].size == 40 && SHAPES[LOAD].size == 80);
};

/// Their places in [`SHAPES`].
pub const INFO: usize = 0;
/// LIMOSA_LIMIT.
pub const LIMIT: usize = 1;
/// LIMOSA_MIGRATE.
pub const MIGRATE: usize = 2;
/// LIMOSA_RESIDENCY.
pub const RESIDENCY: usize = 3;
/// LIMOSA_COUNTERS.
pub const COUNTERS: usize = 4;
/// LIMOSA_VIEW.
pub const VIEW: usize = 5;
/// LIMOSA_POLICY.
pub const POLICY: usize = 6;
/// LIMOSA_POOL.
pub const POOL: usize = 7;
/// LIMOSA_PROBE.
pub const PROBE: usize = 8;
/// LIMOSA_LOAD.
pub const LOAD: usize = 9;
