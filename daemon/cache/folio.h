/* SPDX-License-Identifier: MIT */
/*
 * A folio: 2^order pages of a file's memory that the cache handles as one, and the count of who
 * uses them. folio.c begins with the states of a folio and the rules of its counts.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/rcu.h"

struct mapping;

#define PAGE_SHIFT 12
#define PAGE_BYTES (UINT64_C(1) << PAGE_SHIFT)

#define FOLIO_PIN_BIAS 1024u /* references that a pin of a small folio counts as */
#define FOLIO_ORDER_HUGE 9u  /* 2 MiB */
#define FOLIO_REFS_MAX ((unsigned)INT32_MAX) /* no more pins beyond so many references */

/* Marks of the tree that holds a mapping's folios. */
enum folio_mark {
	FOLIO_MARK_DIRTY,
	FOLIO_MARK_WRITEBACK,
	FOLIO_MARK_PINNED,
};

enum folio_state {
	FOLIO_NEW,	/* made, not yet in a tree */
	FOLIO_CACHED,	/* in the tree of its mapping */
	FOLIO_FROZEN,	/* in the tree, references taken away for a replacement */
	FOLIO_DETACHED,	/* cut off by truncate, punch or collapse; lives for its holders */
};

/* Bits of struct folio.flags; the two lowest are the enum folio_state. */
#define FOLIO_STATE_MASK 3u
#define FOLIO_DIRTY	(1u << 2) /* as the mark: an overwrite need not lock the tree */
#define FOLIO_ALLOCATED (1u << 3) /* allocated unwritten: the memory has pages where it says hole */
#define FOLIO_HUGE	(1u << 4) /* the memory below is one huge page */
#define FOLIO_RAGGED	(1u << 5) /* cut while pinned: the memory may lack some of its pages */

/**
 * struct folio - 2^order pages
 * @refcount: references; small folios: and FOLIO_PIN_BIAS for each pin; 0: frozen or being freed
 * @pincount: large folios: pins, each of which is a reference too
 * @flags:    FOLIO_*; the state is changed by folio_transition() only
 * @order:    pages are 2^order; never changes
 * @mapping:  whose it is, NULL once detached
 * @index:    page of the file; a multiple of 2^order; never changes
 * @rcu:      used when nobody can have a reference any more
 */
struct folio {
	atomic_uint refcount;
	atomic_uint pincount;
	atomic_uint flags;
	unsigned order;
	union {
		struct {
			struct mapping *_Atomic mapping;
			uint64_t index;
		};
		struct rcu_head rcu;
	};
};

static inline uint64_t folio_pages(const struct folio *folio)
{
	return UINT64_C(1) << folio->order;
}

/* First page after the folio. */
static inline uint64_t folio_end(const struct folio *folio)
{
	return folio->index + folio_pages(folio);
}

static inline bool folio_is_large(const struct folio *folio)
{
	return folio->order > 0;
}

static inline enum folio_state folio_state(struct folio *folio)
{
	return atomic_load_explicit(&folio->flags, memory_order_acquire) & FOLIO_STATE_MASK;
}

static inline bool folio_test(struct folio *folio, unsigned flag)
{
	return atomic_load_explicit(&folio->flags, memory_order_acquire) & flag;
}

static inline void folio_set(struct folio *folio, unsigned flag)
{
	atomic_fetch_or_explicit(&folio->flags, flag, memory_order_acq_rel);
}

static inline void folio_clear(struct folio *folio, unsigned flag)
{
	atomic_fetch_and_explicit(&folio->flags, ~flag, memory_order_acq_rel);
}

/**
 * folio_new() - make a folio
 * @mapping: borrows
 * @index: page of the file, a multiple of 2^order
 * @who: names the reference
 * Context: any.
 * Return: returns a reference to a folio in state NEW, or NULL.
 */
struct folio *folio_new(struct mapping *mapping, uint64_t index, unsigned order, const char *who);

