// SPDX-License-Identifier: GPL-2.0
/*
 * A load: a file's data to device pages behind a range of the caller's memory,
 * by the disk's own DMA.
 *
 * It goes in chunks of at most 2 MiB, several of which are read at a time. For
 * each the memory is taken first, then the file is read to it by its P2PDMA
 * pages (read.c), and then its DEVICE_PRIVATE pages are put where the range has none.
 * In this order: with pages collected for migration, or under mmap_lock, no I/O
 * may be done, as file systems take their locks over it.
 *
 * Where the range has a page by then, the CPU copies: with the device left, so
 * that whoever makes that wait (a userfaultfd) makes no unbind wait.
 *
 * It does not read where the CPU would have to carry the data (probe.c tells),
 * and has no way for the other direction: device pages would have to be held
 * while a file system takes its time, and a CPU that touches one would wait for
 * it. A pool can be written from.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/migrate.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/userfaultfd_k.h>

#include "files.h"

/* Chunks that are read at a time. */
#define LIMOSA_LOAD_DEPTH	4
/*
 * Pages of a chunk that is not 2 MiB: to put so many in place takes about as long
 * as to read them, so one is done while the others are under way.
 */
#define LIMOSA_LOAD_PAGES	64UL

/**
 * struct limosa_load_run - a call under way
 * @client: who pays
 * @file: what is read
 * @align: bytes in a block: what a read begins and ends at, but for the end of
 *	   the file
 * @args: the call's, with what it came to so far
 * @first: the oldest chunk under way; they are a ring
 * @nr: how many are
 * @depth: how many may be: one where the CPU has had to copy
 * @next: first address that no chunk was begun for
 * @end: of the range
 * @paged: memory of the chunk that has become pages of the device
 * @copy: pages of the chunk that the CPU has to copy
 * @bounce: what comes to them; NULL as long as there are none
 * @src: for migrate_vma
 * @dst: for migrate_vma
 */
struct limosa_load_run {
	struct limosa_client *client;
	struct file *file;
	u32 align;
	struct limosa_load *args;
	unsigned int first;
	unsigned int nr;
	unsigned int depth;
	unsigned long next;
	unsigned long end;
	DECLARE_BITMAP(paged, LIMOSA_HUGE_PAGES);
	DECLARE_BITMAP(copy, LIMOSA_HUGE_PAGES);
	void *bounce;
	unsigned long src[LIMOSA_HUGE_PAGES];
	unsigned long dst[LIMOSA_HUGE_PAGES];
	struct limosa_chunk chunks[LIMOSA_LOAD_DEPTH];
};

static struct limosa_vram *limosa_load_vram(struct limosa_load_run *run)
{
	return &run->client->device->vram[LIMOSA_PLACE_PRIVATE];
}

/* Whether memory of the VMA can stand on the device before it was touched. */
static bool limosa_load_fits(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma) && limosa_vma_may_leave(vma) &&
	       vma->vm_flags & VM_WRITE;
}

/* --------------------------------------------------------------- chunks */

/* Gives back what memory of it is not in @paged, and leaves the device. */
static void limosa_chunk_end(struct limosa_load_run *run,
			     struct limosa_chunk *chunk)
{
	unsigned long i;

	for_each_clear_bit(i, run->paged, chunk->nr)
		limosa_vram_unreserve(limosa_load_vram(run), run->client,
				      chunk->index[i], 0);
	limosa_device_exit(run->client->device, chunk->srcu);
}

/* A run of 2 MiB for all of it, or single pages for a part. */
static int limosa_chunk_reserve(struct limosa_load_run *run,
				struct limosa_chunk *chunk, unsigned long nr)
{
	struct limosa_vram *vram = limosa_load_vram(run);
	unsigned long i, block = DIV_ROUND_UP(run->align, PAGE_SIZE);
	long index = -ENOSPC;
	int got;

	if (nr == LIMOSA_HUGE_PAGES &&
	    run->client->max_order >= LIMOSA_HUGE_ORDER)
		index = limosa_vram_reserve(vram, run->client,
					    LIMOSA_HUGE_ORDER);
	chunk->huge = index >= 0;
	if (chunk->huge) {
		chunk->nr = nr;
		for (i = 0; i < nr; i++)
			chunk->index[i] = index + i;
		return 0;
	}
	nr = min(nr, max(block, LIMOSA_LOAD_PAGES));
	got = limosa_vram_reserve_pages(vram, run->client, nr, chunk->index);
	if (got < 0)
		return got;
	/* As much as fits is loaded, in whole blocks: the next finds nothing. */
	chunk->nr = round_down(got, block);
	while (got > chunk->nr)
		limosa_vram_unreserve(vram, run->client, chunk->index[--got], 0);
	return chunk->nr ? 0 : -ENOSPC;
}

