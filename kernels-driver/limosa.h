/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the driver know of each other; files.h has the rest of it,
 * for the parts that have to do with files.
 *
 *   driver.c   PCI function <-> struct limosa_device: bind, unbind, parameters
 *   client.c   an open file of /dev/limosaN: ioctls, limit, counters
 *   vram.c     one range of device memory: struct pages, allocator, charging
 *   migrate.c  moving pages: to the device, back, at unbind
 *   fault.c    a CPU touched a page of the device: fault-around along a streak
 *   mirror.c   a device page table kept equal to a range of a process's memory
 *   view.c     such a table that is a VMA: the software device's
 *   policy.c   where pages of a mirror shall be, and what to move for an access
 *   thrash.c   what is not moved for now, as it came back too soon
 *   query.c    residency
 *   p2p.c      the memory as pages that other devices reach; lending them
 *   pool.c     such pages in processes' memory
 *   probe.c    what becomes of data between a file and this device
 *   route.c    which way DMA between a disk and this device takes
 *   read.c     a file's data to the memory, by the disk's DMA
 *   load.c     from a file to the device pages behind a range
 *   debug.c    debugfs: what the bench and fault injection need
 *
 * Locks, outermost first. Nothing of ours is held where core mm is called but
 * for the device's SRCU, which only delays an unbind; so a view's fault may
 * enter it with mmap_lock held, too:
 *
 *   mmap_lock
 *     limosa_device.live (SRCU)
 *       folio locks, page table locks (core mm's)
 *         limosa_mirror.lock    never across an allocation that may reclaim
 *           page table locks of the view
 *         limosa_vram.lock      a spinlock; leaf
 *       limosa_client.streak_lock  a spinlock; leaf
 *     limosa_views_lock       a mutex; leaf
 *
 *   limosa_device.pools_lock    a mutex; leaf
 *
 * A load holds the device while it reads a file, and then takes mmap_lock, both
 * of which others may keep from it for a time: an unbind waits for them.
 */
#ifndef _LIMOSA_H
#define _LIMOSA_H

#include <linux/atomic.h>
#include <linux/kref.h>
#include <linux/maple_tree.h>
#include <linux/memremap.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/workqueue.h>
#include <uapi/linux/limosa.h>

struct limosa_client;
struct limosa_device;

/* Pages in a folio of 2 MiB, the largest that is moved as one. */
#define LIMOSA_HUGE_ORDER	(PMD_SHIFT - PAGE_SHIFT)
#define LIMOSA_HUGE_PAGES	(1UL << LIMOSA_HUGE_ORDER)

/**
 * enum limosa_counter - what is counted, in the order of struct limosa_counters
 */
enum limosa_counter {
	LIMOSA_PAGES_TO_DEVICE,
	LIMOSA_HUGE_TO_DEVICE,
	LIMOSA_PAGES_TO_SYSTEM,
	LIMOSA_HUGE_TO_SYSTEM,
	LIMOSA_CPU_FAULTS,
	LIMOSA_CPU_FAULT_PAGES,
	LIMOSA_GPU_FAULTS,
	LIMOSA_GPU_FAULT_PAGES,
	LIMOSA_GPU_PAGES_MOVED,
	LIMOSA_GPU_MOVES_HELD,
	LIMOSA_GPU_MOVES_FULL,
	LIMOSA_GPU_RETRIES,
	LIMOSA_INVALIDATIONS,
	LIMOSA_PAGES_EVICTED,
	LIMOSA_PAGES_LOADED,
	LIMOSA_HUGE_LOADED,
	LIMOSA_PAGES_LOAD_COPIED,
	LIMOSA_NR_COUNTERS,
};

struct limosa_counter_set {
	atomic64_t count[LIMOSA_NR_COUNTERS];
};

/* ---------------------------------------------------------------- vram.c */

/**
 * struct limosa_vram - one range of a device's memory, with struct pages
 * @device: whose it is
 * @pgmap: its pages; pgmap.owner is this struct
 * @bytes: the memory in the kernel's address space: byte i is byte i of the
 *         range, whatever the pages' own pfns are
 * @bar_pfn: pfn of the memory itself, which a device (or a view) maps
 * @region: the physical addresses of DEVICE_PRIVATE pages; in whole sections, so
 *          it may be larger than the range
 * @first_pfn: pfn of the first struct page; DEVICE_PRIVATE pages stand at
 *             physical addresses where nothing is
 * @nr_pages: its size
 * @lock: protects all below; irq-safe, as pages are freed from anywhere
 * @nr_free: pages that nobody has
 *
 * The allocator hands out single pages and whole, aligned runs of 2 MiB, and
 * keeps the runs whole as long as it can. Memory handed out holds whatever was
 * there: who takes it overwrites all of it before it is mapped anywhere.
 */
struct limosa_vram {
	struct limosa_device *device;
	struct dev_pagemap pgmap;
	void *bytes;
	unsigned long bar_pfn;
	struct resource *region;
	unsigned long first_pfn;
	unsigned long nr_pages;

	spinlock_t lock;
	unsigned long nr_free;
	struct limosa_run *runs;
	struct list_head whole;
	struct list_head broken;
};

int limosa_vram_init(struct limosa_vram *vram, struct limosa_device *device,
		     enum limosa_place place, resource_size_t offset,
		     resource_size_t size);
/* No page is in use any more. */
void limosa_vram_fini(struct limosa_vram *vram);

/*
 * Memory that nobody pays for, without its struct pages: for a short time.
 * Return: its index, or -ENOSPC.
 */
long limosa_vram_take(struct limosa_vram *vram, unsigned int order);
void limosa_vram_give(struct limosa_vram *vram, unsigned long index,
		      unsigned int order);

/* While nothing is in use: takes all from @from on, a multiple of 2 MiB. */
void limosa_vram_withhold(struct limosa_vram *vram, unsigned long from);
void limosa_vram_put_back(struct limosa_vram *vram, unsigned long from);

/* The indices in use of run @run, at most LIMOSA_HUGE_PAGES: how many. */
unsigned int limosa_vram_used(struct limosa_vram *vram, unsigned long run,
			      unsigned long *indices);

/**
 * limosa_vram_reserve() - take memory and charge it to a client
 * @vram: from where
 * @client: who pays
 * @order: 0 or LIMOSA_HUGE_ORDER
 *
 * Between limosa_device_enter() and limosa_device_exit(). What was taken as a
 * whole may be given back, or become pages, one by one.
 *
 * Return: its index, -ENOSPC, -EDQUOT, or -ENODEV (the device is going).
 */
long limosa_vram_reserve(struct limosa_vram *vram, struct limosa_client *client,
			 unsigned int order);
/* The same for @nr single pages. Return: how many there were, if any. */
int limosa_vram_reserve_pages(struct limosa_vram *vram,
			      struct limosa_client *client, unsigned int nr,
			      u32 *indices);
void limosa_vram_unreserve(struct limosa_vram *vram,
			   struct limosa_client *client, unsigned long index,
			   unsigned int order);

/**
 * limosa_vram_page() - make a folio of memory that was reserved
 * @vram: whose
 * @client: who pays for it already, and does until the folio is freed
 * @index: where it is
 * @order: 0 or LIMOSA_HUGE_ORDER
 *
 * Return: the first page of a locked folio with one reference.
 */
struct page *limosa_vram_page(struct limosa_vram *vram,
			      struct limosa_client *client, unsigned long index,
			      unsigned int order);

/* Both: a page, or NULL and the error of limosa_vram_reserve() in @err. */
struct page *limosa_vram_alloc(struct limosa_vram *vram,
			       struct limosa_client *client,
			       unsigned int order, int *err);

/* The vram that a page is of, or NULL if it is not a page of this driver. */
struct limosa_vram *limosa_page_vram(struct page *page);

static inline unsigned long limosa_page_index(struct limosa_vram *vram,
					      struct page *page)
{
	return page_to_pfn(page) - vram->first_pfn;
}

/*
 * Who pays for a page of this driver; as long as the folio has a reference.
 * (folio_zone_device_data() is for DEVICE_PRIVATE alone.)
 */
static inline struct limosa_client *limosa_page_client(struct page *page)
{
	return page_folio(page)->page.zone_device_data;
}

/* Where the kernel reads and writes what the page holds. */
static inline void *limosa_page_bytes(struct limosa_vram *vram,
				      struct page *page)
{
	return vram->bytes + (limosa_page_index(vram, page) << PAGE_SHIFT);
}

/* What a device maps to reach what the page holds. */
static inline unsigned long limosa_page_bar_pfn(struct limosa_vram *vram,
						struct page *page)
{
	return vram->bar_pfn + limosa_page_index(vram, page);
}

/* ----------------------------------------------------------------- p2p.c */

/**
 * struct limosa_p2p - the private memory once more, as pages of P2PDMA
 * @kaddr: all of it but for what is published, taken from the kernel's pool of
 *	   such memory, so that nobody else hands it out; NULL if there is none
 * @first: its first page; page i is the page i of the private vram
 * @pgmap: core's, of these pages
 * @published: pages at the end that are left in the kernel's pool
 *
 * A page is without references as long as nobody has it. It gets one when it is
 * lent, and whoever lent it takes it back when that is the last: core, which
 * frees a page that loses its last reference, never sees that.
 */
struct limosa_p2p {
	void *kaddr;
	struct page *first;
	struct dev_pagemap *pgmap;
	unsigned long published;
};

/*
 * After limosa_vram_init(). Without such memory there are no pools and no loads,
 * which is no failure. -EBUSY: somebody else has some of it already.
 */
int limosa_p2p_init(struct limosa_device *device, int bar);
/* Nothing is lent any more. The published part is the vram's again. */
void limosa_p2p_unpublish(struct limosa_device *device);
/* The private memory is free. Before limosa_vram_fini(). */
void limosa_p2p_fini(struct limosa_device *device);

/*
 * The pages of memory that the caller has reserved, as one folio of @order (0 or
 * LIMOSA_HUGE_ORDER) with one reference.
 */
struct page *limosa_p2p_lend(struct limosa_device *device, unsigned long index,
			     unsigned int order);
/* Takes it, if it is the last. */
bool limosa_p2p_take_back(struct limosa_device *device, unsigned long index,
			  unsigned int order);

/* -------------------------------------------------------------- driver.c */

/**
 * struct limosa_device - a PCI function that the driver is bound to
 * @ref: the binding's, and one for each client
 * @live: readers use the device's memory; unbind waits for them
 * @gone: set by unbind, read under @live
 * @vram: indexed by enum limosa_place; a range of no pages where there is none
 * @p2p: the private one, as other devices reach it
 * @pools_lock: protects @pools, the pools that are open and have pages
 * @settling: pools that were closed and wait for I/O
 */
struct limosa_device {
	struct kref ref;
	struct pci_dev *pdev;
	unsigned int index;
	char name[20];
	struct miscdevice misc;
	struct srcu_struct live;
	bool gone;
	struct limosa_vram vram[LIMOSA_PLACE_COHERENT + 1];
	struct limosa_p2p p2p;
	struct mutex pools_lock;
	struct list_head pools;
	atomic_t settling;
	struct limosa_counter_set counters;
	struct dentry *debugfs;
};

extern struct workqueue_struct *limosa_wq;

/* The device with this number, referenced, or NULL. */
struct limosa_device *limosa_device_get(unsigned int index);
void limosa_device_put(struct limosa_device *device);

/* Keeps an unbind from ending until limosa_device_exit(). False: it is gone. */
bool limosa_device_enter(struct limosa_device *device, int *idx);
void limosa_device_exit(struct limosa_device *device, int idx);

/* -------------------------------------------------------------- client.c */

#define LIMOSA_NR_STREAKS	8

/**
 * struct limosa_streak - CPU faults at neighbouring addresses
 * @lo: first byte of what the last of them brought back
 * @hi: end of it
 * @pages: how many pages that was, had nothing clipped it
 */
struct limosa_streak {
	unsigned long lo;
	unsigned long hi;
	unsigned long pages;
};

/**
 * struct limosa_client - who pays for device memory: one open file
 * @ref: the file's, one for each view, and one for each folio charged
 * @mm: whose memory it speaks of; mmgrab()ed, to be compared, not to be used
 *      unless current->mm is it
 * @limit: pages of device memory it may have in use
 * @used: pages of device memory it has in use
 * @max_order: the largest folio that is tried for it; the kernel's own tests
 *             turn large ones off
 * @streak_lock: protects @streaks, and @oldest_streak, which is replaced next
 * @release: the last reference may go where nothing may sleep
 */
struct limosa_client {
	struct kref ref;
	struct limosa_device *device;
	struct mm_struct *mm;
	atomic_long_t limit;
	atomic_long_t used;
	unsigned int max_order;
	struct limosa_counter_set counters;

	spinlock_t streak_lock;
	unsigned int oldest_streak;
	struct limosa_streak streaks[LIMOSA_NR_STREAKS];

	struct work_struct release;
};

struct limosa_client *limosa_client_create(struct limosa_device *device,
					   struct mm_struct *mm);
static inline void limosa_client_get(struct limosa_client *client)
{
	kref_get(&client->ref);
}
void limosa_client_put(struct limosa_client *client);

extern const struct file_operations limosa_fops;

/* Counts for the client and its device. */
void limosa_count(struct limosa_client *client, enum limosa_counter counter,
		  long by);

/* Whether [addr, addr + len) is a well-formed range: 0, or -EINVAL. */
int limosa_check_range(u64 addr, u64 len);

/* Reads a size-first struct; @least is the size of its first version. */
int limosa_read_args(void *args, size_t size, size_t least,
		     const void __user *from);
/* Writes back as much of it as the caller knows. */
int limosa_write_args(const void *args, size_t size, void __user *to);

/* ------------------------------------------------------------- migrate.c */

/**
 * struct limosa_moved - what a move came to
 * @next: first address that was not dealt with
 * @moved: pages that were moved
 * @moved_huge: how often 2 MiB were moved as one
 */
struct limosa_moved {
	unsigned long next;
	unsigned long moved;
	unsigned long moved_huge;
};

/**
 * limosa_move_to_device() - move what can be moved to the device
 * @client: who pays
 * @mm: whose memory; mmap_lock held for reading
 * @start: first byte, page aligned
 * @end: end of the range, page aligned
 * @place: LIMOSA_PLACE_PRIVATE or LIMOSA_PLACE_COHERENT
 * @moved: result, added to; valid also on failure
 *
 * Works in steps of at most 2 MiB. Does not drop mmap_lock; the ioctl calls it
 * for 2 MiB at a time.
 *
 * Return: 0, -EFAULT (nothing is mapped at @moved->next), -ENOSPC, -EDQUOT,
 * -ENOMEM, -ENODEV.
 */
int limosa_move_to_device(struct limosa_client *client, struct mm_struct *mm,
			  unsigned long start, unsigned long end,
			  enum limosa_place place, struct limosa_moved *moved);

/* Whether memory of a VMA can go to a device at all. */
bool limosa_vma_may_leave(struct vm_area_struct *vma);

/* The same for bringing back this device's pages of both kinds. */
int limosa_move_to_system(struct limosa_client *client, struct mm_struct *mm,
			  unsigned long start, unsigned long end,
			  struct limosa_moved *moved);

/* Brings back every page of @vram, whoever has it mapped. Device not live. */
void limosa_evict_all(struct limosa_vram *vram);

/* System memory for pages that come back: none of it is worth killing for. */
#define LIMOSA_GFP_HUGE	(GFP_TRANSHUGE | __GFP_NORETRY)
#define LIMOSA_GFP_BASE	(GFP_HIGHUSER_MOVABLE | __GFP_RETRY_MAYFAIL | \
			 __GFP_NOWARN)

