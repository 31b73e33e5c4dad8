// SPDX-License-Identifier: GPL-2.0
/*
 * Pages that the device has for itself alone (make_device_exclusive): the CPU's
 * next touch takes such a page back, and tells the mirror, which zaps the entry.
 */
#include <linux/rmap.h>

#include "dmirror.h"

/**
 * struct dmirror_watch - tells whether a page stayed while its entry was made
 * @notifier: hears everything but what make_device_exclusive() itself says,
 *            which the mirror's hears, too
 */
struct dmirror_watch {
	struct mmu_interval_notifier notifier;
	struct dmirror *d;
};

static bool dmirror_watch_invalidate(struct mmu_interval_notifier *notifier,
				     const struct mmu_notifier_range *range,
				     unsigned long seq)
{
	struct dmirror_watch *watch =
		container_of(notifier, struct dmirror_watch, notifier);
	struct limosa_mirror *mirror = &watch->d->mirror;

	if (range->event == MMU_NOTIFY_EXCLUSIVE && range->owner == watch)
		return true;
	if (!limosa_mirror_lock_for(mirror, notifier, range, seq))
		return false;
	/* The mirror may have been told before the entry was made. */
	mirror->ops->zap(mirror, max(range->start, mirror->start),
			 min(range->end, mirror->end));
	mutex_unlock(&mirror->lock);
	return true;
}

static const struct mmu_interval_notifier_ops dmirror_watch_ops = {
	.invalidate = dmirror_watch_invalidate,
};

/* -EAGAIN: the page went before it could be entered. */
static int dmirror_exclusive_page(struct dmirror_watch *watch,
				  unsigned long addr)
{
	struct dmirror *d = watch->d;
	struct mm_struct *mm = d->client->mm;
	struct folio *folio;
	struct page *page;
	unsigned long seq;
	int ret;

	seq = mmu_interval_read_begin(&watch->notifier);
	mmap_read_lock(mm);
	page = make_device_exclusive(mm, addr, watch, &folio);
	if (IS_ERR(page)) {
		ret = PTR_ERR(page);
		goto out;
	}
	mutex_lock(&d->mirror.lock);
	if (mmu_interval_read_retry(&watch->notifier, seq))
		ret = -EAGAIN;
	else
		ret = dmirror_store(d, addr, page, DMIRROR_EXCLUSIVE);
	mutex_unlock(&d->mirror.lock);
	folio_unlock(folio);
	folio_put(folio);
out:
	mmap_read_unlock(mm);
	return ret;
}

int dmirror_exclusive(struct dmirror *d, struct hmm_dmirror_cmd *cmd)
{
	unsigned long end = dmirror_end(cmd);
	struct dmirror_watch watch = { .d = d };
	unsigned long addr;
	int ret;

	ret = mmu_interval_notifier_insert(&watch.notifier, d->client->mm,
					   cmd->addr, end - cmd->addr,
					   &dmirror_watch_ops);
	if (ret)
		return ret;
	for (addr = cmd->addr; addr < end && !ret; addr += PAGE_SIZE) {
		/* What got no entry has to go back first: that is an event, too. */
		while ((ret = dmirror_exclusive_page(&watch, addr)) == -EAGAIN) {
			ret = limosa_mirror_touch_unlocked(&d->mirror, addr,
							   true);
			if (ret)
				break;
		}
	}
	mmu_interval_notifier_remove(&watch.notifier);
	return ret ?: dmirror_access(d, cmd, false, false);
}

int dmirror_check_exclusive(struct dmirror *d, struct hmm_dmirror_cmd *cmd)
{
	unsigned long index = cmd->addr >> PAGE_SHIFT;
	unsigned long i;
	void *entry;

	for (i = 0; i < cmd->npages; i++) {
		entry = xa_load(&d->table, index + i);
		if (entry && xa_pointer_tag(entry) == DMIRROR_EXCLUSIVE)
			return -EPERM;
	}
	return 0;
}
