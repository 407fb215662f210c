/* SPDX-License-Identifier: MIT */
#include "inode/sealed.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/handover.h"
#include "seal/procmaps.h"

#define COLLAPSE_DELAY_MS 100
#define COLLAPSE_LEAST_BYTES (UINT64_C(2) << 20) /* a huge page */

static struct inode *sealing_inode(struct sealing *sealing)
{
	return container_of(sealing, struct inode, sealing);
}

/*
 * Huge pages.
 */

/* The collapser's own reference is the last one when names, handles and the kernel are done. */
static bool inode_is_used(struct mapping *mapping)
{
	return atomic_load(&container_of(mapping, struct inode, mapping)->refs) > 1;
}

void inode_collapse(void *data, void *user_data)
{
	struct inode *inode = handover_take(data);
	struct filesystem *fs = user_data;
	long failed = 0;
	long huge = mapping_collapse_range(&inode->mapping, 0, mapping_size(&inode->mapping),
					   inode_is_used, &failed);

	if (huge > 0)
		atomic_fetch_add(&fs->stats.collapsed, huge);
	atomic_fetch_add(&fs->stats.collapse_failed, failed);
	inode_put(inode);
}

/* A file to be made huge, if it still is there by then: this keeps no reference. */
struct collapse_later {
	struct filesystem *fs;
	uint64_t ino;
};

static gboolean collapse_begin(gpointer data)
{
	struct collapse_later *later = handover_take(data);
	struct inode *inode = inode_lookup(later->fs, later->ino);

	if (inode) {
		handover_give(inode);
		g_thread_pool_push(later->fs->collapser, inode, NULL);
	}
	return G_SOURCE_REMOVE;
}

/* Readers that wait for a seal come first; and who lives for a moment only is not worth it. */
static void inode_collapse_later(struct inode *inode)
{
	struct collapse_later *later;

	if (mapping_size(&inode->mapping) < COLLAPSE_LEAST_BYTES)
		return;
	later = g_new(struct collapse_later, 1);
	*later = (struct collapse_later){ inode->fs, inode->ino };
	g_source_unref(seal_engine_call_at(&inode->fs->seals, clock_now_ms() + COLLAPSE_DELAY_MS,
					   collapse_begin, later, g_free));
}

/*
 * What the kernel caches.
 */

void inode_attr_stale(struct inode *inode)
{
	inode->fs->invalidate(inode->fs, inode->ino, false);
}

void inode_cache_invalidated(struct filesystem *fs, uint64_t ino)
{
	auto_inode inode = inode_lookup(fs, ino);

	if (!inode)
		return;
	scoped_mutex(&inode->lock);
	inode->cache_clean = true;
}

/*
 * What sealing asks.
 */

static void inode_sealing_get(struct sealing *sealing)
{
	inode_get(sealing_inode(sealing));
}

static void inode_sealing_put(struct sealing *sealing)
{
	inode_put(sealing_inode(sealing));
}

static void inode_sealing_granted(struct sealing *sealing, unsigned added)
{
	struct inode *inode = sealing_inode(sealing);
	struct filesystem *fs = inode->fs;

	if (!(added & F_SEAL_WRITE))
		return;
	if (!filesystem_passthrough(fs))
		fs->invalidate(fs, inode->ino, true);
	inode_collapse_later(inode);
}

static void inode_sealing_attr_stale(struct sealing *sealing)
{
	inode_attr_stale(sealing_inode(sealing));
}

static bool inode_sealing_mapped(struct sealing *sealing)
{
	struct inode *inode = sealing_inode(sealing);

	return procmaps_any_writable(inode->fs->device, inode->ino);
}

static mode_t inode_sealing_mode_locked(struct sealing *sealing)
{
	return sealing_inode(sealing)->mode;
}

const struct sealing_ops inode_sealing_ops = {
	.get = inode_sealing_get,
	.put = inode_sealing_put,
	.granted = inode_sealing_granted,
	.attr_stale = inode_sealing_attr_stale,
	.mapped = inode_sealing_mapped,
	.mode_locked = inode_sealing_mode_locked,
};
