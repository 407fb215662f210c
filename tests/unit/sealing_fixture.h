/* SPDX-License-Identifier: MIT */
/*
 * A file that can be sealed, below callbacks of our own, and who asks for seals: real memory, real
 * threads.
 */
#pragma once

#include "seal/sealing.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"
#include "cache/mapping_pins.h"

#define PAGE PAGE_BYTES
#define PATIENCE_MS 30000
#define CONTENT (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)

/* Fails the test when it takes too long. */
#define wait_until(condition)                                               \
	do {                                                                \
		int64_t end_ms = clock_now_ms() + PATIENCE_MS;              \
                                                                            \
		while (!(condition)) {                                      \
			g_assert_cmpint(clock_now_ms(), <, end_ms);         \
			g_usleep(200);                                      \
		}                                                           \
	} while (0)

/* A file as the rooms above know it, and what they were told. */
struct file {
	struct seal_engine engine;
	struct reservation budget;
	struct mapping mapping;
	pthread_mutex_t lock;
	struct sealing sealing;
	atomic_int refs;
	atomic_int granted;
	atomic_uint granted_seals;
	atomic_int stale;
	mode_t mode;
	atomic_bool mapped;
	/* What asks the memory, or /proc, stops here while it is shut. */
	atomic_bool gate_shut;
	atomic_bool at_gate;
};

static inline struct file *file_of(struct sealing *sealing)
{
	return container_of(sealing, struct file, sealing);
}

static inline void file_get(struct sealing *sealing)
{
	atomic_fetch_add(&file_of(sealing)->refs, 1);
}

static inline void assert_unlocked(struct file *file)
{
	/* Others may hold it, but not for long. */
	pthread_mutex_lock(&file->lock);
	pthread_mutex_unlock(&file->lock);
}

static inline void file_put(struct sealing *sealing)
{
	g_assert_cmpint(atomic_fetch_sub(&file_of(sealing)->refs, 1), >, 0);
}

static inline void file_granted(struct sealing *sealing, unsigned added)
{
	struct file *file = file_of(sealing);

	assert_unlocked(file);
	g_assert_cmpuint(sealing_current(sealing) & added, ==, added);
	g_assert_cmpuint(atomic_fetch_or(&file->granted_seals, added) & added, ==, 0);
	atomic_fetch_add(&file->granted, 1);
}

static inline void wait_until_open(struct file *file)
{
	if (!atomic_load(&file->gate_shut))
		return;
	atomic_store(&file->at_gate, true);
	wait_until(!atomic_load(&file->gate_shut));
	atomic_store(&file->at_gate, false);
}

static inline void file_attr_stale(struct sealing *sealing)
{
	struct file *file = file_of(sealing);

	assert_unlocked(file);
	atomic_fetch_add(&file->stale, 1);
	wait_until_open(file);
}

static inline bool file_mapped(struct sealing *sealing)
{
	struct file *file = file_of(sealing);

	assert_unlocked(file);
	wait_until_open(file);
	return atomic_load(&file->mapped);
}

static inline mode_t file_mode_locked(struct sealing *sealing)
{
	lock_assert_held(sealing->lock);
	return file_of(sealing)->mode;
}

static const struct sealing_ops file_ops = {
	.get = file_get,
	.put = file_put,
	.granted = file_granted,
	.attr_stale = file_attr_stale,
	.mapped = file_mapped,
	.mode_locked = file_mode_locked,
};

static inline void setup_limited(struct file *file, bool shared, uint64_t limit_pages)
{
	memset(file, 0, sizeof(*file));
	pthread_mutex_init(&file->lock, NULL);
	reservation_init(&file->budget, limit_pages);
	g_assert_cmpint(mapping_init(&file->mapping, &file->budget, shared), ==, 0);
	g_assert_cmpint(mapping_truncate(&file->mapping, 16 * PAGE), ==, 0);
	file->mode = S_IFREG | 0644;
	sealing_init(&file->sealing, &file->lock, &file->mapping, &file->engine, &file_ops);
	file->sealing.exposed = shared;
	/* Last: ThreadSanitizer does not look into GLib, but knows what was before a thread. */
	g_assert_cmpint(seal_engine_start(&file->engine, sealing_run), ==, 0);
}

static inline void setup(struct file *file, bool shared)
{
	setup_limited(file, shared, 0);
}

static inline void wait_for_waiting(struct file *file, unsigned count)
{
	wait_until(atomic_load(&file->engine.unanswered) == count);
}

static inline void teardown(struct file *file)
{
	g_assert_true(list_empty(&file->sealing.requests));
	g_assert_true(list_empty(&file->sealing.admissions));
	wait_for_waiting(file, 0);
	seal_engine_stop(&file->engine);
	g_assert_cmpint(file->refs, ==, 0);
	while (file->mapping.writable < 0)
		mapping_allow_writable(&file->mapping);
	mapping_destroy(&file->mapping);
	pthread_mutex_destroy(&file->lock);
}

