/* SPDX-License-Identifier: MIT */
#include "inode/holders.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "inode/process.h"
#include "seal/procmaps.h"
#include "seal/procrings.h"

/*
 * A list is told in parts, so each part begins where a cursor says. That of holders tells the stage
 * in its highest bits and a place in the stage below: an index, or, for pins, an id.
 */
enum holders_stage {
	STAGE_WRITERS,
	STAGE_PINS,
	STAGE_PROC, /* what /proc shows, and what nobody does */
	STAGES,
};

#define STAGE_SHIFT 60
#define PLACE_MASK ((UINT64_C(1) << STAGE_SHIFT) - 1)

/**
 * struct collected - a part of a list
 * @array: what is told
 * @named: with pids and commands
 * @now: clock_now_ms()
 * @pid: whose command is in @comm, as one process often has many pins
 */
struct collected {
	GArray *array;
	bool named;
	int64_t now;
	pid_t pid;
	char comm[CACHET_COMM_SIZE];
};

static void collected_comm(struct collected *collected, pid_t pid, char comm[CACHET_COMM_SIZE])
{
	if (!collected->named || !pid)
		return;
	if (collected->pid != pid)
		process_comm(pid, collected->comm);
	collected->pid = pid;
	memcpy(comm, collected->comm, CACHET_COMM_SIZE);
}

static void collected_add(struct collected *collected, struct cachet_holder *holder)
{
	collected_comm(collected, holder->pid, holder->comm);
	if (!collected->named)
		holder->pid = holder->uid = 0;
	g_array_append_val(collected->array, *holder);
}

/* Return: where to go on in this stage, 0 at its end. */
static uint64_t collect_writers(struct collected *collected, struct inode *inode, uint64_t place,
				unsigned capacity)
{
	g_autoptr(GArray) writers = g_array_new(FALSE, TRUE, sizeof(struct cachet_holder));
	uint64_t index = 0, next = 0;
	struct writer *writer;

	pthread_mutex_lock(&inode->lock);
	list_for_each(writer, &inode->sealing.writers, link) {
		struct cachet_holder holder = {
			.kind = CACHET_HOLDER_WRITER,
			.pid = writer->pid,
			.uid = writer->uid,
			.id = writer->handle,
			.age_ms = collected->now - writer->since_ms,
		};

		if (index++ < place)
			continue;
		if (writers->len == capacity) {
			next = index - 1;
			break;
		}
		g_array_append_val(writers, holder);
	}
	pthread_mutex_unlock(&inode->lock);
	for (unsigned i = 0; i < writers->len; i++)
		collected_add(collected, &g_array_index(writers, struct cachet_holder, i));
	return next;
}

static void collect_holding_pin(struct collected *collected, const struct pin_info *pin)
{
	struct cachet_holder holder = {
		.kind = CACHET_HOLDER_PIN,
		.pid = pin->pid,
		.uid = pin->uid,
		.id = pin->id,
		.offset = pin->offset,
		.length = pin->length,
		.age_ms = collected->now - pin->created_ms,
	};

	if (!pin->blocking)
		return;
	memcpy(holder.label, pin->label, sizeof(holder.label));
	collected_add(collected, &holder);
}

static void collect_pin(struct collected *collected, const struct pin_info *pin)
{
	struct cachet_pin_info info = {
		.id = pin->id,
		.offset = pin->offset,
		.length = pin->length,
		.handle = pin->handle,
		.age_ms = collected->now - pin->created_ms,
		.ttl_ms = pin->ttl_ms,
		.flags = pin->flags,
	};

	memcpy(info.label, pin->label, sizeof(info.label));
	if (collected->named) {
		info.uid = pin->uid;
		info.pid = pin->pid;
		collected_comm(collected, pin->pid, info.comm);
	}
	g_array_append_val(collected->array, info);
}