/* Takes memory for the next chunk, and begins to read. */
static int limosa_chunk_begin(struct limosa_load_run *run)
{
	struct limosa_device *device = run->client->device;
	struct limosa_chunk *chunk =
		&run->chunks[(run->first + run->nr) % LIMOSA_LOAD_DEPTH];
	unsigned long bytes;
	int err;

	if (!limosa_device_enter(device, &chunk->srcu))
		return -ENODEV;
	/* To the next 2 MiB of memory, but in whole blocks of the file. */
	bytes = min(run->end, ALIGN(run->next + 1, PMD_SIZE)) - run->next;
	bytes = max(round_down(bytes, run->align), run->align);
	chunk->addr = run->next;
	chunk->pos = run->args->offset + (chunk->addr - run->args->addr);
	err = limosa_chunk_reserve(run, chunk, PHYS_PFN(bytes));
	if (err) {
		limosa_device_exit(device, chunk->srcu);
		return err;
	}
	chunk->bytes = chunk->nr << PAGE_SHIFT;
	limosa_read_begin(device, chunk, run->file);
	run->next += chunk->bytes;
	run->nr++;
	return 0;
}

/* Waits for the oldest chunk: bytes that it got, or an error. It stays entered. */
static ssize_t limosa_chunk_wait(struct limosa_load_run *run,
				 struct limosa_chunk **chunk)
{
	*chunk = &run->chunks[run->first];
	run->first = (run->first + 1) % LIMOSA_LOAD_DEPTH;
	run->nr--;
	return limosa_read_end(run->client->device, *chunk, run->file,
			       run->align);
}

/* What is under way is not wanted: it is begun anew, or never. */
static void limosa_chunks_drop(struct limosa_load_run *run)
{
	struct limosa_chunk *chunk;

	bitmap_zero(run->paged, LIMOSA_HUGE_PAGES);
	while (run->nr) {
		limosa_chunk_wait(run, &chunk);
		limosa_chunk_end(run, chunk);
	}
}

/* ------------------------------------------------ putting pages in place */

static void *limosa_chunk_bytes(struct limosa_load_run *run,
				struct limosa_chunk *chunk, unsigned long i)
{
	return limosa_load_vram(run)->bytes +
	       ((unsigned long)chunk->index[i] << PAGE_SHIFT);
}

/*
 * Pages for what core has found empty, and for nothing else: to replace what is
 * there would change it for those who share it since fork(), too.
 */
static void limosa_place_fill(struct limosa_load_run *run,
			      struct limosa_chunk *chunk, struct migrate_vma *m)
{
	unsigned long i, at = PHYS_PFN(m->start - chunk->addr);
	struct page *page;

	for (i = 0; i < m->npages; i++) {
		bool whole = m->src[i] & MIGRATE_PFN_COMPOUND;

		if (!(m->src[i] & MIGRATE_PFN_MIGRATE) ||
		    migrate_pfn_to_page(m->src[i]))
			continue;
		page = limosa_vram_page(limosa_load_vram(run), run->client,
					chunk->index[at + i],
					whole ? LIMOSA_HUGE_ORDER : 0);
		bitmap_set(run->paged, at + i, whole ? LIMOSA_HUGE_PAGES : 1);
		m->dst[i] = migrate_pfn(page_to_pfn(page));
		if (whole)
			m->dst[i] |= MIGRATE_PFN_COMPOUND;
	}
}

/* What core has put in place needs no copy. */
static void limosa_place_count(struct limosa_load_run *run,
			       struct limosa_chunk *chunk,
			       struct migrate_vma *m)
{
	unsigned long i, at = PHYS_PFN(m->start - chunk->addr);

	for (i = 0; i < m->npages; i++) {
		bool whole = m->dst[i] & MIGRATE_PFN_COMPOUND;

		if (!(m->src[i] & MIGRATE_PFN_MIGRATE) || !m->dst[i])
			continue;
		bitmap_clear(run->copy, at + i, whole ? LIMOSA_HUGE_PAGES : 1);
		if (!whole)
			continue;
		run->args->loaded_huge++;
		limosa_count(run->client, LIMOSA_HUGE_LOADED, 1);
	}
}

/*
 * Keeps what the CPU is to copy, out of the pages [at, end) of the chunk: with
 * the finalize, core frees the pages that it was given and did not put in place.
 */
static int limosa_place_save(struct limosa_load_run *run,
			     struct limosa_chunk *chunk, unsigned long at,
			     unsigned long end)
{
	unsigned long i = at;

	for_each_set_bit_from(i, run->copy, end) {
		if (!run->bounce)
			run->bounce = kvmalloc(chunk->nr << PAGE_SHIFT,
					       GFP_KERNEL_ACCOUNT);
		if (!run->bounce)
			return -ENOMEM;
		memcpy(run->bounce + (i << PAGE_SHIFT),
		       limosa_chunk_bytes(run, chunk, i), PAGE_SIZE);
	}
	return 0;
}

