// SPDX-License-Identifier: GPL-2.0
/*
 * Reading a file to the device's memory by the disk's DMA: its pages of P2PDMA are
 * put into a direct read.
 *
 * Whose the memory is, and what becomes of it, is the caller's affair (load.c),
 * as is that there is a way for the DMA (probe.c): where there is none, and a
 * kernel's own request is not asked, a driver may refuse it late, or not at all.
 */
#include <linux/blkdev.h>
#include <linux/bvec.h>
#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/ioprio.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/uio.h>

#include "files.h"

/*
 * A bio of kernel pages takes no references, and no page is put anywhere: so they
 * are named here without being lent (limosa_p2p_lend()).
 */
static void limosa_read_name(struct limosa_device *device,
			     struct limosa_chunk *chunk)
{
	struct bio_vec *bvec = NULL;
	unsigned long i;

	chunk->nr_bvecs = 0;
	for (i = 0; i < chunk->nr; i++) {
		if (i && chunk->index[i] == chunk->index[i - 1] + 1) {
			bvec->bv_len += PAGE_SIZE;
			continue;
		}
		bvec = &chunk->bvecs[chunk->nr_bvecs++];
		bvec_set_page(bvec, device->p2p.first + chunk->index[i],
			      PAGE_SIZE, 0);
	}
}

static void limosa_read_done(struct kiocb *kiocb, long ret)
{
	struct limosa_chunk *chunk =
		container_of(kiocb, struct limosa_chunk, kiocb);

	chunk->ret = ret;
	complete(&chunk->done);
}

/*
 * Core marks a bio of P2PDMA pages as not to be merged where it takes them from
 * user space, and not here: a scheduler could join it with one of RAM, and the
 * driver, which looks at the first page, would map both as the one is. Requests
 * of different priority are not joined, so these have a hint that nobody else
 * gives, and for each device its own.
 */
static u16 limosa_read_priority(struct limosa_device *device)
{
	u16 prio = get_current_ioprio();
	int class = IOPRIO_PRIO_CLASS(prio);

	if (class == IOPRIO_CLASS_NONE)
		class = IOPRIO_CLASS_BE;
	return IOPRIO_PRIO_VALUE_HINT(class, IOPRIO_PRIO_LEVEL(prio),
				      IOPRIO_NR_HINTS / 2 +
				      device->index % (IOPRIO_NR_HINTS / 2));
}

/* Begins to read what is behind the first @got bytes. */
static void limosa_read_rest(struct limosa_device *device,
			     struct limosa_chunk *chunk, struct file *file,
			     size_t got)
{
	struct iov_iter iter;
	ssize_t ret;

	iov_iter_bvec(&iter, ITER_DEST, chunk->bvecs, chunk->nr_bvecs,
		      chunk->bytes);
	iov_iter_advance(&iter, got);
	init_completion(&chunk->done);
	init_sync_kiocb(&chunk->kiocb, file);
	chunk->kiocb.ki_flags |= IOCB_DIRECT;
	chunk->kiocb.ki_pos = chunk->pos + got;
	chunk->kiocb.ki_complete = limosa_read_done;
	chunk->kiocb.ki_ioprio = limosa_read_priority(device);
	ret = vfs_iocb_iter_read(file, &chunk->kiocb, &iter);
	if (ret != -EIOCBQUEUED)
		limosa_read_done(&chunk->kiocb, ret);
}

/* Errors of reading, as the interface has them. */
static int limosa_read_error(ssize_t ret)
{
	switch (ret) {
	case -ENOMEM:
		return -ENOMEM;
	case -EINTR:
	case -ERESTARTSYS:
		return -EINTR;
	case -EINVAL:	/* that is how a queue says that there is no way */
	case -EOPNOTSUPP:
	case -EREMOTEIO:
		return -EOPNOTSUPP;
	default:
		return -EIO;
	}
}

/* A disk that is gone has no bytes: what is read of it ends, with no error. */
static bool limosa_read_from_nothing(struct file *file)
{
	return S_ISBLK(file_inode(file)->i_mode) &&
	       test_bit(GD_DEAD, &file_bdev(file)->bd_disk->state);
}

/* Waits for what was begun, and reads on where that was short: bytes, or error. */
ssize_t limosa_read_end(struct limosa_device *device, struct limosa_chunk *chunk,
			struct file *file, u32 align)
{
	size_t got = 0;

	for (;;) {
		/* Not to be interrupted: DMA is under way. */
		wait_for_completion(&chunk->done);
		if (chunk->ret < 0)
			return limosa_read_error(chunk->ret);
		/* The file system has read through the page cache instead. */
		if (!(chunk->kiocb.ki_flags & IOCB_DIRECT))
			return -EOPNOTSUPP;
		got += chunk->ret;
		if (got == chunk->bytes)
			return got;
		if (limosa_read_from_nothing(file))
			return -EIO;
		/* A direct read that ends within a block ends the file. */
		if (!chunk->ret || !IS_ALIGNED(got, align))
			return got;
		limosa_read_rest(device, chunk, file, got);
	}
}

void limosa_read_begin(struct limosa_device *device, struct limosa_chunk *chunk,
		       struct file *file)
{
	limosa_read_name(device, chunk);
	limosa_read_rest(device, chunk, file, 0);
}

int limosa_read_try(struct limosa_device *device, struct file *file, size_t len)
{
	struct limosa_vram *vram = &device->vram[LIMOSA_PLACE_PRIVATE];
	struct limosa_chunk *chunk;
	ssize_t got;
	long index;

	chunk = kvzalloc_obj(*chunk);
	if (!chunk)
		return -ENOMEM;
	index = limosa_vram_take(vram, 0);
	if (index < 0) {
		kvfree(chunk);
		return index;
	}
	chunk->nr = 1;
	chunk->index[0] = index;
	/* One block and no more: a page may be more than the file's. */
	chunk->bytes = len;
	limosa_read_begin(device, chunk, file);
	got = limosa_read_end(device, chunk, file, len);
	limosa_vram_give(vram, index, 0);
	kvfree(chunk);
	return min(got, 0);
}
