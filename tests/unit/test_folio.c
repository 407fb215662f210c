/* SPDX-License-Identifier: MIT */
/* The counts and states of a folio, and pins of ranges. */
#include "mapping_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

static struct folio *folio_cached(unsigned order)
{
	struct folio *folio = folio_new(NULL, 0, order, "test");

	g_assert_nonnull(folio);
	g_assert_cmpint(folio_state(folio), ==, FOLIO_NEW);
	folio_transition(folio, FOLIO_NEW, FOLIO_CACHED);
	return folio;
}

static void folio_drop(struct folio *folio)
{
	folio_transition(folio, FOLIO_CACHED, FOLIO_DETACHED);
	folio_put(folio, "test");
}

static void test_counts(void)
{
	for (unsigned order = 0; order <= 9; order += 9) {
		struct folio *folio = folio_cached(order);
		uint64_t acquired = folio_pins_acquired(), released = folio_pins_released();

		g_assert_false(folio_maybe_dma_pinned(folio));
		g_assert_true(folio_try_get(folio, "other"));
		g_assert_cmpint(folio_try_pin(folio, 3), ==, 0);
		g_assert_true(folio_maybe_dma_pinned(folio));
		g_assert_cmpint(folio_try_pin(folio, 1), ==, 0);
		g_assert_true(folio_try_get(folio, "third"));
		folio_put(folio, "other");
		folio_unpin(folio, 3);
		g_assert_true(folio_maybe_dma_pinned(folio));
		folio_unpin(folio, 1);
		g_assert_false(folio_maybe_dma_pinned(folio));
		g_assert_cmpuint(folio_pins_acquired() - acquired, ==, 4);
		g_assert_cmpuint(folio_pins_released() - released, ==, 4);
		g_assert_cmpuint(atomic_load(&folio->refcount), ==, 2);
		folio_put(folio, "third");
		folio_drop(folio);
	}
}

/* A small folio with very many references is taken for pinned, a large one never. */
static void test_false_positive(void)
{
	for (unsigned order = 0; order <= 1; order++) {
		struct folio *folio = folio_cached(order);

		for (unsigned i = 0; i < FOLIO_PIN_BIAS - 2; i++)
			g_assert_true(folio_try_get(folio, "many"));
		g_assert_false(folio_maybe_dma_pinned(folio));
		g_assert_true(folio_try_get(folio, "many"));
		g_assert_cmpint(folio_maybe_dma_pinned(folio), ==, order == 0);
		for (unsigned i = 0; i < FOLIO_PIN_BIAS - 1; i++)
			folio_put(folio, "many");
		g_assert_false(folio_maybe_dma_pinned(folio));
		folio_drop(folio);
	}
}

static void test_overflow(void)
{
	for (unsigned order = 0; order <= 9; order += 9) {
		struct folio *folio = folio_cached(order);
		unsigned weight = order ? 1 : FOLIO_PIN_BIAS;
		unsigned most = (FOLIO_REFS_MAX - 1) / weight;
		uint64_t acquired = folio_pins_acquired();

		g_assert_cmpint(folio_try_pin(folio, most + 1), ==, -ENOMEM);
		g_assert_cmpint(folio_try_pin(folio, UINT32_MAX), ==, -ENOMEM);
		g_assert_cmpuint(atomic_load(&folio->refcount), ==, 1);
		g_assert_false(folio_maybe_dma_pinned(folio));
		g_assert_cmpuint(folio_pins_acquired(), ==, acquired);
		g_assert_cmpint(folio_try_pin(folio, most), ==, 0);
		g_assert_cmpint(folio_try_pin(folio, 1), ==, -ENOMEM);
		/* Plain references go on; they have the other half of the counter. */
		for (unsigned i = 0; i < 2 * FOLIO_PIN_BIAS; i++)
			g_assert_true(folio_try_get(folio, "more"));
		g_assert_cmpuint(atomic_load(&folio->refcount), >, FOLIO_REFS_MAX);
		g_assert_cmpint(folio_try_pin(folio, 1), ==, -ENOMEM);
		for (unsigned i = 0; i < 2 * FOLIO_PIN_BIAS; i++)
			folio_put(folio, "more");
		folio_unpin(folio, most);
		g_assert_cmpuint(atomic_load(&folio->refcount), ==, 1);
		folio_drop(folio);
	}
}

