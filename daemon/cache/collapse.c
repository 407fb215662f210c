/* SPDX-License-Identifier: MIT */
/*
 * Ranges of 2 MiB of a write-sealed file become one huge page and one folio.
 *
 * For a few ranges at a time, with the invalidate lock held exclusively:
 *
 *	1. look: all pages there, none pinned, none referenced by anybody but the tree. Cheap; most
 *	   ranges that cannot be collapsed are found here, before the memory is touched.
 *	2. let the kernel copy the pages into huge ones. It does the same for its own references,
 *	   and gives up as we do when it meets one that it cannot explain. It begins each call by
 *	   waiting for all CPUs, which costs more than copying 2 MiB does; hence a few ranges at a
 *	   time. When a call fails for one of them, they are tried one by one; those that are huge
 *	   already cost nothing.
 *	3. freeze every folio of the range: exchange the one reference that the tree has for none,
 *	   which fails if anybody has got another since. On failure thaw those that were frozen;
 *	   nothing has happened to the tree then.
 *	4. put one folio in the place of all. Lookups find an old one, which they cannot get a
 *	   reference to and so look again, or the new one; never a hole.
 *	5. retire the old ones; they and the tree's nodes are freed after a grace period.
 *
 * The bytes do not change in any step, so readers, who take no lock, need not know.
 */
#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "cache/mapping_internal.h"

#define COLLAPSE_BATCH 8u /* ranges */

enum collapse_state {
	COLLAPSE_READY,	   /* nothing is known to be in the way */
	COLLAPSE_DONE,	   /* huge */
	COLLAPSE_GIVEN_UP, /* something is in the way now */
	COLLAPSE_UNABLE,   /* the kernel cannot */
};

struct collapse_range {
	enum collapse_state state;
	struct folio *huge; /* to take the place of the small ones; NULL: there is one already */
};

/* All pages there, in folios that only the tree refers to and that lie in the range whole? */
static bool collapse_is_possible_locked(struct mapping *mapping, uint64_t first)
{
	uint64_t index = first, last = first + PAGES_HUGE - 1;

	lock_assert_held(&mapping->folios.lock);
	while (index <= last) {
		struct folio *folio = xarray_load(&mapping->folios, index);

		if (!folio || folio->order > FOLIO_ORDER_HUGE || atomic_load(&folio->refcount) != 1)
			return false;
		index = folio_end(folio);
	}
	return true;
}

/* Returns how many folios are in @frozen, or 0 when one of the range could not be frozen. */
static unsigned collapse_freeze_locked(struct mapping *mapping, uint64_t first,
				       struct folio *frozen[static PAGES_HUGE])
{
	uint64_t index = first, last = first + PAGES_HUGE - 1;
	unsigned count = 0;

	while (index <= last) {
		struct folio *folio = xarray_load(&mapping->folios, index);

		if (!folio || !folio_try_freeze(folio, 1)) {
			while (count)
				folio_unfreeze(frozen[--count], 1);
			return 0;
		}
		frozen[count++] = folio;
		index = folio_end(folio);
	}
	return count;
}

static enum collapse_state collapse_tree_locked(struct mapping *mapping, uint64_t first,
						 struct folio *huge)
{
	struct folio *frozen[PAGES_HUGE];
	unsigned count = collapse_freeze_locked(mapping, first, frozen), kept = 0, was_huge = 0;

	if (count == 0)
		return COLLAPSE_GIVEN_UP;
	for (unsigned i = 0; i < count; i++) {
		kept |= atomic_load(&frozen[i]->flags) & (FOLIO_DIRTY | FOLIO_ALLOCATED);
		if (folio_test(frozen[i], FOLIO_HUGE))
			was_huge += folio_pages(frozen[i]);
	}
	folio_set(huge, kept | FOLIO_HUGE);
	folio_transition(huge, FOLIO_NEW, FOLIO_CACHED);
	if (xarray_replace_locked(&mapping->folios, first, FOLIO_ORDER_HUGE, huge) < 0) {
		while (count)
			folio_unfreeze(frozen[--count], 1);
		return COLLAPSE_GIVEN_UP;
	}
	if (kept & FOLIO_DIRTY)
		xarray_set_mark_locked(&mapping->folios, first, (enum xarray_mark)FOLIO_MARK_DIRTY);
	for (unsigned i = 0; i < count; i++)
		folio_retire(frozen[i]);
	mapping_count_huge(mapping, (int64_t)(PAGES_HUGE - was_huge));
	return COLLAPSE_DONE;
}

/* Step 1, and the folio for step 4. */
static struct collapse_range collapse_examine(struct mapping *mapping, uint64_t first)
{
	struct collapse_range range = { .state = COLLAPSE_GIVEN_UP };
	struct folio *folio = NULL;
	bool one, huge;

	if (mapping_sync_locked(mapping, first, first + PAGES_HUGE - 1) < 0)
		return range;
	xarray_lock(&mapping->folios);
	if (collapse_is_possible_locked(mapping, first))
		folio = xarray_load(&mapping->folios, first);
	one = folio && folio->order == FOLIO_ORDER_HUGE;
	huge = one && folio_test(folio, FOLIO_HUGE);
	xarray_unlock(&mapping->folios);
	if (!folio)
		return range;
	if (!one) {
		range.huge = folio_new(mapping, first, FOLIO_ORDER_HUGE, "tree");
		if (!range.huge)
			return range;
	}
	range.state = huge ? COLLAPSE_DONE : COLLAPSE_READY;
	return range;
}

