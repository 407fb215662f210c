/* SPDX-License-Identifier: MIT */
/*
 * Pins and those who wait for their end.
 *
 * A pinned folio that is in the tree carries the mark PINNED, so that finding what hinders a write
 * seal costs time in proportion to what is pinned. The mark follows the count: it is set, under the
 * tree's lock, after the pin was counted, and cleared, under the same lock, when the count is found
 * to be 0. So a folio without the mark has no pin that was there when the lock was taken.
 *
 * A folio that is cut off loses its mark with its place in the tree, and whoever waits for pins
 * need not wait for it any longer: the holder keeps the old pages, the file gets new ones. Large
 * folios that a pin divides cannot be cut in two; see mapping_split_at().
 *
 * mapping_wait_for_pins() sleeps on a condition. Whoever makes pins fewer (the last unpin of a
 * folio, truncation, a punch) changes the tree first and then signals with the condition's lock
 * held; the waiter looks at the tree with that lock held. So no wake-up is lost.
 */
#include "cache/mapping_pins.h"

#include <errno.h>
#include <time.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "cache/mapping_internal.h"

#define MARK_PINNED ((enum xarray_mark)FOLIO_MARK_PINNED)

/**
 * struct mapping_pins - the pins on the folios of one range
 * @first:  page
 * @last:   page, included
 * @count:  of @folios
 * @folios: each pinned once for every page of it that lies in the range; they stay pinned when the
 *          file is truncated below them
 */
struct mapping_pins {
	uint64_t first, last;
	size_t count;
	struct folio *folios[];
};

/* Pages of a folio that lie in a range. */
static unsigned folio_overlap(const struct folio *folio, uint64_t first, uint64_t last)
{
	uint64_t begin = folio->index > first ? folio->index : first;
	uint64_t end = folio_end(folio) <= last ? folio_end(folio) : last + 1;

	return (unsigned)(end - begin);
}

void mapping_wake_pin_waiters(struct mapping *mapping)
{
	scoped_mutex(&mapping->pin_lock);
	pthread_cond_broadcast(&mapping->pin_gone);
}

static size_t mapping_count_folios_locked(struct mapping *mapping, uint64_t first, uint64_t last)
{
	struct folio *folio;
	uint64_t index = first;
	size_t count = 0;
	unsigned order;

	xarray_for_each(&mapping->folios, index, last, XARRAY_PRESENT, order, folio)
		count++;
	return count;
}

/* Pin all folios of the range, which has no holes, or none. */
static int mapping_pin_folios(struct mapping *mapping, uint64_t first, uint64_t last,
			      struct mapping_pins **out)
{
	struct mapping_pins *pins;
	struct folio *folio;
	uint64_t index = first;
	unsigned order;
	int rc = 0;

	xarray_lock(&mapping->folios);
	pins = mem_alloc(sizeof(*pins) + mapping_count_folios_locked(mapping, first, last) *
						 sizeof(pins->folios[0]));
	if (!pins) {
		xarray_unlock(&mapping->folios);
		return -ENOMEM;
	}
	*pins = (struct mapping_pins){ .first = first, .last = last };
	xarray_for_each(&mapping->folios, index, last, XARRAY_PRESENT, order, folio) {
		rc = folio_try_pin(folio, folio_overlap(folio, first, last));
		if (rc < 0)
			break;
		pins->folios[pins->count++] = folio;
		xarray_set_mark_locked(&mapping->folios, folio->index, MARK_PINNED);
	}
	xarray_unlock(&mapping->folios);
	if (rc < 0)
		mapping_unpin_range(mapping, pins);
	else
		*out = pins;
	return rc;
}

/* Every page has a folio and memory. Context: exclusive. */
static int mapping_pin_filled(struct mapping *mapping, uint64_t first, uint64_t last,
			      struct mapping_pins **pins)
{
	/* Only to be exact later: a folio that stays whole is pinned just as well. */
	mapping_split_at(mapping, first);
	mapping_split_at(mapping, last + 1);
	return mapping_pin_folios(mapping, first, last, pins);
}

int mapping_pin_range(struct mapping *mapping, uint64_t offset, uint64_t length,
		      struct mapping_pins **pins)
{
	uint64_t first, last, end;
	int rc;

