// SPDX-License-Identifier: GPL-2.0
/*
 * How many pages a second /dev/hmm_dmirrorN moves, each way, in base pages and
 * in folios of 2 MiB: the same work for whichever driver serves the node. As
 * with every HMM_DMIRROR_MIGRATE_TO_DEV, the time to the device includes that
 * the device reads what it got (it fails if that is not all); 4 bytes of each
 * page are checked. What is told to be moved back is not: lib/test_hmm.c counts
 * 2 MiB as one page there.
 *
 * dmirror-bench NODE [MIB [ROUNDS]]
 *
 * The first round is not counted. The best of the others is printed: rounds
 * differ by what else the machine does. Nor is one counted of which a page
 * stayed in RAM, as core leaves it when somebody holds it at that moment: then
 * the device has less than all to read, and the ioctl says ENOENT.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <test_hmm_uapi.h>

#define HUGE_BYTES	(2UL << 20)

struct bench {
	int fd;
	size_t page;
	size_t bytes;
	unsigned char *memory;
	unsigned char *seen;
};

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec * 1e-9;
}

/* Moves all of it and gives pages per second; 0 if a page stayed. */
static double move(struct bench *bench, unsigned long request, const char *what)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)bench->memory,
		.ptr = (uintptr_t)bench->seen,
		.npages = bench->bytes / bench->page,
	};
	double start = seconds();

	if (ioctl(bench->fd, request, &cmd)) {
		if (errno == ENOENT)
			return 0;
		err(1, "moving %s", what);
	}
	start = seconds() - start;
	return cmd.npages / start;
}

static uint32_t *word(struct bench *bench, unsigned char *base, size_t offset)
{
	/* At another place in each page. */
	return (uint32_t *)(base + offset + offset / bench->page * 4 % bench->page);
}

static void check(struct bench *bench, unsigned char *base, uint32_t round)
{
	for (size_t at = 0; at < bench->bytes; at += bench->page) {
		if (*word(bench, base, at) != (uint32_t)(at / bench->page) + round)
			errx(1, "a wrong value at byte %zu", at);
	}
}

static void run(struct bench *bench, const char *node, int huge, int rounds)
{
	double to, back, best_to = 0, best_back = 0;
	unsigned char *all = mmap(NULL, bench->bytes + HUGE_BYTES,
				  PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (all == MAP_FAILED)
		err(1, "mmap");
	bench->memory = (unsigned char *)(((uintptr_t)all + HUGE_BYTES - 1) &
					  ~(HUGE_BYTES - 1));
	if (madvise(bench->memory, bench->bytes,
		    huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		err(1, "madvise");
	for (int round = 0, counted = 0; counted <= rounds; round++) {
		if (round > 3 * rounds)
			errx(1, "a page stayed in nearly every round");
		for (size_t at = 0; at < bench->bytes; at += bench->page)
			*word(bench, bench->memory, at) = at / bench->page + round;
		to = move(bench, HMM_DMIRROR_MIGRATE_TO_DEV, "to the device");
		if (to)
			check(bench, bench->seen, round);
		back = move(bench, HMM_DMIRROR_MIGRATE_TO_SYS, "to the system");
		check(bench, bench->memory, round);
		if (!to || !back || !counted++)
			continue;
		if (to > best_to)
			best_to = to;
		if (back > best_back)
			best_back = back;
	}
	printf("%s %s: %.0f pages/s to the device, %.0f back\n", node,
	       huge ? "2 MiB" : "4 KiB", best_to, best_back);
	munmap(all, bench->bytes + HUGE_BYTES);
}

int main(int argc, char **argv)
{
	struct bench bench = { .page = sysconf(_SC_PAGESIZE) };
	long mib = argc > 2 ? atol(argv[2]) : 64;
	int rounds = argc > 3 ? atoi(argv[3]) : 5;

	if (argc < 2 || mib < 2 || rounds < 1)
		errx(2, "usage: dmirror-bench NODE [MIB [ROUNDS]]");
	bench.bytes = mib << 20 & ~(HUGE_BYTES - 1);
	bench.fd = open(argv[1], O_RDWR);
	if (bench.fd < 0)
		err(1, "%s", argv[1]);
	bench.seen = calloc(1, bench.bytes);
	if (!bench.seen)
		err(1, "memory");
	run(&bench, argv[1], 0, rounds);
	run(&bench, argv[1], 1, rounds);
	return 0;
}
