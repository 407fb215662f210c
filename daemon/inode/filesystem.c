/* SPDX-License-Identifier: MIT */
#include "inode/filesystem.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/handover.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/rcu.h"
#include "inode/attr.h"
#include "inode/audit.h"
#include "inode/directory.h"
#include "inode/handle.h"
#include "inode/inode.h"
#include "inode/sealed.h"

/* Lists of who holds a file are for humans: few are asked for at a time. */
#define SLOW_THREADS 2

#define NS_PER_US 1000

static struct inode *mapping_inode(struct mapping *mapping)
{
	return container_of(mapping, struct inode, mapping);
}

static void pin_owner_get(void *owner)
{
	inode_get(owner);
}

static void pin_owner_put(void *owner)
{
	inode_put(owner);
}

static void pin_owner_released(struct mapping *mapping, void *owner)
{
	struct inode *inode = mapping_inode(mapping);

	(void)owner;
	pthread_mutex_lock(&inode->lock);
	sealing_wake_locked(&inode->sealing);
	pthread_mutex_unlock(&inode->lock);
}

static void pin_owner_expired(struct mapping *mapping, void *owner, const struct pin_info *info)
{
	(void)owner;
	audit_pin_expired(mapping_inode(mapping), info);
}

static const struct pin_owner_ops pin_owner_ops = {
	.get = pin_owner_get,
	.put = pin_owner_put,
	.released = pin_owner_released,
	.expired = pin_owner_expired,
};

static void slow_run(gpointer data, gpointer user_data)
{
	struct slow_task *task = handover_take(data);

	(void)user_data;
	task->run(task);
}

void filesystem_run_slow(struct filesystem *fs, struct slow_task *task)
{
	handover_give(task);
	g_thread_pool_push(fs->slow, task, NULL);
}

static int filesystem_make_root(struct filesystem *fs)
{
	const struct caller owner = {
		.uid = fs->config.root_uid,
		.gid = fs->config.root_gid,
	};
	int result = inode_new(fs, S_IFDIR | (fs->config.root_mode & 07777), 0, &owner, NULL, NULL,
			       &fs->root);

	if (result == 0)
		fs->root->nlink = 2;
	return result;
}

int filesystem_start(struct filesystem *fs, const struct filesystem_config *config)
{
	int error = 0, result;

	fs->config = *config;
	fs->fuse_fd = -1;
	pthread_mutex_init(&fs->settle_lock, NULL);
	pthread_cond_init(&fs->settle, NULL);
	reservation_init(&fs->budget, config->pages);
	user_table_init(&fs->users, &fs->budget, config->user_pages, config->user_inodes);
	xarray_init(&fs->inodes);
	xarray_init(&fs->handles);
	atomic_init(&fs->next_ino, FILESYSTEM_ROOT_INO);
	atomic_init(&fs->next_handle, 1);
	rcu_start();
	result = seal_engine_start(&fs->seals, sealing_run);
	if (result)
		return result;
	fs->pin_engine = pin_engine_new(&error);
	if (fs->pin_engine)
		fs->features |= CACHET_FEATURE_PINS;
	else
		log_warning("no pins: io_uring: %s", g_strerror(-error));
	fs->pins = pin_table_new(fs->pin_engine, &pin_owner_ops);
	fs->tally = tally_new(NR_FILESYSTEM_COUNTERS, CACHET_REQUESTS_KNOWN, NS_PER_US);
	if (!fs->pins || !fs->tally)
		return -ENOMEM;
	fs->collapser = pool_new(inode_collapse, fs, 1);
	fs->slow = pool_new(slow_run, NULL, SLOW_THREADS);
	if (!fs->collapser || !fs->slow)
		return -EAGAIN;
	return filesystem_make_root(fs);
}

void filesystem_settled(struct filesystem *fs)
{
	scoped_mutex(&fs->settle_lock);
	atomic_store(&fs->settled, true);
	pthread_cond_broadcast(&fs->settle);
}

