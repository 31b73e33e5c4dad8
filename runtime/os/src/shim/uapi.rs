//! `/dev/limosaN` as the kernel module's header has it: for the client beside it, and for tests of the module itself.
//! Made by bindgen from `kernels-driver/include/uapi/linux/limosa.h`, sizes and offsets asserted; `cargo xtask bindings`
//! makes it anew. It does *not* say what errors mean: the header does.

#![allow(missing_docs, non_camel_case_types)] // the names are C's; a struct's text explains its members

pub const LIMOSA_IOCTL_TYPE: u32 = 209;
pub const LIMOSA_INFO: u32 = 53504;
pub const LIMOSA_LIMIT: u32 = 53505;
pub const LIMOSA_MIGRATE: u32 = 53506;
pub const LIMOSA_RESIDENCY_ABSENT: u32 = 0;
pub const LIMOSA_RESIDENCY_SYSTEM: u32 = 1;
pub const LIMOSA_RESIDENCY_PRIVATE: u32 = 2;
pub const LIMOSA_RESIDENCY_COHERENT: u32 = 3;
pub const LIMOSA_RESIDENCY_PLACE: u32 = 15;
pub const LIMOSA_RESIDENCY_WRITABLE: u32 = 16;
pub const LIMOSA_RESIDENCY_HUGE: u32 = 32;
pub const LIMOSA_RESIDENCY: u32 = 53507;
pub const LIMOSA_COUNTERS: u32 = 53508;
pub const LIMOSA_VIEW: u32 = 53509;
pub const LIMOSA_POLICY: u32 = 53510;
pub type __s32 = ::core::ffi::c_int;
pub type __u32 = ::core::ffi::c_uint;
pub type __u64 = ::core::ffi::c_ulonglong;
pub const LIMOSA_PLACE_SYSTEM: limosa_place = 0;
pub const LIMOSA_PLACE_PRIVATE: limosa_place = 1;
pub const LIMOSA_PLACE_COHERENT: limosa_place = 2;
#[doc = " enum limosa_place - where a page of the caller's memory can be\n - `LIMOSA_PLACE_SYSTEM`: in system RAM.\n - `LIMOSA_PLACE_PRIVATE`: in device memory that the CPU does not address\n   (DEVICE_PRIVATE): a CPU access brings the page back.\n - `LIMOSA_PLACE_COHERENT`: in device memory that the CPU addresses\n   (DEVICE_COHERENT): the page stays until it is moved."]
pub type limosa_place = ::core::ffi::c_uint;
#[doc = " struct limosa_info - ioctl(LIMOSA_INFO), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_info)\n - `flags`: in: zero\n - `page_size`: out: bytes in a page, the unit of addresses and counts\n - `huge_size`: out: bytes that are moved as one where alignment and the kernel\n   allow it; zero where the kernel cannot\n - `private_bytes`: out: size of the device's DEVICE_PRIVATE memory, in bytes\n - `private_free`: out: bytes of it that nobody uses now\n - `coherent_bytes`: out: size of the device's DEVICE_COHERENT memory, in bytes\n - `coherent_free`: out: bytes of it that nobody uses now\n - `limit`: out: bytes of device memory, of both kinds together, that this file\n   may have in use\n - `used`: out: bytes of device memory that this file has in use now; memory\n   that it moved and that a child shares since fork() counts here"]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct limosa_info {
    pub size: __u32,
    pub flags: __u32,
    pub page_size: __u32,
    pub huge_size: __u32,
    pub private_bytes: __u64,
    pub private_free: __u64,
    pub coherent_bytes: __u64,
    pub coherent_free: __u64,
    pub limit: __u64,
    pub used: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_info"][::core::mem::size_of::<limosa_info>() - 64usize];
    ["Alignment of limosa_info"][::core::mem::align_of::<limosa_info>() - 8usize];
    ["Offset of field: limosa_info::size"][::core::mem::offset_of!(limosa_info, size) - 0usize];
    ["Offset of field: limosa_info::flags"][::core::mem::offset_of!(limosa_info, flags) - 4usize];
    ["Offset of field: limosa_info::page_size"][::core::mem::offset_of!(limosa_info, page_size) - 8usize];
    ["Offset of field: limosa_info::huge_size"][::core::mem::offset_of!(limosa_info, huge_size) - 12usize];
    ["Offset of field: limosa_info::private_bytes"][::core::mem::offset_of!(limosa_info, private_bytes) - 16usize];
    ["Offset of field: limosa_info::private_free"][::core::mem::offset_of!(limosa_info, private_free) - 24usize];
    ["Offset of field: limosa_info::coherent_bytes"][::core::mem::offset_of!(limosa_info, coherent_bytes) - 32usize];
    ["Offset of field: limosa_info::coherent_free"][::core::mem::offset_of!(limosa_info, coherent_free) - 40usize];
    ["Offset of field: limosa_info::limit"][::core::mem::offset_of!(limosa_info, limit) - 48usize];
    ["Offset of field: limosa_info::used"][::core::mem::offset_of!(limosa_info, used) - 56usize];
};
#[doc = " struct limosa_limit - ioctl(LIMOSA_LIMIT), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_limit)\n - `flags`: in: zero\n - `bytes`: in: bytes of device memory, of both kinds together, that this file\n   may have in use from now on, rounded down to whole pages. More than\n   the administrator grants a file (the module's parameter\n   client_limit_mb) is as much as that. A limit below what is in use\n   moves nothing: it only keeps more from coming."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct limosa_limit {
    pub size: __u32,
    pub flags: __u32,
    pub bytes: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_limit"][::core::mem::size_of::<limosa_limit>() - 16usize];
    ["Alignment of limosa_limit"][::core::mem::align_of::<limosa_limit>() - 8usize];
    ["Offset of field: limosa_limit::size"][::core::mem::offset_of!(limosa_limit, size) - 0usize];
    ["Offset of field: limosa_limit::flags"][::core::mem::offset_of!(limosa_limit, flags) - 4usize];
    ["Offset of field: limosa_limit::bytes"][::core::mem::offset_of!(limosa_limit, bytes) - 8usize];
};
#[doc = " struct limosa_migrate - ioctl(LIMOSA_MIGRATE), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_migrate)\n - `flags`: in: zero\n - `addr`: in: first byte of the range\n - `len`: in: length of the range in bytes; it may span several mappings\n - `to`: in: where to, one of enum limosa_place. To LIMOSA_PLACE_SYSTEM brings\n   back the pages of this device, of both kinds.\n - `reserved`: in: zero\n - `cursor`: out: first address that was not dealt with; `addr` + `len` at the end\n - `moved`: out: pages of [`addr`, `cursor`) that were moved by this call\n - `moved_huge`: out: how often 2 MiB were moved as one; their pages are in\n   `moved`, too\n - `left`: out: pages of [`addr`, `cursor`) that were not moved: they are there\n   already, or there is nothing to bring back, or the kernel cannot\n   move them (shared or file-backed memory, what KSM may merge, pages pinned\n   for or under I/O, or of another device). LIMOSA_RESIDENCY tells which.\n\n Memory that was never touched is moved, too: it becomes zeroed memory of the\n device. ENOSPC and EDQUOT come with what fitted moved; pages are never\n dropped or evicted for others."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct limosa_migrate {
    pub size: __u32,
    pub flags: __u32,
    pub addr: __u64,
    pub len: __u64,
    pub to: __u32,
    pub reserved: __u32,
    pub cursor: __u64,
    pub moved: __u64,
    pub moved_huge: __u64,
    pub left: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_migrate"][::core::mem::size_of::<limosa_migrate>() - 64usize];
    ["Alignment of limosa_migrate"][::core::mem::align_of::<limosa_migrate>() - 8usize];
    ["Offset of field: limosa_migrate::size"][::core::mem::offset_of!(limosa_migrate, size) - 0usize];
    ["Offset of field: limosa_migrate::flags"][::core::mem::offset_of!(limosa_migrate, flags) - 4usize];
    ["Offset of field: limosa_migrate::addr"][::core::mem::offset_of!(limosa_migrate, addr) - 8usize];
    ["Offset of field: limosa_migrate::len"][::core::mem::offset_of!(limosa_migrate, len) - 16usize];
    ["Offset of field: limosa_migrate::to"][::core::mem::offset_of!(limosa_migrate, to) - 24usize];
    ["Offset of field: limosa_migrate::reserved"][::core::mem::offset_of!(limosa_migrate, reserved) - 28usize];
    ["Offset of field: limosa_migrate::cursor"][::core::mem::offset_of!(limosa_migrate, cursor) - 32usize];
    ["Offset of field: limosa_migrate::moved"][::core::mem::offset_of!(limosa_migrate, moved) - 40usize];
    ["Offset of field: limosa_migrate::moved_huge"][::core::mem::offset_of!(limosa_migrate, moved_huge) - 48usize];
    ["Offset of field: limosa_migrate::left"][::core::mem::offset_of!(limosa_migrate, left) - 56usize];
};
#[doc = " struct limosa_residency - ioctl(LIMOSA_RESIDENCY), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_residency)\n - `flags`: in: zero\n - `addr`: in: first byte of the range\n - `len`: in: length of the range in bytes\n - `states`: in: address of an array of bytes, one for each page of the range,\n   that is written; zero: only the counts are wanted\n - `cursor`: out: first address that was not dealt with; `addr` + `len` at the end\n - `absent`: out: pages of [`addr`, `cursor`) that are absent\n - `in_system`: out: pages in system RAM\n - `in_private`: out: pages in this device's private memory\n - `in_coherent`: out: pages in this device's coherent memory\n\n Nothing is faulted in, moved or kept from moving: the answer is what held at\n one moment for each page. Addresses where nothing is mapped are EFAULT. What\n is mapped but cannot be read, or is no memory of the kernel's own, is absent:\n PROT_NONE, and devices' own mappings, views among them. Coherent memory of\n another device counts as system RAM."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct limosa_residency {
    pub size: __u32,
    pub flags: __u32,
    pub addr: __u64,
    pub len: __u64,
    pub states: __u64,
    pub cursor: __u64,
    pub absent: __u64,
    pub in_system: __u64,
    pub in_private: __u64,
    pub in_coherent: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_residency"][::core::mem::size_of::<limosa_residency>() - 72usize];
    ["Alignment of limosa_residency"][::core::mem::align_of::<limosa_residency>() - 8usize];
    ["Offset of field: limosa_residency::size"][::core::mem::offset_of!(limosa_residency, size) - 0usize];
    ["Offset of field: limosa_residency::flags"][::core::mem::offset_of!(limosa_residency, flags) - 4usize];
    ["Offset of field: limosa_residency::addr"][::core::mem::offset_of!(limosa_residency, addr) - 8usize];
    ["Offset of field: limosa_residency::len"][::core::mem::offset_of!(limosa_residency, len) - 16usize];
    ["Offset of field: limosa_residency::states"][::core::mem::offset_of!(limosa_residency, states) - 24usize];
    ["Offset of field: limosa_residency::cursor"][::core::mem::offset_of!(limosa_residency, cursor) - 32usize];
    ["Offset of field: limosa_residency::absent"][::core::mem::offset_of!(limosa_residency, absent) - 40usize];
    ["Offset of field: limosa_residency::in_system"][::core::mem::offset_of!(limosa_residency, in_system) - 48usize];
    ["Offset of field: limosa_residency::in_private"][::core::mem::offset_of!(limosa_residency, in_private) - 56usize];
    ["Offset of field: limosa_residency::in_coherent"]
        [::core::mem::offset_of!(limosa_residency, in_coherent) - 64usize];
};
pub const LIMOSA_SCOPE_FILE: limosa_scope = 0;
pub const LIMOSA_SCOPE_DEVICE: limosa_scope = 1;
#[doc = " enum limosa_scope - whose events are counted\n - `LIMOSA_SCOPE_FILE`: this open file's, its views included.\n - `LIMOSA_SCOPE_DEVICE`: the device's since the driver was bound to it."]
pub type limosa_scope = ::core::ffi::c_uint;
#[doc = " struct limosa_counters - ioctl(LIMOSA_COUNTERS), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_counters)\n - `flags`: in: zero\n - `scope`: in: one of enum limosa_scope\n - `reserved`: in: zero\n - `pages_to_device`: out: pages moved to the device, for whatever reason\n - `huge_to_device`: out: how often 2 MiB of them were moved as one\n - `pages_to_system`: out: pages moved back, for whatever reason\n - `huge_to_system`: out: how often 2 MiB of them were moved as one\n - `cpu_faults`: out: CPU accesses that found a page on the device\n - `cpu_fault_pages`: out: pages that they brought back, fault-around included\n - `gpu_faults`: out: accesses through a view that found no mapping\n - `gpu_fault_pages`: out: pages that they mapped in the view\n - `gpu_pages_moved`: out: pages that they moved to the device first\n - `gpu_moves_held`: out: times that the policy wanted a move and the guard\n   against thrashing left the page where it was (the module's\n   parameters thrash_ms and thrash_max_ms)\n - `gpu_moves_full`: out: times that the policy wanted a move and the device or\n   the limit was full\n - `gpu_retries`: out: times that a fault began anew, as the memory changed\n   under it\n - `invalidations`: out: times that the kernel took mappings back from a view\n - `pages_evicted`: out: pages moved back because the device was unbound\n\n A page's coming back is counted for the file that moved it to the device.\n All count events, and only go up."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct limosa_counters {
    pub size: __u32,
    pub flags: __u32,
    pub scope: __u32,
    pub reserved: __u32,
    pub pages_to_device: __u64,
    pub huge_to_device: __u64,
    pub pages_to_system: __u64,
    pub huge_to_system: __u64,
    pub cpu_faults: __u64,
    pub cpu_fault_pages: __u64,
    pub gpu_faults: __u64,
    pub gpu_fault_pages: __u64,
    pub gpu_pages_moved: __u64,
    pub gpu_moves_held: __u64,
    pub gpu_moves_full: __u64,
    pub gpu_retries: __u64,
    pub invalidations: __u64,
    pub pages_evicted: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_counters"][::core::mem::size_of::<limosa_counters>() - 128usize];
    ["Alignment of limosa_counters"][::core::mem::align_of::<limosa_counters>() - 8usize];
    ["Offset of field: limosa_counters::size"][::core::mem::offset_of!(limosa_counters, size) - 0usize];
    ["Offset of field: limosa_counters::flags"][::core::mem::offset_of!(limosa_counters, flags) - 4usize];
    ["Offset of field: limosa_counters::scope"][::core::mem::offset_of!(limosa_counters, scope) - 8usize];
    ["Offset of field: limosa_counters::reserved"][::core::mem::offset_of!(limosa_counters, reserved) - 12usize];
    ["Offset of field: limosa_counters::pages_to_device"]
        [::core::mem::offset_of!(limosa_counters, pages_to_device) - 16usize];
    ["Offset of field: limosa_counters::huge_to_device"]
        [::core::mem::offset_of!(limosa_counters, huge_to_device) - 24usize];
    ["Offset of field: limosa_counters::pages_to_system"]
        [::core::mem::offset_of!(limosa_counters, pages_to_system) - 32usize];
    ["Offset of field: limosa_counters::huge_to_system"]
        [::core::mem::offset_of!(limosa_counters, huge_to_system) - 40usize];
    ["Offset of field: limosa_counters::cpu_faults"][::core::mem::offset_of!(limosa_counters, cpu_faults) - 48usize];
    ["Offset of field: limosa_counters::cpu_fault_pages"]
        [::core::mem::offset_of!(limosa_counters, cpu_fault_pages) - 56usize];
    ["Offset of field: limosa_counters::gpu_faults"][::core::mem::offset_of!(limosa_counters, gpu_faults) - 64usize];
    ["Offset of field: limosa_counters::gpu_fault_pages"]
        [::core::mem::offset_of!(limosa_counters, gpu_fault_pages) - 72usize];
    ["Offset of field: limosa_counters::gpu_pages_moved"]
        [::core::mem::offset_of!(limosa_counters, gpu_pages_moved) - 80usize];
    ["Offset of field: limosa_counters::gpu_moves_held"]
        [::core::mem::offset_of!(limosa_counters, gpu_moves_held) - 88usize];
    ["Offset of field: limosa_counters::gpu_moves_full"]
        [::core::mem::offset_of!(limosa_counters, gpu_moves_full) - 96usize];
    ["Offset of field: limosa_counters::gpu_retries"][::core::mem::offset_of!(limosa_counters, gpu_retries) - 104usize];
    ["Offset of field: limosa_counters::invalidations"]
        [::core::mem::offset_of!(limosa_counters, invalidations) - 112usize];
    ["Offset of field: limosa_counters::pages_evicted"]
        [::core::mem::offset_of!(limosa_counters, pages_evicted) - 120usize];
};
pub const LIMOSA_POLICY_MAP: limosa_policy_kind = 0;
pub const LIMOSA_POLICY_MIGRATE: limosa_policy_kind = 1;
#[doc = " enum limosa_policy_kind - what an access through a view does with a page\n - `LIMOSA_POLICY_MAP`: maps it where it is.\n - `LIMOSA_POLICY_MIGRATE`: moves it to the device's private memory first, with\n   what is around it, if it can be moved and has not\n   just come back; else maps it where it is, and tries\n   again later."]
pub type limosa_policy_kind = ::core::ffi::c_uint;
#[doc = " struct limosa_view - ioctl(LIMOSA_VIEW), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_view)\n - `flags`: in: zero\n - `addr`: in: first byte of the range of the caller's memory to be mirrored\n - `len`: in: its length in bytes\n - `policy`: in: one of enum limosa_policy_kind, for all of the range\n - `fd`: out: a new file descriptor, close-on-exec: the view\n\n A view is the device's page table for the range. mmap() of all of `len` from\n offset 0 with MAP_SHARED is its software device: an access to byte i of the\n mapping is the device's access to byte i of the range, with the rights that\n the range's own mappings give at that moment, less those that the mapping\n itself was not given. An access that the range does not permit, or where it\n maps nothing, is SIGSEGV (or SIGBUS, if it is permitted, but the memory behind\n the range is what is missing). The range need not be mapped yet.\n\n A view is mapped once, also if it is unmapped again: a second mmap() is EBUSY.\n EINVAL: the mapping is private, or not of all of the view. EPERM: the file\n belongs to another address space, or the mapping is to be executable.\n\n A view cannot be mirrored by a view: EBUSY, from this call if the range\n overlaps the mapping of a view, from mmap() if the mapping overlaps the range\n of one, its own included. The addresses of a mapping count as long as its\n view's file is open, or mapped.\n\n The mapping is not inherited by fork(), cannot be moved, split (so it is\n protected and unmapped as a whole), or made part of O_DIRECT. It does not need\n the file descriptor, and goes on in system RAM when the device is gone."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct limosa_view {
    pub size: __u32,
    pub flags: __u32,
    pub addr: __u64,
    pub len: __u64,
    pub policy: __u32,
    pub fd: __s32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_view"][::core::mem::size_of::<limosa_view>() - 32usize];
    ["Alignment of limosa_view"][::core::mem::align_of::<limosa_view>() - 8usize];
    ["Offset of field: limosa_view::size"][::core::mem::offset_of!(limosa_view, size) - 0usize];
    ["Offset of field: limosa_view::flags"][::core::mem::offset_of!(limosa_view, flags) - 4usize];
    ["Offset of field: limosa_view::addr"][::core::mem::offset_of!(limosa_view, addr) - 8usize];
    ["Offset of field: limosa_view::len"][::core::mem::offset_of!(limosa_view, len) - 16usize];
    ["Offset of field: limosa_view::policy"][::core::mem::offset_of!(limosa_view, policy) - 24usize];
    ["Offset of field: limosa_view::fd"][::core::mem::offset_of!(limosa_view, fd) - 28usize];
};
#[doc = " struct limosa_policy - ioctl(LIMOSA_POLICY), on a view's file descriptor\n - `size`: in: sizeof(struct limosa_policy)\n - `flags`: in: zero\n - `addr`: in: first byte of a part of the mirrored range (not of the mapping)\n - `len`: in: its length in bytes\n - `policy`: in: one of enum limosa_policy_kind, from the next fault on\n - `reserved`: in: zero\n\n A part outside of the view's range is EFAULT."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct limosa_policy {
    pub size: __u32,
    pub flags: __u32,
    pub addr: __u64,
    pub len: __u64,
    pub policy: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_policy"][::core::mem::size_of::<limosa_policy>() - 32usize];
    ["Alignment of limosa_policy"][::core::mem::align_of::<limosa_policy>() - 8usize];
    ["Offset of field: limosa_policy::size"][::core::mem::offset_of!(limosa_policy, size) - 0usize];
    ["Offset of field: limosa_policy::flags"][::core::mem::offset_of!(limosa_policy, flags) - 4usize];
    ["Offset of field: limosa_policy::addr"][::core::mem::offset_of!(limosa_policy, addr) - 8usize];
    ["Offset of field: limosa_policy::len"][::core::mem::offset_of!(limosa_policy, len) - 16usize];
    ["Offset of field: limosa_policy::policy"][::core::mem::offset_of!(limosa_policy, policy) - 24usize];
    ["Offset of field: limosa_policy::reserved"][::core::mem::offset_of!(limosa_policy, reserved) - 28usize];
};
