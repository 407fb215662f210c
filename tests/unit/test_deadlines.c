/* SPDX-License-Identifier: MIT */
/* The heap of deadlines against the plainest thing that could do its work. */
#include "cache/deadlines.h"

#include <errno.h>
#include <glib.h>

#include "base/alloc.h"

#define COUNT 300

static struct deadline *find_earliest(struct deadline *all)
{
	struct deadline *earliest = NULL;

	for (int i = 0; i < COUNT; i++)
		if (all[i].place && (!earliest || all[i].at_ms < earliest->at_ms))
			earliest = &all[i];
	return earliest;
}

static void test_random(void)
{
	struct deadlines deadlines = { 0 };
	struct deadline all[COUNT] = { 0 };
	size_t count = 0;

	g_assert_null(deadlines_first(&deadlines));
	g_assert_cmpint(deadlines_reserve(&deadlines, COUNT), ==, 0);
	for (int step = 0; step < 20000; step++) {
		struct deadline *one = &all[g_test_rand_int_range(0, COUNT)];
		struct deadline *first;

		if (one->place) {
			deadlines_remove(&deadlines, one);
			g_assert_cmpuint(one->place, ==, 0);
			count--;
		} else {
			bool earliest;

			one->at_ms = g_test_rand_int_range(0, 100);
			first = find_earliest(all);
			earliest = deadlines_add(&deadlines, one);
			if (!first || one->at_ms < first->at_ms)
				g_assert_true(earliest);
			if (first && one->at_ms > first->at_ms)
				g_assert_false(earliest);
			count++;
		}
		g_assert_cmpuint(deadlines.count, ==, count);
		first = find_earliest(all);
		if (first)
			g_assert_cmpint(deadlines_first(&deadlines)->at_ms, ==, first->at_ms);
		else
			g_assert_null(deadlines_first(&deadlines));
	}
	/* What is left comes out in order. */
	for (int64_t last = 0; deadlines.count;) {
		struct deadline *first = deadlines_first(&deadlines);

		g_assert_cmpint(first->at_ms, >=, last);
		last = first->at_ms;
		deadlines_remove(&deadlines, first);
	}
	for (int i = 0; i < COUNT; i++)
		g_assert_cmpuint(all[i].place, ==, 0);
	deadlines_remove(&deadlines, &all[0]);
	deadlines_destroy(&deadlines);
}

static void test_no_memory(void)
{
	struct deadlines deadlines = { 0 };
	struct deadline first = { .at_ms = 2 }, second = { .at_ms = 1 };

	mem_test_begin(2);
	g_assert_cmpint(deadlines_reserve(&deadlines, 1), ==, 0);
	deadlines_add(&deadlines, &first);
	g_assert_cmpint(deadlines_reserve(&deadlines, deadlines.capacity + 1), ==, -ENOMEM);
	g_assert_true(deadlines_first(&deadlines) == &first);
	g_assert_true(deadlines_add(&deadlines, &second));
	g_assert_cmpint(deadlines_reserve(&deadlines, deadlines.capacity + 1), ==, 0);
	g_assert_true(deadlines_first(&deadlines) == &second);
	deadlines_destroy(&deadlines);
	g_assert_cmpint(mem_test_end(NULL), ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/deadlines/random", test_random);
	g_test_add_func("/deadlines/no-memory", test_no_memory);
	return g_test_run();
}
