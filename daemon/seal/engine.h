/* SPDX-License-Identifier: MIT */
/*
 * The threads of sealing: a pool that runs what may sleep, and a clock that wakes what waits. FUSE
 * workers never do either.
 */
#pragma once

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/histogram.h"

struct sealing;

/**
 * struct seal_engine - one per mount
 * @run:     what is to be done for a file that has work
 * @pool:    does it
 * @busy_pool: ... for files that are likely to make it sleep: whoever has many of them keeps no
 *           other file waiting
 * @clock:   context of the timers
 * @loop:    runs @clock, on @thread
 * @waiting: requests that are not decided at the moment
 * @unanswered: these, and those that are decided and whose answer is on its way
 * @max_waiting: more may not wait and get -EAGAIN; 0 is no limit. A transport that keeps a buffer
 *           for each request that is not answered sets it.
 * @spare:   one worker of the transport may ask a memory, and sleep for as long as that takes,
 *           because others take its place; clear while it does. Never set where each worker is the
 *           only one of its processor
 * @waits:   how long those took that had to wait, of milliseconds
 */
struct seal_engine {
	void (*run)(struct sealing *sealing);
	GThreadPool *pool;
	GThreadPool *busy_pool;
	GMainContext *clock;
	GMainLoop *loop;
	GThread *thread;
	atomic_uint waiting;
	atomic_uint unanswered;
	unsigned max_waiting;
	atomic_bool spare;
	atomic_ulong granted;
	atomic_ulong refused;
	atomic_ulong waited;
	struct histogram waits;
};

/**
 * seal_engine_start() - start the threads
 * @run: sealing_run(), or what a test has in its place; may sleep
 * Context: once at start-up.
 * Return: 0, -EAGAIN (no threads).
 */
int seal_engine_start(struct seal_engine *engine, void (*run)(struct sealing *sealing));

/**
 * seal_engine_stop() - let what runs finish, then stop the threads
 * Context: sleeps; no new request comes.
 */
void seal_engine_stop(struct seal_engine *engine);

/**
 * seal_engine_push() - a file has work for a pool
 * @sealing: takes a reference that @run puts
 * @busy: its memory had references when it was asked last
 * Context: any, locks may be held.
 */
void seal_engine_push(struct seal_engine *engine, struct sealing *sealing, bool busy);

/**
 * seal_engine_spare_take() - may this thread sleep for a seal?
 * Context: any, locks may be held.
 * Return: true: it may, and seal_engine_spare_done() follows.
 */
bool seal_engine_spare_take(struct seal_engine *engine);

/**
 * seal_engine_spare_done() - the end of seal_engine_spare_take()
 * Context: any, locks may be held.
 */
void seal_engine_spare_done(struct seal_engine *engine);

/**
 * seal_engine_call_at() - call a function at a time
 * @at_ms: of clock_now_ms()
 * @function: called on the clock's thread; must not sleep
 * @data: for @function
 * @release: called with @data once the source is gone, called or not
 * Context: any, locks may be held.
 * Return: returns a reference to the source, for seal_engine_cancel().
 */
GSource *seal_engine_call_at(struct seal_engine *engine, int64_t at_ms, GSourceFunc function,
			     gpointer data, GDestroyNotify release);

/**
 * seal_engine_cancel() - the call is no longer wanted; it may be under way
 * @source: takes; may be NULL
 * Context: any, locks may be held.
 */
void seal_engine_cancel(GSource *source);
