/* SPDX-License-Identifier: MIT */
/*
 * The life of a pin.
 *
 *	(request) -> HELD -> RELEASING -> (gone)
 *
 * pin_table_add() does everything that can fail before the pin is in the table. Its steps, and what
 * a seal that comes in between finds:
 *
 *	1 mapping_map_writable()        a writer: the seal is busy; if it came first, -EPERM
 *	2 fill holes, pin every folio   a writer and pinned folios; ENOSPC and ENOMEM come from here
 *	3 register a writable window    ... and pages that the kernel holds
 *	4 put the pin into the table
 *	5 mapping_unmap_writable()      pinned folios
 *
 * A seal that was busy because of step 1 must learn when that has ended, also if step 2 or 3
 * failed: hence released() on the way out. The two ways of looking at a pin, folio counts here and
 * page counts in the kernel, agree because nothing is cut off between 2 and 3: if truncation came
 * in between, the folios tell (they are detached), and all is done again.
 *
 * A pin goes to RELEASING once: by its id, with its handle, when its time is over, or with the
 * table. Whoever moved it there, under the lock, starts the release after the lock was dropped.
 * While it is RELEASING it is listed and hinders seals, but its id finds it no more. When the
 * kernel has let go of the pages (on the engine's thread) the pin leaves the table, the folio
 * counts fall, and then, with no lock held, released(), done() and put() are called in this order.
 *
 * A resident pin has a locked read-only window instead of folios and slots.
 */
#include "cache/pinning.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/log.h"
#include "cache/deadlines.h"
#include "cache/mapping_pins.h"
#include "cache/shares.h"

#define ID_BUCKETS 4096u
#define SET_BUCKETS 1024u
#define PIN_SEALS (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
#define PIN_TRIES 16 /* against somebody who truncates all the time */
#define TTL_MAX_MS (INT64_C(1) << 60)

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
 * struct pin_set - the pins of one mapping; lives while there are any, or some are on their way in
 * @users: pins in the set or on their way in
 */
struct pin_set {
	struct list link;
	struct mapping *mapping;
	unsigned users;
	struct list pins;
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

static struct list *table_id_bucket(struct pin_table *table, uint64_t id)
{
	return &table->ids[id % ID_BUCKETS];
}

static struct list *table_set_bucket(struct pin_table *table, const struct mapping *mapping)
{
	uint64_t hash = (uint64_t)(uintptr_t)mapping * UINT64_C(0x9e3779b97f4a7c15);

	return &table->sets[(hash >> 32) % SET_BUCKETS];
}

static struct pin_set *table_find_set_locked(struct pin_table *table, const struct mapping *mapping)
{
	struct pin_set *set;

