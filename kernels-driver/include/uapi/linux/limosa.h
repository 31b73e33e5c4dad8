/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * limosa: device memory as pages of the caller's own address space.
 *
 * This file is the whole interface of /dev/limosaN to user space, and the only
 * file that the kernel module shares with programs.
 */
#ifndef _UAPI_LINUX_LIMOSA_H
#define _UAPI_LINUX_LIMOSA_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * DOC: General ioctl format
 *
 * Every ioctl takes a pointer to one struct, whose first member is its size in
 * bytes as the caller knows it. The kernel reads a struct that is shorter than
 * its own as if the rest were zero, and takes a longer one where what it does
 * not know is zero; so programs and modules of different age go together. It
 * writes back as many bytes as the caller gave.
 *
 * @flags is zero in every struct: no flag is defined yet. Members named
 * @reserved are zero.
 *
 * An open file belongs to the address space (mm) of the process that opened
 * it, and speaks of that one alone: not of a child's after fork(), and not of
 * the process's after execve(). A view's file descriptor likewise.
 *
 * Addresses and lengths are in bytes and multiples of the page size, which
 * LIMOSA_INFO tells. Counts of pages are in pages of that size, also where
 * 2 MiB were moved as one.
 *
 * An error has one meaning, the same for every ioctl:
 *
 *  - ENOTTY: there is no such ioctl on this kind of file.
 *  - E2BIG: the struct is longer than the kernel's, and its end is not zero, or
 *    it is longer than a page.
 *  - EINVAL: an argument is malformed: the size is below that of the struct's
 *    first version, an address or a length is not a multiple of the page
 *    size, a length is zero, a range goes past the end of the address space,
 *    an enumerated value is none of those listed, or @reserved is not zero.
 *  - EOPNOTSUPP: the call is well-formed, but a flag, or what is asked for, is
 *    not to be had from this module, device or kernel.
 *  - EFAULT: memory that the call names is not mapped, or not accessible as
 *    the call needs it: the struct itself, an array, or an address of a range.
 *  - EBADF: a file descriptor that the call names is not open, or not for
 *    that direction.
 *  - EIO: a file could not be read there: its device says so, or is gone.
 *  - EPERM: the file belongs to another address space than the caller's.
 *  - ENODEV: the device is gone: the driver was unbound from it.
 *  - ENOMEM: the kernel is out of system memory.
 *  - ENOSPC: the device is out of memory.
 *  - EMFILE, ENFILE: the process or the system has no file descriptor left for
 *    a view.
 *  - EDQUOT: the file's own limit of device memory is reached.
 *  - EBUSY: there is one already, or what is asked for overlaps it.
 *  - EINTR: a signal came before the end.
 *
 * Where a call works its way along a range, @cursor tells how far it came: the
 * first address that was not dealt with. The struct is written back with
 * success and with every error that stops the call on its way, so that calling
 * again with what is left goes on from there.
 */

#define LIMOSA_IOCTL_TYPE 0xD1

enum {
	LIMOSA_CMD_BASE = 0x00,
	LIMOSA_CMD_INFO = LIMOSA_CMD_BASE,
	LIMOSA_CMD_LIMIT,
	LIMOSA_CMD_MIGRATE,
	LIMOSA_CMD_RESIDENCY,
	LIMOSA_CMD_COUNTERS,
	LIMOSA_CMD_VIEW,
	LIMOSA_CMD_POLICY,
	LIMOSA_CMD_POOL,
	LIMOSA_CMD_PROBE,
	LIMOSA_CMD_LOAD,
};

/**
 * enum limosa_place - where a page of the caller's memory can be
 * @LIMOSA_PLACE_SYSTEM: in system RAM.
 * @LIMOSA_PLACE_PRIVATE: in device memory that the CPU does not address
 *                        (DEVICE_PRIVATE): a CPU access brings the page back.
 * @LIMOSA_PLACE_COHERENT: in device memory that the CPU addresses
 *                         (DEVICE_COHERENT): the page stays until it is moved.
 */
