// SPDX-License-Identifier: GPL-2.0
/*
 * Where the pages of a mirrored range shall be, and what to move for an access
 * of the device. How much that is, is told by what lies there already: nothing
 * is kept of earlier accesses but what thrash.c knows of those in vain.
 *
 * A move is an attempt. What stays in system memory is mapped there.
 */
#include <linux/hmm.h>
#include <linux/jiffies.h>
#include <linux/maple_tree.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>

#include "limosa.h"

int limosa_policies_init(struct limosa_policies *policies,
			 struct limosa_mirror *mirror,
			 enum limosa_policy_kind kind)
{
	int err;

	policies->mirror = mirror;
	mt_init_flags(&policies->tree, MT_FLAGS_USE_RCU);
	err = limosa_thrash_init(&policies->thrash, mirror->end - mirror->start);
	if (err)
		return err;
	return limosa_policies_set(policies, mirror->start, mirror->end, kind);
}

void limosa_policies_fini(struct limosa_policies *policies)
{
	limosa_thrash_fini(&policies->thrash);
	mtree_destroy(&policies->tree);
}

int limosa_policies_set(struct limosa_policies *policies, unsigned long start,
			unsigned long end, enum limosa_policy_kind kind)
{
	return mtree_store_range(&policies->tree, start, end - 1,
				 xa_mk_value(kind), GFP_KERNEL_ACCOUNT);
}

bool limosa_policies_at(struct limosa_policies *policies, unsigned long addr,
			unsigned long *start, unsigned long *end)
{
	MA_STATE(mas, &policies->tree, addr, addr);
	void *entry;

	rcu_read_lock();
	entry = mas_walk(&mas);
	*start = max(*start, mas.index);
	*end = min(*end - 1, mas.last) + 1;
	rcu_read_unlock();
	return entry && xa_to_value(entry) == LIMOSA_POLICY_MIGRATE;
}

/**
 * struct limosa_plan - what to move for an access
 * @addr: the page that is accessed
 * @write: whether to write
 * @lo: first byte around @addr of which the same holds: the VMA, the policy, a
 *      2 MiB block
 * @hi: end of it
 * @start: first byte to move
 * @end: end of it
 * @absent: there is no page at @addr, or it is in swap
 * @touch: the page at @addr is first to be touched as by a CPU
 * @hmm_pfns: what was in [@lo, @hi)
 */
struct limosa_plan {
	unsigned long addr;
	bool write;
	unsigned long lo;
	unsigned long hi;
	unsigned long start;
	unsigned long end;
	bool absent;
	bool touch;
	unsigned long hmm_pfns[LIMOSA_HUGE_PAGES];
};

static bool limosa_plan_on_device(struct limosa_policies *policies,
				  struct limosa_plan *plan, unsigned long addr)
{
	unsigned long i = (addr - plan->lo) >> PAGE_SHIFT;
	enum limosa_place place;

	return limosa_snapshot_place(policies->mirror->client, plan->hmm_pfns[i],
				     &place) && place != LIMOSA_PLACE_SYSTEM;
}

/*
 * How much to move: 2 MiB if they are one folio, or nothing yet; else 64 KiB,
 * or as much as already lies on the device right before, which doubles it with
 * every fault of a sweep. What is on the device ends it.
 */
static void limosa_plan_extent(struct limosa_policies *policies,
			       struct limosa_plan *plan, bool huge)
{
	unsigned long addr = plan->addr, nr = (plan->hi - plan->lo) >> PAGE_SHIFT;
	unsigned long here = plan->hmm_pfns[(addr - plan->lo) >> PAGE_SHIFT];
	unsigned long i, before;

	plan->start = plan->lo;
	plan->end = plan->hi;
	if (huge && nr == LIMOSA_HUGE_PAGES) {
		if (hmm_pfn_to_map_order(here) == LIMOSA_HUGE_ORDER)
			return;
		for (i = 0; i < nr && !(plan->hmm_pfns[i] & HMM_PFN_VALID); i++)
			;
		if (i == nr)
			return;
	}
	for (before = addr; before > plan->lo; before -= PAGE_SIZE)
		if (!limosa_plan_on_device(policies, plan, before - PAGE_SIZE))
			break;
	plan->start = addr;
	plan->end = min(plan->hi, max(ALIGN(addr + 1, LIMOSA_AROUND),
				      addr + (addr - before)));
	while (plan->start > max(plan->lo, ALIGN_DOWN(addr, LIMOSA_AROUND)) &&
	       !limosa_plan_on_device(policies, plan, plan->start - PAGE_SIZE))
		plan->start -= PAGE_SIZE;
	for (i = addr + PAGE_SIZE; i < plan->end; i += PAGE_SIZE)
		if (limosa_plan_on_device(policies, plan, i))
			plan->end = i;
}

