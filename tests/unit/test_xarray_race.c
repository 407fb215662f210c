/* SPDX-License-Identifier: MIT */
/*
 * Readers without a lock against writers that store, erase, replace and split all the time.
 *
 * In the first half of the indices there always is an entry, be it small or large: a reader who
 * finds none there has found a bug. In the second half entries come and go. Each entry knows what
 * it covers and is overwritten before it is freed, so that a reader can tell whether what it was
 * given belongs where it was found. Runs for less than a second, with -m slow for thirty.
 */
#include <errno.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "xarray_check.h"

#define HALF 4096u
#define READERS 3
#define MARKED XARRAY_MARK_1 /* always set on the first and the last entry of the first half */

struct item {
	_Alignas(XARRAY_ENTRY_ALIGN) uint64_t first;
	unsigned order;
	struct rcu_head rcu;
};

struct race {
	struct xarray xa;
	uint64_t base; /* of the indices */
	atomic_bool stop;
	atomic_ulong lookups, iterations, changes;
};

static struct item *item_new(uint64_t first, unsigned order)
{
	struct item *item = mem_zalloc(sizeof(*item));

	g_assert_nonnull(item);
	item->first = first;
	item->order = order;
	return item;
}

static void item_free_rcu(struct rcu_head *rcu)
{
	struct item *item = caa_container_of(rcu, struct item, rcu);

	item->first = UINT64_MAX;
	item->order = 0;
	mem_free(item);
}

static void item_retire(struct item *item)
{
	rcu_call(&item->rcu, item_free_rcu);
}

static bool item_covers(const struct item *item, uint64_t index)
{
	return index >> item->order == item->first >> item->order;
}

static uint64_t random_below(GRand *random, uint64_t end)
{
	return g_rand_int(random) % end;
}

/* One lookup each way. */
static void race_lookup(struct race *race, GRand *random)
{
	uint64_t index = race->base + random_below(random, 2 * HALF), found = index;
	struct item *item;
	unsigned order;

	rcu_read_lock();
	item = xarray_load(&race->xa, index);
	if (item)
		g_assert_true(item_covers(item, index));
	else
		g_assert_cmpuint(index - race->base, >=, HALF);
	item = xarray_find(&race->xa, &found, XARRAY_INDEX_MAX, XARRAY_PRESENT, &order);
	if (item) {
		g_assert_cmphex(found, ==, item->first);
		g_assert_cmpuint(order, ==, item->order);
		g_assert_true(found >= index || item_covers(item, index));
	}
	if (index < race->base + HALF)
		g_assert_true(item && item_covers(item, index));
	found = race->base + random_below(random, HALF);
	item = xarray_find(&race->xa, &found, race->base + HALF - 1, MARKED, &order);
	g_assert_nonnull(item);
	g_assert_cmphex(found, ==, item->first);
	g_assert_true(xarray_marked(&race->xa, MARKED));
	rcu_read_unlock();
}

/* All of the first half, which has no holes; entries may overlap, as some are old and some new. */
static void race_iterate(struct race *race)
{
	uint64_t index = race->base, next = race->base, last = race->base + HALF - 1;
	struct item *item;
	unsigned order;

	rcu_read_lock();
	xarray_for_each(&race->xa, index, last, XARRAY_PRESENT, order, item) {
		g_assert_cmphex(index, ==, item->first);
		g_assert_cmpuint(order, ==, item->order);
		g_assert_true(item_covers(item, next));
		next = index + (UINT64_C(1) << order);
		if (next % 64 == 0) {
			/* Leave the section: the iteration must not rely on what it has seen. */
			rcu_read_unlock();
			g_thread_yield();
			rcu_read_lock();
		}
	}
	rcu_read_unlock();
	g_assert_cmphex(next, ==, last + 1);
}

static gpointer race_reader(gpointer data)
{
	struct race *race = data;
	GRand *random = g_rand_new_with_seed(GPOINTER_TO_UINT(&data) ^ g_get_monotonic_time());

	while (!atomic_load(&race->stop)) {
		for (unsigned i = 0; i < 500; i++)
			race_lookup(race, random);
		atomic_fetch_add(&race->lookups, 500);
		race_iterate(race);
		atomic_fetch_add(&race->iterations, 1);
	}
	g_rand_free(random);
	return NULL;
}

