/* SPDX-License-Identifier: MIT */
/*
 * The ioctls of include/cachet/ioctl.h. ioctl.c decodes and dispatches; the verbs stand beside it.
 */
#pragma once

#include <stddef.h>

#include "fsop/reply.h"

/**
 * struct ioctl_call - a decoded ioctl
 * @inode:  borrows
 * @handle: borrows; NULL on a directory
 * @known:  of the caller's struct: bytes that go back
 */
struct ioctl_call {
	fuse_req_t req;
	struct filesystem *fs;
	struct inode *inode;
	struct handle *handle;
	struct caller caller;
	size_t known;
};

/**
 * ioctl_may() - is the caller owner, root, or does it write through this handle?
 * Context: takes the inode's lock.
 */
bool ioctl_may(const struct ioctl_call *call);

/*
 * The verbs. Each gets its struct of include/cachet/ioctl.h, which is complete, where what the
 * caller's lacks is zero, and replies, at once or later; what is wrong with the arguments is said
 * there.
 */

void ioctl_add_seals(struct ioctl_call *call, const void *data);
void ioctl_get_seals(struct ioctl_call *call, const void *data);
void ioctl_pin(struct ioctl_call *call, const void *data);
void ioctl_unpin(struct ioctl_call *call, const void *data);
void ioctl_pin_list(struct ioctl_call *call, const void *data);
void ioctl_holders(struct ioctl_call *call, const void *data);
void ioctl_stat(struct ioctl_call *call, const void *data);
