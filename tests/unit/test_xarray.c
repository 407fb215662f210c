/* SPDX-License-Identifier: MIT */
/* The tree at its edges, operation by operation. */
#include <errno.h>

#include "base/alloc.h"
#include "xarray_check.h"

#define LAST XARRAY_INDEX_MAX

static struct xarray xa;

/* Entries are never followed, so any aligned number does. */
static void *entry(uintptr_t number)
{
	return (void *)(number * XARRAY_ENTRY_ALIGN);
}

static void setup(void)
{
	mem_test_begin(0);
	xarray_init(&xa);
	xarray_lock(&xa);
}

static void teardown(void)
{
	xarray_check(&xa);
	xarray_unlock(&xa);
	xarray_destroy(&xa);
	rcu_barrier();
	g_assert_cmpint(mem_test_end(NULL), ==, 0);
}

static int store(uint64_t index, unsigned order, uintptr_t number)
{
	int rc = xarray_store_locked(&xa, index, order, entry(number));

	xarray_check(&xa);
	return rc;
}

static int replace(uint64_t index, unsigned order, uintptr_t number)
{
	int rc = xarray_replace_locked(&xa, index, order, entry(number));

	xarray_check(&xa);
	return rc;
}

static uintptr_t erase(uint64_t index)
{
	uintptr_t erased = (uintptr_t)xarray_erase_locked(&xa, index) / XARRAY_ENTRY_ALIGN;

	xarray_check(&xa);
	return erased;
}

static uintptr_t load(uint64_t index)
{
	return (uintptr_t)xarray_load(&xa, index) / XARRAY_ENTRY_ALIGN;
}

/* The entry found, with where and how large it is checked. */
static uintptr_t find(uint64_t index, uint64_t last, enum xarray_mark mark, uint64_t first,
		      unsigned order)
{
	unsigned found_order = 99;
	void *found = xarray_find(&xa, &index, last, mark, &found_order);

	if (found) {
		g_assert_cmphex(index, ==, first);
		g_assert_cmpuint(found_order, ==, order);
	}
	return (uintptr_t)found / XARRAY_ENTRY_ALIGN;
}

static void test_empty(void)
{
	g_assert_true(xarray_empty(&xa));
	g_assert_cmpuint(load(0), ==, 0);
	g_assert_cmpuint(load(LAST), ==, 0);
	g_assert_cmpuint(erase(0), ==, 0);
	g_assert_cmpuint(find(0, LAST, XARRAY_PRESENT, 0, 0), ==, 0);
	g_assert_cmpint(xarray_split_locked(&xa, 5, 0, NULL, NULL), ==, -ENOENT);
	xarray_set_mark_locked(&xa, 0, XARRAY_MARK_0);
	g_assert_false(xarray_get_mark(&xa, 0, XARRAY_MARK_0));
	g_assert_false(xarray_marked(&xa, XARRAY_MARK_0));
}

static void test_arguments(void)
{
	static uint64_t object[4] __attribute__((aligned(XARRAY_ENTRY_ALIGN)));

	g_assert_cmpint(xarray_store_locked(&xa, 0, 0, NULL), ==, -EINVAL);
	g_assert_cmpint(xarray_store_locked(&xa, 0, 0, &object[1]), ==, -EINVAL);
	g_assert_cmpint(xarray_replace_locked(&xa, 0, 0, NULL), ==, -EINVAL);
	g_assert_cmpint(store(1, 1, 1), ==, -EINVAL);
	g_assert_cmpint(store(UINT64_C(1) << 62, 63, 1), ==, -EINVAL);
	g_assert_cmpint(store(LAST, 1, 1), ==, -EINVAL);
	g_assert_cmpint(store(0, XARRAY_ORDER_MAX + 1, 1), ==, -EINVAL);
	g_assert_cmpint(replace(256, 9, 1), ==, -EINVAL);
	g_assert_true(xarray_empty(&xa));
}

