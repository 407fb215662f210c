/* SPDX-License-Identifier: MIT */
/* Reading a tree, without its lock or with it. */
#include <stddef.h>

#include "cache/xarray_node.h"

/*
 * This is the hottest loop of the cache. The level of a child follows from its parent's, so that
 * only the root's header and one cache line of slots are touched per level; the header of the last
 * node is looked at only for a miss.
 */
static inline uintptr_t xarray_walk(struct xarray *xa, uint64_t index, struct xarray_node **leaf)
{
	for (;;) {
		uintptr_t slot = rcu_dereference(xa->head);
		struct xarray_node *node = slot_node(slot);
		unsigned shift;

		*leaf = node;
		if (!node)
			return 0;
		shift = node->base;
		if (node_covers(node, index)) {
			while (!(slot & SLOT_COARSE)) {
				slot = rcu_dereference(
					node->slots[index >> shift & (NODE_SLOTS - 1)]);
				if (!slot_is_node(slot))
					break;
				node = slot_node(slot);
				shift -= XARRAY_SLOT_BITS;
			}
			if (slot_is_node(slot))
				slot = rcu_dereference(node->slots[node_slot_of(node, index)]);
			*leaf = node;
			if (slot)
				return slot;
		}
		/* Nobody rechecks that there was nothing, so it must not be old news. */
		if (!node_is_dead(node))
			return 0;
	}
}

void *xarray_load(struct xarray *xa, uint64_t index)
{
	struct xarray_node *leaf;

	return slot_entry(xarray_walk(xa, index, &leaf));
}

struct xarray_node *xarray_leaf(struct xarray *xa, uint64_t index, unsigned *slot, uintptr_t *value)
{
	struct xarray_node *leaf;

	*value = xarray_walk(xa, index, &leaf);
	if (!*value)
		return NULL;
	*slot = node_slot_of(leaf, index) >> slot_span(*value) << slot_span(*value);
	return leaf;
}

bool xarray_empty(struct xarray *xa)
{
	return !rcu_dereference(xa->head);
}

bool xarray_get_mark(struct xarray *xa, uint64_t index, enum xarray_mark mark)
{
	unsigned slot;
	uintptr_t value;
	struct xarray_node *leaf = xarray_leaf(xa, index, &slot, &value);

	return leaf && node_bits(leaf, mark) >> slot & 1;
}

bool xarray_marked(struct xarray *xa, enum xarray_mark mark)
{
	struct xarray_node *root;
	bool marked;

	rcu_read_lock();
	root = xarray_root(xa);
	marked = root && node_bits(root, mark);
	rcu_read_unlock();
	return marked;
}

/*
 * The first slot of a node at or after the one of *index that has the mark. When it is a later one,
 * *index is moved to where it begins. Returns the value, or 0.
 */
static inline uintptr_t node_search(const struct xarray_node *node, uint64_t *index,
				    enum xarray_mark mark)
{
	unsigned at = node_slot_of(node, *index);
	uintptr_t value = rcu_dereference(node->slots[at]);
	unsigned first = at >> slot_span(value) << slot_span(value);
	uint64_t bits;

	if (value && mark == XARRAY_PRESENT)
		return value;
	bits = node_bits(node, mark) >> first << first;
	while (bits) {
		unsigned slot = __builtin_ctzll(bits);

		if (slot > at) {
			value = rcu_dereference(node->slots[slot]);
			*index = (*index & ~node_mask(node)) | (uint64_t)slot << node->shift;
		} else if (slot > first) {
			/* Something smaller has taken the entry's place since: look again. */
			return node_search(node, index, mark);
		}
		if (value)
			return value;
		/* It was erased since. */
		bits &= bits - 1;
	}
	return 0;
}

static inline void *node_found(const struct xarray_node *node, uintptr_t value, uint64_t *index,
			       uint64_t last, unsigned *order)
{
	unsigned size = node->shift + slot_span(value);
	uint64_t first = *index >> size << size;

	if (first > last)
		return NULL;
	*index = first;
	if (order)
		*order = size;
	return slot_entry(value);
}

static inline void cursor_set(struct xarray_cursor *cursor, const struct xarray_node *node,
			      unsigned long retired, uint64_t index, uintptr_t value)
{
	unsigned span = slot_span(value);
	unsigned next = ((node_slot_of(node, index) >> span) + 1) << span;

	cursor->node = node;
	cursor->base = index & ~node_mask(node);
	cursor->retired = retired;
	cursor->slot = &node->slots[next];
	cursor->end = &node->slots[node_slots(node)];
	cursor->index = cursor->base + ((uint64_t)next << node->shift);
	cursor->shift = node->shift;
}

void *xarray_next_slow(struct xarray *xa, struct xarray_cursor *cursor, uint64_t *index,
		       uint64_t last, enum xarray_mark mark, unsigned *order)
{
	unsigned long retired = __atomic_load_n(&xa->retired, __ATOMIC_ACQUIRE);
	const struct xarray_node *node = cursor->node;
	uint64_t at = *index;
	uintptr_t value;

	if (at > last)
		return NULL;
	/* The node is looked at only if no node has gone: then this one is still there, too. */
	if (node && cursor->retired == retired && (at & ~node_mask(node)) == cursor->base)
		goto search;
restart:
	node = xarray_root(xa);
	if (!node)
		return NULL;
	if (!node_covers(node, at)) {
		if (node_is_dead(node))
			goto restart;
		return NULL;
	}
search:
	while ((value = node_search(node, &at, mark))) {
		if (!slot_is_node(value)) {
			cursor_set(cursor, node, retired, at, value);
			*index = at;
			return node_found(node, value, index, last, order);
		}
		if (at > last)
			return NULL;
		node = slot_node(value);
	}
	if (!node_is_dead(node)) {
		at |= node_mask(node);
		if (at >= last)
			return NULL;
		at++;
	}
	goto restart;
}

void *xarray_find(struct xarray *xa, uint64_t *index, uint64_t last, enum xarray_mark mark,
		  unsigned *order)
{
	struct xarray_cursor cursor = XARRAY_CURSOR_INIT;

	return xarray_next_slow(xa, &cursor, index, last, mark, order);
}
