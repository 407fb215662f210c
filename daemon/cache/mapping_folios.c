/* SPDX-License-Identifier: MIT */
/*
 * Folios come into the tree and leave it.
 *
 * What the tree promises about a mapping that is not shared: a page is in a folio if and only if
 * the memory has that page, and the budget was charged for it. Two things bend this, both on the
 * safe side (charged, though not there): a folio is added before its pages are written, and a large
 * pinned folio that a punch cannot divide stays whole. While the invalidate lock is held
 * exclusively no write is under way, and mapping_prune() can tell what never came to be by asking
 * the memory.
 */
#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "base/rcu.h"
#include "cache/mapping_internal.h"

struct folio *mapping_get_folio(struct mapping *mapping, uint64_t index, const char *who)
{
	struct folio *folio;

	rcu_read_lock();
	while ((folio = xarray_load(&mapping->folios, index))) {
		if (!folio_try_get(folio, who)) {
			/* Frozen for a moment, or on its way out of the tree. */
			sched_yield();
			continue;
		}
		/* It could have been cut off between the lookup and the reference. */
		if (atomic_load(&folio->mapping) == mapping &&
		    xarray_load(&mapping->folios, index) == folio)
			break;
		folio_put(folio, who);
	}
	rcu_read_unlock();
	return folio;
}

bool mapping_is_filled(struct mapping *mapping, uint64_t first, uint64_t last)
{
	uint64_t index = first;
	struct folio *folio;

	if (mapping->shared) {
		int64_t hole = memory_seek(&mapping->memory, first << PAGE_SHIFT, SEEK_HOLE);

		return hole >= 0 && page_after((uint64_t)hole) > last;
	}
	rcu_read_lock();
	do {
		folio = xarray_load(&mapping->folios, index);
		if (!folio || folio_test(folio, FOLIO_RAGGED))
			break;
		index = folio_end(folio);
	} while (index <= last);
	rcu_read_unlock();
	return index > last;
}

bool mapping_has_folios(struct mapping *mapping, uint64_t first, uint64_t last,
			struct folio **single)
{
	struct folio *folio = NULL;
	uint64_t index = first;

	/* RCU is for the tree's nodes. Folios cannot leave while the invalidate lock is held. */
	rcu_read_lock();
	do {
		folio = xarray_load(&mapping->folios, index);
		if (!folio)
			break;
		index = folio_end(folio);
	} while (index <= last);
	rcu_read_unlock();
	*single = first == last ? folio : NULL;
	return folio;
}

/* Pages of a range that are in no folio. */
static uint64_t mapping_missing_locked(struct mapping *mapping, uint64_t first, uint64_t last)
{
	uint64_t missing = last - first + 1, index = first;
	struct folio *folio;
	unsigned order;

	xarray_for_each(&mapping->folios, index, last, XARRAY_PRESENT, order, folio) {
		uint64_t begin = folio->index > first ? folio->index : first;
		uint64_t end = folio_end(folio) <= last ? folio_end(folio) : last + 1;

		missing -= end - begin;
	}
	return missing;
}

/* The largest folio that may begin at a page, with so many pages free. */
static unsigned mapping_natural_order(uint64_t index, uint64_t pages)
{
	unsigned order = 63 - (unsigned)__builtin_clzll(pages);
	unsigned aligned = index ? (unsigned)__builtin_ctzll(index) : FOLIO_ORDER_HUGE;

	if (order > aligned)
		order = aligned;
	return order < FOLIO_ORDER_HUGE ? order : FOLIO_ORDER_HUGE;
}

static int mapping_store_folio_locked(struct mapping *mapping, uint64_t index, unsigned order)
{
	struct folio *folio = folio_new(mapping, index, order, "tree");
	int rc;

	if (!folio)
		return -ENOMEM;
	/* CACHED before it can be found: a lookup never sees a NEW one. */
	folio_transition(folio, FOLIO_NEW, FOLIO_CACHED);
	rc = xarray_store_locked(&mapping->folios, index, order, folio);
	if (rc < 0) {
		folio_free_unused(folio, "tree");
		return rc;
	}
	atomic_fetch_add_explicit(&mapping->nr_pages, UINT64_C(1) << order, memory_order_relaxed);
	return 0;
}

int mapping_add_folios(struct mapping *mapping, uint64_t first, uint64_t last,
		       enum mapping_charge charge, uint64_t *end)
{
	uint64_t index = first, left;
	bool charged;
	int rc = 0;

