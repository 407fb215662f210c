/* SPDX-License-Identifier: MIT */
/* Copying a file from a disk into the memory of a mount without the processor touching a byte. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "copy.h"
#include "ring.h"

/* Reads go into two windows in turn: one is filled while the other is made. */
#define DIRECT_WINDOWS 2

/**
 * struct direct_window - a map of a part of the target whose pages are pinned
 * @base:   NULL: not mapped
 * @offset: of the file, bytes
 * @reads:  under way
 */
struct direct_window {
	char *base;
	uint64_t offset;
	uint64_t length;
	unsigned reads;
};

/**
 * struct direct - the means of such a copy
 * @from:      the source, opened with O_DIRECT
 * @to:        the target, opened for reading and writing
 * @ring:      registers the windows and reads into them
 * @alignment: of offsets and lengths, bytes
 * @window:    size of a window, bytes; halved where memory may not be locked
 * @length:    of the target, bytes
 * @end:       where the source ended, or a read failed
 * @error:     of the first read that failed
 */
struct direct {
	int from;
	int to;
	struct ring ring;
	uint64_t alignment;
	uint64_t window;
	uint64_t length;
	uint64_t end;
	int error;
	struct direct_window windows[DIRECT_WINDOWS];
};

#define DIRECT_CLOSED { .from = -1, .to = -1, .ring.fd = -1 }

/**
 * direct_begin() - open both files anew, and make a ring
 * @direct: DIRECT_CLOSED before, and where this fails
 * @from: borrows; a regular file, open for reading
 * @to: borrows; an empty file of a mount, open for writing
 * @size: of the source, bytes
 * @always: also where most of the source is in memory, or it is small
 * Return: 0; -EOPNOTSUPP (it would not be faster), -EINVAL (the source cannot), -ENODEV (the mount
 * cannot map what is not sealed: io=daemon), -ENOSYS, -EPERM, -ENOMEM (io_uring is not there, not
 * allowed, or out of memory), or another negative errno.
 */
int direct_begin(struct direct *direct, int from, int to, uint64_t size, bool always);

/**
 * direct_copy() - read a span of the source into the same place of the target
 * @copy: its stop and moved; its done is set to where the copy got to, at most @end
 * @begin: bytes; the block that it is in is read from its start
 * @end: bytes; the block that it is in is left
 *
 * The target is made as long as @end if it is shorter. Bytes behind copy->done may be anything that
 * the source had. Nothing of the target is mapped or pinned at return, unless it is busy.
 * Return: 0, also when the source ended early; -EINTR when told to stop; or another negative errno:
 * copy->at_source says where, and unless it is busy all before copy->done is there.
 */
int direct_copy(struct direct *direct, struct copy *copy, uint64_t begin, uint64_t end);

/**
 * direct_busy() - are reads under way that direct_copy() could not wait for?
 *
 * Then bytes of the target may still change.
 */
bool direct_busy(const struct direct *direct);

/**
 * direct_end() - close what direct_begin() opened, if anything
 */
void direct_end(struct direct *direct);
