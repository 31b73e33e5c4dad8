// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/hmm_dmirror0..3 out of the driver's own parts, so that the kernel's
 * tools/testing/selftests/mm/hmm-tests.c, unchanged, is put to them.
 *
 * dmirror0 and 1 are the private memory of limosa0 and limosa1, dmirror2 and 3
 * their coherent memory. Only the device itself is simulated (device.c);
 * mirror, moves and memory are what the driver's own devices have.
 *
 * For tests alone: it has no limits of its own.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "dmirror.h"

#define DMIRROR_NODES	4
/* How often a page may refuse to be moved. */
#define DMIRROR_TRIES	3

struct dmirror_node {
	struct miscdevice misc;
	char name[16];
	unsigned int index;
};

static struct dmirror_node dmirror_nodes[DMIRROR_NODES];

/* ------------------------------------------------------------ migration */

/* The tests want a hole, or memory that cannot be read, to be -EINVAL. */
static int dmirror_check_readable(struct mm_struct *mm, unsigned long addr,
				  unsigned long end)
{
	struct vm_area_struct *vma;

	for (; addr < end; addr = vma->vm_end) {
		vma = vma_lookup(mm, addr);
		if (!vma || !(vma->vm_flags & VM_READ))
			return -EINVAL;
	}
	return 0;
}

static int dmirror_migrate(struct dmirror *d, unsigned long addr,
			   unsigned long end, enum limosa_place to, u64 *pages)
{
	struct mm_struct *mm = d->client->mm;
	struct limosa_moved moved = {};
	int ret;

	mmap_read_lock(mm);
	ret = dmirror_check_readable(mm, addr, end);
	if (ret)
		;
	else if (to == LIMOSA_PLACE_SYSTEM)
		ret = limosa_move_to_system(d->client, mm, addr, end, &moved);
	else
		ret = limosa_move_to_device(d->client, mm, addr, end, to,
					    &moved);
	mmap_read_unlock(mm);

	/* A failure of large allocations was for this move alone. */
	d->client->max_order = LIMOSA_HUGE_ORDER;
	*pages = moved.moved;
	return ret;
}

/*
 * The caller compares what the device reads afterwards; what was not moved has
 * no entry. Core may hold a page for a moment, so that it is not moved, or take
 * an entry back before it is read: like any driver, try again.
 */
static int dmirror_migrate_to_device(struct dmirror *d,
				     struct hmm_dmirror_cmd *cmd)
{
	unsigned long addr, end = dmirror_end(cmd);
	unsigned int tries;
	u64 moved, before;
	int ret;

	for (tries = 0; tries < DMIRROR_TRIES; tries++) {
		before = cmd->cpages;
		addr = cmd->addr + (before << PAGE_SHIFT);
		ret = dmirror_migrate(d, addr, end, d->place, &moved);
		if (!ret)
			ret = dmirror_fill(d, addr, end);
		if (!ret)
			ret = dmirror_access(d, cmd, false, false);
		if (ret != -ENOENT)
			break;
		if (cmd->cpages > before)
			tries = 0;
	}
	return ret;
}

/* ------------------------------------------------------------- snapshot */

static u8 dmirror_classify(struct dmirror *d, unsigned long hmm_pfn,
			   unsigned long addr)
{
	u8 prot = HMM_DMIRROR_PROT_NONE;
	struct page *page;
	bool local;

	if (hmm_pfn & HMM_PFN_ERROR)
		return HMM_DMIRROR_PROT_ERROR;
	if (!(hmm_pfn & HMM_PFN_VALID))
		return HMM_DMIRROR_PROT_NONE;

	page = limosa_hmm_page(hmm_pfn, addr);
	local = limosa_page_vram(page) == d->vram;
	if (is_device_private_page(page))
		prot = local ? HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL :
			       HMM_DMIRROR_PROT_DEV_PRIVATE_REMOTE;
	else if (is_device_coherent_page(page))
		prot = local ? HMM_DMIRROR_PROT_DEV_COHERENT_LOCAL :
			       HMM_DMIRROR_PROT_DEV_COHERENT_REMOTE;
	else if (is_zero_pfn(page_to_pfn(page)))
		prot = HMM_DMIRROR_PROT_ZERO;

	prot |= hmm_pfn & HMM_PFN_WRITE ? HMM_DMIRROR_PROT_WRITE :
					  HMM_DMIRROR_PROT_READ;
	if (hmm_pfn_to_map_order(hmm_pfn) == PMD_SHIFT - PAGE_SHIFT)
		prot |= HMM_DMIRROR_PROT_PMD;
	else if (hmm_pfn_to_map_order(hmm_pfn) == PUD_SHIFT - PAGE_SHIFT)
		prot |= HMM_DMIRROR_PROT_PUD;
	return prot;
}

