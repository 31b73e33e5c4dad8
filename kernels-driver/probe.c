// SPDX-License-Identifier: GPL-2.0
/*
 * What becomes of data between a file and this device's memory: told before a
 * transfer, as one that succeeded does not tell.
 *
 * What would decide first comes first here: the descriptor, the file system,
 * the block device's queue, what the CPU does with the data, and the way
 * between the two PCI functions. Nothing of the device is held meanwhile: a
 * file may answer late, or never.
 *
 * It asks the kernel and reads a block at most; it keeps nothing, so the answer
 * is as good as the moment.
 */
#include <linux/blk-integrity.h>
#include <linux/blkdev.h>
#include <linux/file.h>
#include <linux/fileattr.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/pagemap.h>
#include <linux/stat.h>
#include <linux/string.h>

#include "files.h"

/**
 * struct limosa_probing - a file on its way to a verdict
 * @file: which
 * @inode: its inode, of the file system that it was opened in
 * @bdev: the block device that gets the file's requests, once it is known
 * @direction: which way data goes
 * @touched: why the CPU touches the data although the disk has its pages
 * @probe: the result
 */
struct limosa_probing {
	struct file *file;
	struct inode *inode;
	struct block_device *bdev;
	enum limosa_direction direction;
	enum limosa_reason touched;
	struct limosa_probe *probe;
};

static void limosa_judge(struct limosa_probing *p, enum limosa_verdict verdict,
			 enum limosa_reason reason)
{
	p->probe->verdict = verdict;
	p->probe->reason = reason;
}

/* The way is there: direct, unless the CPU touches the data at its end. */
static void limosa_judge_open(struct limosa_probing *p)
{
	if (p->touched != LIMOSA_REASON_NONE)
		limosa_judge(p, LIMOSA_VERDICT_STAGED, p->touched);
	else
		limosa_judge(p, LIMOSA_VERDICT_DIRECT, LIMOSA_REASON_NONE);
}

/* ------------------------------------------------------- the file system */

/* The kinds whose direct I/O hands pages to s_bdev as they are. */
static const char * const limosa_plain_fs[] = { "ext4", "ext3", "ext2", "xfs" };

static bool limosa_fs_is(struct inode *inode, const char *name)
{
	return !strcmp(inode->i_sb->s_type->name, name);
}

/*
 * It does not tell which disks it is on. With checksums it copies what is to be
 * written; what is read the disk must be able to send, and the CPU reads it then.
 */
static void limosa_probe_btrfs(struct limosa_probing *p, u32 flags)
{
	enum limosa_reason reason = LIMOSA_REASON_CHECKSUM;
	bool write = p->direction == LIMOSA_TO_FILE;

	p->probe->memory_align = i_blocksize(p->inode);
	p->probe->offset_align = i_blocksize(p->inode);
	if (IS_VERITY(p->inode)) {
		limosa_judge(p, LIMOSA_VERDICT_STAGED, reason);
		return;
	}
	if (flags & FS_NOCOW_FL) {
		limosa_judge(p, LIMOSA_VERDICT_UNKNOWN,
			     LIMOSA_REASON_FILE_SYSTEM);
		return;
	}
	if (!write && (flags & FS_COMPR_FL))
		reason = LIMOSA_REASON_COMPRESSED;
	limosa_judge(p, write ? LIMOSA_VERDICT_STAGED : LIMOSA_VERDICT_UNKNOWN,
		     reason);
}

/* No direct I/O to this file, says a file system that has it: the page cache. */
static void limosa_probe_fallback(struct limosa_probing *p, u32 flags)
{
	enum limosa_reason reason = LIMOSA_REASON_NO_DIRECT_IO;

	if (IS_VERITY(p->inode))
		reason = LIMOSA_REASON_CHECKSUM;
	else if (IS_ENCRYPTED(p->inode))
		reason = LIMOSA_REASON_ENCRYPTED;
	else if (flags & FS_INLINE_DATA_FL)
		reason = LIMOSA_REASON_INLINE;
	limosa_judge(p, LIMOSA_VERDICT_STAGED, reason);
}