	lock_assert_held(&table->lock);
	list_for_each(set, table_set_bucket(table, mapping), link)
		if (set->mapping == mapping)
			return set;
	return NULL;
}

static void table_put_set_locked(struct pin_table *table, struct pin_set *set)
{
	lock_assert_held(&table->lock);
	if (--set->users)
		return;
	list_del(&set->link);
	mem_free(set);
}

/* Has it pages that are still the file's? Pages are cut off for good, so this turns false once. */
static bool pin_blocks(struct pin *pin)
{
	return pin->folios && mapping_pins_attached(pin->folios);
}

/*
 * Ways in.
 */

static bool pin_is_resident(const struct pin *pin)
{
	return pin->info.flags & CACHET_PIN_RESIDENT;
}

static int pin_take_places_locked(struct pin *pin)
{
	struct pin_table *table = pin->table;

	lock_assert_held(&table->lock);
	if (pin_is_resident(pin))
		return shares_take(&table->residents, pin->info.uid, 1);
	return shares_take(&table->slots, pin->info.uid,
			   (pin->info.length - 1) / PIN_SLOT_BYTES + 1);
}

static void pin_give_places_locked(struct pin *pin)
{
	struct pin_table *table = pin->table;

	lock_assert_held(&table->lock);
	if (pin_is_resident(pin))
		shares_give(&table->residents, pin->info.uid, 1);
	else
		shares_give(&table->slots, pin->info.uid,
			    (pin->info.length - 1) / PIN_SLOT_BYTES + 1);
}

/* Make sure that the pin can be put into the table later without fail. */
static int pin_join(struct pin *pin)
{
	struct pin_table *table = pin->table;
	struct pin_set *set;
	int ret;

	scoped_mutex(&table->lock);
	if (deadlines_reserve(&table->deadlines, table->deadlines.count + table->joining + 1))
		return -ENOMEM;
	ret = pin_take_places_locked(pin);
	if (ret)
		return ret;
	set = table_find_set_locked(table, pin->mapping);
	if (!set) {
		set = mem_zalloc(sizeof(*set));
		if (!set) {
			pin_give_places_locked(pin);
			return -ENOMEM;
		}
		set->mapping = pin->mapping;
		list_init(&set->pins);
		list_add_tail(table_set_bucket(table, pin->mapping), &set->link);
	}
	set->users++;
	pin->set = set;
	table->joining++;
	table->stat.resident += pin_is_resident(pin);
	return 0;
}

static void pin_leave(struct pin *pin)
{
	struct pin_table *table = pin->table;

	scoped_mutex(&table->lock);
	table->joining--;
	table->stat.resident -= pin_is_resident(pin);
	pin_give_places_locked(pin);
	table_put_set_locked(table, pin->set);
}

static uint64_t pin_insert(struct pin *pin)
{
	struct pin_table *table = pin->table;
	struct pin_info *info = &pin->info;

	table->ops->get(pin->owner);
	scoped_mutex(&table->lock);
	table->joining--;
	table->unfinished++;
	table->stat.granted++;
	if (pin->folios) {
		table->stat.pins++;
		table->stat.pinned_pages += info->length >> PAGE_SHIFT;
	}
	info->id = table->next_id++;
	info->created_ms = clock_now_ms();
	list_add_tail(table_id_bucket(table, info->id), &pin->by_id);
	list_add_tail(&pin->set->pins, &pin->in_set);
	if (info->ttl_ms && info->ttl_ms < TTL_MAX_MS) {
		pin->deadline.at_ms = info->created_ms + (int64_t)info->ttl_ms;
		if (deadlines_add(&table->deadlines, &pin->deadline))
			pthread_cond_signal(&table->due);
	}
	return info->id;
}

/* Writers are denied: for good, or for as long as somebody asks the memory for a seal? */
static int mapping_why_denied(struct mapping *mapping)
{
	return atomic_load(&mapping->seals) & PIN_SEALS ? -EPERM : -EAGAIN;
}

/* Steps 2 and 3. Return: 1 when the range was cut off meanwhile, with nothing pinned. */
static int pin_take(struct pin *pin)
{
	struct pin_engine *engine = pin->table->engine;
	struct pin_info *info = &pin->info;
	int ret = mapping_pin_range(pin->mapping, info->offset, info->length, &pin->folios);

	if (ret)
		return ret;
	ret = pin_engine_register(engine, &pin->mapping->memory, info->offset, info->length,
				  &pin->slots);
	if (!ret && mapping_pins_intact(pin->folios))
		return 0;
	if (!ret)
		pin_engine_release_wait(engine, take_ptr(pin->slots));
	mapping_unpin_range(pin->mapping, take_ptr(pin->folios));
	if (ret == -EPERM)
		return mapping_why_denied(pin->mapping);
	return ret == 0 || ret == -EFAULT ? 1 : ret;
}

static bool pin_in_file(struct pin *pin, const struct pin_request *request)
{
	return request->offset + request->length <= mapping_size(pin->mapping);
}

static int pin_take_folios(struct pin *pin, const struct pin_request *request, uint64_t *id)
{
	struct mapping *mapping = pin->mapping;
	unsigned tries = 0;
	int ret;

	if (atomic_load(&mapping->seals) & PIN_SEALS)
		return -EPERM;
	do {
		if (!pin_in_file(pin, request))
			return -EINVAL;
		if (mapping_map_writable(mapping))
			return mapping_why_denied(mapping);
		ret = pin_take(pin);
		if (ret == 0)
			*id = pin_insert(pin);
		mapping_unmap_writable(mapping);
		if (ret)
			pin->table->ops->released(mapping, pin->owner);
	} while (ret > 0 && ++tries < PIN_TRIES);
	return ret > 0 ? -ENOMEM : ret;
}

/* Return: 1 when the window could not be locked, by a limit or because it was cut off meanwhile. */
static int pin_lock_window(struct pin *pin)
{
	struct pin_info *info = &pin->info;
	int ret = mapping_populate(pin->mapping, info->offset, info->length);

	if (ret)
		return ret;
	ret = memory_map(&pin->mapping->memory, info->offset, info->length, false, &pin->window);
	if (ret)
		return ret;
	if (mlock(pin->window, info->length) == 0)
		return 0;
	log_debug("locking %llu KiB failed: %s", (unsigned long long)info->length >> 10,
		  g_strerror(errno));
	memory_unmap(take_ptr(pin->window), info->length);
	return 1;
}

static int pin_take_window(struct pin *pin, const struct pin_request *request, uint64_t *id)
{
	unsigned tries = 0;
	int ret;

	do {
		if (!pin_in_file(pin, request))
			return -EINVAL;
		ret = pin_lock_window(pin);
	} while (ret > 0 && ++tries < PIN_TRIES);
	if (ret == 0)
		*id = pin_insert(pin);
	return ret > 0 ? -ENOMEM : ret;
}

static bool request_is_valid(const struct pin_request *request)
{
	return request->length && !(request->flags & ~CACHET_PIN_RESIDENT) &&
	       request->offset <= INT64_MAX && request->length <= INT64_MAX - request->offset;
}

static void pin_describe(struct pin *pin, const struct pin_request *request)
{
	uint64_t end = request->offset + request->length;

	pin->info = (struct pin_info){
		.offset = request->offset & ~(PAGE_BYTES - 1),
		.handle = request->handle,
		.ttl_ms = request->ttl_ms,
		.flags = request->flags,
		.uid = request->uid,
		.pid = request->pid,
	};
	pin->info.length = ((end + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1)) - pin->info.offset;
	if (request->label)
		snprintf(pin->info.label, sizeof(pin->info.label), "%s", request->label);
}

int pin_table_add(struct pin_table *table, struct mapping *mapping,
		  const struct pin_request *request, uint64_t *id)
{
	struct pin *pin;
	int ret;

	if (!request_is_valid(request))
		return -EINVAL;
	pin = mem_zalloc(sizeof(*pin));
	if (!pin)
		return -ENOMEM;
	pin->table = table;
	pin->mapping = mapping;
	pin->owner = request->owner;
	list_init(&pin->by_id);
	list_init(&pin->in_set);
	pin_describe(pin, request);

	/* Before it is refused for the want of slots. */
	if (!table->engine && !pin_is_resident(pin))
		ret = atomic_load(&mapping->seals) & PIN_SEALS ? -EPERM : -EOPNOTSUPP;
	else
		ret = pin_join(pin);
	if (!ret) {
		if (request->flags & CACHET_PIN_RESIDENT)
			ret = pin_take_window(pin, request, id);
		else
			ret = pin_take_folios(pin, request, id);
		if (ret)
			pin_leave(pin);
	}
	if (ret)
		mem_free(pin);
	return ret;
}

/*
 * Ways out.
 */

/* The caller starts the release, after it dropped the lock. */
static void pin_set_releasing_locked(struct pin *pin)
{
	struct pin_table *table = pin->table;

	lock_assert_held(&table->lock);
	pin->info.releasing = true;
	deadlines_remove(&table->deadlines, &pin->deadline);
}

static void pin_finish(struct pin *pin)
{
	struct pin_table *table = pin->table;
	bool resident = !pin->folios;

	pthread_mutex_lock(&table->lock);
	list_del(&pin->by_id);
	list_del(&pin->in_set);
	pin_give_places_locked(pin);
	table_put_set_locked(table, pin->set);
	if (resident) {
		table->stat.resident--;
	} else {
		table->stat.pins--;
		table->stat.pinned_pages -= pin->info.length >> PAGE_SHIFT;
	}
	pthread_mutex_unlock(&table->lock);

	if (!resident) {
		mapping_unpin_range(pin->mapping, pin->folios);
		table->ops->released(pin->mapping, pin->owner);
	}
	if (pin->done)
		pin->done(0, pin->data);
	table->ops->put(pin->owner);
	mem_free(pin);

	scoped_mutex(&table->lock);
	if (--table->unfinished == 0)
		pthread_cond_broadcast(&table->idle);
}

static void pin_let_go(void *data)
{
	pin_finish(data);
}

static void pin_release(struct pin *pin)
{
	if (pin->slots) {
		pin_engine_release(pin->table->engine, take_ptr(pin->slots), pin_let_go, pin);
		return;
	}
	memory_unmap(pin->window, pin->info.length);
	pin_finish(pin);
}

static void pins_release(struct pin *going)
{
	while (going) {
		struct pin *pin = going;

		going = pin->going;
		pin_release(pin);
	}
}

static struct pin *table_find_locked(struct pin_table *table, struct mapping *mapping, uint64_t id)
{
	struct pin *pin;

