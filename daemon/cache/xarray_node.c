/* SPDX-License-Identifier: MIT */
/* Nodes: made before a change, linked in, told of marks below, retired. */
#include "cache/xarray_node.h"

#include <assert.h>

#include "base/alloc.h"

static struct xarray_node *node_new(unsigned slots)
{
	return mem_zalloc(sizeof(struct xarray_node) + slots * sizeof(uintptr_t));
}

static void node_list_free(struct xarray_node **list)
{
	while (*list) {
		struct xarray_node *node = *list;

		*list = node->parent;
		mem_free(node);
	}
}

static int node_list_fill(struct xarray_node **list, uint64_t count, unsigned slots)
{
	while (count--) {
		struct xarray_node *node = node_new(slots);

		if (!node) {
			node_list_free(list);
			return -1;
		}
		node->parent = *list;
		*list = node;
	}
	return 0;
}

bool node_pool_fill(struct node_pool *pool, uint64_t fine, uint64_t leaves, unsigned order)
{
	if (node_list_fill(&pool->fine, fine, NODE_SLOTS) < 0)
		return false;
	if (node_list_fill(&pool->leaves, leaves, NODE_SLOTS >> order % XARRAY_SLOT_BITS) < 0) {
		node_list_free(&pool->fine);
		return false;
	}
	return true;
}

static struct xarray_node *node_list_take(struct xarray_node **list)
{
	struct xarray_node *node = *list;

	assert(node);
	*list = node->parent;
	node->parent = NULL;
	return node;
}

struct xarray_node *node_pool_take(struct node_pool *pool, unsigned base)
{
	struct xarray_node *node = node_list_take(&pool->fine);

	node->base = base;
	node->shift = base;
	return node;
}

struct xarray_node *node_pool_take_for(struct node_pool *pool, unsigned base, unsigned order)
{
	struct xarray_node *node;

	if (base != order_base(order))
		return node_pool_take(pool, base);
	node = node_list_take(&pool->leaves);
	node->base = base;
	node->shift = order;
	return node;
}

void node_link(struct xarray *xa, struct xarray_node *parent, unsigned slot,
	       struct xarray_node *node)
{
	node->parent = parent;
	node->offset = slot;
	if (parent)
		rcu_assign(parent->slots[slot], slot_of_node(node));
	else
		rcu_assign(xa->head, slot_of_node(node));
}

void node_refine(struct xarray *xa, struct xarray_node *node, struct xarray_node *fine)
{
	unsigned finer = node->shift - fine->shift;

	for (unsigned slot = 0; slot < node_slots(node); slot++) {
		uintptr_t value = node->slots[slot];

		if (!value)
			continue;
		/* A coarse node holds entries only. */
		value = slot_of_entry(slot_entry(value), slot_span(value) + finer);
		for (unsigned i = 0; i < 1u << finer; i++)
			fine->slots[(slot << finer) + i] = value;
		for (unsigned mark = 0; mark < NODE_BITMAPS; mark++)
			if (node->bits[mark] >> slot & 1)
				fine->bits[mark] |= UINT64_C(1) << (slot << finer);
	}
	node_link(xa, node->parent, node->offset, fine);
	node_retire(xa, node);
}

static void node_free_rcu(struct rcu_head *rcu)
{
	mem_free(caa_container_of(rcu, struct xarray_node, rcu));
}

void node_retire(struct xarray *xa, struct xarray_node *node)
{
	__atomic_store_n(&node->dead, true, __ATOMIC_RELEASE);
	__atomic_store_n(&xa->retired, xa->retired + 1, __ATOMIC_RELEASE);
	rcu_call(&node->rcu, node_free_rcu);
}

void node_retire_tree(struct xarray *xa, struct xarray_node *node)
{
	if (node->base > 0 && !node_is_coarse(node))
		for (unsigned slot = 0; slot < NODE_SLOTS; slot++)
			if (slot_is_node(node->slots[slot]))
				node_retire_tree(xa, slot_node(node->slots[slot]));
	node_retire(xa, node);
}

void node_set(struct xarray_node *node, enum xarray_mark mark, uint64_t bits)
{
	while (node && (node->bits[mark] & bits) != bits) {
		__atomic_store_n(&node->bits[mark], node->bits[mark] | bits, __ATOMIC_RELEASE);
		bits = UINT64_C(1) << node->offset;
		node = node->parent;
	}
}

void node_clear(struct xarray_node *node, enum xarray_mark mark, uint64_t bits)
{
	while (node && node->bits[mark] & bits) {
		__atomic_store_n(&node->bits[mark], node->bits[mark] & ~bits, __ATOMIC_RELEASE);
		if (node->bits[mark])
			break;
		bits = UINT64_C(1) << node->offset;
		node = node->parent;
	}
}
