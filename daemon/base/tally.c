/* SPDX-License-Identifier: MIT */
/*
 * The life of a slot.
 *
 * A thread takes a slot when it counts for the first time, and keeps it to its end; then the slot,
 * with all that was counted in it, waits for the next thread. So there are as many slots as there
 * were threads at once, and nothing that was counted is ever lost. While a slot is taken, only its
 * thread writes to it, with plain stores.
 *
 * The end of a thread is told by the destructor of a pthread key. A thread may outlive the tally
 * (GLib keeps idle threads of its pools): what it remembers of its slot is used only while a tally
 * of that number is alive. It remembers one slot, that of the tally in which it counted last.
 */
#include "base/tally.h"

#include <pthread.h>
#include <stdbool.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/list.h"
#include "base/lock.h"

#define CACHE_LINE 64

/**
 * struct tally_slot - what one thread has counted
 * @memory: that the slot stands in
 * @next:   all slots of the tally
 * @taken:  a thread counts in it; guarded by the lock
 * @shared: for threads that have none of their own
 * @histograms: follow the counters
 */
struct tally_slot {
	void *memory;
	struct tally_slot *next;
	bool taken;
	bool shared;
	struct histogram *histograms;
	_Alignas(CACHE_LINE) atomic_uint_least64_t counters[];
};

/**
 * struct tally - see above
 * @number: never used twice; 0 is none
 * @link:   in the list of all that are alive
 * @slots:  all; none is ever taken out
 */
struct tally {
	uint64_t number;
	struct list link;
	struct tally_slot *slots;
	struct tally_slot *shared;
	unsigned counters;
	unsigned histograms;
	uint64_t unit_ns;
};

/* The slot of this thread, and the tally that it belongs to. */
static __thread struct {
	uint64_t number;
	struct tally_slot *slot;
} mine;

/* Guards the list, and which slots there are and are taken. */
static pthread_mutex_t tally_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list tallies = LIST_INIT(tallies);
static uint64_t last_number;

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_exists;

/* The thread's slot waits for another thread, if its tally is still there. */
static void slot_give_back_locked(void)
{
	struct tally *tally;

	lock_assert_held(&tally_lock);
	list_for_each(tally, &tallies, link)
		if (tally->number == mine.number)
			mine.slot->taken = false;
	mine.number = 0;
}

static void thread_ends(void *data)
{
	(void)data;
	scoped_mutex(&tally_lock);
	slot_give_back_locked();
}

static void key_make(void)
{
	key_exists = pthread_key_create(&key, thread_ends) == 0;
}

static struct tally_slot *slot_new(struct tally *tally)
{
	size_t size = sizeof(struct tally_slot) + tally->counters * sizeof(atomic_uint_least64_t) +
		      tally->histograms * sizeof(struct histogram);
	/* Whatever stands before and behind it is on other lines. */
	char *memory = mem_zalloc(size + 2 * (size_t)CACHE_LINE);
	struct tally_slot *slot;

	if (!memory)
		return NULL;
	slot = (void *)(memory + (-(uintptr_t)memory & (CACHE_LINE - 1)));
	slot->memory = memory;
	slot->histograms = (struct histogram *)(slot->counters + tally->counters);
	return slot;
}

struct tally *tally_new(unsigned counters, unsigned histograms, uint64_t unit_ns)
{
	struct tally *tally = mem_zalloc(sizeof(*tally));

	if (!tally)
		return NULL;
	tally->counters = counters;
	tally->histograms = histograms;
	tally->unit_ns = unit_ns;
	tally->shared = slot_new(tally);
	if (!tally->shared) {
		mem_free(tally);
		return NULL;
	}
	tally->shared->taken = true;
	tally->shared->shared = true;
	tally->slots = tally->shared;
	pthread_once(&key_once, key_make);
	scoped_mutex(&tally_lock);
	tally->number = ++last_number;
	list_add_tail(&tallies, &tally->link);
	return tally;
}

void tally_free(struct tally *tally)
{
	if (!tally)
		return;
	pthread_mutex_lock(&tally_lock);
	list_del(&tally->link);
	pthread_mutex_unlock(&tally_lock);
	while (tally->slots) {
		struct tally_slot *slot = tally->slots;

		tally->slots = slot->next;
		mem_free(slot->memory);
	}
	mem_free(tally);
}

/* A slot that an ended thread has left, or a new one; NULL when there is no memory. */
static struct tally_slot *tally_find_slot_locked(struct tally *tally)
{
	struct tally_slot *slot;

	lock_assert_held(&tally_lock);
	for (slot = tally->slots; slot; slot = slot->next)
		if (!slot->taken)
			return slot;
	slot = slot_new(tally);
	if (slot) {
		slot->next = tally->slots;
		tally->slots = slot;
	}
	return slot;
}

static struct tally_slot *tally_take_slot(struct tally *tally)
{
	struct tally_slot *slot;

	scoped_mutex(&tally_lock);
	slot_give_back_locked();
	/* Any value that is not NULL makes the end of this thread known. */
	if (!key_exists || pthread_setspecific(key, &mine))
		return tally->shared;
	slot = tally_find_slot_locked(tally);
	if (!slot)
		return tally->shared;
	slot->taken = true;
	mine.number = tally->number;
	mine.slot = slot;
	return slot;
}

static inline struct tally_slot *tally_slot(struct tally *tally)
{
	return mine.number == tally->number ? mine.slot : tally_take_slot(tally);
}

void tally_add(struct tally *tally, unsigned counter, uint64_t amount)
{
	struct tally_slot *slot = tally_slot(tally);

	if (slot->shared)
		counter_add_shared(&slot->counters[counter], amount);
	else
		counter_add_own(&slot->counters[counter], amount);
}

void tally_record(struct tally *tally, unsigned histogram, uint64_t ns)
{
	struct tally_slot *slot = tally_slot(tally);

	if (slot->shared)
		histogram_add_shared(&slot->histograms[histogram], ns, tally->unit_ns);
	else
		histogram_add_own(&slot->histograms[histogram], ns, tally->unit_ns);
}

uint64_t tally_counter(struct tally *tally, unsigned counter)
{
	const struct tally_slot *slot;
	uint64_t sum = 0;

	scoped_mutex(&tally_lock);
	for (slot = tally->slots; slot; slot = slot->next)
		sum += atomic_load_explicit(&slot->counters[counter], memory_order_acquire);
	return sum;
}

void tally_histogram(struct tally *tally, unsigned histogram, struct histogram_total *total)
{
	const struct tally_slot *slot;

	*total = (struct histogram_total){ 0 };
	scoped_mutex(&tally_lock);
	for (slot = tally->slots; slot; slot = slot->next)
		histogram_read(&slot->histograms[histogram], total);
}
