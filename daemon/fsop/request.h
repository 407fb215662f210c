/* SPDX-License-Identifier: MIT */
/*
 * A request, from the moment at which an operation begins until its answer is handed to the kernel:
 * who asks, since when, and what several operations ask of it.
 *
 * Requests are counted and measured. One is counted before its answer is sent, so that whoever has
 * the answer finds it counted. The funnel of answers (reply.h) does that; who answers later, on
 * another thread, takes the clock along and stops it himself.
 */
#pragma once

#include <fuse_lowlevel.h>

#include "inode/attr.h"
#include "inode/filesystem.h"
#include "inode/inode.h"

/**
 * struct request_clock - what a request wants, and since when
 * @began_ns: of clock_now_ns()
 */
struct request_clock {
	enum cachet_request kind;
	int64_t began_ns;
};

/**
 * request_filesystem() - whose request is this? Its clock begins to run.
 * @kind: what it wants
 * Context: once, at the beginning of an operation, on the thread that answers it or puts it aside.
 * Return: borrows the filesystem.
 */
struct filesystem *request_filesystem(fuse_req_t req, enum cachet_request kind);

/**
 * request_wants() - what this thread's request wants is better known
 * Context: between request_filesystem() and the answer.
 */
void request_wants(enum cachet_request kind);

/**
 * request_take_clock() - the answer may be given by another thread
 * Context: between request_filesystem() and whatever makes the request known elsewhere.
 * Return: the clock, for request_stop_clock().
 */
__attribute__((warn_unused_result)) struct request_clock request_take_clock(void);

/**
 * request_stop_clock() - the answer is about to be sent: count the request
 * @clock: borrows
 * Context: once, before the reply.
 */
void request_stop_clock(struct filesystem *fs, const struct request_clock *clock);

/**
 * request_caller() - who asks
 * Context: any.
 * Return: by value.
 */
struct caller request_caller(fuse_req_t req);

/**
 * request_in_group() - is the caller a member of a group, or root?
 * Context: may read /proc.
 */
bool request_in_group(fuse_req_t req, gid_t gid);

/**
 * request_kill() - which set-id bits must a file lose when this caller writes to it?
 * @inode: borrows
 * Context: takes the inode's lock; may read /proc.
 * Return: ATTR_KILL_*.
 */
unsigned request_kill(fuse_req_t req, struct inode *inode);

/**
 * request_kill_unless_root() - the same, 0 for root: where the kernel does not say
 * Context: as request_kill().
 * Return: ATTR_KILL_*.
 */
unsigned request_kill_unless_root(fuse_req_t req, struct inode *inode);

/**
 * request_kill_as_told() - the same for a write or an open, which may say so themselves
 * @fi: borrows, of the request
 * Context: as request_kill().
 * Return: ATTR_KILL_*.
 */
unsigned request_kill_as_told(fuse_req_t req, struct inode *inode, const struct fuse_file_info *fi);

/**
 * request_put_aside() - this operation may reply later, from another thread
 *
 * The session outlives all requests that were put aside and not yet answered.
 * Context: before another thread can know of the request.
 * Return: as request_take_clock().
 */
__attribute__((warn_unused_result)) struct request_clock request_put_aside(struct filesystem *fs);

/**
 * request_answered() - a request that was put aside has its reply
 * Context: any; after the reply.
 */
void request_answered(struct filesystem *fs);

/**
 * request_make_inode() - a node without a name, as the caller's own
 * @dir: borrows; directory that it will be in
 * @mode, @rdev, @target, @inode: of inode_new()
 *
 * Tries again while space_may_come().
 * Context: sleeps; takes the lock of @dir.
 * Return: as inode_new().
 */
int request_make_inode(fuse_req_t req, struct inode *dir, mode_t mode, dev_t rdev,
		       const char *target, struct inode **inode);
