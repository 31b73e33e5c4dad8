// SPDX-License-Identifier: GPL-2.0
/*
 * Moving pages: to the device, back to the system, and all of them at unbind.
 *
 * A move goes in steps of at most 2 MiB within one VMA: core collects, locks
 * and unmaps the pages (migrate_vma_setup), we give each a place and copy it,
 * core puts the new page in the old one's place or, where it cannot, maps the
 * old one again (migrate_vma_pages, migrate_vma_finalize). No data is in one
 * place alone before it is in the other.
 *
 * Nobody sees what was in a page before: it is copied to or zeroed as a whole
 * before core is told of it, and what core is not told of is never mapped.
 *
 * 2 MiB are either moved as one to memory that is one, or core is asked anew
 * and without MIGRATE_VMA_SELECT_COMPOUND, so that it splits the folio itself
 * while it collects. Never hand base pages to core for a folio that it has
 * collected whole: it would split that folio under the PMD migration entries
 * of other processes that share it since fork(), which then map 2 MiB of
 * somebody's memory (kernel 7.3, migrate_vma_split_unmapped_folio).
 */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/hugetlb.h>
#include <linux/memcontrol.h>
#include <linux/migrate.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>

#include "limosa.h"

/**
 * struct limosa_step - one step of a move
 * @m: what core is asked for
 * @client: who asks
 * @vram: to or from where
 * @huge: whether 2 MiB may move as one
 * @moved: result
 * @pfns: for @m.src and @m.dst
 */
struct limosa_step {
	struct migrate_vma m;
	struct limosa_client *client;
	struct limosa_vram *vram;
	bool huge;
	struct limosa_moved *moved;
	unsigned long pfns[2 * LIMOSA_HUGE_PAGES];
};

static struct limosa_step *limosa_step_create(struct limosa_client *client,
					      struct limosa_moved *moved)
{
	struct limosa_step *step = kzalloc_obj(*step);

	if (!step)
		return NULL;
	step->client = client;
	step->huge = client->max_order >= LIMOSA_HUGE_ORDER;
	step->moved = moved;
	step->m.src = step->pfns;
	step->m.dst = step->pfns + LIMOSA_HUGE_PAGES;
	return step;
}

/* Whether core can move anything of the VMA. */
static bool limosa_vma_can_move(struct vm_area_struct *vma)
{
	return !is_vm_hugetlb_page(vma) && !vma_is_dax(vma) &&
	       !(vma->vm_flags & (VM_SPECIAL | VM_SHARED));
}

/* Whether the step can go as one folio. Core has none of DEVICE_COHERENT. */
static bool limosa_can_huge(struct limosa_step *step)
{
	return step->huge && step->m.end - step->m.start == PMD_SIZE &&
	       step->vram->pgmap.type == MEMORY_DEVICE_PRIVATE;
}

/**
 * struct limosa_way - what differs between the ways of a move
 * @fill: gives a place to what was collected. On failure the second parameter is
 *	the first page that got none; -EAGAIN: 2 MiB did not fit as one, but
 *	pages of them would
 * @count: counts what core has moved, before it is finalized
 */
struct limosa_way {
	int (*fill)(struct limosa_step *step, unsigned long *full);
	void (*count)(struct limosa_step *step);
};

/* Asks core for the step's range once. As limosa_way.fill. */
static int limosa_ask_once(struct limosa_step *step, const struct limosa_way *way,
			   unsigned long *full)
{
	struct migrate_vma *m = &step->m;
	int err;

	err = migrate_vma_setup(m);
	if (err || !m->cpages)
		return err;
	err = way->fill(step, full);
	/* Out of the write-combining buffers before anybody is told. */
	wmb();
	migrate_vma_pages(m);
	way->count(step);
	migrate_vma_finalize(m);
	return err;
}

