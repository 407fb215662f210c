/* SPDX-License-Identifier: MIT */
/* Who gets a pin, what it hinders while it is held, and what is left when it is refused. */
#include "pinning_fixture.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/alloc.h"

static void test_life(void)
{
	struct fixture fixture;
	struct file *file = &fixture.file;
	struct pin_table *table;
	struct pin_info info[4];
	struct pin_stat stat;
	uint64_t first, second;

	if (!setup(&fixture, 10 * PAGE + 100))
		return;
	table = fixture.table;
	g_assert_cmpint(add(&fixture, 100, PAGE, 0, 7, 0, &first), ==, 0);
	g_assert_cmpint(add(&fixture, 9 * PAGE, PAGE + 100, 0, 8, 5000, &second), ==, 0);
	g_assert_cmpuint(second, >, first);
	g_assert_cmpint(file->refs, ==, 2);
	g_assert_cmpint(file->released, ==, 0);
	g_assert_cmpint(file->mapping.writable, ==, 0);
	g_assert_true(mapping_may_be_pinned(&file->mapping));
	g_assert_cmpuint(pin_table_blocking(table, &file->mapping), ==, 2);
	g_assert_cmpint(memory_seal_write(&fixture), ==, -EBUSY);

	g_assert_cmpuint(pin_table_list(table, &file->mapping, 0, info, 4), ==, 2);
	g_assert_cmpuint(info[0].id, ==, first);
	g_assert_cmpuint(info[0].offset, ==, 0);
	g_assert_cmpuint(info[0].length, ==, 2 * PAGE);
	g_assert_cmpuint(info[0].handle, ==, 7);
	g_assert_cmpuint(info[0].uid, ==, 0);
	g_assert_cmpint(info[0].pid, ==, 42);
	g_assert_cmpstr(info[0].label, ==, "test");
	g_assert_cmpint(clock_now_ms() - info[0].created_ms, <, 30000);
	g_assert_true(info[0].blocking);
	g_assert_false(info[0].releasing);
	g_assert_cmpuint(info[1].length, ==, 2 * PAGE);
	g_assert_cmpuint(info[1].ttl_ms, ==, 5000);
	g_assert_cmpuint(pin_table_list(table, &file->mapping, 0, info, 1), ==, 1);
	g_assert_cmpuint(pin_table_list(table, &file->mapping, first, info, 4), ==, 1);
	g_assert_cmpuint(info[0].id, ==, second);
	g_assert_cmpuint(pin_table_list(table, &file->mapping, second, info, 4), ==, 0);
	pin_table_stat(table, &stat);
	g_assert_cmpuint(stat.pins, ==, 2);
	g_assert_cmpuint(stat.pinned_pages, ==, 4);
	g_assert_cmpuint(stat.granted, ==, 2);
	g_assert_cmpuint(stat.broken, ==, 0);

	g_assert_cmpint(remove_and_wait(&fixture, first, 8), ==, -EPERM);
	g_assert_cmpint(remove_and_wait(&fixture, first, 7), ==, 0);
	g_assert_cmpint(file->released, ==, 1);
	g_assert_cmpint(remove_and_wait(&fixture, first, 7), ==, -ENOENT);
	g_assert_cmpint(memory_seal_write(&fixture), ==, -EBUSY);
	g_assert_cmpuint(pin_table_blocking(table, &file->mapping), ==, 1);
	g_assert_cmpint(remove_and_wait(&fixture, second, 0), ==, 0);
	g_assert_cmpuint(pin_table_blocking(table, &file->mapping), ==, 0);
	g_assert_false(mapping_may_be_pinned(&file->mapping));
	g_assert_cmpint(memory_seal_write(&fixture), ==, 0);
	pin_table_stat(table, &stat);
	g_assert_cmpuint(stat.broken, ==, 1);
	wait_for_refs(file, 0, 30000);
	teardown(&fixture);
}

