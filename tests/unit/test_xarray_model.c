/* SPDX-License-Identifier: MIT */
/*
 * The tree against a plain array: random operations on both, and after each the same answers.
 *
 * The indices come from a few windows that lie far from each other, the last one at the very end,
 * so that trees are tall and sparse. When memory runs out, at whatever allocation, nothing may have
 * changed.
 */
#include <errno.h>

#include "base/alloc.h"
#include "xarray_check.h"

#define WINDOW_BITS 12
#define WINDOW (1u << WINDOW_BITS)
#define WINDOWS 4
#define CELLS (WINDOWS * WINDOW)

static const uint64_t window_start[WINDOWS] = {
	0,
	UINT64_C(1) << 20,
	UINT64_C(0xabcdef) << 24,
	UINT64_MAX - (WINDOW - 1),
};

struct cell {
	uintptr_t entry; /* 0: none; never followed */
	uint8_t order;
	uint8_t marks; /* of the entry, in each of its cells */
};

struct model {
	struct xarray xa;
	struct cell cells[CELLS];
	uintptr_t last_entry;
	uint64_t failures; /* calls that ran out of memory */
};

static uint64_t cell_index(unsigned cell)
{
	return window_start[cell >> WINDOW_BITS] + (cell & (WINDOW - 1));
}

static unsigned random_below(unsigned end)
{
	return g_test_rand_int_range(0, end);
}

/* Most are small. */
static unsigned random_order(void)
{
	unsigned order = random_below(WINDOW_BITS + 1);

	return random_below(3) ? order / 3 : order;
}

/* Runs of neighbours, so that things meet. */
static unsigned random_cell(void)
{
	unsigned cell = random_below(CELLS);

	switch (random_below(4)) {
	case 0:
		return cell;
	case 1:
		return (cell & ~(WINDOW - 1)) + cell % 64;
	default:
		return (cell & ~(WINDOW - 1)) + WINDOW - 1 - cell % 512;
	}
}

static void *model_new_entry(struct model *model)
{
	model->last_entry += XARRAY_ENTRY_ALIGN;
	return (void *)model->last_entry;
}

static unsigned cell_first(const struct model *model, unsigned cell)
{
	return cell >> model->cells[cell].order << model->cells[cell].order;
}

static void model_set(struct model *model, unsigned cell, unsigned order, void *entry,
		      unsigned marks)
{
	for (unsigned i = 0; i < 1u << order; i++)
		model->cells[cell + i] = (struct cell){ (uintptr_t)entry, order, marks };
}

static void model_drop(struct model *model, unsigned cell, unsigned order)
{
	memset(&model->cells[cell], 0, sizeof(struct cell) << order);
}

static bool model_any(const struct model *model, unsigned cell, unsigned order)
{
	for (unsigned i = 0; i < 1u << order; i++)
		if (model->cells[cell + i].entry)
			return true;
	return false;
}

/* Everything the tree tells about every cell. */
static void model_compare(struct model *model)
{
	uint64_t entries = 0, index = 0;
	struct xarray_cursor cursor = XARRAY_CURSOR_INIT;
	bool marked[XARRAY_MARKS] = { 0 }, any = false;

	for (unsigned at = 0; at < CELLS;) {
		const struct cell *cell = &model->cells[at];
		unsigned order;

		if (!cell->entry) {
			g_assert_null(xarray_load(&model->xa, cell_index(at)));
			at++;
			continue;
		}
		any = true;
		for (unsigned i = 0; i < 1u << cell->order; i++)
			g_assert_true(xarray_load(&model->xa, cell_index(at + i)) ==
				      (void *)cell->entry);
		g_assert_true(xarray_next(&model->xa, &cursor, &index, XARRAY_INDEX_MAX,
					  XARRAY_PRESENT, &order) == (void *)cell->entry);
		g_assert_cmpuint(index, ==, cell_index(at));
		g_assert_cmpuint(order, ==, cell->order);
		for (unsigned mark = 0; mark < XARRAY_MARKS; mark++) {
			g_assert_true(xarray_get_mark(&model->xa, index, mark) ==
				      (cell->marks >> mark & 1));
			marked[mark] |= cell->marks >> mark & 1;
		}
		entries++;
		at += 1u << cell->order;
		if (!xarray_step(&index, order, XARRAY_INDEX_MAX)) {
			g_assert_cmpuint(at, ==, CELLS);
			index = 0;
			cursor = (struct xarray_cursor)XARRAY_CURSOR_INIT;
			goto end;
		}
	}
	g_assert_null(xarray_next(&model->xa, &cursor, &index, XARRAY_INDEX_MAX, XARRAY_PRESENT,
				  NULL));
end:
	g_assert_cmpuint(xarray_check(&model->xa), ==, entries);
	g_assert_true(xarray_empty(&model->xa) == !any);
	for (unsigned mark = 0; mark < XARRAY_MARKS; mark++)
		g_assert_true(xarray_marked(&model->xa, mark) == marked[mark]);
}

