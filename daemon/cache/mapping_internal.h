/* SPDX-License-Identifier: MIT */
/*
 * What the sources of a mapping share and nobody else calls. "Exclusive" is the invalidate lock
 * held for writing, "shared" held for reading or writing.
 */
#pragma once

#include <fcntl.h>

#include "cache/mapping.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define SEALS_WRITE ((unsigned)(F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
#define PAGES_LAST (MAPPING_SIZE_MAX >> PAGE_SHIFT) /* last page that a file can have */
#define PAGES_HUGE (UINT64_C(1) << FOLIO_ORDER_HUGE)
#define BYTES_HUGE (PAGES_HUGE << PAGE_SHIFT)

/* How mapping_add_folios() gets pages out of the budget. */
enum mapping_charge {
	CHARGE_ALL,   /* all that are missing, or -ENOSPC */
	CHARGE_SOME,  /* as far as the budget goes, but at least the first page */
	CHARGE_FORCE, /* all: the pages exist */
};

static inline uint64_t page_of(uint64_t offset)
{
	return offset >> PAGE_SHIFT;
}

/* Page boundary at or after @offset, as a page number. */
static inline uint64_t page_after(uint64_t offset)
{
	return (offset >> PAGE_SHIFT) + ((offset & (PAGE_BYTES - 1)) != 0);
}

/* Returns false when the range is empty; else cuts it at the largest size of a file. */
static inline bool range_clamp(uint64_t offset, uint64_t *length)
{
	if (offset >= MAPPING_SIZE_MAX || *length == 0)
		return false;
	if (*length > MAPPING_SIZE_MAX - offset)
		*length = MAPPING_SIZE_MAX - offset;
	return true;
}

/**
 * mapping_has_folios() - is every page of a range in a folio?
 * @single: out: the folio, when the range is a single page and has one; else NULL
 * Context: shared.
 */
bool mapping_has_folios(struct mapping *mapping, uint64_t first, uint64_t last,
			struct folio **single);

/**
 * mapping_is_filled() - has the memory every page of a range?
 *
 * May say no though it has: a page that was allocated and never written does not show.
 * Context: exclusive, so that no write is under way.
 */
bool mapping_is_filled(struct mapping *mapping, uint64_t first, uint64_t last);

/**
 * mapping_add_folios() - fill the holes of a range of pages with folios
 * @first: page
 * @last: page, included
 * @end: out: first page that was not looked at: @last + 1 unless the budget ended before
 *
 * On error folios may have been added: mapping_prune() takes them out again.
 * Context: shared. Takes the tree's lock.
 * Return: 0; -ENOSPC; -ENOMEM.
 */
int mapping_add_folios(struct mapping *mapping, uint64_t first, uint64_t last,
		       enum mapping_charge charge, uint64_t *end);

/**
 * mapping_prune() - forget folios of a range that the memory has no pages for
 *
 * That is what is left when pages were announced by mapping_add_folios() and never came to be.
 * Folios that are flagged ALLOCATED stay.
 * Context: exclusive, so that no write is under way. Takes the tree's lock.
 */
void mapping_prune(struct mapping *mapping, uint64_t first, uint64_t last);

/**
 * mapping_erase_folios() - forget folios that lie in a range whole
 * Context: exclusive. Takes the tree's lock. Wakes who waits for pins.
 */
void mapping_erase_folios(struct mapping *mapping, uint64_t first, uint64_t last);

/**
 * mapping_split_at() - make a page the beginning of a folio
 *
 * A pinned folio stays whole, since which of its pages are pinned cannot be told. One that is only
 * referenced is replaced by its halves; the references keep the old one, detached.
 * Context: exclusive. Takes the tree's lock.
 * Return: 0, -ENOMEM with contents and accounting unchanged.
 */
int mapping_split_at(struct mapping *mapping, uint64_t page);

/* Count pages that have become huge, or are no longer. */
static inline void mapping_count_huge(struct mapping *mapping, int64_t pages)
{
	atomic_fetch_add_explicit(&mapping->nr_huge, (uint64_t)pages, memory_order_relaxed);
	reservation_count_huge(mapping->budget, (uint64_t)pages);
}

/**
 * mapping_set_flag() - flag all folios that lie in a range, in part or whole
 * Context: shared. Takes the tree's lock.
 */
void mapping_set_flag(struct mapping *mapping, uint64_t first, uint64_t last, unsigned flag);

/**
 * mapping_mark_dirty() - flag and mark what was written
 * Context: shared. Takes the tree's lock.
 */
void mapping_mark_dirty(struct mapping *mapping, uint64_t first, uint64_t last);

/**
 * mapping_fill() - give every page of a range a folio and memory
 * Context: exclusive.
 * Return: 0; -ENOSPC; -ENOMEM; -EPERM. Nothing changed on error.
 */
int mapping_fill(struct mapping *mapping, uint64_t first, uint64_t last);

/**
 * mapping_sync_locked() - mapping_sync_from_memory() for pages
 * Context: exclusive.
 * Return: 0, -ENOMEM.
 */
int mapping_sync_locked(struct mapping *mapping, uint64_t first, uint64_t last);

/**
 * mapping_wake_pin_waiters() - pins of the mapping have become fewer
 * Context: any; no tree lock needed.
 */
void mapping_wake_pin_waiters(struct mapping *mapping);
