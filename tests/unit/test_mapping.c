/* SPDX-License-Identifier: MIT */
/* Operations of a mapping, one by one: contents, size, accounting, seals, errors. */
#include "mapping_fixture.h"

#include <errno.h>

static void test_empty(void)
{
	struct file file;
	char byte;
	int fd;

	file_open(&file, 0, false);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, 0);
	g_assert_cmpint(mapping_read(&file.mapping, &byte, 1, 0), ==, 0);
	g_assert_cmpint(mapping_read_begin(&file.mapping, 0, 1, &fd), ==, 0);
	g_assert_cmpint(mapping_seek(&file.mapping, 0, SEEK_DATA), ==, -ENXIO);
	g_assert_cmpint(mapping_seek(&file.mapping, 0, 77), ==, -EINVAL);
	/* An empty file costs no descriptor. */
	g_assert_cmpint(atomic_load(&file.mapping.memory.fd), ==, -1);
	file_check(&file);
	file_close(&file);
}

static void test_write_read(void)
{
	struct file file;

	file_open(&file, 0, false);
	file_fill(&file, 0, 100, 'a');
	g_assert_cmpuint(mapping_size(&file.mapping), ==, 100);
	file_check(&file);
	file_fill(&file, 50, 5000, 'b');
	g_assert_cmpuint(mapping_size(&file.mapping), ==, 5050);
	file_expect(&file, 0, 50, 'a');
	file_expect(&file, 50, 5000, 'b');
	file_check(&file);
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 2);
	/* Everything that was written is marked. */
	g_assert_cmpuint(file_count(&file, (enum xarray_mark)FOLIO_MARK_DIRTY), ==, 2);
	g_assert_cmpuint(file_count(&file, (enum xarray_mark)FOLIO_MARK_PINNED), ==, 0);
	file_close(&file);
}

static void test_append(void)
{
	struct file file;
	struct mapping_write write;

	file_open(&file, 0, false);
	file_fill(&file, 0, 10, 'a');
	g_assert_cmpint(mapping_write_begin(&file.mapping, &write, 3, 4, true), ==, 0);
	g_assert_cmpuint(write.offset, ==, 10);
	g_assert_cmpint(pwrite(write.fd, "bbbb", 4, (off_t)write.offset), ==, 4);
	g_assert_cmpint(mapping_write_end(&file.mapping, &write, 4), ==, 4);
	file_expect(&file, 0, 10, 'a');
	file_expect(&file, 10, 4, 'b');
	file_check(&file);
	file_close(&file);
}

static void test_sparse(void)
{
	struct file file;
	const uint64_t far = UINT64_C(1) << 40;
	int fd;

	file_open(&file, 0, false);
	file_fill(&file, far, 1, 'x');
	g_assert_cmpuint(mapping_size(&file.mapping), ==, far + 1);
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 1);
	file_check(&file);
	/* A range without pages needs no memory to be read from. */
	g_assert_cmpint(mapping_read_begin(&file.mapping, 0, 1 << 20, &fd), ==, 1 << 20);
	g_assert_cmpint(fd, ==, -1);
	g_assert_cmpint(mapping_read_begin(&file.mapping, far - 1, 100, &fd), ==, 2);
	g_assert_cmpint(fd, >=, 0);
	file_expect(&file, 0, 1 << 20, 0);
	g_assert_cmpint(mapping_seek(&file.mapping, 0, SEEK_DATA), ==, (int64_t)far);
	g_assert_cmpint(mapping_seek(&file.mapping, 0, SEEK_HOLE), ==, 0);
	g_assert_cmpint(mapping_seek(&file.mapping, far + 1, SEEK_DATA), ==, -ENXIO);
	file_close(&file);
}

