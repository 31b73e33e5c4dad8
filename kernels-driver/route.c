// SPDX-License-Identifier: GPL-2.0
/*
 * The ways that DMA takes between a disk and this device: whether the kernel
 * permits it, where it turns, or what is in the way.
 *
 * The kernel alone decides (drivers/pci/p2pdma.c); this finds the PCI functions
 * of the disk to ask it about, and puts a name to what it says. What md and
 * device mapper make disks of it does not find.
 */
#include <linux/blkdev.h>
#include <linux/pci-p2pdma.h>
#include <linux/pci.h>

#include "files.h"

/* Whether a port from @pdev on up, short of @end, sends requests further up. */
static bool limosa_redirects(struct pci_dev *pdev, struct pci_dev *end)
{
	u16 ctrl;

	for (; pdev && pdev != end; pdev = pci_upstream_bridge(pdev)) {
		if (!pdev->acs_cap)
			continue;
		pci_read_config_word(pdev, pdev->acs_cap + PCI_ACS_CTRL, &ctrl);
		if (ctrl & (PCI_ACS_RR | PCI_ACS_CR | PCI_ACS_EC))
			return true;
	}
	return false;
}

/* The lowest bridge that is above both, or NULL. Children hold their bridges. */
static struct pci_dev *limosa_common_bridge(struct pci_dev *a,
					    struct pci_dev *b)
{
	struct pci_dev *up;

	for (; a; a = pci_upstream_bridge(a))
		for (up = b; up; up = pci_upstream_bridge(up))
			if (up == a)
				return a;
	return NULL;
}

static void limosa_ways_add(struct limosa_ways *ways, struct pci_dev *disk)
{
	struct pci_dev *common = limosa_common_bridge(ways->from, disk);
	int distance = pci_p2pdma_distance(ways->from, &disk->dev, false);
	enum limosa_route route = LIMOSA_ROUTE_HOST_BRIDGE;

	if (distance < 0) {
		ways->refused++;
		ways->reason = common ? LIMOSA_REASON_ACS_REDIRECT :
					LIMOSA_REASON_NO_PATH;
		return;
	}
	/* The common bridge counts on one side, as it does for the kernel. */
	if (common &&
	    !limosa_redirects(ways->from, pci_upstream_bridge(common)) &&
	    !limosa_redirects(disk, common))
		route = LIMOSA_ROUTE_SWITCH;
	ways->open++;
	ways->route = max(ways->route, route);
	ways->distance = max_t(u32, ways->distance, distance);
}

/* ------------------------------------------- a disk behind several paths */

/**
 * struct limosa_multipath - the paths to an NVMe namespace
 * @ways: what is known of those that were found
 * @subsystem: its number in the disk's name
 * @head: the namespace's number there
 * @function: whose children are being looked at
 */
struct limosa_multipath {
	struct limosa_ways *ways;
	unsigned int subsystem;
	unsigned int head;
	struct pci_dev *function;
};

/*
 * A path is a disk that is hidden, below its controller. It has no tie to the
 * namespace's disk but its name.
 */
static int limosa_multipath_disk(struct device *dev, void *data)
{
	struct limosa_multipath *multipath = data;
	unsigned int subsystem, controller, head;
	char end;

	if (sscanf(dev_name(dev), "nvme%uc%un%u%c", &subsystem, &controller,
		   &head, &end) == 3 &&
	    subsystem == multipath->subsystem && head == multipath->head)
		limosa_ways_add(multipath->ways, multipath->function);
	return 0;
}

static int limosa_multipath_controller(struct device *dev, void *data)
{
	return device_for_each_child(dev, data, limosa_multipath_disk);
}

static void limosa_multipath_find(struct limosa_ways *ways, const char *disk)
{
	struct limosa_multipath multipath = { .ways = ways };
	struct pci_dev *pdev = NULL;
	char end;

	if (sscanf(disk, "nvme%un%u%c", &multipath.subsystem, &multipath.head,
		   &end) != 2)
		return;
	while ((pdev = pci_get_class(PCI_CLASS_STORAGE_EXPRESS, pdev))) {
		multipath.function = pdev;
		device_for_each_child(&pdev->dev, &multipath,
				      limosa_multipath_controller);
	}
}

void limosa_ways_find(struct limosa_ways *ways, struct block_device *bdev)
{
	struct device *dev;

	/*
	 * An open NVMe disk keeps its controller, and that the PCI function. Of
	 * other drivers only those without such a parent take such pages.
	 */
	for (dev = disk_to_dev(bdev->bd_disk); dev; dev = dev->parent) {
		if (dev_is_pci(dev)) {
			limosa_ways_add(ways, to_pci_dev(dev));
			return;
		}
	}
	limosa_multipath_find(ways, bdev->bd_disk->disk_name);
}
