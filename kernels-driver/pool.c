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
 *    emptied, also of what a fault that had begun puts there afterwards, I/O
 *    under way is waited for, and only then the memory goes.
 *  - release and unbind at once: who takes the pool off the device's list ends
 *    its use of the memory. An unbind waits for those that others took.
 */
#include <linux/anon_inodes.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>

#include "files.h"

/**
 * struct limosa_vma_pool - pages in a process's memory
 * @ref: the file's, and one of the list or of who took it from there
 * @client: who pays
 * @node: in device->pools
 * @inode: the file's, held; by it all mappings are found
 * @nr: how many pages there are
 * @pages: they; in the order of the file, single or in runs of 2 MiB
 * @settle: waits for I/O after the last close
 */
struct limosa_vma_pool {
	struct kref ref;
	struct limosa_client *client;
	struct list_head node;
	struct inode *inode;
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

	iput(pool->inode);
	limosa_client_put(pool->client);
	kvfree(pool);
}

/*
 * Gives the first @nr pages back, each when it has no user any more. Nobody tells
 * when I/O gives a page back, so it is looked; and a fault that found the device
 * there may map a page late.
 */
static void limosa_pool_give(struct limosa_vma_pool *pool, unsigned long nr)
{
	struct limosa_device *device = pool->client->device;
	unsigned int order, wait = 1;
	unsigned long i;

	for (i = 0; i < nr; i += 1UL << order) {
		unsigned long index = pool->pages[i] - device->p2p.first;

		order = folio_order(page_folio(pool->pages[i]));
		while (!limosa_p2p_take_back(device, index, order)) {
			if (pool->inode)
				unmap_mapping_range(pool->inode->i_mapping, 0, 0, 1);
			msleep(wait);
			wait = min(2 * wait, 100u);
		}
		limosa_vram_unreserve(limosa_pool_vram(pool), pool->client,
				      index, order);
		cond_resched();
	}
}

/* As the last that is done with the pool's pages. */
static void limosa_pool_settle(struct limosa_vma_pool *pool)
{
	limosa_pool_give(pool, pool->nr);
	kref_put(&pool->ref, limosa_pool_free);
}

static void limosa_pool_settle_work(struct work_struct *work)
{
	struct limosa_vma_pool *pool =
		container_of(work, struct limosa_vma_pool, settle);
	struct limosa_client *client = pool->client;
	struct limosa_device *device = client->device;

	limosa_client_get(client);
	limosa_pool_settle(pool);
	if (atomic_dec_and_test(&device->settling))
		wake_up_var(&device->settling);
	limosa_client_put(client);
}

/* Device memory of other processes' past is not for this one to see. */
static void limosa_pool_clear(struct limosa_vram *vram, unsigned long index,
			      unsigned int order)
{
	memset(vram->bytes + (index << PAGE_SHIFT), 0, PAGE_SIZE << order);
}

/*
 * Takes the pages: runs of 2 MiB as long as there are any, so that each is whole
 * at such a place of the pool, and then single ones.
 */
static int limosa_pool_take(struct limosa_vma_pool *pool)
{
	struct limosa_client *client = pool->client;
	struct limosa_vram *vram = limosa_pool_vram(pool);
	unsigned int order = client->max_order;
	struct page *page;
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
		page = limosa_p2p_lend(client->device, index, order);
		for (k = 0; k < 1UL << order; k++)
			pool->pages[i++] = page + k;
		cond_resched();
	}
	/* Out of the write-combining buffers before anybody reads. */
	wmb();
	return 0;
}

/* Core maps the whole folio, where alignment allows. */
static vm_fault_t limosa_pool_fault(struct vm_fault *vmf)
{
	struct limosa_vma_pool *pool = vmf->vma->vm_file->private_data;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	int idx;

	if (!limosa_device_enter(pool->client->device, &idx))
		return VM_FAULT_SIGBUS;
	if (vmf->pgoff < pool->nr) {
		vmf->page = pool->pages[vmf->pgoff];
		get_page(vmf->page);
		ret = 0;
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

	if (!vma_desc_test(desc, VMA_SHARED_BIT) || desc->pgoff > pool->nr ||
	    PHYS_PFN(desc->end - desc->start) > pool->nr - desc->pgoff)
		return -EINVAL;
	vma_desc_set_flags(desc, VMA_DONTEXPAND_BIT, VMA_DONTDUMP_BIT);
	vma_desc_clear_flags(desc, VMA_MAYEXEC_BIT);
	desc->page_prot = pgprot_writecombine(desc->page_prot);
	desc->vm_ops = &limosa_pool_vm_ops;
	return 0;
}

static int limosa_pool_release(struct inode *inode, struct file *file)
{
	struct limosa_vma_pool *pool = file->private_data;
	struct limosa_device *device = pool->client->device;

	mutex_lock(&device->pools_lock);
	if (!list_empty(&pool->node)) {
		list_del_init(&pool->node);
		atomic_inc(&device->settling);
		queue_work(limosa_wq, &pool->settle);
	}
	mutex_unlock(&device->pools_lock);
	kref_put(&pool->ref, limosa_pool_free);
	return 0;
}

static const struct file_operations limosa_pool_fops = {
	.owner = THIS_MODULE,
	.release = limosa_pool_release,
	.mmap_prepare = limosa_pool_mmap_prepare,
	.get_unmapped_area = thp_get_unmapped_area,
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
	pool->inode = file_inode(file);
	ihold(pool->inode);
	/* Core maps nothing beyond. */
	i_size_write(file_inode(file), pool->nr << PAGE_SHIFT);
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
	INIT_WORK(&pool->settle, limosa_pool_settle_work);
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

/* Takes an open pool off the list, or NULL. */
static struct limosa_vma_pool *limosa_pool_pop(struct limosa_device *device)
{
	struct limosa_vma_pool *pool;

	mutex_lock(&device->pools_lock);
	pool = list_first_entry_or_null(&device->pools, struct limosa_vma_pool,
					node);
	if (pool)
		list_del_init(&pool->node);
	mutex_unlock(&device->pools_lock);
	return pool;
}

void limosa_pools_revoke(struct limosa_device *device)
{
	struct limosa_vma_pool *pool;

	while ((pool = limosa_pool_pop(device))) {
		unmap_mapping_range(pool->inode->i_mapping, 0, 0, 1);
		limosa_pool_settle(pool);
	}
	wait_var_event(&device->settling, !atomic_read(&device->settling));
}
