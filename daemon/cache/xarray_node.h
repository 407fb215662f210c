/* SPDX-License-Identifier: MIT */
/* The nodes of a tree: private to xarray*.c. The essay at the top of xarray.c is the guide. */
#pragma once

#include <stddef.h>

#include "base/rcu.h"
#include "cache/xarray.h"

#if XARRAY_SLOT_BITS < 1 || XARRAY_SLOT_BITS > 6
#error "a bitmap of 64 bits has to cover the slots of a node"
#endif

#define NODE_SLOTS (1u << XARRAY_SLOT_BITS)
#define NODE_BITMAPS (XARRAY_MARKS + 1) /* the marks, and XARRAY_PRESENT */

/*
 * What a slot holds: nothing (0), a node, or an entry. The low four bits, which alignment leaves
 * free, tell which: SLOT_NODE set, a node, and SLOT_COARSE whether it is a coarse one; SLOT_NODE
 * clear, an entry that fills 2^(bits >> 1) slots, each of which holds the same value.
 */
#define SLOT_NODE 1u
#define SLOT_COARSE 2u
#define SLOT_SPAN_SHIFT 1u
#define SLOT_TAG ((uintptr_t)XARRAY_ENTRY_ALIGN - 1)

/**
 * struct xarray_node - a part of the tree; constant once published except where noted
 * @shift:  a slot covers 2^shift indices
 * @base:   the node covers 2^(base + XARRAY_SLOT_BITS) indices; multiple of XARRAY_SLOT_BITS
 * @offset: slot of the parent; the writer's own
 * @dead:   has left the tree: nothing in it changes any more
 * @parent: NULL for the root; the writer's own, until the node is dead
 * @rcu:    when dead
 * @bits:   for each mark and for XARRAY_PRESENT, the slots that have it: first slots of entries,
 *          and nodes with something below that has it
 * @slots:  2^(base + XARRAY_SLOT_BITS - shift) of them
 */
struct xarray_node {
	uint8_t shift;
	uint8_t base;
	uint8_t offset;
	bool dead;
	union {
		struct xarray_node *parent;
		struct rcu_head rcu;
	};
	uint64_t bits[NODE_BITMAPS];
	uintptr_t slots[];
};

static inline bool slot_is_node(uintptr_t slot)
{
	return slot & SLOT_NODE;
}

static inline struct xarray_node *slot_node(uintptr_t slot)
{
	return (struct xarray_node *)(slot & ~SLOT_TAG);
}

static inline void *slot_entry(uintptr_t slot)
{
	return (void *)(slot & ~SLOT_TAG);
}

/* log2 of how many slots the entry fills; 0 for a node and for an empty slot. */
static inline unsigned slot_span(uintptr_t slot)
{
	return slot_is_node(slot) ? 0 : (slot & SLOT_TAG) >> SLOT_SPAN_SHIFT;
}

static inline uintptr_t slot_of_entry(void *entry, unsigned span)
{
	return (uintptr_t)entry | span << SLOT_SPAN_SHIFT;
}

static inline bool node_is_coarse(const struct xarray_node *node)
{
	return node->shift != node->base;
}

static inline uintptr_t slot_of_node(struct xarray_node *node)
{
	return (uintptr_t)node | SLOT_NODE | (node_is_coarse(node) ? SLOT_COARSE : 0);
}

/* First bit of an index that does not choose a slot in this node or below. */
static inline unsigned node_top(const struct xarray_node *node)
{
	return node->base + XARRAY_SLOT_BITS;
}

/* Of a root: could the index be below it? */
static inline bool node_covers(const struct xarray_node *node, uint64_t index)
{
	unsigned top = node_top(node);

	return top >= 64 || !(index >> top);
}

static inline unsigned node_slots(const struct xarray_node *node)
{
	return NODE_SLOTS >> (node->shift - node->base);
}

static inline unsigned node_slot_of(const struct xarray_node *node, uint64_t index)
{
	return index >> node->shift & (node_slots(node) - 1);
}

/* Indices of the node minus one, a mask. */
static inline uint64_t node_mask(const struct xarray_node *node)
{
	unsigned top = node_top(node);

	return top >= 64 ? UINT64_MAX : (UINT64_C(1) << top) - 1;
}

