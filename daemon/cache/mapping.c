/* SPDX-License-Identifier: MIT */
/*
 * The life of a mapping, its size, its seals, and who may write without asking.
 *
 * Locks, in the order in which they are taken:
 *
 *	invalidate  shared: bytes move, folios are added. Exclusive: folios go away or are
 *	            exchanged, the end of the file moves. Reads take neither.
 *	pin_lock    waiting for pins, and waking who waits.
 *	folios.lock the tree and the states of the folios in it.
 *
 * The invalidate lock prefers those who want it exclusively. Many parallel writers inside the file
 * hold it shared nearly all the time; truncation would never get it otherwise. The reverse, a
 * stream of exclusive holders that starves the shared ones, does not arise: the kernel sends one
 * extending write or truncation of a file at a time. The price is that no thread may take it shared
 * twice.
 */
#include "cache/mapping.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "cache/mapping_internal.h"

#include "base/cleanup.h"

int mapping_init(struct mapping *mapping, struct reservation *budget, bool shared)
{
	pthread_rwlockattr_t lock_attr;
	pthread_condattr_t cond_attr;
	int rc;

	memset(mapping, 0, sizeof(*mapping));
	memory_init(&mapping->memory);
	mapping->budget = budget;
	mapping->shared = shared;

	pthread_rwlockattr_init(&lock_attr);
	pthread_rwlockattr_setkind_np(&lock_attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	rc = pthread_rwlock_init(&mapping->invalidate, &lock_attr);
	pthread_rwlockattr_destroy(&lock_attr);
	if (rc)
		return -rc;

	pthread_condattr_init(&cond_attr);
	pthread_condattr_setclock(&cond_attr, CLOCK_MONOTONIC);
	rc = pthread_cond_init(&mapping->pin_gone, &cond_attr);
	pthread_condattr_destroy(&cond_attr);
	if (rc) {
		pthread_rwlock_destroy(&mapping->invalidate);
		return -rc;
	}
	pthread_mutex_init(&mapping->pin_lock, NULL);
	xarray_init(&mapping->folios);
	return 0;
}

void mapping_destroy(struct mapping *mapping)
{
	mapping_erase_folios(mapping, 0, UINT64_MAX);
	assert(atomic_load(&mapping->nr_pages) == 0);
	xarray_destroy(&mapping->folios);
	memory_destroy(&mapping->memory);
	pthread_mutex_destroy(&mapping->pin_lock);
	pthread_cond_destroy(&mapping->pin_gone);
	pthread_rwlock_destroy(&mapping->invalidate);
}

int mapping_set_budget(struct mapping *mapping, struct reservation *budget, bool force)
{
	int result = 0;

	pthread_rwlock_wrlock(&mapping->invalidate);
	if (budget != mapping->budget)
		result = reservation_move(mapping->budget, budget, atomic_load(&mapping->nr_pages),
					  atomic_load(&mapping->nr_huge), force);
	if (result == 0)
		mapping->budget = budget;
	pthread_rwlock_unlock(&mapping->invalidate);
	return result;
}

int mapping_fd(struct mapping *mapping)
{
	return memory_require(&mapping->memory);
}

uint64_t mapping_size(struct mapping *mapping)
{
	struct stat st;

	if (!mapping->shared)
		return atomic_load_explicit(&mapping->size, memory_order_acquire);
	memory_stat(&mapping->memory, &st);
	atomic_store_explicit(&mapping->size, (uint64_t)st.st_size, memory_order_release);
	return (uint64_t)st.st_size;
}

void mapping_stat(struct mapping *mapping, uint64_t *size, uint64_t *blocks, struct timespec *mtime)
{
	struct timespec atime;

	mapping_stat_times(mapping, size, blocks, mtime, &atime);
}

void mapping_stat_times(struct mapping *mapping, uint64_t *size, uint64_t *blocks,
			struct timespec *mtime, struct timespec *atime)
{
	struct stat st;

	if (!mapping->shared) {
		*size = mapping_size(mapping);
		*blocks = atomic_load(&mapping->nr_pages) << (PAGE_SHIFT - 9);
		*mtime = *atime = (struct timespec){ 0 };
		return;
	}
	memory_stat(&mapping->memory, &st);
	*size = (uint64_t)st.st_size;
	*blocks = (uint64_t)st.st_blocks;
	*mtime = st.st_mtim;
	*atime = st.st_atim;
}

int mapping_clear_times(struct mapping *mapping)
{
	return mapping->shared ? memory_clear_times(&mapping->memory) : 0;
}

int mapping_map_writable(struct mapping *mapping)
{
	int writable = atomic_load(&mapping->writable);

	do {
		if (writable < 0)
			return -EPERM;
	} while (!atomic_compare_exchange_weak(&mapping->writable, &writable, writable + 1));
	return 0;
}

void mapping_unmap_writable(struct mapping *mapping)
{
	int before = atomic_fetch_sub(&mapping->writable, 1);

	assert(before > 0);
	(void)before;
}

int mapping_deny_writable(struct mapping *mapping)
{
	int writable = atomic_load(&mapping->writable);

	do {
		if (writable > 0)
			return -EBUSY;
	} while (!atomic_compare_exchange_weak(&mapping->writable, &writable, writable - 1));
	return 0;
}

void mapping_allow_writable(struct mapping *mapping)
{
	int before = atomic_fetch_add(&mapping->writable, 1);

	assert(before < 0);
	(void)before;
}

/*
 * The memory is sealed first and without our lock, because the kernel may look at its pages for a
 * while. From then on it refuses what we still let through; every operation undoes itself when it
 * does. Taking the lock afterwards waits for those that are under way.
 */
int mapping_add_seals(struct mapping *mapping, unsigned seals)
{
	const unsigned known =
		F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
	int rc;

	if (seals & ~known)
		return -EINVAL;
	rc = memory_add_seals(&mapping->memory, seals);
	if (rc < 0)
		return rc;
	scoped_write(&mapping->invalidate);
	atomic_fetch_or(&mapping->seals, seals);
	return 0;
}