/*
 * Puts pages in place in [start, end) of one VMA; the rest is to be copied.
 * Where a userfaultfd or KSM has a say, nothing is ours to fill.
 */
static int limosa_place_vma(struct limosa_load_run *run,
			    struct limosa_chunk *chunk,
			    struct vm_area_struct *vma, unsigned long start,
			    unsigned long end)
{
	unsigned long at = PHYS_PFN(start - chunk->addr);
	unsigned long to = PHYS_PFN(end - chunk->addr);
	struct migrate_vma m = {
		.vma = vma,
		.start = start,
		.end = end,
		.src = run->src,
		.dst = run->dst,
		.pgmap_owner = limosa_load_vram(run)->pgmap.owner,
		/* None that are there: only holes are collected. */
		.flags = 0,
	};
	int err;

	bitmap_set(run->copy, at, to - at);
	if (!limosa_load_fits(vma) || userfaultfd_armed(vma))
		return limosa_place_save(run, chunk, at, to);
	if (chunk->huge && end - start == PMD_SIZE &&
	    !(vma->vm_flags & VM_NOHUGEPAGE))
		m.flags |= MIGRATE_VMA_SELECT_COMPOUND;
	err = migrate_vma_setup(&m);
	if (err)
		return err;
	if (!m.cpages)
		return limosa_place_save(run, chunk, at, to);
	limosa_place_fill(run, chunk, &m);
	migrate_vma_pages(&m);
	limosa_place_count(run, chunk, &m);
	err = limosa_place_save(run, chunk, at, to);
	migrate_vma_finalize(&m);
	return err;
}

/* The first @nr pages of the chunk. Returns how many came into place or @copy. */
static unsigned long limosa_place(struct limosa_load_run *run,
				  struct limosa_chunk *chunk, unsigned long nr,
				  int *err)
{
	struct mm_struct *mm = run->client->mm;
	unsigned long addr = chunk->addr, end = addr + (nr << PAGE_SHIFT), next;

	bitmap_zero(run->copy, LIMOSA_HUGE_PAGES);
	bitmap_zero(run->paged, LIMOSA_HUGE_PAGES);
	*err = mmap_read_lock_killable(mm) ? -EINTR : 0;
	if (*err)
		return 0;
	for (; addr < end && !*err; addr = next) {
		struct vm_area_struct *vma = vma_lookup(mm, addr);

		if (!vma) {
			*err = -EFAULT;
			break;
		}
		next = min(end, vma->vm_end);
		*err = limosa_place_vma(run, chunk, vma, addr, next);
		if (*err) /* what is not saved is lost, and what comes after */
			break;
	}
	mmap_read_unlock(mm);
	return PHYS_PFN(addr - chunk->addr);
}

/*
 * As the caller itself would write there. Nothing of the device is held: who is
 * to provide the page may take as long as it likes.
 */
static unsigned long limosa_copy_over(struct limosa_load_run *run,
				      unsigned long addr, unsigned long nr)
{
	unsigned long i;

	for_each_set_bit(i, run->copy, nr) {
		void __user *to = (void __user *)(addr + (i << PAGE_SHIFT));

		if (copy_to_user(to, run->bounce + (i << PAGE_SHIFT), PAGE_SIZE))
			return i;
	}
	return nr;
}

/* ----------------------------------------------------------- the whole */

/* The pages up to @placed are dealt with. */
static void limosa_load_count(struct limosa_load_run *run, unsigned long addr,
			      unsigned long placed, size_t bytes)
{
	unsigned long copied = bitmap_weight(run->copy, placed);

	run->args->cursor = addr + (placed << PAGE_SHIFT);
	run->args->bytes += min(bytes, placed << PAGE_SHIFT);
	run->args->copied += copied;
	run->args->loaded += placed - copied;
	limosa_count(run->client, LIMOSA_PAGES_LOADED, placed - copied);
	limosa_count(run->client, LIMOSA_PAGES_LOAD_COPIED, copied);
}

/* Zeroes behind the end of the file, in its last page. */
static void limosa_chunk_zero(struct limosa_load_run *run,
			      struct limosa_chunk *chunk, size_t got)
{
	if (!PAGE_ALIGNED(got))
		memset(limosa_chunk_bytes(run, chunk, got >> PAGE_SHIFT) +
		       offset_in_page(got), 0,
		       PAGE_SIZE - offset_in_page(got));
	/* These, and holes that the kernel filled, before anybody is told. */
	wmb();
}