static void test_large_folios(void)
{
	struct file file;

	file_open(&file, 0, false);
	file_fill(&file, 0, 3 * HUGE_BYTES / 2, 'l');
	g_assert_cmpuint(file_order_at(&file, 0), ==, 9);
	g_assert_cmpuint(file_order_at(&file, 511), ==, 9);
	g_assert_cmpuint(file_order_at(&file, 512), ==, 8);
	g_assert_cmpuint(file_order_at(&file, 768), ==, 99);
	/* Aligned, not only large: what begins in the middle begins small. */
	file_fill(&file, 4 * HUGE_BYTES + PAGE, HUGE_BYTES, 'm');
	g_assert_cmpuint(file_order_at(&file, 2049), ==, 0);
	g_assert_cmpuint(file_order_at(&file, 2050), ==, 1);
	g_assert_cmpuint(file_order_at(&file, 2304), ==, 8);
	g_assert_cmpuint(file_order_at(&file, 2560), ==, 0);
	file_check(&file);
	file_close(&file);
}

static void test_truncate(void)
{
	struct file file;

	file_open(&file, 0, false);
	file_fill(&file, 0, 2 * HUGE_BYTES, 't');
	/* Through the middle of a large folio, and of a page. */
	g_assert_cmpint(mapping_truncate(&file.mapping, HUGE_BYTES + 5 * PAGE + 7), ==, 0);
	file_check(&file);
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 512 + 6);
	g_assert_cmpint(mapping_truncate(&file.mapping, 2 * HUGE_BYTES), ==, 0);
	file_expect(&file, 0, HUGE_BYTES + 5 * PAGE + 7, 't');
	file_expect(&file, HUGE_BYTES + 5 * PAGE + 7, HUGE_BYTES - 5 * PAGE - 7, 0);
	file_check(&file);
	g_assert_cmpint(mapping_truncate(&file.mapping, 0), ==, 0);
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 0);
	g_assert_true(xarray_empty(&file.mapping.folios));
	file_check(&file);
	file_close(&file);
}

static void test_punch(void)
{
	struct file file;

	file_open(&file, 0, false);
	file_fill(&file, 0, HUGE_BYTES, 'p');
	g_assert_cmpint(mapping_punch(&file.mapping, 3 * PAGE + 10, 10 * PAGE), ==, 0);
	file_expect(&file, 0, 3 * PAGE + 10, 'p');
	file_expect(&file, 3 * PAGE + 10, 10 * PAGE, 0);
	file_expect(&file, 13 * PAGE + 10, HUGE_BYTES - 13 * PAGE - 10, 'p');
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 512 - 9);
	file_check(&file);
	/* Inside one page, past the end, and far too long. */
	g_assert_cmpint(mapping_punch(&file.mapping, 100, 10), ==, 0);
	file_expect(&file, 100, 10, 0);
	g_assert_cmpint(mapping_punch(&file.mapping, HUGE_BYTES, 10 * PAGE), ==, 0);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, HUGE_BYTES);
	file_check(&file);
	g_assert_cmpint(mapping_punch(&file.mapping, PAGE, UINT64_MAX), ==, 0);
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 1);
	file_check(&file);
	file_close(&file);
}

static void test_allocate_zero(void)
{
	struct file file;

	file_open(&file, 0, false);
	g_assert_cmpint(mapping_allocate(&file.mapping, PAGE, 3 * PAGE + 1, true), ==, 0);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, 0);
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 4);
	file_check(&file);
	g_assert_cmpint(mapping_allocate(&file.mapping, 0, 100, false), ==, 0);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, 100);
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 5);
	/* Unwritten pages are holes for SEEK_DATA, and charged all the same. */
	g_assert_cmpint(mapping_truncate(&file.mapping, 8 * PAGE), ==, 0);
	file_check(&file);

	file_fill(&file, 0, 8 * PAGE, 'z');
	g_assert_cmpint(mapping_zero(&file.mapping, 10, 2 * PAGE, true), ==, 0);
	file_expect(&file, 0, 10, 'z');
	file_expect(&file, 10, 2 * PAGE, 0);
	file_expect(&file, 10 + 2 * PAGE, 6 * PAGE - 10, 'z');
	g_assert_cmpint(mapping_zero(&file.mapping, 8 * PAGE - 1, 2, true), ==, 0);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, 8 * PAGE);
	g_assert_cmpint(mapping_zero(&file.mapping, 8 * PAGE - 1, 3 * PAGE, false), ==, 0);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, 11 * PAGE - 1);
	file_expect(&file, 8 * PAGE - 1, 3 * PAGE, 0);
	file_check(&file);
	file_close(&file);
}