enum limosa_place {
	LIMOSA_PLACE_SYSTEM = 0,
	LIMOSA_PLACE_PRIVATE = 1,
	LIMOSA_PLACE_COHERENT = 2,
};

/**
 * struct limosa_info - ioctl(LIMOSA_INFO), on /dev/limosaN
 * @size: in: sizeof(struct limosa_info)
 * @flags: in: zero
 * @page_size: out: bytes in a page, the unit of addresses and counts
 * @huge_size: out: bytes that are moved as one where alignment and the kernel
 *             allow it; zero where the kernel cannot
 * @private_bytes: out: size of the device's DEVICE_PRIVATE memory, in bytes
 * @private_free: out: bytes of it that nobody uses now
 * @coherent_bytes: out: size of the device's DEVICE_COHERENT memory, in bytes
 * @coherent_free: out: bytes of it that nobody uses now
 * @limit: out: bytes of device memory, of all kinds together, that this file
 *         may have in use
 * @used: out: bytes of device memory that this file has in use now, its pools
 *        included; memory that it moved and that a child shares since fork()
 *        counts here
 * @p2p_bytes: out: bytes of the private memory that other devices can reach
 *             (peer-to-peer DMA), so that pools and loads are to be had; all of
 *             it, or zero
 * @published_bytes: out: bytes of the private memory that the administrator
 *                   gave to the kernel's own users of such memory, as the NVMe
 *                   target (the module's parameter publish_mb); never free
 */
struct limosa_info {
	__u32 size;
	__u32 flags;
	__u32 page_size;
	__u32 huge_size;
	__aligned_u64 private_bytes;
	__aligned_u64 private_free;
	__aligned_u64 coherent_bytes;
	__aligned_u64 coherent_free;
	__aligned_u64 limit;
	__aligned_u64 used;
	__aligned_u64 p2p_bytes;
	__aligned_u64 published_bytes;
};
#define LIMOSA_INFO _IO(LIMOSA_IOCTL_TYPE, LIMOSA_CMD_INFO)

/**
 * struct limosa_limit - ioctl(LIMOSA_LIMIT), on /dev/limosaN
 * @size: in: sizeof(struct limosa_limit)
 * @flags: in: zero
 * @bytes: in: bytes of device memory, of all kinds together, that this file
 *         may have in use from now on, rounded down to whole pages. More than
 *         the administrator grants a file (the module's parameter
 *         client_limit_mb) is as much as that. A limit below what is in use
 *         moves nothing: it only keeps more from coming.
 */
struct limosa_limit {
	__u32 size;
	__u32 flags;
	__aligned_u64 bytes;
};
#define LIMOSA_LIMIT _IO(LIMOSA_IOCTL_TYPE, LIMOSA_CMD_LIMIT)

/**
 * struct limosa_migrate - ioctl(LIMOSA_MIGRATE), on /dev/limosaN
 * @size: in: sizeof(struct limosa_migrate)
 * @flags: in: zero
 * @addr: in: first byte of the range
 * @len: in: length of the range in bytes; it may span several mappings
 * @to: in: where to, one of enum limosa_place. To LIMOSA_PLACE_SYSTEM brings
 *      back the pages of this device, of both kinds.
 * @reserved: in: zero
 * @cursor: out: first address that was not dealt with; @addr + @len at the end
 * @moved: out: pages of [@addr, @cursor) that were moved by this call
 * @moved_huge: out: how often 2 MiB were moved as one; their pages are in
 *              @moved, too
 * @left: out: pages of [@addr, @cursor) that were not moved: they are there
 *        already, or there is nothing to bring back, or the kernel cannot
 *        move them (shared or file-backed memory, what KSM may merge, pages pinned
 *        for or under I/O, or of another device). LIMOSA_RESIDENCY tells which.
 *
 * Memory that was never touched is moved, too: it becomes zeroed memory of the
 * device. ENOSPC and EDQUOT come with what fitted moved; pages are never
 * dropped or evicted for others.
 */