static void test_freeze(void)
{
	struct folio *folio = folio_cached(0);

	g_assert_true(folio_try_get(folio, "other"));
	g_assert_false(folio_try_freeze(folio, 1));
	g_assert_cmpint(folio_state(folio), ==, FOLIO_CACHED);
	folio_put(folio, "other");
	g_assert_cmpint(folio_try_pin(folio, 1), ==, 0);
	g_assert_false(folio_try_freeze(folio, 1));
	folio_unpin(folio, 1);
	g_assert_true(folio_try_freeze(folio, 1));
	g_assert_cmpint(folio_state(folio), ==, FOLIO_FROZEN);
	g_assert_false(folio_try_get(folio, "other"));
	g_assert_cmpint(folio_try_pin(folio, 1), ==, -EAGAIN);
	folio_unfreeze(folio, 1);
	g_assert_true(folio_try_get(folio, "other"));
	folio_put(folio, "other");
	folio_drop(folio);
}

/* What a bug does to the process: each in a child of its own. */
static void bug_put(void)
{
	struct folio *folio = folio_cached(0);

	atomic_store(&folio->refcount, 0);
	folio_put(folio, "test");
}

static void bug_unpin_large(void)
{
	struct folio *folio = folio_cached(3);

	folio_try_get(folio, "other");
	folio_try_pin(folio, 1);
	folio_unpin(folio, 2);
}

static void bug_unpin_small(void)
{
	struct folio *folio = folio_cached(0);

	folio_try_pin(folio, 1);
	folio_unpin(folio, 2);
}

static void bug_last_in_tree(void)
{
	folio_put(folio_cached(0), "test");
}

static void bug_transition(void)
{
	struct folio *folio = folio_cached(0);

	folio_transition(folio, FOLIO_CACHED, FOLIO_DETACHED);
	folio_transition(folio, FOLIO_DETACHED, FOLIO_CACHED);
}

static void bug_free_held(void)
{
	struct folio *folio = folio_cached(0);

	folio_try_get(folio, "other");
	folio_free_unused(folio, "test");
}

