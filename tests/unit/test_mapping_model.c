/* SPDX-License-Identifier: MIT */
/*
 * Random operations against a model: a plain buffer, and which of its pages exist. After each
 * operation its result, the size and the budget must be what the model says, and now and then all
 * the contents too.
 *
 * CACHET_TEST_SEED chooses another sequence.
 */
#include "mapping_fixture.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#define MODEL_PAGES 1200u
#define MODEL_BYTES (MODEL_PAGES * PAGE)
#define MODEL_LIMIT 900u

struct model {
	struct file file;
	char *data;
	uint64_t size;
	bool present[MODEL_PAGES];
	unsigned used;
	struct mapping_pins *pins;
};

static GRand *dice;

static uint64_t roll(uint64_t below)
{
	return g_rand_int(dice) % below;
}

static void roll_range(uint64_t *offset, uint64_t *length)
{
	static const uint64_t most[] = { 10, PAGE, PAGE, 16 * PAGE, 16 * PAGE, 64 * PAGE };

	*length = 1 + roll(roll(12) ? most[roll(G_N_ELEMENTS(most))] : 700 * PAGE);
	*offset = roll(MODEL_BYTES);
	if (roll(3) == 0)
		*offset &= ~(PAGE - 1);
	if (roll(4) == 0)
		*length = (*length + PAGE - 1) & ~(PAGE - 1);
	if (roll(10) == 0)
		*offset &= ~(HUGE_BYTES - 1);
	if (*length > MODEL_BYTES - *offset)
		*length = MODEL_BYTES - *offset;
}

static void model_set(struct model *m, uint64_t page, bool present)
{
	m->used += present - m->present[page];
	m->present[page] = present;
}

/* How much of a write the budget allows, from its beginning. */
static uint64_t model_room(struct model *m, uint64_t offset, uint64_t length)
{
	unsigned left = MODEL_LIMIT - m->used;

	for (uint64_t page = offset / PAGE; page <= (offset + length - 1) / PAGE; page++) {
		if (m->present[page])
			continue;
		if (left == 0)
			return page * PAGE > offset ? page * PAGE - offset : 0;
		left--;
	}
	return length;
}

static bool model_fits(struct model *m, uint64_t offset, uint64_t length)
{
	return model_room(m, offset, length) == length;
}

static void model_fill(struct model *m, uint64_t offset, uint64_t length)
{
	for (uint64_t page = offset / PAGE; page <= (offset + length - 1) / PAGE; page++)
		model_set(m, page, true);
}

static void model_wrote(struct model *m, const char *from, uint64_t offset, uint64_t length)
{
	if (length == 0)
		return;
	memmove(m->data + offset, from, length);
	model_fill(m, offset, length);
	if (offset + length > m->size)
		m->size = offset + length;
}

static void op_write(struct model *m)
{
	uint64_t offset, length, room;
	char *data;

	roll_range(&offset, &length);
	room = model_room(m, offset, length);
	data = g_malloc(length);
	memset(data, (int)(1 + roll(255)), length);
	for (unsigned i = 0; i < length; i += 1 + i / 2)
		data[i] = (char)roll(256);
	g_assert_cmpint(mapping_write(&m->file.mapping, data, length, offset), ==,
			room ? (ssize_t)room : -ENOSPC);
	model_wrote(m, data, offset, room);
	g_free(data);
}

/* A write that breaks off. */
static void op_write_broken(struct model *m)
{
	struct mapping_write write;
	uint64_t offset, length, room, copied;
	char *data;
	int rc;

	roll_range(&offset, &length);
	room = model_room(m, offset, length);
	rc = mapping_write_begin(&m->file.mapping, &write, offset, length, false);
	g_assert_cmpint(rc, ==, room ? 0 : -ENOSPC);
	if (rc)
		return;
	g_assert_cmpuint(write.length, ==, room);
	copied = roll(2) ? roll(room) : 0;
	data = g_malloc(room);
	memset(data, 'k', room);
	if (copied)
		g_assert_cmpint(pwrite(write.fd, data, copied, (off_t)offset), ==, (ssize_t)copied);
	mapping_write_end(&m->file.mapping, &write, copied ? (ssize_t)copied : -EIO);
	model_wrote(m, data, offset, copied);
	g_free(data);
}