static void test_bad_requests(void)
{
	static const struct {
		uint64_t offset, length;
		uint32_t flags;
	} bad[] = {
		{ 0, 0, 0 },
		{ 0, 4 * PAGE + 1, 0 },
		{ 4 * PAGE, 1, 0 },
		{ 4 * PAGE - 1, 2, 0 },
		{ 0, UINT64_MAX, 0 },
		{ UINT64_MAX, 1, 0 },
		{ UINT64_MAX - 1, 2, 0 },
		{ INT64_MAX, INT64_MAX, 0 },
		{ 0, INT64_MAX, CACHET_PIN_RESIDENT },
		{ 0, 4 * PAGE + 1, CACHET_PIN_RESIDENT },
		{ 0, PAGE, 0x8000 },
	};
	struct fixture fixture;
	uint64_t id;

	if (!setup(&fixture, 4 * PAGE))
		return;
	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_assert_cmpint(add(&fixture, bad[i].offset, bad[i].length, bad[i].flags, 7, 0,
				    &id), ==, -EINVAL);
		assert_nothing_left(&fixture);
	}
	g_assert_cmpint(remove_and_wait(&fixture, 1, 0), ==, -ENOENT);
	g_assert_cmpint(remove_and_wait(&fixture, 0, 0), ==, -ENOENT);
	teardown(&fixture);
}

static void test_denied(void)
{
	struct fixture fixture;
	struct mapping *mapping;
	uint64_t id, later;

	if (!setup(&fixture, 4 * PAGE))
		return;
	mapping = &fixture.file.mapping;

	/* Somebody asks the memory for a seal: the outcome is open. */
	g_assert_cmpint(mapping_deny_writable(mapping), ==, 0);
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, 0, &id), ==, -EAGAIN);
	g_assert_cmpint(add(&fixture, 0, PAGE, CACHET_PIN_RESIDENT, 7, 0, &id), ==, 0);
	g_assert_cmpint(remove_and_wait(&fixture, id, 7), ==, 0);
	mapping_allow_writable(mapping);
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, 0, &id), ==, 0);

	/* FUTURE_WRITE: pins that are held stay, new ones are refused. */
	g_assert_cmpint(mapping_deny_writable(mapping), ==, 0);
	g_assert_cmpint(mapping_add_seals(mapping, F_SEAL_FUTURE_WRITE), ==, 0);
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, 0, &later), ==, -EPERM);
	g_assert_cmpuint(pin_table_blocking(fixture.table, mapping), ==, 1);
	g_assert_cmpint(mapping_add_seals(mapping, F_SEAL_WRITE), ==, -EBUSY);
	g_assert_cmpint(remove_and_wait(&fixture, id, 7), ==, 0);
	g_assert_cmpint(mapping_add_seals(mapping, F_SEAL_WRITE), ==, 0);
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, 0, &later), ==, -EPERM);

	/* Residency is no threat to a seal. */
	g_assert_cmpint(add(&fixture, 0, 4 * PAGE, CACHET_PIN_RESIDENT, 7, 0, &id), ==, 0);
	g_assert_cmpint(remove_and_wait(&fixture, id, 7), ==, 0);
	wait_for_refs(&fixture.file, 0, 30000);
	mapping_allow_writable(mapping);
	teardown(&fixture);
}

static void test_no_space(void)
{
	struct fixture fixture;
	uint64_t id;

	if (!setup(&fixture, 0))
		return;
	file_destroy(&fixture.file);
	file_init(&fixture.file, 16 * PAGE, 4);
	g_assert_cmpint(add(&fixture, 0, 8 * PAGE, 0, 7, 0, &id), ==, -ENOSPC);
	assert_nothing_left(&fixture);
	/* Who waits for the window of the refused pin has been told. */
	g_assert_cmpint(fixture.file.released, ==, 1);
	g_assert_cmpint(add(&fixture, 0, 8 * PAGE, CACHET_PIN_RESIDENT, 7, 0, &id), ==, -ENOSPC);
	assert_nothing_left(&fixture);
	teardown(&fixture);
}

static void test_full(void)
{
	struct fixture fixture;
	uint64_t ids[3];

	if (!setup_sized(&fixture, 8 * PAGE, 2))
		return;
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, 0, &ids[0]), ==, 0);
	g_assert_cmpint(add(&fixture, PAGE, PAGE, 0, 7, 0, &ids[1]), ==, 0);
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, 0, &ids[2]), ==, -ENOBUFS);
	g_assert_cmpint(fixture.file.released, ==, 0);
	g_assert_cmpint(fixture.file.mapping.writable, ==, 0);
	g_assert_cmpint(remove_and_wait(&fixture, ids[0], 7), ==, 0);
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, 0, &ids[2]), ==, 0);
	g_assert_cmpuint(ids[2], >, ids[1]);
	pin_table_remove_handle(fixture.table, &fixture.file.mapping, 7);
	wait_for_refs(&fixture.file, 0, 30000);
	assert_nothing_left(&fixture);
	teardown(&fixture);
}