static int dmirror_snapshot(struct dmirror *d, struct hmm_dmirror_cmd *cmd)
{
	unsigned long pfns[DMIRROR_BATCH] = {};
	struct hmm_range range = {
		.notifier = &d->mirror.notifier,
		.hmm_pfns = pfns,
		.dev_private_owner = d->vram,
	};
	u8 prots[DMIRROR_BATCH];
	unsigned long i, nr;
	int ret;

	for (; cmd->cpages < cmd->npages; cmd->cpages += nr) {
		nr = min(DMIRROR_BATCH, (unsigned long)(cmd->npages - cmd->cpages));
		range.start = cmd->addr + (cmd->cpages << PAGE_SHIFT);
		range.end = range.start + (nr << PAGE_SHIFT);
		ret = dmirror_look(d, &range);
		if (ret)
			return ret;
		for (i = 0; i < nr; i++)
			prots[i] = dmirror_classify(d, pfns[i],
						    range.start + (i << PAGE_SHIFT));
		mutex_unlock(&d->mirror.lock);
		if (copy_to_user(u64_to_user_ptr(cmd->ptr) + cmd->cpages,
				 prots, nr))
			return -EFAULT;
	}
	return 0;
}

/* ------------------------------------------------------------- the file */

static int dmirror_command(struct dmirror *d, unsigned int command,
			   struct hmm_dmirror_cmd *cmd)
{
	switch (command) {
	case HMM_DMIRROR_READ:
	case HMM_DMIRROR_READ_UNLOCKED:
		return dmirror_access(d, cmd, false, true);
	case HMM_DMIRROR_WRITE:
		return dmirror_access(d, cmd, true, true);
	case HMM_DMIRROR_MIGRATE_TO_DEV:
		return dmirror_migrate_to_device(d, cmd);
	case HMM_DMIRROR_MIGRATE_TO_SYS:
		return dmirror_migrate(d, cmd->addr, dmirror_end(cmd),
				       LIMOSA_PLACE_SYSTEM, &cmd->cpages);
	case HMM_DMIRROR_SNAPSHOT:
		return dmirror_snapshot(d, cmd);
	case HMM_DMIRROR_EXCLUSIVE:
		return dmirror_exclusive(d, cmd);
	case HMM_DMIRROR_CHECK_EXCLUSIVE:
		return dmirror_check_exclusive(d, cmd);
	case HMM_DMIRROR_RELEASE:
		limosa_evict_all(d->vram);
		return 0;
	case HMM_DMIRROR_FLAGS:
		/* Until the next move, which then has to do with single pages. */
		d->client->max_order = cmd->npages & HMM_DMIRROR_FLAG_FAIL_ALLOC ?
				       0 : LIMOSA_HUGE_ORDER;
		return 0;
	default:
		return -ENOTTY;
	}
}

static long dmirror_ioctl(struct file *file, unsigned int command,
			  unsigned long arg)
{
	struct dmirror *d = file->private_data;
	struct hmm_dmirror_cmd cmd;
	int idx, ret;

	if (copy_from_user(&cmd, (void __user *)arg, sizeof(cmd)))
		return -EFAULT;
	if (current->mm != d->client->mm)
		return -EPERM;
	if (!PAGE_ALIGNED(cmd.addr) || cmd.addr >= TASK_SIZE_MAX ||
	    !cmd.npages || cmd.npages > (TASK_SIZE_MAX - cmd.addr) >> PAGE_SHIFT)
		return -EINVAL;
	if (!limosa_device_enter(d->client->device, &idx))
		return -ENODEV;
	cmd.cpages = 0;
	cmd.faults = 0;
	ret = dmirror_command(d, command, &cmd);
	limosa_device_exit(d->client->device, idx);
	if (!ret && copy_to_user((void __user *)arg, &cmd, sizeof(cmd)))
		return -EFAULT;
	return ret;
}