/* One entry alone, at the edges of everything. */
static void test_single(void)
{
	static const uint64_t indices[] = {
		0, 1, 3, 4, 7, 8, 63, 64, 4095, 4096, UINT64_C(1) << 32, UINT64_C(1) << 60,
		UINT64_C(1) << 62, UINT64_C(1) << 63, (UINT64_C(1) << 63) - 1, LAST - 1, LAST,
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(indices); i++)
		for (unsigned order = 0; order <= XARRAY_ORDER_MAX; order++) {
			uint64_t first = indices[i] >> order << order;
			uint64_t last = first + ((UINT64_C(1) << order) - 1);

			g_assert_cmpint(store(first, order, 1), ==, 0);
			g_assert_cmpint(store(first, order, 2), ==, -EEXIST);
			g_assert_cmpint(store(last, 0, 2), ==, -EEXIST);
			g_assert_cmpuint(load(first), ==, 1);
			g_assert_cmpuint(load(last), ==, 1);
			g_assert_cmpuint(load(indices[i]), ==, 1);
			if (first > 0)
				g_assert_cmpuint(load(first - 1), ==, 0);
			if (last < LAST) {
				g_assert_cmpuint(load(last + 1), ==, 0);
				g_assert_cmpuint(find(last + 1, LAST, XARRAY_PRESENT, 0, 0), ==, 0);
			}
			g_assert_cmpuint(find(0, LAST, XARRAY_PRESENT, first, order), ==, 1);
			g_assert_cmpuint(find(last, LAST, XARRAY_PRESENT, first, order), ==, 1);
			g_assert_cmpuint(find(last, last, XARRAY_PRESENT, first, order), ==, 1);
			if (first > 0)
				g_assert_cmpuint(find(0, first - 1, XARRAY_PRESENT, 0, 0), ==, 0);
			xarray_set_mark_locked(&xa, last, XARRAY_MARK_1);
			g_assert_true(xarray_get_mark(&xa, first, XARRAY_MARK_1));
			g_assert_true(xarray_marked(&xa, XARRAY_MARK_1));
			g_assert_cmpuint(find(0, LAST, XARRAY_MARK_1, first, order), ==, 1);
			g_assert_cmpuint(find(0, LAST, XARRAY_MARK_2, first, order), ==, 0);
			g_assert_cmpuint(erase(indices[i]), ==, 1);
			g_assert_true(xarray_empty(&xa));
		}
}

/* Every order with a small one beside it, before and after. */
static void test_neighbours(void)
{
	for (unsigned order = 0; order < XARRAY_ORDER_MAX; order++) {
		uint64_t size = UINT64_C(1) << order, first = size;

		g_assert_cmpint(store(first, order, 1), ==, 0);
		g_assert_cmpint(store(first - 1, 0, 2), ==, 0);
		g_assert_cmpint(store(first + size, 0, 3), ==, 0);
		g_assert_cmpint(store(0, order + 1, 4), ==, -EEXIST);
		g_assert_cmpint(replace(first, 0, 4), ==, order ? -EINVAL : 0);
		g_assert_cmpuint(load(first - 1), ==, 2);
		g_assert_cmpuint(load(first), ==, order ? 1 : 4);
		g_assert_cmpuint(load(first + size - 1), ==, order ? 1 : 4);
		g_assert_cmpuint(load(first + size), ==, 3);
		g_assert_cmpuint(find(first, LAST, XARRAY_PRESENT, first, order), !=, 0);
		g_assert_cmpuint(find(0, LAST, XARRAY_PRESENT, first - 1, 0), ==, 2);
		g_assert_cmpint(replace(0, order + 1, 5), ==, 0);
		g_assert_cmpuint(load(0), ==, 5);
		g_assert_cmpuint(load(first), ==, 5);
		g_assert_cmpuint(load(first + size), ==, 3);
		g_assert_cmpuint(erase(first - 1), ==, 5);
		g_assert_cmpuint(erase(first + size), ==, 3);
		g_assert_true(xarray_empty(&xa));
	}
}