	lock_assert_held(&table->lock);
	list_for_each(pin, table_id_bucket(table, id), by_id)
		if (pin->info.id == id)
			return pin->mapping == mapping && !pin->info.releasing ? pin : NULL;
	return NULL;
}

int pin_table_remove(struct pin_table *table, struct mapping *mapping, uint64_t id,
		     uint64_t handle, void (*done)(int result, void *data), void *data)
{
	struct pin *pin;
	int ret = 0;

	pthread_mutex_lock(&table->lock);
	pin = table_find_locked(table, mapping, id);
	if (!pin) {
		ret = -ENOENT;
	} else if (handle && handle != pin->info.handle) {
		ret = -EPERM;
	} else {
		table->stat.broken += !handle;
		pin->done = done;
		pin->data = data;
		pin_set_releasing_locked(pin);
	}
	pthread_mutex_unlock(&table->lock);
	if (!ret)
		pin_release(pin);
	return ret;
}

/* All pins of a set, or those of a handle. Return: they chain by @going. */
static struct pin *set_take_locked(struct pin_set *set, uint64_t handle, struct pin *going)
{
	struct pin *pin;

	list_for_each(pin, &set->pins, in_set) {
		if (pin->info.releasing || (handle && pin->info.handle != handle))
			continue;
		pin_set_releasing_locked(pin);
		pin->going = going;
		going = pin;
	}
	return going;
}

void pin_table_remove_handle(struct pin_table *table, struct mapping *mapping, uint64_t handle)
{
	struct pin *going = NULL;
	struct pin_set *set;

	pthread_mutex_lock(&table->lock);
	set = table_find_set_locked(table, mapping);
	if (set)
		going = set_take_locked(set, handle, NULL);
	pthread_mutex_unlock(&table->lock);
	pins_release(going);
}

/* Those whose time is over. */
static struct pin *table_take_due_locked(struct pin_table *table)
{
	struct pin *going = NULL;
	int64_t now = clock_now_ms();
	struct deadline *deadline;