/* A change that ran out of memory changed nothing, and works when it is tried again. */
#define model_try(model, call)                                                     \
	({                                                                         \
		int __rc = (call);                                                 \
		if (__rc == -ENOMEM) {                                             \
			(model)->failures++;                                       \
			model_compare(model);                                      \
			__rc = (call);                                             \
			g_assert_cmpint(__rc, !=, -ENOMEM);                        \
		}                                                                  \
		__rc;                                                              \
	})

static void step_store(struct model *model)
{
	unsigned order = random_order(), cell = random_cell() >> order << order;
	void *entry = model_new_entry(model);
	int rc = model_try(model,
			   xarray_store_locked(&model->xa, cell_index(cell), order, entry));

	if (model_any(model, cell, order)) {
		g_assert_cmpint(rc, ==, -EEXIST);
	} else {
		g_assert_cmpint(rc, ==, 0);
		model_set(model, cell, order, entry, 0);
	}
}

static void step_replace(struct model *model)
{
	unsigned order = random_order(), cell = random_cell() >> order << order;
	void *entry = model_new_entry(model);
	int rc = model_try(model,
			   xarray_replace_locked(&model->xa, cell_index(cell), order, entry));

	if (model->cells[cell].entry && model->cells[cell].order > order) {
		g_assert_cmpint(rc, ==, -EINVAL);
	} else {
		g_assert_cmpint(rc, ==, 0);
		model_set(model, cell, order, entry, 0);
	}
}

static void step_erase(struct model *model)
{
	unsigned cell = random_cell();
	void *entry = xarray_erase_locked(&model->xa, cell_index(cell));

	g_assert_true(entry == (void *)model->cells[cell].entry);
	if (entry)
		model_drop(model, cell_first(model, cell), model->cells[cell].order);
}

struct split_call {
	struct model *model;
	unsigned cell;
	unsigned order;
	unsigned marks;
};

static void *split_make(uint64_t index, void *data)
{
	struct split_call *call = data;
	void *entry = model_new_entry(call->model);

	g_assert_cmpuint(index, ==, cell_index(call->cell));
	model_set(call->model, call->cell, call->order, entry, call->marks);
	call->cell += 1u << call->order;
	return entry;
}

static void step_split(struct model *model)
{
	unsigned cell = random_cell(), order = random_order();
	const struct cell old = model->cells[cell];
	struct split_call call = { model, cell_first(model, cell), order, old.marks };
	unsigned end = call.cell + (1u << old.order);
	int rc;

	/* Try again when by chance the entry is too small. */
	if (old.entry && old.order > 0 && order >= old.order)
		call.order = order = random_below(old.order);
	rc = model_try(model,
		       xarray_split_locked(&model->xa, cell_index(cell), order, split_make, &call));
	if (!old.entry) {
		g_assert_cmpint(rc, ==, -ENOENT);
	} else if (order >= old.order) {
		g_assert_cmpint(rc, ==, -EINVAL);
	} else {
		g_assert_cmpint(rc, ==, 0);
		g_assert_cmpuint(call.cell, ==, end);
	}
}