static void op_append(struct model *m)
{
	struct mapping_write write;
	uint64_t length = 1 + roll(20 * PAGE), room;
	char *data;
	int rc;

	if (m->size == MODEL_BYTES)
		return;
	if (length > MODEL_BYTES - m->size)
		length = MODEL_BYTES - m->size;
	room = model_room(m, m->size, length);
	rc = mapping_write_begin(&m->file.mapping, &write, 0, length, true);
	g_assert_cmpint(rc, ==, room ? 0 : -ENOSPC);
	if (rc)
		return;
	data = g_malloc(room);
	memset(data, 'a', room);
	g_assert_cmpint(pwrite(write.fd, data, room, (off_t)write.offset), ==, (ssize_t)room);
	mapping_write_end(&m->file.mapping, &write, (ssize_t)room);
	model_wrote(m, data, m->size, room);
	g_free(data);
}

static void op_truncate(struct model *m)
{
	uint64_t size = roll(20) == 0 ? 0 : roll(MODEL_BYTES);

	if (roll(3) == 0)
		size &= ~(PAGE - 1);
	g_assert_cmpint(mapping_truncate(&m->file.mapping, size), ==, 0);
	if (size < m->size) {
		memset(m->data + size, 0, MODEL_BYTES - size);
		for (uint64_t page = (size + PAGE - 1) / PAGE; page < MODEL_PAGES; page++)
			model_set(m, page, false);
	}
	m->size = size;
}

static void op_punch(struct model *m)
{
	uint64_t offset, length;

	roll_range(&offset, &length);
	g_assert_cmpint(mapping_punch(&m->file.mapping, offset, length), ==, 0);
	memset(m->data + offset, 0, length);
	for (uint64_t page = (offset + PAGE - 1) / PAGE; (page + 1) * PAGE <= offset + length;
	     page++)
		model_set(m, page, false);
}

static void op_allocate(struct model *m)
{
	uint64_t offset, length;
	bool keep_size = roll(2), zero = roll(2), fits;
	int rc;

	roll_range(&offset, &length);
	fits = model_fits(m, offset, length);
	rc = (zero ? mapping_zero : mapping_allocate)(&m->file.mapping, offset, length, keep_size);
	g_assert_cmpint(rc, ==, fits ? 0 : -ENOSPC);
	if (!fits)
		return;
	model_fill(m, offset, length);
	if (zero)
		memset(m->data + offset, 0, length);
	if (!keep_size && offset + length > m->size)
		m->size = offset + length;
}

/* How much of a range lies before the end of the file. */
static uint64_t model_inside(const struct model *m, uint64_t offset, uint64_t length)
{
	return offset >= m->size ? 0 : MIN(length, m->size - offset);
}

static void op_populate(struct model *m)
{
	uint64_t offset, length;

	roll_range(&offset, &length);
	length = model_inside(m, offset, length);
	if (!length)
		return;
	if (!model_fits(m, offset, length)) {
		g_assert_cmpint(mapping_populate(&m->file.mapping, offset, length), ==, -ENOSPC);
		return;
	}
	g_assert_cmpint(mapping_populate(&m->file.mapping, offset, length), ==, 0);
	model_fill(m, offset, length);
}

static void op_copy(struct model *m)
{
	uint64_t from, to, length, room, unused;

	roll_range(&from, &length);
	roll_range(&to, &unused);
	if (length > MODEL_BYTES - to)
		length = MODEL_BYTES - to;
	room = model_inside(m, from, length);
	if (from < to + room && to < from + room) {
		g_assert_cmpint(
			mapping_copy_range(&m->file.mapping, from, &m->file.mapping, to, length),
			==, -EINVAL);
	} else if (room) {
		uint64_t cut = model_room(m, to, room);

		g_assert_cmpint(
			mapping_copy_range(&m->file.mapping, from, &m->file.mapping, to, length),
			==, cut ? (ssize_t)cut : -ENOSPC);
		model_wrote(m, m->data + from, to, cut);
	} else {
		g_assert_cmpint(
			mapping_copy_range(&m->file.mapping, from, &m->file.mapping, to, length),
			==, 0);
	}
}

static void op_read(struct model *m)
{
	uint64_t offset, length, expected;
	char *data;

	roll_range(&offset, &length);
	expected = model_inside(m, offset, length);
	data = g_malloc(length);
	g_assert_cmpint(mapping_read(&m->file.mapping, data, length, offset), ==,
			(ssize_t)expected);
	g_assert_cmpmem(data, expected, m->data + offset, expected);
	g_free(data);
}