/* Whether there is anything to move for an access, and what. */
static bool limosa_plan_make(struct limosa_policies *policies,
			     struct limosa_plan *plan,
			     struct vm_area_struct *vma)
{
	struct limosa_client *client = policies->mirror->client;
	bool held = false, there;
	unsigned long here;

	plan->lo = max3(ALIGN_DOWN(plan->addr, PMD_SIZE), vma->vm_start,
			policies->mirror->start);
	plan->hi = min3(ALIGN(plan->addr + 1, PMD_SIZE), vma->vm_end,
			policies->mirror->end);
	if (!limosa_policies_at(policies, plan->addr, &plan->lo, &plan->hi) ||
	    limosa_snapshot(client, client->mm, plan->lo, plan->hi,
			    plan->hmm_pfns))
		return false;
	here = plan->hmm_pfns[(plan->addr - plan->lo) >> PAGE_SHIFT];
	there = limosa_plan_on_device(policies, plan, plan->addr);
	plan->absent = !(here & HMM_PFN_VALID);
	/* Shared since fork(): it is the copy that is to move. */
	plan->touch = plan->write && !plan->absent && !(here & HMM_PFN_WRITE) &&
		      !is_zero_pfn(here & ~HMM_PFN_FLAGS);
	if ((there && !plan->touch) || (plan->absent && userfaultfd_armed(vma)))
		return false;
	limosa_plan_extent(policies, plan, !(vma->vm_flags & VM_NOHUGEPAGE));

	mutex_lock(&policies->mirror->lock);
	if (!plan->absent && !there)
		held = limosa_thrash_holds(&policies->thrash, plan->addr,
					   &plan->start, &plan->end);
	mutex_unlock(&policies->mirror->lock);
	if (held)
		limosa_count(client, LIMOSA_GPU_MOVES_HELD, 1);
	return !held;
}

/* Returns whether anything was moved. */
static bool limosa_plan_carry_out(struct limosa_policies *policies,
				  struct limosa_plan *plan)
{
	struct limosa_client *client = policies->mirror->client;
	unsigned long began = jiffies;
	struct limosa_moved moved = {};
	int err;

	if (plan->touch &&
	    limosa_mirror_touch(policies->mirror, plan->addr, plan->write, true))
		return false;
	err = limosa_move_to_device(client, client->mm, plan->start, plan->end,
				    LIMOSA_PLACE_PRIVATE, &moved);
	/* In swap? Then it must come from there first. */
	if (!err && !moved.moved && plan->absent &&
	    !limosa_mirror_touch(policies->mirror, plan->addr, plan->write,
				 false))
		err = limosa_move_to_device(client, client->mm, plan->start,
					    plan->end, LIMOSA_PLACE_PRIVATE,
					    &moved);
	if (err == -ENOSPC || err == -EDQUOT)
		limosa_count(client, LIMOSA_GPU_MOVES_FULL, 1);
	if (!moved.moved)
		return false;
	limosa_count(client, LIMOSA_GPU_PAGES_MOVED, moved.moved);
	mutex_lock(&policies->mirror->lock);
	limosa_thrash_moved(&policies->thrash, plan->start, moved.next,
			    jiffies - began);
	mutex_unlock(&policies->mirror->lock);
	return true;
}

/* Whether the policy wants a page on the device, and core can bring it there. */
static struct vm_area_struct *limosa_policies_want(struct limosa_policies *policies,
						unsigned long addr)
{
	struct limosa_client *client = policies->mirror->client;
	unsigned long start = addr, end = addr + PAGE_SIZE;
	struct vm_area_struct *vma;

	if (!limosa_policies_at(policies, addr, &start, &end) ||
	    !client->device->vram[LIMOSA_PLACE_PRIVATE].nr_pages)
		return NULL;
	vma = vma_lookup(client->mm, addr);
	return vma && limosa_vma_may_leave(vma) ? vma : NULL;
}

bool limosa_policies_move(struct limosa_policies *policies, unsigned long addr,
			  bool write, bool *moved)
{
	struct vm_area_struct *vma = limosa_policies_want(policies, addr);
	struct limosa_device *device = policies->mirror->client->device;
	struct limosa_plan *plan;
	int idx;

	*moved = false;
	if (!vma || !limosa_device_enter(device, &idx))
		return false;
	plan = kmalloc_obj(*plan);
	if (plan) {
		plan->addr = addr;
		plan->write = write;
		*moved = limosa_plan_make(policies, plan, vma) &&
			 limosa_plan_carry_out(policies, plan);
		kfree(plan);
	}
	limosa_device_exit(device, idx);
	return true;
}
