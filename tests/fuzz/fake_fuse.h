/* SPDX-License-Identifier: MIT */
/*
 * The other side of libfuse, without a kernel: what a kernel would know of a mount (nodes that it
 * has looked up, open handles, requests that wait for an answer), and requests to the daemon's
 * table of operations. It keeps the kernel's promises: no FORGET of a node and no RELEASE of a
 * handle while a request about it is open, and a reference for each answer that brings a node.
 *
 * A request that is answered twice, or never, ends the program.
 */
#pragma once

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "inode/filesystem.h"

#define KERNEL_NODES 64
#define KERNEL_HANDLES 32
#define KERNEL_REQUESTS 24
#define KERNEL_BACKINGS 64
#define KERNEL_WAITS INT64_MIN
#define KERNEL_FUSE_FD 1000000 /* stands for /dev/fuse; no such descriptor exists */

/**
 * struct kernel_node - an inode that the kernel knows
 * @lookups: references; 0: free slot
 * @used:  by open requests and handles
 * @seals: that were seen, with the size, the mode and the @digest of the bytes at that time
 */
struct kernel_node {
	uint64_t ino;
	uint64_t lookups;
	unsigned used;
	unsigned seals;
	uint64_t size;
	mode_t mode;
	uint64_t digest;
};

/**
 * struct kernel_handle - an open file
 * @used: by open requests
 * @map: shared mapping of the memory by a client, or NULL
 */
struct kernel_handle {
	bool open;
	uint64_t fh;
	uint64_t ino;
	int flags;
	int backing;
	unsigned used;
	void *map;
};

/**
 * struct kernel - see above
 * @fs: the daemon's state
 * @ops: the daemon's operations
 * @lock: guards what answers and the device change: they come from threads of the daemon, too
 * @sent: requests
 * @runs: kernel_reset() so far
 * @pins: granted before the last kernel_reset()
 * @result: of the last request that was sent: 0, a number of bytes, a negative errno, KERNEL_WAITS
 */
struct kernel {
	struct filesystem fs;
	const struct fuse_lowlevel_ops *ops;
	pthread_mutex_t lock;
	uint64_t sent;
	unsigned runs;
	uint64_t pins;
	int64_t result;
	unsigned other_threads; /* of the process, before the mount's were started */
	struct kernel_node nodes[KERNEL_NODES];
	struct kernel_handle handles[KERNEL_HANDLES];
	struct fuse_req *requests[KERNEL_REQUESTS];
	uint64_t stale[KERNEL_NODES]; /* numbers whose pages the daemon wants dropped */
	unsigned nr_stale;
	int backings[KERNEL_BACKINGS]; /* descriptors of memory, -1: free */
};

/* The one that was started last, whose /dev/fuse it is. */
extern struct kernel *kernel_current;

/**
 * require() - end the program unless the daemon is right
 * @what: what is wrong if not
 */
void require(bool holds, const char *what);

/**
 * kernel_start() - an empty mount
 * @passthrough: the fake /dev/fuse takes backing files
 */
void kernel_start(struct kernel *kernel, enum cachet_plane plane, bool passthrough);

/**
 * kernel_reset() - close, remove and forget everything, and check that nothing is left
 *
 * The mount is empty then, as it was at the start, but for numbers that were used.
 */
void kernel_reset(struct kernel *kernel);

/**
 * kernel_stop() - end the mount, and check that nothing is left of it
 */
void kernel_stop(struct kernel *kernel);

/**
 * kernel_request() - a new request
 * @node: it is about, may be NULL
 * @other: as well, may be NULL
 * @handle: it comes through, may be NULL
 * @flags: of an open
 * @lost: its answer will not arrive
 * Return: borrows the request, for an operation; NULL when too many wait.
 */
struct fuse_req *kernel_request(struct kernel *kernel, struct kernel_node *node,
				struct kernel_node *other, struct kernel_handle *handle,
				int flags, bool lost);

/**
 * kernel_sent() - the operation has returned: collect what was answered
 */
void kernel_sent(struct kernel *kernel, struct fuse_req *req);

/**
 * kernel_caller() - who asks with the next requests
 */
void kernel_caller(uid_t uid, gid_t gid);

/**
 * kernel_interrupt() - a client loses patience
 * @index: which of the waiting requests
 */
void kernel_interrupt(struct kernel *kernel, unsigned index);

/**
 * kernel_root() - the root directory
 */
struct kernel_node *kernel_root(struct kernel *kernel);

/**
 * kernel_check_seals() - is what the seals promise true?
 *
 * No seal goes away, sizes, x bits and bytes stay as they were sealed, and nobody has what he needs
 * to map a sealed file writable.
 */
void kernel_check_seals(struct kernel *kernel);
