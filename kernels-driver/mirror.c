// SPDX-License-Identifier: GPL-2.0
/*
 * A device's page table, kept equal to a range of a process's own.
 *
 * What the device maps is read from the CPU's page table with nothing of ours
 * held, and counts only if nothing changed until mirror->lock was taken: then
 * the entries are written, still under the lock. Who changes the CPU's page
 * table calls limosa_mirror_invalidate() first, which takes the same lock: so
 * the device's entries are gone before the change, and none that was read
 * before it is written after it. No page is referenced or pinned for that.
 *
 * This file knows nothing of the device: what writes and removes its entries is
 * struct limosa_mirror_ops.
 *
 * Under mirror->lock nothing may allocate in a way that reclaims memory, as
 * reclaim invalidates; nor take mmap_lock, nor mmu_interval_read_begin(), as
 * that waits for an invalidation that may wait for the lock.
 *
 * No invalidation is skipped, not even of our own moves: the device may map
 * the system page that is moved to it, and must let go of the page that a
 * CPU's fault takes from it.
 */
#include <linux/hmm.h>
#include <linux/jiffies.h>
#include <linux/sched/signal.h>
#include <linux/userfaultfd_k.h>

#include "limosa.h"

bool limosa_mirror_lock_for(struct limosa_mirror *mirror,
			    struct mmu_interval_notifier *notifier,
			    const struct mmu_notifier_range *range,
			    unsigned long seq)
{
	/* The OOM reaper cannot wait: who holds the lock may wait for memory. */
	if (mmu_notifier_range_blockable(range))
		mutex_lock(&mirror->lock);
	else if (!mutex_trylock(&mirror->lock))
		return false;
	mmu_interval_set_seq(notifier, seq);
	return true;
}
EXPORT_SYMBOL_FOR_MODULES(limosa_mirror_lock_for, "limosa-dmirror");

static bool limosa_mirror_invalidate(struct mmu_interval_notifier *notifier,
				     const struct mmu_notifier_range *range,
				     unsigned long seq)
{
	struct limosa_mirror *mirror =
		container_of(notifier, struct limosa_mirror, notifier);

	if (!limosa_mirror_lock_for(mirror, notifier, range, seq))
		return false;
	mirror->ops->zap(mirror, max(range->start, mirror->start),
			 min(range->end, mirror->end));
	mutex_unlock(&mirror->lock);
	limosa_count(mirror->client, LIMOSA_INVALIDATIONS, 1);
	return true;
}

static const struct mmu_interval_notifier_ops limosa_mirror_notifier_ops = {
	.invalidate = limosa_mirror_invalidate,
};

int limosa_mirror_insert(struct limosa_mirror *mirror,
			 struct limosa_client *client, unsigned long start,
			 unsigned long end, const struct limosa_mirror_ops *ops)
{
	mutex_init(&mirror->lock);
	mirror->ops = ops;
	mirror->client = client;
	mirror->start = start;
	mirror->end = end;
	return mmu_interval_notifier_insert(&mirror->notifier, client->mm,
					    start, end - start,
					    &limosa_mirror_notifier_ops);
}
EXPORT_SYMBOL_FOR_MODULES(limosa_mirror_insert, "limosa-dmirror");

void limosa_mirror_remove(struct limosa_mirror *mirror)
{
	mmu_interval_notifier_remove(&mirror->notifier);
}
EXPORT_SYMBOL_FOR_MODULES(limosa_mirror_remove, "limosa-dmirror");

struct page *limosa_hmm_page(unsigned long hmm_pfn, unsigned long addr)
{
	struct page *page = hmm_pfn_to_page(hmm_pfn);
	unsigned long pfn;

	/*
	 * Up to kernel 7.3 what is read from the middle of 2 MiB of device
	 * memory on is told as if it were read from the start on
	 * (hmm_vma_handle_absent_pmd).
	 */
	if (hmm_pfn_to_map_order(hmm_pfn) != LIMOSA_HUGE_ORDER ||
	    !is_device_private_page(page))
		return page;
	pfn = ALIGN_DOWN(page_to_pfn(page), LIMOSA_HUGE_PAGES);
	return pfn_to_page(pfn + ((addr & ~PMD_MASK) >> PAGE_SHIFT));
}
EXPORT_SYMBOL_FOR_MODULES(limosa_hmm_page, "limosa-dmirror");

static bool limosa_granted(unsigned long hmm_pfn, bool write)
{
	return (hmm_pfn & HMM_PFN_VALID) &&
	       (!write || (hmm_pfn & HMM_PFN_WRITE));
}

