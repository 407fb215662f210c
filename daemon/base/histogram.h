/* SPDX-License-Identifier: MIT */
/*
 * How often something took how long: a bucket for each power of two, and the sum. Whoever reads it
 * while others count sees each count at once or a moment later, never a half of it.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_BUCKETS 28

/**
 * struct histogram - see above
 * @sum:     nanoseconds
 * @buckets: the one of index i counts what took at most 2^i units, and more than 2^(i-1); the last
 *           one takes whatever is longer, too
 */
struct histogram {
	atomic_uint_least64_t sum;
	atomic_uint_least64_t buckets[HISTOGRAM_BUCKETS];
};

/**
 * struct histogram_total - what was read of one or more histograms
 */
struct histogram_total {
	uint64_t sum;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

/**
 * counter_add_own() - count, where this thread alone does so
 * Context: no other thread changes @counter; others may read it.
 */
static inline void counter_add_own(atomic_uint_least64_t *counter, uint64_t amount)
{
	uint64_t before = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, before + amount, memory_order_release);
}

/**
 * counter_add_shared() - count, where other threads do so, too
 * Context: any.
 */
static inline void counter_add_shared(atomic_uint_least64_t *counter, uint64_t amount)
{
	atomic_fetch_add_explicit(counter, amount, memory_order_release);
}

/**
 * histogram_bucket() - where something belongs
 * @ns: how long it took; nanoseconds
 * @unit_ns: nanoseconds of the unit of the buckets, not 0
 * Return: index of the bucket.
 */
static inline unsigned histogram_bucket(uint64_t ns, uint64_t unit_ns)
{
	uint64_t units = ns / unit_ns + (ns % unit_ns != 0);
	unsigned bits = units <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(units - 1);

	return bits < HISTOGRAM_BUCKETS ? bits : HISTOGRAM_BUCKETS - 1;
}

/**
 * histogram_add_own() - count, where this thread alone does so
 * @ns: how long it took; nanoseconds
 * @unit_ns: nanoseconds of the unit of the buckets, not 0
 * Context: as counter_add_own().
 */
static inline void histogram_add_own(struct histogram *histogram, uint64_t ns, uint64_t unit_ns)
{
	counter_add_own(&histogram->sum, ns);
	counter_add_own(&histogram->buckets[histogram_bucket(ns, unit_ns)], 1);
}

/**
 * histogram_add_shared() - count, where other threads do so, too
 * @ns: how long it took; nanoseconds
 * @unit_ns: nanoseconds of the unit of the buckets, not 0
 * Context: any.
 */
static inline void histogram_add_shared(struct histogram *histogram, uint64_t ns, uint64_t unit_ns)
{
	counter_add_shared(&histogram->sum, ns);
	counter_add_shared(&histogram->buckets[histogram_bucket(ns, unit_ns)], 1);
}

/**
 * histogram_read() - add what a histogram holds to a total
 *
 * What is counted meanwhile may be in the sum and not yet in the buckets, never the other way.
 * Context: any.
 */
static inline void histogram_read(const struct histogram *histogram, struct histogram_total *total)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		total->buckets[i] += atomic_load_explicit(&histogram->buckets[i],
							  memory_order_acquire);
	total->sum += atomic_load_explicit(&histogram->sum, memory_order_acquire);
}
