/* SPDX-License-Identifier: MIT */
/* Small folios and small pages become huge ones, unless somebody holds one of them. */
#include "mapping_fixture.h"

#include <errno.h>

/* Kernels before 6.1, or without huge pages, cannot: then there is nothing to test. */
static bool kernel_can(void)
{
	struct memory memory;
	bool can;

	memory_init(&memory);
	g_assert_cmpint(memory_resize(&memory, HUGE_BYTES), ==, 0);
	g_assert_cmpint(memory_allocate(&memory, 0, HUGE_BYTES), ==, 0);
	can = memory_collapse(&memory, 0, HUGE_BYTES) == 0;
	memory_destroy(&memory);
	if (!can)
		g_test_skip("the kernel does not collapse memfds");
	return can;
}

/*
 * Collapse the whole file. The kernel itself, and whoever watches its memory, may hold a page for a
 * moment: who wanted more comes again. Return: as mapping_collapse_range(), in the end.
 */
static long file_collapse(struct file *file, long wanted, long *failed)
{
	for (unsigned tries = 0;; tries++) {
		long done = mapping_collapse_range(&file->mapping, 0, UINT64_MAX, NULL, failed);

		if (done >= wanted || tries == 100)
			return done;
		g_usleep(10000);
	}
}

/* A file whose folios are small, though it is written whole. */
static void file_fill_small(struct file *file, uint64_t pages)
{
	for (uint64_t i = pages; i-- > 0;) {
		char data[PAGE];

		memset(data, (int)(i % 251 + 1), PAGE);
		g_assert_cmpint(mapping_write(&file->mapping, data, PAGE, i * PAGE), ==,
				(ssize_t)PAGE);
	}
	if (!file->mapping.shared)
		g_assert_cmpuint(file_order_at(file, 0), ==, 0);
}

static void file_expect_small(struct file *file, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++)
		file_expect(file, i * PAGE, PAGE, (char)(i % 251 + 1));
}

static void test_collapse(void)
{
	struct file file;
	struct mapping *m = &file.mapping;
	long failed;

	if (!kernel_can())
		return;
	for (unsigned shared = 0; shared < 2; shared++) {
		file_open(&file, 0, shared);
		file_fill_small(&file, 3 * 512 + 100);
		g_assert_cmpint(mapping_collapse_range(m, 0, UINT64_MAX, NULL, &failed), ==,
				-EPERM);
		g_assert_cmpint(mapping_add_seals(m, F_SEAL_WRITE), ==, 0);
		/* Ends that are no whole range are left alone. */
		g_assert_cmpint(mapping_collapse_range(m, PAGE, HUGE_BYTES, NULL, &failed), ==, 0);
		g_assert_cmpint(failed, ==, 0);
		g_assert_cmpint(file_collapse(&file, 3, &failed), ==, 3);
		g_assert_cmpint(failed, ==, 0);
		g_assert_cmpuint(atomic_load(&m->nr_huge), ==, 3 * 512);
		for (unsigned i = 0; i < 3; i++)
			g_assert_cmpuint(file_order_at(&file, i * 512 + 77), ==, 9);
		if (!shared)
			g_assert_cmpuint(file_order_at(&file, 3 * 512), ==, 0);
		file_expect_small(&file, 3 * 512 + 100);
		file_check(&file);
		/* Dirty before, dirty after. */
		if (!shared)
			g_assert_cmpuint(file_count(&file, (enum xarray_mark)FOLIO_MARK_DIRTY), ==,
					 3 * 512 + 100);
		/* Once more changes nothing. */
		g_assert_cmpint(file_collapse(&file, 3, NULL), ==, 3);
		g_assert_cmpuint(atomic_load(&m->nr_huge), ==, 3 * 512);
		/* Not sealed against shrinking: a huge folio is cut. */
		g_assert_cmpint(mapping_truncate(m, HUGE_BYTES + 5 * PAGE), ==, 0);
		g_assert_cmpuint(atomic_load(&m->nr_huge), ==, 512);
		file_expect_small(&file, 512 + 5);
		file_check(&file);
		file_close(&file);
	}
}

