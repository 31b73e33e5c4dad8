// SPDX-License-Identifier: GPL-2.0
/*
 * debugfs, for root:
 *
 *   limosa/<PCI address>/memcpy  reading it copies up to 32 MiB of system memory
 *       to free device memory and back, and tells bytes and nanoseconds: the
 *       ceiling that a benchmark sets migration against.
 *   limosa/limosa_fail_alloc     where the kernel has fault injection: lets
 *       allocations of device pages, and of system pages for pages that come
 *       back, fail (Documentation/fault-injection).
 *
 * Nothing here is needed for work.
 */
#include <linux/debugfs.h>
#include <linux/fault-inject.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/ktime.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "limosa.h"

#define LIMOSA_COPY_RUNS	16

static struct dentry *limosa_debugfs;

#ifdef CONFIG_FAULT_INJECTION
static DECLARE_FAULT_ATTR(limosa_fail_alloc);

bool limosa_should_fail(void)
{
	return should_fail(&limosa_fail_alloc, 1);
}
#endif

/* Nanoseconds for one pass over all runs, page by page as a migration does. */
static u64 limosa_copy_runs(struct limosa_vram *vram, struct page **pages,
			    const long *runs, unsigned int nr, bool to_device)
{
	u64 begin = ktime_get_ns();
	unsigned long i, k;

	for (i = 0; i < nr; i++) {
		void *bytes = vram->bytes + (runs[i] << PAGE_SHIFT);

		for (k = 0; k < LIMOSA_HUGE_PAGES; k++, bytes += PAGE_SIZE) {
			if (to_device)
				memcpy_from_page(bytes, pages[i] + k, 0, PAGE_SIZE);
			else
				memcpy_to_page(pages[i] + k, 0, bytes, PAGE_SIZE);
		}
		cond_resched();
	}
	wmb(); /* the copies are done when they are out of the buffers */
	return ktime_get_ns() - begin;
}

static int limosa_memcpy_show(struct seq_file *m, void *unused)
{
	struct limosa_device *device = m->private;
	struct limosa_vram *vram = &device->vram[LIMOSA_PLACE_PRIVATE];
	struct page *pages[LIMOSA_COPY_RUNS];
	long runs[LIMOSA_COPY_RUNS];
	unsigned int nr;
	u64 to, from;

	if (!vram->nr_pages)
		vram = &device->vram[LIMOSA_PLACE_COHERENT];
	for (nr = 0; nr < LIMOSA_COPY_RUNS; nr++) {
		pages[nr] = alloc_pages(GFP_TRANSHUGE, LIMOSA_HUGE_ORDER);
		if (!pages[nr])
			break;
		runs[nr] = limosa_vram_take(vram, LIMOSA_HUGE_ORDER);
		if (runs[nr] < 0) {
			__free_pages(pages[nr], LIMOSA_HUGE_ORDER);
			break;
		}
	}
	/* The first pass is for page tables and caches. */
	limosa_copy_runs(vram, pages, runs, nr, true);
	to = limosa_copy_runs(vram, pages, runs, nr, true);
	from = limosa_copy_runs(vram, pages, runs, nr, false);
	seq_printf(m, "bytes %lu\nto_device_ns %llu\nto_system_ns %llu\n",
		   nr * PMD_SIZE, to, from);
	while (nr--) {
		limosa_vram_give(vram, runs[nr], LIMOSA_HUGE_ORDER);
		__free_pages(pages[nr], LIMOSA_HUGE_ORDER);
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(limosa_memcpy);

/* debugfs lets no reader in once it is removed, and waits for those inside. */
void limosa_debug_add(struct limosa_device *device)
{
	device->debugfs = debugfs_create_dir(pci_name(device->pdev),
					     limosa_debugfs);
	debugfs_create_file("memcpy", 0400, device->debugfs, device,
			    &limosa_memcpy_fops);
}

void limosa_debug_remove(struct limosa_device *device)
{
	debugfs_remove(device->debugfs);
}

void limosa_debug_init(void)
{
	limosa_debugfs = debugfs_create_dir("limosa", NULL);
#ifdef CONFIG_FAULT_INJECTION
	fault_create_debugfs_attr("limosa_fail_alloc", limosa_debugfs,
				  &limosa_fail_alloc);
#endif
}

void limosa_debug_exit(void)
{
	debugfs_remove(limosa_debugfs);
}
