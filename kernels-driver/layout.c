// SPDX-License-Identifier: GPL-2.0
/*
 * The layout of the interface to user space, asserted: each member stays where
 * it is, without holes, and the counters are one array. There is no code here.
 */
#include <linux/build_bug.h>
#include <linux/stddef.h>

#include "limosa.h"

#define LIMOSA_AT(type, member, offset) \
	static_assert(offsetof(struct type, member) == (offset))

LIMOSA_AT(limosa_info, size, 0);
LIMOSA_AT(limosa_info, flags, 4);
LIMOSA_AT(limosa_info, page_size, 8);
LIMOSA_AT(limosa_info, huge_size, 12);
LIMOSA_AT(limosa_info, private_bytes, 16);
LIMOSA_AT(limosa_info, private_free, 24);
LIMOSA_AT(limosa_info, coherent_bytes, 32);
LIMOSA_AT(limosa_info, coherent_free, 40);
LIMOSA_AT(limosa_info, limit, 48);
LIMOSA_AT(limosa_info, used, 56);
LIMOSA_AT(limosa_info, p2p_bytes, 64);
LIMOSA_AT(limosa_info, published_bytes, 72);
static_assert(sizeof(struct limosa_info) == 80);
LIMOSA_AT(limosa_limit, size, 0);
LIMOSA_AT(limosa_limit, flags, 4);
LIMOSA_AT(limosa_limit, bytes, 8);
static_assert(sizeof(struct limosa_limit) == 16);
LIMOSA_AT(limosa_migrate, size, 0);
LIMOSA_AT(limosa_migrate, flags, 4);
LIMOSA_AT(limosa_migrate, addr, 8);
LIMOSA_AT(limosa_migrate, len, 16);
LIMOSA_AT(limosa_migrate, to, 24);
LIMOSA_AT(limosa_migrate, reserved, 28);
LIMOSA_AT(limosa_migrate, cursor, 32);
LIMOSA_AT(limosa_migrate, moved, 40);
LIMOSA_AT(limosa_migrate, moved_huge, 48);
LIMOSA_AT(limosa_migrate, left, 56);
static_assert(sizeof(struct limosa_migrate) == 64);
LIMOSA_AT(limosa_residency, size, 0);
LIMOSA_AT(limosa_residency, flags, 4);
LIMOSA_AT(limosa_residency, addr, 8);
LIMOSA_AT(limosa_residency, len, 16);
LIMOSA_AT(limosa_residency, states, 24);
LIMOSA_AT(limosa_residency, cursor, 32);
LIMOSA_AT(limosa_residency, absent, 40);
LIMOSA_AT(limosa_residency, in_system, 48);
LIMOSA_AT(limosa_residency, in_private, 56);
LIMOSA_AT(limosa_residency, in_coherent, 64);
static_assert(sizeof(struct limosa_residency) == 72);
LIMOSA_AT(limosa_counters, size, 0);
LIMOSA_AT(limosa_counters, flags, 4);
LIMOSA_AT(limosa_counters, scope, 8);
LIMOSA_AT(limosa_counters, reserved, 12);
LIMOSA_AT(limosa_counters, pages_to_device, 16);
LIMOSA_AT(limosa_counters, huge_to_device, 24);
LIMOSA_AT(limosa_counters, pages_to_system, 32);
LIMOSA_AT(limosa_counters, huge_to_system, 40);
LIMOSA_AT(limosa_counters, cpu_faults, 48);
LIMOSA_AT(limosa_counters, cpu_fault_pages, 56);
LIMOSA_AT(limosa_counters, gpu_faults, 64);
LIMOSA_AT(limosa_counters, gpu_fault_pages, 72);
LIMOSA_AT(limosa_counters, gpu_pages_moved, 80);
LIMOSA_AT(limosa_counters, gpu_moves_held, 88);
LIMOSA_AT(limosa_counters, gpu_moves_full, 96);
LIMOSA_AT(limosa_counters, gpu_retries, 104);
LIMOSA_AT(limosa_counters, invalidations, 112);
LIMOSA_AT(limosa_counters, pages_evicted, 120);
LIMOSA_AT(limosa_counters, pages_loaded, 128);
LIMOSA_AT(limosa_counters, huge_loaded, 136);
LIMOSA_AT(limosa_counters, pages_load_copied, 144);
static_assert(sizeof(struct limosa_counters) == 152);
LIMOSA_AT(limosa_view, size, 0);
LIMOSA_AT(limosa_view, flags, 4);
LIMOSA_AT(limosa_view, addr, 8);
LIMOSA_AT(limosa_view, len, 16);
LIMOSA_AT(limosa_view, policy, 24);
LIMOSA_AT(limosa_view, fd, 28);
static_assert(sizeof(struct limosa_view) == 32);
LIMOSA_AT(limosa_policy, size, 0);
LIMOSA_AT(limosa_policy, flags, 4);
LIMOSA_AT(limosa_policy, addr, 8);
LIMOSA_AT(limosa_policy, len, 16);
LIMOSA_AT(limosa_policy, policy, 24);
LIMOSA_AT(limosa_policy, reserved, 28);
static_assert(sizeof(struct limosa_policy) == 32);
LIMOSA_AT(limosa_pool, size, 0);
LIMOSA_AT(limosa_pool, flags, 4);
LIMOSA_AT(limosa_pool, len, 8);
LIMOSA_AT(limosa_pool, fd, 16);
LIMOSA_AT(limosa_pool, reserved, 20);
static_assert(sizeof(struct limosa_pool) == 24);
LIMOSA_AT(limosa_probe, size, 0);
LIMOSA_AT(limosa_probe, flags, 4);
LIMOSA_AT(limosa_probe, fd, 8);
LIMOSA_AT(limosa_probe, direction, 12);
LIMOSA_AT(limosa_probe, verdict, 16);
LIMOSA_AT(limosa_probe, reason, 20);
LIMOSA_AT(limosa_probe, route, 24);
LIMOSA_AT(limosa_probe, distance, 28);
LIMOSA_AT(limosa_probe, memory_align, 32);
LIMOSA_AT(limosa_probe, offset_align, 36);
static_assert(sizeof(struct limosa_probe) == 40);
LIMOSA_AT(limosa_load, size, 0);
LIMOSA_AT(limosa_load, flags, 4);
LIMOSA_AT(limosa_load, addr, 8);
LIMOSA_AT(limosa_load, len, 16);
LIMOSA_AT(limosa_load, offset, 24);
LIMOSA_AT(limosa_load, fd, 32);
LIMOSA_AT(limosa_load, reserved, 36);
LIMOSA_AT(limosa_load, cursor, 40);
LIMOSA_AT(limosa_load, bytes, 48);
LIMOSA_AT(limosa_load, loaded, 56);
LIMOSA_AT(limosa_load, loaded_huge, 64);
LIMOSA_AT(limosa_load, copied, 72);
static_assert(sizeof(struct limosa_load) == 80);
static_assert(sizeof(struct limosa_counters) == 16 + 8 * LIMOSA_NR_COUNTERS);
static_assert(offsetof(struct limosa_counters, pages_load_copied) ==
	      16 + 8 * LIMOSA_PAGES_LOAD_COPIED);
