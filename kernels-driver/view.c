// SPDX-License-Identifier: GPL-2.0
/*
 * A view: a mirror whose page table is a VMA of the same process, the window.
 * A thread that reads and writes the window is the device, a fault in it the
 * device's fault. It has what a real device's driver has, but for the hardware.
 *
 * Window and mirrored range are different addresses of one mm, so the fault of
 * one faults in the other under the same hold of mmap_lock, and a change of the
 * other zaps the window from within the notifier. What can meet:
 *
 *  - munmap() of the window, and a fault in it: mmap_lock. After the fault is
 *    out of the way, limosa_window_invalidate() empties the window and forgets
 *    its VMA under mirror.lock, before its page tables are taken apart; an
 *    invalidation of the range finds either entries that it can still zap, or
 *    none. It must be emptied there: else what is left in it until core comes
 *    to it would outlive the page behind it, for another thread to see.
 *  - exit and exec: the same, by the RELEASE event, for which no thread is left.
 *    A view's descriptor that was inherited by a child, or survived exec, is
 *    good for nothing there (EPERM); nor is the window copied by fork().
 *  - munmap(), mprotect(), mremap(), fork() and reclaim of the range: the
 *    mirror's notifier. A fault that read before and writes after is stopped by
 *    mmu_interval_read_retry(); the next looks at the VMA that is there then.
 *  - mremap() and splitting of the window are refused. A refused mremap() has
 *    the window emptied, too; the next fault finds its VMA again.
 *  - close() with the window mapped: its VMA holds the file, the file this view,
 *    the client and the module. The last of them runs limosa_view_release(),
 *    where nothing of mm is held.
 *  - two threads that fault on one page: the second finds the entry there, or
 *    one that does not permit the write, which .pfn_mkwrite removes.
 *  - two views of overlapping ranges: two locks, never held together.
 *  - a view whose range holds a window: it would have to be invalidated from
 *    within an invalidation, two such would wait for each other. Refused, at
 *    either's birth; and hmm maps nothing that has no struct page's reference.
 *  - unbinding of the device: its pages come back and are zapped as in any other
 *    move; from then on the policy is not asked.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hmm.h>
#include <linux/lockdep.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>

#include "limosa.h"

/* How often it is looked whether a hold is over. */
#define HOLD_TICK	(HZ / 10)

/**
 * struct limosa_vma_view - a view
 * @mirror: the device page table; its lock protects @vma and @failed*
 * @window_notifier: tells what becomes of the window
 * @node: in limosa_views
 * @mapped: there is, or was, a window; limosa_views_lock
 * @base: first byte of the window; fixed once @mapped
 * @vma: the window's, from the first fault until its page tables go
 * @policies: what of the range is to be on the device
 * @expire: ends what their guard against thrashing holds
 * @failed: who last had no page of a userfaultfd
 * @failed_addr: where
 */
struct limosa_vma_view {
	struct limosa_mirror mirror;
	struct mmu_interval_notifier window_notifier;
	struct list_head node;
	bool mapped;
	unsigned long base;
	struct vm_area_struct *vma;
	struct limosa_policies policies;
	struct delayed_work expire;
	struct task_struct *failed;
	unsigned long failed_addr;
};

/**
 * struct limosa_access - a fault in the window
 * @vmf: as core has it
 * @addr: the page in the mirrored range
 * @write: whether it is to be written
 * @migrate: the policy wants it on the device, and the device can take it
 * @moved: pages around it were moved there for it
 */
struct limosa_access {
	struct vm_fault *vmf;
	unsigned long addr;
	bool write;
	bool migrate;
	bool moved;
};

/* All views, so that no window lies in a mirrored range. */
static LIST_HEAD(limosa_views);
static DEFINE_MUTEX(limosa_views_lock);

static struct limosa_vma_view *limosa_mirror_view(struct limosa_mirror *mirror)
{
	return container_of(mirror, struct limosa_vma_view, mirror);
}

static unsigned long limosa_view_len(struct limosa_vma_view *view)
{
	return view->mirror.end - view->mirror.start;
}

/* ------------------------------------------------ the device page table */

/*
 * zap_special_vma_range() tells the notifiers of the window of it, from within
 * one of the range. Lockdep knows them as one and the same lock and takes that
 * for a recursion; core neither exports that lock nor gives it a nesting level,
 * so that the only way is not to look. What it does not see: the window's page
 * table locks under mirror.lock, which limosa_view_map() shows it, too, and
 * limosa_window_invalidate(), which returns at once.
 */
