/* SPDX-License-Identifier: MIT */
/*
 * Ranges of 2 MiB of a write-sealed file become one huge page and one folio.
 *
 * For each range, with the invalidate lock held exclusively:
 *
 *	1. look: all pages there, none pinned, none referenced by anybody but the tree. Cheap, and most
 *	   ranges that cannot be collapsed are found here, before the memory is touched.
 *	2. let the kernel copy the pages into a huge one. It does the same for its own references, and
 *	   gives up as we do when it meets one that it cannot explain.
 *	3. freeze every folio of the range: exchange the one reference that the tree has for none, which
 *	   fails if anybody has got another since. On failure thaw those that were frozen; nothing has
 *	   happened to the tree then.
 *	4. put one folio in the place of all. Lookups find an old one, which they cannot get a reference
 *	   to and so look again, or the new one; never a hole.
 *	5. retire the old ones; they and the tree's nodes are freed after a grace period.
 *
 * The bytes do not change in any step, so readers, who take no lock, need not know.
 */
#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "cache/mapping_internal.h"

enum collapse_result {
	COLLAPSE_DONE,
	COLLAPSE_GIVEN_UP,
	COLLAPSE_UNABLE, /* the kernel cannot */
};

/* All pages there, in folios that only the tree refers to and that do not reach out of the range? */
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

/* Returns how many folios of the range are in @frozen, or 0 when one of them could not be frozen. */
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

static enum collapse_result collapse_tree_locked(struct mapping *mapping, uint64_t first,
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
	atomic_fetch_add(&mapping->nr_huge, PAGES_HUGE - was_huge);
	return COLLAPSE_DONE;
}

static enum collapse_result mapping_collapse_one(struct mapping *mapping, uint64_t first)
{
	struct folio *folio, *huge;
	enum collapse_result result = COLLAPSE_GIVEN_UP;
	bool possible, one;
	int rc;

	scoped_write(&mapping->invalidate);
	if ((first + PAGES_HUGE) << PAGE_SHIFT > mapping_size(mapping))
		return COLLAPSE_GIVEN_UP;
	if (mapping_sync_locked(mapping, first, first + PAGES_HUGE - 1) < 0)
		return COLLAPSE_GIVEN_UP;

	xarray_lock(&mapping->folios);
	possible = collapse_is_possible_locked(mapping, first);
	folio = possible ? xarray_load(&mapping->folios, first) : NULL;
	one = folio && folio->order == FOLIO_ORDER_HUGE;
	if (one && folio_test(folio, FOLIO_HUGE))
		result = COLLAPSE_DONE;
	xarray_unlock(&mapping->folios);
	if (!possible || result == COLLAPSE_DONE)
		return result;

	huge = one ? NULL : folio_new(mapping, first, FOLIO_ORDER_HUGE, "tree");
	if (!one && !huge)
		return COLLAPSE_GIVEN_UP;
	rc = memory_collapse(&mapping->memory, first << PAGE_SHIFT, BYTES_HUGE);
	if (rc == 0) {
		xarray_lock(&mapping->folios);
		if (one) {
			/* The folio was made large by a large write: only the memory had to follow. */
			folio_set(folio, FOLIO_HUGE);
			atomic_fetch_add(&mapping->nr_huge, PAGES_HUGE);
			result = COLLAPSE_DONE;
		} else {
			result = collapse_tree_locked(mapping, first, huge);
		}
		xarray_unlock(&mapping->folios);
	}
	if (huge && result != COLLAPSE_DONE)
		folio_free_unused(huge, "tree");
	return rc == -EINVAL ? COLLAPSE_UNABLE : result;
}

long mapping_collapse_range(struct mapping *mapping, uint64_t offset, uint64_t length, long *failed)
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
	for (; first < end; first += PAGES_HUGE) {
		enum collapse_result result = mapping_collapse_one(mapping, first);

		if (result == COLLAPSE_UNABLE && done == 0 && given_up == 0)
			return -EINVAL;
		if (result == COLLAPSE_DONE)
			done++;
		else
			given_up++;
	}
	if (failed)
		*failed = given_up;
	return done;
}