static void test_nospace(void)
{
	struct file file;
	char data[8 * PAGE];
	char *before, *after;

	memset(data, 'n', sizeof(data));
	file_open(&file, 4, false);
	file_fill(&file, 100, 1, 'o');
	size_t size = file_contents(&file, &before);

	/* All or nothing. */
	g_assert_cmpint(mapping_allocate(&file.mapping, 0, 5 * PAGE, false), ==, -ENOSPC);
	g_assert_cmpint(mapping_zero(&file.mapping, 0, 5 * PAGE, false), ==, -ENOSPC);
	g_assert_cmpuint(file_contents(&file, &after), ==, size);
	g_assert_cmpmem(before, size, after, size);
	g_free(after);
	file_check(&file);
	/* A write is cut to what there is. */
	g_assert_cmpint(mapping_write(&file.mapping, data, sizeof(data), 10), ==, 4 * PAGE - 10);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, 4 * PAGE);
	file_check(&file);
	g_assert_cmpint(mapping_write(&file.mapping, data, 1, 4 * PAGE), ==, -ENOSPC);
	g_assert_cmpint(mapping_write(&file.mapping, data, 1, 99 * PAGE), ==, -ENOSPC);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, 4 * PAGE);
	/* Holes cost nothing; what exists can be overwritten. */
	g_assert_cmpint(mapping_truncate(&file.mapping, 100 * PAGE), ==, 0);
	g_assert_cmpint(mapping_populate(&file.mapping, 0, 100 * PAGE), ==, -ENOSPC);
	file_fill(&file, 0, 4 * PAGE, 'p');
	file_check(&file);
	/* What is given back can be used. */
	g_assert_cmpint(mapping_punch(&file.mapping, 0, PAGE), ==, 0);
	file_fill(&file, 50 * PAGE, PAGE, 'q');
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 4);
	file_check(&file);
	g_free(before);
	file_close(&file);
}

static void test_limits(void)
{
	struct file file;
	struct mapping *m = &file.mapping;
	const uint64_t max = MAPPING_SIZE_MAX;

	file_open(&file, 0, false);
	g_assert_cmpint(mapping_truncate(m, max + 1), ==, -EFBIG);
	g_assert_cmpint(mapping_truncate(m, UINT64_MAX), ==, -EFBIG);
	g_assert_cmpint(mapping_write(m, "x", 1, max), ==, -EFBIG);
	g_assert_cmpint(mapping_write(m, "x", 1, UINT64_MAX), ==, -EFBIG);
	g_assert_cmpint(mapping_allocate(m, max, 1, false), ==, -EFBIG);
	g_assert_cmpint(mapping_allocate(m, UINT64_MAX, UINT64_MAX, true), ==, -EFBIG);
	g_assert_cmpint(mapping_allocate(m, 0, 0, true), ==, -EINVAL);
	g_assert_cmpint(mapping_zero(m, max, 2, false), ==, -EFBIG);
	g_assert_cmpint(mapping_punch(m, UINT64_MAX, UINT64_MAX), ==, 0);
	g_assert_cmpint(mapping_punch(m, 0, UINT64_MAX), ==, 0);
	/* More than any machine has: refused before the machine notices. */
	g_assert_cmpint(mapping_allocate(m, 0, max, true), ==, -ENOSPC);
	g_assert_cmpuint(mapping_size(m), ==, 0);
	file_check(&file);
	/* The last byte that a file can have. */
	g_assert_cmpint(mapping_write(m, "xy", 2, max - 1), ==, 1);
	g_assert_cmpuint(mapping_size(m), ==, max);
	file_check(&file);
	g_assert_cmpint(mapping_populate(m, 0, max), ==, -ENOSPC);
	g_assert_cmpint(mapping_populate(m, max - 1, UINT64_MAX), ==, 0);
	file_expect(&file, max - 1, 1, 'x');
	g_assert_cmpint(mapping_truncate(m, 0), ==, 0);
	file_check(&file);
	file_close(&file);
}