static void limosa_view_zap(struct limosa_mirror *mirror, unsigned long start,
			    unsigned long end)
{
	struct limosa_vma_view *view = limosa_mirror_view(mirror);

	lockdep_assert_held(&mirror->lock);
	if (!view->vma || start >= end)
		return;
	lockdep_off();
	zap_special_vma_range(view->vma, view->base + (start - mirror->start),
			      end - start);
	lockdep_on();
}

/* What a device maps for a page; one that it may write is dirty from now on. */
static unsigned long limosa_view_pfn(struct page *page, bool writable)
{
	struct limosa_vram *vram = limosa_page_vram(page);
	struct folio *folio = page_folio(page);

	/*
	 * The write leaves no trace in the CPU's page table. Memory that goes
	 * to swap, or that was given up by MADV_FREE, would be dropped as clean;
	 * a file system's page is dirty whenever it is writable at all. A page
	 * on the device takes the mark along when it comes back.
	 */
	if (writable && !folio_test_dirty(folio) &&
	    (folio_test_anon(folio) || folio_test_swapbacked(folio)))
		folio_mark_dirty(folio);
	return vram ? limosa_page_bar_pfn(vram, page) : page_to_pfn(page);
}

/* The core has changed something; our own zaps do not come here. */
static void limosa_view_invalidate(struct limosa_mirror *mirror,
				   unsigned long start, unsigned long end)
{
	limosa_thrash_gone(&limosa_mirror_view(mirror)->policies.thrash, start, end);
	limosa_view_zap(mirror, start, end);
}

/*
 * What the policy says of an entry. The page that was accessed is mapped in any
 * case, but not for ever where it should not be. A neighbour that should move,
 * too, gets its own fault for it, unless the move failed.
 */
static bool limosa_view_may_map(struct limosa_vma_view *view,
				const struct limosa_access *access,
				unsigned long addr, unsigned long hmm_pfn)
{
	struct limosa_client *client = view->mirror.client;
	enum limosa_place place;

	if (!limosa_snapshot_place(client, hmm_pfn, &place))
		return false;
	if (place != LIMOSA_PLACE_SYSTEM || !access->migrate)
		return true;
	if (addr == access->addr) {
		if (limosa_thrash_stays(&view->policies.thrash, addr))
			queue_delayed_work(limosa_wq, &view->expire, HOLD_TICK);
		return true;
	}
	return !access->moved;
}

static int limosa_view_map(struct limosa_mirror *mirror, unsigned long addr,
			   unsigned long nr, const unsigned long *hmm_pfns,
			   void *arg)
{
	struct limosa_vma_view *view = limosa_mirror_view(mirror);
	const struct limosa_access *access = arg;
	struct vm_fault *vmf = access->vmf;
	struct vm_area_struct *vma = vmf->vma;
	unsigned long at = view->base + (addr - mirror->start);
	unsigned long i, mapped = 0;

	if (vma->vm_start != view->base)
		return -EFAULT;
	view->vma = vma;
	for (i = 0; i < nr; i++, addr += PAGE_SIZE, at += PAGE_SIZE) {
		vm_flags_t flags = vma->vm_flags;
		struct page *page;
		vm_fault_t ret;

		if (!limosa_view_may_map(view, access, addr, hmm_pfns[i]))
			continue;
		if (!(hmm_pfns[i] & HMM_PFN_WRITE))
			flags &= ~VM_WRITE;
		page = limosa_hmm_page(hmm_pfns[i], addr);
		ret = vmf_insert_pfn_prot(vma, at,
					  limosa_view_pfn(page, flags & VM_WRITE),
					  vm_get_page_prot(flags));
		if (ret == VM_FAULT_NOPAGE)
			mapped++;
		else if (at == vmf->address)
			return ret & VM_FAULT_OOM ? -ENOMEM : -EFAULT;
	}
	limosa_count(mirror->client, LIMOSA_GPU_FAULT_PAGES, mapped);
	return 0;
}

static const struct limosa_mirror_ops limosa_view_mirror_ops = {
	.map = limosa_view_map,
	.zap = limosa_view_invalidate,
};

