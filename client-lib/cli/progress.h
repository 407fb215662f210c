/* SPDX-License-Identifier: MIT */
/* A progress bar with the rate, on standard error if that is a terminal. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/**
 * struct progress - one bar
 * @name:  what is moved, or the beginning of it
 * @total: bytes, 0 when nobody knows
 */
struct progress {
	char name[48];
	uint64_t total;
	bool shown;
	double began;
	double drawn;
	double rate; /* bytes per second, smoothed */
	uint64_t drawn_bytes;
};

/**
 * progress_begin() - start the clock; nothing is drawn yet
 * @quiet: never draw
 */
void progress_begin(struct progress *progress, const char *name, uint64_t total, bool quiet);

/**
 * progress_update() - draw, but not more than ten times a second
 * @done: bytes
 */
void progress_update(struct progress *progress, uint64_t done);

/**
 * progress_end() - draw the last state with the mean rate, and end the line
 */
void progress_end(struct progress *progress, uint64_t done);
