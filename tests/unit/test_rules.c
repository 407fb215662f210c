/* SPDX-License-Identifier: MIT */
/*
 * The table of what seals refuse, row by row, for each set of seals: by the rules where they need
 * no state, by a mapping that bears the seals where it decides.
 */
#include "seal/rules.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>

#include "cache/mapping.h"

#define PAGE PAGE_BYTES
#define CONTENT (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
#define WRITES (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
#define SETS (CACHET_SEALS_ALL + 1)

G_STATIC_ASSERT(CACHET_SEALS_ALL == 63);

/* What an operation on a file of four pages, of which the first is there, answers. */
static int write_inside(struct mapping *mapping)
{
	return mapping_write(mapping, "12", 2, 0);
}

static int write_past_end(struct mapping *mapping)
{
	return mapping_write(mapping, "12", 2, 4 * PAGE);
}

static int write_across_end(struct mapping *mapping)
{
	return mapping_write(mapping, "12", 2, 4 * PAGE - 1);
}

static int copy_into(struct mapping *mapping)
{
	return mapping_copy_range(mapping, 0, mapping, PAGE, 2);
}

static int punch(struct mapping *mapping)
{
	return mapping_punch(mapping, 0, PAGE);
}

static int zero(struct mapping *mapping)
{
	return mapping_zero(mapping, 0, PAGE, true);
}

static int truncate_down(struct mapping *mapping)
{
	return mapping_truncate(mapping, PAGE);
}

static int truncate_up(struct mapping *mapping)
{
	return mapping_truncate(mapping, 5 * PAGE);
}

static int truncate_nowhere(struct mapping *mapping)
{
	return mapping_truncate(mapping, 4 * PAGE);
}

static int allocate_past_end(struct mapping *mapping)
{
	return mapping_allocate(mapping, 3 * PAGE, 2 * PAGE, false);
}

static int allocate_past_end_keeping_size(struct mapping *mapping)
{
	return mapping_allocate(mapping, 3 * PAGE, 2 * PAGE, true);
}

static int become_writer(struct mapping *mapping)
{
	int result = mapping_map_writable(mapping);

	if (result == 0)
		mapping_unmap_writable(mapping);
	return result;
}

static const struct row {
	const char *what;
	int (*operation)(struct mapping *mapping);
	unsigned refused_by;
	int otherwise;
	/* Seals that make the answer smaller without refusing it. */
	unsigned cut_by;
} rows[] = {
	{ "write inside", write_inside, WRITES, 2, 0 },
	{ "write past the end", write_past_end, WRITES | F_SEAL_GROW, 2, 0 },
	{ "write across the end", write_across_end, WRITES, 2, F_SEAL_GROW },
	{ "copy into", copy_into, WRITES, 2, 0 },
	{ "punch", punch, WRITES, 0, 0 },
	{ "zero", zero, WRITES, 0, 0 },
	{ "truncate down", truncate_down, F_SEAL_SHRINK, 0, 0 },
	{ "truncate up", truncate_up, F_SEAL_GROW, 0, 0 },
	{ "truncate nowhere", truncate_nowhere, 0, 0, 0 },
	{ "allocate past the end", allocate_past_end, F_SEAL_GROW, 0, 0 },
	{ "allocate, size kept", allocate_past_end_keeping_size, F_SEAL_GROW, 0, 0 },
	{ "become a writer", become_writer, WRITES, 0, 0 },
};

static void row_check(const struct row *row, unsigned seals, bool shared)
{
	struct reservation budget;
	struct mapping mapping;
	int expected = row->otherwise;
	int got;

	reservation_init(&budget, 0);
	g_assert_cmpint(mapping_init(&mapping, &budget, shared), ==, 0);
	g_assert_cmpint(mapping_truncate(&mapping, 4 * PAGE), ==, 0);
	g_assert_cmpint(mapping_write(&mapping, "ab", 2, 0), ==, 2);
	if (seals & SEALS_NO_WRITER)
		g_assert_cmpint(mapping_deny_writable(&mapping), ==, 0);
	g_assert_cmpint(mapping_add_seals(&mapping, seals & SEALS_OF_MEMORY), ==, 0);
	if (seals & row->cut_by)
		expected = 1;
	if (seals & row->refused_by)
		expected = -EPERM;
	got = row->operation(&mapping);
	if (got != expected)
		g_test_message("%s, seals %#x, shared %d", row->what, seals, shared);
	g_assert_cmpint(got, ==, expected);
	if (seals & SEALS_NO_WRITER)
		mapping_allow_writable(&mapping);
	mapping_destroy(&mapping);
}

