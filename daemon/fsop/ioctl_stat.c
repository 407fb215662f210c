/* SPDX-License-Identifier: MIT */
/*
 * The ioctl that shows figures of a file and of the mount. A client whose struct is too short for
 * the histograms does not pay for them.
 */
#include "base/cleanup.h"
#include "fsop/ioctl.h"

_Static_assert(HISTOGRAM_BUCKETS == CACHET_HISTOGRAM_BUCKETS, "they are the same");
_Static_assert(CACHET_REQUESTS_KNOWN <= CACHET_REQUESTS_MAX, "there is room for all");
_Static_assert(sizeof(struct cachet_statx) < 1 << _IOC_SIZEBITS, "one ioctl carries it");

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
	st->requests = tally_counter(fs->tally, COUNT_REQUESTS);
	st->bytes_read = tally_counter(fs->tally, COUNT_BYTES_READ);
	st->bytes_written = tally_counter(fs->tally, COUNT_BYTES_WRITTEN);
	st->requests_async = tally_counter(fs->tally, COUNT_REQUESTS_ASYNC);
}

static void histogram_fill(const struct histogram_total *total, struct cachet_histogram *histogram)
{
	histogram->sum_ns = total->sum;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		histogram->buckets[i] = total->buckets[i];
}

static void statx_fill(struct filesystem *fs, struct cachet_statx *st)
{
	struct histogram_total total = { 0 };
	struct pin_stat pins;

	pin_table_stat(fs->pins, &pins);
	st->opens_passthrough = tally_counter(fs->tally, COUNT_OPENS_PASSTHROUGH);
	st->opens_direct = tally_counter(fs->tally, COUNT_OPENS_DIRECT);
	st->opens_cached = tally_counter(fs->tally, COUNT_OPENS_CACHED);
	st->pins_expired = pins.expired;
	st->no_space = tally_counter(fs->tally, COUNT_NO_SPACE);
	histogram_read(&fs->seals.waits, &total);
	histogram_fill(&total, &st->seal_waits);
	for (unsigned kind = 0; kind < CACHET_REQUESTS_KNOWN; kind++) {
		tally_histogram(fs->tally, kind, &total);
		histogram_fill(&total, &st->requests[kind]);
	}
}

void ioctl_stat(struct ioctl_call *call, const void *data)
{
	g_autofree struct cachet_statx *st = g_new0(struct cachet_statx, 1);

	(void)data;
	st->stat.size = call->known;
	st->stat.ino = call->inode->ino;
	st->stat.handle = call->handle ? call->handle->id : 0;
	if (inode_is_regular(call->inode))
		stat_fill_file(call->inode, &st->stat);
	stat_fill_mount(call->fs, &st->stat);
	if (call->known > sizeof(st->stat))
		statx_fill(call->fs, st);
	reply_ioctl(call->req, 0, st, call->known);
}
