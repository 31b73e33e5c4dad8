// SPDX-License-Identifier: GPL-2.0
/*
 * One range of a device's memory: its struct pages, an allocator of single
 * pages and of whole runs of 2 MiB, and who pays for what is in use.
 *
 * A folio's zone_device_data is the client that pays for it, and each folio
 * holds a reference on its client. When core splits a folio, each part pays to
 * the same client.
 *
 * It does not move pages (migrate.c), and does not clear memory: who takes it
 * overwrites all of it before it is mapped.
 */
#include <linux/bitmap.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/slab.h>

#include "limosa.h"

/**
 * struct limosa_run - 2 MiB of a range
 * @node: in vram->whole, vram->broken, or (nothing is free) nowhere
 * @nr_free: pages that nobody has
 * @used: a bit for each page
 */
struct limosa_run {
	struct list_head node;
	unsigned int nr_free;
	DECLARE_BITMAP(used, LIMOSA_HUGE_PAGES);
};

/* After @run lost pages that were free; vram->lock held. */
static void limosa_run_taken(struct limosa_vram *vram, struct limosa_run *run,
			     unsigned int nr)
{
	run->nr_free -= nr;
	vram->nr_free -= nr;
	if (!run->nr_free)
		list_del_init(&run->node);
	else	/* to the front: one run after the other fills up */
		list_move(&run->node, &vram->broken);
}

static unsigned long limosa_run_index(struct limosa_vram *vram,
				      struct limosa_run *run)
{
	return (run - vram->runs) * LIMOSA_HUGE_PAGES;
}

static long limosa_vram_take_run(struct limosa_vram *vram)
{
	struct limosa_run *run;
	unsigned long flags;
	long index = -ENOSPC;

	spin_lock_irqsave(&vram->lock, flags);
	run = list_first_entry_or_null(&vram->whole, struct limosa_run, node);
	if (run) {
		bitmap_fill(run->used, LIMOSA_HUGE_PAGES);
		limosa_run_taken(vram, run, LIMOSA_HUGE_PAGES);
		index = limosa_run_index(vram, run);
	}
	spin_unlock_irqrestore(&vram->lock, flags);
	return index;
}

/* Single pages, neighbours where there are. How many: fewer when that is all. */
static unsigned int limosa_vram_take_pages(struct limosa_vram *vram,
					   unsigned int nr, u32 *indices)
{
	unsigned int got = 0, had;
	struct limosa_run *run;
	unsigned long flags, bit;

	spin_lock_irqsave(&vram->lock, flags);
	while (got < nr) {
		run = list_first_entry_or_null(&vram->broken, struct limosa_run,
					       node) ?:
		      list_first_entry_or_null(&vram->whole, struct limosa_run,
					       node);
		if (!run)
			break;
		had = got;
		for_each_clear_bit(bit, run->used, LIMOSA_HUGE_PAGES) {
			if (got == nr)
				break;
			__set_bit(bit, run->used);
			indices[got++] = limosa_run_index(vram, run) + bit;
		}
		limosa_run_taken(vram, run, got - had);
	}
	spin_unlock_irqrestore(&vram->lock, flags);
	return got;
}

long limosa_vram_take(struct limosa_vram *vram, unsigned int order)
{
	u32 index;

	if (order)
		return limosa_vram_take_run(vram);
	/* No "?:" of both: that would be unsigned, and an error an index. */
	if (!limosa_vram_take_pages(vram, 1, &index))
		return -ENOSPC;
	return index;
}

void limosa_vram_give(struct limosa_vram *vram, unsigned long index,
		      unsigned int order)
{
	struct limosa_run *run = &vram->runs[index / LIMOSA_HUGE_PAGES];
	unsigned long flags, nr = 1UL << order;

	spin_lock_irqsave(&vram->lock, flags);
	bitmap_clear(run->used, index % LIMOSA_HUGE_PAGES, nr);
	run->nr_free += nr;
	vram->nr_free += nr;
	if (run->nr_free == LIMOSA_HUGE_PAGES)
		list_move(&run->node, &vram->whole);
	else if (run->nr_free == nr)	/* at the end: it may become whole */
		list_add_tail(&run->node, &vram->broken);
	spin_unlock_irqrestore(&vram->lock, flags);
}

unsigned int limosa_vram_used(struct limosa_vram *vram, unsigned long run,
			      unsigned long *indices)
{
	unsigned long flags, bit;
	unsigned int nr = 0;

	spin_lock_irqsave(&vram->lock, flags);
	for_each_set_bit(bit, vram->runs[run].used, LIMOSA_HUGE_PAGES)
		indices[nr++] = run * LIMOSA_HUGE_PAGES + bit;
	spin_unlock_irqrestore(&vram->lock, flags);
	return nr;
}