static void test_bug(gconstpointer data)
{
	if (g_test_subprocess()) {
		/* Not through a sanitizer's handler: the abort is what is asked for. */
		signal(SIGABRT, SIG_DFL);
		((void (*)(void))data)();
		_exit(0);
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_failed();
	g_test_trap_assert_stderr("*folio *references*");
}

#ifdef CACHET_FOLIO_DEBUG
static void note_leak(struct folio *folio, const char *who, long held, void *data)
{
	if (strcmp(who, "leak") == 0) {
		g_assert_cmpint(held, ==, 2);
		*(struct folio **)data = folio;
	}
}

/* A leak names its holder. */
static void test_names(void)
{
	struct folio *folio = folio_cached(0), *leaked = NULL;

	g_assert_true(folio_try_get(folio, "leak"));
	g_assert_true(folio_try_get(folio, "leak"));
	g_assert_cmpint(folio_debug_report(note_leak, &leaked), ==, 3);
	g_assert_true(leaked == folio);
	folio_put(folio, "leak");
	folio_put(folio, "leak");
	folio_drop(folio);
}
#endif

static void test_lookup(void)
{
	struct file file;
	struct folio *folio, *again;

	file_open(&file, 0, false);
	file_fill(&file, 0, HUGE_BYTES, 'l');
	g_assert_null(mapping_get_folio(&file.mapping, 512, "test"));
	folio = mapping_get_folio(&file.mapping, 300, "test");
	g_assert_cmpuint(folio->index, ==, 0);
	again = mapping_get_folio(&file.mapping, 0, "again");
	g_assert_true(again == folio);
	folio_put(again, "again");
	/* A reference keeps the folio, not its place in the file. */
	g_assert_cmpint(mapping_truncate(&file.mapping, 100 * PAGE), ==, 0);
	g_assert_cmpint(folio_state(folio), ==, FOLIO_DETACHED);
	again = mapping_get_folio(&file.mapping, 0, "again");
	g_assert_true(again != folio);
	folio_put(again, "again");
	folio_put(folio, "test");
	file_check(&file);
	file_close(&file);
}

static void test_pin_range(void)
{
	struct file file;
	struct mapping *m = &file.mapping;
	struct mapping_pins *pins, *more;
	uint64_t before = folio_pins_acquired() - folio_pins_released();

	file_open(&file, 0, false);
	file_fill(&file, 0, PAGE, 'a');
	g_assert_cmpint(mapping_truncate(m, 10 * PAGE - 5), ==, 0);
	g_assert_cmpint(mapping_pin_range(m, 0, 0, &pins), ==, -EINVAL);
	g_assert_cmpint(mapping_pin_range(m, 0, 10 * PAGE + 1, &pins), ==, -EINVAL);
	g_assert_cmpint(mapping_pin_range(m, UINT64_MAX, UINT64_MAX, &pins), ==, -EINVAL);
	g_assert_cmpint(mapping_pin_range(m, PAGE - 1, 2, &pins), ==, 0);
	/* Two pages, one of which was a hole. */
	g_assert_cmpuint(folio_pins_acquired() - folio_pins_released() - before, ==, 2);
	g_assert_cmpuint(file_count(&file, (enum xarray_mark)FOLIO_MARK_PINNED), ==, 2);
	g_assert_true(mapping_may_be_pinned(m));
	/* Up to the end of the page that the file ends in. */
	g_assert_cmpint(mapping_pin_range(m, 0, 10 * PAGE, &more), ==, 0);
	g_assert_cmpuint(file_count(&file, (enum xarray_mark)FOLIO_MARK_PINNED), ==, 10);
	file_check(&file);
	g_assert_true(mapping_pins_intact(pins));
	mapping_unpin_range(m, more);
	g_assert_cmpuint(file_count(&file, (enum xarray_mark)FOLIO_MARK_PINNED), ==, 2);
	g_assert_cmpint(mapping_wait_for_pins(m, clock_now_ms()), ==, -EBUSY);
	mapping_unpin_range(m, pins);
	mapping_unpin_range(m, NULL);
	g_assert_false(mapping_may_be_pinned(m));
	g_assert_cmpint(mapping_wait_for_pins(m, -1), ==, 0);
	g_assert_cmpuint(folio_pins_acquired() - folio_pins_released(), ==, before);
	file_check(&file);
	file_close(&file);
}

static void test_pin_nospace(void)
{
	struct file file;
	struct mapping_pins *pins;
	uint64_t acquired = folio_pins_acquired();

	file_open(&file, 4, false);
	g_assert_cmpint(mapping_truncate(&file.mapping, 10 * PAGE), ==, 0);
	g_assert_cmpint(mapping_pin_range(&file.mapping, 0, 5 * PAGE, &pins), ==, -ENOSPC);
	g_assert_cmpuint(folio_pins_acquired(), ==, acquired);
	g_assert_false(mapping_may_be_pinned(&file.mapping));
	g_assert_cmpint(mapping_pin_range(&file.mapping, 0, 4 * PAGE, &pins), ==, 0);
	mapping_unpin_range(&file.mapping, pins);
	file_check(&file);
	file_close(&file);
}

/* One folio of many cannot take another pin: the others lose what they were given. */
static void test_pin_overflow(void)
{
	struct file file;
	struct mapping_pins *pins;
	struct folio *folio;
	unsigned most = (FOLIO_REFS_MAX - 2) / FOLIO_PIN_BIAS;

	file_open(&file, 0, false);
	for (unsigned i = 8; i-- > 0;)
		file_fill(&file, i * PAGE, 1, 'o');
	folio = mapping_get_folio(&file.mapping, 5, "test");
	g_assert_cmpuint(folio->order, ==, 0);
	g_assert_cmpint(folio_try_pin(folio, most), ==, 0);
	g_assert_cmpint(mapping_pin_range(&file.mapping, 0, 7 * PAGE, &pins), ==, -ENOMEM);
	g_assert_cmpuint(file_count(&file, (enum xarray_mark)FOLIO_MARK_PINNED), ==, 0);
	folio_unpin(folio, most);
	g_assert_cmpint(mapping_pin_range(&file.mapping, 0, 7 * PAGE, &pins), ==, 0);
	mapping_unpin_range(&file.mapping, pins);
	g_assert_cmpuint(atomic_load(&folio->refcount), ==, 2);
	folio_put(folio, "test");
	file_close(&file);
}

/* The ends of a pin divide large folios, so that cutting beside the pin does not touch it. */
static void test_pin_splits(void)
{
	struct file file;
	struct mapping *m = &file.mapping;
	struct mapping_pins *pins;

	file_open(&file, 0, false);
	file_fill(&file, 0, 2 * HUGE_BYTES, 'h');
	g_assert_cmpint(mapping_pin_range(m, 100 * PAGE, HUGE_BYTES, &pins), ==, 0);
	g_assert_cmpuint(file_count(&file, (enum xarray_mark)FOLIO_MARK_PINNED), ==, 512);
	g_assert_cmpint(mapping_punch(m, 0, 100 * PAGE), ==, 0);
	g_assert_cmpint(mapping_truncate(m, 612 * PAGE), ==, 0);
	g_assert_true(mapping_pins_intact(pins));
	file_check(&file);
	mapping_unpin_range(m, pins);
	file_close(&file);
}

static void test_truncate_below_pin(void)
{
	struct file file;
	struct mapping *m = &file.mapping;
	struct mapping_pins *pins;
	struct stat st;

	/* Small folios: all are cut off. */
	file_open(&file, 0, false);
	for (unsigned i = 4; i-- > 0;)
		file_fill(&file, i * PAGE, 1, 's');
	g_assert_cmpint(mapping_pin_range(m, 0, 4 * PAGE, &pins), ==, 0);
	g_assert_cmpint(mapping_truncate(m, 2 * PAGE), ==, 0);
	g_assert_true(mapping_pins_attached(pins));
	g_assert_false(mapping_pins_intact(pins));
	g_assert_true(mapping_may_be_pinned(m));
	g_assert_cmpint(mapping_punch(m, 0, 2 * PAGE), ==, 0);
	g_assert_false(mapping_pins_attached(pins));
	g_assert_false(mapping_may_be_pinned(m));
	g_assert_cmpint(mapping_wait_for_pins(m, -1), ==, 0);
	/* The file gets new pages in their place. */
	file_fill(&file, 0, 4 * PAGE, 'n');
	file_check(&file);
	mapping_unpin_range(m, pins);
	file_expect(&file, 0, 4 * PAGE, 'n');
	file_check(&file);

	/* A large folio that is cut in the middle stays, and hinders seals. */
	g_assert_cmpint(mapping_truncate(m, 0), ==, 0);
	file_fill(&file, 0, HUGE_BYTES, 'l');
	g_assert_cmpint(mapping_pin_range(m, 0, HUGE_BYTES, &pins), ==, 0);
	g_assert_cmpint(mapping_truncate(m, HUGE_BYTES / 2), ==, 0);
	g_assert_true(mapping_pins_intact(pins));
	g_assert_true(mapping_may_be_pinned(m));
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 512);
	/* What the file has there later is new and zero, pinned or not. */
	g_assert_cmpint(mapping_truncate(m, HUGE_BYTES), ==, 0);
	file_expect(&file, HUGE_BYTES / 2, HUGE_BYTES / 2, 0);
	file_expect(&file, 0, HUGE_BYTES / 2, 'l');
	file_fill(&file, HUGE_BYTES / 2, PAGE, 'm');
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 512);
	/* The folio is there, but not all of its pages are: populating makes them. */
	memory_stat(&m->memory, &st);
	g_assert_cmpint(st.st_blocks, ==, 257 * 8);
	g_assert_cmpint(mapping_populate(m, 0, HUGE_BYTES), ==, 0);
	file_check(&file);
	mapping_unpin_range(m, pins);
	g_assert_false(mapping_may_be_pinned(m));
	/* Whole, it is cut off like any other. */
	g_assert_cmpint(mapping_pin_range(m, 0, HUGE_BYTES, &pins), ==, 0);
	g_assert_cmpint(mapping_truncate(m, 0), ==, 0);
	g_assert_false(mapping_pins_attached(pins));
	g_assert_false(mapping_may_be_pinned(m));
	file_check(&file);
	mapping_unpin_range(m, pins);
	file_close(&file);
}

