/* SPDX-License-Identifier: MIT */
#pragma once

#include <pthread.h>
#include <signal.h>

/**
 * thread_start() - pthread_create() of a thread that takes no signals
 * @thread: out
 * @attr: borrows; may be NULL
 * @run: called with @data
 * Context: any.
 * Return: 0, or a positive errno as pthread_create() gives it.
 */
static inline int thread_start(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
			       void *data)
{
	sigset_t all, before;
	int result;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	result = pthread_create(thread, attr, run, data);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return result;
}
