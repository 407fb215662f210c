/* SPDX-License-Identifier: MIT */
/*
 * A large entry is split: the new entries, and the nodes that they need, are made out of sight and
 * then put in its place.
 */
#include <assert.h>
#include <errno.h>

#include "base/lock.h"
#include "cache/xarray_node.h"

/* A split into more than 2^24 entries is refused, rather than to take all memory that there is. */
#define SPLIT_ORDERS_MAX 24

/* What a split is to make: entries of an order, made one by one in ascending order. */
struct split {
	struct node_pool pool;
	unsigned order;
	unsigned marks; /* that the entries have, as a bitmap */
	void *(*make)(uint64_t index, void *data);
	void *data;
};

static void *split_make(struct split *split, uint64_t index)
{
	void *entry = split->make(index, split->data);

	assert(entry_is_valid(index, split->order, entry));
	return entry;
}

/* A full node, or leaf, of new entries from an index on, and all that is below it. */
static struct xarray_node *split_subtree(struct split *split, unsigned base, uint64_t index)
{
	struct xarray_node *node = node_pool_take_for(&split->pool, base, split->order);
	uint64_t present = slots_mask(0, node_top(node) - node->shift);

	for (unsigned slot = 0; slot < node_slots(node); slot++) {
		uint64_t at = index + ((uint64_t)slot << node->shift);
		struct xarray_node *child;

		if (base == order_base(split->order)) {
			node->slots[slot] = slot_of_entry(split_make(split, at), 0);
			continue;
		}
		child = split_subtree(split, base - XARRAY_SLOT_BITS, at);
		child->parent = node;
		child->offset = slot;
		node->slots[slot] = slot_of_node(child);
	}
	node->bits[XARRAY_PRESENT] = present;
	for (unsigned mark = 0; mark < XARRAY_MARKS; mark++)
		if (split->marks >> mark & 1)
			node->bits[mark] = present;
	return node;
}

/* Allocate for an entry of 2^old indices that is in a node of level base. */
static bool split_alloc(struct split *split, unsigned base, unsigned old, bool refine)
{
	unsigned leaf_base = order_base(split->order);
	uint64_t fine = refine, leaves = 0;

	if (old - split->order > SPLIT_ORDERS_MAX)
		return false;
	for (unsigned level = leaf_base; level < base; level += XARRAY_SLOT_BITS)
		*(level == leaf_base ? &leaves : &fine) +=
			UINT64_C(1) << (old - level - XARRAY_SLOT_BITS);
	return node_pool_fill(&split->pool, fine, leaves, split->order);
}

int xarray_split_locked(struct xarray *xa, uint64_t index, unsigned order,
			void *(*make)(uint64_t index, void *data), void *data)
{
	struct split split = { .order = order, .make = make, .data = data };
	uintptr_t values[NODE_SLOTS], value;
	unsigned slot, slots, old, step = 0;
	struct xarray_node *leaf;
	uint64_t firsts = 0;
	bool refine;

	lock_assert_held(&xa->lock);
	leaf = xarray_leaf(xa, index, &slot, &value);
	if (!leaf)
		return -ENOENT;
	old = leaf->shift + slot_span(value);
	if (order >= old)
		return -EINVAL;
	index = index >> old << old;
	refine = order < leaf->shift && node_is_coarse(leaf);
	if (!split_alloc(&split, leaf->base, old, refine))
		return -ENOMEM;
	if (refine) {
		struct xarray_node *fine = node_pool_take(&split.pool, leaf->base);

		node_refine(xa, leaf, fine);
		leaf = fine;
		slot = node_slot_of(leaf, index);
	}
	for (unsigned mark = 0; mark < XARRAY_MARKS; mark++)
		split.marks |= (leaf->bits[mark] >> slot & 1) << mark;

	/* All the new entries first, out of everybody's sight. */
	if (order > leaf->shift)
		step = order - leaf->shift;
	slots = 1u << (old - leaf->shift);
	for (unsigned i = 0; i < slots; i++) {
		uint64_t at = index + ((uint64_t)i << leaf->shift);

		if (i & ((1u << step) - 1)) {
			values[i] = values[i - 1];
			continue;
		}
		firsts |= UINT64_C(1) << (slot + i);
		values[i] = order < leaf->shift ?
			slot_of_node(split_subtree(&split, leaf->base - XARRAY_SLOT_BITS, at)) :
			slot_of_entry(split_make(&split, at), step);
	}
	assert(!split.pool.fine && !split.pool.leaves);

	node_set(leaf, XARRAY_PRESENT, firsts);
	for (unsigned mark = 0; mark < XARRAY_MARKS; mark++)
		if (split.marks >> mark & 1)
			node_set(leaf, mark, firsts);
	/* From the end: an iteration that has met a new entry does not meet the old one then. */
	for (unsigned i = slots; i-- > 0;) {
		if (slot_is_node(values[i]))
			node_link(xa, leaf, slot + i, slot_node(values[i]));
		else
			rcu_assign(leaf->slots[slot + i], values[i]);
	}
	return 0;
}