/* A locked system folio that holds what the device folio held, or NULL. */
struct folio *limosa_copy_back(struct page *spage, unsigned int order, gfp_t gfp,
			       struct vm_area_struct *vma, unsigned long addr);

/**
 * limosa_count_back() - count what core has moved to the system
 * @src: migrate_vma.src, after migrate_vma_pages() and before the finalize
 * @npages: its length
 * @also: a counter that the pages count in besides LIMOSA_PAGES_TO_SYSTEM
 * @moved: added to; may be NULL
 */
void limosa_count_back(const unsigned long *src, unsigned long npages,
		       enum limosa_counter also, struct limosa_moved *moved);

/* --------------------------------------------------------------- fault.c */

/* pgmap->ops->migrate_to_ram: a CPU touched a page of DEVICE_PRIVATE. */
vm_fault_t limosa_migrate_to_ram(struct vm_fault *vmf);

/* --------------------------------------------------------------- debug.c */

void limosa_debug_init(void);
void limosa_debug_exit(void);
void limosa_debug_add(struct limosa_device *device);
void limosa_debug_remove(struct limosa_device *device);

#ifdef CONFIG_FAULT_INJECTION
/* Whether an allocation is to fail, to see what becomes of it. */
bool limosa_should_fail(void);
#else
static inline bool limosa_should_fail(void)
{
	return false;
}
#endif