/* The tree is as high as its largest index wants, also when that goes. */
static void test_height(void)
{
	g_assert_cmpint(store(0, 0, 1), ==, 0);
	g_assert_cmpuint(xarray_root(&xa)->base, ==, 0);
	g_assert_cmpint(store(LAST, 0, 2), ==, 0);
	g_assert_cmpuint(node_top(xarray_root(&xa)), >=, 64);
	g_assert_cmpint(store(UINT64_C(1) << 20, 0, 3), ==, 0);
	g_assert_cmpuint(erase(LAST), ==, 2);
	g_assert_cmpuint(xarray_root(&xa)->base, <=, 20);
	g_assert_cmpuint(erase(UINT64_C(1) << 20), ==, 3);
	g_assert_cmpuint(xarray_root(&xa)->base, ==, 0);
	g_assert_cmpuint(load(0), ==, 1);
	/* An entry at the beginning that needs a higher root. */
	g_assert_cmpint(store(0, 30, 4), ==, -EEXIST);
	g_assert_cmpint(replace(0, 30, 4), ==, 0);
	g_assert_cmpuint(load(0), ==, 4);
	g_assert_cmpuint(erase(0), ==, 4);
	g_assert_true(xarray_empty(&xa));
}

static void test_marks(void)
{
	const uint64_t far = UINT64_C(1) << 40;

	g_assert_cmpint(store(far, 9, 1), ==, 0);
	g_assert_cmpint(store(far + 512, 0, 2), ==, 0);
	xarray_set_mark_locked(&xa, far + 511, XARRAY_MARK_0);
	xarray_set_mark_locked(&xa, far + 512, XARRAY_MARK_0);
	xarray_set_mark_locked(&xa, far + 512, XARRAY_MARK_2);
	xarray_check(&xa);
	/* Growing keeps them, and so does a change of the node's kind. */
	g_assert_cmpint(store(LAST, 0, 3), ==, 0);
	g_assert_cmpint(store(far - 1, 0, 4), ==, 0);
	g_assert_true(xarray_marked(&xa, XARRAY_MARK_0));
	g_assert_cmpuint(find(0, LAST, XARRAY_MARK_0, far, 9), ==, 1);
	g_assert_cmpuint(find(far + 500, LAST, XARRAY_MARK_0, far, 9), ==, 1);
	g_assert_cmpuint(find(far + 512, LAST, XARRAY_MARK_0, far + 512, 0), ==, 2);
	g_assert_cmpuint(find(0, far - 1, XARRAY_MARK_0, 0, 0), ==, 0);
	g_assert_cmpuint(find(far + 513, LAST, XARRAY_MARK_0, 0, 0), ==, 0);
	g_assert_cmpuint(find(0, LAST, XARRAY_MARK_2, far + 512, 0), ==, 2);
	/* What is stored anew has none. */
	g_assert_cmpint(replace(far + 512, 0, 5), ==, 0);
	g_assert_false(xarray_get_mark(&xa, far + 512, XARRAY_MARK_0));
	g_assert_false(xarray_marked(&xa, XARRAY_MARK_2));
	xarray_clear_mark_locked(&xa, far + 3, XARRAY_MARK_0);
	xarray_check(&xa);
	g_assert_false(xarray_marked(&xa, XARRAY_MARK_0));
	xarray_set_mark_locked(&xa, far, XARRAY_MARK_1);
	g_assert_cmpuint(erase(far), ==, 1);
	g_assert_false(xarray_marked(&xa, XARRAY_MARK_1));
}

static void *make(uint64_t index, void *data)
{
	uint64_t *next = data;

	g_assert_cmphex(index, ==, next[0]);
	next[0] += next[1];
	return entry(1000 + index % 1000);
}