/* Large folios of large writes stay; only the memory follows. */
static void test_large_already(void)
{
	struct file file;
	struct folio *folio;

	if (!kernel_can())
		return;
	file_open(&file, 0, false);
	file_fill(&file, 0, 2 * HUGE_BYTES, 'l');
	folio = mapping_get_folio(&file.mapping, 0, "test");
	folio_put(folio, "test");
	g_assert_cmpint(mapping_add_seals(&file.mapping, F_SEAL_WRITE), ==, 0);
	g_assert_cmpuint(atomic_load(&file.mapping.nr_huge), ==, 0);
	g_assert_cmpint(file_collapse(&file, 2, NULL), ==, 2);
	g_assert_cmpuint(atomic_load(&file.mapping.nr_huge), ==, 1024);
	g_assert_true(xarray_load(&file.mapping.folios, 0) == folio);
	file_expect(&file, 0, 2 * HUGE_BYTES, 'l');
	file_check(&file);
	file_close(&file);
}

static void test_held(void)
{
	struct file file;
	struct mapping *m = &file.mapping;
	struct mapping_pins *pins;
	struct folio *folio;
	long failed;

	if (!kernel_can())
		return;
	file_open(&file, 0, false);
	file_fill_small(&file, 3 * 512);
	g_assert_cmpint(mapping_pin_range(m, 700 * PAGE, PAGE, &pins), ==, 0);
	folio = mapping_get_folio(m, 3 * 512 - 1, "test");
	g_assert_cmpint(mapping_add_seals(m, F_SEAL_WRITE), ==, 0);
	g_assert_cmpint(file_collapse(&file, 1, &failed), ==, 1);
	g_assert_cmpint(failed, ==, 2);
	/* As if nothing had been tried. */
	g_assert_cmpuint(file_order_at(&file, 0), ==, 9);
	for (uint64_t i = 512; i < 3 * 512; i++)
		g_assert_cmpuint(file_order_at(&file, i), ==, 0);
	g_assert_true(mapping_pins_intact(pins));
	g_assert_true(mapping_may_be_pinned(m));
	g_assert_true(xarray_load(&m->folios, 3 * 512 - 1) == folio);
	file_check(&file);
	folio_put(folio, "test");
	g_assert_cmpint(file_collapse(&file, 2, &failed), ==, 2);
	mapping_unpin_range(m, pins);
	g_assert_cmpint(file_collapse(&file, 3, &failed), ==, 3);
	g_assert_cmpint(failed, ==, 0);
	file_expect_small(&file, 3 * 512);
	file_check(&file);
	file_close(&file);
}

/* A reference that only the kernel knows: a page that waits in a pipe. */
static void test_held_by_kernel(void)
{
	struct file file;
	struct mapping *m = &file.mapping;
	loff_t offset = 700 * PAGE;
	long failed;
	int fds[2];

	if (!kernel_can())
		return;
	file_open(&file, 0, false);
	file_fill_small(&file, 3 * 512);
	g_assert_cmpint(mapping_add_seals(m, F_SEAL_WRITE), ==, 0);
	g_assert_cmpint(pipe(fds), ==, 0);
	g_assert_cmpint(splice(mapping_fd(m), &offset, fds[1], NULL, PAGE, 0), ==, (ssize_t)PAGE);
	g_assert_cmpint(file_collapse(&file, 2, &failed), ==, 2);
	g_assert_cmpint(failed, ==, 1);
	g_assert_cmpuint(file_order_at(&file, 511), ==, 9);
	g_assert_cmpuint(file_order_at(&file, 512), ==, 0);
	g_assert_cmpuint(file_order_at(&file, 1024), ==, 9);
	file_check(&file);
	close(fds[0]);
	close(fds[1]);
	g_assert_cmpint(file_collapse(&file, 3, &failed), ==, 3);
	file_expect_small(&file, 3 * 512);
	file_check(&file);
	file_close(&file);
}