static void limosa_probe_plain(struct limosa_probing *p,
			       const struct file_kattr *attr)
{
	struct limosa_probe *probe = p->probe;
	struct kstat stat;

	if (vfs_getattr(&p->file->f_path, &stat,
			STATX_DIOALIGN | STATX_DIO_READ_ALIGN, 0) ||
	    !(stat.result_mask & STATX_DIOALIGN)) {
		limosa_judge(p, LIMOSA_VERDICT_UNKNOWN,
			     LIMOSA_REASON_FILE_SYSTEM);
		return;
	}
	if (!stat.dio_mem_align || !stat.dio_offset_align) {
		limosa_probe_fallback(p, attr->flags);
		return;
	}
	probe->memory_align = stat.dio_mem_align;
	probe->offset_align = stat.dio_offset_align;
	if (p->direction == LIMOSA_FROM_FILE && stat.dio_read_offset_align)
		probe->offset_align = stat.dio_read_offset_align;

	/* It has pages of its own copied, which works from a pool, but not to it. */
	if (limosa_fs_is(p->inode, "xfs") &&
	    mapping_stable_writes(p->file->f_mapping)) {
		limosa_judge(p, p->direction == LIMOSA_TO_FILE ?
			     LIMOSA_VERDICT_STAGED : LIMOSA_VERDICT_REFUSED,
			     LIMOSA_REASON_STABLE_WRITES);
		return;
	}
	/* Those are on another device than s_bdev. */
	if (attr->fsx_xflags & FS_XFLAG_REALTIME) {
		limosa_judge(p, LIMOSA_VERDICT_UNKNOWN,
			     LIMOSA_REASON_FILE_SYSTEM);
		return;
	}
	if (IS_ENCRYPTED(p->inode))
		p->touched = LIMOSA_REASON_ENCRYPTED;
	p->bdev = p->inode->i_sb->s_bdev;
}

/*
 * Sets p->bdev where that is to decide, or judges. Only file systems that are
 * known are asked anything: another's answer may come from user space.
 */
static void limosa_probe_regular(struct limosa_probing *p)
{
	struct super_block *sb = p->inode->i_sb;
	bool btrfs = limosa_fs_is(p->inode, "btrfs");
	struct file_kattr attr = {};

	if (IS_DAX(p->inode)) {
		limosa_judge(p, LIMOSA_VERDICT_STAGED, LIMOSA_REASON_DAX);
	} else if (!(p->file->f_flags & O_DIRECT)) {
		limosa_judge(p, LIMOSA_VERDICT_STAGED,
			     LIMOSA_REASON_NOT_O_DIRECT);
	} else if (!btrfs && !sb->s_bdev) {
		limosa_judge(p, sb->s_magic == TMPFS_MAGIC ?
			     LIMOSA_VERDICT_STAGED : LIMOSA_VERDICT_UNKNOWN,
			     LIMOSA_REASON_NO_BLOCK_DEVICE);
	} else if (!btrfs && match_string(limosa_plain_fs,
					  ARRAY_SIZE(limosa_plain_fs),
					  sb->s_type->name) < 0) {
		limosa_judge(p, LIMOSA_VERDICT_UNKNOWN,
			     LIMOSA_REASON_FILE_SYSTEM);
	} else if (vfs_fileattr_get(p->file->f_path.dentry, &attr)) {
		limosa_judge(p, LIMOSA_VERDICT_UNKNOWN,
			     LIMOSA_REASON_FILE_SYSTEM);
	} else if (btrfs) {
		limosa_probe_btrfs(p, attr.flags);
	} else {
		limosa_probe_plain(p, &attr);
	}
}

/* The node's own file system is not asked: it may be any. */
static void limosa_probe_block(struct limosa_probing *p)
{
	struct block_device *bdev = file_bdev(p->file);

	if (!(p->file->f_flags & O_DIRECT)) {
		limosa_judge(p, LIMOSA_VERDICT_STAGED,
			     LIMOSA_REASON_NOT_O_DIRECT);
		return;
	}
	p->probe->memory_align = bdev_dma_alignment(bdev) + 1;
	p->probe->offset_align = bdev_logical_block_size(bdev);
	p->bdev = bdev;
}

/* A read of a directory fails, of a pipe is a copy; a device may do anything. */
static void limosa_probe_other(struct limosa_probing *p)
{
	enum limosa_verdict verdict = LIMOSA_VERDICT_UNKNOWN;
	umode_t mode = p->inode->i_mode;

	if (S_ISDIR(mode))
		verdict = LIMOSA_VERDICT_REFUSED;
	else if (S_ISFIFO(mode) || S_ISSOCK(mode))
		verdict = LIMOSA_VERDICT_STAGED;
	limosa_judge(p, verdict, LIMOSA_REASON_NOT_STORAGE);
}

/* ---------------------------------------------------- the block device */

/* Whether reading the first block of the file has the disk send it. */
static bool limosa_first_block_on_disk(struct limosa_probing *p)
{
	sector_t block = 0;

	if (!i_size_read(p->file->f_mapping->host) ||
	    p->probe->offset_align > PAGE_SIZE)
		return false;
	if (S_ISBLK(p->inode->i_mode))
		return true;
	/* Zero is a hole, or what is not to be told. */
	return !bmap(p->inode, &block) && block;
}

