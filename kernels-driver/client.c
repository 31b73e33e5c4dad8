// SPDX-License-Identifier: GPL-2.0
/*
 * An open file of /dev/limosaN: who pays for device memory, and whose memory
 * may be spoken of. Here is the door: each argument is checked before anything
 * is done.
 *
 * It outlives the file: folios on the device and views hold it, too.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/stddef.h>
#include <linux/uaccess.h>

#include "files.h"
#include "limosa.h"

static unsigned long client_limit_mb;
module_param(client_limit_mb, ulong, 0644);
MODULE_PARM_DESC(client_limit_mb,
		 "MiB of device memory that an open file may have in use; files that are open keep theirs (0: all there is)");

/* What the administrator grants a file, in pages. */
static long limosa_grant(struct limosa_device *device)
{
	unsigned long pages = device->vram[LIMOSA_PLACE_PRIVATE].nr_pages +
			      device->vram[LIMOSA_PLACE_COHERENT].nr_pages;
	unsigned long mb = READ_ONCE(client_limit_mb);

	if (mb && mb < pages >> (20 - PAGE_SHIFT))
		pages = mb << (20 - PAGE_SHIFT);
	return pages;
}

static void limosa_client_release(struct work_struct *work)
{
	struct limosa_client *client =
		container_of(work, struct limosa_client, release);

	mmdrop(client->mm);
	limosa_device_put(client->device);
	kfree(client);
}

struct limosa_client *limosa_client_create(struct limosa_device *device,
					   struct mm_struct *mm)
{
	struct limosa_client *client;

	client = kzalloc_obj(*client, GFP_KERNEL_ACCOUNT);
	if (!client)
		return NULL;
	kref_init(&client->ref);
	kref_get(&device->ref);
	client->device = device;
	mmgrab(mm);
	client->mm = mm;
	atomic_long_set(&client->limit, limosa_grant(device));
	client->max_order = LIMOSA_HUGE_ORDER;
	spin_lock_init(&client->streak_lock);
	INIT_WORK(&client->release, limosa_client_release);
	return client;
}
EXPORT_SYMBOL_FOR_MODULES(limosa_client_create, "limosa-dmirror");

static void limosa_client_last_put(struct kref *ref)
{
	struct limosa_client *client =
		container_of(ref, struct limosa_client, ref);

	queue_work(limosa_wq, &client->release);
}

void limosa_client_put(struct limosa_client *client)
{
	kref_put(&client->ref, limosa_client_last_put);
}
EXPORT_SYMBOL_FOR_MODULES(limosa_client_put, "limosa-dmirror");

void limosa_count(struct limosa_client *client, enum limosa_counter counter,
		  long by)
{
	if (!by)
		return;
	atomic64_add(by, &client->counters.count[counter]);
	atomic64_add(by, &client->device->counters.count[counter]);
}
EXPORT_SYMBOL_FOR_MODULES(limosa_count, "limosa-dmirror");

int limosa_check_range(u64 addr, u64 len)
{
	if (!len || !PAGE_ALIGNED(addr) || !PAGE_ALIGNED(len))
		return -EINVAL;
	if (addr > TASK_SIZE || len > TASK_SIZE - addr)
		return -EINVAL;
	return 0;
}

int limosa_read_args(void *args, size_t size, size_t least,
		     const void __user *from)
{
	u32 given;
	int err;

	if (get_user(given, (const u32 __user *)from))
		return -EFAULT;
	if (given < least)
		return -EINVAL;
	if (given > PAGE_SIZE)
		return -E2BIG;
	err = copy_struct_from_user(args, size, from, given);
	if (err)
		return err;
	/* The one that was checked: the caller's may have changed since. */
	*(u32 *)args = given;
	return 0;
}

int limosa_write_args(const void *args, size_t size, void __user *to)
{
	u32 given = *(const u32 *)args;

	return copy_to_user(to, args, min_t(size_t, size, given)) ? -EFAULT : 0;
}

static int limosa_ioctl_info(struct limosa_client *client, void *data)
{
	struct limosa_vram *vram = client->device->vram;
	struct limosa_info *info = data;

	info->page_size = PAGE_SIZE;
	info->huge_size = 0;
	if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) &&
	    IS_ENABLED(CONFIG_ARCH_HAS_PMD_SOFTLEAVES))
		info->huge_size = PMD_SIZE;
	info->private_bytes = vram[LIMOSA_PLACE_PRIVATE].nr_pages * PAGE_SIZE;
	info->private_free =
		READ_ONCE(vram[LIMOSA_PLACE_PRIVATE].nr_free) * PAGE_SIZE;
	info->coherent_bytes = vram[LIMOSA_PLACE_COHERENT].nr_pages * PAGE_SIZE;
	info->coherent_free =
		READ_ONCE(vram[LIMOSA_PLACE_COHERENT].nr_free) * PAGE_SIZE;
	info->limit = atomic_long_read(&client->limit) * PAGE_SIZE;
	info->used = atomic_long_read(&client->used) * PAGE_SIZE;
	info->p2p_bytes = 0;
	if (client->device->p2p.kaddr)
		info->p2p_bytes = info->private_bytes;
	info->published_bytes = client->device->p2p.published * PAGE_SIZE;
	return 0;
}

