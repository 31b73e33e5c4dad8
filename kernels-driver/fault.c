// SPDX-License-Identifier: GPL-2.0
/*
 * A CPU touched a page of DEVICE_PRIVATE memory: it comes back, and its
 * neighbours with it where the CPU seems to come for them next.
 *
 * A touch right beside what an earlier fault asked for, above or below, makes a
 * streak: each fault of it brings twice as many pages, up to fault_around_max.
 * Any other touch brings one page. Streaks are remembered for each client, the
 * last few of them, so that several threads can have one each.
 *
 * 2 MiB that are mapped as one come back as one, if fault_around_max allows it
 * and there is memory that is one; otherwise they are split first.
 *
 * The page that was touched counts: neighbours that cannot come are left where
 * they are, and no failure loses data.
 */
#include <linux/gfp.h>
#include <linux/migrate.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "limosa.h"

static unsigned long fault_around_max = LIMOSA_HUGE_PAGES;
module_param(fault_around_max, ulong, 0644);
MODULE_PARM_DESC(fault_around_max,
		 "pages that a CPU's fault brings back at most, at the end of a streak (default 512; below that, 2 MiB are split when a CPU touches them)");

/* Neighbours are a guess: they are not worth waiting for. */
#define LIMOSA_GFP_GUESS (GFP_HIGHUSER_MOVABLE | __GFP_NORETRY | __GFP_NOWARN)

/* Pages whose entries are on the stack. */
#define LIMOSA_FEW	8UL

/**
 * struct limosa_window - what a fault asks core for
 * @start: first byte
 * @end: end
 */
struct limosa_window {
	unsigned long start;
	unsigned long end;
};

static unsigned long limosa_around_max(void)
{
	return clamp(READ_ONCE(fault_around_max), 1UL, LIMOSA_HUGE_PAGES);
}

/* The streak that a touch goes on with, and which way. */
static struct limosa_streak *limosa_streak_find(struct limosa_client *client,
						unsigned long addr, bool *down)
{
	struct limosa_streak *s;

	for (s = client->streaks; s < client->streaks + LIMOSA_NR_STREAKS; s++) {
		*down = addr + PAGE_SIZE == s->lo;
		if (*down || addr == s->hi)
			return s;
	}
	return NULL;
}

/* The pages to bring back for a touch of a page that is mapped by a PTE. */
static struct limosa_window limosa_window(struct limosa_client *client,
					  struct vm_area_struct *vma,
					  unsigned long addr)
{
	unsigned long base = ALIGN_DOWN(addr, PMD_SIZE);
	struct limosa_window w = { addr, addr + PAGE_SIZE };
	unsigned long pages = 1, more;
	struct limosa_streak *s;
	bool down;

	spin_lock(&client->streak_lock);
	s = limosa_streak_find(client, addr, &down);
	if (s) {
		pages = min(2 * s->pages, limosa_around_max());
		more = (pages - 1) << PAGE_SHIFT;
		if (down)
			w.start -= min(more, addr - max(base, vma->vm_start));
		else
			w.end = min3(w.end + more, base + PMD_SIZE, vma->vm_end);
	} else {
		s = &client->streaks[client->oldest_streak++ % LIMOSA_NR_STREAKS];
	}
	s->lo = w.start;
	s->hi = w.end;
	s->pages = pages;
	spin_unlock(&client->streak_lock);
	return w;
}

/* -ENOMEM: there is no memory for the page that was touched. */
static int limosa_fill_around(struct migrate_vma *m)
{
	bool scarce = false;
	unsigned long i;

	for (i = 0; i < m->npages; i++) {
		struct page *spage = migrate_pfn_to_page(m->src[i]);
		bool touched = spage == m->fault_page;
		struct folio *folio;

		if (!spage || !(m->src[i] & MIGRATE_PFN_MIGRATE) ||
		    (scarce && !touched))
			continue;
		folio = limosa_copy_back(spage, 0, touched ? GFP_HIGHUSER_MOVABLE :
					 LIMOSA_GFP_GUESS, m->vma,
					 m->start + (i << PAGE_SHIFT));
		if (folio)
			m->dst[i] = migrate_pfn(folio_pfn(folio));
		if (!folio && touched)
			return -ENOMEM;
		scarce |= !folio;
	}
	return 0;
}