/* Replace what is in a range of the first half, whatever it is, by one entry. */
static void race_replace(struct race *race, uint64_t index, unsigned order)
{
	uint64_t first = index >> order << order, at = first;
	uint64_t last = first + ((UINT64_C(1) << order) - 1);
	struct item *old[HALF], *item = xarray_load(&race->xa, first);
	unsigned count = 0, found;

	if (item->order > order)
		return;
	/* The ends are marked all the time: they may only be split. */
	if (first == race->base || last == race->base + HALF - 1)
		return;
	xarray_for_each(&race->xa, at, last, XARRAY_PRESENT, found, item)
		old[count++] = item;
	item = item_new(first, order);
	g_assert_cmpint(xarray_replace_locked(&race->xa, first, order, item), ==, 0);
	while (count)
		item_retire(old[--count]);
}

static void *race_make(uint64_t index, void *data)
{
	return item_new(index, *(unsigned *)data);
}

static void race_split(struct race *race, uint64_t index, unsigned order)
{
	struct item *item = xarray_load(&race->xa, index);

	if (!item || item->order <= order)
		return;
	g_assert_cmpint(xarray_split_locked(&race->xa, index, order, race_make, &order), ==, 0);
	item_retire(item);
}

static void race_store_or_erase(struct race *race, uint64_t index, unsigned order)
{
	struct item *item = xarray_load(&race->xa, index), *new;

	if (item) {
		g_assert_true(xarray_erase_locked(&race->xa, index) == item);
		item_retire(item);
		return;
	}
	new = item_new(index >> order << order, order);
	if (xarray_store_locked(&race->xa, new->first, order, new) < 0)
		mem_free(new);
}

static void race_toggle(struct race *race, uint64_t index)
{
	if (xarray_get_mark(&race->xa, index, XARRAY_MARK_0))
		xarray_clear_mark_locked(&race->xa, index, XARRAY_MARK_0);
	else
		xarray_set_mark_locked(&race->xa, index, XARRAY_MARK_0);
}

static void race_run(struct race *race, gint64 until)
{
	GRand *random = g_rand_new_with_seed(g_test_rand_int());
	uint64_t far = race->base ? 0 : UINT64_MAX;

	while (g_get_monotonic_time() < until) {
		uint64_t there = race->base + random_below(random, HALF);
		uint64_t maybe = race->base + HALF + random_below(random, HALF);
		unsigned order = random_below(random, 11);

		xarray_lock(&race->xa);
		switch (random_below(random, 6)) {
		case 0:
			race_replace(race, there, order);
			break;
		case 1:
			race_split(race, there, random_below(random, 10));
			break;
		case 2:
			race_split(race, maybe, random_below(random, 10));
			break;
		case 3:
			/* The tree grows and shrinks at its top. */
			race_store_or_erase(race, far, 0);
			break;
		case 4:
			race_toggle(race, there);
			break;
		default:
			race_store_or_erase(race, maybe, order);
			break;
		}
		if (random_below(random, 512) == 0)
			xarray_check(&race->xa);
		xarray_unlock(&race->xa);
		atomic_fetch_add(&race->changes, 1);
	}
	g_rand_free(random);
}

static void race_test(gconstpointer data)
{
	struct race *race = g_new0(struct race, 1);
	GThread *readers[READERS];
	struct item *item;
	uint64_t index = 0;
	unsigned order;

	mem_test_begin(0);
	race->base = *(const uint64_t *)data;
	xarray_init(&race->xa);
	xarray_lock(&race->xa);
	for (unsigned i = 0; i < HALF; i += 64)
		g_assert_cmpint(xarray_store_locked(&race->xa, race->base + i, 6,
						    item_new(race->base + i, 6)), ==, 0);
	xarray_set_mark_locked(&race->xa, race->base, MARKED);
	xarray_set_mark_locked(&race->xa, race->base + HALF - 1, MARKED);
	xarray_unlock(&race->xa);

	for (unsigned i = 0; i < READERS; i++)
		readers[i] = g_thread_new("reader", race_reader, race);
	race_run(race, g_get_monotonic_time() + (g_test_slow() ? 13 : 0.25) * G_USEC_PER_SEC);
	atomic_store(&race->stop, true);
	for (unsigned i = 0; i < READERS; i++)
		g_thread_join(readers[i]);
	g_test_message("%lu changes, %lu lookups, %lu iterations", race->changes, race->lookups,
		       race->iterations);
	g_assert_cmpuint(race->lookups, >, 0);
	g_assert_cmpuint(race->iterations, >, 0);

	xarray_lock(&race->xa);
	xarray_check(&race->xa);
	xarray_for_each(&race->xa, index, XARRAY_INDEX_MAX, XARRAY_PRESENT, order, item) {
		xarray_erase_locked(&race->xa, index);
		item_retire(item);
	}
	g_assert_true(xarray_empty(&race->xa));
	xarray_unlock(&race->xa);
	xarray_destroy(&race->xa);
	rcu_barrier();
	g_assert_cmpint(mem_test_end(NULL), ==, 0);
	g_free(race);
}