/* Memory of a file that hmm can look at: pages of the kernel's, inserted. */
static int dmirror_mmap(struct file *file, struct vm_area_struct *vma)
{
	unsigned long addr;
	struct page *page;
	int ret = 0;

	for (addr = vma->vm_start; addr < vma->vm_end && !ret; addr += PAGE_SIZE) {
		page = alloc_page(GFP_KERNEL | __GFP_ZERO);
		if (!page)
			return -ENOMEM;
		ret = vm_insert_page(vma, addr, page);
		put_page(page);
	}
	return ret;
}

static int dmirror_attach(struct dmirror *d, struct limosa_device *device,
			  enum limosa_place place)
{
	struct limosa_client *client;
	int ret;

	client = limosa_client_create(device, current->mm);
	if (!client)
		return -ENOMEM;
	d->client = client;
	d->vram = &device->vram[place];
	d->place = place;
	xa_init(&d->table);
	ret = limosa_mirror_insert(&d->mirror, client, 0, TASK_SIZE_MAX,
				   &dmirror_mirror_ops);
	if (ret)
		limosa_client_put(client);
	return ret;
}

static int dmirror_open(struct inode *inode, struct file *file)
{
	struct dmirror_node *node =
		container_of(file->private_data, struct dmirror_node, misc);
	enum limosa_place place = node->index < DMIRROR_NODES / 2 ?
				  LIMOSA_PLACE_PRIVATE : LIMOSA_PLACE_COHERENT;
	struct limosa_device *device;
	struct dmirror *d;
	int ret = -ENODEV;

	device = limosa_device_get(node->index % (DMIRROR_NODES / 2));
	if (!device)
		return -ENODEV;
	if (!device->vram[place].nr_pages)
		goto out;
	ret = -ENOMEM;
	d = kzalloc_obj(*d);
	if (!d)
		goto out;
	ret = dmirror_attach(d, device, place);
	if (ret)
		kfree(d);
	else
		file->private_data = d;
out:
	limosa_device_put(device);
	return ret;
}

static int dmirror_release(struct inode *inode, struct file *file)
{
	struct dmirror *d = file->private_data;

	limosa_mirror_remove(&d->mirror);
	xa_destroy(&d->table);
	limosa_client_put(d->client);
	kfree(d);
	return 0;
}

static const struct file_operations dmirror_fops = {
	.owner = THIS_MODULE,
	.open = dmirror_open,
	.release = dmirror_release,
	.mmap = dmirror_mmap,
	.unlocked_ioctl = dmirror_ioctl,
};

static void dmirror_deregister(unsigned int nr)
{
	while (nr--)
		misc_deregister(&dmirror_nodes[nr].misc);
}

static int __init dmirror_init(void)
{
	struct dmirror_node *node;
	unsigned int i;
	int ret;

	for (i = 0; i < DMIRROR_NODES; i++) {
		node = &dmirror_nodes[i];
		node->index = i;
		snprintf(node->name, sizeof(node->name), "hmm_dmirror%u", i);
		node->misc.minor = MISC_DYNAMIC_MINOR;
		node->misc.name = node->name;
		node->misc.fops = &dmirror_fops;
		ret = misc_register(&node->misc);
		if (ret) {
			dmirror_deregister(i);
			return ret;
		}
	}
	return 0;
}

static void __exit dmirror_exit(void)
{
	dmirror_deregister(DMIRROR_NODES);
}

module_init(dmirror_init);
module_exit(dmirror_exit);
MODULE_DESCRIPTION("The kernel's hmm-tests against limosa; for tests alone");
MODULE_LICENSE("GPL");
