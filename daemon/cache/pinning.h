/* SPDX-License-Identifier: MIT */
/*
 * Pins: who holds which range of which mapping at its pages. One table serves a whole mount.
 * pinning.c begins with the life of a pin; pinning_table.c has the table.
 *
 * The table's lock is the last in the lock order; no callback is called with it held.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cachet/ioctl.h>

#include "cache/mapping.h"
#include "pin/engine.h"

struct pin_table;
struct pin_info;

/**
 * struct pin_owner_ops - what the table asks of whoever owns a mapping (the inode)
 * @get:      keep @owner, and so the mapping, alive; called by pin_table_add() only
 * @put:      the end of @get; from any thread, no lock held, may be the last
 * @released: something that may have hindered a write seal has gone: a pin, or the writable window
 *            of a pin that was refused. Called after the counts fell and before @put, from any
 *            thread, no lock held. Wake whoever waits.
 * @expired:  the time of a pin is over, and it is about to be released; called on the table's
 *            thread, no lock held. May be NULL.
 */
struct pin_owner_ops {
	void (*get)(void *owner);
	void (*put)(void *owner);
	void (*released)(struct mapping *mapping, void *owner);
	void (*expired)(struct mapping *mapping, void *owner, const struct pin_info *info);
};

/**
 * struct pin_request - what is to be pinned, for whom
 * @offset: bytes; whole pages around the range are pinned
 * @length: bytes, not 0; the range may not pass the end of the file
 * @flags:  CACHET_PIN_*
 * @ttl_ms: the pin goes by itself after this time; 0 is never
 * @label:  text, NUL-terminated, at most CACHET_LABEL_SIZE - 1 bytes are kept; NULL is ""
 * @uid:    whose it is
 * @pid:    who asked
 * @handle: number of the open handle that it belongs to, not 0
 * @owner:  owner of the mapping, for struct pin_owner_ops
 */
struct pin_request {
	uint64_t offset;
	uint64_t length;
	uint32_t flags;
	uint64_t ttl_ms;
	const char *label;
	uid_t uid;
	pid_t pid;
	uint64_t handle;
	void *owner;
};

/**
 * struct pin_info - what is told about a pin
 * @offset:     bytes, rounded down to pages
 * @length:     bytes, rounded up to pages
 * @created_ms: clock_now_ms() when it was granted
 * @blocking:   it hinders a write seal: not resident, and some of its pages are still the file's
 * @releasing:  it was released and the kernel has not yet let go
 */
struct pin_info {
	uint64_t id;
	uint64_t offset;
	uint64_t length;
	uint64_t handle;
	int64_t created_ms;
	uint64_t ttl_ms;
	uint32_t flags;
	uid_t uid;
	pid_t pid;
	bool blocking;
	bool releasing;
	char label[CACHET_LABEL_SIZE];
};

/**
 * struct pin_stat - figures of a table
 * @pins:         held now, resident ones not included
 * @resident:     resident pins held now
 * @pinned_pages: pages held by @pins
 * @granted:      pins of both kinds since the table was made
 * @broken:       pins that went by pin_table_remove() with handle 0
 * @expired:      pins that went by their time to live
 */
struct pin_stat {
	uint64_t pins;
	uint64_t resident;
	uint64_t pinned_pages;
	uint64_t granted;
	uint64_t broken;
	uint64_t expired;
};

/* Most resident pins of a table: each takes a mapping of the process. */
#define PIN_RESIDENT_MAX 16384u

/**
 * pin_table_new() - an empty table, and the thread that watches times to live
 * @engine: borrows, outlives the table; NULL: only resident pins are granted
 * @ops: borrows, outlives the table
 * Context: after the daemon's last fork().
 * Return: returns a reference to the table, or NULL when memory or threads run out.
 */
struct pin_table *pin_table_new(struct pin_engine *engine, const struct pin_owner_ops *ops);