static int add_of(struct fixture *fixture, uid_t uid, uint32_t flags, uint64_t *id)
{
	struct pin_request request = request_of(&fixture->file, 0, PAGE);

	request.uid = uid;
	request.flags = flags;
	return pin_table_add(fixture->table, &fixture->file.mapping, &request, id);
}

/* One user has at most what is left for others; slots count until the kernel has let go. */
static void test_shares(void)
{
	const uid_t one = geteuid() + 1, two = geteuid() + 2;
	struct fixture fixture;
	uint64_t ids[16], id;

	if (!setup_sized(&fixture, 8 * PAGE, 8))
		return;
	for (unsigned i = 0; i < 4; i++)
		g_assert_cmpint(add_of(&fixture, one, 0, &ids[i]), ==, 0);
	g_assert_cmpint(add_of(&fixture, one, 0, &id), ==, -EDQUOT);
	g_assert_cmpint(add_of(&fixture, one, CACHET_PIN_RESIDENT, &id), ==, 0);
	g_assert_cmpint(remove_and_wait(&fixture, id, 7), ==, 0);
	for (unsigned i = 4; i < 6; i++)
		g_assert_cmpint(add_of(&fixture, two, 0, &ids[i]), ==, 0);
	g_assert_cmpint(add_of(&fixture, two, 0, &id), ==, -EDQUOT);
	/* A pin that is refused for another reason takes no share. */
	g_assert_cmpint(mapping_deny_writable(&fixture.file.mapping), ==, 0);
	g_assert_cmpint(add_of(&fixture, geteuid() + 3, 0, &id), ==, -EAGAIN);
	mapping_allow_writable(&fixture.file.mapping);
	g_assert_cmpint(add_of(&fixture, geteuid() + 3, 0, &ids[6]), ==, 0);
	/* Neither root nor the daemon's own user is held to that. */
	g_assert_cmpint(add_of(&fixture, geteuid(), 0, &ids[7]), ==, 0);
	g_assert_cmpint(add_of(&fixture, 0, 0, &id), ==, -ENOBUFS);
	g_assert_cmpint(add_of(&fixture, one, 0, &id), ==, -ENOBUFS);
	g_assert_cmpint(remove_and_wait(&fixture, ids[7], 7), ==, 0);
	g_assert_cmpint(remove_and_wait(&fixture, ids[0], 7), ==, 0);
	g_assert_cmpint(remove_and_wait(&fixture, ids[1], 7), ==, 0);
	g_assert_cmpint(add_of(&fixture, one, 0, &id), ==, -EDQUOT);
	g_assert_cmpint(remove_and_wait(&fixture, ids[2], 7), ==, 0);
	g_assert_cmpint(add_of(&fixture, one, 0, &id), ==, 0);
	pin_table_remove_handle(fixture.table, &fixture.file.mapping, 7);
	wait_for_refs(&fixture.file, 0, 30000);
	assert_nothing_left(&fixture);
	teardown(&fixture);
}

static void test_no_engine(void)
{
	struct pin_table *table = pin_table_new(NULL, &owner_ops);
	struct pin_request request;
	struct file file;
	uint64_t id;

	file_init(&file, 4 * PAGE, 0);
	request = request_of(&file, 0, PAGE);
	g_assert_cmpint(pin_table_add(table, &file.mapping, &request, &id), ==, -EOPNOTSUPP);
	request.flags = CACHET_PIN_RESIDENT;
	g_assert_cmpint(pin_table_add(table, &file.mapping, &request, &id), ==, 0);
	g_assert_cmpint(file.refs, ==, 1);
	g_assert_cmpint(pin_table_remove(table, &file.mapping, id, 7, NULL, NULL), ==, 0);
	g_assert_cmpint(file.refs, ==, 0);
	pin_table_free(table);
	file_destroy(&file);
}

static long locked_kib(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	char line[128];
	long value = -1;

	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "VmLck: %ld", &value) == 1)
			break;
	fclose(file);
	return value;
}

/* Sanitizers turn mlock() into nothing. */
static bool mlock_works(void)
{
	static char page[2 * PAGE_BYTES];
	long before = locked_kib();
	bool works;

	g_assert_cmpint(mlock(page, sizeof(page)), ==, 0);
	works = locked_kib() > before;
	munlock(page, sizeof(page));
	return works;
}