/* Return: the id to go on after, 0 at the end. */
static uint64_t collect_pins(struct collected *collected, struct inode *inode, uint64_t after,
			     unsigned capacity,
			     void (*add)(struct collected *, const struct pin_info *))
{
	struct pin_info pins[64];

	for (;;) {
		unsigned room = capacity - collected->array->len;
		size_t count;

		if (!room)
			return after;
		room = MIN(room, G_N_ELEMENTS(pins));
		count = pin_table_list(inode->fs->pins, &inode->mapping, after, pins, room);
		for (size_t i = 0; i < count; i++)
			add(collected, &pins[i]);
		if (count)
			after = pins[count - 1].id;
		if (count < room)
			return 0;
	}
}

static bool collect_mapping(const struct procmap *map, void *data)
{
	struct cachet_holder holder = {
		.kind = CACHET_HOLDER_MAPPING,
		.pid = map->pid,
		.uid = process_uid(map->pid),
		.offset = map->offset,
		.length = map->length,
	};

	collected_add(data, &holder);
	return true;
}

/**
 * struct collected_rings
 * @busy: the memory is held by somebody unseen
 * @writers: processes that may have mapped the file writable
 */
struct collected_rings {
	struct collected *collected;
	bool busy;
	pid_t writers[PAST_WRITERS];
};

/* A buffer that is not mapped any more may be of any file: who had this file is suspected. */
static bool rings_suspect(const struct collected_rings *rings, pid_t pid)
{
	for (unsigned i = 0; rings->busy && i < PAST_WRITERS; i++)
		if (rings->writers[i] == pid)
			return true;
	return false;
}

static void collect_ring(const struct procring *ring, void *data)
{
	struct collected_rings *rings = data;
	struct cachet_holder holder = {
		.kind = CACHET_HOLDER_RING,
		.pid = ring->pid,
		.uid = process_uid(ring->pid),
		.offset = ring->offset,
		.length = ring->length,
	};

	if (!ring->mapped && !rings_suspect(rings, ring->pid))
		return;
	if (!ring->mapped)
		g_strlcpy(holder.label, "perhaps: unmapped since", sizeof(holder.label));
	collected_add(rings->collected, &holder);
}

static void collect_from_proc(struct collected *collected, struct inode *inode)
{
	struct collected_rings rings = { .collected = collected };
	bool explained;

	pthread_mutex_lock(&inode->lock);
	rings.busy = inode->sealing.memory_busy;
	explained = inode->sealing.nr_writers > 0;
	memcpy(rings.writers, inode->past_writers, sizeof(rings.writers));
	pthread_mutex_unlock(&inode->lock);
	procmaps_scan(inode->fs->device, inode->ino, collect_mapping, collected);
	if (rings.busy || collected->array->len)
		procrings_scan(inode->fs->device, inode->ino, collect_ring, &rings);
	explained = explained || collected->array->len ||
		    pin_table_blocking(inode->fs->pins, &inode->mapping);
	if (rings.busy && !explained) {
		struct cachet_holder unknown = { .kind = CACHET_HOLDER_UNKNOWN };

		collected_add(collected, &unknown);
	}
}

static uint64_t collect_proc(struct collected *collected, struct inode *inode, uint64_t place,
			     unsigned capacity)
{
	g_autoptr(GArray) found = g_array_new(FALSE, TRUE, sizeof(struct cachet_holder));
	struct collected all = { .array = found, .named = collected->named, .now = collected->now };
	unsigned room = capacity - collected->array->len;

	collect_from_proc(&all, inode);
	if (place < found->len)
		g_array_append_vals(collected->array,
				    &g_array_index(found, struct cachet_holder, place),
				    MIN(found->len - place, room));
	return found->len > place + room ? place + room : 0;
}