static void op_pin(struct model *m)
{
	uint64_t offset, length;
	int rc;

	if (m->pins) {
		mapping_unpin_range(&m->file.mapping, m->pins);
		m->pins = NULL;
		g_assert_false(mapping_may_be_pinned(&m->file.mapping));
		return;
	}
	roll_range(&offset, &length);
	length = model_inside(m, offset, length);
	if (!length)
		return;
	if (!model_fits(m, offset, length)) {
		g_assert_cmpint(mapping_pin_range(&m->file.mapping, offset, length, &m->pins), ==,
				-ENOSPC);
		return;
	}
	rc = mapping_pin_range(&m->file.mapping, offset, length, &m->pins);
	g_assert_cmpint(rc, ==, 0);
	model_fill(m, offset, length);
	g_assert_true(mapping_may_be_pinned(&m->file.mapping));
}

static void model_check(struct model *m, bool thorough, bool exact)
{
	struct mapping *mapping = &m->file.mapping;

	g_assert_cmpuint(mapping_size(mapping), ==, m->size);
	if (exact)
		g_assert_cmpuint(atomic_load(&m->file.budget.used), ==, m->used);
	else
		g_assert_cmpuint(atomic_load(&m->file.budget.used), >=, m->used);
	if (!thorough)
		return;
	char *contents;
	size_t size = file_contents(&m->file, &contents);

	g_assert_cmpmem(contents, size, m->data, m->size);
	g_free(contents);
	for (uint64_t page = 0; page < MODEL_PAGES; page++) {
		struct folio *folio = mapping_get_folio(mapping, page, "test");

		if (exact)
			g_assert_cmpint(folio != NULL, ==, m->present[page]);
		else
			g_assert_true(folio || !m->present[page]);
		if (folio)
			folio_put(folio, "test");
	}
	if (exact)
		file_check(&m->file);
}

static void run(unsigned operations, bool pins)
{
	static void (*const ops[])(struct model *m) = {
		op_write, op_write, op_write, op_write_broken, op_append, op_truncate,
		op_punch, op_allocate, op_populate, op_copy,  op_read,	 op_read,
	};
	struct model m = { .data = g_malloc0(MODEL_BYTES) };

	/* What a pin keeps beyond the model must not make the budget too small for the model. */
	file_open(&m.file, pins ? 0 : MODEL_LIMIT, false);
	for (unsigned i = 0; i < operations; i++) {
		if (pins && roll(8) == 0) {
			/* Without a limit, the model must not expect one. */
			if (m.used + 701 < MODEL_LIMIT || m.pins)
				op_pin(&m);
		} else {
			unsigned op = (unsigned)roll(G_N_ELEMENTS(ops));

			if (!pins || m.used + 701 < MODEL_LIMIT || ops[op] == op_truncate ||
			    ops[op] == op_punch || ops[op] == op_read)
				ops[op](&m);
		}
		model_check(&m, i % 251 == 0, !pins);
	}
	model_check(&m, true, !pins);
	mapping_unpin_range(&m.file.mapping, m.pins);
	file_close(&m.file);
	g_free(m.data);
}

static void test_model(gconstpointer pins)
{
	unsigned operations = getenv("CACHET_TEST_SLOW") ? 1000000 : 100000;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	operations /= 4;
#endif
	if (XARRAY_SLOT_BITS != 6)
		operations /= 4;
	mem_test_begin(0);
	run(pins ? operations / 4 : operations, pins);
	rcu_barrier();
	g_assert_cmpint(mem_test_end(NULL), ==, 0);
	g_assert_cmpint(folio_debug_report(NULL, NULL), ==, 0);
}

int main(int argc, char **argv)
{
	const char *seed = getenv("CACHET_TEST_SEED");

	/* Buffers of megabytes come and go; do not fault them in each time. */
	mallopt(M_MMAP_THRESHOLD, 64 << 20);
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	g_test_init(&argc, &argv, NULL);
	dice = g_rand_new_with_seed(seed ? (guint32)atoi(seed) : 7);
	g_test_add_data_func("/mapping/model", NULL, test_model);
	g_test_add_data_func("/mapping/model-pins", "pins", test_model);
	int rc = g_test_run();

	g_rand_free(dice);
	return rc;
}