static int limosa_ioctl_limit(struct limosa_client *client, void *data)
{
	struct limosa_limit *args = data;
	u64 pages = args->bytes >> PAGE_SHIFT;

	atomic_long_set(&client->limit,
			min_t(u64, pages, limosa_grant(client->device)));
	return 0;
}

static int limosa_ioctl_counters(struct limosa_client *client, void *data)
{
	struct limosa_counters *args = data;
	struct limosa_counter_set *from;
	u64 *to = &args->pages_to_device;
	int i;

	if (args->reserved)
		return -EINVAL;
	switch (args->scope) {
	case LIMOSA_SCOPE_FILE:
		from = &client->counters;
		break;
	case LIMOSA_SCOPE_DEVICE:
		from = &client->device->counters;
		break;
	default:
		return -EINVAL;
	}
	for (i = 0; i < LIMOSA_NR_COUNTERS; i++)
		to[i] = atomic64_read(&from->count[i]);
	return 0;
}

/* A step of 2 MiB under one hold of mmap_lock. */
static int limosa_migrate_step(struct limosa_client *client, u32 to,
			       unsigned long end, struct limosa_moved *moved)
{
	struct mm_struct *mm = client->mm;
	int err, idx;

	end = min(end, ALIGN(moved->next + 1, PMD_SIZE));
	/* Before the device: an unbind need not wait for who has it. */
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	if (!limosa_device_enter(client->device, &idx)) {
		mmap_read_unlock(mm);
		return -ENODEV;
	}
	if (to == LIMOSA_PLACE_SYSTEM)
		err = limosa_move_to_system(client, mm, moved->next, end,
					    moved);
	else
		err = limosa_move_to_device(client, mm, moved->next, end, to,
					    moved);
	limosa_device_exit(client->device, idx);
	mmap_read_unlock(mm);
	return err;
}

static int limosa_ioctl_migrate(struct limosa_client *client, void *data)
{
	struct limosa_migrate *args = data;
	struct limosa_moved moved = { .next = args->addr };
	unsigned long end = args->addr + args->len;
	int err;

	err = limosa_check_range(args->addr, args->len);
	if (err || args->reserved || args->to > LIMOSA_PLACE_COHERENT)
		return -EINVAL;
	if (args->to != LIMOSA_PLACE_SYSTEM &&
	    !client->device->vram[args->to].nr_pages)
		return READ_ONCE(client->device->gone) ? -ENODEV : -EOPNOTSUPP;

	/* At least one step a call: a caller with a timer gets on, too. */
	for (;;) {
		err = limosa_migrate_step(client, args->to, end, &moved);
		if (err || moved.next >= end)
			break;
		if (signal_pending(current)) {
			err = -EINTR;
			break;
		}
		cond_resched();
	}
	args->cursor = moved.next;
	args->moved = moved.moved;
	args->moved_huge = moved.moved_huge;
	args->left = ((moved.next - args->addr) >> PAGE_SHIFT) - moved.moved;
	return err;
}

static int limosa_ioctl_residency(struct limosa_client *client, void *data)
{
	return limosa_query_residency(client, data);
}

/**
 * struct limosa_ioctl - one ioctl of /dev/limosaN
 * @size: of its struct
 * @least: of the struct's first version
 * @partial: its struct is written back with errors, too
 * @call: the caller's mm is the client's. Holds the device only while it uses
 *        it, and not across an access to the caller's memory, which may last as
 *        long as the caller likes: an unbind would wait for it.
 */
struct limosa_ioctl {
	unsigned int cmd;
	size_t size;
	size_t least;
	bool partial;
	int (*call)(struct limosa_client *client, void *args);
};

#define LIMOSA_IOCTL(_cmd, _call, _struct, _last, _partial)		\
	[_IOC_NR(_cmd)] = {						\
		.cmd = _cmd,						\
		.size = sizeof(struct _struct),				\
		.least = offsetofend(struct _struct, _last),		\
		.partial = _partial,					\
		.call = _call,						\
	}

