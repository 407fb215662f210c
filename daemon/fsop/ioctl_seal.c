/* SPDX-License-Identifier: MIT */
/* The ioctls about seals, and who is in their way. */
#include <errno.h>
#include <string.h>

#include "fsop/ioctl.h"
#include "fsop/sealing.h"
#include "inode/holders.h"

#define HANDOVER_FLAGS (CACHET_SEAL_PREPARE | CACHET_SEAL_COMMIT | CACHET_SEAL_ABORT)
#define ADD_SEALS_FLAGS (CACHET_SEAL_NOWAIT | CACHET_SEAL_POPULATE | HANDOVER_FLAGS)

static void reply_seals(fuse_req_t req, struct inode *inode)
{
	struct cachet_seals args = {
		.size = sizeof(args),
		.seals = sealing_current(&inode->sealing),
	};

	reply_ioctl(req, 0, &args, sizeof(args));
}

static void answer_add_seals(fuse_req_t req, struct inode *inode, int result)
{
	if (result)
		reply_result(req, result);
	else
		reply_seals(req, inode);
}

static void handover_abort(struct ioctl_call *call)
{
	int result;

	pthread_mutex_lock(&call->inode->lock);
	result = sealing_abort_locked(&call->inode->sealing, call->handle ? call->handle->id : 0);
	pthread_mutex_unlock(&call->inode->lock);
	answer_add_seals(call->req, call->inode, result);
}

static int add_seals_check(const struct cachet_seals *args)
{
	unsigned handover = args->flags & HANDOVER_FLAGS;

	if (args->flags & ~ADD_SEALS_FLAGS || (handover & (handover - 1)))
		return -EINVAL;
	if (!handover && args->handle)
		return -EINVAL;
	return args->timeout_ms < CACHET_TIMEOUT_DEFAULT ? -EINVAL : 0;
}

void ioctl_add_seals(struct ioctl_call *call, const struct cachet_seals *args)
{
	unsigned handover = args->flags & HANDOVER_FLAGS;
	struct seal_call seal = {
		.verb = handover == CACHET_SEAL_PREPARE	 ? SEAL_PREPARE
			: handover == CACHET_SEAL_COMMIT ? SEAL_COMMIT
							 : SEAL_ADD,
		.seals = args->seals,
		.flags = args->flags,
		.timeout_ms = args->timeout_ms,
		.handle = args->handle,
		.owner = call->handle ? call->handle->id : 0,
		.may_seal = ioctl_may(call),
		.answer = answer_add_seals,
	};
	int result = add_seals_check(args);

	/* Who hands a writable handle over may seal by it, though through another. */
	if (handover && args->handle) {
		struct handle *handed = handle_find(call->fs, args->handle);

		if (seal.verb == SEAL_COMMIT || (handed && handed->inode == call->inode &&
						 handed->uid == call->caller.uid))
			seal.may_seal = true;
	}
	if (result)
		reply_result(call->req, result);
	else if (handover == CACHET_SEAL_ABORT)
		handover_abort(call);
	else
		seal_call_start(call->req, call->inode, &seal);
}

void ioctl_get_seals(struct ioctl_call *call, const struct cachet_seals *args)
{
	if (args->flags || args->timeout_ms || args->handle)
		reply_result(call->req, -EINVAL);
	else
		reply_seals(call->req, call->inode);
}

/**
 * struct list_call - a list that is made on another thread
 *
 * Who holds a file is read from /proc: with 200 processes 10 to 20 ms for their mappings, and 300
 * to 500 ms for their rings where some of them have thousands of descriptors.
 */
struct list_call {
	struct slow_task task;
	struct ioctl_call call;
	struct request_clock clock;
	uint64_t cursor;
};

static void list_call_start(const struct ioctl_call *call, uint64_t cursor,
			    void (*run)(struct slow_task *task))
{
	struct list_call *listing = g_new(struct list_call, 1);

	listing->task.run = run;
	listing->call = *call;
	listing->cursor = cursor;
	listing->clock = request_put_aside(call->fs);
	filesystem_run_slow(call->fs, &listing->task);
}

/* Takes @listing. */
static void list_call_answer(struct list_call *listing, const void *list)
{
	struct filesystem *fs = listing->call.fs;

	request_stop_clock(fs, &listing->clock);
	reply_ioctl(listing->call.req, 0, list, listing->call.known);
	g_free(listing);
	request_answered(fs);
}

static void holders_run(struct slow_task *task)
{
	struct list_call *listing = container_of(task, struct list_call, task);
	struct ioctl_call *call = &listing->call;
	bool named = inode_owner_or_root(call->inode, &call->caller);
	g_autofree struct cachet_holder_list *list = g_new0(struct cachet_holder_list, 1);
	g_autoptr(GArray) holders = NULL;
	uint64_t cursor = listing->cursor;

	holders = inode_holders(call->inode, named, &cursor, CACHET_HOLDERS_PER_PAGE);
	list->size = sizeof(*list);
	list->cursor = cursor;
	list->count = holders->len;
	if (holders->len)
		memcpy(list->holders, holders->data, holders->len * sizeof(list->holders[0]));
	list_call_answer(listing, list);
}

void ioctl_holders(struct ioctl_call *call, const struct cachet_holder_list *args)
{
	list_call_start(call, args->cursor, holders_run);
}

static void pin_list_run(struct slow_task *task)
{
	struct list_call *listing = container_of(task, struct list_call, task);
	struct ioctl_call *call = &listing->call;
	bool named = inode_owner_or_root(call->inode, &call->caller);
	g_autofree struct cachet_pin_list *list = g_new0(struct cachet_pin_list, 1);
	g_autoptr(GArray) pins = NULL;
	uint64_t cursor = listing->cursor;

	pins = inode_pins(call->inode, named, &cursor, CACHET_PINS_PER_PAGE);
	list->size = sizeof(*list);
	list->cursor = cursor;
	list->count = pins->len;
	if (pins->len)
		memcpy(list->pins, pins->data, pins->len * sizeof(list->pins[0]));
	list_call_answer(listing, list);
}

void ioctl_pin_list(struct ioctl_call *call, const struct cachet_pin_list *args)
{
	list_call_start(call, args->cursor, pin_list_run);
}