static void test_write_undone(void)
{
	struct file file;
	struct mapping_write write;
	char data[PAGE];

	memset(data, 'u', sizeof(data));
	file_open(&file, 0, false);
	file_fill(&file, 0, PAGE, 'a');

	/* Nothing copied, past the end. */
	g_assert_cmpint(mapping_write_begin(&file.mapping, &write, PAGE, 2 * HUGE_BYTES, false), ==,
			0);
	g_assert_cmpint(mapping_write_end(&file.mapping, &write, -EIO), ==, -EIO);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, PAGE);
	file_check(&file);

	/* A part, which ends within a large folio. */
	g_assert_cmpint(mapping_write_begin(&file.mapping, &write, HUGE_BYTES, HUGE_BYTES, false),
			==, 0);
	for (unsigned i = 0; i < 3; i++)
		g_assert_cmpint(pwrite(write.fd, data, PAGE, (off_t)(HUGE_BYTES + i * PAGE)), ==,
				(ssize_t)PAGE);
	g_assert_cmpint(mapping_write_end(&file.mapping, &write, 3 * PAGE), ==, 3 * PAGE);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, HUGE_BYTES + 3 * PAGE);
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 4);
	file_check(&file);

	/* Inside the end, into a hole, with the lock held shared. */
	g_assert_cmpint(mapping_write_begin(&file.mapping, &write, 8 * PAGE, 5 * PAGE, false), ==,
			0);
	g_assert_cmpint(mapping_write_end(&file.mapping, &write, 0), ==, 0);
	g_assert_cmpuint(atomic_load(&file.budget.used), ==, 4);
	file_check(&file);

	/* Bytes that arrived before the copy failed are outside of the file again. */
	g_assert_cmpint(mapping_write_begin(&file.mapping, &write, 4 * HUGE_BYTES, PAGE, false), ==,
			0);
	g_assert_cmpint(pwrite(write.fd, data, PAGE, 4 * HUGE_BYTES), ==, (ssize_t)PAGE);
	g_assert_cmpint(mapping_write_end(&file.mapping, &write, -EIO), ==, -EIO);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, HUGE_BYTES + 3 * PAGE);
	file_check(&file);

	/* A length of nothing. */
	g_assert_cmpint(mapping_write(&file.mapping, data, 0, 77 * HUGE_BYTES), ==, 0);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, HUGE_BYTES + 3 * PAGE);
	file_check(&file);
	file_close(&file);
}