struct unpinner {
	struct mapping *mapping;
	struct mapping_pins *pins;
	enum { BY_UNPIN, BY_TRUNCATE } how;
};

static void *unpin_later(void *data)
{
	struct unpinner *u = data;

	g_usleep(20000);
	if (u->how == BY_UNPIN)
		mapping_unpin_range(u->mapping, u->pins);
	else
		g_assert_cmpint(mapping_truncate(u->mapping, 0), ==, 0);
	return NULL;
}

/* The last unpin wakes at once; so does cutting the pinned pages off. */
static void test_wait(void)
{
	for (int how = BY_UNPIN; how <= BY_TRUNCATE; how++) {
		struct file file;
		struct unpinner u = { .mapping = &file.mapping, .how = how };
		pthread_t thread;
		int64_t begin;

		file_open(&file, 0, false);
		file_fill(&file, 0, 100 * PAGE, 'w');
		g_assert_cmpint(mapping_pin_range(&file.mapping, 0, 10 * PAGE, &u.pins), ==, 0);
		begin = clock_now_ms();
		g_assert_cmpint(mapping_wait_for_pins(&file.mapping, begin + 10), ==, -EBUSY);
		g_assert_cmpint(clock_now_ms() - begin, >=, 10);
		g_assert_cmpint(pthread_create(&thread, NULL, unpin_later, &u), ==, 0);
		g_assert_cmpint(mapping_wait_for_pins(&file.mapping, how ? -1 : begin + 30000), ==,
				0);
		g_assert_cmpint(clock_now_ms() - begin, <, 20000);
		pthread_join(thread, NULL);
		if (how == BY_TRUNCATE)
			mapping_unpin_range(&file.mapping, u.pins);
		file_check(&file);
		file_close(&file);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *path;
		void (*test)(void);
	} tests[] = {
		{ "/folio/counts", test_counts },
		{ "/folio/false-positive", test_false_positive },
		{ "/folio/overflow", test_overflow },
		{ "/folio/freeze", test_freeze },
#ifdef CACHET_FOLIO_DEBUG
		{ "/folio/names", test_names },
#endif
		{ "/folio/lookup", test_lookup },
		{ "/pins/range", test_pin_range },
		{ "/pins/no-space", test_pin_nospace },
		{ "/pins/overflow", test_pin_overflow },
		{ "/pins/splits", test_pin_splits },
		{ "/pins/truncate-below", test_truncate_below_pin },
		{ "/pins/wait", test_wait },
	}, bugs[] = {
		{ "/folio/bug/put", bug_put },
		{ "/folio/bug/unpin-large", bug_unpin_large },
		{ "/folio/bug/unpin-small", bug_unpin_small },
		{ "/folio/bug/last-in-tree", bug_last_in_tree },
		{ "/folio/bug/transition", bug_transition },
		{ "/folio/bug/free-held", bug_free_held },
	};

	g_test_init(&argc, &argv, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
		g_test_add_data_func(tests[i].path, (gconstpointer)tests[i].test, without_leaks);
	for (size_t i = 0; i < G_N_ELEMENTS(bugs); i++)
		g_test_add_data_func(bugs[i].path, (gconstpointer)bugs[i].test, test_bug);
	return g_test_run();
}