	if (length == 0 || offset > MAPPING_SIZE_MAX || length > MAPPING_SIZE_MAX - offset)
		return -EINVAL;
	first = page_of(offset);
	last = page_of(offset + length - 1);
	if (last >= page_after(mapping_size(mapping)))
		return -EINVAL;
	/* Asking what clients have written looks at every page: one question, if that will do. */
	if (mapping->shared) {
		scoped_write(&mapping->invalidate);
		if (last >= page_after(mapping_size(mapping)))
			return -EINVAL;
		if (mapping_is_filled(mapping, first, last)) {
			rc = mapping_add_folios(mapping, first, last, CHARGE_FORCE, &end);
			return rc < 0 ? rc : mapping_pin_filled(mapping, first, last, pins);
		}
	}
	/* Most of the work, in portions; what changes before the lock is taken is mended below. */
	rc = mapping_populate(mapping, offset, length);
	if (rc < 0)
		return rc;

	scoped_write(&mapping->invalidate);
	if (last >= page_after(mapping_size(mapping)))
		return -EINVAL;
	rc = mapping_sync_locked(mapping, first, last);
	if (rc == 0)
		rc = mapping_fill(mapping, first, last);
	return rc < 0 ? rc : mapping_pin_filled(mapping, first, last, pins);
}

void mapping_unpin_range(struct mapping *mapping, struct mapping_pins *pins)
{
	bool gone = false;

	if (!pins)
		return;
	xarray_lock(&mapping->folios);
	for (size_t i = 0; i < pins->count; i++) {
		struct folio *folio = pins->folios[i];
		bool attached = folio_state(folio) == FOLIO_CACHED;

		/* While it is in the tree, the tree's reference keeps it across the unpin. */
		folio_unpin(folio, folio_overlap(folio, pins->first, pins->last));
		if (attached && !folio_maybe_dma_pinned(folio)) {
			xarray_clear_mark_locked(&mapping->folios, folio->index, MARK_PINNED);
			gone = true;
		}
	}
	xarray_unlock(&mapping->folios);
	mem_free(pins);
	if (gone)
		mapping_wake_pin_waiters(mapping);
}

bool mapping_pins_attached(const struct mapping_pins *pins)
{
	for (size_t i = 0; i < pins->count; i++)
		if (folio_state(pins->folios[i]) != FOLIO_DETACHED)
			return true;
	return false;
}

bool mapping_pins_intact(const struct mapping_pins *pins)
{
	for (size_t i = 0; i < pins->count; i++)
		if (folio_state(pins->folios[i]) == FOLIO_DETACHED)
			return false;
	return true;
}

bool mapping_may_be_pinned(struct mapping *mapping)
{
	struct folio *folio;
	uint64_t index = 0;
	unsigned order;
	bool pinned = false;

	if (!xarray_marked(&mapping->folios, MARK_PINNED))
		return false;
	xarray_lock(&mapping->folios);
	xarray_for_each(&mapping->folios, index, XARRAY_INDEX_MAX, MARK_PINNED, order, folio) {
		pinned = folio_maybe_dma_pinned(folio);
		if (pinned)
			break;
		/* Pinned once, and by nobody who told us of the end. */
		xarray_clear_mark_locked(&mapping->folios, folio->index, MARK_PINNED);
	}
	xarray_unlock(&mapping->folios);
	return pinned;
}

int mapping_wait_for_pins(struct mapping *mapping, int64_t deadline_ms)
{
	struct timespec deadline = {
		.tv_sec = deadline_ms / 1000,
		.tv_nsec = deadline_ms % 1000 * 1000000,
	};

	scoped_mutex(&mapping->pin_lock);
	while (mapping_may_be_pinned(mapping)) {
		int rc = deadline_ms < 0 ? pthread_cond_wait(&mapping->pin_gone, &mapping->pin_lock)
					 : pthread_cond_timedwait(&mapping->pin_gone,
								  &mapping->pin_lock, &deadline);

		if (rc == ETIMEDOUT)
			return mapping_may_be_pinned(mapping) ? -EBUSY : 0;
	}
	return 0;
}