struct limosa_migrate {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 len;
	__u32 to;
	__u32 reserved;
	__aligned_u64 cursor;
	__aligned_u64 moved;
	__aligned_u64 moved_huge;
	__aligned_u64 left;
};
#define LIMOSA_MIGRATE _IO(LIMOSA_IOCTL_TYPE, LIMOSA_CMD_MIGRATE)

/**
 * DOC: Residency of a page, one byte
 *
 * LIMOSA_RESIDENCY writes one byte for each page: one of the first four in its
 * low bits, with the flags that hold. Absent is also what is swapped out or in
 * the private memory of another device, and what is mapped, but cannot be read
 * (PROT_NONE) or is no memory of the kernel's own.
 */
#define LIMOSA_RESIDENCY_ABSENT		0x00 /* There is no page to be read now. */
#define LIMOSA_RESIDENCY_SYSTEM		0x01 /* In system RAM. */
#define LIMOSA_RESIDENCY_PRIVATE	0x02 /* In this device's private memory. */
#define LIMOSA_RESIDENCY_COHERENT	0x03 /* In this device's coherent memory. */
#define LIMOSA_RESIDENCY_PLACE		0x0f /* The bits that hold the place. */
#define LIMOSA_RESIDENCY_WRITABLE	0x10 /* Mapped for writing. */
#define LIMOSA_RESIDENCY_HUGE		0x20 /* Mapped as part of 2 MiB. */

/**
 * struct limosa_residency - ioctl(LIMOSA_RESIDENCY), on /dev/limosaN
 * @size: in: sizeof(struct limosa_residency)
 * @flags: in: zero
 * @addr: in: first byte of the range
 * @len: in: length of the range in bytes
 * @states: in: address of an array of bytes, one for each page of the range,
 *          that is written; zero: only the counts are wanted
 * @cursor: out: first address that was not dealt with; @addr + @len at the end
 * @absent: out: pages of [@addr, @cursor) that are absent
 * @in_system: out: pages in system RAM
 * @in_private: out: pages in this device's private memory
 * @in_coherent: out: pages in this device's coherent memory
 *
 * Nothing is faulted in, moved or kept from moving: the answer is what held at
 * one moment for each page. Addresses where nothing is mapped are EFAULT. What
 * is mapped but cannot be read, or is no memory of the kernel's own, is absent:
 * PROT_NONE, and devices' own mappings, views among them. Coherent memory of
 * another device counts as system RAM.
 */
struct limosa_residency {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 len;
	__aligned_u64 states;
	__aligned_u64 cursor;
	__aligned_u64 absent;
	__aligned_u64 in_system;
	__aligned_u64 in_private;
	__aligned_u64 in_coherent;
};
#define LIMOSA_RESIDENCY _IO(LIMOSA_IOCTL_TYPE, LIMOSA_CMD_RESIDENCY)

/**
 * enum limosa_scope - whose events are counted
 * @LIMOSA_SCOPE_FILE: this open file's, its views included.
 * @LIMOSA_SCOPE_DEVICE: the device's since the driver was bound to it.
 */
enum limosa_scope {
	LIMOSA_SCOPE_FILE = 0,
	LIMOSA_SCOPE_DEVICE = 1,
};

/**
 * struct limosa_counters - ioctl(LIMOSA_COUNTERS), on /dev/limosaN
 * @size: in: sizeof(struct limosa_counters)
 * @flags: in: zero
 * @scope: in: one of enum limosa_scope
 * @reserved: in: zero
 * @pages_to_device: out: pages moved to the device, for whatever reason
 * @huge_to_device: out: how often 2 MiB of them were moved as one
 * @pages_to_system: out: pages moved back, for whatever reason
 * @huge_to_system: out: how often 2 MiB of them were moved as one
 * @cpu_faults: out: CPU accesses that found a page on the device
 * @cpu_fault_pages: out: pages that they brought back, fault-around included
 * @gpu_faults: out: accesses through a view that found no mapping
 * @gpu_fault_pages: out: pages that they mapped in the view
 * @gpu_pages_moved: out: pages that they moved to the device first
 * @gpu_moves_held: out: times that the policy wanted a move and the guard
 *                  against thrashing left the page where it was (the module's
 *                  parameters thrash_ms and thrash_max_ms)
 * @gpu_moves_full: out: times that the policy wanted a move and the device or
 *                  the limit was full
 * @gpu_retries: out: times that a fault began anew, as the memory changed
 *               under it
 * @invalidations: out: times that the kernel took mappings back from a view
 * @pages_evicted: out: pages moved back because the device was unbound
 * @pages_loaded: out: pages that came from files and stand on the device
 * @huge_loaded: out: how often 2 MiB of them were one
 * @pages_load_copied: out: pages of loads that the CPU copied to where a page
 *                     was already
 *
 * A page's coming back is counted for the file that moved it to the device.
 * All count events, and only go up.
 */
