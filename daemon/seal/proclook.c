/* SPDX-License-Identifier: MIT */
#include "seal/proclook.h"

#include <errno.h>
#include <stdint.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/thread.h"

/* The processes that a thread each waits for in vain; 0 is a free place. */
static struct {
	pthread_mutex_t lock;
	pid_t pids[LOOKS_LOST_MAX];
} lost = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Return: was there one? */
static bool lost_replace(pid_t from, pid_t to)
{
	scoped_mutex(&lost.lock);
	for (unsigned i = 0; i < LOOKS_LOST_MAX; i++)
		if (lost.pids[i] == from) {
			lost.pids[i] = to;
			return true;
		}
	return false;
}

static bool lost_has(pid_t pid)
{
	return lost_replace(pid, pid);
}

void proclook_init(struct proclook *look)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&look->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&look->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	look->refs = 1;
}

void proclook_put(struct proclook *look)
{
	bool last;

	if (!look)
		return;
	pthread_mutex_lock(&look->lock);
	last = --look->refs == 0;
	pthread_mutex_unlock(&look->lock);
	if (!last)
		return;
	pthread_cond_destroy(&look->changed);
	pthread_mutex_destroy(&look->lock);
	look->free(look);
}

static void *look_thread(void *data)
{
	struct proclook *look = data;
	pid_t pid;

	look->run(look);
	pthread_mutex_lock(&look->lock);
	look->done = true;
	pid = look->given_up ? look->pid : 0;
	pthread_cond_signal(&look->changed);
	pthread_mutex_unlock(&look->lock);
	if (pid)
		lost_replace(pid, 0);
	proclook_put(look);
	return NULL;
}

static bool look_start(struct proclook *look)
{
	pthread_attr_t detached;
	pthread_t thread;
	bool started;

	look->refs++;
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	started = thread_start(&thread, &detached, look_thread, look) == 0;
	pthread_attr_destroy(&detached);
	if (!started)
		look->refs--;
	return started;
}

/* Return: false when time is over. */
static bool look_wait_locked(struct proclook *look, int64_t until_ms)
{
	const struct timespec until = {
		.tv_sec = until_ms / 1000,
		.tv_nsec = until_ms % 1000 * 1000000,
	};

	lock_assert_held(&look->lock);
	return pthread_cond_timedwait(&look->changed, &look->lock, &until) != ETIMEDOUT;
}

static bool look_attend(struct proclook *look, unsigned patience_ms)
{
	scoped_mutex(&look->lock);
	while (!look->done) {
		unsigned long seen = atomic_load(&look->progress);
		int64_t until_ms = clock_now_ms() + patience_ms;

		while (!look->done && look_wait_locked(look, until_ms))
			;
		if (look->done || atomic_load(&look->progress) != seen)
			continue;
		look->given_up = true;
		lost_replace(0, look->pid);
		log_warning("process %d cannot be looked at: its memory map is locked", look->pid);
		return false;
	}
	return true;
}

bool proclook_run(struct proclook *look, unsigned patience_ms)
{
	if (!lost_has(0))
		return false;
	if (look_start(look))
		return look_attend(look, patience_ms);
	look->run(look);
	return true;
}

bool proclook_at(struct proclook *look, pid_t pid, unsigned place)
{
	proclook_progress(look);
	scoped_mutex(&look->lock);
	if (look->given_up)
		return false;
	look->pid = pid;
	look->place = place;
	return !lost_has(pid);
}

void proclook_progress(struct proclook *look)
{
	atomic_fetch_add(&look->progress, 1);
}

bool proclook_enter(struct proclook *look)
{
	pthread_mutex_lock(&look->lock);
	if (!look->given_up)
		return true;
	pthread_mutex_unlock(&look->lock);
	return false;
}

void proclook_leave(struct proclook *look)
{
	pthread_mutex_unlock(&look->lock);
}
