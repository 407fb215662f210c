/* SPDX-License-Identifier: MIT */
/* The ioctls that list something of a file, a page at a time. */
#include <assert.h>
#include <string.h>

#include "fsop/ioctl.h"
#include "inode/holders.h"

/**
 * struct list_page - what the answers have in common
 */
struct list_page {
	__u32 size;
	__u32 count;
	__u64 cursor;
	char entries[];
};

static_assert(offsetof(struct cachet_holder_list, holders) == sizeof(struct list_page), "holders");
static_assert(offsetof(struct cachet_pin_list, pins) == sizeof(struct list_page), "pins");

/**
 * struct list_kind - a list that can be asked for
 * @collect:  returns a reference to an array of at most @capacity entries, from @cursor on
 * @capacity: entries of a page
 * @size:     of a page, bytes
 */
struct list_kind {
	GArray *(*collect)(struct inode *inode, bool named, uint64_t *cursor, unsigned capacity);
	unsigned capacity;
	size_t size;
};

/**
 * struct list_call - a list that is made on another thread
 *
 * Who holds a file is read from /proc: with 200 processes 10 to 20 ms for their mappings, and 300
 * to 500 ms for their rings where some of them have thousands of descriptors.
 */
struct list_call {
	struct slow_task task;
	const struct list_kind *kind;
	struct ioctl_call call;
	struct request_clock clock;
	uint64_t cursor;
};

/* Takes the call. */
static void list_call_run(struct slow_task *task)
{
	struct list_call *listing = container_of(task, struct list_call, task);
	const struct list_kind *kind = listing->kind;
	struct ioctl_call *call = &listing->call;
	struct filesystem *fs = call->fs;
	bool named = inode_owner_or_root(call->inode, &call->caller);
	g_autofree struct list_page *page = g_malloc0(kind->size);
	g_autoptr(GArray) found = NULL;

	found = kind->collect(call->inode, named, &listing->cursor, kind->capacity);
	page->size = kind->size;
	page->count = found->len;
	page->cursor = listing->cursor;
	if (found->len)
		memcpy(page->entries, found->data, found->len * g_array_get_element_size(found));
	request_stop_clock(fs, &listing->clock);
	reply_ioctl(call->req, 0, page, call->known);
	g_free(listing);
	request_answered(fs);
}

static void list_call_start(const struct ioctl_call *call, const struct list_kind *kind,
			    uint64_t cursor)
{
	struct list_call *listing = g_new(struct list_call, 1);

	listing->task.run = list_call_run;
	listing->kind = kind;
	listing->call = *call;
	listing->cursor = cursor;
	listing->clock = request_put_aside(call->fs);
	filesystem_run_slow(call->fs, &listing->task);
}

void ioctl_holders(struct ioctl_call *call, const void *data)
{
	const struct cachet_holder_list *args = data;
	static const struct list_kind holders = {
		inode_holders, CACHET_HOLDERS_PER_PAGE, sizeof(struct cachet_holder_list),
	};

	list_call_start(call, &holders, args->cursor);
}

void ioctl_pin_list(struct ioctl_call *call, const void *data)
{
	const struct cachet_pin_list *args = data;
	static const struct list_kind pins = {
		inode_pins, CACHET_PINS_PER_PAGE, sizeof(struct cachet_pin_list),
	};

	list_call_start(call, &pins, args->cursor);
}