	lock_assert_held(&table->lock);
	while ((deadline = deadlines_first(&table->deadlines)) && deadline->at_ms <= now) {
		struct pin *pin = container_of(deadline, struct pin, deadline);

		pin_set_releasing_locked(pin);
		table->stat.expired++;
		pin->going = going;
		going = pin;
	}
	return going;
}

/* While they are RELEASING nobody else changes them. */
static void pins_tell_expired(const struct pin *pin)
{
	for (; pin; pin = pin->going)
		if (pin->table->ops->expired)
			pin->table->ops->expired(pin->mapping, pin->owner, &pin->info);
}

static void table_wait_due_locked(struct pin_table *table)
{
	struct deadline *deadline = deadlines_first(&table->deadlines);
	struct timespec until;

	lock_assert_held(&table->lock);
	if (!deadline) {
		pthread_cond_wait(&table->due, &table->lock);
		return;
	}
	until.tv_sec = deadline->at_ms / 1000;
	until.tv_nsec = deadline->at_ms % 1000 * 1000000;
	pthread_cond_timedwait(&table->due, &table->lock, &until);
}

static void *table_watch_deadlines(void *data)
{
	struct pin_table *table = data;

	pthread_mutex_lock(&table->lock);
	while (!table->stop) {
		struct pin *going = table_take_due_locked(table);

		if (!going) {
			table_wait_due_locked(table);
			continue;
		}
		pthread_mutex_unlock(&table->lock);
		pins_tell_expired(going);
		pins_release(going);
		pthread_mutex_lock(&table->lock);
	}
	pthread_mutex_unlock(&table->lock);
	return NULL;
}

/*
 * The table.
 */

static void table_destroy(struct pin_table *table)
{
	deadlines_destroy(&table->deadlines);
	pthread_cond_destroy(&table->idle);
	pthread_cond_destroy(&table->due);
	pthread_mutex_destroy(&table->lock);
	mem_free(table);
}

struct pin_table *pin_table_new(struct pin_engine *engine, const struct pin_owner_ops *ops)
{
	struct pin_table *table = mem_zalloc(sizeof(*table));
	pthread_condattr_t monotonic;
	sigset_t all, old;
	int ret;