static void test_resident(void)
{
	struct fixture fixture;
	struct mapping *mapping;
	unsigned char present[64] = { 0 };
	long before = locked_kib();
	uint64_t id;
	void *view;

	if (!setup(&fixture, 64 * PAGE))
		return;
	mapping = &fixture.file.mapping;
	g_assert_cmpint(add(&fixture, 0, 64 * PAGE, CACHET_PIN_RESIDENT, 7, 0, &id), ==, 0);
	g_assert_cmpint(memory_map(&mapping->memory, 0, 64 * PAGE, false, &view), ==, 0);
	g_assert_cmpint(mincore(view, 64 * PAGE, present), ==, 0);
	memory_unmap(view, 64 * PAGE);
	if (mlock_works()) {
		g_assert_cmpint(locked_kib() - before, ==, 64 * 4);
		for (int i = 0; i < 64; i++)
			g_assert_true(present[i] & 1);
	}

	g_assert_cmpuint(pin_table_blocking(fixture.table, mapping), ==, 0);
	g_assert_false(mapping_may_be_pinned(mapping));
	g_assert_cmpint(mapping_deny_writable(mapping), ==, 0);
	g_assert_cmpint(mapping_add_seals(mapping, F_SEAL_WRITE), ==, 0);
	g_assert_cmpint(remove_and_wait(&fixture, id, 7), ==, 0);
	g_assert_cmpint(locked_kib(), ==, before);
	g_assert_cmpint(fixture.file.released, ==, 0);
	mapping_allow_writable(mapping);
	teardown(&fixture);
}

static void test_resident_limit(void)
{
	struct rlimit limit;
	struct fixture fixture;
	uint64_t id;

	g_assert_cmpint(getrlimit(RLIMIT_MEMLOCK, &limit), ==, 0);
	if (geteuid() != 0 && limit.rlim_cur < (PIN_RESIDENT_MAX + 1) * PAGE) {
		g_test_skip("RLIMIT_MEMLOCK is too small");
		return;
	}
	if (!setup(&fixture, PAGE))
		return;
	for (unsigned i = 0; i < PIN_RESIDENT_MAX; i++)
		g_assert_cmpint(add(&fixture, 0, PAGE, CACHET_PIN_RESIDENT, 7, 0, &id), ==, 0);
	g_assert_cmpint(add(&fixture, 0, PAGE, CACHET_PIN_RESIDENT, 7, 0, &id), ==, -ENOBUFS);
	g_assert_cmpint(add(&fixture, 0, PAGE, 0, 7, 0, &id), ==, 0);
	g_assert_cmpint(remove_and_wait(&fixture, id, 7), ==, 0);
	pin_table_remove_handle(fixture.table, &fixture.file.mapping, 7);
	wait_for_refs(&fixture.file, 0, 30000);
	assert_nothing_left(&fixture);
	teardown(&fixture);
}

static void test_no_memory(void)
{
	int failed = 1;

	for (unsigned long n = 1; failed; n++) {
		struct pin_request request;
		struct fixture fixture;
		uint64_t id = 0;
		int ret;

		g_assert_cmpuint(n, <, 60);
		if (!setup(&fixture, 8 * PAGE))
			return;
		mem_test_begin(n);
		request = request_of(&fixture.file, 0, 4 * PAGE);
		request.flags = n % 2 ? 0 : CACHET_PIN_RESIDENT;
		request.ttl_ms = 1000000;
		request.uid = geteuid() + 1;
		ret = pin_table_add(fixture.table, &fixture.file.mapping, &request, &id);
		mem_test_end(&failed);
		if (ret) {
			g_assert_cmpint(ret, ==, -ENOMEM);
			g_assert_true(failed);
			assert_nothing_left(&fixture);
		} else {
			g_assert_cmpint(remove_and_wait(&fixture, id, 7), ==, 0);
			wait_for_refs(&fixture.file, 0, 30000);
		}
		teardown(&fixture);
	}
	mem_test_begin(1);
	g_assert_null(pin_table_new(NULL, &owner_ops));
	g_assert_cmpint(mem_test_end(NULL), ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	/* A refusal by a limit is worth a warning, not worth dying. */
	g_log_set_always_fatal(G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL);
	g_test_add_func("/pinning/life", test_life);
	g_test_add_func("/pinning/bad-requests", test_bad_requests);
	g_test_add_func("/pinning/denied", test_denied);
	g_test_add_func("/pinning/no-space", test_no_space);
	g_test_add_func("/pinning/full", test_full);
	g_test_add_func("/pinning/shares", test_shares);
	g_test_add_func("/pinning/no-engine", test_no_engine);
	g_test_add_func("/pinning/resident", test_resident);
	g_test_add_func("/pinning/resident-limit", test_resident_limit);
	g_test_add_func("/pinning/no-memory", test_no_memory);
	return g_test_run();
}
