/* SPDX-License-Identifier: MIT */
/*
 * Work that goes to another thread through GLib (a pool, a queue, a source of a loop).
 *
 * GLib locks with futexes of its own, so a build with ThreadSanitizer does not see that what the
 * giver did came before what the taker does. These tell it, and do nothing in other builds.
 */
#pragma once

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#else
#define __tsan_release(address) ((void)(address))
#define __tsan_acquire(address) ((void)(address))
#endif

/**
 * handover_give() - another thread will take this
 * @work: borrows; any address that both sides know
 * Context: any; just before it is given to GLib.
 */
static inline void handover_give(void *work)
{
	__tsan_release(work);
}

/**
 * handover_take() - another thread has given this
 * @work: borrows
 * Context: any; just after GLib has handed it out.
 * Return: @work.
 */
static inline void *handover_take(void *work)
{
	__tsan_acquire(work);
	return work;
}
