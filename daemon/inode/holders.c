/* SPDX-License-Identifier: MIT */
#include "inode/holders.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "seal/procmaps.h"

/* The command of a process; empty when it is gone. */
static void process_comm(pid_t pid, char comm[CACHET_COMM_SIZE])
{
	g_autofree char *path = g_strdup_printf("/proc/%d/comm", pid);
	g_autofree char *text = NULL;

	comm[0] = '\0';
	if (g_file_get_contents(path, &text, NULL, NULL))
		g_strlcpy(comm, g_strchomp(text), CACHET_COMM_SIZE);
}

static uid_t process_uid(pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d", pid);
	struct stat st;

	return stat(path, &st) == 0 ? st.st_uid : (uid_t)-1;
}

static void holders_add(GArray *holders, struct cachet_holder *holder, bool named)
{
	if (named && holder->pid)
		process_comm(holder->pid, holder->comm);
	if (!named)
		holder->pid = holder->uid = 0;
	g_array_append_val(holders, *holder);
}

static void holders_add_writers(GArray *holders, struct inode *inode, bool named)
{
	g_autoptr(GArray) writers = g_array_new(FALSE, TRUE, sizeof(struct cachet_holder));
	int64_t now = clock_now_ms();
	struct writer *writer;

	pthread_mutex_lock(&inode->lock);
	list_for_each(writer, &inode->sealing.writers, link) {
		struct cachet_holder holder = {
			.kind = CACHET_HOLDER_WRITER,
			.pid = writer->pid,
			.uid = writer->uid,
			.id = writer->handle,
			.age_ms = now - writer->since_ms,
		};

		g_array_append_val(writers, holder);
	}
	pthread_mutex_unlock(&inode->lock);
	for (unsigned i = 0; i < writers->len; i++)
		holders_add(holders, &g_array_index(writers, struct cachet_holder, i), named);
}

/* Call a function with every pin of a file. */
static void pins_for_each(struct inode *inode, void (*visit)(const struct pin_info *, void *),
			  void *data)
{
	struct pin_info pins[64];
	uint64_t after = 0;
	size_t count;

	do {
		count = pin_table_list(inode->fs->pins, &inode->mapping, after, pins,
				       G_N_ELEMENTS(pins));
		for (size_t i = 0; i < count; i++)
			visit(&pins[i], data);
		if (count)
			after = pins[count - 1].id;
	} while (count == G_N_ELEMENTS(pins));
}

struct collected {
	GArray *array;
	bool named;
	int64_t now;
};

static void collect_holding_pin(const struct pin_info *pin, void *data)
{
	struct collected *collected = data;
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
	holders_add(collected->array, &holder, collected->named);
}

static bool collect_mapping(const struct procmap *map, void *data)
{
	struct collected *collected = data;
	struct cachet_holder holder = {
		.kind = CACHET_HOLDER_MAPPING,
		.pid = map->pid,
		.uid = process_uid(map->pid),
		.offset = map->offset,
		.length = map->length,
	};

	holders_add(collected->array, &holder, collected->named);
	return true;
}

GArray *inode_holders(struct inode *inode, bool named)
{
	GArray *holders = g_array_new(FALSE, TRUE, sizeof(struct cachet_holder));
	struct collected collected = { holders, named, clock_now_ms() };
	bool busy;

	if (sealing_current(&inode->sealing) & F_SEAL_WRITE)
		return holders;
	holders_add_writers(holders, inode, named);
	pins_for_each(inode, collect_holding_pin, &collected);
	procmaps_scan(inode->fs->device, inode->ino, collect_mapping, &collected);
	pthread_mutex_lock(&inode->lock);
	busy = inode->sealing.memory_busy;
	pthread_mutex_unlock(&inode->lock);
	if (busy && !holders->len) {
		struct cachet_holder unknown = { .kind = CACHET_HOLDER_UNKNOWN };

		holders_add(holders, &unknown, named);
	}
	return holders;
}

static void collect_pin(const struct pin_info *pin, void *data)
{
	struct collected *collected = data;
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
		process_comm(pin->pid, info.comm);
	}
	g_array_append_val(collected->array, info);
}

GArray *inode_pins(struct inode *inode, bool named)
{
	GArray *pins = g_array_new(FALSE, TRUE, sizeof(struct cachet_pin_info));
	struct collected collected = { pins, named, clock_now_ms() };

	pins_for_each(inode, collect_pin, &collected);
	return pins;
}

bool inode_owner_or_root(struct inode *inode, const struct caller *caller)
{
	scoped_mutex(&inode->lock);
	return caller->uid == 0 || caller->uid == inode->uid;
}

static void text_add_process(GString *text, pid_t pid, uid_t uid, const char *comm)
{
	if (pid)
		g_string_append_printf(text, " pid=%d uid=%u comm=%s", pid, uid, comm);
}

static void text_add_label(GString *text, const char *label)
{
	if (label[0])
		g_string_append_printf(text, " label=%s", label);
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

		g_string_append_printf(text, "id=%" PRIu64 " offset=%" PRIu64 " length=%" PRIu64 "%s",
				       (uint64_t)pin->id, (uint64_t)pin->offset,
				       (uint64_t)pin->length,
				       pin->flags & CACHET_PIN_RESIDENT ? " resident" : "");
		text_add_process(text, pin->pid, pin->uid, pin->comm);
		text_add_label(text, pin->label);
		g_string_append_c(text, '\n');
	}
	return text;
}
