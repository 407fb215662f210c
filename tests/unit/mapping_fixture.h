/* SPDX-License-Identifier: MIT */
/* A mapping with a budget of its own, and what must hold whenever nothing is under way. */
#pragma once

#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rcu.h"
#include "cache/mapping.h"
#include "cache/mapping_pins.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define PAGE ((size_t)PAGE_BYTES)
#define HUGE_BYTES ((size_t)2 << 20)

struct file {
	struct mapping mapping;
	struct reservation budget;
};

static inline void file_open(struct file *file, uint64_t limit, bool shared)
{
	reservation_init(&file->budget, limit);
	g_assert_cmpint(mapping_init(&file->mapping, &file->budget, shared), ==, 0);
}

static inline void file_close(struct file *file)
{
	mapping_destroy(&file->mapping);
	g_assert_cmpuint(atomic_load(&file->budget.used), ==, 0);
	g_assert_cmpuint(atomic_load(&file->budget.huge), ==, 0);
}

/* Pages in the tree, counted one by one, each folio at its place. */
static inline uint64_t file_count(struct file *file, enum xarray_mark mark)
{
	struct folio *folio;
	uint64_t index = 0, pages = 0;
	unsigned order;

	xarray_lock(&file->mapping.folios);
	xarray_for_each(&file->mapping.folios, index, XARRAY_INDEX_MAX, mark, order, folio) {
		g_assert_cmpuint(index, ==, folio->index);
		g_assert_cmpuint(order, ==, folio->order);
		g_assert_cmpuint(index & (folio_pages(folio) - 1), ==, 0);
		g_assert_cmpint(folio_state(folio), ==, FOLIO_CACHED);
		g_assert_true(atomic_load(&folio->mapping) == &file->mapping);
		pages += folio_pages(folio);
	}
	xarray_unlock(&file->mapping.folios);
	return pages;
}

/* Tree, accounting and memory say the same. */
static inline void file_check(struct file *file)
{
	uint64_t pages = file_count(file, XARRAY_PRESENT);
	struct stat st;

	memory_stat(&file->mapping.memory, &st);
	g_assert_cmpuint(pages, ==, atomic_load(&file->mapping.nr_pages));
	g_assert_cmpuint(pages, ==, atomic_load(&file->budget.used));
	g_assert_cmpuint(atomic_load(&file->mapping.nr_huge), ==, atomic_load(&file->budget.huge));
	g_assert_cmpuint(mapping_size(&file->mapping), ==, (uint64_t)st.st_size);
	if (!file->mapping.shared)
		g_assert_cmpuint(pages, ==, (uint64_t)st.st_blocks / 8);
}

/* Length of the file's contents, which the caller frees. */
static inline size_t file_contents(struct file *file, char **contents)
{
	size_t size = (size_t)mapping_size(&file->mapping);

	*contents = g_malloc(size + 1);
	g_assert_cmpint(mapping_read(&file->mapping, *contents, size, 0), ==, (ssize_t)size);
	return size;
}

static inline void file_fill(struct file *file, uint64_t offset, size_t length, char byte)
{
	char *data = g_malloc(length);

	memset(data, byte, length);
	g_assert_cmpint(mapping_write(&file->mapping, data, length, offset), ==, (ssize_t)length);
	g_free(data);
}

/* All bytes of a range are @byte. */
static inline void file_expect(struct file *file, uint64_t offset, size_t length, char byte)
{
	char *data = g_malloc(length);

	memset(data, ~byte, length);
	g_assert_cmpint(mapping_read(&file->mapping, data, length, offset), ==, (ssize_t)length);
	for (size_t i = 0; i < length; i++)
		if (data[i] != byte)
			g_error("byte %zu is %d, not %d", (size_t)offset + i, data[i], byte);
	g_free(data);
}

static inline unsigned file_order_at(struct file *file, uint64_t page)
{
	struct folio *folio = mapping_get_folio(&file->mapping, page, "test");
	unsigned order = folio ? folio->order : 99;

	if (folio)
		folio_put(folio, "test");
	return order;
}

/* A test, for g_test_add_data_func(), that leaves no memory and no named reference behind. */
static inline void without_leaks(gconstpointer test)
{
	mem_test_begin(0);
	((void (*)(void))test)();
	rcu_barrier();
	g_assert_cmpint(mem_test_end(NULL), ==, 0);
	g_assert_cmpint(folio_debug_report(NULL, NULL), ==, 0);
}
