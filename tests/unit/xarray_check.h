/* SPDX-License-Identifier: MIT */
/* What has to be true of the nodes of any tree, at any time at which its lock is free. */
#pragma once

#include <glib.h>

#include "cache/xarray_node.h"

static uint64_t xarray_check_node(struct xarray *xa, struct xarray_node *node,
				  struct xarray_node *parent, unsigned offset)
{
	uint64_t bits[NODE_BITMAPS] = { 0 }, entries = 0;

	g_assert_true(node->parent == parent);
	if (parent) {
		g_assert_cmpuint(node->offset, ==, offset);
		g_assert_cmpuint(node_top(node), ==, parent->base);
	}
	g_assert_false(node->dead);
	g_assert_cmpuint(node->base % XARRAY_SLOT_BITS, ==, 0);
	g_assert_cmpuint(node->shift - node->base, <, XARRAY_SLOT_BITS);
	for (unsigned slot = 0; slot < node_slots(node); slot++) {
		uintptr_t value = node->slots[slot];
		uint64_t bit = UINT64_C(1) << slot;

		if (slot_is_node(value)) {
			struct xarray_node *child = slot_node(value);

			g_assert_false(node_is_coarse(node));
			g_assert_true(!!(value & SLOT_COARSE) == node_is_coarse(child));
			entries += xarray_check_node(xa, child, node, slot);
			for (unsigned mark = 0; mark < NODE_BITMAPS; mark++)
				if (child->bits[mark])
					bits[mark] |= bit;
		} else if (value) {
			unsigned span = 1u << slot_span(value);

			g_assert_cmpuint(slot % span, ==, 0);
			for (unsigned i = 1; i < span; i++)
				g_assert_true(node->slots[slot + i] == value);
			bits[XARRAY_PRESENT] |= bit;
			for (unsigned mark = 0; mark < XARRAY_MARKS; mark++)
				bits[mark] |= node->bits[mark] & bit;
			slot += span - 1;
			entries++;
		}
	}
	for (unsigned mark = 0; mark < NODE_BITMAPS; mark++)
		g_assert_cmphex(node->bits[mark], ==, bits[mark]);
	g_assert_cmpuint(entries, >, 0);
	return entries;
}

/* Returns how many entries there are. */
static inline uint64_t xarray_check(struct xarray *xa)
{
	struct xarray_node *root = xarray_root(xa);

	if (!root)
		return 0;
	/* No root that only leads to its first child. */
	g_assert_false(root->bits[XARRAY_PRESENT] == 1 && slot_is_node(root->slots[0]));
	return xarray_check_node(xa, root, NULL, 0);
}
