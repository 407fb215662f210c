/* SPDX-License-Identifier: MIT */
/* When a pin goes: with its handle, its time, its pages or the table; and under a storm. */
#include "pinning_fixture.h"

static void test_handles(void)
{
	struct fixture fixture;
	struct file other;
	struct pin_info info[8];
	uint64_t ids[6];

	if (!setup(&fixture, 8 * PAGE))
		return;
	file_init(&other, 8 * PAGE, 0);
	for (unsigned i = 0; i < 6; i++)
		g_assert_cmpint(add(&fixture, i * PAGE, PAGE, i == 4 ? CACHET_PIN_RESIDENT : 0,
				    1 + i % 2, 0, &ids[i]), ==, 0);
	/* The other file knows nothing of them. */
	g_assert_cmpint(pin_table_remove(fixture.table, &other.mapping, ids[0], 0, NULL, NULL), ==,
			-ENOENT);
	pin_table_remove_handle(fixture.table, &other.mapping, 1);
	g_assert_cmpuint(pin_table_list(fixture.table, &fixture.file.mapping, 0, info, 8), ==, 6);
	g_assert_cmpuint(pin_table_blocking(fixture.table, &fixture.file.mapping), ==, 5);

	pin_table_remove_handle(fixture.table, &fixture.file.mapping, 1);
	wait_for_refs(&fixture.file, 3, 30000);
	g_assert_cmpuint(pin_table_list(fixture.table, &fixture.file.mapping, 0, info, 8), ==, 3);
	for (unsigned i = 0; i < 3; i++) {
		g_assert_cmpuint(info[i].handle, ==, 2);
		g_assert_cmpuint(info[i].id, ==, ids[2 * i + 1]);
	}
	g_assert_cmpint(fixture.file.released, ==, 2);
	pin_table_remove_handle(fixture.table, &fixture.file.mapping, 2);
	wait_for_refs(&fixture.file, 0, 30000);
	assert_nothing_left(&fixture);
	file_destroy(&other);
	teardown(&fixture);
}

static void test_time_to_live(void)
{
	struct fixture fixture;
	struct pin_info info[4];
	struct pin_stat stat;
	uint64_t never, later, soon;
	int64_t start;

	if (!setup(&fixture, 8 * PAGE))
		return;
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, 0, &never), ==, 0);
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, UINT64_MAX, &later), ==, 0);
	g_assert_cmpint(remove_and_wait(&fixture, later, 7), ==, 0);
	start = clock_now_ms();
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, 3600000, &later), ==, 0);
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, 60, &soon), ==, 0);
	g_assert_cmpint(add(&fixture, 0, PAGE, CACHET_PIN_RESIDENT, 7, 40, &soon), ==, 0);
	wait_for_refs(&fixture.file, 2, 30000);
	g_assert_cmpint(clock_now_ms() - start, >=, 60);
	g_assert_cmpuint(pin_table_list(fixture.table, &fixture.file.mapping, 0, info, 4), ==, 2);
	g_assert_cmpuint(info[0].id, ==, never);
	g_assert_cmpuint(info[1].id, ==, later);
	pin_table_stat(fixture.table, &stat);
	g_assert_cmpuint(stat.expired, ==, 2);
	g_assert_cmpuint(stat.broken, ==, 0);
	g_assert_cmpint(fixture.file.expired, ==, 2);
	g_assert_cmpint(remove_and_wait(&fixture, soon, 7), ==, -ENOENT);
	g_assert_cmpint(remove_and_wait(&fixture, later, 7), ==, 0);
	g_assert_cmpint(remove_and_wait(&fixture, never, 7), ==, 0);
	wait_for_refs(&fixture.file, 0, 30000);
	teardown(&fixture);
}

