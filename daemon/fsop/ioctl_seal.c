/* SPDX-License-Identifier: MIT */
/* The ioctls about seals. */
#include <errno.h>

#include "fsop/ioctl.h"
#include "fsop/sealing.h"

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

static enum seal_verb add_seals_verb(const struct cachet_seals *args)
{
	if (args->flags & CACHET_SEAL_PREPARE)
		return SEAL_PREPARE;
	return args->flags & CACHET_SEAL_COMMIT ? SEAL_COMMIT : SEAL_ADD;
}

/* Who hands a writable handle over may seal by it, though through another. */
static bool handover_may(const struct ioctl_call *call, const struct cachet_seals *args)
{
	if (!args->handle)
		return false;
	if (args->flags & CACHET_SEAL_COMMIT)
		return true;
	return (args->flags & CACHET_SEAL_PREPARE) &&
	       inode_has_handle(call->inode, args->handle, call->caller.uid);
}

void ioctl_add_seals(struct ioctl_call *call, const void *data)
{
	const struct cachet_seals *args = data;
	struct seal_call seal = {
		.verb = add_seals_verb(args),
		.seals = args->seals,
		.flags = args->flags,
		.timeout_ms = args->timeout_ms,
		.handle = args->handle,
		.owner = call->handle ? call->handle->id : 0,
		.may_seal = ioctl_may(call) || handover_may(call, args),
		.answer = answer_add_seals,
	};
	int result = add_seals_check(args);

	if (result)
		reply_result(call->req, result);
	else if (args->flags & CACHET_SEAL_ABORT)
		handover_abort(call);
	else
		seal_call_start(call->req, call->inode, &seal);
}

void ioctl_get_seals(struct ioctl_call *call, const void *data)
{
	const struct cachet_seals *args = data;

	if (args->flags || args->timeout_ms || args->handle)
		reply_result(call->req, -EINVAL);
	else
		reply_seals(call->req, call->inode);
}
