// SPDX-License-Identifier: GPL-2.0
/*
 * Residency: where each page of a range is now.
 *
 * The CPU's page tables are read with hmm, which faults nothing in here. What
 * is read is out of date when mmap_lock is dropped at the latest, whether or
 * not a notifier tells of it: so there is none, and what was read is compared
 * with numbers alone. No struct page is looked at, which might be gone.
 */
#include <linux/hmm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "limosa.h"

/**
 * struct limosa_query - 2 MiB of an answer, all that is ever held of it
 */
struct limosa_query {
	unsigned long hmm_pfns[LIMOSA_HUGE_PAGES];
	u8 states[LIMOSA_HUGE_PAGES];
};

int limosa_snapshot(struct limosa_client *client, struct mm_struct *mm,
		    unsigned long start, unsigned long end,
		    unsigned long *hmm_pfns)
{
	/* Never inserted: hmm only reads these two, and sees no collision. */
	struct mmu_interval_notifier notifier = {
		.mm = mm,
		.invalidate_seq = 1,
	};
	struct hmm_range range = {
		.notifier = &notifier,
		.notifier_seq = 1,
		.start = start,
		.end = end,
		.hmm_pfns = hmm_pfns,
		.dev_private_owner = &client->device->vram[LIMOSA_PLACE_PRIVATE],
	};

	memset(hmm_pfns, 0, ((end - start) >> PAGE_SHIFT) * sizeof(*hmm_pfns));
	return hmm_range_fault(&range);
}

bool limosa_snapshot_place(struct limosa_client *client, unsigned long hmm_pfn,
			   enum limosa_place *place)
{
	const struct limosa_vram *vram = client->device->vram;
	unsigned long pfn = hmm_pfn & ~HMM_PFN_FLAGS;

	if (!(hmm_pfn & HMM_PFN_VALID))
		return false;
	for (*place = LIMOSA_PLACE_COHERENT; *place; (*place)--)
		if (pfn - vram[*place].first_pfn < vram[*place].nr_pages)
			break;
	return true;
}

/* Reads the pages from @cursor on, of one VMA and at most 2 MiB. */
static int limosa_query_step(struct limosa_client *client,
			     struct limosa_query *query, unsigned long cursor,
			     unsigned long end, unsigned long *next)
{
	struct mm_struct *mm = client->mm;
	struct vm_area_struct *vma;
	int err = -EFAULT;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma = vma_lookup(mm, cursor);
	if (vma) {
		*next = min3(end, vma->vm_end, ALIGN(cursor + 1, PMD_SIZE));
		err = limosa_snapshot(client, mm, cursor, *next,
				      query->hmm_pfns);
	}
	mmap_read_unlock(mm);
	return err;
}

static u8 limosa_query_state(struct limosa_client *client,
			     unsigned long hmm_pfn)
{
	enum limosa_place place;
	u8 state;

	if (!limosa_snapshot_place(client, hmm_pfn, &place))
		return LIMOSA_RESIDENCY_ABSENT;
	state = LIMOSA_RESIDENCY_SYSTEM + place;
	if (hmm_pfn & HMM_PFN_WRITE)
		state |= LIMOSA_RESIDENCY_WRITABLE;
	if (hmm_pfn_to_map_order(hmm_pfn) >= LIMOSA_HUGE_ORDER)
		state |= LIMOSA_RESIDENCY_HUGE;
	return state;
}

/* Hands out the states of @nr pages, then counts them. */
static int limosa_query_tell(struct limosa_client *client,
			     struct limosa_query *query, unsigned long nr,
			     u8 __user *states, struct limosa_residency *args)
{
	u64 count[LIMOSA_RESIDENCY_COHERENT + 1] = {};
	unsigned long i;

	for (i = 0; i < nr; i++) {
		query->states[i] = limosa_query_state(client, query->hmm_pfns[i]);
		count[query->states[i] & LIMOSA_RESIDENCY_PLACE]++;
	}
	if (states && copy_to_user(states, query->states, nr))
		return -EFAULT;
	args->absent += count[LIMOSA_RESIDENCY_ABSENT];
	args->in_system += count[LIMOSA_RESIDENCY_SYSTEM];
	args->in_private += count[LIMOSA_RESIDENCY_PRIVATE];
	args->in_coherent += count[LIMOSA_RESIDENCY_COHERENT];
	return 0;
}

int limosa_query_residency(struct limosa_client *client,
			   struct limosa_residency *args)
{
	u8 __user *states = u64_to_user_ptr(args->states);
	unsigned long end = args->addr + args->len, next, nr;
	struct limosa_query *query;
	int err;

	err = limosa_check_range(args->addr, args->len);
	if (err)
		return err;
	args->cursor = args->addr;
	args->absent = 0;
	args->in_system = 0;
	args->in_private = 0;
	args->in_coherent = 0;
	query = kmalloc_obj(*query);
	if (!query)
		return -ENOMEM;
	for (;;) {
		err = limosa_query_step(client, query, args->cursor, end, &next);
		if (err)
			break;
		nr = (next - args->cursor) >> PAGE_SHIFT;
		err = limosa_query_tell(client, query, nr, states, args);
		if (err)
			break;
		if (states)
			states += nr;
		args->cursor = next;
		if (next >= end)
			break;
		if (signal_pending(current)) {
			err = -EINTR;
			break;
		}
		cond_resched();
	}
	kfree(query);
	return err;
}

static_assert(LIMOSA_RESIDENCY_SYSTEM + LIMOSA_PLACE_PRIVATE ==
	      LIMOSA_RESIDENCY_PRIVATE);
static_assert(LIMOSA_RESIDENCY_SYSTEM + LIMOSA_PLACE_COHERENT ==
	      LIMOSA_RESIDENCY_COHERENT);
