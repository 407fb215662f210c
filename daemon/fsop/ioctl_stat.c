/* SPDX-License-Identifier: MIT */
/* The ioctl that shows figures of a file and of the mount. */
#include <string.h>

#include "base/cleanup.h"
#include "fsop/ioctl.h"

static void stat_fill_file(struct inode *inode, struct cachet_stat *st)
{
	struct mapping *mapping = &inode->mapping;
	struct timespec mtime;
	uint64_t size, blocks;

	if (mapping->shared)
		mapping_sync_from_memory(mapping, 0, mapping_size(mapping));
	scoped_mutex(&inode->lock);
	st->seals = sealing_current(&inode->sealing);
	mapping_stat(mapping, &size, &blocks, &mtime);
	st->file_size = size;
	st->file_pages = blocks / (PAGE_BYTES / 512);
	st->file_pages_huge = atomic_load(&mapping->nr_huge);
	st->file_handles = inode->nr_handles;
	st->file_writers = inode->sealing.nr_writers;
	st->file_pins = pin_table_blocking(inode->fs->pins, mapping);
}

static void stat_fill_mount(struct filesystem *fs, struct cachet_stat *st)
{
	struct filesystem_stats *stats = &fs->stats;
	struct pin_stat pins;

	pin_table_stat(fs->pins, &pins);
	st->plane = fs->plane;
	st->features = fs->features;
	st->inodes = atomic_load(&stats->inodes);
	st->inodes_max = fs->config.nr_inodes;
	st->pages = filesystem_pages(fs);
	st->pages_max = fs->config.pages;
	st->pages_huge = atomic_load(&fs->budget.huge);
	st->handles = atomic_load(&stats->handles);
	st->pins = pins.pins;
	st->pins_resident = pins.resident;
	st->pinned_pages = pins.pinned_pages;
	st->waiters = atomic_load(&fs->seals.waiting);
	st->foll_pin_acquired = folio_pins_acquired();
	st->foll_pin_released = folio_pins_released();
	st->seals_granted = atomic_load(&fs->seals.granted);
	st->seals_refused = atomic_load(&fs->seals.refused);
	st->seals_waited = atomic_load(&fs->seals.waited);
	st->pins_granted = pins.granted;
	st->pins_broken = pins.broken;
	st->collapsed = atomic_load(&stats->collapsed);
	st->collapse_failed = atomic_load(&stats->collapse_failed);
	st->requests = atomic_load(&stats->requests);
	st->bytes_read = atomic_load(&stats->bytes_read);
	st->bytes_written = atomic_load(&stats->bytes_written);
	st->requests_async = atomic_load(&stats->requests_async);
}

void ioctl_stat(struct ioctl_call *call, const struct cachet_stat *args)
{
	struct cachet_stat st = { .size = sizeof(st) };

	(void)args;
	st.ino = call->inode->ino;
	st.handle = call->handle ? call->handle->id : 0;
	if (inode_is_regular(call->inode))
		stat_fill_file(call->inode, &st);
	stat_fill_mount(call->fs, &st);
	reply_ioctl(call->req, 0, &st, call->known);
}
