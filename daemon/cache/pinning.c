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
 * kernel has let go of the pages (most often at once, on the same thread; see pin/engine.c) the pin
 * leaves the table, the folio counts fall, and then, with no lock held, released(), done() and
 * put() are called in this order.
 *
 * A resident pin has a locked read-only window instead of folios and slots.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "cache/pinning_internal.h"

#define PIN_SEALS (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
#define PIN_TRIES 16 /* against somebody who truncates all the time */

/*
 * Ways in.
 */

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
 * The way out.
 */

static void pin_finish(struct pin *pin)
{
	struct pin_table *table = pin->table;

	pin_erase(pin);
	if (pin->folios) {
		mapping_unpin_range(pin->mapping, pin->folios);
		table->ops->released(pin->mapping, pin->owner);
	}
	if (pin->done)
		pin->done(0, pin->data);
	table->ops->put(pin->owner);
	mem_free(pin);
	pin_table_finished(table);
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

void pins_release(struct pin *going)
{
	while (going) {
		struct pin *pin = going;

		going = pin->going;
		pin_release(pin);
	}
}