/* Nobody tells which disks there are, so one transfer shall. */
static int limosa_probe_by_trying(struct limosa_device *device,
				  struct limosa_probing *p)
{
	int err, idx;

	limosa_judge(p, LIMOSA_VERDICT_UNKNOWN, LIMOSA_REASON_STACKED);
	if (p->direction != LIMOSA_FROM_FILE || !limosa_first_block_on_disk(p))
		return 0;
	if (!limosa_device_enter(device, &idx))
		return -ENODEV;
	err = limosa_read_try(device, p->file, p->probe->offset_align);
	limosa_device_exit(device, idx);
	switch (err) {
	case 0:
		limosa_judge_open(p);
		return 0;
	case -EOPNOTSUPP:
	case -EIO:		/* So says RAID 1 of it, too. */
		limosa_judge(p, LIMOSA_VERDICT_REFUSED, LIMOSA_REASON_STACKED);
		return 0;
	case -ENOSPC:
		return 0;
	default:
		return err;
	}
}

/* Whether there is a way for DMA, on all paths to the disk or on none. */
static int limosa_probe_ways(struct limosa_device *device,
			     struct limosa_probing *p)
{
	struct limosa_ways ways = { .from = device->pdev };

	limosa_ways_find(&ways, p->bdev);
	if (!ways.open && !ways.refused)
		return limosa_probe_by_trying(device, p);
	if (ways.open && ways.refused) {
		limosa_judge(p, LIMOSA_VERDICT_UNKNOWN, LIMOSA_REASON_STACKED);
	} else if (ways.refused) {
		limosa_judge(p, LIMOSA_VERDICT_REFUSED, ways.reason);
	} else {
		p->probe->route = ways.route;
		p->probe->distance = ways.distance;
		limosa_judge_open(p);
	}
	return 0;
}

/*
 * Whether the block layer computes checksums of the data (T10 PI). It can be
 * told not to, but the disks below one without requests of its own decide that
 * for themselves.
 */
static bool limosa_disk_checksums(struct limosa_probing *p)
{
	u8 off = p->direction == LIMOSA_FROM_FILE ? BLK_INTEGRITY_NOVERIFY :
						    BLK_INTEGRITY_NOGENERATE;

	if (queue_is_mq(bdev_get_queue(p->bdev)) &&
	    bdev_limits(p->bdev)->integrity.flags & off)
		return false;
	return bdev_has_integrity_csum(p->bdev);
}

static int limosa_probe_disk(struct limosa_device *device,
			     struct limosa_probing *p)
{
	if (test_bit(GD_DEAD, &p->bdev->bd_disk->state))
		return -EIO;
	if (!blk_queue_pci_p2pdma(bdev_get_queue(p->bdev))) {
		limosa_judge(p, LIMOSA_VERDICT_REFUSED, LIMOSA_REASON_QUEUE);
		return 0;
	}
	/* What is encrypted stands in other pages, which need no such way. */
	if (p->touched == LIMOSA_REASON_ENCRYPTED &&
	    p->direction == LIMOSA_TO_FILE) {
		limosa_judge_open(p);
		return 0;
	}
	if (p->touched == LIMOSA_REASON_NONE && limosa_disk_checksums(p))
		p->touched = LIMOSA_REASON_CHECKSUM;
	return limosa_probe_ways(device, p);
}

int limosa_probe_file(struct limosa_device *device, struct file *file,
		      enum limosa_direction direction,
		      struct limosa_probe *probe)
{
	struct limosa_probing p = {
		.file = file,
		.inode = file_inode(file),
		.direction = direction,
		.touched = LIMOSA_REASON_NONE,
		.probe = probe,
	};

	if (!device->p2p.kaddr)
		return READ_ONCE(device->gone) ? -ENODEV : -EOPNOTSUPP;
	if (!(file->f_mode &
	      (direction == LIMOSA_FROM_FILE ? FMODE_READ : FMODE_WRITE)))
		return -EBADF;
	probe->route = LIMOSA_ROUTE_NONE;
	probe->distance = 0;
	probe->memory_align = 0;
	probe->offset_align = 0;
	if (S_ISBLK(p.inode->i_mode))
		limosa_probe_block(&p);
	else if (S_ISREG(p.inode->i_mode) && !IS_ANON_FILE(p.inode))
		limosa_probe_regular(&p);
	else
		limosa_probe_other(&p);
	return p.bdev ? limosa_probe_disk(device, &p) : 0;
}

int limosa_ioctl_probe(struct limosa_client *client, void *data)
{
	struct limosa_probe *args = data;

	if (args->direction > LIMOSA_TO_FILE)
		return -EINVAL;
	CLASS(fd, file)(args->fd);
	if (fd_empty(file))
		return -EBADF;
	return limosa_probe_file(client->device, fd_file(file),
				 args->direction, args);
}