/**
 * folio_transition() - move a folio from one state to another
 * @from: the state that it is in
 * @to: the state that it is in afterwards; folio.c tells which steps there are
 *
 * A step that does not exist is a bug in the caller.
 * Context: the tree's lock, once the folio is in a tree.
 */
void folio_transition(struct folio *folio, enum folio_state from, enum folio_state to);

/**
 * folio_try_get() - take a reference unless the folio is frozen or being freed
 * @folio: borrows: from a lookup in the same RCU read-side section, or one who holds a reference
 * @who: names the reference in builds with -Dfolio_debug=true
 * Context: any; lock-free, never sleeps. Whoever found the folio without a lock rechecks that it is
 * still where it was found.
 * Return: whether the caller holds a reference now.
 */
bool folio_try_get(struct folio *folio, const char *who);

/**
 * folio_put() - give a reference back; the last one frees the folio after a grace period
 * @folio: takes
 * @who: the name that the reference was taken with
 * Context: any; never sleeps.
 */
void folio_put(struct folio *folio, const char *who);

/**
 * folio_try_pin() - take pins on a folio, all or none
 * @folio: borrows
 * @pages: how many pins: one for each page of it that is pinned
 *
 * A pin keeps the folio as a reference does. It is seen by truncation and collapse for certain only
 * if the folio is found to be CACHED under the tree's lock after it was pinned.
 * Context: any; lock-free, never sleeps.
 * Return: 0; -ENOMEM when the count would overflow; -EAGAIN when the folio is frozen or being
 * freed. Nothing changed on error.
 */
int folio_try_pin(struct folio *folio, unsigned pages);

/**
 * folio_unpin() - give pins back
 * @folio: takes @pages pins
 * @pages: how many
 *
 * More than are held is a bug: builds with assertions abort, others keep the folio for ever.
 * Context: any; lock-free, never sleeps.
 */
void folio_unpin(struct folio *folio, unsigned pages);

/**
 * folio_maybe_dma_pinned() - is it pinned?
 * @folio: borrows
 *
 * Exact for a large folio. A small one is also taken for pinned when it has FOLIO_PIN_BIAS plain
 * references; the error is always on the safe side.
 * Context: any.
 */
bool folio_maybe_dma_pinned(struct folio *folio);

/**
 * folio_try_freeze() - take all references away if there are no others than expected
 * @refs: how many the caller knows of, its own and the tree's
 *
 * On success folio_try_get() and folio_try_pin() fail until folio_unfreeze().
 * Context: the tree's lock.
 * Return: whether it is frozen now.
 */
bool folio_try_freeze(struct folio *folio, unsigned refs);

/**
 * folio_unfreeze() - give the references back that folio_try_freeze() took
 * @refs: as before
 * Context: the tree's lock, not released since.
 */
void folio_unfreeze(struct folio *folio, unsigned refs);

/**
 * folio_retire() - free a frozen folio that has left its tree
 * @folio: takes; in state FROZEN, frozen with one reference, the tree's
 * Context: the tree's lock. It is freed after a grace period.
 */
void folio_retire(struct folio *folio);

/**
 * folio_free_unused() - free a folio that nobody else ever saw, or can see any more
 * @folio: takes the last reference
 * @who: the name that the reference was taken with
 * Context: any; frees at once.
 */
void folio_free_unused(struct folio *folio, const char *who);

/**
 * folio_pins_acquired() - pages that were pinned since the process began
 * Context: any.
 * Return: a number that never falls.
 */
uint64_t folio_pins_acquired(void);

/**
 * folio_pins_released() - pages that were unpinned since the process began
 * Context: any.
 * Return: a number that never falls, and never passes folio_pins_acquired().
 */
uint64_t folio_pins_released(void);

/**
 * folio_debug_report() - names of the references that are held now
 * @report: called for each pair of folio and name, with how many there are
 * @data: for @report
 * Context: builds with -Dfolio_debug=true; others report nothing. @report may not take or give
 * references.
 * Return: references held.
 */
long folio_debug_report(void (*report)(struct folio *folio, const char *who, long held, void *data),
			void *data);
