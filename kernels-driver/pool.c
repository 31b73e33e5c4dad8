// SPDX-License-Identifier: GPL-2.0
/*
 * A pool: device memory that a process maps, and that other devices reach, as
 * the buffer of ordinary direct I/O.
 *
 * Its pages are lent by p2p.c, and what a block device may do with such pages is
 * core's affair: this file only puts them into page tables, and gets them back.
 * What can meet:
 *
 *  - munmap(), exit, or the last close() with I/O under way: the bio has its own
 *    references. The pages are free when those are gone, for which a worker
 *    waits, as nobody else should have to.
 *  - fork(): the child shares the pool, as with any MAP_SHARED memory.
 *  - unbinding of the device: from then on a fault is SIGBUS. The mappings are
 *    emptied, I/O under way is waited for, and only then the memory goes.
 *  - release and unbind at once: who takes the pool off the device's list ends
 *    its use of the memory.
 */
#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "limosa.h"

/**
 * struct limosa_vma_pool - pages in a process's memory
 * @ref: the file's, and one of the list or of who took it from there
 * @client: who pays
 * @node: in device->pools
 * @mapping: of the file; valid as long as @node is in the list
 * @nr: how many pages there are
 * @pages: they; in the order of the file, single or in runs of 2 MiB
 * @settle: waits for I/O after the last close
 */
struct limosa_vma_pool {
	struct kref ref;
	struct limosa_client *client;
	struct list_head node;
	struct address_space *mapping;
	struct work_struct settle;
	unsigned long nr;
	struct page *pages[] __counted_by(nr);
};

static struct limosa_vram *limosa_pool_vram(struct limosa_vma_pool *pool)
{
	return &pool->client->device->vram[LIMOSA_PLACE_PRIVATE];
}

static void limosa_pool_free(struct kref *ref)
{
	struct limosa_vma_pool *pool = container_of(ref, struct limosa_vma_pool, ref);

	limosa_client_put(pool->client);
	kvfree(pool);
}

/* Nobody maps the pages any more: gives the first @nr back once I/O has ended. */
static void limosa_pool_give(struct limosa_vma_pool *pool, unsigned long nr)
{
	struct limosa_device *device = pool->client->device;
	unsigned long i;

	for (i = 0; i < nr; i++) {
		unsigned long index = pool->pages[i] - device->p2p.first;

		limosa_p2p_take_back(device, index, 1);
		limosa_vram_unreserve(limosa_pool_vram(pool), pool->client,
				      index, 0);
		cond_resched();
	}
}

static void limosa_pool_settle(struct work_struct *work)
{
	struct limosa_vma_pool *pool = container_of(work, struct limosa_vma_pool, settle);

	limosa_pool_give(pool, pool->nr);
	kref_put(&pool->ref, limosa_pool_free);
}

/* Device memory of other processes' past is not for this one to see. */
static void limosa_pool_clear(struct limosa_vram *vram, unsigned long index,
			      unsigned int order)
{
	memset(vram->bytes + (index << PAGE_SHIFT), 0, PAGE_SIZE << order);
}

/* Takes the pages, in runs where there are any. How many: all, or an error. */
static long limosa_pool_take(struct limosa_vma_pool *pool)
{
	struct limosa_client *client = pool->client;
	struct limosa_vram *vram = limosa_pool_vram(pool);
	struct page *first = client->device->p2p.first;
	unsigned int order = LIMOSA_HUGE_ORDER;
	unsigned long i = 0, k;
	long index;

	while (i < pool->nr) {
		if (pool->nr - i < LIMOSA_HUGE_PAGES)
			order = 0;
		index = limosa_vram_reserve(vram, client, order);
		if (index == -ENOSPC && order) {
			order = 0;
			continue;
		}
		if (index >= 0 && signal_pending(current)) {
			limosa_vram_unreserve(vram, client, index, order);
			index = -EINTR;
		}
		if (index < 0) {
			limosa_pool_give(pool, i);
			return index;
		}
		limosa_pool_clear(vram, index, order);
		limosa_p2p_lend(client->device, index, 1UL << order);
		for (k = 0; k < 1UL << order; k++)
			pool->pages[i++] = first + index + k;
		cond_resched();
	}
	/* Out of the write-combining buffers before anybody reads. */
	wmb();
	return 0;
}

/* With all that are in the same page table, as the buffer of I/O is not one page. */
static vm_fault_t limosa_pool_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct limosa_vma_pool *pool = vma->vm_file->private_data;
	unsigned long addr = vmf->address & PAGE_MASK, nr;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	int err, idx;

	if (!limosa_device_enter(pool->client->device, &idx))
		return VM_FAULT_SIGBUS;
	if (vmf->pgoff < pool->nr) {
		nr = min(pool->nr - vmf->pgoff, PHYS_PFN(vma->vm_end - addr));
		nr = min(nr, PHYS_PFN(ALIGN(addr + 1, PMD_SIZE) - addr));
		err = vm_insert_pages(vma, addr, &pool->pages[vmf->pgoff], &nr);
		/* EBUSY: up to where another fault has put them. */
		if (!err || err == -EBUSY)
			ret = VM_FAULT_NOPAGE;
		else if (err == -ENOMEM)
			ret = VM_FAULT_OOM;
	}
	limosa_device_exit(pool->client->device, idx);
	return ret;
}