static void step_mark(struct model *model)
{
	unsigned cell = random_cell(), mark = random_below(XARRAY_MARKS);
	bool set = random_below(2);
	const struct cell old = model->cells[cell];

	if (set)
		xarray_set_mark_locked(&model->xa, cell_index(cell), mark);
	else
		xarray_clear_mark_locked(&model->xa, cell_index(cell), mark);
	if (old.entry)
		model_set(model, cell_first(model, cell), old.order, (void *)old.entry,
			  set ? old.marks | 1u << mark : old.marks & ~(1u << mark));
	g_assert_true(xarray_get_mark(&model->xa, cell_index(cell), mark) == (old.entry && set));
}

/* The first cell of the first entry in the range that has the mark, or CELLS. */
static unsigned model_find(const struct model *model, unsigned cell, unsigned last, unsigned mark)
{
	while (cell <= last) {
		const struct cell *at = &model->cells[cell];

		if (at->entry && (mark == XARRAY_PRESENT || at->marks >> mark & 1))
			return cell_first(model, cell);
		cell = at->entry ? cell_first(model, cell) + (1u << at->order) : cell + 1;
	}
	return CELLS;
}

static void step_find(struct model *model)
{
	unsigned cell = random_cell();
	unsigned last = random_below(2) ? random_cell() : cell + random_below(64);
	unsigned mark = random_below(XARRAY_MARKS + 1), found, order = 99;
	uint64_t index = cell_index(cell);
	void *entry;

	if (last >= CELLS)
		last = CELLS - 1;
	found = model_find(model, cell, last, mark);
	entry = xarray_find(&model->xa, &index, cell_index(last), mark, &order);
	if (found == CELLS) {
		g_assert_null(entry);
	} else {
		g_assert_true(entry == (void *)model->cells[found].entry);
		g_assert_cmpuint(index, ==, cell_index(found));
		g_assert_cmpuint(order, ==, model->cells[found].order);
	}
}

static void step_load(struct model *model)
{
	unsigned cell = random_cell();
	void *entry = xarray_load(&model->xa, cell_index(cell));

	g_assert_true(entry == (void *)model->cells[cell].entry);
}

/* An iteration in whose body all sorts of things happen to the entry, and elsewhere. */
static void step_iterate(struct model *model)
{
	unsigned cell = random_cell(), last = cell + random_below(400), order;
	unsigned mark = random_below(XARRAY_MARKS + 1), next = cell;
	uint64_t index = cell_index(cell);
	void *entry;

	if (last >> WINDOW_BITS != cell >> WINDOW_BITS)
		last = cell | (WINDOW - 1);
	xarray_for_each(&model->xa, index, cell_index(last), mark, order, entry) {
		unsigned found = model_find(model, next, last, mark);

		g_assert_cmpuint(found, !=, CELLS);
		g_assert_true(entry == (void *)model->cells[found].entry);
		g_assert_cmpuint(index, ==, cell_index(found));
		next = found + (1u << order);
		switch (random_below(8)) {
		case 0:
		case 1:
			g_assert_true(xarray_erase_locked(&model->xa, index) == entry);
			model_drop(model, found, order);
			break;
		case 2:
			step_erase(model);
			break;
		case 3:
			step_store(model);
			break;
		case 4:
			xarray_unlock(&model->xa);
			xarray_lock(&model->xa);
			break;
		}
		/* What was put in the place of this entry is not met: the iteration is past it. */
		if (next <= last && model->cells[next].entry && cell_first(model, next) < next)
			break;
	}
	if (!entry)
		g_assert_cmpuint(model_find(model, next, last, mark), ==, CELLS);
}

static void model_step(struct model *model)
{
	switch (random_below(16)) {
	case 0 ... 3:
		step_store(model);
		break;
	case 4 ... 6:
		step_erase(model);
		break;
	case 7:
		step_replace(model);
		break;
	case 8:
		step_split(model);
		break;
	case 9 ... 11:
		step_mark(model);
		break;
	case 12 ... 13:
		step_find(model);
		break;
	case 14:
		step_load(model);
		break;
	case 15:
		if (random_below(8) == 0)
			step_iterate(model);
		break;
	}
}