static inline uint64_t node_bits(const struct xarray_node *node, enum xarray_mark mark)
{
	return __atomic_load_n(&node->bits[mark], __ATOMIC_ACQUIRE);
}

static inline bool node_is_dead(const struct xarray_node *node)
{
	return __atomic_load_n(&node->dead, __ATOMIC_ACQUIRE);
}

static inline struct xarray_node *xarray_root(struct xarray *xa)
{
	return slot_node(rcu_dereference(xa->head));
}

/* The base of the node whose slots are to hold entries of an order. */
static inline unsigned order_base(unsigned order)
{
	return order - order % XARRAY_SLOT_BITS;
}

static inline bool entry_is_valid(uint64_t index, unsigned order, const void *entry)
{
	return entry && !((uintptr_t)entry & SLOT_TAG) && order <= XARRAY_ORDER_MAX &&
	       !(index & ((UINT64_C(1) << order) - 1));
}

/* The bits of 2^span slots from one on. */
static inline uint64_t slots_mask(unsigned first, unsigned span)
{
	return (span >= 6 ? UINT64_MAX : (UINT64_C(1) << (1u << span)) - 1) << first;
}

/**
 * struct node_pool - nodes allocated before a change begins, so that it cannot fail half-way
 * @fine:   linked by their parent pointers
 * @leaves: likewise, all of the same size
 */
struct node_pool {
	struct xarray_node *fine;
	struct xarray_node *leaves;
};

/**
 * node_pool_fill() - allocate the nodes of a change
 * @pool: empty
 * @fine: how many full nodes
 * @leaves: how many nodes that have slots of @order and none that are smaller
 * Context: any.
 * Return: false: out of memory, and nothing was allocated.
 */
bool node_pool_fill(struct node_pool *pool, uint64_t fine, uint64_t leaves, unsigned order);

/**
 * node_pool_take() - a full node out of the pool
 * @base: of the node
 * Context: the owner of the pool.
 * Return: takes the node out: it is the caller's to link.
 */
struct xarray_node *node_pool_take(struct node_pool *pool, unsigned base);

/**
 * node_pool_take_for() - a node on the way to entries of an order out of the pool
 * @base: of the node; the lowest that the order can have makes it one of the leaves
 * @order: as the pool was filled with
 * Context: the owner of the pool.
 * Return: as node_pool_take().
 */
struct xarray_node *node_pool_take_for(struct node_pool *pool, unsigned base, unsigned order);

/**
 * node_link() - make a node the child of another
 * @parent: borrows; NULL: the root of @xa
 * @slot: of @parent
 *
 * The bitmaps above are the caller's business.
 * Context: the tree's lock, unless @parent is not in the tree yet.
 */
void node_link(struct xarray *xa, struct xarray_node *parent, unsigned slot,
	       struct xarray_node *node);

/**
 * node_refine() - put a full node with the same contents in the place of a coarse one
 * @node: takes; dead afterwards
 * @fine: takes; fresh from the pool, at the level of @node
 * Context: the tree's lock.
 */
void node_refine(struct xarray *xa, struct xarray_node *node, struct xarray_node *fine);

/**
 * node_retire() - free a node that nobody can reach any more who comes now
 * @node: takes; not linked any more
 * Context: the tree's lock. It is freed after a grace period.
 */
void node_retire(struct xarray *xa, struct xarray_node *node);

/**
 * node_retire_tree() - retire a node and all nodes below it
 * @node: takes; not linked any more
 * Context: as node_retire().
 */
void node_retire_tree(struct xarray *xa, struct xarray_node *node);

/**
 * node_set() - set bits of one bitmap of a node, and tell its ancestors
 * @bits: first slots of entries
 * Context: the tree's lock.
 */
void node_set(struct xarray_node *node, enum xarray_mark mark, uint64_t bits);

/**
 * node_clear() - clear bits of one bitmap of a node, and tell its ancestors
 * Context: the tree's lock.
 */
void node_clear(struct xarray_node *node, enum xarray_mark mark, uint64_t bits);

/**
 * xarray_leaf() - the node with the slots in which an index has its entry
 * @slot: out: the first slot of the entry there
 * @value: out: the slot's value, never 0
 * Context: RCU read-side section, or the tree's lock.
 * Return: NULL when there is no entry.
 */
struct xarray_node *xarray_leaf(struct xarray *xa, uint64_t index, unsigned *slot,
				uintptr_t *value);
