/* SPDX-License-Identifier: MIT */
/*
 * The ioctls about pins. A pin that meets a seal in its last step is put aside like an open for
 * writing; an unpin is answered when the kernel has let go of the pages.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "fsop/ioctl.h"
#include "inode/audit.h"
#include "inode/holders.h"
#include "inode/process.h"
#include "inode/sealed.h"

/**
 * struct pin_call - a PIN under way
 */
struct pin_call {
	struct admission admission;
	fuse_req_t req;
	struct filesystem *fs;
	struct inode *inode;
	struct handle *handle;
	struct caller caller;
	struct request_clock clock;
	size_t known;
	struct cachet_pin args;
};

static void pin_call_run(struct pin_call *pin);

static void pin_call_resume(struct admission *admission)
{
	pin_call_run(container_of(admission, struct pin_call, admission));
}

static int pin_call_admit(struct pin_call *pin)
{
	scoped_mutex(&pin->inode->lock);
	if (pin->args.flags & CACHET_PIN_RESIDENT)
		return 0;
	return sealing_admit_writer_locked(&pin->inode->sealing, &pin->admission);
}

static int pin_call_add(struct pin_call *pin)
{
	const struct pin_request request = {
		.offset = pin->args.offset,
		.length = pin->args.length,
		.flags = pin->args.flags,
		.ttl_ms = pin->args.ttl_ms,
		.label = pin->args.label,
		.uid = pin->caller.uid,
		.pid = process_of_thread(pin->caller.pid),
		.handle = pin->handle->id,
		.owner = pin->inode,
	};
	uint64_t id = 0;
	int result = pin_table_add(pin->fs->pins, &pin->inode->mapping, &request, &id);

	pin->args.id = id;
	return result;
}

/* Takes @pin. */
static void pin_call_run(struct pin_call *pin)
{
	unsigned tries = 0;
	int result;

	atomic_store(&pin->handle->has_pinned, true);
	do {
		result = pin_call_admit(pin);
		if (result == -EINPROGRESS)
			return; /* and may be gone already */
		if (result == 0)
			result = pin_call_add(pin);
		/* -EAGAIN: a seal's last step began in between, wait for that */
	} while (result == -EAGAIN || space_may_come(result, &tries));
	inode_attr_stale(pin->inode);
	request_stop_clock(pin->fs, &pin->clock);
	reply_ioctl(pin->req, result, &pin->args, pin->known);
	request_answered(pin->fs);
	g_free(pin);
}

void ioctl_pin(struct ioctl_call *call, const void *data)
{
	const struct cachet_pin *args = data;
	struct pin_call *pin;

	if (args->flags & ~CACHET_PIN_RESIDENT || args->id ||
	    !memchr(args->label, '\0', sizeof(args->label))) {
		reply_result(call->req, -EINVAL);
		return;
	}
	if (!call->handle || !ioctl_may(call)) {
		reply_result(call->req, -EPERM);
		return;
	}
	pin = g_new0(struct pin_call, 1);
	list_init(&pin->admission.link);
	pin->admission.resume = pin_call_resume;
	pin->req = call->req;
	pin->fs = call->fs;
	pin->inode = call->inode;
	pin->handle = call->handle;
	pin->caller = call->caller;
	pin->known = call->known;
	pin->args = *args;
	pin->clock = request_put_aside(pin->fs);
	pin_call_run(pin);
}

/**
 * struct unpin_call - an UNPIN under way
 */
struct unpin_call {
	fuse_req_t req;
	struct filesystem *fs;
	struct request_clock clock;
	struct cachet_unpin args;
};

static void unpin_call_done(int result, void *data)
{
	struct unpin_call *unpin = data;

	request_stop_clock(unpin->fs, &unpin->clock);
	reply_ioctl(unpin->req, result, &unpin->args, sizeof(unpin->args));
	request_answered(unpin->fs);
	g_free(unpin);
}

void ioctl_unpin(struct ioctl_call *call, const void *data)
{
	const struct cachet_unpin *args = data;
	struct mapping *mapping = &call->inode->mapping;
	struct pin_table *pins = call->fs->pins;
	struct unpin_call *unpin;
	struct pin_info info;
	int result;

	if (args->reserved || !call->handle) {
		reply_result(call->req, -EINVAL);
		return;
	}
	unpin = g_new(struct unpin_call, 1);
	unpin->req = call->req;
	unpin->fs = call->fs;
	unpin->args = *args;
	unpin->clock = request_put_aside(call->fs);
	result = pin_table_remove(pins, mapping, args->id, call->handle->id, unpin_call_done,
				  unpin);
	/* The owner of the file and root may break a pin that is somebody else's. */
	if (result == -EPERM && inode_owner_or_root(call->inode, &call->caller)) {
		auto_inode inode = call->inode; /* once it is answered the file may go */
		bool known = pin_table_list(pins, mapping, args->id - 1, &info, 1) == 1;

		inode_get(inode);
		result = pin_table_remove(pins, mapping, args->id, 0, unpin_call_done, unpin);
		if (result == 0 && known)
			audit_pin_broken(inode, &info, &call->caller);
	}
	if (result) {
		request_stop_clock(call->fs, &unpin->clock);
		g_free(unpin);
		reply_result(call->req, result);
		request_answered(call->fs);
	}
}