GArray *inode_holders(struct inode *inode, bool named, uint64_t *cursor, unsigned capacity)
{
	GArray *holders = g_array_new(FALSE, TRUE, sizeof(struct cachet_holder));
	struct collected collected = { .array = holders, .named = named, .now = clock_now_ms() };
	uint64_t place = *cursor & PLACE_MASK;
	unsigned stage = *cursor >> STAGE_SHIFT;

	*cursor = 0;
	if (sealing_current(&inode->sealing) & F_SEAL_WRITE)
		return holders;
	for (; stage < STAGES; stage++, place = 0) {
		if (holders->len == capacity) {
			*cursor = (uint64_t)stage << STAGE_SHIFT;
			break;
		}
		if (stage == STAGE_WRITERS)
			place = collect_writers(&collected, inode, place, capacity);
		else if (stage == STAGE_PINS)
			place = collect_pins(&collected, inode, place, capacity,
					     collect_holding_pin);
		else
			place = collect_proc(&collected, inode, place, capacity);
		if (place) {
			*cursor = (uint64_t)stage << STAGE_SHIFT | place;
			break;
		}
	}
	return holders;
}

GArray *inode_pins(struct inode *inode, bool named, uint64_t *cursor, unsigned capacity)
{
	GArray *pins = g_array_new(FALSE, TRUE, sizeof(struct cachet_pin_info));
	struct collected collected = { .array = pins, .named = named, .now = clock_now_ms() };

	*cursor = collect_pins(&collected, inode, *cursor, capacity, collect_pin);
	return pins;
}

bool inode_owner_or_root(struct inode *inode, const struct caller *caller)
{
	scoped_mutex(&inode->lock);
	return caller->uid == 0 || caller->uid == inode->uid;
}

/* Text of a process may hold anything, and shall not look like a line of ours. */
static void text_add_foreign(GString *text, const char *foreign)
{
	for (; *foreign; foreign++)
		g_string_append_c(text, g_ascii_iscntrl(*foreign) ? '?' : *foreign);
}

static void text_add_process(GString *text, pid_t pid, uid_t uid, const char *comm)
{
	if (!pid)
		return;
	g_string_append_printf(text, " pid=%d uid=%u comm=", pid, uid);
	text_add_foreign(text, comm);
}

static void text_add_label(GString *text, const char *label)
{
	if (!label[0])
		return;
	g_string_append(text, " label=");
	text_add_foreign(text, label);
}

GString *holders_text(GArray *holders)
{
	static const char *const kinds[] = {
		[CACHET_HOLDER_WRITER] = "writer",   [CACHET_HOLDER_PIN] = "pin",
		[CACHET_HOLDER_MAPPING] = "mapping", [CACHET_HOLDER_RING] = "ring",
		[CACHET_HOLDER_UNKNOWN] = "unknown",
	};
	GString *text = g_string_new(NULL);

	for (unsigned i = 0; i < holders->len; i++) {
		struct cachet_holder *holder = &g_array_index(holders, struct cachet_holder, i);

		g_string_append(text, kinds[holder->kind]);
		if (holder->id)
			g_string_append_printf(text, " id=%" PRIu64, (uint64_t)holder->id);
		text_add_process(text, holder->pid, holder->uid, holder->comm);
		if (holder->length)
			g_string_append_printf(text, " offset=%" PRIu64 " length=%" PRIu64,
					       (uint64_t)holder->offset,
					       (uint64_t)holder->length);
		text_add_label(text, holder->label);
		g_string_append_c(text, '\n');
	}
	return text;
}

GString *pins_text(GArray *pins)
{
	GString *text = g_string_new(NULL);

	for (unsigned i = 0; i < pins->len; i++) {
		struct cachet_pin_info *pin = &g_array_index(pins, struct cachet_pin_info, i);

		g_string_append_printf(text,
				       "id=%" PRIu64 " offset=%" PRIu64 " length=%" PRIu64 "%s",
				       (uint64_t)pin->id, (uint64_t)pin->offset,
				       (uint64_t)pin->length,
				       pin->flags & CACHET_PIN_RESIDENT ? " resident" : "");
		text_add_process(text, pin->pid, pin->uid, pin->comm);
		text_add_label(text, pin->label);
		g_string_append_c(text, '\n');
	}
	return text;
}
