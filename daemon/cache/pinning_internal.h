/* SPDX-License-Identifier: MIT */
/* What a pin (pinning.c) and the table of all pins (pinning_table.c) know of each other. */
#pragma once

#include <pthread.h>

#include "base/list.h"
#include "cache/deadlines.h"
#include "cache/mapping_pins.h"
#include "cache/pinning.h"
#include "cache/shares.h"

#define ID_BUCKETS 4096u
#define SET_BUCKETS 1024u

struct pin_set;

/**
 * struct pin - one pin
 * @by_id:     in the table's hash of ids
 * @in_set:    in its mapping's set, in the order of the ids
 * @going:     chains pins that one thread releases
 * @folios:    pins on the folios; NULL: resident
 * @slots:     registered buffers; the engine's once the release has begun
 * @window:    resident: the locked window
 * @deadline:  in the table's heap while it is HELD and has a time to live
 */
struct pin {
	struct list by_id;
	struct list in_set;
	struct pin *going;
	struct pin_table *table;
	struct pin_set *set;
	struct mapping *mapping;
	void *owner;
	struct mapping_pins *folios;
	struct pin_slots *slots;
	void *window;
	struct deadline deadline;
	struct pin_info info;
	void (*done)(int result, void *data);
	void *data;
};

/**
 * struct pin_table - all pins of a mount
 * @lock:       guards everything below
 * @due:        the earliest deadline changed, or the thread shall end
 * @idle:       a pin was finished
 * @unfinished: pins whose callbacks have not returned
 * @joining:    pins on their way in: each has a place in the heap, and its share of the places
 * @slots:      of the engine's table; pins on their way in or out have theirs
 * @residents:  the same for resident pins
 */
struct pin_table {
	struct pin_engine *engine;
	const struct pin_owner_ops *ops;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t due;
	pthread_cond_t idle;
	bool stop;
	uint64_t next_id;
	uint64_t unfinished;
	uint64_t joining;
	struct pin_stat stat;
	struct shares slots;
	struct shares residents;
	struct deadlines deadlines;
	struct list ids[ID_BUCKETS];
	struct list sets[SET_BUCKETS];
};

/**
 * pin_is_resident() - has it a locked window instead of folios and slots?
 * Context: any.
 */
static inline bool pin_is_resident(const struct pin *pin)
{
	return pin->info.flags & CACHET_PIN_RESIDENT;
}

/**
 * pin_join() - make sure that the pin can be put into the table later without fail
 * @pin: borrows
 * Context: takes the table's lock.
 * Return: 0; -ENOMEM; -ENOBUFS, -EDQUOT (no place is left for it).
 */
int pin_join(struct pin *pin);

/**
 * pin_leave() - the end of pin_join() for a pin that is not granted
 * @pin: borrows
 * Context: takes the table's lock.
 */
void pin_leave(struct pin *pin);

/**
 * pin_insert() - put a pin that has joined into the table: it is HELD, and anybody may release it
 * @pin: takes
 * Context: takes the table's lock; calls back.
 * Return: its id.
 */
uint64_t pin_insert(struct pin *pin);

/**
 * pin_erase() - take a pin out of the table, when the kernel has let go of its pages
 * @pin: borrows; the caller's again
 * Context: takes the table's lock.
 */
void pin_erase(struct pin *pin);

/**
 * pin_table_finished() - the callbacks of a pin that was in the table have returned
 * @table: borrows; may be gone afterwards
 * Context: takes the table's lock.
 */
void pin_table_finished(struct pin_table *table);

/**
 * pins_release() - let go of pins
 * @going: takes; RELEASING, they chain by @going; may be NULL
 * Context: sleeps; no lock is held; calls back.
 */
void pins_release(struct pin *going);