struct limosa_counters {
	__u32 size;
	__u32 flags;
	__u32 scope;
	__u32 reserved;
	__aligned_u64 pages_to_device;
	__aligned_u64 huge_to_device;
	__aligned_u64 pages_to_system;
	__aligned_u64 huge_to_system;
	__aligned_u64 cpu_faults;
	__aligned_u64 cpu_fault_pages;
	__aligned_u64 gpu_faults;
	__aligned_u64 gpu_fault_pages;
	__aligned_u64 gpu_pages_moved;
	__aligned_u64 gpu_moves_held;
	__aligned_u64 gpu_moves_full;
	__aligned_u64 gpu_retries;
	__aligned_u64 invalidations;
	__aligned_u64 pages_evicted;
	__aligned_u64 pages_loaded;
	__aligned_u64 huge_loaded;
	__aligned_u64 pages_load_copied;
};
#define LIMOSA_COUNTERS _IO(LIMOSA_IOCTL_TYPE, LIMOSA_CMD_COUNTERS)

/**
 * enum limosa_policy_kind - what an access through a view does with a page
 * @LIMOSA_POLICY_MAP: maps it where it is.
 * @LIMOSA_POLICY_MIGRATE: moves it to the device's private memory first, with
 *                         what is around it, if it can be moved and has not
 *                         just come back; else maps it where it is, and tries
 *                         again later.
 */
enum limosa_policy_kind {
	LIMOSA_POLICY_MAP = 0,
	LIMOSA_POLICY_MIGRATE = 1,
};

/**
 * struct limosa_view - ioctl(LIMOSA_VIEW), on /dev/limosaN
 * @size: in: sizeof(struct limosa_view)
 * @flags: in: zero
 * @addr: in: first byte of the range of the caller's memory to be mirrored
 * @len: in: its length in bytes
 * @policy: in: one of enum limosa_policy_kind, for all of the range
 * @fd: out: a new file descriptor, close-on-exec: the view
 *
 * A view is the device's page table for the range. mmap() of all of @len from
 * offset 0 with MAP_SHARED is its software device: an access to byte i of the
 * mapping is the device's access to byte i of the range, with the rights that
 * the range's own mappings give at that moment, less those that the mapping
 * itself was not given. An access that the range does not permit, or where it
 * maps nothing, is SIGSEGV (or SIGBUS, if it is permitted, but the memory behind
 * the range is what is missing). The range need not be mapped yet.
 *
 * A view is mapped once, also if it is unmapped again: a second mmap() is EBUSY.
 * EINVAL: the mapping is private, or not of all of the view. EPERM: the file
 * belongs to another address space, or the mapping is to be executable.
 *
 * A view cannot be mirrored by a view: EBUSY, from this call if the range
 * overlaps the mapping of a view, from mmap() if the mapping overlaps the range
 * of one, its own included. The addresses of a mapping count as long as its
 * view's file is open, or mapped.
 *
 * The mapping is not inherited by fork(), cannot be moved, split (so it is
 * protected and unmapped as a whole), or made part of O_DIRECT. It does not need
 * the file descriptor, and goes on in system RAM when the device is gone.
 */
struct limosa_view {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 len;
	__u32 policy;
	__s32 fd;
};
#define LIMOSA_VIEW _IO(LIMOSA_IOCTL_TYPE, LIMOSA_CMD_VIEW)