	if (!table)
		return NULL;
	table->engine = engine;
	table->ops = ops;
	table->next_id = 1;
	shares_init(&table->slots, engine ? pin_engine_slots(engine) : 0, geteuid());
	shares_init(&table->residents, PIN_RESIDENT_MAX, geteuid());
	for (unsigned i = 0; i < ID_BUCKETS; i++)
		list_init(&table->ids[i]);
	for (unsigned i = 0; i < SET_BUCKETS; i++)
		list_init(&table->sets[i]);
	pthread_mutex_init(&table->lock, NULL);
	pthread_cond_init(&table->idle, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&table->due, &monotonic);
	pthread_condattr_destroy(&monotonic);

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&table->thread, NULL, table_watch_deadlines, table);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret) {
		table_destroy(table);
		return NULL;
	}
	pthread_setname_np(table->thread, "cachet-ttl");
	return table;
}

void pin_table_free(struct pin_table *table)
{
	struct pin *going = NULL;

	if (!table)
		return;
	pthread_mutex_lock(&table->lock);
	table->stop = true;
	pthread_cond_signal(&table->due);
	pthread_mutex_unlock(&table->lock);
	pthread_join(table->thread, NULL);

	pthread_mutex_lock(&table->lock);
	for (unsigned i = 0; i < SET_BUCKETS; i++) {
		struct pin_set *set;

		list_for_each(set, &table->sets[i], link)
			going = set_take_locked(set, 0, going);
	}
	pthread_mutex_unlock(&table->lock);
	pins_release(going);

	pthread_mutex_lock(&table->lock);
	while (table->unfinished)
		pthread_cond_wait(&table->idle, &table->lock);
	pthread_mutex_unlock(&table->lock);
	table_destroy(table);
}

unsigned pin_table_blocking(struct pin_table *table, struct mapping *mapping)
{
	struct pin_set *set;
	struct pin *pin;
	unsigned count = 0;

	scoped_mutex(&table->lock);
	set = table_find_set_locked(table, mapping);
	if (set)
		list_for_each(pin, &set->pins, in_set)
			count += pin_blocks(pin);
	return count;
}

size_t pin_table_list(struct pin_table *table, struct mapping *mapping, uint64_t after,
		      struct pin_info *infos, size_t capacity)
{
	struct pin_set *set;
	struct pin *pin;
	size_t count = 0;

	scoped_mutex(&table->lock);
	set = table_find_set_locked(table, mapping);
	if (!set)
		return 0;
	list_for_each(pin, &set->pins, in_set) {
		if (count == capacity)
			break;
		if (pin->info.id <= after)
			continue;
		infos[count] = pin->info;
		infos[count++].blocking = pin_blocks(pin);
	}
	return count;
}

void pin_table_stat(struct pin_table *table, struct pin_stat *stat)
{
	scoped_mutex(&table->lock);
	*stat = table->stat;
}
