/* SPDX-License-Identifier: MIT */
#include "base/pool.h"

GThreadPool *pool_new(GFunc run, gpointer data, int threads)
{
	g_autoptr(GError) error = NULL;
	GThreadPool *pool = g_thread_pool_new(run, data, threads, TRUE, &error);

	if (!error)
		return pool;
	/* Perhaps there are some of them. */
	if (pool)
		g_thread_pool_free(pool, TRUE, TRUE);
	return NULL;
}
