/* SPDX-License-Identifier: MIT */
#include "seal/engine.h"

#include <errno.h>

#include "base/clock.h"
#include "base/handover.h"
#include "base/pool.h"

/* Each may sleep for 165 ms in the kernel for a file with unexplained references. */
#define SEAL_THREADS 16
#define BUSY_THREADS 8

static void engine_work(gpointer sealing, gpointer data)
{
	struct seal_engine *engine = data;
	struct sealing *taken = handover_take(sealing);

	engine->run(taken);
}

static gpointer engine_clock(gpointer data)
{
	struct seal_engine *engine = data;

	g_main_context_push_thread_default(engine->clock);
	g_main_loop_run(engine->loop);
	g_main_context_pop_thread_default(engine->clock);
	return NULL;
}

int seal_engine_start(struct seal_engine *engine, void (*run)(struct sealing *sealing))
{
	engine->run = run;
	engine->pool = pool_new(engine_work, engine, SEAL_THREADS);
	if (!engine->pool)
		return -EAGAIN;
	engine->busy_pool = pool_new(engine_work, engine, BUSY_THREADS);
	if (!engine->busy_pool) {
		g_thread_pool_free(engine->pool, TRUE, TRUE);
		return -EAGAIN;
	}
	engine->clock = g_main_context_new();
	engine->loop = g_main_loop_new(engine->clock, FALSE);
	engine->thread = g_thread_try_new("seal-clock", engine_clock, engine, NULL);
	if (engine->thread)
		return 0;
	g_thread_pool_free(engine->busy_pool, TRUE, TRUE);
	g_thread_pool_free(engine->pool, TRUE, TRUE);
	g_main_loop_unref(engine->loop);
	g_main_context_unref(engine->clock);
	return -EAGAIN;
}

static gboolean engine_quit(gpointer loop)
{
	g_main_loop_quit(loop);
	return G_SOURCE_REMOVE;
}

/* g_main_loop_quit() has no effect on a loop that its thread has not begun yet: ask from within. */
static void engine_stop_clock(struct seal_engine *engine)
{
	GSource *quit = g_idle_source_new();

	g_source_set_callback(quit, engine_quit, engine->loop, NULL);
	g_source_attach(quit, engine->clock);
	g_source_unref(quit);
	g_thread_join(engine->thread);
}

void seal_engine_stop(struct seal_engine *engine)
{
	if (!engine->thread)
		return;
	engine_stop_clock(engine); /* first: its functions push */
	g_thread_pool_free(engine->busy_pool, FALSE, TRUE);
	g_thread_pool_free(engine->pool, FALSE, TRUE);
	g_main_loop_unref(engine->loop);
	g_main_context_unref(engine->clock);
	engine->thread = NULL;
}

void seal_engine_push(struct seal_engine *engine, struct sealing *sealing, bool busy)
{
	handover_give(sealing);
	g_thread_pool_push(busy ? engine->busy_pool : engine->pool, sealing, NULL);
}

bool seal_engine_spare_take(struct seal_engine *engine)
{
	return atomic_load_explicit(&engine->spare, memory_order_relaxed) &&
	       atomic_exchange(&engine->spare, false);
}

void seal_engine_spare_done(struct seal_engine *engine)
{
	atomic_store(&engine->spare, true);
}

GSource *seal_engine_call_at(struct seal_engine *engine, int64_t at_ms, GSourceFunc function,
			     gpointer data, GDestroyNotify release)
{
	int64_t delay = at_ms - clock_now_ms();
	GSource *source = g_timeout_source_new(delay > 0 ? MIN(delay, G_MAXINT) : 0);

	handover_give(data);
	g_source_set_callback(source, function, data, release);
	g_source_attach(source, engine->clock);
	return source;
}

void seal_engine_cancel(GSource *source)
{
	if (!source)
		return;
	g_source_destroy(source);
	g_source_unref(source);
}