/* A request, and how it ended. */
struct waiter {
	struct seal_request request;
	struct file *file;
	atomic_int calls;
	atomic_int result;
	pthread_t thread; /* who said so */
};

static inline void waiter_done(struct seal_request *request, int result)
{
	struct waiter *waiter = container_of(request, struct waiter, request);

	assert_unlocked(waiter->file);
	atomic_store(&waiter->result, result);
	waiter->thread = pthread_self();
	atomic_fetch_add(&waiter->calls, 1);
}

static inline int waiter_start(struct waiter *waiter, struct file *file)
{
	waiter->file = file;
	waiter->request.done = waiter_done;
	return seal_submit(&file->sealing, &waiter->request);
}

static inline int64_t in_ms(int64_t timeout)
{
	return timeout < 0 ? -1 : clock_now_ms() + timeout;
}

static inline int submit(struct waiter *waiter, struct file *file, unsigned seals, int64_t timeout)
{
	memset(waiter, 0, sizeof(*waiter));
	waiter->request.seals = seals;
	waiter->request.deadline_ms = in_ms(timeout);
	return waiter_start(waiter, file);
}

static inline int waiter_wait(struct waiter *waiter)
{
	wait_until(atomic_load(&waiter->calls));
	/* One that came twice would come soon. */
	g_usleep(1000);
	g_assert_cmpint(waiter->calls, ==, 1);
	return waiter->result;
}

/* The whole of it. */
static inline int seal(struct file *file, unsigned seals, int64_t timeout)
{
	struct waiter waiter;
	int result = submit(&waiter, file, seals, timeout);

	if (result != -EINPROGRESS) {
		g_assert_cmpint(waiter.calls, ==, 0);
		return result;
	}
	return waiter_wait(&waiter);
}

static inline void add_writer(struct file *file, struct writer *writer, uint64_t handle)
{
	*writer = (struct writer){ .handle = handle };
	pthread_mutex_lock(&file->lock);
	g_assert_cmpint(sealing_admit_writer_locked(&file->sealing, NULL), ==, 0);
	sealing_add_writer_locked(&file->sealing, writer);
	pthread_mutex_unlock(&file->lock);
}

static inline void remove_writer(struct file *file, struct writer *writer)
{
	pthread_mutex_lock(&file->lock);
	sealing_remove_writer_locked(&file->sealing, writer);
	pthread_mutex_unlock(&file->lock);
}

static inline int admit(struct file *file, struct admission *admission)
{
	int result;

	pthread_mutex_lock(&file->lock);
	result = sealing_admit_writer_locked(&file->sealing, admission);
	pthread_mutex_unlock(&file->lock);
	return result;
}

static inline void shut_gate(struct file *file)
{
	atomic_store(&file->gate_shut, true);
}

static inline void wait_at_gate(struct file *file)
{
	wait_until(atomic_load(&file->at_gate));
}

static inline void open_gate(struct file *file)
{
	atomic_store(&file->gate_shut, false);
}

/* Nobody may write, and nobody has noticed that anybody asked. */
static inline void assert_untouched(struct file *file)
{
	g_assert_cmpuint(sealing_current(&file->sealing), ==, 0);
	g_assert_cmpint(file->granted, ==, 0);
	g_assert_cmpint(file->mapping.writable, >=, 0);
	g_assert_cmpint(admit(file, NULL), ==, 0);
	g_assert_cmpint(mapping_write(&file->mapping, "x", 1, 0), ==, 1);
}

struct arrival {
	struct admission admission;
	atomic_int resumed;
};

static inline void arrival_resume(struct admission *admission)
{
	atomic_fetch_add(&container_of(admission, struct arrival, admission)->resumed, 1);
}

static inline void arrival_init(struct arrival *arrival)
{
	memset(arrival, 0, sizeof(*arrival));
	list_init(&arrival->admission.link);
	arrival->admission.resume = arrival_resume;
}

static inline void arrival_wait(struct arrival *arrival)
{
	wait_until(atomic_load(&arrival->resumed));
	g_usleep(1000);
	g_assert_cmpint(arrival->resumed, ==, 1);
}

static inline int hand_over_start(struct waiter *waiter, struct file *file, enum seal_verb verb,
				  uint64_t handle, uint64_t owner, int64_t timeout)
{
	memset(waiter, 0, sizeof(*waiter));
	waiter->request.verb = verb;
	waiter->request.seals = F_SEAL_WRITE;
	waiter->request.handle = handle;
	waiter->request.owner = owner;
	waiter->request.deadline_ms = in_ms(timeout);
	return waiter_start(waiter, file);
}

static inline int hand_over(struct file *file, enum seal_verb verb, uint64_t handle, uint64_t owner)
{
	struct waiter waiter;
	int result = hand_over_start(&waiter, file, verb, handle, owner, 20);

	return result == -EINPROGRESS ? waiter_wait(&waiter) : result;
}
