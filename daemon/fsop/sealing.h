/* SPDX-License-Identifier: MIT */
/*
 * Seal requests of clients, whichever way they came: a seal may take its time, so the request is
 * put aside and answered when it is decided, or interrupted.
 */
#pragma once

#include "fsop/reply.h"

/**
 * struct seal_call - what a client asked for
 * @verb:    what is wanted
 * @seals:   F_SEAL_*, as asked
 * @flags:   CACHET_SEAL_NOWAIT, CACHET_SEAL_POPULATE
 * @timeout_ms: or CACHET_TIMEOUT_*
 * @handle:  of a hand-over
 * @owner:   handle that the call came through; 0 for an xattr
 * @may_seal: permission was found, or was checked by the kernel
 * @answer:  sends the reply
 */
struct seal_call {
	enum seal_verb verb;
	unsigned seals;
	unsigned flags;
	int timeout_ms;
	uint64_t handle;
	uint64_t owner;
	bool may_seal;
	void (*answer)(fuse_req_t req, struct inode *inode, int result);
};

/**
 * seal_call_start() - check the request, and answer it now or later
 * @inode: borrows; the kernel keeps it for as long as the request is open
 * @call: copied
 * Context: takes the inode's lock.
 */
void seal_call_start(fuse_req_t req, struct inode *inode, const struct seal_call *call);