static struct model *model_new(void)
{
	struct model *model = g_new0(struct model, 1);

	xarray_init(&model->xa);
	return model;
}

static void model_free(struct model *model)
{
	xarray_destroy(&model->xa);
	rcu_barrier();
	g_free(model);
}

#ifdef CACHET_TSAN
#define STEPS 100000 /* there is but one thread */
#else
#define STEPS 1000000
#endif
/* Taller trees allocate more in each. */
#define FAULT_STEPS (XARRAY_SLOT_BITS * 8)

static void test_random(void)
{
	struct model *model = model_new();

	mem_test_begin(0);
	xarray_lock(&model->xa);
	for (unsigned step = 0; step < STEPS; step++) {
		model_step(model);
		if (step % 5000 == 0)
			model_compare(model);
	}
	model_compare(model);
	/* Empty it one by one: not a node may be left. */
	for (unsigned cell = 0; cell < CELLS; cell++)
		if (model->cells[cell].entry) {
			g_assert_nonnull(xarray_erase_locked(&model->xa, cell_index(cell)));
			model_drop(model, cell, model->cells[cell].order);
		}
	model_compare(model);
	rcu_barrier();
	g_assert_true(xarray_empty(&model->xa));
	xarray_unlock(&model->xa);
	g_assert_cmpint(mem_test_end(NULL), ==, 0);
	model_free(model);
}

/* The same operations again and again, with the first allocation failing, the second, and so on. */
static void test_no_memory(void)
{
	guint32 seed = g_test_rand_int();
	unsigned long n = 0, tried = 0;
	int failed;

	do {
		struct model *model = model_new();
		GRand *random = g_rand_new_with_seed(seed);

		mem_test_begin(++n);
		xarray_lock(&model->xa);
		for (unsigned step = 0; step < FAULT_STEPS; step++) {
			unsigned window = g_rand_int_range(random, 0, WINDOWS) << WINDOW_BITS;
			unsigned order = g_rand_int_range(random, 0, 10);
			unsigned place = g_rand_int_range(random, 0, WINDOW);
			unsigned cell = window + (place >> order << order);
			void *entry = model_new_entry(model);
			struct split_call call;
			int rc;

			switch (g_rand_int_range(random, 0, 4)) {
			case 0:
			case 1:
				rc = model_try(model, xarray_store_locked(
					&model->xa, cell_index(cell), order, entry));
				if (rc == 0)
					model_set(model, cell, order, entry, 0);
				else
					g_assert_cmpint(rc, ==, -EEXIST);
				break;
			case 2:
				rc = model_try(model, xarray_replace_locked(
					&model->xa, cell_index(cell), order, entry));
				if (rc == 0)
					model_set(model, cell, order, entry, 0);
				else
					g_assert_cmpint(rc, ==, -EINVAL);
				break;
			case 3:
				order = g_rand_int_range(random, 0, 4);
				call = (struct split_call){ model, cell_first(model, cell), order,
							    model->cells[cell].marks };
				rc = model_try(model, xarray_split_locked(
					&model->xa, cell_index(cell), order, split_make, &call));
				if (rc < 0)
					g_assert_true(rc == -ENOENT || rc == -EINVAL);
				break;
			}
		}
		model_compare(model);
		tried += model->failures;
		xarray_unlock(&model->xa);
		xarray_destroy(&model->xa);
		rcu_barrier();
		g_assert_cmpint(mem_test_end(&failed), ==, 0);
		g_assert_cmpuint(model->failures, ==, failed ? 1 : 0);
		g_rand_free(random);
		g_free(model);
	} while (failed);
	g_assert_cmpuint(tried, ==, n - 1);
	g_assert_cmpuint(tried, >, 20);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/xarray/model/random", test_random);
	g_test_add_func("/xarray/model/no-memory", test_no_memory);
	return g_test_run();
}