	*end = first;
	xarray_lock(&mapping->folios);
	left = mapping_missing_locked(mapping, first, last);
	if (charge == CHARGE_FORCE)
		reservation_force(mapping->budget, left);
	else if (charge == CHARGE_SOME)
		left = reservation_take_some(mapping->budget, left);
	else
		rc = reservation_take(mapping->budget, left);
	charged = rc == 0;

	while (rc == 0 && index <= last) {
		uint64_t found = index, gap;
		struct folio *folio =
			xarray_find(&mapping->folios, &found, last, XARRAY_PRESENT, NULL);

		if (folio && found <= index) {
			index = folio_end(folio);
			continue;
		}
		gap = (folio ? found : last + 1) - index;
		while (gap && left) {
			unsigned order = mapping_natural_order(index, gap < left ? gap : left);

			rc = mapping_store_folio_locked(mapping, index, order);
			if (rc < 0)
				break;
			gap -= UINT64_C(1) << order;
			left -= UINT64_C(1) << order;
			index += UINT64_C(1) << order;
		}
		if (gap)
			break;
	}
	xarray_unlock(&mapping->folios);
	if (charged && left)
		reservation_give(mapping->budget, left);
	if (rc < 0)
		return rc;
	if (index == first)
		return reservation_error(mapping->budget);
	*end = index <= last ? index : last + 1;
	return 0;
}

static void mapping_uncharge(struct mapping *mapping, struct folio *folio)
{
	atomic_fetch_sub_explicit(&mapping->nr_pages, folio_pages(folio), memory_order_relaxed);
	if (folio_test(folio, FOLIO_HUGE))
		mapping_count_huge(mapping, -(int64_t)folio_pages(folio));
	reservation_give(mapping->budget, folio_pages(folio));
}

/* Take one folio out; its pins and references keep it. */
static void mapping_erase_folio_locked(struct mapping *mapping, struct folio *folio)
{
	xarray_erase_locked(&mapping->folios, folio->index);
	mapping_uncharge(mapping, folio);
	folio_transition(folio, FOLIO_CACHED, FOLIO_DETACHED);
	atomic_store(&folio->mapping, NULL);
	folio_put(folio, "tree");
}

void mapping_erase_folios(struct mapping *mapping, uint64_t first, uint64_t last)
{
	struct folio *folio;
	uint64_t index = first;
	unsigned order;
	bool marked;

	xarray_lock(&mapping->folios);
	marked = xarray_marked(&mapping->folios, (enum xarray_mark)FOLIO_MARK_PINNED);
	xarray_for_each(&mapping->folios, index, last, XARRAY_PRESENT, order, folio) {
		if (folio->index >= first && folio_end(folio) - 1 <= last)
			mapping_erase_folio_locked(mapping, folio);
		else
			folio_set(folio, FOLIO_RAGGED);
	}
	xarray_unlock(&mapping->folios);
	if (marked)
		mapping_wake_pin_waiters(mapping);
}

/* The two halves that a folio is exchanged for. */
struct folio_halves {
	struct folio *halves[2];
	unsigned used;
};

static void *folio_halves_take(uint64_t index, void *data)
{
	struct folio_halves *split = data;

	(void)index;
	return split->halves[split->used++];
}

/* Exchange a folio for two of half its size. */
static int mapping_halve_locked(struct mapping *mapping, struct folio *folio)
{
	struct folio_halves split = { .used = 0 };
	unsigned order = folio->order - 1;
	int rc = 0;

	lock_assert_held(&mapping->folios.lock);
	for (unsigned i = 0; i < 2 && rc == 0; i++) {
		uint64_t index = folio->index + ((uint64_t)i << order);
		unsigned kept = atomic_load(&folio->flags) &
				(FOLIO_DIRTY | FOLIO_ALLOCATED | FOLIO_RAGGED);

		split.halves[i] = folio_new(mapping, index, order, "tree");
		if (!split.halves[i]) {
			rc = -ENOMEM;
			break;
		}
		folio_set(split.halves[i], kept);
		folio_transition(split.halves[i], FOLIO_NEW, FOLIO_CACHED);
	}
	if (rc == 0)
		rc = xarray_split_locked(&mapping->folios, folio->index, order, folio_halves_take,
					 &split);
	if (rc < 0) {
		for (unsigned i = 0; i < 2; i++)
			if (split.halves[i])
				folio_free_unused(split.halves[i], "tree");
		return rc;
	}
	if (folio_test(folio, FOLIO_HUGE))
		mapping_count_huge(mapping, -(int64_t)folio_pages(folio));
	folio_transition(folio, FOLIO_CACHED, FOLIO_DETACHED);
	atomic_store(&folio->mapping, NULL);
	folio_put(folio, "tree");
	return 0;
}

