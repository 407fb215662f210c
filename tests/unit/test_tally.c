/* SPDX-License-Identifier: MIT */
/* Counters of many threads: buckets, slots of threads that end, no memory for a slot. */
#include "base/tally.h"

#include <glib.h>
#include <pthread.h>

#include "base/alloc.h"

#define THREADS 8
#define ROUNDS 20000

static void test_buckets(void)
{
	g_assert_cmpuint(histogram_bucket(0, 1000), ==, 0);
	g_assert_cmpuint(histogram_bucket(1, 1000), ==, 0);
	g_assert_cmpuint(histogram_bucket(1000, 1000), ==, 0);
	g_assert_cmpuint(histogram_bucket(1001, 1000), ==, 1);
	for (unsigned i = 1; i < HISTOGRAM_BUCKETS - 1; i++) {
		uint64_t most = (UINT64_C(1) << i) * 1000;

		g_assert_cmpuint(histogram_bucket(most, 1000), ==, i);
		g_assert_cmpuint(histogram_bucket(most - 999, 1000), ==, i);
		g_assert_cmpuint(histogram_bucket(most + 1, 1000), ==, i + 1);
	}
	g_assert_cmpuint(histogram_bucket(UINT64_MAX, 1000), ==, HISTOGRAM_BUCKETS - 1);
	g_assert_cmpuint(histogram_bucket(UINT64_MAX, 1), ==, HISTOGRAM_BUCKETS - 1);
}

static void test_shared_histogram(void)
{
	struct histogram histogram = { 0 };
	struct histogram_total total = { .sum = 1, .buckets = { 1 } };

	histogram_add_shared(&histogram, 5000000, 1000000);
	histogram_add_shared(&histogram, 200, 1000000);
	histogram_read(&histogram, &total);
	g_assert_cmpuint(total.sum, ==, 5000201);
	g_assert_cmpuint(total.buckets[0], ==, 2);
	g_assert_cmpuint(total.buckets[3], ==, 1);
}

static uint64_t tally_events(struct tally *tally, unsigned histogram)
{
	struct histogram_total total;
	uint64_t events = 0;

	tally_histogram(tally, histogram, &total);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		events += total.buckets[i];
	return events;
}

static void test_counting(void)
{
	struct tally *tally = tally_new(2, 3, 1000);
	struct histogram_total total;

	tally_add(tally, 0, 5);
	tally_add(tally, 1, 7);
	tally_add(tally, 1, 1);
	tally_record(tally, 2, 1500);
	tally_record(tally, 2, 900);
	tally_record(tally, 2, 2000);
	g_assert_cmpuint(tally_counter(tally, 0), ==, 5);
	g_assert_cmpuint(tally_counter(tally, 1), ==, 8);
	tally_histogram(tally, 2, &total);
	g_assert_cmpuint(total.sum, ==, 4400);
	g_assert_cmpuint(total.buckets[0], ==, 1);
	g_assert_cmpuint(total.buckets[1], ==, 2);
	g_assert_cmpuint(tally_events(tally, 0), ==, 0);
	g_assert_cmpuint(tally_events(tally, 1), ==, 0);
	g_assert_cmpuint(tally_events(tally, 2), ==, 3);
	tally_free(tally);
	tally_free(NULL);
}

struct crowd {
	struct tally *tally;
	pthread_barrier_t *meet;
};

static void *count(void *data)
{
	struct crowd *crowd = data;

	for (unsigned i = 0; i < ROUNDS; i++) {
		tally_add(crowd->tally, 0, 1);
		tally_record(crowd->tally, 0, 1000);
		/* Nobody ends before all have begun. */
		if (i == 0)
			pthread_barrier_wait(crowd->meet);
	}
	return NULL;
}