/* One entry into smaller ones, and back. */
static void check_split(unsigned old, unsigned order, bool neighbour, unsigned neighbour_order)
{
	uint64_t first = UINT64_C(7) << 20, end = first + (UINT64_C(1) << old), index = 0;
	uint64_t next[2] = { first, UINT64_C(1) << order };
	unsigned found, count = 0;
	void *one;

	g_assert_cmpint(store(first, old, 1), ==, 0);
	if (neighbour)
		g_assert_cmpint(store(end, neighbour_order, 2), ==, 0);
	g_assert_cmpint(xarray_split_locked(&xa, first, old, make, next), ==, -EINVAL);
	xarray_set_mark_locked(&xa, first, XARRAY_MARK_1);
	g_assert_cmpint(xarray_split_locked(&xa, first + 1, order, make, next), ==, 0);
	xarray_check(&xa);
	g_assert_cmphex(next[0], ==, end);
	xarray_for_each(&xa, index, LAST, XARRAY_MARK_1, found, one) {
		g_assert_cmpuint(found, ==, order);
		g_assert_cmphex(index, ==, first + ((uint64_t)count++ << order));
		g_assert_true(one == entry(1000 + index % 1000));
	}
	g_assert_cmpuint(count, ==, 1u << (old - order));
	g_assert_false(xarray_marked(&xa, XARRAY_MARK_0));
	g_assert_cmpint(replace(first, old, 1), ==, 0);
	g_assert_cmpuint(erase(first), ==, 1);
	if (neighbour)
		g_assert_cmpuint(erase(end), ==, 2);
	g_assert_true(xarray_empty(&xa));
}

static void test_split(void)
{
	for (unsigned old = 1; old <= 12; old++)
		for (unsigned order = 0; order < old; order++) {
			/* In a node of its own, in one with another, in one for smaller ones. */
			check_split(old, order, false, 0);
			check_split(old, order, true, old);
			check_split(old, order, true, 0);
		}
	/* Too many entries to make. */
	g_assert_cmpint(store(0, 63, 1), ==, 0);
	g_assert_cmpint(xarray_split_locked(&xa, 0, 0, make, NULL), ==, -ENOMEM);
	g_assert_cmpuint(load(LAST / 2), ==, 1);
	g_assert_cmpuint(load(LAST / 2 + 1), ==, 0);
}

/* Iterations end where they should, the end of the index space included, and survive erasing. */
static void test_iterate(void)
{
	uint64_t index, expected = 0;
	unsigned order, count = 0;
	void *one;

	for (unsigned i = 0; i < 1000; i++)
		g_assert_cmpint(xarray_store_locked(&xa, i * 3, 0, entry(i + 1)), ==, 0);
	g_assert_cmpint(store(LAST - 7, 3, 2000), ==, 0);
	index = 0;
	xarray_for_each(&xa, index, LAST, XARRAY_PRESENT, order, one) {
		if (one != entry(2000)) {
			g_assert_cmpuint(index, ==, expected);
			expected += 3;
		}
		count++;
	}
	g_assert_cmpuint(count, ==, 1001);
	/* From the middle of an entry, which is the last there can be. */
	count = 0;
	index = LAST - 1;
	xarray_for_each(&xa, index, LAST, XARRAY_PRESENT, order, one) {
		g_assert_cmphex(index, ==, LAST - 7);
		count++;
	}
	g_assert_cmpuint(count, ==, 1);
	count = 0;
	index = 2;
	xarray_for_each(&xa, index, 298, XARRAY_PRESENT, order, one)
		count++;
	g_assert_cmpuint(count, ==, 99);
	/* Erase all, with time for the nodes to go away meanwhile. */
	index = 0;
	xarray_for_each(&xa, index, LAST, XARRAY_PRESENT, order, one) {
		g_assert_true(xarray_erase_locked(&xa, index) == one);
		if (index % 300 == 297)
			rcu_barrier();
	}
	g_assert_true(xarray_empty(&xa));
	index = 5;
	g_assert_null(xarray_find(&xa, &index, 4, XARRAY_PRESENT, NULL));
}

