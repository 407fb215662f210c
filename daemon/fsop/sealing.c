/* SPDX-License-Identifier: MIT */
#include "fsop/sealing.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "inode/audit.h"

/**
 * struct seal_wait - a seal request and the FUSE request that it answers
 */
struct seal_wait {
	struct seal_request request;
	fuse_req_t req;
	struct inode *inode;
	struct request_clock clock;
	void (*answer)(fuse_req_t req, struct inode *inode, int result);
};

static void seal_wait_interrupted(fuse_req_t req, void *data)
{
	struct seal_wait *wait = data;

	(void)req;
	seal_interrupt(&wait->inode->sealing, &wait->request);
}

/* Takes @wait. */
static void seal_wait_answer(struct seal_wait *wait, int result)
{
	/* Returns when no interruption is under way, so that none can find the memory freed. */
	fuse_req_interrupt_func(wait->req, NULL, NULL);
	if (result == 0 && wait->request.verb != SEAL_PREPARE) {
		struct caller caller = request_caller(wait->req);

		audit_seal(wait->inode, wait->request.seals, &caller);
	}
	request_stop_clock(wait->inode->fs, &wait->clock);
	wait->answer(wait->req, wait->inode, result);
	g_free(wait);
}

static void seal_wait_done(struct seal_request *request, int result)
{
	seal_wait_answer(container_of(request, struct seal_wait, request), result);
}

static int64_t seal_call_deadline(struct filesystem *fs, const struct seal_call *call)
{
	int timeout = call->timeout_ms;

	if (call->verb == SEAL_COMMIT)
		timeout = SEAL_PREPARED_MS;
	else if (call->flags & CACHET_SEAL_NOWAIT)
		timeout = SEAL_GRACE_MS;
	else if (timeout == CACHET_TIMEOUT_DEFAULT)
		timeout = fs->config.seal_timeout_ms;
	else if (timeout == CACHET_TIMEOUT_FOREVER)
		return -1;
	return clock_now_ms() + MAX(timeout, SEAL_GRACE_MS);
}

void seal_call_start(fuse_req_t req, struct inode *inode, const struct seal_call *call)
{
	struct seal_wait *wait;
	unsigned current = sealing_current(&inode->sealing);
	int result = seal_rules_check(current, call->seals, call->may_seal);

	if (result) {
		if (call->verb != SEAL_PREPARE)
			atomic_fetch_add(&inode->fs->seals.refused, 1);
		call->answer(req, inode, result);
		return;
	}
	wait = g_new0(struct seal_wait, 1);
	wait->req = req;
	wait->inode = inode;
	wait->clock = request_take_clock();
	wait->answer = call->answer;
	wait->request.verb = call->verb;
	wait->request.seals = call->seals;
	wait->request.populate = call->flags & CACHET_SEAL_POPULATE;
	wait->request.deadline_ms = seal_call_deadline(inode->fs, call);
	wait->request.handle = call->handle;
	wait->request.owner = call->owner;
	wait->request.done = seal_wait_done;
	if (inode->fs->features & CACHET_FEATURE_IO_URING)
		wait->request.caller = request_caller(req).pid;
	fuse_req_interrupt_func(req, seal_wait_interrupted, wait);
	result = seal_submit(&inode->sealing, &wait->request);
	if (result != -EINPROGRESS)
		seal_wait_answer(wait, result);
}