/* -------------------------------------------------------------- mirror.c */

struct limosa_mirror;

/**
 * struct limosa_mirror_ops - the hooks of a device's page table
 * @map: write @nr entries from @addr on, out of what hmm_range_fault() found;
 *       mirror->lock held, the entries are valid as long as it is. Must not
 *       allocate in a way that reclaims.
 * @zap: remove the entries of [start, end), which lies within the mirrored
 *       range, and see to it that the device no longer uses them;
 *       mirror->lock held. As @map.
 */
struct limosa_mirror_ops {
	int (*map)(struct limosa_mirror *mirror, unsigned long addr,
		   unsigned long nr, const unsigned long *hmm_pfns, void *arg);
	void (*zap)(struct limosa_mirror *mirror, unsigned long start,
		    unsigned long end);
};

/**
 * struct limosa_mirror - a device page table for [start, end) of a process
 * @notifier: tells what changes in the range
 * @lock: the device page table's: taken by fault and invalidation
 * @client: for whom
 */
struct limosa_mirror {
	struct mmu_interval_notifier notifier;
	struct mutex lock;
	const struct limosa_mirror_ops *ops;
	struct limosa_client *client;
	unsigned long start;
	unsigned long end;
};

/* Begins mirroring. mmap_lock not held. */
int limosa_mirror_insert(struct limosa_mirror *mirror,
			 struct limosa_client *client, unsigned long start,
			 unsigned long end, const struct limosa_mirror_ops *ops);
