// SPDX-License-Identifier: GPL-2.0
/*
 * The device behind /dev/hmm_dmirrorN: a page table that is an xarray, and
 * accesses that are copies, page by page, under the lock that protects it. So
 * nothing uses an entry that a zap has removed.
 */
#include <linux/highmem.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "dmirror.h"

/* ------------------------------------------------------ the page table */

int dmirror_store(struct dmirror *d, unsigned long addr, struct page *page,
		  enum dmirror_right right)
{
	void *entry = xa_tag_pointer(page, right);

	lockdep_assert_held(&d->mirror.lock);
	return xa_err(xa_store(&d->table, addr >> PAGE_SHIFT, entry,
			       GFP_ATOMIC));
}

static int dmirror_map(struct limosa_mirror *mirror, unsigned long addr,
		       unsigned long nr, const unsigned long *hmm_pfns,
		       void *arg)
{
	struct dmirror *d = container_of(mirror, struct dmirror, mirror);
	unsigned long i;
	int ret = 0;

	for (i = 0; i < nr && !ret; i++, addr += PAGE_SIZE) {
		if (!(hmm_pfns[i] & HMM_PFN_VALID))
			continue;
		ret = dmirror_store(d, addr,
				    limosa_hmm_page(hmm_pfns[i], addr),
				    hmm_pfns[i] & HMM_PFN_WRITE ?
				    DMIRROR_WRITE : DMIRROR_READ);
	}
	return ret;
}

static void dmirror_zap(struct limosa_mirror *mirror, unsigned long start,
			unsigned long end)
{
	struct dmirror *d = container_of(mirror, struct dmirror, mirror);
	unsigned long index;
	void *entry;

	/* Copies are made under the lock: the device is done with the pages. */
	xa_for_each_range(&d->table, index, entry, start >> PAGE_SHIFT,
			  (end - 1) >> PAGE_SHIFT)
		xa_erase(&d->table, index);
}

const struct limosa_mirror_ops dmirror_mirror_ops = {
	.map = dmirror_map,
	.zap = dmirror_zap,
};

/* ---------------------------------------------------------- its faults */

static bool dmirror_may(struct dmirror *d, unsigned long addr, bool write)
{
	void *entry = xa_load(&d->table, addr >> PAGE_SHIFT);

	return entry && (!write || xa_pointer_tag(entry) == DMIRROR_WRITE);
}

static int dmirror_fault_page(struct dmirror *d, unsigned long addr,
			      unsigned long nr, bool write)
{
	struct mm_struct *mm = d->client->mm;
	int ret;

	do {
		if (fatal_signal_pending(current))
			return -EINTR;
		mmap_read_lock(mm);
		ret = limosa_mirror_fault(&d->mirror, addr, addr, nr, write,
					  NULL);
		mmap_read_unlock(mm);
		/* A userfaultfd's page: user space may take its time. */
		if (ret == -EAGAIN)
			ret = limosa_mirror_touch_unlocked(&d->mirror, addr,
							   write) ?: -EBUSY;
	} while (ret == -EBUSY);
	return ret;
}

/* Resolves a fault at @addr for all that the device is about to touch. */
static int dmirror_fault(struct dmirror *d, unsigned long addr,
			 unsigned long end, bool write)
{
	unsigned long nr;
	int ret = 0;

	for (; addr < end && !ret; addr += PAGE_SIZE) {
		nr = min(DMIRROR_BATCH, (end - addr) >> PAGE_SHIFT);
		if (!dmirror_may(d, addr, write))
			ret = dmirror_fault_page(d, addr, nr, write);
	}
	return ret;
}

int dmirror_look(struct dmirror *d, struct hmm_range *range)
{
	int ret;

	for (;;) {
		ret = hmm_range_fault_unlocked_timeout(range, 0);
		if (ret)
			return ret;
		mutex_lock(&d->mirror.lock);
		if (!mmu_interval_read_retry(range->notifier,
					     range->notifier_seq))
			return 0;
		mutex_unlock(&d->mirror.lock);
	}
}

int dmirror_fill(struct dmirror *d, unsigned long addr, unsigned long end)
{
	unsigned long pfns[DMIRROR_BATCH] = {};
	struct hmm_range range = {
		.notifier = &d->mirror.notifier,
		.hmm_pfns = pfns,
		.dev_private_owner = d->vram,
	};
	unsigned long i, nr;
	int ret = 0;

	for (; addr < end && !ret; addr = range.end) {
		nr = min(DMIRROR_BATCH, (end - addr) >> PAGE_SHIFT);
		range.start = addr;
		range.end = addr + (nr << PAGE_SHIFT);
		ret = dmirror_look(d, &range);
		if (ret)
			break;
		for (i = 0; i < nr; i++) {
			if ((pfns[i] & HMM_PFN_VALID) &&
			    limosa_page_vram(hmm_pfn_to_page(pfns[i])) != d->vram)
				pfns[i] = 0;
		}
		ret = dmirror_map(&d->mirror, addr, nr, pfns, NULL);
		mutex_unlock(&d->mirror.lock);
	}
	return ret;
}

/* -------------------------------------------------------- its accesses */

/* Copies a page of the process's memory to or from @bytes; -ENOENT: fault. */
static int dmirror_copy_page(struct dmirror *d, unsigned long addr,
			     void *bytes, bool write)
{
	struct limosa_vram *vram;
	struct page *page;
	int ret = -ENOENT;
	void *mem;

	mutex_lock(&d->mirror.lock);
	if (dmirror_may(d, addr, write)) {
		page = xa_untag_pointer(xa_load(&d->table, addr >> PAGE_SHIFT));
		vram = limosa_page_vram(page);
		mem = vram ? limosa_page_bytes(vram, page) :
			     kmap_local_page(page);
		if (write)
			copy_page(mem, bytes);
		else
			copy_page(bytes, mem);
		if (!vram)
			kunmap_local(mem);
		/* The CPU's own entry, by which core would know, may be clean. */
		if (!vram && write)
			folio_mark_dirty(page_folio(page));
		ret = 0;
	}
	mutex_unlock(&d->mirror.lock);
	return ret;
}

static int dmirror_access_page(struct dmirror *d, struct hmm_dmirror_cmd *cmd,
			       unsigned long addr, void *bytes, bool write,
			       bool fault)
{
	void __user *user = u64_to_user_ptr(cmd->ptr) + (addr - cmd->addr);
	int ret;

	if (write && copy_from_user(bytes, user, PAGE_SIZE))
		return -EFAULT;
	for (;;) {
		ret = dmirror_copy_page(d, addr, bytes, write);
		if (ret != -ENOENT || !fault)
			break;
		ret = dmirror_fault(d, addr, dmirror_end(cmd), write);
		if (ret)
			return ret;
		cmd->faults++;
	}
	if (!ret && !write && copy_to_user(user, bytes, PAGE_SIZE))
		return -EFAULT;
	return ret;
}

int dmirror_access(struct dmirror *d, struct hmm_dmirror_cmd *cmd, bool write,
		   bool fault)
{
	unsigned long addr = cmd->addr + (cmd->cpages << PAGE_SHIFT);
	void *bytes;
	int ret = 0;

	bytes = (void *)__get_free_page(GFP_KERNEL);
	if (!bytes)
		return -ENOMEM;
	for (; cmd->cpages < cmd->npages; cmd->cpages++) {
		ret = dmirror_access_page(d, cmd, addr, bytes, write, fault);
		if (ret)
			break;
		addr += PAGE_SIZE;
	}
	free_page((unsigned long)bytes);
	return ret;
}