/**
 * struct limosa_policy - ioctl(LIMOSA_POLICY), on a view's file descriptor
 * @size: in: sizeof(struct limosa_policy)
 * @flags: in: zero
 * @addr: in: first byte of a part of the mirrored range (not of the mapping)
 * @len: in: its length in bytes
 * @policy: in: one of enum limosa_policy_kind, from the next fault on
 * @reserved: in: zero
 *
 * A part outside of the view's range is EFAULT.
 */
struct limosa_policy {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 len;
	__u32 policy;
	__u32 reserved;
};
#define LIMOSA_POLICY _IO(LIMOSA_IOCTL_TYPE, LIMOSA_CMD_POLICY)

/**
 * struct limosa_pool - ioctl(LIMOSA_POOL), on /dev/limosaN
 * @size: in: sizeof(struct limosa_pool)
 * @flags: in: zero
 * @len: in: bytes of the device's private memory to take, in whole pages
 * @fd: out: a new file descriptor, close-on-exec: the pool
 * @reserved: in: zero
 *
 * mmap() of any part of the pool, with MAP_SHARED and not executable, gives
 * pages that stand in the device's memory and that other devices reach: the
 * buffer of read(2), preadv2(2), write(2) and io_uring requests to files that
 * are open with O_DIRECT. LIMOSA_PROBE tells whether their data then goes
 * straight. The CPU reaches the pages, too; it writes at the speed of the bus
 * and reads much slower.
 *
 * The memory is zero at first, counts against the limit of the file that took
 * it, and is free again when the pool's descriptors and mappings are gone and
 * the last transfer to it has ended. The descriptor may be handed to another
 * process, which then shares the pool, as a child does after fork().
 *
 * When the driver is unbound, the mappings lose their pages once the transfers
 * under way have ended: an access is SIGBUS, a system call on them EFAULT.
 * MAP_POPULATE and mlock() do not take such pages.
 *
 * EOPNOTSUPP: the device's memory cannot be reached by others (p2p_bytes in
 * struct limosa_info is zero). Of mmap(), EINVAL: the mapping is private, or past
 * the pool's end; EPERM: it is to be executable.
 */
struct limosa_pool {
	__u32 size;
	__u32 flags;
	__aligned_u64 len;
	__s32 fd;
	__u32 reserved;
};
#define LIMOSA_POOL _IO(LIMOSA_IOCTL_TYPE, LIMOSA_CMD_POOL)

/**
 * enum limosa_direction - which way data goes
 * @LIMOSA_FROM_FILE: from the file to the device's memory: read(2), LIMOSA_LOAD.
 * @LIMOSA_TO_FILE: from the device's memory to the file: write(2).
 */
enum limosa_direction {
	LIMOSA_FROM_FILE = 0,
	LIMOSA_TO_FILE = 1,
};

/**
 * enum limosa_verdict - what becomes of data between a pool and a file
 * @LIMOSA_VERDICT_DIRECT: the file's device and this one exchange it by DMA; it
 *                         is not in system RAM at any time, and no CPU touches
 *                         it.
 * @LIMOSA_VERDICT_STAGED: the call does what it says, but the data goes through
 *                         system RAM or the CPU.
 * @LIMOSA_VERDICT_REFUSED: the call fails.
 * @LIMOSA_VERDICT_UNKNOWN: only a transfer tells, and was not tried.
 */
enum limosa_verdict {
	LIMOSA_VERDICT_DIRECT = 0,
	LIMOSA_VERDICT_STAGED = 1,
	LIMOSA_VERDICT_REFUSED = 2,
	LIMOSA_VERDICT_UNKNOWN = 3,
};