/* What hmm leaves where it is. */
static void *limosa_mirror_owner(struct limosa_mirror *mirror)
{
	return &mirror->client->device->vram[LIMOSA_PLACE_PRIVATE];
}

/* Asks for one page, and for private ones of whatever device to come back. */
static struct hmm_range limosa_mirror_page(struct limosa_mirror *mirror,
					   unsigned long addr, bool write,
					   unsigned long *pfn)
{
	return (struct hmm_range){
		.notifier = &mirror->notifier,
		.start = addr,
		.end = addr + PAGE_SIZE,
		.hmm_pfns = pfn,
		.default_flags = HMM_PFN_REQ_FAULT |
				 (write ? HMM_PFN_REQ_WRITE : 0),
	};
}

int limosa_mirror_touch(struct limosa_mirror *mirror, unsigned long addr,
			bool write, bool back)
{
	struct mm_struct *mm = mirror->notifier.mm;
	struct vm_area_struct *vma = vma_lookup(mm, addr);
	unsigned long pfn = 0;
	struct hmm_range range = limosa_mirror_page(mirror, addr, write, &pfn);

	if (!back)
		range.dev_private_owner = limosa_mirror_owner(mirror);
	/*
	 * A userfaultfd, or the file system, may take as long as it likes, and
	 * hmm would wait for it with mmap_lock held and deaf to signals.
	 */
	if (vma && (userfaultfd_armed(vma) || !vma_is_anonymous(vma)))
		return -EAGAIN;
	range.notifier_seq = mmu_interval_read_begin(range.notifier);
	return hmm_range_fault(&range);
}

int limosa_mirror_touch_unlocked(struct limosa_mirror *mirror,
				 unsigned long addr, bool write)
{
	unsigned long pfn = 0;
	struct hmm_range range = limosa_mirror_page(mirror, addr, write, &pfn);

	return hmm_range_fault_unlocked_timeout(&range,
			msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT));
}
EXPORT_SYMBOL_FOR_MODULES(limosa_mirror_touch_unlocked, "limosa-dmirror");

/*
 * One try: reads what is there now, and maps it if the page at @addr is as
 * wanted; else has it made. Returns 1 if it was, and is to be read anew; -EBUSY
 * if something changed meanwhile.
 */
static int limosa_mirror_try(struct limosa_mirror *mirror, unsigned long addr,
			     unsigned long start, unsigned long nr, bool write,
			     void *arg)
{
	unsigned long pfns[LIMOSA_FAULT_PAGES] = {};
	struct hmm_range range = {
		.notifier = &mirror->notifier,
		.start = start,
		.end = start + (nr << PAGE_SHIFT),
		.hmm_pfns = pfns,
		.dev_private_owner = limosa_mirror_owner(mirror),
	};
	unsigned long here;
	int err;

	range.notifier_seq = mmu_interval_read_begin(range.notifier);
	/* Neighbours are not asked for: hmm would fault them in, too. */
	err = hmm_range_fault(&range);
	if (err)
		return err;
	here = pfns[(addr - start) >> PAGE_SHIFT];
	/*
	 * hmm is content with the device's own pages also where a write is asked
	 * for and they are shared since fork(): what is there and not permitted
	 * comes back, to be copied. What is not there may be on its way to the
	 * device, and good when it has arrived.
	 */
	if (!limosa_granted(here, write))
		return limosa_mirror_touch(mirror, addr, write,
					   here & HMM_PFN_VALID) ?: 1;

	mutex_lock(&mirror->lock);
	if (mmu_interval_read_retry(range.notifier, range.notifier_seq))
		err = -EBUSY;
	else
		err = mirror->ops->map(mirror, start, nr, pfns, arg);
	mutex_unlock(&mirror->lock);
	return err;
}

int limosa_mirror_fault(struct limosa_mirror *mirror, unsigned long addr,
			unsigned long start, unsigned long nr, bool write,
			void *arg)
{
	unsigned long end = jiffies + msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	int err;

	if (WARN_ON_ONCE(!nr || nr > LIMOSA_FAULT_PAGES))
		return -EINVAL;
	for (;;) {
		err = limosa_mirror_try(mirror, addr, start, nr, write, arg);
		if (err <= 0 && err != -EBUSY)
			return err;
		if (err == -EBUSY)
			limosa_count(mirror->client, LIMOSA_GPU_RETRIES, 1);
		if (fatal_signal_pending(current))
			return -EINTR;
		if (time_after(jiffies, end))
			return -EBUSY;
		cond_resched();
	}
}
EXPORT_SYMBOL_FOR_MODULES(limosa_mirror_fault, "limosa-dmirror");
