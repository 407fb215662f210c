/* SPDX-License-Identifier: MIT */
/* The pin table: who gets a pin, when it goes, what it hinders, what is left afterwards. */
#include "cache/pinning.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cache/folio.h"

#define PAGE PAGE_BYTES

/* A file as the rooms above know it, and what its table told them. */
struct file {
	struct reservation budget;
	struct mapping mapping;
	atomic_int refs;
	atomic_int released;
	atomic_int expired;
};

struct fixture {
	struct pin_engine *engine;
	struct pin_table *table;
	struct file file;
};

static void owner_get(void *owner)
{
	atomic_fetch_add(&((struct file *)owner)->refs, 1);
}

static void owner_put(void *owner)
{
	atomic_fetch_sub(&((struct file *)owner)->refs, 1);
}

static void owner_released(struct mapping *mapping, void *owner)
{
	struct file *file = owner;

	g_assert_true(mapping == &file->mapping);
	atomic_fetch_add(&file->released, 1);
}

static void owner_expired(struct mapping *mapping, void *owner, const struct pin_info *info)
{
	struct file *file = owner;

	g_assert_true(mapping == &file->mapping);
	g_assert_true(info->releasing);
	g_assert_cmpuint(info->ttl_ms, >, 0);
	g_assert_cmpint(atomic_load(&file->refs), >, 0);
	atomic_fetch_add(&file->expired, 1);
}

static const struct pin_owner_ops owner_ops = { owner_get, owner_put, owner_released, owner_expired };

static void file_init(struct file *file, uint64_t size, uint64_t limit_pages)
{
	*file = (struct file){ 0 };
	reservation_init(&file->budget, limit_pages);
	g_assert_cmpint(mapping_init(&file->mapping, &file->budget, false), ==, 0);
	g_assert_cmpint(mapping_truncate(&file->mapping, size), ==, 0);
}

static void file_destroy(struct file *file)
{
	g_assert_cmpint(file->refs, ==, 0);
	g_assert_cmpint(file->mapping.writable, <=, 0);
	mapping_destroy(&file->mapping);
	g_assert_cmpuint(file->budget.used, ==, 0);
}

static bool setup_sized(struct fixture *fixture, uint64_t size, unsigned slots)
{
	int error;

	fixture->engine = pin_engine_new_sized(slots, &error);
	if (!fixture->engine) {
		g_assert_cmpint(error, ==, -EOPNOTSUPP);
		g_test_skip("no io_uring with tagged buffers here");
		return false;
	}
	fixture->table = pin_table_new(fixture->engine, &owner_ops);
	g_assert_nonnull(fixture->table);
	file_init(&fixture->file, size, 0);
	return true;
}

static bool setup(struct fixture *fixture, uint64_t size)
{
	return setup_sized(fixture, size, 256);
}

static void teardown(struct fixture *fixture)
{
	struct pin_stat stat;

	pin_table_stat(fixture->table, &stat);
	g_assert_cmpuint(stat.pins, ==, 0);
	g_assert_cmpuint(stat.resident, ==, 0);
	g_assert_cmpuint(stat.pinned_pages, ==, 0);
	pin_table_free(fixture->table);
	g_assert_cmpuint(pin_engine_used(fixture->engine), ==, 0);
	pin_engine_free(fixture->engine);
	file_destroy(&fixture->file);
	g_assert_cmpuint(folio_pins_acquired(), ==, folio_pins_released());
}

static struct pin_request request_of(struct file *file, uint64_t offset, uint64_t length)
{
	return (struct pin_request){
		.offset = offset,
		.length = length,
		.label = "test",
		.uid = 0, /* may take all slots */
		.pid = 42,
		.handle = 7,
		.owner = file,
	};
}

static int add(struct fixture *fixture, uint64_t offset, uint64_t length, uint32_t flags,
	       uint64_t handle, uint64_t ttl_ms, uint64_t *id)
{
	struct pin_request request = request_of(&fixture->file, offset, length);

	request.flags = flags;
	request.handle = handle;
	request.ttl_ms = ttl_ms;
	return pin_table_add(fixture->table, &fixture->file.mapping, &request, id);
}

/* Waits for done() of a removal. */
struct gone {
	struct fixture *fixture;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned count;
};

#define GONE_INIT(fixture) { fixture, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 }

static void gone_done(int result, void *data)
{
	struct gone *gone = data;

	g_assert_cmpint(result, ==, 0);
	/* The owner is still held, and was told before. */
	g_assert_cmpint(gone->fixture->file.refs, >, 0);
	pthread_mutex_lock(&gone->lock);
	gone->count++;
	pthread_cond_broadcast(&gone->changed);
	pthread_mutex_unlock(&gone->lock);
}

static void gone_wait(struct gone *gone, unsigned count)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 30;
	pthread_mutex_lock(&gone->lock);
	while (gone->count < count)
		g_assert_cmpint(pthread_cond_timedwait(&gone->changed, &gone->lock, &end), ==, 0);
	pthread_mutex_unlock(&gone->lock);
}

static int remove_and_wait(struct fixture *fixture, uint64_t id, uint64_t handle)
{
	struct gone gone = GONE_INIT(fixture);
	int ret = pin_table_remove(fixture->table, &fixture->file.mapping, id, handle, gone_done,
				   &gone);

	if (!ret)
		gone_wait(&gone, 1);
	else
		g_assert_cmpuint(gone.count, ==, 0);
	return ret;
}

/* Wait until the file has no more than so many owners' references, which pins hold. */
static void wait_for_refs(struct file *file, int refs, int64_t within_ms)
{
	int64_t end = clock_now_ms() + within_ms;

	while (atomic_load(&file->refs) > refs) {
		g_assert_cmpint(clock_now_ms(), <, end);
		g_usleep(500);
	}
}

static int memory_seal_write(struct fixture *fixture)
{
	return memory_add_seals(&fixture->file.mapping.memory, F_SEAL_WRITE);
}

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

static void assert_nothing_left(struct fixture *fixture)
{
	struct pin_info info;

	g_assert_cmpint(fixture->file.refs, ==, 0);
	g_assert_cmpint(fixture->file.mapping.writable, ==, 0);
	g_assert_false(mapping_may_be_pinned(&fixture->file.mapping));
	g_assert_cmpuint(pin_table_list(fixture->table, &fixture->file.mapping, 0, &info, 1), ==,
			 0);
	g_assert_cmpuint(pin_engine_used(fixture->engine), ==, 0);
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
	g_test_add_func("/pinning/life", test_life);
	g_test_add_func("/pinning/bad-requests", test_bad_requests);
	g_test_add_func("/pinning/denied", test_denied);
	g_test_add_func("/pinning/no-space", test_no_space);
	g_test_add_func("/pinning/full", test_full);
	g_test_add_func("/pinning/shares", test_shares);
	g_test_add_func("/pinning/no-engine", test_no_engine);
	g_test_add_func("/pinning/handles", test_handles);
	g_test_add_func("/pinning/time-to-live", test_time_to_live);
	g_test_add_func("/pinning/resident", test_resident);
	g_test_add_func("/pinning/resident-limit", test_resident_limit);
	g_test_add_func("/pinning/detached", test_detached);
	g_test_add_func("/pinning/free-releases", test_free_releases);
	g_test_add_func("/pinning/no-memory", test_no_memory);
	g_test_add_func("/pinning/cycles", test_cycles);
	g_test_add_func("/pinning/storm", test_storm);
	return g_test_run();
}