/*
 * The 2 MiB of m, mapped as one, or a split of them.
 *
 * The split takes two faults: offered a base page for a folio, core splits the
 * mapping, and then leaves the folio alone, because of the reference that the
 * fault has on it. The CPU comes again, for a PTE, where core splits the folio
 * when it collects it.
 */
static int limosa_fill_huge(struct migrate_vma *m)
{
	struct page *spage = migrate_pfn_to_page(m->src[0]);
	struct folio *folio = NULL;

	if (limosa_around_max() == LIMOSA_HUGE_PAGES)
		folio = limosa_copy_back(spage, LIMOSA_HUGE_ORDER,
					 LIMOSA_GFP_HUGE, m->vma, m->start);
	if (folio) {
		m->dst[0] = migrate_pfn(folio_pfn(folio)) | MIGRATE_PFN_COMPOUND;
		return 0;
	}
	folio = limosa_copy_back(spage, 0, GFP_HIGHUSER_MOVABLE, m->vma, m->start);
	if (!folio)
		return -ENOMEM;
	m->dst[0] = migrate_pfn(folio_pfn(folio));
	return 0;
}

/* @home: whether the page that was touched came back. 0, -ENOMEM, -EINVAL. */
static int limosa_bring_back(struct vm_fault *vmf, struct limosa_window w,
			     bool *home)
{
	unsigned long touched = (vmf->address - w.start) >> PAGE_SHIFT;
	unsigned long nr = (w.end - w.start) >> PAGE_SHIFT;
	unsigned long few[2 * LIMOSA_FEW], *pfns = few;
	struct migrate_vma m = {
		.vma = vmf->vma,
		.start = w.start,
		.end = w.end,
		.pgmap_owner = page_pgmap(vmf->page)->owner,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.fault_page = vmf->page,
	};
	bool huge;
	int err;

	*home = false;
	if (nr > LIMOSA_FEW) {
		pfns = kmalloc_array(2 * nr, sizeof(*pfns), GFP_KERNEL);
		if (!pfns)
			return -ENOMEM;
	}
	m.src = pfns;
	m.dst = pfns + nr;
	if (!vmf->pte)
		m.flags |= MIGRATE_VMA_SELECT_COMPOUND;
	err = migrate_vma_setup(&m);
	if (!err && m.cpages) {
		/* It may be split or gone since the fault was taken. */
		huge = (m.src[0] & MIGRATE_PFN_COMPOUND) &&
		       migrate_pfn_to_page(m.src[0]);
		err = huge ? limosa_fill_huge(&m) : limosa_fill_around(&m);
		migrate_vma_pages(&m);
		*home = m.src[huge ? 0 : touched] & MIGRATE_PFN_MIGRATE;
		limosa_count_back(m.src, m.npages, LIMOSA_CPU_FAULT_PAGES, NULL);
		migrate_vma_finalize(&m);
	}
	if (pfns != few)
		kfree(pfns);
	return err;
}

/*
 * The fault holds a reference on the page, so its client and the memory stay
 * until this returns. Where the page is not home and there is no error, somebody
 * else has it for a moment: the CPU comes again.
 */
vm_fault_t limosa_migrate_to_ram(struct vm_fault *vmf)
{
	struct limosa_client *client = limosa_page_client(vmf->page);
	unsigned long addr = PAGE_ALIGN_DOWN(vmf->address);
	struct limosa_window one = { addr, addr + PAGE_SIZE }, w = one;
	bool home;
	int err;

	if (!vmf->pte) {
		w.start = ALIGN_DOWN(addr, PMD_SIZE);
		w.end = w.start + PMD_SIZE;
	} else if (!folio_test_large(page_folio(vmf->page))) {
		w = limosa_window(client, vmf->vma, addr);
	}
	/*
	 * Part of a larger folio comes alone: core splits that folio for it, and
	 * would wait for the locks of others in the window while it holds ours.
	 */
	err = limosa_bring_back(vmf, w, &home);
	if (!home && vmf->pte && w.end - w.start > PAGE_SIZE)
		err = limosa_bring_back(vmf, one, &home);
	if (home) {
		limosa_count(client, LIMOSA_CPU_FAULTS, 1);
		return 0;
	}
	return err == -ENOMEM ? VM_FAULT_OOM : err ? VM_FAULT_SIGBUS : 0;
}
