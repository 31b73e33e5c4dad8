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
pub const LIMOSA_POOL: u32 = 53511;
pub const LIMOSA_PROBE: u32 = 53512;
pub const LIMOSA_LOAD: u32 = 53513;
pub type __s32 = ::core::ffi::c_int;
pub type __u32 = ::core::ffi::c_uint;
pub type __u64 = ::core::ffi::c_ulonglong;
pub const LIMOSA_PLACE_SYSTEM: limosa_place = 0;
pub const LIMOSA_PLACE_PRIVATE: limosa_place = 1;
pub const LIMOSA_PLACE_COHERENT: limosa_place = 2;
#[doc = " enum limosa_place - where a page of the caller's memory can be\n - `LIMOSA_PLACE_SYSTEM`: in system RAM.\n - `LIMOSA_PLACE_PRIVATE`: in device memory that the CPU does not address\n   (DEVICE_PRIVATE): a CPU access brings the page back.\n - `LIMOSA_PLACE_COHERENT`: in device memory that the CPU addresses\n   (DEVICE_COHERENT): the page stays until it is moved."]
pub type limosa_place = ::core::ffi::c_uint;
#[doc = " struct limosa_info - ioctl(LIMOSA_INFO), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_info)\n - `flags`: in: zero\n - `page_size`: out: bytes in a page, the unit of addresses and counts\n - `huge_size`: out: bytes that are moved as one where alignment and the kernel\n   allow it; zero where the kernel cannot\n - `private_bytes`: out: size of the device's DEVICE_PRIVATE memory, in bytes\n - `private_free`: out: bytes of it that nobody uses now\n - `coherent_bytes`: out: size of the device's DEVICE_COHERENT memory, in bytes\n - `coherent_free`: out: bytes of it that nobody uses now\n - `limit`: out: bytes of device memory, of all kinds together, that this file\n   may have in use\n - `used`: out: bytes of device memory that this file has in use now, its pools\n   included; memory that it moved and that a child shares since fork()\n   counts here\n - `p2p_bytes`: out: bytes of the private memory that other devices can reach\n   (peer-to-peer DMA), so that pools and loads are to be had; all of\n   it, or zero\n - `published_bytes`: out: bytes of the private memory that the administrator\n   gave to the kernel's own users of such memory, as the NVMe\n   target (the module's parameter publish_mb); never free"]
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
    pub p2p_bytes: __u64,
    pub published_bytes: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_info"][::core::mem::size_of::<limosa_info>() - 80usize];
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
    ["Offset of field: limosa_info::p2p_bytes"][::core::mem::offset_of!(limosa_info, p2p_bytes) - 64usize];
    ["Offset of field: limosa_info::published_bytes"][::core::mem::offset_of!(limosa_info, published_bytes) - 72usize];
};
#[doc = " struct limosa_limit - ioctl(LIMOSA_LIMIT), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_limit)\n - `flags`: in: zero\n - `bytes`: in: bytes of device memory, of all kinds together, that this file\n   may have in use from now on, rounded down to whole pages. More than\n   the administrator grants a file (the module's parameter\n   client_limit_mb) is as much as that. A limit below what is in use\n   moves nothing: it only keeps more from coming."]
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
#[doc = " struct limosa_counters - ioctl(LIMOSA_COUNTERS), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_counters)\n - `flags`: in: zero\n - `scope`: in: one of enum limosa_scope\n - `reserved`: in: zero\n - `pages_to_device`: out: pages moved to the device, for whatever reason\n - `huge_to_device`: out: how often 2 MiB of them were moved as one\n - `pages_to_system`: out: pages moved back, for whatever reason\n - `huge_to_system`: out: how often 2 MiB of them were moved as one\n - `cpu_faults`: out: CPU accesses that found a page on the device\n - `cpu_fault_pages`: out: pages that they brought back, fault-around included\n - `gpu_faults`: out: accesses through a view that found no mapping\n - `gpu_fault_pages`: out: pages that they mapped in the view\n - `gpu_pages_moved`: out: pages that they moved to the device first\n - `gpu_moves_held`: out: times that the policy wanted a move and the guard\n   against thrashing left the page where it was (the module's\n   parameters thrash_ms and thrash_max_ms)\n - `gpu_moves_full`: out: times that the policy wanted a move and the device or\n   the limit was full\n - `gpu_retries`: out: times that a fault began anew, as the memory changed\n   under it\n - `invalidations`: out: times that the kernel took mappings back from a view\n - `pages_evicted`: out: pages moved back because the device was unbound\n - `pages_loaded`: out: pages that came from files and stand on the device\n - `huge_loaded`: out: how often 2 MiB of them were one\n - `pages_load_copied`: out: pages of loads that the CPU copied to where a page\n   was already\n\n A page's coming back is counted for the file that moved it to the device.\n All count events, and only go up."]
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
    pub pages_loaded: __u64,
    pub huge_loaded: __u64,
    pub pages_load_copied: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_counters"][::core::mem::size_of::<limosa_counters>() - 152usize];
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
    ["Offset of field: limosa_counters::pages_loaded"]
        [::core::mem::offset_of!(limosa_counters, pages_loaded) - 128usize];
    ["Offset of field: limosa_counters::huge_loaded"][::core::mem::offset_of!(limosa_counters, huge_loaded) - 136usize];
    ["Offset of field: limosa_counters::pages_load_copied"]
        [::core::mem::offset_of!(limosa_counters, pages_load_copied) - 144usize];
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
#[doc = " struct limosa_pool - ioctl(LIMOSA_POOL), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_pool)\n - `flags`: in: zero\n - `len`: in: bytes of the device's private memory to take, in whole pages\n - `fd`: out: a new file descriptor, close-on-exec: the pool\n - `reserved`: in: zero\n\n mmap() of any part of the pool, with MAP_SHARED and not executable, gives\n pages that stand in the device's memory and that other devices reach: the\n buffer of read(2), preadv2(2), write(2) and io_uring requests to files that\n are open with O_DIRECT. LIMOSA_PROBE tells whether their data then goes\n straight. The CPU reaches the pages, too; it writes at the speed of the bus\n and reads much slower.\n\n The memory is zero at first, counts against the limit of the file that took\n it, and is free again when the pool's descriptors and mappings are gone and\n the last transfer to it has ended. The descriptor may be handed to another\n process, which then shares the pool, as a child does after fork().\n\n When the driver is unbound, the mappings lose their pages once the transfers\n under way have ended: an access is SIGBUS, a system call on them EFAULT.\n MAP_POPULATE and mlock() do not take such pages.\n\n EOPNOTSUPP: the device's memory cannot be reached by others (p2p_bytes in\n struct limosa_info is zero). Of mmap(), EINVAL: the mapping is private, or past\n the pool's end; EPERM: it is to be executable."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct limosa_pool {
    pub size: __u32,
    pub flags: __u32,
    pub len: __u64,
    pub fd: __s32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_pool"][::core::mem::size_of::<limosa_pool>() - 24usize];
    ["Alignment of limosa_pool"][::core::mem::align_of::<limosa_pool>() - 8usize];
    ["Offset of field: limosa_pool::size"][::core::mem::offset_of!(limosa_pool, size) - 0usize];
    ["Offset of field: limosa_pool::flags"][::core::mem::offset_of!(limosa_pool, flags) - 4usize];
    ["Offset of field: limosa_pool::len"][::core::mem::offset_of!(limosa_pool, len) - 8usize];
    ["Offset of field: limosa_pool::fd"][::core::mem::offset_of!(limosa_pool, fd) - 16usize];
    ["Offset of field: limosa_pool::reserved"][::core::mem::offset_of!(limosa_pool, reserved) - 20usize];
};
pub const LIMOSA_FROM_FILE: limosa_direction = 0;
pub const LIMOSA_TO_FILE: limosa_direction = 1;
#[doc = " enum limosa_direction - which way data goes\n - `LIMOSA_FROM_FILE`: from the file to the device's memory: read(2), LIMOSA_LOAD.\n - `LIMOSA_TO_FILE`: from the device's memory to the file: write(2)."]
pub type limosa_direction = ::core::ffi::c_uint;
pub const LIMOSA_VERDICT_DIRECT: limosa_verdict = 0;
pub const LIMOSA_VERDICT_STAGED: limosa_verdict = 1;
pub const LIMOSA_VERDICT_REFUSED: limosa_verdict = 2;
pub const LIMOSA_VERDICT_UNKNOWN: limosa_verdict = 3;
#[doc = " enum limosa_verdict - what becomes of data between a pool and a file\n - `LIMOSA_VERDICT_DIRECT`: the file's device and this one exchange it by DMA; it\n   is not in system RAM at any time, and no CPU touches\n   it.\n - `LIMOSA_VERDICT_STAGED`: the call does what it says, but the data goes through\n   system RAM or the CPU.\n - `LIMOSA_VERDICT_REFUSED`: the call fails.\n - `LIMOSA_VERDICT_UNKNOWN`: only a transfer tells, and was not tried."]
pub type limosa_verdict = ::core::ffi::c_uint;
pub const LIMOSA_REASON_NONE: limosa_reason = 0;
pub const LIMOSA_REASON_NOT_STORAGE: limosa_reason = 1;
pub const LIMOSA_REASON_NOT_O_DIRECT: limosa_reason = 2;
pub const LIMOSA_REASON_NO_DIRECT_IO: limosa_reason = 3;
pub const LIMOSA_REASON_NO_BLOCK_DEVICE: limosa_reason = 4;
pub const LIMOSA_REASON_FILE_SYSTEM: limosa_reason = 5;
pub const LIMOSA_REASON_CHECKSUM: limosa_reason = 6;
pub const LIMOSA_REASON_COMPRESSED: limosa_reason = 7;
pub const LIMOSA_REASON_ENCRYPTED: limosa_reason = 8;
pub const LIMOSA_REASON_INLINE: limosa_reason = 9;
pub const LIMOSA_REASON_STABLE_WRITES: limosa_reason = 10;
pub const LIMOSA_REASON_DAX: limosa_reason = 11;
pub const LIMOSA_REASON_QUEUE: limosa_reason = 12;
pub const LIMOSA_REASON_STACKED: limosa_reason = 13;
pub const LIMOSA_REASON_NO_PATH: limosa_reason = 14;
pub const LIMOSA_REASON_ACS_REDIRECT: limosa_reason = 15;
#[doc = " enum limosa_reason - why a verdict is not LIMOSA_VERDICT_DIRECT\n - `LIMOSA_REASON_NONE`: it is.\n - `LIMOSA_REASON_NOT_STORAGE`: the descriptor is of no regular file and no block\n   device.\n - `LIMOSA_REASON_NOT_O_DIRECT`: it is open without O_DIRECT: the page cache.\n - `LIMOSA_REASON_NO_DIRECT_IO`: the file system has no direct I/O for this file,\n   for no reason that is listed below.\n - `LIMOSA_REASON_NO_BLOCK_DEVICE`: no block device is behind the file: it is on\n   the network, in memory, or on another file\n   system.\n - `LIMOSA_REASON_FILE_SYSTEM`: the file system is none of those that are known to\n   hand pages to the block device as they are.\n - `LIMOSA_REASON_CHECKSUM`: the CPU computes checksums of the data: the file\n   system's, or those of the disk's format.\n - `LIMOSA_REASON_COMPRESSED`: the data is compressed in the file system.\n - `LIMOSA_REASON_ENCRYPTED`: the data is encrypted in the file system.\n - `LIMOSA_REASON_INLINE`: the data stands among the metadata.\n - `LIMOSA_REASON_STABLE_WRITES`: what is written is copied first, as it must not\n   change on its way; so is what is read with xfs,\n   which it cannot do to a pool.\n - `LIMOSA_REASON_DAX`: the file's memory is mapped as it is; there is no I/O.\n - `LIMOSA_REASON_QUEUE`: the block device does not take such pages: a virtual\n   disk, one across the network, or device mapper.\n - `LIMOSA_REASON_STACKED`: there are several disks or paths behind the block\n   device (md, NVMe multipath). Each of them takes such\n   pages, but the ways to them differ or are not known.\n - `LIMOSA_REASON_NO_PATH`: there is no bridge above both devices, and the kernel\n   does not trust the host bridge with it.\n - `LIMOSA_REASON_ACS_REDIRECT`: there is a bridge above both devices, but access\n   control services send what is between them to\n   the host bridge, which the kernel does not trust\n   with it."]
pub type limosa_reason = ::core::ffi::c_uint;
pub const LIMOSA_ROUTE_NONE: limosa_route = 0;
pub const LIMOSA_ROUTE_SWITCH: limosa_route = 1;
pub const LIMOSA_ROUTE_HOST_BRIDGE: limosa_route = 2;
#[doc = " enum limosa_route - which way DMA between two devices takes\n - `LIMOSA_ROUTE_NONE`: there is none, or it is not known.\n - `LIMOSA_ROUTE_SWITCH`: it turns at a bridge above both.\n - `LIMOSA_ROUTE_HOST_BRIDGE`: through the host bridge."]
pub type limosa_route = ::core::ffi::c_uint;
#[doc = " struct limosa_probe - ioctl(LIMOSA_PROBE), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_probe)\n - `flags`: in: zero\n - `fd`: in: an open file\n - `direction`: in: one of enum limosa_direction\n - `verdict`: out: one of enum limosa_verdict\n - `reason`: out: one of enum limosa_reason\n - `route`: out: one of enum limosa_route\n - `distance`: out: links between the two devices, as the kernel counts them\n   (0: they are the same; 4: ports of one switch); where `route` is\n   LIMOSA_ROUTE_NONE, zero\n - `memory_align`: out: what the address of direct I/O to this file must be a\n   multiple of, in bytes; zero: there is none to it, or\n   it is not known\n - `offset_align`: out: what its offset and its length must be a multiple of, in\n   bytes; zero as above\n\n Tells what becomes of data between this device's pools and the file, as it is\n open now. For LIMOSA_FROM_FILE that is true of LIMOSA_LOAD, too, which is to\n be had only with LIMOSA_VERDICT_DIRECT. Nothing is written but what of the file\n waits for it in the page cache. Where only a transfer tells, the first block is\n read into device memory, if there is some free; all disks and paths are then\n taken to be as the one that sent it. (Linux 7.3 tells of success where a pool is\n written to RAID 1 and no disk could fetch it.) EOPNOTSUPP: the device's memory\n cannot be reached by others (p2p_bytes in struct limosa_info is zero).\n\n The verdict is of the data in the file. What is a hole, or was written and is\n not on the disk yet, is the file system's matter, and the kernel fills in\n holes with the CPU.\n\n That a transfer succeeded says nothing of its way: a read through the page\n cache into a pool succeeds, too."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct limosa_probe {
    pub size: __u32,
    pub flags: __u32,
    pub fd: __s32,
    pub direction: __u32,
    pub verdict: __u32,
    pub reason: __u32,
    pub route: __u32,
    pub distance: __u32,
    pub memory_align: __u32,
    pub offset_align: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_probe"][::core::mem::size_of::<limosa_probe>() - 40usize];
    ["Alignment of limosa_probe"][::core::mem::align_of::<limosa_probe>() - 4usize];
    ["Offset of field: limosa_probe::size"][::core::mem::offset_of!(limosa_probe, size) - 0usize];
    ["Offset of field: limosa_probe::flags"][::core::mem::offset_of!(limosa_probe, flags) - 4usize];
    ["Offset of field: limosa_probe::fd"][::core::mem::offset_of!(limosa_probe, fd) - 8usize];
    ["Offset of field: limosa_probe::direction"][::core::mem::offset_of!(limosa_probe, direction) - 12usize];
    ["Offset of field: limosa_probe::verdict"][::core::mem::offset_of!(limosa_probe, verdict) - 16usize];
    ["Offset of field: limosa_probe::reason"][::core::mem::offset_of!(limosa_probe, reason) - 20usize];
    ["Offset of field: limosa_probe::route"][::core::mem::offset_of!(limosa_probe, route) - 24usize];
    ["Offset of field: limosa_probe::distance"][::core::mem::offset_of!(limosa_probe, distance) - 28usize];
    ["Offset of field: limosa_probe::memory_align"][::core::mem::offset_of!(limosa_probe, memory_align) - 32usize];
    ["Offset of field: limosa_probe::offset_align"][::core::mem::offset_of!(limosa_probe, offset_align) - 36usize];
};
#[doc = " struct limosa_load - ioctl(LIMOSA_LOAD), on /dev/limosaN\n - `size`: in: sizeof(struct limosa_load)\n - `flags`: in: zero\n - `addr`: in: first byte of a range of the caller's memory\n - `len`: in: length of the range in bytes; also a multiple of offset_align\n   (struct limosa_probe), where that is more than a page\n - `offset`: in: the file's byte that goes to `addr`, a multiple of offset_align\n - `fd`: in: the file, open for reading and with O_DIRECT\n - `reserved`: in: zero\n - `cursor`: out: first address that was not dealt with; `addr` + `len` at the end\n - `bytes`: out: bytes of the file that are in [`addr`, `cursor`); fewer than that\n   where the file ended\n - `loaded`: out: pages of [`addr`, `cursor`) that stand on the device, as the disk\n   wrote them\n - `loaded_huge`: out: how often 2 MiB of them are one\n - `copied`: out: pages of [`addr`, `cursor`) that were there when the data came, so\n   that the CPU copied it to them\n\n As read(2) into the range, but memory of it that was never touched (private\n and anonymous) becomes memory of the device, without being in system RAM;\n afterwards it is memory as any other, and an access of the CPU brings it\n back. Where the range is touched meanwhile the outcome is that of a read(2)\n at the same time.\n\n At the end of the file the rest of its last page is zero, and the pages after\n that are left as they are; `cursor` is `addr` + `len` all the same. Holes are\n zeroes.\n\n EOPNOTSUPP: the verdict of LIMOSA_PROBE for the file is not\n LIMOSA_VERDICT_DIRECT, or the range is of memory that cannot stand on the\n device. EFAULT: it is not mapped, or not writable. ENOSPC and EDQUOT: as much\n as fits was loaded. EINVAL: as in general, or `offset` is not aligned, or\n `offset` + `len` is past the largest offset. Behind `cursor`, up to 2 MiB of the\n range may have been loaded that the call does not tell of: a page there is as it\n was, or as the file has it."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct limosa_load {
    pub size: __u32,
    pub flags: __u32,
    pub addr: __u64,
    pub len: __u64,
    pub offset: __u64,
    pub fd: __s32,
    pub reserved: __u32,
    pub cursor: __u64,
    pub bytes: __u64,
    pub loaded: __u64,
    pub loaded_huge: __u64,
    pub copied: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of limosa_load"][::core::mem::size_of::<limosa_load>() - 80usize];
    ["Alignment of limosa_load"][::core::mem::align_of::<limosa_load>() - 8usize];
    ["Offset of field: limosa_load::size"][::core::mem::offset_of!(limosa_load, size) - 0usize];
    ["Offset of field: limosa_load::flags"][::core::mem::offset_of!(limosa_load, flags) - 4usize];
    ["Offset of field: limosa_load::addr"][::core::mem::offset_of!(limosa_load, addr) - 8usize];
    ["Offset of field: limosa_load::len"][::core::mem::offset_of!(limosa_load, len) - 16usize];
    ["Offset of field: limosa_load::offset"][::core::mem::offset_of!(limosa_load, offset) - 24usize];
    ["Offset of field: limosa_load::fd"][::core::mem::offset_of!(limosa_load, fd) - 32usize];
    ["Offset of field: limosa_load::reserved"][::core::mem::offset_of!(limosa_load, reserved) - 36usize];
    ["Offset of field: limosa_load::cursor"][::core::mem::offset_of!(limosa_load, cursor) - 40usize];
    ["Offset of field: limosa_load::bytes"][::core::mem::offset_of!(limosa_load, bytes) - 48usize];
    ["Offset of field: limosa_load::loaded"][::core::mem::offset_of!(limosa_load, loaded) - 56usize];
    ["Offset of field: limosa_load::loaded_huge"][::core::mem::offset_of!(limosa_load, loaded_huge) - 64usize];
    ["Offset of field: limosa_load::copied"][::core::mem::offset_of!(limosa_load, copied) - 72usize];
};