/**
 * pin_table_free() - release what is left, wait until the kernel has let go of it, free the table
 * @table: takes; may be NULL
 * Context: sleeps; nobody adds pins any more; not from a callback of the table.
 */
void pin_table_free(struct pin_table *table);

/**
 * pin_table_add() - grant a pin
 * @table: borrows
 * @mapping: borrows; alive until the owner is put
 * @request: borrows
 * @id: out: name of the pin, never reused
 *
 * Fills the holes of the range, then counts the pin on every folio, then pins the memory. The
 * writable window that this takes counts with mapping_map_writable() until the pin can be seen by
 * pin_table_blocking() and mapping_may_be_pinned(), so there is no moment at which a seal can miss
 * it.
 *
 * A resident pin keeps pages in RAM, no more: it hinders no seal, and is granted on sealed files
 * too.
 * Context: sleeps, in proportion to the length; takes the invalidate lock.
 * Return: 0; -EPERM (sealed against writing); -EAGAIN (a seal request is in its short last step:
 * ask again when that has ended); -EINVAL (length 0, flags, range past the end); -ENOSPC, -ENOMEM
 * (nothing was pinned; RLIMIT_MEMLOCK is -ENOMEM too); -ENOBUFS (too many pins); -EDQUOT (too many
 * of one user, see shares.h); -EOPNOTSUPP (no engine); -EMFILE. On error nothing is left but pages
 * that were allocated.
 */
int pin_table_add(struct pin_table *table, struct mapping *mapping,
		  const struct pin_request *request, uint64_t *id);

/**
 * pin_table_remove() - let a pin go
 * @table: borrows
 * @mapping: borrows; the pin must be one of this mapping
 * @id: the pin
 * @handle: the pin must belong to this handle; 0: break it, whosever it is
 * @done: called once if this returns 0, with @result 0, when the kernel has let go and after the
 *        owner was told; on another thread, or on this one before the call returns. May be NULL.
 * @data: for @done
 * Context: may sleep for as long as another thread pins; calls back.
 * Return: 0; -ENOENT (no such pin, or it is going already); -EPERM (it belongs to another handle).
 */
int pin_table_remove(struct pin_table *table, struct mapping *mapping, uint64_t id,
		     uint64_t handle, void (*done)(int result, void *data), void *data);

/**
 * pin_table_remove_handle() - let all pins of a handle go
 * @table: borrows
 * @mapping: borrows; what the handle is open on
 * @handle: number of the handle
 * Context: as pin_table_remove(); may return before the kernel has let go.
 */
void pin_table_remove_handle(struct pin_table *table, struct mapping *mapping, uint64_t handle);

/**
 * pin_table_blocking() - how many pins hinder a write seal of a mapping
 * @table: borrows
 * @mapping: borrows
 *
 * Resident pins do not count, nor do pins all of whose pages were cut off by truncation or a punch.
 * A pin that is on its way out counts until the kernel has let go.
 * Context: any; takes the table's lock. Time in proportion to the mapping's pins.
 * Return: pins.
 */
unsigned pin_table_blocking(struct pin_table *table, struct mapping *mapping);

/**
 * pin_table_list() - pins of a mapping, in the order of their ids
 * @table: borrows
 * @mapping: borrows
 * @after: ids greater than this one; 0 begins
 * @infos: filled in
 * @capacity: entries of @infos
 *
 * To go on, pass the last id that was filled in; fewer than @capacity entries are the end.
 * Context: any; a snapshot. Takes the table's lock.
 * Return: entries filled in.
 */
size_t pin_table_list(struct pin_table *table, struct mapping *mapping, uint64_t after,
		      struct pin_info *infos, size_t capacity);

/**
 * pin_table_stat() - figures of the table
 * @table: borrows
 * @stat: filled in
 * Context: any; takes the table's lock.
 */
void pin_table_stat(struct pin_table *table, struct pin_stat *stat);