static const struct limosa_ioctl limosa_ioctls[] = {
	LIMOSA_IOCTL(LIMOSA_INFO, limosa_ioctl_info, limosa_info, used, false),
	LIMOSA_IOCTL(LIMOSA_LIMIT, limosa_ioctl_limit, limosa_limit, bytes,
		     false),
	LIMOSA_IOCTL(LIMOSA_MIGRATE, limosa_ioctl_migrate, limosa_migrate, left,
		     true),
	LIMOSA_IOCTL(LIMOSA_RESIDENCY, limosa_ioctl_residency, limosa_residency,
		     in_coherent, true),
	LIMOSA_IOCTL(LIMOSA_COUNTERS, limosa_ioctl_counters, limosa_counters,
		     pages_evicted, false),
	LIMOSA_IOCTL(LIMOSA_PROBE, limosa_ioctl_probe, limosa_probe,
		     offset_align, false),
	LIMOSA_IOCTL(LIMOSA_LOAD, limosa_ioctl_load, limosa_load, copied, true),
};

/* Every struct begins with these. */
struct limosa_head {
	u32 size;
	u32 flags;
};

union limosa_args {
	struct limosa_head head;
	struct limosa_info info;
	struct limosa_limit limit;
	struct limosa_migrate migrate;
	struct limosa_residency residency;
	struct limosa_counters counters;
	struct limosa_probe probe;
	struct limosa_load load;
};

/* What comes before every call: reads the struct, and asks who calls. */
static int limosa_ioctl_begin(struct limosa_client *client, void *args,
			      size_t size, size_t least,
			      const void __user *user)
{
	struct limosa_head *head = args;
	int err, idx;

	err = limosa_read_args(args, size, least, user);
	if (err)
		return err;
	if (head->flags)
		return -EOPNOTSUPP;
	if (client->mm != current->mm)
		return -EPERM;
	if (!limosa_device_enter(client->device, &idx))
		return -ENODEV;
	limosa_device_exit(client->device, idx);
	return 0;
}

/*
 * Makes @file the caller's, and tells so in *@fd of its struct. Apart from the
 * other ioctls: once the caller has been told, there is no going back.
 */
static int limosa_hand_over(struct file *file, void *args, size_t size, s32 *fd,
			    void __user *user)
{
	int err;

	if (IS_ERR(file))
		return PTR_ERR(file);
	*fd = get_unused_fd_flags(O_CLOEXEC);
	err = *fd < 0 ? *fd : limosa_write_args(args, size, user);
	if (!err) {
		fd_install(*fd, file);
		return 0;
	}
	if (*fd >= 0)
		put_unused_fd(*fd);
	fput(file);
	return err;
}

static int limosa_ioctl_view(struct limosa_client *client, void __user *user)
{
	struct limosa_view args;
	struct file *file;
	int err;

	err = limosa_ioctl_begin(client, &args, sizeof(args),
				 offsetofend(struct limosa_view, fd), user);
	if (err)
		return err;
	file = limosa_view_create(client, args.addr, args.len, args.policy);
	return limosa_hand_over(file, &args, sizeof(args), &args.fd, user);
}

static int limosa_ioctl_pool(struct limosa_client *client, void __user *user)
{
	struct limosa_pool args;
	struct file *file;
	int err;

	err = limosa_ioctl_begin(client, &args, sizeof(args),
				 offsetofend(struct limosa_pool, reserved), user);
	if (err)
		return err;
	if (args.reserved)
		return -EINVAL;
	file = limosa_pool_create(client, args.len);
	return limosa_hand_over(file, &args, sizeof(args), &args.fd, user);
}

static long limosa_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct limosa_client *client = file->private_data;
	void __user *user = (void __user *)arg;
	const struct limosa_ioctl *ioctl;
	union limosa_args args;
	int err;

	if (cmd == LIMOSA_VIEW)
		return limosa_ioctl_view(client, user);
	if (cmd == LIMOSA_POOL)
		return limosa_ioctl_pool(client, user);
	if (_IOC_NR(cmd) >= ARRAY_SIZE(limosa_ioctls))
		return -ENOTTY;
	ioctl = &limosa_ioctls[_IOC_NR(cmd)];
	if (!ioctl->call || ioctl->cmd != cmd)
		return -ENOTTY;
	err = limosa_ioctl_begin(client, &args, ioctl->size, ioctl->least, user);
	if (err)
		return err;
	err = ioctl->call(client, &args);
	if (err && !ioctl->partial)
		return err;
	return limosa_write_args(&args, ioctl->size, user) ?: err;
}

static int limosa_open(struct inode *inode, struct file *file)
{
	struct limosa_device *device = container_of(file->private_data,
						    struct limosa_device, misc);
	struct limosa_client *client;

	client = limosa_client_create(device, current->mm);
	if (!client)
		return -ENOMEM;
	file->private_data = client;
	return nonseekable_open(inode, file);
}

static int limosa_release(struct inode *inode, struct file *file)
{
	limosa_client_put(file->private_data);
	return 0;
}

const struct file_operations limosa_fops = {
	.owner = THIS_MODULE,
	.open = limosa_open,
	.release = limosa_release,
	.unlocked_ioctl = limosa_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};
