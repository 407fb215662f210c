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

void ioctl_add_seals(struct ioctl_call *call, const void *data)
{
	const struct cachet_seals *args = data;
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

void ioctl_get_seals(struct ioctl_call *call, const void *data)
{
	const struct cachet_seals *args = data;

	if (args->flags || args->timeout_ms || args->handle)
		reply_result(call->req, -EINVAL);
	else
		reply_seals(call->req, call->inode);
}
