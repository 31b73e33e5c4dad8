// SPDX-License-Identifier: GPL-2.0
/*
 * A guard against thrashing: which blocks of memory a view had moved to the
 * device, which of them came back too soon or could not be moved, and how long
 * those stay in system memory, where the device maps them just as well.
 *
 * When a page goes is seen where the view loses it, that it came back when the
 * device faults on it once more and it is in system memory. How long it takes
 * the device to touch it again does not count: the more there is of thrashing,
 * the longer that is.
 *
 * A block is 64 KiB. It is, in turn: unknown; moved at a time; held until a
 * time, if it was gone soon after, or could not be moved; and, when the hold
 * ends, free to be moved again. Soon is within thrash_ms, or sixteen times what
 * the move took, if that is longer: where moves are slow, they must pay for
 * longer. A hold lasts as long as soon is, and each that follows such a relapse
 * twice as long as the one before, up to thrash_max_ms; a block that stays on
 * the device for longer than that starts afresh.
 */
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "limosa.h"

static unsigned int thrash_ms = 100;
module_param(thrash_ms, uint, 0644);
MODULE_PARM_DESC(thrash_ms,
		 "A page that is back from the device within so many milliseconds (or sixteen times what moving it took) of a GPU's access having moved it is thrashing, and is held in system memory for as long, and twice as long each further time. 0: no guard. (100)");

static unsigned int thrash_max_ms = 5000;
module_param(thrash_max_ms, uint, 0644);
MODULE_PARM_DESC(thrash_max_ms,
		 "The longest hold of a thrashing page in milliseconds (5000)");

#define THRASH_SHIFT	16
#define THRASH_SIZE	(1UL << THRASH_SHIFT)
#define THRASH_PAGES	(THRASH_SIZE >> PAGE_SHIFT)
/* What a move takes to what its pages should at least stay. */
#define THRASH_COST	16
#define THRASH_MIN_BLOCKS	16UL
#define THRASH_MAX_BLOCKS	1024UL

/**
 * struct limosa_thrash_block - what is known of 64 KiB
 * @block: address >> THRASH_SHIFT
 * @moved_at: when pages of it were moved, in jiffies
 * @gone_at: when the view last lost any of those, in jiffies
 * @soon: what is too soon to be gone after @moved_at, and how long a first hold
 *        lasts, in jiffies
 * @until: end of the hold, in jiffies
 * @moved: a bit for each page that was moved and not seen in system memory since
 * @relapses: holds in a row, as far as that counts
 * @held: it is held
 */
struct limosa_thrash_block {
	unsigned long block;
	unsigned long moved_at;
	unsigned long gone_at;
	unsigned long soon;
	unsigned long until;
	DECLARE_BITMAP(moved, THRASH_PAGES);
	u8 relapses;
	bool held;
};

int limosa_thrash_init(struct limosa_thrash *thrash, unsigned long bytes)
{
	unsigned long nr = clamp(bytes >> THRASH_SHIFT, THRASH_MIN_BLOCKS, THRASH_MAX_BLOCKS);

	nr = roundup_pow_of_two(nr);
	thrash->mask = nr - 1;
	thrash->blocks = kvcalloc(nr, sizeof(*thrash->blocks),
				  GFP_KERNEL_ACCOUNT);
	return thrash->blocks ? 0 : -ENOMEM;
}

void limosa_thrash_fini(struct limosa_thrash *thrash)
{
	kvfree(thrash->blocks);
}

/* Neighbouring blocks have neighbouring slots: they do not collide. */
static struct limosa_thrash_block *limosa_thrash_slot(struct limosa_thrash *thrash,
						      unsigned long block)
{
	return &thrash->blocks[block & thrash->mask];
}

/* The slot as that of @block, which is new to it; NULL if it is held. */
static struct limosa_thrash_block *limosa_thrash_claim(struct limosa_thrash *thrash,
						       unsigned long block)
{
	struct limosa_thrash_block *slot = limosa_thrash_slot(thrash, block);

	if (slot->block != block) {
		if (slot->held)
			return NULL;
		memset(slot, 0, sizeof(*slot));
		slot->block = block;
		slot->soon = msecs_to_jiffies(thrash_ms);
	}
	return slot;
}