void limosa_vram_withhold(struct limosa_vram *vram, unsigned long from)
{
	unsigned long run;

	for (run = from / LIMOSA_HUGE_PAGES; run < vram->nr_pages / LIMOSA_HUGE_PAGES; run++) {
		bitmap_fill(vram->runs[run].used, LIMOSA_HUGE_PAGES);
		list_del_init(&vram->runs[run].node);
		vram->runs[run].nr_free = 0;
	}
	vram->nr_free -= vram->nr_pages - from;
}

void limosa_vram_put_back(struct limosa_vram *vram, unsigned long from)
{
	for (; from < vram->nr_pages; from += LIMOSA_HUGE_PAGES)
		limosa_vram_give(vram, from, LIMOSA_HUGE_ORDER);
}

/* Never lets @used past @limit, whoever else charges at the same time. */
static bool limosa_charge(struct limosa_client *client, long nr)
{
	long used = atomic_long_read(&client->used);

	do {
		if (used + nr > atomic_long_read(&client->limit))
			return false;
	} while (!atomic_long_try_cmpxchg(&client->used, &used, used + nr));
	return true;
}

long limosa_vram_reserve(struct limosa_vram *vram, struct limosa_client *client,
			 unsigned int order)
{
	long index;

	/* An unbind waits for us: do not make it wait for more. */
	if (READ_ONCE(vram->device->gone))
		return -ENODEV;
	/* In this order: what is full for all is ENOSPC for each. */
	index = limosa_should_fail() ? -ENOSPC : limosa_vram_take(vram, order);
	if (index < 0)
		return index;
	if (!limosa_charge(client, 1L << order)) {
		limosa_vram_give(vram, index, order);
		return -EDQUOT;
	}
	return index;
}

int limosa_vram_reserve_pages(struct limosa_vram *vram,
			      struct limosa_client *client, unsigned int nr,
			      u32 *indices)
{
	unsigned int got;
	long room;

	if (READ_ONCE(vram->device->gone))
		return -ENODEV;
	got = limosa_should_fail() ? 0 :
	      limosa_vram_take_pages(vram, nr, indices);
	if (!got)
		return -ENOSPC;
	while (got && !limosa_charge(client, got)) {
		room = atomic_long_read(&client->limit) -
		       atomic_long_read(&client->used);
		for (room = clamp(room, 0L, got - 1L); got > room; got--)
			limosa_vram_give(vram, indices[got - 1], 0);
	}
	return got ?: -EDQUOT;
}

void limosa_vram_unreserve(struct limosa_vram *vram,
			   struct limosa_client *client, unsigned long index,
			   unsigned int order)
{
	limosa_vram_give(vram, index, order);
	atomic_long_sub(1L << order, &client->used);
}

struct page *limosa_vram_page(struct limosa_vram *vram,
			      struct limosa_client *client, unsigned long index,
			      unsigned int order)
{
	/*
	 * Not the page's folio, but the page: what was part of a larger folio
	 * once still has that one's compound head.
	 */
	struct page *page = pfn_to_page(vram->first_pfn + index);

	zone_device_page_init(page, &vram->pgmap, order);
	if (order)
		folio_set_large_rmappable(page_folio(page));
	page->zone_device_data = client;
	limosa_client_get(client);
	return page;
}

struct page *limosa_vram_alloc(struct limosa_vram *vram,
			       struct limosa_client *client,
			       unsigned int order, int *err)
{
	long index = limosa_vram_reserve(vram, client, order);

	if (index < 0) {
		*err = index;
		return NULL;
	}
	return limosa_vram_page(vram, client, index, order);
}
EXPORT_SYMBOL_FOR_MODULES(limosa_vram_alloc, "limosa-dmirror");

/* The last reference is gone. May come from anywhere, interrupts included. */
static void limosa_folio_free(struct folio *folio)
{
	struct limosa_vram *vram = limosa_page_vram(&folio->page);
	struct limosa_client *client = folio->page.zone_device_data;
	unsigned int order = folio_order(folio);

	folio->page.zone_device_data = NULL;
	limosa_vram_unreserve(vram, client,
			      limosa_page_index(vram, &folio->page), order);
	limosa_client_put(client);
}

/* Core splits @folio, and @part is a new one of it; NULL: that was all. */
static void limosa_folio_split(struct folio *folio, struct folio *part)
{
	struct limosa_client *client = folio->page.zone_device_data;

	if (!part)
		return;
	part->pgmap = folio->pgmap;
	part->page.mapping = folio->page.mapping;
	part->page.zone_device_data = client;
	limosa_client_get(client);
}

