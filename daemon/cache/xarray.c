/* SPDX-License-Identifier: MIT */
/*
 * The tree: what it looks like, who may do what, and why readers need no lock.
 *
 * Shape
 * -----
 * The lowest nodes have one slot for each index, and a full node has 2^XARRAY_SLOT_BITS slots. The
 * height of a node is told in bits, as its base b: a slot of it covers 2^b indices. The root is as
 * low as the largest index allows. A tree with nothing in it has no nodes, and a node in the tree
 * has something below it, always.
 *
 * An entry of order o lives in the node whose base is o rounded down to a multiple of
 * XARRAY_SLOT_BITS, and fills 2^(o - base) slots there. All of them hold the same word: the
 * pointer, and in the bits that its alignment leaves free the number of slots (as a logarithm).
 * Alignment makes that enough to know everything: whichever slot one reads, that single load gives
 * the entry, its order and, by rounding the index down, its first index. No load of the tree ever
 * depends on two slots being changed at the same instant; that is what keeps lookups simple.
 *
 * A node that is made for large entries is coarse: it has as few slots as they need (2 MiB folios
 * of a file take 8 slots of 2^9 pages rather than 64 of 2^6), which makes the tree of a file that
 * was written in large pieces several times smaller. A coarse node has entries only. As soon as
 * something smaller is to go into it a full node with the same contents takes its place; it does
 * not become coarse again.
 *
 * Each node has a bitmap per mark and one for XARRAY_PRESENT. The bit of a slot is set when the
 * entry that begins there has the mark, or when any bit of that bitmap is set in the node below.
 * Hence a search skips what does not have the mark without looking, and the root's bitmaps tell
 * whether there is anything at all. Of an entry that fills several slots only the first has bits.
 *
 * Who may do what
 * ---------------
 * Changes are made under the tree's lock. So are decisions: what was found without the lock may be
 * outdated before one can act on it, and whoever takes the lock to act looks again.
 *
 * Reading needs an RCU read-side section, or the lock. The section protects the nodes. The entries
 * are the caller's: if readers follow them, then the caller frees them by rcu_call(), too, or
 * counts references that refuse to rise from zero (folio_try_get()).
 *
 * A change either happens or leaves everything as it was. All nodes that it can need are counted
 * and allocated before the first word is written. Erasing needs none.
 *
 * Why readers need no lock
 * ------------------------
 * The writer stores with release, readers load with acquire, so a node or an entry is complete
 * before it can be seen. It remains to be shown that a reader, who may be anywhere in the tree
 * while it changes, is never told something that was not true at some moment during its call.
 *
 * A node leaves the tree because the last thing in it was erased, because one larger entry takes
 * the place of all that it has, because a full node takes the place of a coarse one, or because it
 * was a root with nothing but a first child. In every case it is unlinked first, then marked dead,
 * and nothing in it changes from then on; it is freed after a grace period. So a reader who is
 * still in there reads what was true when the node was unlinked, which is after the reader set out.
 *
 * That is good enough for an entry that was found: its user takes a reference and then looks
 * whether the entry is still in the tree, or holds a lock that keeps it there. Nobody rechecks that
 * nothing was found. A walker that finds nothing in a node therefore looks whether the node is
 * dead, and if so it begins again at the root. Restarts end, since each needs another node to die.
 *
 * What is replaced is never absent: replace and split overwrite slots, each with one store from the
 * old to the new; a split has all its new entries and nodes ready before. A search relies on
 * bitmaps besides, and goes to the slot that a bit leads to. So bits are set before the slots that
 * they announce are stored, bits of what is replaced are cleared after, and a bit whose slot turns
 * out to be empty is passed over. An entry that was there all the time has its bit, or the bit of
 * what took its place, set all the time.
 *
 * An iteration keeps the node in which it found the last entry. It may outlive the node, since its
 * user may leave the lock or the read-side section in between. The tree counts the nodes that have
 * left it; as long as the count is what it was before the node was reached, the node is still in
 * the tree and may be looked at. Otherwise the iteration goes by the root again, with its index
 * alone.
 *
 * What readers may see that could surprise: an iteration during a replacement may meet some of the
 * old entries and then the new one, which begins before them; an iteration during a split meets
 * either the old entry or the new ones. A mark and its entry are two loads, so a search by mark
 * without the lock may return an entry whose mark is just gone, or that has just taken the place of
 * the marked one.
 */
#include "cache/xarray.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "base/lock.h"
#include "cache/xarray_node.h"

void xarray_init(struct xarray *xa)
{
	pthread_mutex_init(&xa->lock, NULL);
	xa->head = 0;
	xa->retired = 0;
}