/**
 * enum limosa_reason - why a verdict is not LIMOSA_VERDICT_DIRECT
 * @LIMOSA_REASON_NONE: it is.
 * @LIMOSA_REASON_NOT_STORAGE: the descriptor is of no regular file and no block
 *                             device.
 * @LIMOSA_REASON_NOT_O_DIRECT: it is open without O_DIRECT: the page cache.
 * @LIMOSA_REASON_NO_DIRECT_IO: the file system has no direct I/O for this file,
 *                              for no reason that is listed below.
 * @LIMOSA_REASON_NO_BLOCK_DEVICE: no block device is behind the file: it is on
 *                                 the network, in memory, or on another file
 *                                 system.
 * @LIMOSA_REASON_FILE_SYSTEM: the file system is none of those that are known to
 *                             hand pages to the block device as they are.
 * @LIMOSA_REASON_CHECKSUM: the CPU computes checksums of the data: the file
 *                          system's, or those of the disk's format.
 * @LIMOSA_REASON_COMPRESSED: the data is compressed in the file system.
 * @LIMOSA_REASON_ENCRYPTED: the data is encrypted in the file system.
 * @LIMOSA_REASON_INLINE: the data stands among the metadata.
 * @LIMOSA_REASON_STABLE_WRITES: what is written is copied first, as it must not
 *                               change on its way; so is what is read with xfs,
 *                               which it cannot do to a pool.
 * @LIMOSA_REASON_DAX: the file's memory is mapped as it is; there is no I/O.
 * @LIMOSA_REASON_QUEUE: the block device does not take such pages: a virtual
 *                       disk, one across the network, or device mapper.
 * @LIMOSA_REASON_STACKED: there are several disks or paths behind the block
 *                         device (md, NVMe multipath). Each of them takes such
 *                         pages, but the ways to them differ or are not known.
 * @LIMOSA_REASON_NO_PATH: there is no bridge above both devices, and the kernel
 *                         does not trust the host bridge with it.
 * @LIMOSA_REASON_ACS_REDIRECT: there is a bridge above both devices, but access
 *                              control services send what is between them to
 *                              the host bridge, which the kernel does not trust
 *                              with it.
 */
enum limosa_reason {
	LIMOSA_REASON_NONE = 0,
	LIMOSA_REASON_NOT_STORAGE = 1,
	LIMOSA_REASON_NOT_O_DIRECT = 2,
	LIMOSA_REASON_NO_DIRECT_IO = 3,
	LIMOSA_REASON_NO_BLOCK_DEVICE = 4,
	LIMOSA_REASON_FILE_SYSTEM = 5,
	LIMOSA_REASON_CHECKSUM = 6,
	LIMOSA_REASON_COMPRESSED = 7,
	LIMOSA_REASON_ENCRYPTED = 8,
	LIMOSA_REASON_INLINE = 9,
	LIMOSA_REASON_STABLE_WRITES = 10,
	LIMOSA_REASON_DAX = 11,
	LIMOSA_REASON_QUEUE = 12,
	LIMOSA_REASON_STACKED = 13,
	LIMOSA_REASON_NO_PATH = 14,
	LIMOSA_REASON_ACS_REDIRECT = 15,
};

/**
 * enum limosa_route - which way DMA between two devices takes
 * @LIMOSA_ROUTE_NONE: there is none, or it is not known.
 * @LIMOSA_ROUTE_SWITCH: it turns at a bridge above both.
 * @LIMOSA_ROUTE_HOST_BRIDGE: through the host bridge.
 */
enum limosa_route {
	LIMOSA_ROUTE_NONE = 0,
	LIMOSA_ROUTE_SWITCH = 1,
	LIMOSA_ROUTE_HOST_BRIDGE = 2,
};