int mapping_split_at(struct mapping *mapping, uint64_t page)
{
	struct folio *folio;
	int rc = 0;

	xarray_lock(&mapping->folios);
	while (rc == 0 && (folio = xarray_load(&mapping->folios, page))) {
		if (folio->index == page || folio_maybe_dma_pinned(folio))
			break;
		rc = mapping_halve_locked(mapping, folio);
	}
	xarray_unlock(&mapping->folios);
	return rc;
}

enum memory_extent {
	EXTENT_DATA,
	EXTENT_HOLE,
	EXTENT_MIXED,
};

/* What the memory said last, so that one question answers for many folios: hole, data, hole. */
struct memory_extents {
	uint64_t begin, data, end; /* bytes: a hole from begin, data from there to end */
};

static enum memory_extent mapping_memory_extent(struct mapping *mapping, struct folio *folio,
						struct memory_extents *known)
{
	uint64_t begin = folio->index << PAGE_SHIFT, end = folio_end(folio) << PAGE_SHIFT;

	if (begin < known->begin || begin >= known->end) {
		int64_t data = memory_seek(&mapping->memory, begin, SEEK_DATA);
		int64_t hole = data < 0 ? -1 : memory_seek(&mapping->memory, data, SEEK_HOLE);

		known->begin = begin;
		known->data = data < 0 ? UINT64_MAX : (uint64_t)data;
		/* The end of the file counts as a hole, though it may lie inside a page. */
		known->end = hole < 0 ? UINT64_MAX : page_after((uint64_t)hole) << PAGE_SHIFT;
	}
	if (end <= known->data)
		return EXTENT_HOLE;
	return begin >= known->data && end <= known->end ? EXTENT_DATA : EXTENT_MIXED;
}

void mapping_prune(struct mapping *mapping, uint64_t first, uint64_t last)
{
	struct memory_extents known = { 0, 0, 0 };
	uint64_t index = first;
	struct folio *folio;

	xarray_lock(&mapping->folios);
	while (index <= last &&
	       (folio = xarray_find(&mapping->folios, &index, last, XARRAY_PRESENT, NULL))) {
		enum memory_extent extent = folio_test(folio, FOLIO_ALLOCATED) ?
						    EXTENT_DATA :
						    mapping_memory_extent(mapping, folio, &known);

		if (extent == EXTENT_MIXED && !folio_maybe_dma_pinned(folio) &&
		    mapping_halve_locked(mapping, folio) == 0)
			continue;
		index = folio_end(folio);
		if (extent != EXTENT_HOLE)
			continue;
		/*
		 * A page that was begun and never filled is not data to the kernel, but it is
		 * there. Where clients have the memory they may fill the hole just now: leave it to
		 * them.
		 */
		if (!mapping->shared)
			memory_punch(&mapping->memory, folio->index << PAGE_SHIFT,
				     folio_pages(folio) << PAGE_SHIFT);
		mapping_erase_folio_locked(mapping, folio);
	}
	xarray_unlock(&mapping->folios);
}

void mapping_set_flag(struct mapping *mapping, uint64_t first, uint64_t last, unsigned flag)
{
	struct folio *folio;
	uint64_t index = first;
	unsigned order;

	xarray_lock(&mapping->folios);
	xarray_for_each(&mapping->folios, index, last, XARRAY_PRESENT, order, folio)
		folio_set(folio, flag);
	xarray_unlock(&mapping->folios);
}

void mapping_mark_dirty(struct mapping *mapping, uint64_t first, uint64_t last)
{
	struct folio *folio;
	uint64_t index = first;
	unsigned order;

	xarray_lock(&mapping->folios);
	xarray_for_each(&mapping->folios, index, last, XARRAY_PRESENT, order, folio) {
		if (folio_test(folio, FOLIO_DIRTY))
			continue;
		xarray_set_mark_locked(&mapping->folios, folio->index,
				       (enum xarray_mark)FOLIO_MARK_DIRTY);
		folio_set(folio, FOLIO_DIRTY);
	}
	xarray_unlock(&mapping->folios);
}