void xarray_destroy(struct xarray *xa)
{
	struct xarray_node *root = xarray_root(xa);

	if (root) {
		rcu_assign(xa->head, 0);
		node_retire_tree(xa, root);
	}
	pthread_mutex_destroy(&xa->lock);
}

void xarray_lock(struct xarray *xa)
{
	pthread_mutex_lock(&xa->lock);
}

void xarray_unlock(struct xarray *xa)
{
	pthread_mutex_unlock(&xa->lock);
}

/* The level of the lowest root that covers an index. */
static unsigned index_base(uint64_t index)
{
	unsigned base = 0;

	while (base + XARRAY_SLOT_BITS < 64 && index >> (base + XARRAY_SLOT_BITS))
		base += XARRAY_SLOT_BITS;
	return base;
}

/* Fill the slots of an entry. What they held before is gone: entries are the caller's. */
static void node_fill(struct xarray *xa, struct xarray_node *node, uint64_t index, unsigned order,
		      void *entry)
{
	unsigned span = order - node->shift;
	unsigned first = node_slot_of(node, index);
	uintptr_t value = slot_of_entry(entry, span);

	/* The bit before the slots, those that it replaces after them: no search sees a hole. */
	node_set(node, XARRAY_PRESENT, UINT64_C(1) << first);
	for (unsigned slot = first; slot < first + (1u << span); slot++) {
		uintptr_t old = node->slots[slot];

		rcu_assign(node->slots[slot], value);
		if (slot_is_node(old))
			node_retire_tree(xa, slot_node(old));
	}
	node_clear(node, XARRAY_PRESENT, slots_mask(first, span) & ~(UINT64_C(1) << first));
	for (unsigned mark = 0; mark < XARRAY_MARKS; mark++)
		node_clear(node, mark, slots_mask(first, span));
}

/* Whether any of the slots that an entry would fill holds something. */
static bool node_has_any(struct xarray_node *node, uint64_t index, unsigned order)
{
	unsigned first = node_slot_of(node, index);

	return node->slots[first] ||
	       node->bits[XARRAY_PRESENT] & slots_mask(first, order - node->shift);
}

/**
 * struct place - where an entry is to go, and what is missing on the way there
 * @node: the lowest node on the way that is there; NULL when the root is too low, or there is none
 * @root: level that the root must have
 * @fine: full nodes to allocate
 * @leaves: nodes of the entry's order to allocate, 0 or 1
 * @refine: whether @node is coarse and must not be
 */
struct place {
	struct xarray_node *node;
	unsigned root;
	unsigned fine;
	unsigned leaves;
	bool refine;
};

/* Nodes on the way down from a level to the entry's, that of the level itself not among them. */
static void place_add_way(struct place *place, unsigned base, unsigned order)
{
	unsigned below = (base - order_base(order)) / XARRAY_SLOT_BITS;

	if (below > 0) {
		place->fine += below - 1;
		place->leaves++;
	}
}

/* Decides whether the entry may go there at all. Changes nothing. */
static int place_find(struct xarray *xa, uint64_t index, unsigned order, bool replace,
		      struct place *place)
{
	struct xarray_node *node = xarray_root(xa);
	unsigned base = order_base(order);
	uintptr_t slot;

	*place = (struct place){ .root = index_base(index) };
	if (place->root < base)
		place->root = base;
	if (!node) {
		/* As if there were a level above, with one slot. */
		place_add_way(place, place->root + XARRAY_SLOT_BITS, order);
		return 0;
	}
	if (place->root > node->base) {
		/* An entry from 0 that needs a higher root lies over all that the tree has now. */
		if (index == 0 && !replace)
			return -EEXIST;
		place->fine = (place->root - node->base) / XARRAY_SLOT_BITS;
		place_add_way(place, place->root, order);
		return 0;
	}

	slot = node->slots[node_slot_of(node, index)];
	while (node->base > base && slot_is_node(slot)) {
		node = slot_node(slot);
		slot = node->slots[node_slot_of(node, index)];
	}
	place->node = node;
	if (node->shift <= order && node->base == base) {
		if (!replace)
			return node_has_any(node, index, order) ? -EEXIST : 0;
		return slot_span(slot) > order - node->shift ? -EINVAL : 0;
	}
	/* One slot is more than the entry. */
	if (slot)
		return replace ? -EINVAL : -EEXIST;
	place->refine = node_is_coarse(node);
	place->fine = place->refine;
	place_add_way(place, node->base, order);
	return 0;
}

/* A new root above the old one, which goes into its first slot. */
static struct xarray_node *xarray_grow(struct xarray *xa, struct node_pool *pool)
{
	struct xarray_node *old = xarray_root(xa);
	struct xarray_node *root = node_pool_take(pool, node_top(old));