static void test_copy_range(void)
{
	struct file from, to;

	file_open(&from, 0, false);
	file_open(&to, 0, false);
	file_fill(&from, 0, 3 * PAGE, 'c');
	file_fill(&from, 10 * PAGE, PAGE, 'd');
	g_assert_cmpint(mapping_copy_range(&from.mapping, PAGE + 5, &to.mapping, 100, 1 << 30), ==,
			10 * PAGE - 5);
	g_assert_cmpuint(mapping_size(&to.mapping), ==, 10 * PAGE - 5 + 100);
	file_expect(&to, 0, 100, 0);
	file_expect(&to, 100, 2 * PAGE - 5, 'c');
	file_expect(&to, 100 + 2 * PAGE - 5, 7 * PAGE, 0);
	file_expect(&to, 100 + 9 * PAGE - 5, PAGE, 'd');
	file_check(&to);
	/* From a hole that has no pages at all. */
	g_assert_cmpint(mapping_truncate(&from.mapping, 100 * PAGE), ==, 0);
	g_assert_cmpint(mapping_copy_range(&from.mapping, 50 * PAGE, &to.mapping, 100, PAGE), ==,
			PAGE);
	file_expect(&to, 100, PAGE, 0);
	file_check(&to);
	/* Within one file. */
	g_assert_cmpint(mapping_copy_range(&from.mapping, 0, &from.mapping, PAGE - 1, PAGE), ==,
			-EINVAL);
	g_assert_cmpint(mapping_copy_range(&from.mapping, 0, &from.mapping, 5 * PAGE, PAGE), ==,
			PAGE);
	file_expect(&from, 5 * PAGE, PAGE, 'c');
	g_assert_cmpint(mapping_copy_range(&from.mapping, UINT64_MAX, &to.mapping, 0, PAGE), ==, 0);
	g_assert_cmpint(mapping_copy_range(&from.mapping, 0, &to.mapping, UINT64_MAX, PAGE), ==,
			-EFBIG);
	g_assert_cmpint(mapping_copy_range(&from.mapping, 0, &to.mapping, 0, 0), ==, 0);
	file_check(&from);
	file_close(&from);
	file_close(&to);
}

/* Every operation against every set of content seals. */
static void test_seals(void)
{
	for (unsigned bits = 0; bits < 32; bits++) {
		unsigned seals = (bits & 1 ? F_SEAL_SHRINK : 0) | (bits & 2 ? F_SEAL_GROW : 0) |
				 (bits & 4 ? F_SEAL_WRITE : 0) |
				 (bits & 8 ? F_SEAL_FUTURE_WRITE : 0) |
				 (bits & 16 ? F_SEAL_SEAL : 0);
		bool no_shrink = bits & 1, no_grow = bits & 2, no_write = bits & 12;

		for (unsigned shared = 0; shared < 2; shared++) {
			struct file file, source;
			struct mapping *m = &file.mapping;

			file_open(&file, 0, shared);
			file_open(&source, 0, false);
			file_fill(&source, 0, PAGE, 's');
			file_fill(&file, 0, 3 * PAGE + 10, 'a');
			g_assert_cmpint(mapping_add_seals(m, seals), ==, 0);
			g_assert_cmpuint(memory_seals(&m->memory), ==, seals);

			g_assert_cmpint(mapping_write(m, "bb", 2, 5), ==, no_write ? -EPERM : 2);
			/* Passing the end: what lies before it is still written. */
			g_assert_cmpint(mapping_write(m, "bbbb", 4, 3 * PAGE + 8), ==,
					no_write ? -EPERM : no_grow ? 2 : 4);
			g_assert_cmpint(mapping_write(m, "b", 1, 3 * PAGE + 20), ==,
					no_write || no_grow ? -EPERM : 1);
			g_assert_cmpint(mapping_copy_range(&source.mapping, 0, m, 0, 10), ==,
					no_write ? -EPERM : 10);
			g_assert_cmpint(mapping_punch(m, PAGE, PAGE), ==, no_write ? -EPERM : 0);
			g_assert_cmpint(mapping_zero(m, PAGE, 10, true), ==, no_write ? -EPERM : 0);
			g_assert_cmpint(mapping_zero(m, 5 * PAGE, PAGE, true), ==,
					no_write || no_grow ? -EPERM : 0);
			g_assert_cmpint(mapping_allocate(m, 0, PAGE, false), ==, 0);
			g_assert_cmpint(mapping_allocate(m, 6 * PAGE, PAGE, true), ==,
					no_grow ? -EPERM : 0);
			g_assert_cmpint(mapping_allocate(m, 6 * PAGE, PAGE, false), ==,
					no_grow ? -EPERM : 0);
			g_assert_cmpint(mapping_truncate(m, mapping_size(m) + PAGE), ==,
					no_grow ? -EPERM : 0);
			g_assert_cmpint(mapping_truncate(m, mapping_size(m)), ==, 0);
			g_assert_cmpint(mapping_truncate(m, 2 * PAGE), ==, no_shrink ? -EPERM : 0);
			g_assert_cmpint(mapping_populate(m, 0, UINT64_MAX), ==, 0);
			g_assert_cmpint(mapping_add_seals(m, F_SEAL_SHRINK), ==,
					bits & 16 ? -EPERM : 0);
			if (no_write && no_shrink) {
				file_expect(&file, 0, 3 * PAGE + 10, 'a');
			}
			file_check(&file);
			file_close(&file);
			file_close(&source);
		}
	}
}