void limosa_thrash_moved(struct limosa_thrash *thrash, unsigned long start,
			 unsigned long end, unsigned long took)
{
	unsigned long soon = max(msecs_to_jiffies(thrash_ms), THRASH_COST * took);
	unsigned long addr, first, next;

	for (addr = start; addr < end; addr = next) {
		unsigned long block = addr >> THRASH_SHIFT;
		struct limosa_thrash_block *slot =
			limosa_thrash_claim(thrash, block);

		next = min(end, (block + 1) << THRASH_SHIFT);
		if (!slot)
			continue;
		first = (addr & (THRASH_SIZE - 1)) >> PAGE_SHIFT;
		bitmap_set(slot->moved, first, (next - addr) >> PAGE_SHIFT);
		slot->moved_at = jiffies;
		slot->soon = soon;
	}
}

void limosa_thrash_gone(struct limosa_thrash *thrash, unsigned long start,
			unsigned long end)
{
	unsigned long first = start >> THRASH_SHIFT;
	unsigned long last = (end - 1) >> THRASH_SHIFT, i;

	/* No slot twice, however large the range. */
	for (i = 0; i <= thrash->mask && i <= last - first; i++) {
		struct limosa_thrash_block *slot =
			limosa_thrash_slot(thrash, first + i);

		if (slot->block >= first && slot->block <= last)
			slot->gone_at = jiffies;
	}
}

static void limosa_thrash_hold(struct limosa_thrash_block *slot)
{
	unsigned long hold = msecs_to_jiffies(thrash_max_ms);

	if (slot->relapses < 16)
		hold = min(hold, slot->soon << slot->relapses++);
	bitmap_zero(slot->moved, THRASH_PAGES);
	slot->until = jiffies + hold;
	slot->held = true;
}

/* A page that was moved is in system memory: whether it came back too soon. */
static bool limosa_thrash_relapse(struct limosa_thrash_block *slot)
{
	/* If nobody saw it go, it went at once, or never came. */
	if (time_before(slot->gone_at, slot->moved_at + slot->soon))
		return true;
	slot->relapses = 0;
	bitmap_zero(slot->moved, THRASH_PAGES);
	return false;
}

bool limosa_thrash_holds(struct limosa_thrash *thrash, unsigned long addr,
			 unsigned long *start, unsigned long *end)
{
	unsigned long block = addr >> THRASH_SHIFT, other;
	struct limosa_thrash_block *slot = limosa_thrash_slot(thrash, block);
	unsigned long page = (addr & (THRASH_SIZE - 1)) >> PAGE_SHIFT;

	if (!thrash_ms)
		return false;
	if (slot->block == block && !slot->held &&
	    test_bit(page, slot->moved) && limosa_thrash_relapse(slot))
		limosa_thrash_hold(slot);
	if (slot->block == block && slot->held)
		return true;

	for (other = *start >> THRASH_SHIFT; other << THRASH_SHIFT < *end; other++) {
		slot = limosa_thrash_slot(thrash, other);
		if (slot->block != other || !slot->held)
			continue;
		if (other < block)
			*start = (other + 1) << THRASH_SHIFT;
		else
			*end = other << THRASH_SHIFT;
	}
	return false;
}

bool limosa_thrash_stays(struct limosa_thrash *thrash, unsigned long addr)
{
	unsigned long block = addr >> THRASH_SHIFT;
	struct limosa_thrash_block *slot;

	if (!thrash_ms)
		return false;
	slot = limosa_thrash_claim(thrash, block);
	if (slot && !slot->held)
		limosa_thrash_hold(slot);
	return true;
}

bool limosa_thrash_expire(struct limosa_thrash *thrash,
			  void (*ended)(struct limosa_thrash *thrash,
					unsigned long start,
					unsigned long end))
{
	unsigned long i, start;
	bool holds = false;

	for (i = 0; i <= thrash->mask; i++) {
		struct limosa_thrash_block *slot = &thrash->blocks[i];

		if (!slot->held)
			continue;
		if (thrash_ms && time_before(jiffies, slot->until)) {
			holds = true;
			continue;
		}
		slot->held = false;
		start = slot->block << THRASH_SHIFT;
		ended(thrash, start, start + THRASH_SIZE);
	}
	return holds;
}