	for (unsigned mark = 0; mark < NODE_BITMAPS; mark++)
		root->bits[mark] = old->bits[mark] != 0;
	root->slots[0] = slot_of_node(old);
	node_link(xa, NULL, 0, root);
	old->parent = root;
	old->offset = 0;
	return root;
}

/* Make what is missing. Returns the node that has slots for the entry. */
static struct xarray_node *place_make(struct xarray *xa, struct place *place,
				      struct node_pool *pool, uint64_t index, unsigned order)
{
	struct xarray_node *node = place->node;

	if (!node && !xa->head) {
		node = node_pool_take_for(pool, place->root, order);
		node_link(xa, NULL, 0, node);
	} else if (!node) {
		do
			node = xarray_grow(xa, pool);
		while (node->base < place->root);
	} else if (place->refine) {
		struct xarray_node *fine = node_pool_take(pool, node->base);

		node_refine(xa, node, fine);
		node = fine;
	}
	while (node->base > order_base(order)) {
		struct xarray_node *child =
			node_pool_take_for(pool, node->base - XARRAY_SLOT_BITS, order);

		node_link(xa, node, node_slot_of(node, index), child);
		node = child;
	}
	assert(!pool->fine && !pool->leaves);
	return node;
}

static int xarray_put(struct xarray *xa, uint64_t index, unsigned order, void *entry, bool replace)
{
	struct node_pool pool = { 0 };
	struct place place;
	int rc;

	lock_assert_held(&xa->lock);
	if (!entry_is_valid(index, order, entry))
		return -EINVAL;
	rc = place_find(xa, index, order, replace, &place);
	if (rc < 0)
		return rc;
	if (!node_pool_fill(&pool, place.fine, place.leaves, order))
		return -ENOMEM;
	node_fill(xa, place_make(xa, &place, &pool, index, order), index, order, entry);
	return 0;
}

int xarray_store_locked(struct xarray *xa, uint64_t index, unsigned order, void *entry)
{
	return xarray_put(xa, index, order, entry, false);
}

int xarray_replace_locked(struct xarray *xa, uint64_t index, unsigned order, void *entry)
{
	return xarray_put(xa, index, order, entry, true);
}

/* Take out a node in which nothing is left, and whatever above has nothing left then. */
static void xarray_prune(struct xarray *xa, struct xarray_node *node)
{
	while (node && !node->bits[XARRAY_PRESENT]) {
		struct xarray_node *parent = node->parent;

		if (parent)
			rcu_assign(parent->slots[node->offset], 0);
		else
			rcu_assign(xa->head, 0);
		node_retire(xa, node);
		node = parent;
	}
}

/* Take out roots that do nothing but lead to their first child. */
static void xarray_shrink(struct xarray *xa)
{
	struct xarray_node *root = xarray_root(xa);

	while (root && root->bits[XARRAY_PRESENT] == 1 && slot_is_node(root->slots[0])) {
		struct xarray_node *child = slot_node(root->slots[0]);

		node_link(xa, NULL, 0, child);
		node_retire(xa, root);
		root = child;
	}
}

void *xarray_erase_locked(struct xarray *xa, uint64_t index)
{
	struct xarray_node *leaf;
	uintptr_t value;
	unsigned first;

	lock_assert_held(&xa->lock);
	leaf = xarray_leaf(xa, index, &first, &value);
	if (!leaf)
		return NULL;
	for (unsigned slot = first; slot < first + (1u << slot_span(value)); slot++)
		rcu_assign(leaf->slots[slot], 0);
	for (unsigned mark = 0; mark < NODE_BITMAPS; mark++)
		node_clear(leaf, mark, UINT64_C(1) << first);
	xarray_prune(xa, leaf);
	xarray_shrink(xa);
	return slot_entry(value);
}

static void xarray_mark(struct xarray *xa, uint64_t index, enum xarray_mark mark,
			void (*change)(struct xarray_node *node, enum xarray_mark mark,
				       uint64_t bits))
{
	struct xarray_node *leaf;
	uintptr_t value;
	unsigned slot;

	lock_assert_held(&xa->lock);
	leaf = xarray_leaf(xa, index, &slot, &value);
	if (leaf)
		change(leaf, mark, UINT64_C(1) << slot);
}

void xarray_set_mark_locked(struct xarray *xa, uint64_t index, enum xarray_mark mark)
{
	xarray_mark(xa, index, mark, node_set);
}

void xarray_clear_mark_locked(struct xarray *xa, uint64_t index, enum xarray_mark mark)
{
	xarray_mark(xa, index, mark, node_clear);
}
