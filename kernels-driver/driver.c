// SPDX-License-Identifier: GPL-2.0
/*
 * limosa: a PCI function's memory BAR as pages of processes' own memory.
 *
 * This file binds and unbinds. The last coherent_mb MiB of the BAR become
 * DEVICE_COHERENT pages, the rest DEVICE_PRIVATE ones that other devices reach
 * (P2PDMA), and /dev/limosaN the door to both. An unbind brings all pages back
 * before the memory goes; files that are still open then say ENODEV.
 *
 * It does not touch anything of the device but that BAR.
 */
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "files.h"
#include "limosa.h"

static unsigned long coherent_mb;
module_param(coherent_mb, ulong, 0644);
MODULE_PARM_DESC(coherent_mb,
		 "MiB at the end of each BAR that become DEVICE_COHERENT memory when a device is bound (default 0)");

static int bar = -1;
module_param(bar, int, 0644);
MODULE_PARM_DESC(bar,
		 "BAR that holds the memory (default -1: the largest that is prefetchable or 64-bit)");

struct workqueue_struct *limosa_wq;

/* By index; holds no reference. Its lock makes lookup and unbind take turns. */
static DEFINE_XARRAY_ALLOC(limosa_devices);

static void limosa_device_free(struct kref *ref)
{
	struct limosa_device *device =
		container_of(ref, struct limosa_device, ref);

	cleanup_srcu_struct(&device->live);
	pci_dev_put(device->pdev);
	kfree(device);
}

void limosa_device_put(struct limosa_device *device)
{
	kref_put(&device->ref, limosa_device_free);
}
EXPORT_SYMBOL_FOR_MODULES(limosa_device_put, "limosa-dmirror");

struct limosa_device *limosa_device_get(unsigned int index)
{
	struct limosa_device *device;

	xa_lock(&limosa_devices);
	device = xa_load(&limosa_devices, index);
	if (device)
		kref_get(&device->ref);
	xa_unlock(&limosa_devices);
	return device;
}
EXPORT_SYMBOL_FOR_MODULES(limosa_device_get, "limosa-dmirror");

bool limosa_device_enter(struct limosa_device *device, int *idx)
{
	*idx = srcu_read_lock(&device->live);
	if (!READ_ONCE(device->gone))
		return true;
	srcu_read_unlock(&device->live, *idx);
	return false;
}
EXPORT_SYMBOL_FOR_MODULES(limosa_device_enter, "limosa-dmirror");

void limosa_device_exit(struct limosa_device *device, int idx)
{
	srcu_read_unlock(&device->live, idx);
}
EXPORT_SYMBOL_FOR_MODULES(limosa_device_exit, "limosa-dmirror");

/* The BAR that holds the memory, or -ENODEV. */
static int limosa_find_bar(struct pci_dev *pdev)
{
	int i, found = -ENODEV;

	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		unsigned long flags = pci_resource_flags(pdev, i);

		if (!(flags & IORESOURCE_MEM) || pci_resource_len(pdev, i) < PMD_SIZE)
			continue;
		if (bar >= 0 ? i != bar :
		    !(flags & (IORESOURCE_PREFETCH | IORESOURCE_MEM_64)))
			continue;
		if (found < 0 ||
		    pci_resource_len(pdev, i) > pci_resource_len(pdev, found))
			found = i;
	}
	return found;
}

static struct limosa_device *limosa_device_create(struct pci_dev *pdev)
{
	struct limosa_device *device;
	int err;

	device = kzalloc_obj(*device);
	if (!device)
		return ERR_PTR(-ENOMEM);
	err = init_srcu_struct(&device->live);
	if (err)
		goto err_free;
	err = xa_alloc(&limosa_devices, &device->index, NULL, xa_limit_31b,
		       GFP_KERNEL);
	if (err)
		goto err_srcu;
	kref_init(&device->ref);
	mutex_init(&device->pools_lock);
	INIT_LIST_HEAD(&device->pools);
	device->pdev = pci_dev_get(pdev);
	snprintf(device->name, sizeof(device->name), "limosa%u", device->index);
	return device;

err_srcu:
	cleanup_srcu_struct(&device->live);
err_free:
	kfree(device);
	return ERR_PTR(err);
}