static void test_contents(void)
{
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
		for (unsigned seals = 0; seals < SETS; seals++)
			for (int shared = 0; shared < 2; shared++)
				row_check(&rows[i], seals, shared);
}

static void test_open(void)
{
	static const struct {
		int flags;
		unsigned refused_by;
		unsigned refused_unless_empty;
	} opens[] = {
		{ O_RDONLY, 0, 0 },
		{ O_RDWR, WRITES, 0 },
		{ O_WRONLY, WRITES, 0 },
		{ O_WRONLY | O_APPEND, WRITES, 0 },
		{ O_RDONLY | O_TRUNC, 0, F_SEAL_SHRINK },
		{ O_RDWR | O_TRUNC, WRITES, F_SEAL_SHRINK },
		{ O_WRONLY | O_TRUNC | O_CREAT, WRITES, F_SEAL_SHRINK },
		{ O_RDONLY | O_DIRECT | O_NOATIME, 0, 0 },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(opens); i++) {
		for (unsigned seals = 0; seals < SETS; seals++) {
			bool refused = seals & opens[i].refused_by;
			bool when_full = refused || (seals & opens[i].refused_unless_empty);

			g_assert_cmpint(seal_rules_check_open(seals, opens[i].flags, 0), ==,
					refused ? -EPERM : 0);
			g_assert_cmpint(seal_rules_check_open(seals, opens[i].flags, 1), ==,
					when_full ? -EPERM : 0);
			g_assert_cmpint(seal_rules_check_open(seals, opens[i].flags, UINT64_MAX),
					==, when_full ? -EPERM : 0);
		}
	}
}

/* Every change between two modes, with the set-id bits for good measure. */
static void test_mode(void)
{
	for (mode_t from = 0; from <= 07777; from += 7)
		for (mode_t to = 0; to <= 07777; to += 11) {
			int with = (from & 0111) == (to & 0111) ? 0 : -EPERM;

			g_assert_cmpint(seal_rules_check_mode(CACHET_SEALS_ALL, from, to), ==,
					with);
			g_assert_cmpint(seal_rules_check_mode(F_SEAL_EXEC, from, to), ==, with);
			g_assert_cmpint(seal_rules_check_mode(CACHET_SEALS_ALL & ~F_SEAL_EXEC,
							      from, to), ==, 0);
		}
}

static void test_expand(void)
{
	for (unsigned seals = 0; seals < SETS; seals++)
		for (mode_t mode = 0; mode <= 07777; mode++) {
			bool implied = (seals & F_SEAL_EXEC) && (mode & 0111);

			g_assert_cmpuint(seal_rules_expand(seals, S_IFREG | mode), ==,
					 implied ? seals | CONTENT : seals);
		}
}

static void test_request(void)
{
	for (unsigned current = 0; current < SETS; current++)
		for (unsigned seals = 0; seals < SETS; seals++) {
			int expected = current & F_SEAL_SEAL ? -EPERM : 0;

			g_assert_cmpint(seal_rules_check(current, seals, true), ==, expected);
			g_assert_cmpint(seal_rules_check(current, seals, false), ==, -EPERM);
		}
	/* An unknown bit is found out first, whoever asks. */
	for (unsigned bit = 0; bit < 32; bit++) {
		unsigned seals = 1u << bit;

		if (seals & CACHET_SEALS_ALL)
			continue;
		g_assert_cmpint(seal_rules_check(0, seals, true), ==, -EINVAL);
		g_assert_cmpint(seal_rules_check(0, seals | F_SEAL_WRITE, false), ==, -EINVAL);
		g_assert_cmpint(seal_rules_check(F_SEAL_SEAL, seals, true), ==, -EINVAL);
	}
}

static void test_who(void)
{
	static const struct {
		uid_t uid, owner;
		bool writable, may;
	} cases[] = {
		{ 0, 1000, false, true },   { 0, 0, false, true },
		{ 1000, 1000, false, true }, { 1000, 1000, true, true },
		{ 1001, 1000, true, true },  { 1001, 1000, false, false },
		{ 1000, 0, false, false },   { 1000, 0, true, true },
		{ (uid_t)-1, 0, false, false },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
		g_assert_true(seal_rules_may_seal(cases[i].uid, cases[i].owner,
						  cases[i].writable) == cases[i].may);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/rules/contents", test_contents);
	g_test_add_func("/rules/open", test_open);
	g_test_add_func("/rules/mode", test_mode);
	g_test_add_func("/rules/expand", test_expand);
	g_test_add_func("/rules/request", test_request);
	g_test_add_func("/rules/who", test_who);
	return g_test_run();
}
