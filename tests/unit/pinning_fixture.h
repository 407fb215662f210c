/* SPDX-License-Identifier: MIT */
/* A pin table with a file whose pages it pins, below an owner of our own: real memory, real rings. */
#pragma once

#include "cache/pinning.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

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

static inline void owner_get(void *owner)
{
	atomic_fetch_add(&((struct file *)owner)->refs, 1);
}

static inline void owner_put(void *owner)
{
	atomic_fetch_sub(&((struct file *)owner)->refs, 1);
}

static inline void owner_released(struct mapping *mapping, void *owner)
{
	struct file *file = owner;

	g_assert_true(mapping == &file->mapping);
	atomic_fetch_add(&file->released, 1);
}

static inline void owner_expired(struct mapping *mapping, void *owner, const struct pin_info *info)
{
	struct file *file = owner;

	g_assert_true(mapping == &file->mapping);
	g_assert_true(info->releasing);
	g_assert_cmpuint(info->ttl_ms, >, 0);
	g_assert_cmpint(atomic_load(&file->refs), >, 0);
	atomic_fetch_add(&file->expired, 1);
}

static const struct pin_owner_ops owner_ops = {
	.get = owner_get,
	.put = owner_put,
	.released = owner_released,
	.expired = owner_expired,
};

static inline void file_init(struct file *file, uint64_t size, uint64_t limit_pages)
{
	*file = (struct file){ 0 };
	reservation_init(&file->budget, limit_pages);
	g_assert_cmpint(mapping_init(&file->mapping, &file->budget, false), ==, 0);
	g_assert_cmpint(mapping_truncate(&file->mapping, size), ==, 0);
}

static inline void file_destroy(struct file *file)
{
	g_assert_cmpint(file->refs, ==, 0);
	g_assert_cmpint(file->mapping.writable, <=, 0);
	mapping_destroy(&file->mapping);
	g_assert_cmpuint(file->budget.used, ==, 0);
}

static inline bool setup_sized(struct fixture *fixture, uint64_t size, unsigned slots)
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

static inline bool setup(struct fixture *fixture, uint64_t size)
{
	return setup_sized(fixture, size, 256);
}

static inline void teardown(struct fixture *fixture)
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

static inline struct pin_request request_of(struct file *file, uint64_t offset, uint64_t length)
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

static inline int add(struct fixture *fixture, uint64_t offset, uint64_t length, uint32_t flags,
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

static inline void gone_done(int result, void *data)
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

static inline void gone_wait(struct gone *gone, unsigned count)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 30;
	pthread_mutex_lock(&gone->lock);
	while (gone->count < count)
		g_assert_cmpint(pthread_cond_timedwait(&gone->changed, &gone->lock, &end), ==, 0);
	pthread_mutex_unlock(&gone->lock);
}

static inline int remove_and_wait(struct fixture *fixture, uint64_t id, uint64_t handle)
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
static inline void wait_for_refs(struct file *file, int refs, int64_t within_ms)
{
	int64_t end = clock_now_ms() + within_ms;

	while (atomic_load(&file->refs) > refs) {
		g_assert_cmpint(clock_now_ms(), <, end);
		g_usleep(500);
	}
}

static inline int memory_seal_write(struct fixture *fixture)
{
	return memory_add_seals(&fixture->file.mapping.memory, F_SEAL_WRITE);
}

static inline void assert_nothing_left(struct fixture *fixture)
{
	struct pin_info info;

	g_assert_cmpint(fixture->file.refs, ==, 0);
	g_assert_cmpint(fixture->file.mapping.writable, ==, 0);
	g_assert_false(mapping_may_be_pinned(&fixture->file.mapping));
	g_assert_cmpuint(pin_table_list(fixture->table, &fixture->file.mapping, 0, &info, 1), ==,
			 0);
	g_assert_cmpuint(pin_engine_used(fixture->engine), ==, 0);
}