static int limosa_vrams_init(struct limosa_device *device, int nr)
{
	resource_size_t start = pci_resource_start(device->pdev, nr);
	resource_size_t size = pci_resource_len(device->pdev, nr);
	resource_size_t coherent = size;
	struct limosa_vram *vram = device->vram;
	int err;

	if (coherent_mb < size >> 20)
		coherent = (resource_size_t)coherent_mb << 20;
	/* Struct pages come for 2 MiB at a time; what is left over is unused. */
	coherent = ALIGN_DOWN(coherent, PMD_SIZE);
	size = ALIGN_DOWN(size, PMD_SIZE);
	err = limosa_vram_init(&vram[LIMOSA_PLACE_PRIVATE], device,
			       LIMOSA_PLACE_PRIVATE, start, size - coherent);
	if (err)
		return err;
	err = limosa_vram_init(&vram[LIMOSA_PLACE_COHERENT], device,
			       LIMOSA_PLACE_COHERENT, start + size - coherent,
			       coherent);
	if (err)
		limosa_vram_fini(&vram[LIMOSA_PLACE_PRIVATE]);
	return err;
}

static int limosa_misc_register(struct limosa_device *device)
{
	device->misc.minor = MISC_DYNAMIC_MINOR;
	device->misc.name = device->name;
	device->misc.fops = &limosa_fops;
	device->misc.parent = &device->pdev->dev;
	device->misc.mode = 0600;
	return misc_register(&device->misc);
}

static int limosa_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct limosa_device *device;
	int nr, err;

	nr = limosa_find_bar(pdev);
	if (nr < 0)
		return dev_err_probe(&pdev->dev, nr, "no memory BAR of 2 MiB or more\n");
	err = pcim_enable_device(pdev);
	if (err)
		return err;
	err = pcim_request_region(pdev, nr, "limosa");
	if (err)
		return err;
	device = limosa_device_create(pdev);
	if (IS_ERR(device))
		return PTR_ERR(device);
	err = limosa_vrams_init(device, nr);
	if (err)
		goto err_put;
	err = limosa_p2p_init(device, nr);
	if (err)
		goto err_vram;
	err = limosa_misc_register(device);
	if (err)
		goto err_p2p;

	pci_set_drvdata(pdev, device);
	xa_store(&limosa_devices, device->index, device, GFP_KERNEL);
	limosa_debug_add(device);
	pci_info(pdev, "%s: %lu MiB private, %lu MiB coherent in BAR %d\n",
		 device->name,
		 device->vram[LIMOSA_PLACE_PRIVATE].nr_pages >> (20 - PAGE_SHIFT),
		 device->vram[LIMOSA_PLACE_COHERENT].nr_pages >> (20 - PAGE_SHIFT),
		 nr);
	return 0;

err_p2p:
	limosa_p2p_unpublish(device);
	limosa_p2p_fini(device);
err_vram:
	limosa_vram_fini(&device->vram[LIMOSA_PLACE_COHERENT]);
	limosa_vram_fini(&device->vram[LIMOSA_PLACE_PRIVATE]);
err_put:
	xa_erase(&limosa_devices, device->index);
	limosa_device_put(device);
	return err;
}

static void limosa_remove(struct pci_dev *pdev)
{
	struct limosa_device *device = pci_get_drvdata(pdev);
	int place;

	limosa_debug_remove(device);
	misc_deregister(&device->misc);
	xa_erase(&limosa_devices, device->index);

	/* From here on no page is handed out, and what is out comes back. */
	WRITE_ONCE(device->gone, true);
	synchronize_srcu(&device->live);
	limosa_pools_revoke(device);
	limosa_p2p_unpublish(device);
	for (place = LIMOSA_PLACE_COHERENT; place >= LIMOSA_PLACE_PRIVATE; place--)
		limosa_evict_all(&device->vram[place]);
	/* Not before: core may hand it out from then on. */
	limosa_p2p_fini(device);
	for (place = LIMOSA_PLACE_COHERENT; place >= LIMOSA_PLACE_PRIVATE; place--)
		limosa_vram_fini(&device->vram[place]);
	limosa_device_put(device);
}

static const struct pci_device_id limosa_pci_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, 0x1110) },	/* ivshmem */
	{ }
};
MODULE_DEVICE_TABLE(pci, limosa_pci_ids);

static struct pci_driver limosa_driver = {
	.name = "limosa",
	.id_table = limosa_pci_ids,
	.probe = limosa_probe,
	.remove = limosa_remove,
};

static int __init limosa_init(void)
{
	int err;

	limosa_wq = alloc_workqueue("limosa", WQ_UNBOUND, 0);
	if (!limosa_wq)
		return -ENOMEM;
	limosa_debug_init();
	err = pci_register_driver(&limosa_driver);
	if (err) {
		limosa_debug_exit();
		destroy_workqueue(limosa_wq);
	}
	return err;
}

static void __exit limosa_exit(void)
{
	pci_unregister_driver(&limosa_driver);
	limosa_debug_exit();
	/* Waits for the last clients to go. */
	destroy_workqueue(limosa_wq);
}

module_init(limosa_init);
module_exit(limosa_exit);
MODULE_DESCRIPTION("Device memory as pages of a process's own address space (HMM)");
MODULE_LICENSE("GPL");