/* Step 2 for neighbours that are all ready. */
static void collapse_memory(struct mapping *mapping, uint64_t first, struct collapse_range *ranges,
			    unsigned count)
{
	int rc = memory_collapse(&mapping->memory, first << PAGE_SHIFT, count * BYTES_HUGE);

	if (rc == 0)
		return;
	if (count == 1) {
		ranges->state = rc == -EINVAL ? COLLAPSE_UNABLE : COLLAPSE_GIVEN_UP;
		return;
	}
	for (unsigned i = 0; i < count; i++)
		collapse_memory(mapping, first + i * PAGES_HUGE, ranges + i, 1);
}

/* Steps 3 to 5. */
static void collapse_finish(struct mapping *mapping, uint64_t first, struct collapse_range *range)
{
	xarray_lock(&mapping->folios);
	if (range->huge) {
		range->state = collapse_tree_locked(mapping, first, range->huge);
	} else {
		/* The folio was made large by a large write: only the memory had to follow. */
		folio_set(xarray_load(&mapping->folios, first), FOLIO_HUGE);
		mapping_count_huge(mapping, (int64_t)PAGES_HUGE);
		range->state = COLLAPSE_DONE;
	}
	xarray_unlock(&mapping->folios);
}

static void mapping_collapse_batch(struct mapping *mapping, uint64_t first,
				   struct collapse_range *ranges, unsigned count)
{
	unsigned next;

	scoped_write(&mapping->invalidate);
	for (unsigned i = 0; i < count; i++) {
		uint64_t page = first + i * PAGES_HUGE;

		ranges[i] = (struct collapse_range){ .state = COLLAPSE_GIVEN_UP };
		if ((page + PAGES_HUGE) << PAGE_SHIFT <= mapping_size(mapping))
			ranges[i] = collapse_examine(mapping, page);
	}
	for (unsigned i = 0; i < count; i = next) {
		next = i + 1;
		if (ranges[i].state != COLLAPSE_READY)
			continue;
		while (next < count && ranges[next].state == COLLAPSE_READY)
			next++;
		collapse_memory(mapping, first + i * PAGES_HUGE, ranges + i, next - i);
	}
	for (unsigned i = 0; i < count; i++) {
		if (ranges[i].state == COLLAPSE_READY)
			collapse_finish(mapping, first + i * PAGES_HUGE, &ranges[i]);
		if (ranges[i].state != COLLAPSE_DONE && ranges[i].huge)
			folio_free_unused(ranges[i].huge, "tree");
	}
}

/* The first range at or after @first with a page of tree or memory; a hole costs nothing. */
static uint64_t collapse_next(struct mapping *mapping, uint64_t first, uint64_t end)
{
	int64_t data = memory_seek(&mapping->memory, first << PAGE_SHIFT, SEEK_DATA);
	uint64_t next = data < 0 ? end : page_of((uint64_t)data), index = first;

	rcu_read_lock();
	if (xarray_find(&mapping->folios, &index, end - 1, XARRAY_PRESENT, NULL) && index < next)
		next = index;
	rcu_read_unlock();
	next = next / PAGES_HUGE * PAGES_HUGE;
	return next < first ? first : next < end ? next : end;
}

long mapping_collapse_range(struct mapping *mapping, uint64_t offset, uint64_t length,
			    bool (*wanted)(struct mapping *mapping), long *failed)
{
	uint64_t first, end;
	long done = 0, given_up = 0;

	if (failed)
		*failed = 0;
	if (!(atomic_load(&mapping->seals) & F_SEAL_WRITE))
		return -EPERM;
	if (!range_clamp(offset, &length))
		return 0;
	end = mapping_size(mapping);
	if (end > offset + length)
		end = offset + length;
	first = (offset + BYTES_HUGE - 1) / BYTES_HUGE * PAGES_HUGE;
	end = end / BYTES_HUGE * PAGES_HUGE;
	while (first < end && (first = collapse_next(mapping, first, end)) < end) {
		struct collapse_range ranges[COLLAPSE_BATCH];
		uint64_t left = (end - first) / PAGES_HUGE;
		unsigned count = left < COLLAPSE_BATCH ? (unsigned)left : COLLAPSE_BATCH;
		unsigned unable = 0;

		if (wanted && !wanted(mapping))
			break;
		mapping_collapse_batch(mapping, first, ranges, count);
		for (unsigned i = 0; i < count; i++) {
			done += ranges[i].state == COLLAPSE_DONE;
			given_up += ranges[i].state != COLLAPSE_DONE;
			unable += ranges[i].state == COLLAPSE_UNABLE;
		}
		/* It will not be able to do the rest either. */
		if (unable && done == 0)
			return -EINVAL;
		first += count * PAGES_HUGE;
	}
	if (failed)
		*failed = given_up;
	return done;
}