static void test_seals_odd(void)
{
	struct file file;

	file_open(&file, 0, false);
	g_assert_cmpint(mapping_add_seals(&file.mapping, 0x20), ==, -EINVAL);
	g_assert_cmpint(mapping_add_seals(&file.mapping, 0x8000), ==, -EINVAL);
	g_assert_cmpuint(memory_seals(&file.mapping.memory), ==, 0);
	/* An empty file can be sealed, and stays so. */
	g_assert_cmpint(mapping_add_seals(&file.mapping, F_SEAL_WRITE), ==, 0);
	g_assert_cmpint(mapping_write(&file.mapping, "x", 1, 0), ==, -EPERM);
	file_check(&file);
	file_close(&file);
}

/* The memory refuses a little earlier than the mapping does: the write vanishes without trace. */
static void test_seal_meets_write(void)
{
	struct file file;
	struct mapping_write write;

	file_open(&file, 0, false);
	file_fill(&file, 0, PAGE, 'a');
	g_assert_cmpint(mapping_truncate(&file.mapping, 9 * PAGE), ==, 0);
	g_assert_cmpint(mapping_write_begin(&file.mapping, &write, 0, 4 * PAGE, false), ==, 0);
	g_assert_cmpint(memory_add_seals(&file.mapping.memory, F_SEAL_WRITE), ==, 0);
	g_assert_cmpint(pwrite(write.fd, "b", 1, 0), ==, -1);
	g_assert_cmpint(mapping_write_end(&file.mapping, &write, -EPERM), ==, -EPERM);
	file_check(&file);
	file_expect(&file, 0, PAGE, 'a');
	g_assert_cmpint(mapping_write(&file.mapping, "bb", 2, 2 * PAGE), ==, -EPERM);
	g_assert_cmpint(mapping_punch(&file.mapping, 0, PAGE), ==, -EPERM);
	g_assert_cmpint(mapping_zero(&file.mapping, 0, PAGE, true), ==, -EPERM);
	file_expect(&file, 0, PAGE, 'a');
	file_check(&file);

	g_assert_cmpint(memory_add_seals(&file.mapping.memory, F_SEAL_GROW | F_SEAL_SHRINK), ==, 0);
	g_assert_cmpint(mapping_truncate(&file.mapping, 5), ==, -EPERM);
	g_assert_cmpint(mapping_truncate(&file.mapping, 50 * PAGE), ==, -EPERM);
	g_assert_cmpint(mapping_allocate(&file.mapping, 40 * PAGE, PAGE, true), ==, -EPERM);
	g_assert_cmpuint(mapping_size(&file.mapping), ==, 9 * PAGE);
	file_check(&file);
	file_close(&file);
}

