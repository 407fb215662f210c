/* SPDX-License-Identifier: MIT */
/*
 * Counters and histograms that many threads count in at once, without getting in each other's way:
 * each thread has a slot of its own, on cache lines of its own; who wants to know adds them up.
 * tally.c begins with the life of a slot.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/histogram.h"

struct tally;

/**
 * tally_new() - nothing counted
 * @counters: how many plain counters
 * @histograms: how many histograms
 * @unit_ns: of their buckets; nanoseconds
 * Context: any.
 * Return: returns a reference, for tally_free(); NULL when memory runs out.
 */
struct tally *tally_new(unsigned counters, unsigned histograms, uint64_t unit_ns);

/**
 * tally_free() - nobody counts or reads any more
 * @tally: takes; may be NULL
 * Context: any; threads that have counted may live on.
 */
void tally_free(struct tally *tally);

/**
 * tally_add() - count
 * @counter: index of a counter
 * Context: any; the first call of a thread takes a lock and allocates, and so does one after it has
 * counted in another tally. Never fails: where there is no memory for a slot, threads share one.
 */
void tally_add(struct tally *tally, unsigned counter, uint64_t amount);

/**
 * tally_record() - count how long something took
 * @histogram: index of a histogram
 * @ns: nanoseconds
 * Context: as tally_add().
 */
void tally_record(struct tally *tally, unsigned histogram, uint64_t ns);

/**
 * tally_counter() - what all threads have counted, those that have ended as well
 * @counter: index of a counter
 * Context: takes the lock of all tallies; time in proportion to the most threads there were at
 * once.
 * Return: the sum.
 */
uint64_t tally_counter(struct tally *tally, unsigned counter);

/**
 * tally_histogram() - the same of a histogram
 * @histogram: index of a histogram
 * @total: filled in
 * Context: as tally_counter().
 */
void tally_histogram(struct tally *tally, unsigned histogram, struct histogram_total *total);