/* Our own zaps come here, too, as CLEAR, with mirror.lock held. */
static bool limosa_window_invalidate(struct mmu_interval_notifier *notifier,
				     const struct mmu_notifier_range *range,
				     unsigned long seq)
{
	struct limosa_vma_view *view =
		container_of(notifier, struct limosa_vma_view, window_notifier);
	struct limosa_mirror *mirror = &view->mirror;

	if (range->event != MMU_NOTIFY_UNMAP &&
	    range->event != MMU_NOTIFY_RELEASE)
		return true;
	if (!limosa_mirror_lock_for(mirror, notifier, range, seq))
		return false;
	limosa_view_zap(mirror, mirror->start, mirror->end);
	view->vma = NULL;
	mutex_unlock(&mirror->lock);
	return true;
}

static const struct mmu_interval_notifier_ops limosa_window_notifier_ops = {
	.invalidate = limosa_window_invalidate,
};

/* ------------------------------------------------------------ the guard */

static void limosa_view_hold_ended(struct limosa_thrash *thrash,
				   unsigned long start, unsigned long end)
{
	struct limosa_vma_view *view =
		container_of(thrash, struct limosa_vma_view, policies.thrash);
	struct limosa_mirror *mirror = &view->mirror;

	limosa_view_zap(mirror, max(start, mirror->start),
			min(end, mirror->end));
}

static void limosa_view_expire(struct work_struct *work)
{
	struct limosa_vma_view *view =
		container_of(work, struct limosa_vma_view, expire.work);
	bool holds;

	mutex_lock(&view->mirror.lock);
	holds = limosa_thrash_expire(&view->policies.thrash, limosa_view_hold_ended);
	mutex_unlock(&view->mirror.lock);
	if (holds)
		queue_delayed_work(limosa_wq, &view->expire, HOLD_TICK);
}

/* -------------------------------------------------------------- the window */

static unsigned long limosa_view_addr(struct limosa_vma_view *view,
				      struct vm_fault *vmf)
{
	return view->mirror.start + (vmf->address - vmf->vma->vm_start);
}

/* A page is not to be had: as an access by the CPU would have been answered. */
static vm_fault_t limosa_view_refuse(struct limosa_vma_view *view,
				     const struct limosa_access *access)
{
	struct mm_struct *mm = view->mirror.client->mm;
	struct vm_area_struct *vma = vma_lookup(mm, access->addr);
	vm_flags_t right = access->write ? VM_WRITE : VM_READ;

	if (!vma || (vma->vm_flags & VM_SPECIAL) || !(vma->vm_flags & right))
		return VM_FAULT_SIGSEGV;
	return VM_FAULT_SIGBUS;
}

/* Whether this thread's last try at a page of a userfaultfd was in vain. */
static bool limosa_view_failed(struct limosa_vma_view *view, unsigned long addr)
{
	bool failed;

	mutex_lock(&view->mirror.lock);
	failed = view->failed == current && view->failed_addr == addr;
	if (failed)
		view->failed = NULL;
	mutex_unlock(&view->mirror.lock);
	return failed;
}

/*
 * A userfaultfd is to provide the page: wait for it without mmap_lock, and have
 * the access begin anew. An error can only be returned with mmap_lock held: it
 * is kept for the next time.
 */
static vm_fault_t limosa_view_wait(struct limosa_vma_view *view,
				   const struct limosa_access *access)
{
	struct vm_fault *vmf = access->vmf;
	unsigned long addr = access->addr;
	struct file *file;
	int err;

	if (!(vmf->flags & FAULT_FLAG_ALLOW_RETRY) ||
	    ((vmf->flags & FAULT_FLAG_TRIED) && limosa_view_failed(view, addr)))
		return limosa_view_refuse(view, access);
	if (vmf->flags & FAULT_FLAG_RETRY_NOWAIT)
		return VM_FAULT_RETRY;

	file = get_file(vmf->vma->vm_file);
	mmap_read_unlock(vmf->vma->vm_mm);
	/* From here on the VMA may be gone; the file keeps the view. */
	err = limosa_mirror_touch_unlocked(&view->mirror, addr, access->write);
	if (err && err != -EBUSY && err != -EINTR) {
		mutex_lock(&view->mirror.lock);
		view->failed = current;
		view->failed_addr = addr;
		mutex_unlock(&view->mirror.lock);
	}
	fput(file);
	return VM_FAULT_RETRY;
}

/* Maps the page, and those around it that one page table of the window holds. */
static int limosa_view_map_around(struct limosa_vma_view *view,
				  struct limosa_access *access)
{
	unsigned long at = access->vmf->address, addr = access->addr;
	unsigned long start, end;

