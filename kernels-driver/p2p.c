// SPDX-License-Identifier: GPL-2.0
/*
 * The private memory once more, as pages that other PCI devices reach
 * (P2PDMA), and lending them to those who do I/O with them.
 *
 * The same bytes have two struct pages: one of DEVICE_PRIVATE, by which they are
 * memory of a process, and one of P2PDMA, by which a bio can name them. Who has
 * the bytes is decided by the vram's allocator alone, so never do both have
 * users. Coherent
 * memory has a struct page at the BAR's own address already, and no second can
 * be there.
 *
 * It does not decide whether two devices can reach one another (probe.c).
 */
#include <linux/memremap.h>
#include <linux/module.h>
#include <linux/page_ref.h>
#include <linux/pagemap.h>
#include <linux/pci-p2pdma.h>

#include "limosa.h"

static unsigned long publish_mb;
module_param(publish_mb, ulong, 0644);
MODULE_PARM_DESC(publish_mb,
		 "MiB of each BAR's private memory given to the kernel's own users of peer-to-peer memory, as nvmet, when a device is bound (default 0)");

/* What the administrator wants core to hand out itself, in pages. */
static unsigned long limosa_p2p_to_publish(struct limosa_vram *vram)
{
	unsigned long mb = min(READ_ONCE(publish_mb),
			       vram->nr_pages >> (20 - PAGE_SHIFT));

	return ALIGN(mb << (20 - PAGE_SHIFT), LIMOSA_HUGE_PAGES);
}

/*
 * Core has a pool of such pages, open to root by sysfs and to drivers. All of it
 * is taken at once, but for what is to be published, at its end: else core would
 * hand out what the vram's allocator does. If somebody was faster (they need no
 * more than a reference on the PCI function), the memory has two owners.
 */
int limosa_p2p_init(struct limosa_device *device, int bar)
{
	struct limosa_vram *vram = &device->vram[LIMOSA_PLACE_PRIVATE];
	struct limosa_p2p *p2p = &device->p2p;
	size_t kept;
	int err;

	if (!vram->nr_pages)
		return 0;
	/* After limosa_vram_init(): x86 keeps the first mapping's caching. */
	err = pci_p2pdma_add_resource(device->pdev, bar,
				      vram->nr_pages << PAGE_SHIFT, 0);
	if (err) {
		pci_warn(device->pdev,
			 "no peer-to-peer memory (%d): there are no pools and no loads\n",
			 err);
		return 0;
	}
	p2p->published = limosa_p2p_to_publish(vram);
	kept = (vram->nr_pages - p2p->published) << PAGE_SHIFT;
	if (kept) {
		p2p->kaddr = pci_alloc_p2pmem(device->pdev, kept);
		if (!p2p->kaddr)
			return -EBUSY;
		p2p->first = virt_to_page(p2p->kaddr);
		p2p->pgmap = page_pgmap(p2p->first);
	}
	if (p2p->published) {
		limosa_vram_withhold(vram, vram->nr_pages - p2p->published);
		pci_p2pmem_publish(device->pdev, true);
	}
	return 0;
}

void limosa_p2p_unpublish(struct limosa_device *device)
{
	struct limosa_vram *vram = &device->vram[LIMOSA_PLACE_PRIVATE];

	pci_p2pmem_publish(device->pdev, false);
	limosa_vram_put_back(vram, vram->nr_pages - device->p2p.published);
}

void limosa_p2p_fini(struct limosa_device *device)
{
	struct limosa_vram *vram = &device->vram[LIMOSA_PLACE_PRIVATE];
	struct limosa_p2p *p2p = &device->p2p;

	if (p2p->kaddr)
		pci_free_p2pmem(device->pdev, p2p->kaddr,
				(vram->nr_pages - p2p->published) << PAGE_SHIFT);
	p2p->kaddr = NULL;
}

struct page *limosa_p2p_lend(struct limosa_device *device, unsigned long index,
			     unsigned int order)
{
	struct page *page = device->p2p.first + index;

	/* What is left of a folio of another size goes with this. */
	zone_device_page_init(page, device->p2p.pgmap, order);
	if (order)
		folio_set_large_rmappable(page_folio(page));
	unlock_page(page);
	return page;
}

bool limosa_p2p_take_back(struct limosa_device *device, unsigned long index,
			  unsigned int order)
{
	struct folio *folio = page_folio(device->p2p.first + index);
	bool last;

	/* A fault whose mapping is gone already may still hold the lock. */
	if (!folio_trylock(folio))
		return false;
	last = folio_ref_freeze(folio, 1);
	folio_unlock(folio);
	if (last)
		percpu_ref_put_many(&device->p2p.pgmap->ref, 1UL << order);
	return last;
}