/* What is cut off stays with its holder, and hinders no seal. */
static void test_detached(void)
{
	struct fixture fixture;
	struct mapping *mapping;
	struct pin_info info;
	uint64_t all, part;

	if (!setup(&fixture, 16 * PAGE))
		return;
	mapping = &fixture.file.mapping;
	g_assert_cmpint(add(&fixture, 8 * PAGE, 8 * PAGE, 0, 7, 0, &all), ==, 0);
	g_assert_cmpint(add(&fixture, 4 * PAGE, 8 * PAGE, 0, 7, 0, &part), ==, 0);
	g_assert_cmpint(mapping_truncate(mapping, 8 * PAGE), ==, 0);
	g_assert_cmpint(mapping_truncate(mapping, 16 * PAGE), ==, 0);
	g_assert_cmpuint(pin_table_blocking(fixture.table, mapping), ==, 1);
	g_assert_cmpuint(pin_table_list(fixture.table, mapping, 0, &info, 1), ==, 1);
	g_assert_cmpuint(info.id, ==, all);
	g_assert_false(info.blocking);
	g_assert_true(mapping_may_be_pinned(mapping));
	g_assert_cmpint(memory_seal_write(&fixture), ==, -EBUSY);

	g_assert_cmpint(mapping_punch(mapping, 4 * PAGE, 4 * PAGE), ==, 0);
	g_assert_cmpuint(pin_table_blocking(fixture.table, mapping), ==, 0);
	g_assert_false(mapping_may_be_pinned(mapping));
	g_assert_cmpint(memory_seal_write(&fixture), ==, 0);
	g_assert_cmpuint(pin_engine_used(fixture.engine), ==, 2);

	g_assert_cmpint(remove_and_wait(&fixture, part, 7), ==, 0);
	g_assert_cmpint(remove_and_wait(&fixture, all, 7), ==, 0);
	wait_for_refs(&fixture.file, 0, 30000);
	teardown(&fixture);
}

static void test_free_releases(void)
{
	struct fixture fixture;
	uint64_t id;

	if (!setup(&fixture, 64 * PAGE))
		return;
	for (unsigned i = 0; i < 40; i++)
		g_assert_cmpint(add(&fixture, i * PAGE, PAGE, i % 3 ? 0 : CACHET_PIN_RESIDENT, 7,
				    i % 2 * 100000, &id), ==, 0);
	g_assert_cmpint(fixture.file.refs, ==, 40);
	pin_table_free(fixture.table);
	g_assert_cmpint(fixture.file.refs, ==, 0);
	g_assert_false(mapping_may_be_pinned(&fixture.file.mapping));
	g_assert_cmpuint(pin_engine_used(fixture.engine), ==, 0);
	fixture.table = pin_table_new(fixture.engine, &owner_ops);
	teardown(&fixture);
}

static void test_cycles(void)
{
	struct fixture fixture;
	struct gone gone = GONE_INIT(&fixture);
	struct pin_stat stat;
	uint64_t id, last = 0;
	unsigned long pages;

	if (!setup(&fixture, 64 * PAGE))
		return;
	g_assert_cmpint(mapping_populate(&fixture.file.mapping, 0, 64 * PAGE), ==, 0);
	pages = fixture.file.budget.used;
	for (unsigned i = 0; i < 10000; i++) {
		g_assert_cmpint(add(&fixture, i % 60 * PAGE, PAGE * (1 + i % 4), 0, 7,
				    i % 2 * 10000, &id), ==, 0);
		g_assert_cmpuint(id, >, last);
		last = id;
		g_assert_cmpint(pin_table_remove(fixture.table, &fixture.file.mapping, id, 7,
						 gone_done, &gone), ==, 0);
		if (i % 128 == 0)
			gone_wait(&gone, i + 1);
	}
	gone_wait(&gone, 10000);
	wait_for_refs(&fixture.file, 0, 30000);
	g_assert_cmpint(fixture.file.released, ==, 10000);
	g_assert_cmpuint(fixture.file.budget.used, ==, pages);
	pin_table_stat(fixture.table, &stat);
	g_assert_cmpuint(stat.granted, ==, 10000);
	g_assert_cmpuint(stat.broken, ==, 0);
	g_assert_false(mapping_may_be_pinned(&fixture.file.mapping));
	g_assert_cmpint(memory_seal_write(&fixture), ==, 0);
	teardown(&fixture);
}