static const struct vm_operations_struct limosa_pool_vm_ops = {
	.fault = limosa_pool_fault,
};

static int limosa_pool_mmap_prepare(struct vm_area_desc *desc)
{
	struct limosa_vma_pool *pool = desc->file->private_data;

	if (!vma_desc_test(desc, VMA_SHARED_BIT) ||
	    vma_desc_test(desc, VMA_EXEC_BIT) || desc->pgoff > pool->nr ||
	    PHYS_PFN(desc->end - desc->start) > pool->nr - desc->pgoff)
		return -EINVAL;
	vma_desc_set_flags(desc, VMA_MIXEDMAP_BIT, VMA_DONTEXPAND_BIT,
			   VMA_DONTDUMP_BIT);
	vma_desc_clear_flags(desc, VMA_MAYEXEC_BIT);
	desc->page_prot = pgprot_writecombine(desc->page_prot);
	desc->vm_ops = &limosa_pool_vm_ops;
	return 0;
}

/* Whether the pool was still in the list: then its pages are the caller's. */
static bool limosa_pool_unlist(struct limosa_vma_pool *pool)
{
	struct limosa_device *device = pool->client->device;
	bool was;

	mutex_lock(&device->pools_lock);
	was = !list_empty(&pool->node);
	list_del_init(&pool->node);
	mutex_unlock(&device->pools_lock);
	return was;
}

static int limosa_pool_release(struct inode *inode, struct file *file)
{
	struct limosa_vma_pool *pool = file->private_data;

	if (limosa_pool_unlist(pool))
		queue_work(limosa_wq, &pool->settle);
	kref_put(&pool->ref, limosa_pool_free);
	return 0;
}

static const struct file_operations limosa_pool_fops = {
	.owner = THIS_MODULE,
	.release = limosa_pool_release,
	.mmap_prepare = limosa_pool_mmap_prepare,
};

/* The device is entered, so no unbind has begun to look at the list. */
static struct file *limosa_pool_file(struct limosa_vma_pool *pool)
{
	struct limosa_device *device = pool->client->device;
	struct file *file;

	/* An inode of its own: its mappings are emptied alone. */
	file = anon_inode_create_getfile("[limosa-pool]", &limosa_pool_fops,
					 pool, O_RDWR, NULL);
	if (IS_ERR(file))
		return file;
	kref_get(&pool->ref);
	pool->mapping = file->f_mapping;
	mutex_lock(&device->pools_lock);
	list_add(&pool->node, &device->pools);
	mutex_unlock(&device->pools_lock);
	return file;
}

static struct file *limosa_pool_make(struct limosa_client *client,
				     unsigned long nr)
{
	struct limosa_vma_pool *pool;
	struct file *file;
	long err;

	if (!client->device->p2p.kaddr)
		return ERR_PTR(-EOPNOTSUPP);
	if (nr > client->device->vram[LIMOSA_PLACE_PRIVATE].nr_pages)
		return ERR_PTR(-ENOSPC);
	pool = kvzalloc(struct_size(pool, pages, nr), GFP_KERNEL_ACCOUNT);
	if (!pool)
		return ERR_PTR(-ENOMEM);
	pool->nr = nr;
	kref_init(&pool->ref);
	INIT_LIST_HEAD(&pool->node);
	INIT_WORK(&pool->settle, limosa_pool_settle);
	limosa_client_get(client);
	pool->client = client;
	err = limosa_pool_take(pool);
	file = err ? ERR_PTR(err) : limosa_pool_file(pool);
	if (!err && IS_ERR(file))
		limosa_pool_give(pool, nr);
	if (IS_ERR(file))
		kref_put(&pool->ref, limosa_pool_free);
	return file;
}

struct file *limosa_pool_create(struct limosa_client *client, u64 len)
{
	struct file *file;
	int idx;

	if (!len || !PAGE_ALIGNED(len))
		return ERR_PTR(-EINVAL);
	if (!limosa_device_enter(client->device, &idx))
		return ERR_PTR(-ENODEV);
	file = limosa_pool_make(client, len >> PAGE_SHIFT);
	limosa_device_exit(client->device, idx);
	return file;
}

void limosa_pools_revoke(struct limosa_device *device)
{
	struct limosa_vma_pool *pool;

	for (;;) {
		mutex_lock(&device->pools_lock);
		pool = list_first_entry_or_null(&device->pools,
						struct limosa_vma_pool, node);
		if (pool) {
			unmap_mapping_range(pool->mapping, 0, 0, 1);
			list_del_init(&pool->node);
		}
		mutex_unlock(&device->pools_lock);
		if (!pool)
			break;
		limosa_pool_settle(&pool->settle);
	}
	/* Those that were released before. */
	flush_workqueue(limosa_wq);
}
