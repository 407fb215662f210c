/* SPDX-License-Identifier: MIT */
/*
 * The table of all pins of a mount: by id and by mapping, how many each user has, and a thread that
 * knows whose time is over. It decides who is released; pinning.c does it.
 */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/lock.h"
#include "base/thread.h"
#include "cache/pinning_internal.h"

#define TTL_MAX_MS (INT64_C(1) << 60)

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

/*
 * Ways in and out, of one pin.
 */

static struct shares *pin_shares(const struct pin *pin)
{
	return pin_is_resident(pin) ? &pin->table->residents : &pin->table->slots;
}

static uint64_t pin_places(const struct pin *pin)
{
	return pin_is_resident(pin) ? 1 : (pin->info.length - 1) / PIN_SLOT_BYTES + 1;
}

static void pin_give_places_locked(struct pin *pin)
{
	lock_assert_held(&pin->table->lock);
	shares_give(pin_shares(pin), pin->info.uid, pin_places(pin));
}

int pin_join(struct pin *pin)
{
	struct pin_table *table = pin->table;
	struct pin_set *set;
	int ret;

	scoped_mutex(&table->lock);
	if (deadlines_reserve(&table->deadlines, table->deadlines.count + table->joining + 1))
		return -ENOMEM;
	ret = shares_take(pin_shares(pin), pin->info.uid, pin_places(pin));
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

void pin_leave(struct pin *pin)
{
	struct pin_table *table = pin->table;

	scoped_mutex(&table->lock);
	table->joining--;
	table->stat.resident -= pin_is_resident(pin);
	pin_give_places_locked(pin);
	table_put_set_locked(table, pin->set);
}

uint64_t pin_insert(struct pin *pin)
{
	struct pin_table *table = pin->table;
	struct pin_info *info = &pin->info;

	table->ops->get(pin->owner);
	scoped_mutex(&table->lock);
	table->joining--;
	table->unfinished++;
	table->stat.granted++;
	if (!pin_is_resident(pin)) {
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

void pin_erase(struct pin *pin)
{
	struct pin_table *table = pin->table;

	scoped_mutex(&table->lock);
	list_del(&pin->by_id);
	list_del(&pin->in_set);
	pin_give_places_locked(pin);
	table_put_set_locked(table, pin->set);
	if (pin_is_resident(pin)) {
		table->stat.resident--;
	} else {
		table->stat.pins--;
		table->stat.pinned_pages -= pin->info.length >> PAGE_SHIFT;
	}
}

void pin_table_finished(struct pin_table *table)
{
	scoped_mutex(&table->lock);
	if (--table->unfinished == 0)
		pthread_cond_broadcast(&table->idle);
}

/*
 * Who is released.
 */

/* The caller starts the release, after it dropped the lock. */
static void pin_set_releasing_locked(struct pin *pin)
{
	struct pin_table *table = pin->table;

	lock_assert_held(&table->lock);
	pin->info.releasing = true;
	deadlines_remove(&table->deadlines, &pin->deadline);
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
		pins_release(pin);
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

	if (thread_start(&table->thread, NULL, table_watch_deadlines, table)) {
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

/* Has it pages that are still the file's? Pages are cut off for good, so this turns false once. */
static bool pin_blocks(struct pin *pin)
{
	return pin->folios && mapping_pins_attached(pin->folios);
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