static void test_writable(void)
{
	struct file file;
	struct mapping *m = &file.mapping;

	file_open(&file, 0, true);
	g_assert_cmpint(mapping_map_writable(m), ==, 0);
	g_assert_cmpint(mapping_map_writable(m), ==, 0);
	g_assert_cmpint(mapping_deny_writable(m), ==, -EBUSY);
	mapping_unmap_writable(m);
	g_assert_cmpint(mapping_deny_writable(m), ==, -EBUSY);
	mapping_unmap_writable(m);
	g_assert_cmpint(mapping_deny_writable(m), ==, 0);
	g_assert_cmpint(mapping_deny_writable(m), ==, 0);
	g_assert_cmpint(mapping_map_writable(m), ==, -EPERM);
	mapping_allow_writable(m);
	g_assert_cmpint(mapping_map_writable(m), ==, -EPERM);
	mapping_allow_writable(m);
	g_assert_cmpint(mapping_map_writable(m), ==, 0);
	mapping_unmap_writable(m);
	file_close(&file);
}

static void test_shared(void)
{
	struct file file;
	struct mapping *m = &file.mapping;
	uint64_t size, blocks;
	struct timespec mtime;
	char data[PAGE];
	int fd;

	/* A budget that is far too small: clients make pages without asking. */
	file_open(&file, 1, true);
	memset(data, 's', sizeof(data));
	fd = mapping_fd(m);
	for (unsigned i = 0; i < 700; i++)
		g_assert_cmpint(pwrite(fd, data, PAGE, (off_t)((i + 3) * PAGE)), ==, (ssize_t)PAGE);
	g_assert_cmpuint(mapping_size(m), ==, 703 * PAGE);
	mapping_stat(m, &size, &blocks, &mtime);
	g_assert_cmpuint(size, ==, 703 * PAGE);
	g_assert_cmpuint(blocks, ==, 700 * 8);
	g_assert_cmpint(mtime.tv_sec, >, 0);
	g_assert_cmpuint(file_count(&file, XARRAY_PRESENT), ==, 0);
	file_expect(&file, 3 * PAGE, 700 * PAGE, 's');

	g_assert_cmpint(mapping_sync_from_memory(m, 0, UINT64_MAX), ==, 0);
	g_assert_cmpuint(file_count(&file, XARRAY_PRESENT), ==, 700);
	g_assert_cmpuint(file_order_at(&file, 256), ==, 8);
	file_check(&file);
	/* A client may drop pages by itself (MADV_REMOVE). */
	g_assert_cmpint(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 300 * PAGE, PAGE),
			==, 0);
	g_assert_cmpint(mapping_sync_from_memory(m, 256 * PAGE, 256 * PAGE), ==, 0);
	g_assert_cmpuint(file_count(&file, XARRAY_PRESENT), ==, 699);
	g_assert_cmpuint(file_order_at(&file, 300), ==, 99);
	file_check(&file);
	/* What we allocated stays known, though the memory says that it is a hole. */
	g_assert_cmpint(mapping_populate(m, 0, 703 * PAGE), ==, 0);
	g_assert_cmpint(mapping_sync_from_memory(m, 0, UINT64_MAX), ==, 0);
	g_assert_cmpuint(file_count(&file, XARRAY_PRESENT), ==, 703);
	g_assert_cmpint(mapping_truncate(m, 10 * PAGE), ==, 0);
	g_assert_cmpuint(file_count(&file, XARRAY_PRESENT), ==, 10);
	g_assert_cmpint(mapping_punch(m, 0, 5 * PAGE), ==, 0);
	g_assert_cmpuint(file_count(&file, XARRAY_PRESENT), ==, 5);
	file_check(&file);
	file_close(&file);
}