/* Pins come and go while the file is cut and grown: no count may be wrong afterwards. */
struct storm {
	struct fixture *fixture;
	struct gone gone;
	unsigned number;
	unsigned granted;
	atomic_bool *stop;
};

static void *storm_pin(void *data)
{
	struct storm *storm = data;
	struct fixture *fixture = storm->fixture;

	for (unsigned i = 0; i < 1500; i++) {
		uint64_t id;
		int ret = add(fixture, (i * 7 + storm->number) % 12 * PAGE, 3 * PAGE,
			      i % 16 ? 0 : CACHET_PIN_RESIDENT, storm->number,
			      i % 5 ? 0 : 1 + i % 3, &id);

		if (ret) {
			g_assert_true(ret == -EINVAL || ret == -ENOBUFS || ret == -EAGAIN ||
				      (ret == -ENOMEM && geteuid() != 0));
			continue;
		}
		storm->granted++;
		ret = pin_table_remove(fixture->table, &fixture->file.mapping, id, storm->number,
				       gone_done, &storm->gone);
		if (ret) /* its time was over */
			gone_done(0, &storm->gone);
	}
	gone_wait(&storm->gone, storm->granted);
	return NULL;
}

static void *storm_cut(void *data)
{
	struct storm *storm = data;
	struct mapping *mapping = &storm->fixture->file.mapping;

	for (unsigned i = 0; !atomic_load(storm->stop); i++) {
		g_assert_cmpint(mapping_truncate(mapping, (8 + i % 8) * PAGE), ==, 0);
		g_assert_cmpint(mapping_punch(mapping, i % 8 * PAGE, 2 * PAGE), ==, 0);
		if (i % 4 == 0 && mapping_deny_writable(mapping) == 0)
			mapping_allow_writable(mapping);
		pin_table_blocking(storm->fixture->table, mapping);
		g_usleep(50);
	}
	return NULL;
}

static void test_storm(void)
{
	struct fixture fixture;
	struct storm storms[4];
	pthread_t threads[4];
	atomic_bool stop = false;
	unsigned granted = 0;

	if (!setup_sized(&fixture, 15 * PAGE, 16))
		return;
	atomic_fetch_add(&fixture.file.refs, 1);
	for (unsigned i = 0; i < 4; i++) {
		storms[i] = (struct storm){ &fixture, GONE_INIT(&fixture), i + 1, 0, &stop };
		pthread_create(&threads[i], NULL, i < 3 ? storm_pin : storm_cut, &storms[i]);
	}
	for (unsigned i = 0; i < 4; i++) {
		if (i == 3)
			atomic_store(&stop, true);
		pthread_join(threads[i], NULL);
		granted += storms[i].granted;
	}
	g_test_message("%u granted", granted);
	g_assert_cmpuint(granted, >, 100);
	atomic_fetch_sub(&fixture.file.refs, 1);
	wait_for_refs(&fixture.file, 0, 30000);
	assert_nothing_left(&fixture);
	g_assert_cmpint(memory_seal_write(&fixture), ==, 0);
	teardown(&fixture);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	/* A refusal by a limit is worth a warning, not worth dying. */
	g_log_set_always_fatal(G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL);
	g_test_add_func("/unpinning/handles", test_handles);
	g_test_add_func("/unpinning/time-to-live", test_time_to_live);
	g_test_add_func("/unpinning/detached", test_detached);
	g_test_add_func("/unpinning/free-releases", test_free_releases);
	g_test_add_func("/unpinning/cycles", test_cycles);
	g_test_add_func("/unpinning/storm", test_storm);
	return g_test_run();
}