/* Ends it; no zap comes after. mmap_lock not held. */
void limosa_mirror_remove(struct limosa_mirror *mirror);

/*
 * Takes mirror->lock for an invalidation that @notifier tells of, and enters
 * @seq. False: it may not wait, and the lock is not to be had now.
 */
bool limosa_mirror_lock_for(struct limosa_mirror *mirror,
			    struct mmu_interval_notifier *notifier,
			    const struct mmu_notifier_range *range,
			    unsigned long seq);

/* The most pages that one fault maps: it keeps their entries on the stack. */
#define LIMOSA_FAULT_PAGES	16
#define LIMOSA_AROUND		(LIMOSA_FAULT_PAGES * PAGE_SIZE)

/**
 * limosa_mirror_fault() - have the device's entries made, as the CPU's are
 * @mirror: whose
 * @addr: the address that was touched, page aligned
 * @start: first page of those to map, page aligned; @addr is one of them. The
 *         others are mapped if they are present, with the right they have.
 * @nr: how many, at most LIMOSA_FAULT_PAGES
 * @write: the device wants to write to @addr
 * @arg: for ops->map
 *
 * mmap_lock held for reading. Pages of the device's own private memory are
 * mapped where they are, unless they cannot be written there (copy-on-write):
 * then they come back to be copied.
 *
 * Return: 0 when ops->map was called and returned 0, else its error, -EFAULT or
 * -EPERM (not mapped, or not permitted), -ENOMEM, -EINTR (a fatal signal),
 * -EBUSY (the memory changed for a second on end: let the device try again),
 * -EAGAIN (a userfaultfd or a file is to provide the page, for which mmap_lock
 * must be dropped: limosa_mirror_touch_unlocked(), and try again).
 */