/**
 * struct limosa_probe - ioctl(LIMOSA_PROBE), on /dev/limosaN
 * @size: in: sizeof(struct limosa_probe)
 * @flags: in: zero
 * @fd: in: an open file
 * @direction: in: one of enum limosa_direction
 * @verdict: out: one of enum limosa_verdict
 * @reason: out: one of enum limosa_reason
 * @route: out: one of enum limosa_route
 * @distance: out: links between the two devices, as the kernel counts them
 *            (0: they are the same; 4: ports of one switch); where @route is
 *            LIMOSA_ROUTE_NONE, zero
 * @memory_align: out: what the address of direct I/O to this file must be a
 *                multiple of, in bytes; zero: there is none to it, or
 *                it is not known
 * @offset_align: out: what its offset and its length must be a multiple of, in
 *                bytes; zero as above
 *
 * Tells what becomes of data between this device's pools and the file, as it is
 * open now. For LIMOSA_FROM_FILE that is true of LIMOSA_LOAD, too, which is to
 * be had only with LIMOSA_VERDICT_DIRECT. Nothing is written but what of the file
 * waits for it in the page cache. Where only a transfer tells, the first block is
 * read into device memory, if there is some free; all disks and paths are then
 * taken to be as the one that sent it. (Linux 7.3 tells of success where a pool is
 * written to RAID 1 and no disk could fetch it.) EOPNOTSUPP: the device's memory
 * cannot be reached by others (p2p_bytes in struct limosa_info is zero).
 *
 * The verdict is of the data in the file. What is a hole, or was written and is
 * not on the disk yet, is the file system's matter, and the kernel fills in
 * holes with the CPU.
 *
 * That a transfer succeeded says nothing of its way: a read through the page
 * cache into a pool succeeds, too.
 */
struct limosa_probe {
	__u32 size;
	__u32 flags;
	__s32 fd;
	__u32 direction;
	__u32 verdict;
	__u32 reason;
	__u32 route;
	__u32 distance;
	__u32 memory_align;
	__u32 offset_align;
};
#define LIMOSA_PROBE _IO(LIMOSA_IOCTL_TYPE, LIMOSA_CMD_PROBE)

/**
 * struct limosa_load - ioctl(LIMOSA_LOAD), on /dev/limosaN
 * @size: in: sizeof(struct limosa_load)
 * @flags: in: zero
 * @addr: in: first byte of a range of the caller's memory
 * @len: in: length of the range in bytes; also a multiple of offset_align
 *       (struct limosa_probe), where that is more than a page
 * @offset: in: the file's byte that goes to @addr, a multiple of offset_align
 * @fd: in: the file, open for reading and with O_DIRECT
 * @reserved: in: zero
 * @cursor: out: first address that was not dealt with; @addr + @len at the end
 * @bytes: out: bytes of the file that are in [@addr, @cursor); fewer than that
 *         where the file ended
 * @loaded: out: pages of [@addr, @cursor) that stand on the device, as the disk
 *          wrote them
 * @loaded_huge: out: how often 2 MiB of them are one
 * @copied: out: pages of [@addr, @cursor) that were there when the data came, so
 *          that the CPU copied it to them
 *
 * As read(2) into the range, but memory of it that was never touched (private
 * and anonymous) becomes memory of the device, without being in system RAM;
 * afterwards it is memory as any other, and an access of the CPU brings it
 * back. Where the range is touched meanwhile the outcome is that of a read(2)
 * at the same time.
 *
 * At the end of the file the rest of its last page is zero, and the pages after
 * that are left as they are; @cursor is @addr + @len all the same. Holes are
 * zeroes.
 *
 * EOPNOTSUPP: the verdict of LIMOSA_PROBE for the file is not
 * LIMOSA_VERDICT_DIRECT, or the range is of memory that cannot stand on the
 * device. EFAULT: it is not mapped, or not writable. ENOSPC and EDQUOT: as much
 * as fits was loaded. EINVAL: as in general, or @offset is not aligned, or
 * @offset + @len is past the largest offset. Behind @cursor, up to 2 MiB of the
 * range may have been loaded that the call does not tell of: a page there is as it
 * was, or as the file has it.
 */
struct limosa_load {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 len;
	__aligned_u64 offset;
	__s32 fd;
	__u32 reserved;
	__aligned_u64 cursor;
	__aligned_u64 bytes;
	__aligned_u64 loaded;
	__aligned_u64 loaded_huge;
	__aligned_u64 copied;
};
#define LIMOSA_LOAD _IO(LIMOSA_IOCTL_TYPE, LIMOSA_CMD_LOAD)

#endif /* _UAPI_LINUX_LIMOSA_H */