static const struct dev_pagemap_ops limosa_pagemap_ops = {
	.folio_free = limosa_folio_free,
	.folio_split = limosa_folio_split,
	.migrate_to_ram = limosa_migrate_to_ram,
};

struct limosa_vram *limosa_page_vram(struct page *page)
{
	struct dev_pagemap *pgmap;

	if (!is_zone_device_page(page))
		return NULL;
	pgmap = page_pgmap(page);
	if (pgmap->ops != &limosa_pagemap_ops)
		return NULL;
	return container_of(pgmap, struct limosa_vram, pgmap);
}
EXPORT_SYMBOL_FOR_MODULES(limosa_page_vram, "limosa-dmirror");

/*
 * DEVICE_PRIVATE: struct pages at physical addresses where nothing is, so that
 * no CPU can reach them by mistake. The memory itself is mapped for the
 * kernel's copies alone.
 *
 * Write-combining is what a BAR of memory without side effects wants: writes
 * go out in bursts. Reads of a real BAR are slow in any case; a device with a
 * copy engine uses that in the place of these mappings. In a guest the
 * hypervisor's RAM is behind it, and all types are as fast as RAM.
 */
static int limosa_vram_map_private(struct limosa_vram *vram,
				   resource_size_t offset, resource_size_t size)
{
	struct resource *res;
	void *ret;

	vram->bytes = memremap(offset, size, MEMREMAP_WC);
	if (!vram->bytes)
		return -ENOMEM;

	res = request_free_mem_region(&iomem_resource, size,
				      vram->device->name);
	if (IS_ERR(res)) {
		memunmap(vram->bytes);
		return PTR_ERR(res);
	}
	vram->pgmap.type = MEMORY_DEVICE_PRIVATE;
	vram->region = res;
	vram->pgmap.range.start = res->start;
	vram->pgmap.range.end = res->start + size - 1;
	ret = memremap_pages(&vram->pgmap, dev_to_node(&vram->device->pdev->dev));
	if (IS_ERR(ret)) {
		release_mem_region(res->start, resource_size(res));
		memunmap(vram->bytes);
		return PTR_ERR(ret);
	}
	return 0;
}

/* DEVICE_COHERENT: the memory's own addresses, in the kernel's direct map. */
static int limosa_vram_map_coherent(struct limosa_vram *vram,
				    resource_size_t offset,
				    resource_size_t size)
{
	void *ret;

	vram->pgmap.type = MEMORY_DEVICE_COHERENT;
	vram->pgmap.range.start = offset;
	vram->pgmap.range.end = offset + size - 1;
	ret = memremap_pages(&vram->pgmap, dev_to_node(&vram->device->pdev->dev));
	if (IS_ERR(ret))
		return PTR_ERR(ret);
	vram->bytes = ret;
	return 0;
}

int limosa_vram_init(struct limosa_vram *vram, struct limosa_device *device,
		     enum limosa_place place, resource_size_t offset,
		     resource_size_t size)
{
	unsigned long i, nr_runs = size >> PMD_SHIFT;
	int err;

	spin_lock_init(&vram->lock);
	INIT_LIST_HEAD(&vram->whole);
	INIT_LIST_HEAD(&vram->broken);
	vram->device = device;
	if (!nr_runs)
		return 0;

	vram->runs = kvcalloc(nr_runs, sizeof(*vram->runs), GFP_KERNEL);
	if (!vram->runs)
		return -ENOMEM;
	for (i = 0; i < nr_runs; i++) {
		vram->runs[i].nr_free = LIMOSA_HUGE_PAGES;
		list_add_tail(&vram->runs[i].node, &vram->whole);
	}

	vram->bar_pfn = PHYS_PFN(offset);
	vram->pgmap.nr_range = 1;
	vram->pgmap.ops = &limosa_pagemap_ops;
	vram->pgmap.owner = vram;
	if (place == LIMOSA_PLACE_PRIVATE)
		err = limosa_vram_map_private(vram, offset, size);
	else
		err = limosa_vram_map_coherent(vram, offset, size);
	if (err) {
		kvfree(vram->runs);
		vram->runs = NULL;
		return err;
	}
	vram->first_pfn = PHYS_PFN(vram->pgmap.range.start);
	vram->nr_pages = nr_runs * LIMOSA_HUGE_PAGES;
	vram->nr_free = vram->nr_pages;
	return 0;
}

void limosa_vram_fini(struct limosa_vram *vram)
{
	struct resource *region = vram->region;

	if (!vram->nr_pages)
		return;
	vram->nr_pages = 0;
	memunmap_pages(&vram->pgmap);
	if (vram->pgmap.type == MEMORY_DEVICE_PRIVATE) {
		release_mem_region(region->start, resource_size(region));
		memunmap(vram->bytes);
	}
	kvfree(vram->runs);
}