int limosa_mirror_fault(struct limosa_mirror *mirror, unsigned long addr,
			unsigned long start, unsigned long nr, bool write,
			void *arg);

/**
 * limosa_mirror_touch() - touch a page as a CPU would
 * @mirror: one whose range holds it
 * @addr: its address, page aligned
 * @write: whether to write
 * @back: whether a page of the client's own private memory is to come back, as
 *        it would be copied on a CPU's write; else it is good where it is. The
 *        unlocked variant always has it come back.
 *
 * mmap_lock held for reading; for the unlocked variant not held.
 *
 * Return: 0 (the page was there at one moment), -EBUSY (it changed, or took too
 * long), -EAGAIN (not of the unlocked variant), -EFAULT, -EPERM, -ENOMEM,
 * -EINTR, as above.
 */
int limosa_mirror_touch(struct limosa_mirror *mirror, unsigned long addr,
			bool write, bool back);
int limosa_mirror_touch_unlocked(struct limosa_mirror *mirror,
				 unsigned long addr, bool write);

/* The page behind an entry of hmm's, for 2 MiB device folios, too. */
struct page *limosa_hmm_page(unsigned long hmm_pfn, unsigned long addr);

/* -------------------------------------------------------------- thrash.c */

/**
 * struct limosa_thrash - which blocks of memory are tossed to and fro
 * @blocks: a hash table; a collision forgets what was there
 * @mask: its size less one
 *
 * A block of 64 KiB whose pages come back to the system soon after the device
 * had them moved, or that cannot be moved, is held: it stays where it is for a
 * time, in which the device maps it there. If that happens again after the hold
 * ended, the next is twice as long. The caller locks.
 */