static void test_holes(void)
{
	struct file file;
	long failed;

	if (!kernel_can())
		return;
	for (unsigned shared = 0; shared < 2; shared++) {
		file_open(&file, 0, shared);
		file_fill_small(&file, 2 * 512);
		g_assert_cmpint(mapping_punch(&file.mapping, 5 * PAGE, PAGE), ==, 0);
		g_assert_cmpint(mapping_add_seals(&file.mapping, F_SEAL_WRITE), ==, 0);
		g_assert_cmpint(file_collapse(&file, 1, &failed), ==, 1);
		g_assert_cmpint(failed, ==, 1);
		/* A hole stays a hole. */
		g_assert_cmpuint(atomic_load(&file.mapping.nr_pages), ==, 1023);
		file_check(&file);
		g_assert_cmpint(mapping_populate(&file.mapping, 0, UINT64_MAX), ==, 0);
		g_assert_cmpint(file_collapse(&file, 2, &failed), ==, 2);
		file_expect(&file, 5 * PAGE, PAGE, 0);
		file_expect(&file, 6 * PAGE, PAGE, 7);
		file_check(&file);
		file_close(&file);
	}
}

static unsigned asked, give_up_at;

static bool still_wanted(struct mapping *mapping)
{
	g_assert_nonnull(mapping);
	return ++asked != give_up_at;
}

/* Regression: a sealed file of nearly 2^63 bytes kept the collapser busy for ever. */
static void test_sparse(void)
{
	const uint64_t far = UINT64_C(1) << 60;
	struct file file;

	if (!kernel_can())
		return;
	for (unsigned shared = 0; shared < 2; shared++) {
		file_open(&file, 0, shared);
		file_fill(&file, 0, HUGE_BYTES, 'n');
		file_fill(&file, far, HUGE_BYTES, 'f');
		g_assert_cmpint(mapping_truncate(&file.mapping, INT64_MAX), ==, 0);
		g_assert_cmpint(mapping_add_seals(&file.mapping, F_SEAL_WRITE), ==, 0);
		asked = give_up_at = 0;
		g_assert_cmpint(mapping_collapse_range(&file.mapping, 0, UINT64_MAX, still_wanted,
						       NULL),
				<=, 2);
		g_assert_cmpuint(asked, ==, 2);
		g_assert_cmpint(file_collapse(&file, 2, NULL), ==, 2);
		g_assert_cmpuint(atomic_load(&file.mapping.nr_huge), ==, 1024);
		file_expect(&file, far, HUGE_BYTES, 'f');
		file_check(&file);
		file_close(&file);
	}
}

static void test_unwanted(void)
{
	struct file file;

	if (!kernel_can())
		return;
	file_open(&file, 0, false);
	file_fill(&file, 0, 24 * HUGE_BYTES, 'u');
	g_assert_cmpint(mapping_add_seals(&file.mapping, F_SEAL_WRITE), ==, 0);
	asked = 0;
	give_up_at = 2;
	g_assert_cmpint(mapping_collapse_range(&file.mapping, 0, UINT64_MAX, still_wanted, NULL),
			<, 24);
	g_assert_cmpuint(asked, ==, 2);
	file_check(&file);
	file_close(&file);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *path;
		void (*test)(void);
	} tests[] = {
		{ "/collapse/small", test_collapse },
		{ "/collapse/large-already", test_large_already },
		{ "/collapse/held", test_held },
		{ "/collapse/held-by-kernel", test_held_by_kernel },
		{ "/collapse/holes", test_holes },
		{ "/collapse/sparse", test_sparse },
		{ "/collapse/unwanted", test_unwanted },
	};

	g_test_init(&argc, &argv, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
		g_test_add_data_func(tests[i].path, (gconstpointer)tests[i].test, without_leaks);
	return g_test_run();
}
