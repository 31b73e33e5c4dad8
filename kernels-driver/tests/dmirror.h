/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the companion for hmm-tests know of each other.
 *
 *   dmirror.c    /dev/hmm_dmirrorN: the files, migration, what is where
 *   device.c     the device itself: its page table, faults and accesses
 *   exclusive.c  entries that the device has for itself alone
 */
#ifndef _LIMOSA_DMIRROR_H
#define _LIMOSA_DMIRROR_H

#include <linux/hmm.h>
#include <linux/xarray.h>

#include "../limosa.h"
#include <test_hmm_uapi.h>

/* Pages that are looked up at a time. */
#define DMIRROR_BATCH	((unsigned long)LIMOSA_FAULT_PAGES)

/* What the device may do with a page; an entry's tag. */
enum dmirror_right {
	DMIRROR_READ = 0,
	DMIRROR_EXCLUSIVE = 1,
	DMIRROR_WRITE = 3,
};

/**
 * struct dmirror - an open file
 * @mirror: of all of the opener's memory; its lock protects @table
 * @table: the device's page table: page frame -> struct page, tagged with an
 *         enum dmirror_right
 * @client: who moves pages
 * @vram: the device's memory
 * @place: what kind of memory that is
 */
struct dmirror {
	struct limosa_mirror mirror;
	struct xarray table;
	struct limosa_client *client;
	struct limosa_vram *vram;
	enum limosa_place place;
};

static inline unsigned long dmirror_end(const struct hmm_dmirror_cmd *cmd)
{
	return cmd->addr + (cmd->npages << PAGE_SHIFT);
}

/* ------------------------------------------------------------ device.c */

extern const struct limosa_mirror_ops dmirror_mirror_ops;

/* Writes one entry. The mirror is locked. */
int dmirror_store(struct dmirror *d, unsigned long addr, struct page *page,
		  enum dmirror_right right);

/*
 * Has @range looked up and, where it asks for it, faulted in. With 0 the
 * mirror is locked, and as long as it is, the answer holds.
 */
int dmirror_look(struct dmirror *d, struct hmm_range *range);

/* Makes entries for the device's own pages, and faults nothing in. */
int dmirror_fill(struct dmirror *d, unsigned long addr, unsigned long end);

/*
 * The device reads or writes what is left of the range, from page @cmd->cpages
 * on. A fault is resolved for all of that, and counted as one; without @fault
 * it is -ENOENT.
 */
int dmirror_access(struct dmirror *d, struct hmm_dmirror_cmd *cmd, bool write,
		   bool fault);

/* --------------------------------------------------------- exclusive.c */

int dmirror_exclusive(struct dmirror *d, struct hmm_dmirror_cmd *cmd);
int dmirror_check_exclusive(struct dmirror *d, struct hmm_dmirror_cmd *cmd);

#endif /* _LIMOSA_DMIRROR_H */