void filesystem_wait_settled(struct filesystem *fs)
{
	if (atomic_load_explicit(&fs->settled, memory_order_acquire))
		return;
	scoped_mutex(&fs->settle_lock);
	while (!atomic_load(&fs->settled))
		pthread_cond_wait(&fs->settle, &fs->settle_lock);
}

static void filesystem_interrupt_once(struct filesystem *fs)
{
	uint64_t index = 0;
	unsigned order;
	struct inode *inode;

	for (;; index++) {
		rcu_read_lock();
		inode = xarray_find(&fs->inodes, &index, XARRAY_INDEX_MAX, XARRAY_PRESENT, &order);
		rcu_read_unlock();
		if (!inode)
			return;
		inode = inode_lookup(fs, index);
		if (inode && inode_is_regular(inode))
			sealing_interrupt_all(&inode->sealing);
		inode_put(inode);
	}
}

/* The inode of the first handle from a number on. Return: returns a reference, or NULL. */
static struct inode *filesystem_next_open(struct filesystem *fs, uint64_t *id)
{
	struct inode *inode = NULL;
	struct handle *handle;

	xarray_lock(&fs->handles);
	handle = xarray_find(&fs->handles, id, XARRAY_INDEX_MAX, XARRAY_PRESENT, NULL);
	if (handle) {
		/* The handle lives for as long as it can be found. */
		inode = handle->inode;
		inode_get(inode);
	}
	xarray_unlock(&fs->handles);
	return inode;
}

uint64_t filesystem_pages(struct filesystem *fs)
{
	struct inode *inode;
	uint64_t id = 0;

	if (fs->plane != CACHET_PLANE_KERNEL)
		return atomic_load(&fs->budget.used);
	while ((inode = filesystem_next_open(fs, &id))) {
		pthread_mutex_lock(&inode->lock);
		attr_sync_memory_locked(inode, false);
		pthread_mutex_unlock(&inode->lock);
		inode_put(inode);
		id++;
	}
	return atomic_load(&fs->stats.memory_blocks) / (PAGE_BYTES / 512);
}

void filesystem_interrupt(struct filesystem *fs, int timeout_ms)
{
	int64_t deadline = clock_now_ms() + timeout_ms;

	while (atomic_load(&fs->seals.unanswered) || atomic_load(&fs->stats.put_aside)) {
		if (timeout_ms >= 0 && clock_now_ms() >= deadline)
			return;
		filesystem_interrupt_once(fs);
		g_usleep(1000);
	}
}

static void *table_first(struct xarray *table)
{
	uint64_t index = 0;
	void *entry;

	xarray_lock(table);
	entry = xarray_find(table, &index, XARRAY_INDEX_MAX, XARRAY_PRESENT, NULL);
	xarray_unlock(table);
	return entry;
}

/* The kernel forgets nothing at an unmount: handles and inodes that it knew are left. */
static void filesystem_drop_handles(struct filesystem *fs)
{
	struct handle *handle;

	while ((handle = table_first(&fs->handles)))
		handle_close(handle);
}

static void filesystem_drop_inodes(struct filesystem *fs)
{
	struct inode *inode;

	while ((inode = table_first(&fs->inodes))) {
		if (inode_is_dir(inode))
			directory_free(take_ptr(inode->directory));
		inode_put_many(inode, atomic_load(&inode->refs));
	}
}

void filesystem_stop(struct filesystem *fs)
{
	if (fs->slow)
		g_thread_pool_free(fs->slow, FALSE, TRUE);
	filesystem_drop_handles(fs);
	pin_table_free(fs->pins);
	pin_engine_free(fs->pin_engine);
	seal_engine_stop(&fs->seals);
	if (fs->collapser)
		g_thread_pool_free(fs->collapser, FALSE, TRUE);
	filesystem_drop_inodes(fs);
	xarray_destroy(&fs->handles);
	xarray_destroy(&fs->inodes);
	user_table_destroy(&fs->users);
	tally_free(fs->tally);
	pthread_cond_destroy(&fs->settle);
	pthread_mutex_destroy(&fs->settle_lock);
	rcu_barrier();
}