/* The same for pages that @select tells, as one folio first if @huge. */
static int limosa_ask(struct limosa_step *step, const struct limosa_way *way,
		      enum migrate_vma_direction select, bool huge,
		      unsigned long *full)
{
	int err = -EAGAIN;

	if (huge) {
		step->m.flags = select | MIGRATE_VMA_SELECT_COMPOUND;
		err = limosa_ask_once(step, way, full);
	}
	if (err == -EAGAIN) {
		step->m.flags = select;
		err = limosa_ask_once(step, way, full);
	}
	return err;
}

/* ------------------------------------------------------ to the device */

/* Overwrites all of a device folio: with the system folio, or with zeroes. */
static void limosa_copy_out(struct limosa_vram *vram, struct page *dpage,
			    struct page *spage, unsigned int order)
{
	void *to = limosa_page_bytes(vram, dpage);
	unsigned long i;

	if (!spage) {
		memset(to, 0, PAGE_SIZE << order);
		return;
	}
	for (i = 0; i < 1UL << order; i++)
		memcpy_from_page(to + i * PAGE_SIZE, spage + i, 0, PAGE_SIZE);
}

/*
 * Whether a page that core has collected shall move. NULL is a hole, or the
 * zero page: where a userfaultfd watches, neither is ours to fill (core would
 * lose the write protection of a zero page).
 *
 * KSM's pages are not here (limosa_vma_may_leave()), but for what it merged before it
 * was told to stop.
 */
static bool limosa_page_may_leave(struct vm_area_struct *vma, struct page *spage)
{
	struct folio *folio;

	if (!spage)
		return !userfaultfd_armed(vma);
	folio = page_folio(spage);
	return folio_test_anon(folio) && !folio_test_ksm(folio) &&
	       !folio_is_zone_device(folio);
}

static int limosa_fill_device(struct limosa_step *step, unsigned long *full)
{
	struct limosa_client *client = step->client;
	struct migrate_vma *m = &step->m;
	unsigned long i;
	int err;

	for (i = 0; i < m->npages; i++) {
		struct page *dpage, *spage = migrate_pfn_to_page(m->src[i]);
		bool huge = m->src[i] & MIGRATE_PFN_COMPOUND;
		unsigned int order = huge ? LIMOSA_HUGE_ORDER : 0;

		if (!(m->src[i] & MIGRATE_PFN_MIGRATE) ||
		    !limosa_page_may_leave(m->vma, spage))
			continue;
		dpage = limosa_vram_alloc(step->vram, client, order, &err);
		if (!dpage) {
			*full = i;
			if (huge && READ_ONCE(step->vram->nr_free) &&
			    atomic_long_read(&client->used) <
			    atomic_long_read(&client->limit))
				return -EAGAIN;
			return err;
		}
		limosa_copy_out(step->vram, dpage, spage, order);
		m->dst[i] = migrate_pfn(page_to_pfn(dpage));
		if (huge)
			m->dst[i] |= MIGRATE_PFN_COMPOUND;
	}
	return 0;
}