static void crowd_run(struct crowd *crowd)
{
	pthread_t threads[THREADS];
	uint64_t last = 0;

	for (unsigned i = 0; i < THREADS; i++)
		g_assert_cmpint(pthread_create(&threads[i], NULL, count, crowd), ==, 0);
	/* What is seen meanwhile only grows, and is never more than there was. */
	for (unsigned i = 0; i < 200; i++) {
		uint64_t seen = tally_counter(crowd->tally, 0);

		g_assert_cmpuint(seen, >=, last);
		last = seen;
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

/* Many at once, and then many more: nothing is lost, and slots are used again. */
static void test_threads(void)
{
	pthread_barrier_t meet;
	struct crowd crowd = { .meet = &meet };
	struct histogram_total total;
	long before;

	pthread_barrier_init(&meet, NULL, THREADS);
	mem_test_begin(0);
	crowd.tally = tally_new(1, 1, 1000);
	crowd_run(&crowd);
	g_assert_cmpuint(tally_counter(crowd.tally, 0), ==, THREADS * ROUNDS);
	/* The tally, the slot that is shared, and one for each thread of before. */
	before = 2 + THREADS;
	for (unsigned i = 0; i < 3; i++)
		crowd_run(&crowd);
	g_assert_cmpuint(tally_counter(crowd.tally, 0), ==, 4 * THREADS * ROUNDS);
	g_assert_cmpuint(tally_events(crowd.tally, 0), ==, 4 * THREADS * ROUNDS);
	tally_histogram(crowd.tally, 0, &total);
	g_assert_cmpuint(total.sum, ==, UINT64_C(4) * THREADS * ROUNDS * 1000);
	g_assert_cmpint(mem_test_end(NULL), ==, before);
	pthread_barrier_destroy(&meet);
	tally_free(crowd.tally);
}

static void test_no_memory(void)
{
	struct crowd crowd;
	pthread_barrier_t meet;
	int failed;

	for (unsigned at = 1; at <= 2; at++) {
		mem_test_begin(at);
		g_assert_null(tally_new(1, 1, 1000));
		g_assert_cmpint(mem_test_end(&failed), ==, 0);
		g_assert_true(failed);
	}
	/* Threads for which there is no slot share one, and count there all the same. */
	crowd.meet = &meet;
	pthread_barrier_init(&meet, NULL, THREADS);
	for (unsigned at = 3; at < 3 + THREADS; at++) {
		mem_test_begin_from(at);
		crowd.tally = tally_new(1, 1, 1000);
		g_assert_nonnull(crowd.tally);
		crowd_run(&crowd);
		g_assert_cmpuint(tally_counter(crowd.tally, 0), ==, THREADS * ROUNDS);
		g_assert_cmpuint(tally_events(crowd.tally, 0), ==, THREADS * ROUNDS);
		tally_free(crowd.tally);
		g_assert_cmpint(mem_test_end(&failed), ==, 0);
		g_assert_true(failed);
	}
	pthread_barrier_destroy(&meet);
}

/* A thread that counts in two by turns, and outlives one of them. */
static void test_two_tallies(void)
{
	struct tally *first = tally_new(1, 1, 1000), *second = tally_new(1, 1, 1000);

	for (unsigned i = 0; i < 100; i++) {
		tally_add(first, 0, 1);
		tally_add(second, 0, 2);
	}
	g_assert_cmpuint(tally_counter(first, 0), ==, 100);
	g_assert_cmpuint(tally_counter(second, 0), ==, 200);
	tally_free(second);
	tally_add(first, 0, 1);
	g_assert_cmpuint(tally_counter(first, 0), ==, 101);
	tally_free(first);
	second = tally_new(1, 1, 1000);
	tally_add(second, 0, 3);
	g_assert_cmpuint(tally_counter(second, 0), ==, 3);
	tally_free(second);
}

static void *count_until_told(void *data)
{
	struct crowd *crowd = data;

	tally_add(crowd->tally, 0, 1);
	pthread_barrier_wait(crowd->meet);
	pthread_barrier_wait(crowd->meet);
	return NULL;
}

/* Who found no memory in the second tally has no slot in the first any more. */
static void test_slot_given_back(void)
{
	struct tally *first, *second;
	pthread_barrier_t meet;
	struct crowd crowd = { .meet = &meet };
	pthread_t thread;

	pthread_barrier_init(&meet, NULL, 2);
	mem_test_begin(6);
	first = tally_new(1, 1, 1000);
	second = tally_new(1, 1, 1000);
	tally_add(first, 0, 1);
	tally_add(second, 0, 1);
	crowd.tally = first;
	g_assert_cmpint(pthread_create(&thread, NULL, count_until_told, &crowd), ==, 0);
	pthread_barrier_wait(&meet);
	tally_add(first, 0, 1);
	pthread_barrier_wait(&meet);
	pthread_join(thread, NULL);
	g_assert_cmpuint(tally_counter(first, 0), ==, 3);
	g_assert_cmpuint(tally_counter(second, 0), ==, 1);
	/* Two tallies, their shared slots, and two of the first one. */
	g_assert_cmpint(mem_test_end(NULL), ==, 6);
	tally_free(first);
	tally_free(second);
	pthread_barrier_destroy(&meet);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/tally/buckets", test_buckets);
	g_test_add_func("/tally/shared-histogram", test_shared_histogram);
	g_test_add_func("/tally/counting", test_counting);
	g_test_add_func("/tally/threads", test_threads);
	g_test_add_func("/tally/no-memory", test_no_memory);
	g_test_add_func("/tally/two-tallies", test_two_tallies);
	g_test_add_func("/tally/slot-given-back", test_slot_given_back);
	return g_test_run();
}
