/* SPDX-License-Identifier: MIT */
/*
 * States
 *
 *	          store                freeze
 *	   NEW ----------> CACHED <------------> FROZEN
 *	    |                |      unfreeze        |
 *	    | never stored   | truncate, punch,     | replaced by collapse
 *	    v                | split                |
 *	  freed              +------> DETACHED <----+
 *	                                 |  last reference and last pin gone
 *	                                 v
 *	                               freed, after a grace period
 *
 * All steps after NEW happen under the lock of the tree that holds the folio.
 *
 * Counts
 *
 * The tree holds one reference, whatever the order; whoever uses the folio without the invalidate
 * lock or the tree's lock holds another. A pin is a reference that promises more: its pages may be
 * written by a device at any time. So that "has it pins?" can be told from "has it references?"
 * without another word in the most numerous kind of folio, a pin of a small folio counts as
 * FOLIO_PIN_BIAS references; a large folio is rare enough to afford a count of its own beside the
 * references. Pins are counted in pages.
 *
 * A count of 0 is a door that is closed: folio_try_get() does not open it again. That is what makes
 * a lookup without locks safe: it finds a pointer under RCU, which keeps the memory in place, tries
 * to get a reference, and then looks whether the folio is still where it was found. It is also how
 * collapse gets a folio to itself: it exchanges exactly the references that it can explain for 0.
 *
 * Pins are refused at FOLIO_REFS_MAX, half of what the counter holds. The other half is left to
 * plain references, each of which is a word in somebody's memory: it cannot be used up.
 */
#include "cache/folio.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static atomic_uint_least64_t pins_acquired;
static atomic_uint_least64_t pins_released;

#ifdef NDEBUG
#define folio_bug(folio, text) ((void)(folio), (void)(text))
#else
static void folio_bug(struct folio *folio, const char *text)
{
	fprintf(stderr, "folio %p: %s (references %u, pins %u, order %u, flags %#x)\n",
		(void *)folio, text, atomic_load(&folio->refcount), atomic_load(&folio->pincount),
		folio->order, atomic_load(&folio->flags));
	abort();
}
#endif

#ifdef CACHET_FOLIO_DEBUG

/* Who holds what: pairs of folio and name, in a hash table that is never fast. */
struct folio_holder {
	struct folio_holder *next;
	struct folio *folio;
	const char *who;
	long held;
};

static struct folio_holder *folio_holders[4096];
static pthread_mutex_t folio_holders_lock = PTHREAD_MUTEX_INITIALIZER;

static void folio_note(struct folio *folio, const char *who, long change)
{
	struct folio_holder **link, *holder;

	pthread_mutex_lock(&folio_holders_lock);
	link = &folio_holders[((uintptr_t)folio >> 5) % 4096];
	while (*link && ((*link)->folio != folio || strcmp((*link)->who, who) != 0))
		link = &(*link)->next;
	if (!*link) {
		/* Not mem_alloc(): tests that count allocations do not mean these. */
		*link = calloc(1, sizeof(**link));
		if (!*link)
			abort();
		(*link)->folio = folio;
		(*link)->who = who;
	}
	holder = *link;
	holder->held += change;
	if (holder->held == 0) {
		*link = holder->next;
		free(holder);
	}
	pthread_mutex_unlock(&folio_holders_lock);
}

long folio_debug_report(void (*report)(struct folio *folio, const char *who, long held, void *data),
			void *data)
{
	long all = 0;

	pthread_mutex_lock(&folio_holders_lock);
	for (unsigned i = 0; i < 4096; i++) {
		for (struct folio_holder *h = folio_holders[i]; h; h = h->next) {
			all += h->held;
			if (report)
				report(h->folio, h->who, h->held, data);
		}
	}
	pthread_mutex_unlock(&folio_holders_lock);
	return all;
}

#else

static inline void folio_note(struct folio *folio, const char *who, long change)
{
	(void)folio;
	(void)who;
	(void)change;
}

long folio_debug_report(void (*report)(struct folio *folio, const char *who, long held, void *data),
			void *data)
{
	(void)report;
	(void)data;
	return 0;
}

#endif

struct folio *folio_new(struct mapping *mapping, uint64_t index, unsigned order, const char *who)
{
	struct folio *folio = mem_alloc(sizeof(*folio));

	if (!folio)
		return NULL;
	atomic_init(&folio->refcount, 1);
	atomic_init(&folio->pincount, 0);
	atomic_init(&folio->flags, FOLIO_NEW);
	folio->order = order;
	atomic_init(&folio->mapping, mapping);
	folio->index = index;
	folio_note(folio, who, 1);
	return folio;
}

static void folio_free_rcu(struct rcu_head *rcu)
{
	mem_free((char *)rcu - offsetof(struct folio, rcu));
}

void folio_free_unused(struct folio *folio, const char *who)
{
	if (atomic_load_explicit(&folio->refcount, memory_order_acquire) != 1) {
		folio_bug(folio, "freed at once while others hold it");
		return;
	}
	folio_note(folio, who, -1);
	mem_free(folio);
}