	start = max(ALIGN_DOWN(addr, LIMOSA_AROUND), view->mirror.start);
	end = min(ALIGN(addr + 1, LIMOSA_AROUND), view->mirror.end);
	limosa_policies_at(&view->policies, addr, &start, &end);
	start = addr - min(addr - start, at - ALIGN_DOWN(at, PMD_SIZE));
	end = addr + min(end - addr, ALIGN(at + 1, PMD_SIZE) - at);
	return limosa_mirror_fault(&view->mirror, addr, start,
				   (end - start) >> PAGE_SHIFT, access->write,
				   access);
}

static vm_fault_t limosa_view_fault(struct vm_fault *vmf)
{
	struct limosa_vma_view *view = vmf->vma->vm_private_data;
	struct limosa_access access = {
		.vmf = vmf,
		.addr = limosa_view_addr(view, vmf),
		.write = vmf->flags & FAULT_FLAG_WRITE,
	};

	limosa_count(view->mirror.client, LIMOSA_GPU_FAULTS, 1);
	/* A page table, now: under the lock its allocation could reclaim. */
	if (apply_to_page_range(vmf->vma->vm_mm, vmf->address, PAGE_SIZE, NULL,
				NULL))
		return VM_FAULT_OOM;
	access.migrate = limosa_policies_move(&view->policies, access.addr,
					      access.write, &access.moved);
	switch (limosa_view_map_around(view, &access)) {
	case 0:
	case -EBUSY:
	case -EINTR:
		return VM_FAULT_NOPAGE;
	case -EAGAIN:
		return limosa_view_wait(view, &access);
	case -ENOMEM:
		return VM_FAULT_OOM;
	default:
		return limosa_view_refuse(view, &access);
	}
}

/*
 * A write to an entry that does not permit it. Only a look at the range can
 * tell if it may: take the entry away, and the access comes back as a fault.
 */
static vm_fault_t limosa_view_pfn_mkwrite(struct vm_fault *vmf)
{
	struct limosa_vma_view *view = vmf->vma->vm_private_data;
	unsigned long addr = limosa_view_addr(view, vmf);

	mutex_lock(&view->mirror.lock);
	limosa_view_zap(&view->mirror, addr, addr + PAGE_SIZE);
	mutex_unlock(&view->mirror.lock);
	return VM_FAULT_NOPAGE;
}

/* A zap that is not all within one VMA would do nothing. */
static int limosa_view_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	return -EINVAL;
}

static int limosa_view_mremap(struct vm_area_struct *vma)
{
	return -EINVAL;
}

/*
 * Whether one of [start, end), a range of @view's or its window, and another's
 * window or range overlap. @view itself counts. limosa_views_lock held.
 */
static bool limosa_views_overlap(struct limosa_vma_view *view, bool window,
				 unsigned long start, unsigned long end)
{
	struct limosa_vma_view *other;
	unsigned long lo, hi;

	list_for_each_entry(other, &limosa_views, node) {
		if (other->mirror.client->mm != view->mirror.client->mm)
			continue;
		lo = window ? other->mirror.start : other->base;
		hi = lo + limosa_view_len(other);
		if ((window || other->mapped) && start < hi && lo < end)
			return true;
	}
	return false;
}

/* The window is there; mmap_lock held for writing. */
static int limosa_view_mapped(unsigned long start, unsigned long end,
			      pgoff_t pgoff, const struct file *file,
			      void **private_data)
{
	struct limosa_vma_view *view = *private_data;
	int err = 0;

	mutex_lock(&limosa_views_lock);
	if (view->mapped || limosa_views_overlap(view, true, start, end)) {
		err = -EBUSY;
	} else {
		view->base = start;
		view->mapped = true;
	}
	mutex_unlock(&limosa_views_lock);
	if (err)
		return err;
	err = mmu_interval_notifier_insert_locked(&view->window_notifier,
						  view->mirror.client->mm,
						  start, end - start,
						  &limosa_window_notifier_ops);
	if (err)
		view->mapped = false;
	return err;
}

static const struct vm_operations_struct limosa_view_vm_ops = {
	.mapped = limosa_view_mapped,
	.fault = limosa_view_fault,
	.pfn_mkwrite = limosa_view_pfn_mkwrite,
	.may_split = limosa_view_may_split,
	.mremap = limosa_view_mremap,
};

