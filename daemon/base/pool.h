/* SPDX-License-Identifier: MIT */
#pragma once

#include <glib.h>

/**
 * pool_new() - threads that wait for work
 * @run: called with what is pushed, and @data
 * @threads: how many
 *
 * All of them start now and stay. A pool whose threads come and go may find none to be had later,
 * and the work would wait for ever.
 * Context: after the last fork.
 * Return: returns a reference, for g_thread_pool_free(); NULL when the threads cannot be had.
 */
GThreadPool *pool_new(GFunc run, gpointer data, int threads);