/* An iteration goes where its index says, whatever it remembers. */
static void test_jump(void)
{
	struct xarray_cursor cursor = XARRAY_CURSOR_INIT;
	static const unsigned jumps[] = { 0, 1, 2, 5, 4, 3, 3, 60, 61, 0, 999, 998, 500, 501, 1 };
	unsigned order;

	for (unsigned i = 0; i < 1000; i++)
		g_assert_cmpint(xarray_store_locked(&xa, i, 0, entry(i + 1)), ==, 0);
	for (unsigned i = 0; i < G_N_ELEMENTS(jumps); i++) {
		uint64_t index = jumps[i];

		g_assert_true(xarray_next(&xa, &cursor, &index, LAST, XARRAY_PRESENT, &order) ==
			      entry(jumps[i] + 1));
		g_assert_cmpuint(index, ==, jumps[i]);
		g_assert_cmpuint(order, ==, 0);
	}
}

/* A walker that is in a dead node does not believe that there is nothing. */
static void test_dead(void)
{
	struct xarray_cursor cursor = XARRAY_CURSOR_INIT;
	uint64_t index = 0;
	unsigned order;

	rcu_read_lock();
	g_assert_cmpint(store(0, 0, 1), ==, 0);
	g_assert_true(xarray_next(&xa, &cursor, &index, LAST, XARRAY_PRESENT, &order) == entry(1));
	g_assert_cmpuint(erase(0), ==, 1);
	g_assert_cmpint(store(1, 0, 2), ==, 0);
	g_assert_true(cursor.node->dead);
	g_assert_true(cursor.node != xarray_root(&xa));
	/* As if the node had died the moment after the iteration looked whether any had. */
	cursor.retired = xa.retired;
	index = 1;
	g_assert_true(xarray_next(&xa, &cursor, &index, LAST, XARRAY_PRESENT, &order) == entry(2));
	g_assert_cmpuint(index, ==, 1);
	g_assert_true(cursor.node == xarray_root(&xa));
	rcu_read_unlock();
}

/* Collapse: many small ones make room for a large one. Nothing is allocated where nodes are. */
static void test_collapse(void)
{
	long before;

	for (unsigned i = 0; i < 2048; i++)
		g_assert_cmpint(xarray_store_locked(&xa, i, 0, entry(i + 1)), ==, 0);
	xarray_set_mark_locked(&xa, 600, XARRAY_MARK_2);
	g_assert_cmpint(replace(512, 9, 9999), ==, 0);
	g_assert_cmpuint(xarray_check(&xa), ==, 1537);
	g_assert_false(xarray_marked(&xa, XARRAY_MARK_2));
	g_assert_cmpuint(load(511), ==, 512);
	g_assert_cmpuint(load(512), ==, 9999);
	g_assert_cmpuint(load(1023), ==, 9999);
	g_assert_cmpuint(load(1024), ==, 1025);
	rcu_barrier();
	before = mem_test_end(NULL);
	g_assert_cmpint(before, >, 0);
	/* From here on the first allocation fails. */
	mem_test_begin(1);
	g_assert_cmpint(replace(1024, 9, 9998), ==, 0);
	g_assert_cmpint(replace(1024, 10, 9997), ==, 0);
	g_assert_cmpuint(erase(1024), ==, 9997);
	g_assert_cmpuint(load(1024), ==, 0);
	for (unsigned i = 0; i < 1024; i++)
		erase(i);
	g_assert_true(xarray_empty(&xa));
	rcu_barrier();
	g_assert_cmpint(mem_test_end(NULL), ==, -before);
	mem_test_begin(0);
}

static void run(gconstpointer test)
{
	setup();
	(*(void (*const *)(void))test)();
	teardown();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *path;
		void (*test)(void);
	} tests[] = {
		{ "/xarray/empty", test_empty },
		{ "/xarray/arguments", test_arguments },
		{ "/xarray/single", test_single },
		{ "/xarray/neighbours", test_neighbours },
		{ "/xarray/height", test_height },
		{ "/xarray/marks", test_marks },
		{ "/xarray/split", test_split },
		{ "/xarray/iterate", test_iterate },
		{ "/xarray/jump", test_jump },
		{ "/xarray/dead", test_dead },
		{ "/xarray/collapse", test_collapse },
	};

	g_test_init(&argc, &argv, NULL);
	for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++)
		g_test_add_data_func(tests[i].path, &tests[i].test, run);
	return g_test_run();
}