static int limosa_view_mmap_prepare(struct vm_area_desc *desc)
{
	struct limosa_vma_view *view = desc->file->private_data;

	if (desc->mm != view->mirror.client->mm)
		return -EPERM;
	if (!vma_desc_test(desc, VMA_SHARED_BIT) || desc->pgoff ||
	    desc->end - desc->start != limosa_view_len(view))
		return -EINVAL;
	vma_desc_set_flags(desc, VMA_PFNMAP_BIT, VMA_IO_BIT, VMA_DONTCOPY_BIT,
			   VMA_DONTEXPAND_BIT, VMA_DONTDUMP_BIT);
	vma_desc_clear_flags(desc, VMA_MAYEXEC_BIT);
	desc->vm_ops = &limosa_view_vm_ops;
	desc->private_data = view;
	return 0;
}

/* -------------------------------------------------------------- the file */

static int limosa_view_ioctl_policy(struct limosa_vma_view *view, void __user *user)
{
	struct limosa_policy args;
	unsigned long end;
	int err;

	err = limosa_read_args(&args, sizeof(args),
			       offsetofend(struct limosa_policy, reserved), user);
	if (err)
		return err;
	if (args.flags)
		return -EOPNOTSUPP;
	if (view->mirror.client->mm != current->mm)
		return -EPERM;
	if (args.reserved || args.policy > LIMOSA_POLICY_MIGRATE ||
	    limosa_check_range(args.addr, args.len))
		return -EINVAL;
	end = args.addr + args.len;
	if (args.addr < view->mirror.start || end > view->mirror.end)
		return -EFAULT;
	return limosa_policies_set(&view->policies, args.addr, end, args.policy);
}

static long limosa_view_ioctl(struct file *file, unsigned int cmd,
			      unsigned long arg)
{
	if (cmd != LIMOSA_POLICY)
		return -ENOTTY;
	return limosa_view_ioctl_policy(file->private_data, (void __user *)arg);
}

static void limosa_view_free(struct limosa_vma_view *view)
{
	struct limosa_client *client = view->mirror.client;

	mutex_lock(&limosa_views_lock);
	list_del(&view->node);
	mutex_unlock(&limosa_views_lock);
	limosa_policies_fini(&view->policies);
	kfree(view);
	limosa_client_put(client);
}

static int limosa_view_release(struct inode *inode, struct file *file)
{
	struct limosa_vma_view *view = file->private_data;

	cancel_delayed_work_sync(&view->expire);
	if (view->mapped)
		mmu_interval_notifier_remove(&view->window_notifier);
	limosa_mirror_remove(&view->mirror);
	limosa_view_free(view);
	return 0;
}

static const struct file_operations limosa_view_fops = {
	.owner = THIS_MODULE,
	.release = limosa_view_release,
	.mmap_prepare = limosa_view_mmap_prepare,
	.unlocked_ioctl = limosa_view_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/* Before it: limosa_mirror_insert() takes mmap_lock, and may fail. */
static int limosa_view_add(struct limosa_vma_view *view, unsigned long start,
			   unsigned long end)
{
	int err = 0;

	mutex_lock(&limosa_views_lock);
	if (limosa_views_overlap(view, false, start, end))
		err = -EBUSY;
	else
		list_add(&view->node, &limosa_views);
	mutex_unlock(&limosa_views_lock);
	return err;
}

struct file *limosa_view_create(struct limosa_client *client,
				unsigned long addr, unsigned long len,
				enum limosa_policy_kind policy)
{
	struct limosa_vma_view *view;
	struct file *file;
	int err;

	if (limosa_check_range(addr, len) || policy > LIMOSA_POLICY_MIGRATE)
		return ERR_PTR(-EINVAL);
	view = kzalloc_obj(*view, GFP_KERNEL_ACCOUNT);
	if (!view)
		return ERR_PTR(-ENOMEM);
	limosa_client_get(client);
	view->mirror.client = client;
	INIT_LIST_HEAD(&view->node);
	INIT_DELAYED_WORK(&view->expire, limosa_view_expire);
	view->mirror.start = addr;
	view->mirror.end = addr + len;
	err = limosa_policies_init(&view->policies, &view->mirror, policy);
	if (!err)
		err = limosa_view_add(view, addr, addr + len);
	if (!err)
		err = limosa_mirror_insert(&view->mirror, client, addr,
					   addr + len, &limosa_view_mirror_ops);
	if (err)
		goto free;
	file = anon_inode_getfile("[limosa-view]", &limosa_view_fops, view,
				  O_RDWR);
	if (!IS_ERR(file))
		return file;
	err = PTR_ERR(file);
	limosa_mirror_remove(&view->mirror);
free:
	limosa_view_free(view);
	return ERR_PTR(err);
}