void folio_transition(struct folio *folio, enum folio_state from, enum folio_state to)
{
	static const unsigned char allowed[4] = {
		[FOLIO_NEW] = 1u << FOLIO_CACHED,
		[FOLIO_CACHED] = 1u << FOLIO_FROZEN | 1u << FOLIO_DETACHED,
		[FOLIO_FROZEN] = 1u << FOLIO_CACHED | 1u << FOLIO_DETACHED,
		[FOLIO_DETACHED] = 0,
	};
	unsigned flags = atomic_load_explicit(&folio->flags, memory_order_relaxed);

	do {
		if ((flags & FOLIO_STATE_MASK) != from || !(allowed[from] & 1u << to)) {
			folio_bug(folio, "step between states that does not exist");
			return;
		}
	} while (!atomic_compare_exchange_weak_explicit(
		&folio->flags, &flags, (flags & ~FOLIO_STATE_MASK) | to, memory_order_acq_rel,
		memory_order_relaxed));
}

/* Add @refs unless the count is 0 or would pass @limit. */
static int folio_add_refs(struct folio *folio, uint64_t refs, unsigned limit)
{
	unsigned count = atomic_load_explicit(&folio->refcount, memory_order_relaxed);

	do {
		if (count == 0)
			return -EAGAIN;
		if (count + refs > limit)
			return -ENOMEM;
	} while (!atomic_compare_exchange_weak_explicit(
		&folio->refcount, &count, count + (unsigned)refs, memory_order_acq_rel,
		memory_order_relaxed));
	return 0;
}

/* Returns false, with nothing changed, when so many are not there. */
static bool folio_sub_refs(struct folio *folio, uint64_t refs)
{
	unsigned count = atomic_load_explicit(&folio->refcount, memory_order_relaxed);

	do {
		if (count < refs)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		&folio->refcount, &count, count - (unsigned)refs, memory_order_acq_rel,
		memory_order_relaxed));
	if (count == refs) {
		if (folio_state(folio) != FOLIO_DETACHED && folio_state(folio) != FOLIO_NEW)
			folio_bug(folio, "the last reference went while it is in a tree");
		rcu_call(&folio->rcu, folio_free_rcu);
	}
	return true;
}

bool folio_try_get(struct folio *folio, const char *who)
{
	if (folio_add_refs(folio, 1, UINT32_MAX) < 0)
		return false;
	folio_note(folio, who, 1);
	return true;
}

void folio_put(struct folio *folio, const char *who)
{
	folio_note(folio, who, -1);
	if (!folio_sub_refs(folio, 1))
		folio_bug(folio, "put without a reference");
}

int folio_try_pin(struct folio *folio, unsigned pages)
{
	uint64_t refs = folio_is_large(folio) ? pages : (uint64_t)pages * FOLIO_PIN_BIAS;
	int rc = folio_add_refs(folio, refs, FOLIO_REFS_MAX);

	if (rc < 0)
		return rc;
	/* Cannot overflow: it is at most the reference count. */
	if (folio_is_large(folio))
		atomic_fetch_add(&folio->pincount, pages);
	atomic_fetch_add_explicit(&pins_acquired, pages, memory_order_relaxed);
	folio_note(folio, "pin", (long)pages);
	return 0;
}

void folio_unpin(struct folio *folio, unsigned pages)
{
	uint64_t refs = folio_is_large(folio) ? pages : (uint64_t)pages * FOLIO_PIN_BIAS;

	if (folio_is_large(folio)) {
		unsigned count = atomic_load(&folio->pincount);

		do {
			if (count < pages) {
				folio_bug(folio, "unpinned more often than pinned");
				return;
			}
		} while (!atomic_compare_exchange_weak(&folio->pincount, &count, count - pages));
	}
	folio_note(folio, "pin", -(long)pages);
	if (folio_sub_refs(folio, refs))
		atomic_fetch_add_explicit(&pins_released, pages, memory_order_relaxed);
	else
		folio_bug(folio, "unpinned more often than pinned");
}

bool folio_maybe_dma_pinned(struct folio *folio)
{
	if (folio_is_large(folio))
		return atomic_load(&folio->pincount) > 0;
	return atomic_load(&folio->refcount) >= FOLIO_PIN_BIAS;
}

bool folio_try_freeze(struct folio *folio, unsigned refs)
{
	if (!atomic_compare_exchange_strong(&folio->refcount, &refs, 0))
		return false;
	folio_transition(folio, FOLIO_CACHED, FOLIO_FROZEN);
	return true;
}

void folio_unfreeze(struct folio *folio, unsigned refs)
{
	folio_transition(folio, FOLIO_FROZEN, FOLIO_CACHED);
	atomic_store_explicit(&folio->refcount, refs, memory_order_release);
}

void folio_retire(struct folio *folio)
{
	folio_transition(folio, FOLIO_FROZEN, FOLIO_DETACHED);
	folio_note(folio, "tree", -1);
	rcu_call(&folio->rcu, folio_free_rcu);
}

uint64_t folio_pins_acquired(void)
{
	return atomic_load(&pins_acquired);
}

uint64_t folio_pins_released(void)
{
	return atomic_load(&pins_released);
}
