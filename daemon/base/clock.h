/* SPDX-License-Identifier: MIT */
#pragma once

#include <stdint.h>
#include <time.h>

/**
 * clock_now_ns() - time since boot, never set back
 * Context: any.
 * Return: nanoseconds of CLOCK_MONOTONIC.
 */
static inline int64_t clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/**
 * clock_now_ms() - time since boot, never set back
 * Context: any.
 * Return: milliseconds of CLOCK_MONOTONIC.
 */
static inline int64_t clock_now_ms(void)
{
	return clock_now_ns() / 1000000;
}

/**
 * clock_file_time() - the time that a change of a file is stamped with
 *
 * Fine, so that two changes that somebody looked at in between never have the same time.
 * Context: any.
 */
static inline struct timespec clock_file_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now;
}