static void test_memory(void)
{
	struct memory memory;
	struct stat st;
	void *window;
	int fd;

	memory_init(&memory);
	memory_stat(&memory, &st);
	g_assert_cmpint(st.st_size, ==, 0);
	g_assert_cmpuint(memory_seals(&memory), ==, 0);
	g_assert_cmpint(memory_punch(&memory, 0, PAGE), ==, 0);
	fd = memory_require(&memory);
	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(memory_require(&memory), ==, fd);
	g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
	g_assert_cmpuint(memory_seals(&memory), ==, 0);
	g_assert_cmpint(memory_resize(&memory, 4 * HUGE_BYTES), ==, 0);
	g_assert_cmpint(memory_map(&memory, 0, PAGE, true, &window), ==, 0);
	strcpy(window, "hello");
	/* A writable window blocks the seal, a read-only one does not. */
	g_assert_cmpint(memory_add_seals(&memory, F_SEAL_WRITE), ==, -EBUSY);
	memory_unmap(window, PAGE);
	g_assert_cmpint(memory_map(&memory, 0, PAGE, false, &window), ==, 0);
	g_assert_cmpint(memory_add_seals(&memory, F_SEAL_WRITE), ==, 0);
	g_assert_cmpuint(memory_seals(&memory), ==, F_SEAL_WRITE);
	g_assert_cmpstr(window, ==, "hello");
	memory_unmap(window, PAGE);
	g_assert_cmpint(memory_map(&memory, 0, PAGE, true, &window), ==, -EPERM);
	g_assert_cmpint(memory_collapse(&memory, PAGE, HUGE_BYTES), ==, -EINVAL);
	g_assert_cmpint(memory_collapse(&memory, 0, 0), ==, -EINVAL);
	g_assert_cmpint(memory_seek(&memory, 0, SEEK_HOLE), ==, PAGE);
	g_assert_cmpint(memory_seek(&memory, PAGE, SEEK_DATA), ==, -ENXIO);
	memory_destroy(&memory);
	memory_destroy(&memory);
}

static void test_reservation(void)
{
	struct reservation budget;

	reservation_init(&budget, 10);
	g_assert_cmpint(reservation_take(&budget, 11), ==, -ENOSPC);
	g_assert_cmpint(reservation_take(&budget, UINT64_MAX), ==, -ENOSPC);
	g_assert_cmpint(reservation_take(&budget, 8), ==, 0);
	g_assert_cmpint(reservation_take(&budget, 3), ==, -ENOSPC);
	g_assert_cmpuint(reservation_take_some(&budget, 3), ==, 2);
	g_assert_cmpuint(reservation_take_some(&budget, 3), ==, 0);
	reservation_force(&budget, 5);
	g_assert_cmpint(reservation_take(&budget, 1), ==, -ENOSPC);
	g_assert_cmpuint(reservation_take_some(&budget, 1), ==, 0);
	reservation_give(&budget, 15);
	g_assert_cmpuint(atomic_load(&budget.used), ==, 0);
	reservation_init(&budget, 0);
	g_assert_cmpint(reservation_take(&budget, UINT64_C(1) << 50), ==, 0);
	reservation_give(&budget, UINT64_C(1) << 50);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *path;
		void (*test)(void);
	} tests[] = {
		{ "/memory", test_memory },
		{ "/reservation", test_reservation },
		{ "/mapping/empty", test_empty },
		{ "/mapping/write-read", test_write_read },
		{ "/mapping/append", test_append },
		{ "/mapping/sparse", test_sparse },
		{ "/mapping/large-folios", test_large_folios },
		{ "/mapping/truncate", test_truncate },
		{ "/mapping/punch", test_punch },
		{ "/mapping/allocate-zero", test_allocate_zero },
		{ "/mapping/no-space", test_nospace },
		{ "/mapping/limits", test_limits },
		{ "/mapping/write-undone", test_write_undone },
		{ "/mapping/copy-range", test_copy_range },
		{ "/mapping/seals", test_seals },
		{ "/mapping/seals-odd", test_seals_odd },
		{ "/mapping/seal-meets-write", test_seal_meets_write },
		{ "/mapping/writable", test_writable },
		{ "/mapping/shared", test_shared },
	};

	g_test_init(&argc, &argv, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
		g_test_add_data_func(tests[i].path, (gconstpointer)tests[i].test, without_leaks);
	return g_test_run();
}