struct limosa_thrash {
	struct limosa_thrash_block *blocks;
	unsigned long mask;
};

int limosa_thrash_init(struct limosa_thrash *thrash, unsigned long bytes);
void limosa_thrash_fini(struct limosa_thrash *thrash);

/* The device had [start, end) moved to its memory; it took so many jiffies. */
void limosa_thrash_moved(struct limosa_thrash *thrash, unsigned long start,
			 unsigned long end, unsigned long took);

/* The device lost its entries for [start, end). */
void limosa_thrash_gone(struct limosa_thrash *thrash, unsigned long start,
			unsigned long end);

/*
 * The device would like to have a page moved that is in system memory: whether
 * it is to stay there. If not, [@start, @end) around it loses what is held.
 */
bool limosa_thrash_holds(struct limosa_thrash *thrash, unsigned long addr,
			 unsigned long *start, unsigned long *end);

/*
 * The device maps a page in system memory that it would like to have: holds it,
 * if it is not held. False: there is no guard.
 */
bool limosa_thrash_stays(struct limosa_thrash *thrash, unsigned long addr);

/*
 * Ends the holds that are over. Calls @ended for each of their blocks, as the
 * device does not fault on what it has mapped. Returns whether any is left.
 */
bool limosa_thrash_expire(struct limosa_thrash *thrash,
			  void (*ended)(struct limosa_thrash *thrash,
					unsigned long start,
					unsigned long end));

/* -------------------------------------------------------------- policy.c */

/**
 * struct limosa_policies - where the pages of a mirrored range shall be
 * @mirror: of which range
 * @tree: enum limosa_policy_kind of each address
 * @thrash: what is not to be moved for now; mirror->lock protects it
 */
struct limosa_policies {
	struct limosa_mirror *mirror;
	struct maple_tree tree;
	struct limosa_thrash thrash;
};

/* mirror->start and end are set. limosa_policies_fini() also on failure. */
int limosa_policies_init(struct limosa_policies *policies,
			 struct limosa_mirror *mirror,
			 enum limosa_policy_kind kind);
void limosa_policies_fini(struct limosa_policies *policies);

int limosa_policies_set(struct limosa_policies *policies, unsigned long start,
			unsigned long end, enum limosa_policy_kind kind);

/* Whether memory at @addr is to move; cuts [@start, @end) to where it holds. */
bool limosa_policies_at(struct limosa_policies *policies, unsigned long addr,
			unsigned long *start, unsigned long *end);

/**
 * limosa_policies_move() - move for an access what shall be on the device
 * @policies: of what is accessed
 * @addr: the page, page aligned
 * @write: whether it is to be written
 * @moved: whether it, or what is around it, was moved
 *
 * mmap_lock held for reading.
 *
 * Return: whether the page is to be on the device, and may be there now.
 */
bool limosa_policies_move(struct limosa_policies *policies, unsigned long addr,
			  bool write, bool *moved);

/* ---------------------------------------------------------------- view.c */

/* The file of a new view, or an error pointer. */
struct file *limosa_view_create(struct limosa_client *client,
				unsigned long addr, unsigned long len,
				enum limosa_policy_kind policy);

/* --------------------------------------------------------------- query.c */

/* ioctl(LIMOSA_RESIDENCY); fills in the results also on failure. */
int limosa_query_residency(struct limosa_client *client,
			   struct limosa_residency *args);

/**
 * limosa_snapshot() - what the CPU's page table holds now
 * @client: whose device's private pages are to be seen
 * @mm: mmap_lock held for reading
 * @start: first byte, page aligned
 * @end: end of the range, page aligned
 * @hmm_pfns: an entry for each page
 *
 * Nothing keeps the result true: use its numbers, not the pages that they are
 * of.
 */
int limosa_snapshot(struct limosa_client *client, struct mm_struct *mm,
		    unsigned long start, unsigned long end,
		    unsigned long *hmm_pfns);

/* Where the page of an entry is; false if there is none. */
bool limosa_snapshot_place(struct limosa_client *client, unsigned long hmm_pfn,
			   enum limosa_place *place);

#endif /* _LIMOSA_H */
