/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the driver that have to do with files know of each other:
 * pools, which are the buffer of others' transfers, and the way of a file's data
 * to device memory. limosa.h lists them among the rest.
 */
#ifndef _LIMOSA_FILES_H
#define _LIMOSA_FILES_H

#include <linux/bvec.h>
#include <linux/completion.h>
#include <linux/fs.h>

#include "limosa.h"

/* ---------------------------------------------------------------- pool.c */

/* The file of a new pool of @len bytes, or an error pointer. */
struct file *limosa_pool_create(struct limosa_client *client, u64 len);

/* At unbind, once nobody enters: all pools of the device lose their pages. */
void limosa_pools_revoke(struct limosa_device *device);

/* --------------------------------------------------------------- probe.c */

/**
 * limosa_probe_file() - what becomes of data between a file and a device
 * @device: whose private memory; referenced, and not entered: the file may be
 *	    long in answering
 * @file: any open file
 * @direction: one of enum limosa_direction
 * @probe: the members after @direction are set
 *
 * May read a block of the file into the device's memory, where nothing else
 * tells (limosa_read_try()); enters the device for that alone.
 *
 * Return: 0 with a verdict, -EBADF (not open for that direction), -EIO (the disk
 * is gone), -ENODEV (the device is), -EOPNOTSUPP (its memory is not to be reached
 * by others), or what limosa_read_try() failed with.
 */
int limosa_probe_file(struct limosa_device *device, struct file *file,
		      enum limosa_direction direction,
		      struct limosa_probe *probe);

/* LIMOSA_PROBE. */
int limosa_ioctl_probe(struct limosa_client *client, void *data);

/* --------------------------------------------------------------- route.c */

/**
 * struct limosa_ways - the paths between a disk and a device
 * @from: the device's PCI function
 * @open: how many of those that were found the kernel permits DMA on
 * @refused: on how many it does not
 * @reason: why it does not, where it does not
 * @route: the longer one, where it does
 * @distance: the longest, where it does
 */
struct limosa_ways {
	struct pci_dev *from;
	unsigned int open;
	unsigned int refused;
	enum limosa_reason reason;
	enum limosa_route route;
	u32 distance;
};

/*
 * Fills in all but @from; none is found where only the disk's driver knows.
 * Somebody has @bdev open, and its queue takes P2PDMA pages.
 */
void limosa_ways_find(struct limosa_ways *ways, struct block_device *bdev);

/* ---------------------------------------------------------------- read.c */

/**
 * struct limosa_chunk - a read of at most 2 MiB
 * @addr: where the caller of a load wants it
 * @nr: pages
 * @bytes: to be read to them
 * @pos: where in the file it comes from
 * @srcu: for limosa_device_exit(): the caller has the device entered
 * @huge: its memory is a run of 2 MiB
 * @index: its memory, page by page
 * @bvecs: the same, as neighbours
 * @nr_bvecs: how many they are
 * @kiocb: the request
 * @done: @ret is there
 * @ret: what the read came to
 */
struct limosa_chunk {
	unsigned long addr;
	unsigned long nr;
	size_t bytes;
	loff_t pos;
	int srcu;
	bool huge;
	unsigned int nr_bvecs;
	struct kiocb kiocb;
	struct completion done;
	ssize_t ret;
	u32 index[LIMOSA_HUGE_PAGES];
	struct bio_vec bvecs[LIMOSA_HUGE_PAGES];
};

/*
 * Begins to read @chunk->bytes from @chunk->pos on to the memory of the chunk, which
 * the caller has reserved. The device stays entered to the end.
 */
void limosa_read_begin(struct limosa_device *device, struct limosa_chunk *chunk,
		       struct file *file);

/*
 * Waits for it. @align: what a read can end at but for the end of the file.
 * Return: bytes (fewer: the file ended), -EIO, -ENOMEM, -EINTR, -EOPNOTSUPP (the
 * data would not come by DMA).
 */
ssize_t limosa_read_end(struct limosa_device *device, struct limosa_chunk *chunk,
			struct file *file, u32 align);

/*
 * Reads @len bytes at the beginning of @file into a page of the device that
 * nobody has. 0: they came by DMA, or the file is empty; -ENOSPC: there is no
 * page free; or the errors of limosa_read_end().
 */
int limosa_read_try(struct limosa_device *device, struct file *file, size_t len);

/* ---------------------------------------------------------------- load.c */

/* LIMOSA_LOAD. */
int limosa_ioctl_load(struct limosa_client *client, void *data);

#endif /* _LIMOSA_FILES_H */