#define FLIP_ORDERS XARRAY_SLOT_BITS
#define FLIP (NODE_SLOTS / 2)

/*
 * As many changes in one place as a processor can make: in the upper half of one node, which is
 * never without entries, so that nothing is allocated. The entries are there for good, one of each
 * order for each index.
 */
struct flip {
	struct xarray xa;
	struct item items[FLIP_ORDERS][2 * FLIP];
	atomic_bool stop;
	atomic_ulong lookups;
};

static gpointer flip_reader(gpointer data)
{
	struct flip *flip = data;
	unsigned order;

	for (uint64_t i = 0; !atomic_load(&flip->stop); i += 7) {
		uint64_t index = FLIP + i % FLIP, found = index;
		struct item *item;

		rcu_read_lock();
		item = xarray_load(&flip->xa, index);
		g_assert_true(item && item_covers(item, index));
		item = xarray_find(&flip->xa, &found, XARRAY_INDEX_MAX, XARRAY_PRESENT, &order);
		g_assert_true(item && item_covers(item, index));
		g_assert_cmphex(found, ==, item->first);
		g_assert_cmpuint(order, ==, item->order);
		/* From before them, where the bitmap leads the way. */
		found = 0;
		item = xarray_find(&flip->xa, &found, XARRAY_INDEX_MAX, XARRAY_PRESENT, &order);
		g_assert_true(item && item->first == FLIP);
		rcu_read_unlock();
		atomic_fetch_add_explicit(&flip->lookups, 1, memory_order_relaxed);
	}
	return NULL;
}

static void *flip_make(uint64_t index, void *data)
{
	struct item *items = data;

	return &items[index];
}

static void test_flip(void)
{
	struct flip *flip = g_new0(struct flip, 1);
	GRand *random = g_rand_new_with_seed(g_test_rand_int());
	gint64 until = g_get_monotonic_time() + (g_test_slow() ? 5 : 0.25) * G_USEC_PER_SEC;
	unsigned long changes = 0;
	GThread *reader;

	mem_test_begin(0);
	xarray_init(&flip->xa);
	for (unsigned order = 0; order < FLIP_ORDERS; order++)
		for (unsigned i = FLIP; i < 2 * FLIP; i++) {
			flip->items[order][i].first = i >> order << order;
			flip->items[order][i].order = order;
		}
	xarray_lock(&flip->xa);
	for (unsigned i = FLIP; i < 2 * FLIP; i++)
		g_assert_cmpint(xarray_store_locked(&flip->xa, i, 0, &flip->items[0][i]), ==, 0);
	reader = g_thread_new("reader", flip_reader, flip);
	do {
		for (unsigned i = 0; i < 1000; i++, changes++) {
			uint64_t index = FLIP + random_below(random, FLIP);
			unsigned order = 1 + random_below(random, FLIP_ORDERS - 1);
			struct item *item = xarray_load(&flip->xa, index);
			int rc;

			if (item->order) {
				rc = xarray_split_locked(&flip->xa, index, 0, flip_make,
							 flip->items[0]);
				g_assert_cmpint(rc, ==, 0);
				continue;
			}
			index = index >> order << order;
			rc = xarray_replace_locked(&flip->xa, index, order,
						   &flip->items[order][index]);
			/* A larger one may be in the way. */
			g_assert_true(rc == 0 || rc == -EINVAL);
		}
	} while (g_get_monotonic_time() < until);
	atomic_store(&flip->stop, true);
	g_thread_join(reader);
	xarray_check(&flip->xa);
	xarray_unlock(&flip->xa);
	g_test_message("%lu changes, %lu lookups", changes, flip->lookups);
	g_assert_cmpuint(flip->lookups, >, 0);
	xarray_destroy(&flip->xa);
	rcu_barrier();
	g_assert_cmpint(mem_test_end(NULL), ==, 0);
	g_rand_free(random);
	g_free(flip);
}

int main(int argc, char **argv)
{
	static const uint64_t low = 0, high = UINT64_C(1) << 40;

	g_test_init(&argc, &argv, NULL);
	g_test_add_data_func("/xarray/race/low", &low, race_test);
	g_test_add_data_func("/xarray/race/high", &high, race_test);
	g_test_add_func("/xarray/race/flip", test_flip);
	return g_test_run();
}