static void limosa_count_out(struct limosa_step *step)
{
	const unsigned long *src = step->m.src;
	unsigned long i, pages = 0, huge = 0;

	for (i = 0; i < step->m.npages; i++) {
		if (!(src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		if (step->m.dst[i] & MIGRATE_PFN_COMPOUND) {
			pages += LIMOSA_HUGE_PAGES;
			huge++;
		} else {
			pages++;
		}
	}
	step->moved->moved += pages;
	step->moved->moved_huge += huge;
	limosa_count(step->client, LIMOSA_PAGES_TO_DEVICE, pages);
	limosa_count(step->client, LIMOSA_HUGE_TO_DEVICE, huge);
}

static const struct limosa_way limosa_to_device = {
	.fill	= limosa_fill_device,
	.count	= limosa_count_out,
};

/*
 * Whether pages of the VMA may go to the device.
 *
 * Where KSM merges, core must not even collect: it puts a migration entry in the
 * place of a page that KSM has mapped and not yet entered in its reverse map, by
 * which the entry is found again when the page is put back. So it would stay
 * for good, and who comes to it spin (kernel 7.3, migrate_vma_collect_pmd and
 * cmp_and_merge_page).
 */
bool limosa_vma_may_leave(struct vm_area_struct *vma)
{
	return limosa_vma_can_move(vma) && !(vma->vm_flags & VM_MERGEABLE);
}

static int limosa_step_to_device(struct limosa_step *step)
{
	struct vm_area_struct *vma = step->m.vma;
	unsigned long full = 0;
	bool huge;
	int err;

	if (!limosa_vma_may_leave(vma))
		return 0;
	step->m.pgmap_owner = step->vram->pgmap.owner;
	huge = limosa_can_huge(step) && !(vma->vm_flags & VM_NOHUGEPAGE);
	err = limosa_ask(step, &limosa_to_device, MIGRATE_VMA_SELECT_SYSTEM, huge,
			 &full);
	if (err)
		step->moved->next = step->m.start + (full << PAGE_SHIFT);
	return err;
}

/* -------------------------------------------------------- to the system */

struct folio *limosa_copy_back(struct page *spage, unsigned int order, gfp_t gfp,
			       struct vm_area_struct *vma, unsigned long addr)
{
	struct limosa_vram *vram = limosa_page_vram(spage);
	void *from = limosa_page_bytes(vram, spage);
	struct folio *folio;
	unsigned long i;

	if (limosa_should_fail())
		return NULL;
	if (vma)
		folio = vma_alloc_folio(gfp, order, vma, addr);
	else
		folio = folio_alloc(gfp, order);
	if (!folio)
		return NULL;
	folio_lock(folio);
	for (i = 0; i < 1UL << order; i++)
		memcpy_to_page(folio_page(folio, i), 0, from + i * PAGE_SIZE,
			       PAGE_SIZE);
	return folio;
}

static void limosa_count_payer(struct limosa_client *client,
			       enum limosa_counter also,
			       const struct limosa_moved *sum)
{
	limosa_count(client, LIMOSA_PAGES_TO_SYSTEM, sum->moved);
	limosa_count(client, LIMOSA_HUGE_TO_SYSTEM, sum->moved_huge);
	if (also != LIMOSA_PAGES_TO_SYSTEM)
		limosa_count(client, also, sum->moved);
}

void limosa_count_back(const unsigned long *src, unsigned long npages,
		       enum limosa_counter also, struct limosa_moved *moved)
{
	struct limosa_client *payer, *client = NULL;
	struct limosa_moved sum = {};
	unsigned long i;

	/* Neighbours mostly pay to the same client: count them at once. */
	for (i = 0; i < npages; i++) {
		struct page *page = migrate_pfn_to_page(src[i]);
		struct folio *folio;

		if (!page || !(src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		folio = page_folio(page);
		payer = limosa_page_client(page);
		if (client && payer != client) {
			limosa_count_payer(client, also, &sum);
			sum = (struct limosa_moved){};
		}
		client = payer;
		sum.moved += folio_nr_pages(folio);
		sum.moved_huge += folio_test_large(folio);
		if (moved) {
			moved->moved += folio_nr_pages(folio);
			moved->moved_huge += folio_test_large(folio);
		}
	}
	if (client)
		limosa_count_payer(client, also, &sum);
}

static int limosa_fill_system(struct limosa_step *step, unsigned long *full)
{
	struct migrate_vma *m = &step->m;
	unsigned long i;

	for (i = 0; i < m->npages; i++) {
		struct page *spage = migrate_pfn_to_page(m->src[i]);
		bool huge = m->src[i] & MIGRATE_PFN_COMPOUND;
		struct folio *folio;

		if (!spage || !(m->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		folio = limosa_copy_back(spage, huge ? LIMOSA_HUGE_ORDER : 0,
					 huge ? LIMOSA_GFP_HUGE : LIMOSA_GFP_BASE,
					 m->vma, m->start + (i << PAGE_SHIFT));
		if (!folio) {
			*full = i;
			return huge ? -EAGAIN : -ENOMEM;
		}
		m->dst[i] = migrate_pfn(folio_pfn(folio));
		if (huge)
			m->dst[i] |= MIGRATE_PFN_COMPOUND;
	}
	return 0;
}

static void limosa_count_in(struct limosa_step *step)
{
	limosa_count_back(step->m.src, step->m.npages, LIMOSA_PAGES_TO_SYSTEM,
			  step->moved);
}

static enum migrate_vma_direction limosa_select_device(struct limosa_vram *vram)
{
	return vram->pgmap.type == MEMORY_DEVICE_PRIVATE ?
	       MIGRATE_VMA_SELECT_DEVICE_PRIVATE :
	       MIGRATE_VMA_SELECT_DEVICE_COHERENT;
}

static const struct limosa_way limosa_to_system = {
	.fill	= limosa_fill_system,
	.count	= limosa_count_in,
};

/* Core selects the pages of one owner at a time: a pass for each kind. */
static int limosa_step_to_system(struct limosa_step *step)
{
	unsigned long end = step->m.end, full;
	int place, err, ret = 0;

	for (place = LIMOSA_PLACE_PRIVATE; place <= LIMOSA_PLACE_COHERENT; place++) {
		step->vram = &step->client->device->vram[place];
		if (!step->vram->nr_pages)
			continue;
		step->m.end = end;
		step->m.pgmap_owner = step->vram->pgmap.owner;
		full = 0;
		err = limosa_ask(step, &limosa_to_system,
				 limosa_select_device(step->vram),
				 limosa_can_huge(step), &full);
		if (err) {
			ret = err;
			end = step->m.start + (full << PAGE_SHIFT);
			if (end == step->m.start)
				break;
		}
	}
	step->moved->next = end;
	return ret;
}

/* ------------------------------------------------------------ a range */

static int limosa_move(struct limosa_step *step, struct mm_struct *mm,
		       unsigned long start, unsigned long end,
		       int (*do_step)(struct limosa_step *step))
{
	unsigned long addr = start;
	int err = 0;

	mmap_assert_locked(mm);
	while (addr < end && !err) {
		struct vm_area_struct *vma = vma_lookup(mm, addr);

		step->moved->next = addr;
		if (!vma)
			return -EFAULT;
		step->m.vma = vma;
		step->m.start = addr;
		step->m.end = min3(end, vma->vm_end, ALIGN(addr + 1, PMD_SIZE));
		step->moved->next = step->m.end;
		if (limosa_vma_can_move(vma))
			err = do_step(step);
		addr = step->moved->next;
	}
	return err;
}

int limosa_move_to_device(struct limosa_client *client, struct mm_struct *mm,
			  unsigned long start, unsigned long end,
			  enum limosa_place place, struct limosa_moved *moved)
{
	struct limosa_step *step;
	int err;

	moved->next = start;
	step = limosa_step_create(client, moved);
	if (!step)
		return -ENOMEM;
	step->vram = &client->device->vram[place];
	err = limosa_move(step, mm, start, end, limosa_step_to_device);
	kfree(step);
	return err;
}
EXPORT_SYMBOL_FOR_MODULES(limosa_move_to_device, "limosa-dmirror");

static int limosa_move_back(struct limosa_client *client, struct mm_struct *mm,
			    unsigned long start, unsigned long end, bool huge,
			    struct limosa_moved *moved)
{
	struct limosa_step *step;
	int err;

	moved->next = start;
	step = limosa_step_create(client, moved);
	if (!step)
		return -ENOMEM;
	step->huge &= huge;
	err = limosa_move(step, mm, start, end, limosa_step_to_system);
	kfree(step);
	return err;
}

int limosa_move_to_system(struct limosa_client *client, struct mm_struct *mm,
			  unsigned long start, unsigned long end,
			  struct limosa_moved *moved)
{
	return limosa_move_back(client, mm, start, end, true, moved);
}
EXPORT_SYMBOL_FOR_MODULES(limosa_move_to_system, "limosa-dmirror");

/* ----------------------------------------------------------- at unbind */

/*
 * There is no memory for 2 MiB as one, and core splits only what it collects
 * in an address space: bring back all that the payer's has, page by page. Where
 * that is locked, its owner may be waiting for anything: not our turn.
 */
static void limosa_evict_split(struct limosa_client *client)
{
	struct mm_struct *mm = client->mm;
	struct limosa_moved moved = {};
	struct vm_area_struct *vma;
	VMA_ITERATOR(vmi, mm, 0);

	if (!mmget_not_zero(mm))
		return;
	if (mmap_read_trylock(mm)) {
		for_each_vma(vmi, vma)
			if (vma->anon_vma)
				limosa_move_back(client, mm, vma->vm_start,
						 vma->vm_end, false, &moved);
		mmap_read_unlock(mm);
	}
	limosa_count(client, LIMOSA_PAGES_EVICTED, moved.moved);
	mmput(mm);
}

/*
 * Whether nobody has the page any more, but for who is about to let go of it: a
 * CPU's fault, say, has brought back what it held, and unlocked it just now. Its
 * charge is gone with that. To bring it back once more would put a folio that is
 * not charged into the LRU, where core seeks its owner for ever (kernel 7.3,
 * folio_lruvec_lock_irqsave).
 */
static bool limosa_page_is_left(struct page *spage)
{
	return !mem_cgroup_disabled() && !folio_memcg_charged(page_folio(spage));
}

/* Brings back what of a run can be brought back now. */
static void limosa_evict_run(struct limosa_vram *vram, unsigned long run,
			     unsigned long *src, unsigned long *dst)
{
	struct limosa_client *client = NULL;
	unsigned int i, nr;

	nr = limosa_vram_used(vram, run, src);
	if (!nr)
		return;
	for (i = 0; i < nr; i++)
		src[i] += vram->first_pfn;
	memset(dst, 0, nr * sizeof(*dst));
	migrate_device_pfns(src, nr);
	for (i = 0; i < nr; i++) {
		struct page *spage = migrate_pfn_to_page(src[i]);
		bool huge = src[i] & MIGRATE_PFN_COMPOUND;
		struct folio *folio;

		if (!spage || !(src[i] & MIGRATE_PFN_MIGRATE) ||
		    limosa_page_is_left(spage))
			continue;
		folio = limosa_copy_back(spage, huge ? LIMOSA_HUGE_ORDER : 0,
					 huge ? LIMOSA_GFP_HUGE : LIMOSA_GFP_BASE,
					 NULL, 0);
		if (!folio && huge) {
			client = limosa_page_client(spage);
			limosa_client_get(client);
		}
		if (!folio)
			continue;
		dst[i] = migrate_pfn(folio_pfn(folio));
		if (huge)
			dst[i] |= MIGRATE_PFN_COMPOUND;
	}
	migrate_device_pages(src, dst, nr);
	limosa_count_back(src, nr, LIMOSA_PAGES_EVICTED, NULL);
	migrate_device_finalize(src, dst, nr);
	if (client) {
		limosa_evict_split(client);
		limosa_client_put(client);
	}
}

/*
 * A page may be locked or referenced for a moment, and system memory may be
 * short: go round until all came back. There is no other end: a page cannot be
 * taken from its process.
 */
void limosa_evict_all(struct limosa_vram *vram)
{
	unsigned long run, *pfns;

	if (!vram->nr_pages)
		return;
	pfns = kvcalloc(2 * LIMOSA_HUGE_PAGES, sizeof(*pfns),
			GFP_KERNEL | __GFP_NOFAIL);
	for (;;) {
		for (run = 0; run < vram->nr_pages / LIMOSA_HUGE_PAGES; run++) {
			limosa_evict_run(vram, run, pfns,
					 pfns + LIMOSA_HUGE_PAGES);
			cond_resched();
		}
		if (READ_ONCE(vram->nr_free) == vram->nr_pages)
			break;
		msleep(20);
	}
	kvfree(pfns);
}
EXPORT_SYMBOL_FOR_MODULES(limosa_evict_all, "limosa-dmirror");