/* The oldest chunk, to its end. Return: 0, 1 (the file ended), or an error. */
static int limosa_chunk_finish(struct limosa_load_run *run)
{
	struct limosa_chunk *chunk;
	unsigned long nr, placed;
	ssize_t got;
	bool ended;
	int err;

	bitmap_zero(run->paged, LIMOSA_HUGE_PAGES);
	got = limosa_chunk_wait(run, &chunk);
	if (got < 0) {
		limosa_chunk_end(run, chunk);
		return got;
	}
	ended = got < chunk->bytes;
	chunk->huge &= !ended;
	limosa_chunk_zero(run, chunk, got);
	nr = PHYS_PFN(PAGE_ALIGN(got));
	placed = limosa_place(run, chunk, nr, &err);
	limosa_chunk_end(run, chunk);
	if (run->bounce) {
		/* The others go, too: they have the device entered. */
		limosa_chunks_drop(run);
		run->depth = 1;
		run->next = chunk->addr + (nr << PAGE_SHIFT);
		placed = limosa_copy_over(run, chunk->addr, placed);
		kvfree(run->bounce);
		run->bounce = NULL;
		if (!err && placed < nr)
			err = -EFAULT;
	} else {
		run->depth = LIMOSA_LOAD_DEPTH;
	}
	limosa_load_count(run, chunk->addr, placed, got);
	return err ?: ended;
}

/*
 * At least one chunk a call: a caller with a timer gets on, too. What stands in
 * the way of the next chunk is told when those before it are done.
 */
static int limosa_load_all(struct limosa_load_run *run)
{
	unsigned long from = run->next;
	int ret, err = 0;

	for (;;) {
		while (!err && run->nr < run->depth &&
		       run->next < run->end) {
			if (run->next != from && signal_pending(current))
				err = -EINTR;
			else
				err = limosa_chunk_begin(run);
		}
		if (!run->nr)
			return err;
		ret = limosa_chunk_finish(run);
		if (ret) {
			limosa_chunks_drop(run);
			if (ret > 0)
				run->args->cursor = run->end;
			return min(ret, 0);
		}
		/* Others may have been dropped, and what they had is free. */
		if (!run->nr)
			err = 0;
		cond_resched();
	}
}

/* What would be no load at all is told before anything is read. */
static int limosa_load_check_range(struct mm_struct *mm, unsigned long addr,
				   unsigned long end)
{
	struct vm_area_struct *vma;
	int err = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for (; addr < end && !err; addr = vma ? vma->vm_end : end) {
		vma = vma_lookup(mm, addr);
		if (!vma || !(vma->vm_flags & VM_WRITE))
			err = -EFAULT;
		else if (!limosa_load_fits(vma))
			err = -EOPNOTSUPP;
	}
	mmap_read_unlock(mm);
	return err;
}

static int limosa_load_check_file(struct limosa_client *client,
				  struct file *file,
				  const struct limosa_load *args, u32 *align)
{
	struct limosa_probe probe = {};
	int err;

	err = limosa_probe_file(client->device, file, LIMOSA_FROM_FILE, &probe);
	if (err)
		return err;
	if (probe.verdict != LIMOSA_VERDICT_DIRECT)
		return -EOPNOTSUPP;
	/* It is a power of two. A block that is no chunk is none of today's. */
	if (probe.offset_align > PMD_SIZE)
		return -EOPNOTSUPP;
	*align = probe.offset_align;
	return IS_ALIGNED(args->offset | args->len, *align) ? 0 : -EINVAL;
}

static int limosa_load_file(struct limosa_client *client, struct file *file,
			    struct limosa_load *args)
{
	unsigned long end = args->addr + args->len;
	struct limosa_load_run *run;
	u32 align;
	int err;

	err = limosa_load_check_file(client, file, args, &align);
	if (!err)
		err = limosa_load_check_range(client->mm, args->addr, end);
	if (err)
		return err;
	run = kvzalloc_obj(*run, GFP_KERNEL_ACCOUNT);
	if (!run)
		return -ENOMEM;
	run->client = client;
	run->file = file;
	run->align = align;
	run->args = args;
	run->next = args->addr;
	run->end = end;
	run->depth = LIMOSA_LOAD_DEPTH;
	err = limosa_load_all(run);
	kvfree(run);
	return err;
}

int limosa_ioctl_load(struct limosa_client *client, void *data)
{
	struct limosa_load *args = data;
	struct file *file;
	int err;

	args->cursor = args->addr;
	args->bytes = 0;
	args->loaded = 0;
	args->loaded_huge = 0;
	args->copied = 0;
	err = limosa_check_range(args->addr, args->len);
	if (err || args->reserved || args->offset > LLONG_MAX - args->len)
		return -EINVAL;
	file = fget(args->fd);
	if (!file)
		return -EBADF;
	err = limosa_load_file(client, file, args);
	fput(file);
	return err;
}
