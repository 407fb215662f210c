/* SPDX-License-Identifier: MIT */
/*
 * The funnel: every answer to the kernel goes through here, exactly one for each request.
 *
 * It is also where requests are counted and measured: from the moment at which an operation begins
 * until its answer is handed to the kernel. A request is counted before its answer is sent, so that
 * whoever has the answer finds it counted.
 *
 * Whoever replies holds no lock: a reply may wait, and what it hands over may be freed by it.
 *
 * A reply may fail, when the caller was interrupted before it was answered; then what the kernel
 * would have owned is still ours. The functions that hand something over take it back themselves.
 *
 * Context: of every reply_*(): sleeps, no lock is held.
 */
#pragma once

#include <fuse_lowlevel.h>

#include "inode/attr.h"
#include "inode/filesystem.h"
#include "inode/handle.h"
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
 * space_may_come() - is it worth another try?
 * @result: of an operation that needs pages or an inode
 * @tries: how often it was tried, 0 at first
 *
 * close() returns before we hear of it, and so does unlink() before the kernel lets go of the
 * inode: what a client has just given up may be on its way back. Waits a moment.
 * Context: sleeps.
 * Return: true when space was lacking, and the operation should be tried again.
 */
bool space_may_come(int result, unsigned *tries);

/**
 * request_make_inode() - a node without a name, as the caller's own
 * @dir: borrows; directory that it will be in
 * @mode, @rdev, @target, @inode: of inode_new()
 *
 * Tries again while space_may_come().
 * Context: sleeps; takes no lock.
 * Return: as inode_new().
 */
int request_make_inode(fuse_req_t req, struct inode *dir, mode_t mode, dev_t rdev,
		       const char *target, struct inode **inode);

/**
 * reply_result() - an answer without contents
 * @result: 0 or a negative errno
 */
void reply_result(fuse_req_t req, int result);

/**
 * reply_none() - the kernel expects no answer
 */
void reply_none(fuse_req_t req);

/**
 * reply_entry() - a name's inode, or an error
 * @result: 0 or a negative errno
 * @inode: takes; becomes a lookup of the kernel's; may be NULL on error
 */
void reply_entry(fuse_req_t req, int result, struct inode *inode);

/**
 * reply_no_entry() - the name does not exist, and the kernel may remember that
 */
void reply_no_entry(fuse_req_t req);

/**
 * reply_create() - a file that was made, and is open
 * @inode: takes; becomes a lookup of the kernel's
 * @handle: takes
 */
void reply_create(fuse_req_t req, struct inode *inode, struct handle *handle);

/**
 * reply_open() - a file that is open
 * @handle: takes
 */
void reply_open(fuse_req_t req, struct handle *handle);

/**
 * reply_attr() - attributes of an inode
 * @inode: borrows
 */
void reply_attr(fuse_req_t req, struct inode *inode);

/**
 * reply_count() - so many bytes were written, or an error
 * @count: bytes or a negative errno
 */
void reply_count(fuse_req_t req, ssize_t count);

/**
 * reply_sized() - bytes for a caller that may have asked for their number only
 * @result: number of bytes, or a negative errno
 * @data: borrows
 * @asked: bytes that the caller has room for; 0: answer the number
 */
void reply_sized(fuse_req_t req, ssize_t result, const void *data, size_t asked);

/**
 * reply_bytes() - contents
 * @data: borrows
 */
void reply_bytes(fuse_req_t req, const void *data, size_t size);

/**
 * reply_zeroes() - contents that were never written
 * @size: bytes, not more than one request can ask for
 */
void reply_zeroes(fuse_req_t req, size_t size);

/**
 * reply_link() - the target of a symbolic link
 * @target: borrows
 */
void reply_link(fuse_req_t req, const char *target);

/**
 * reply_statfs() - what the file system has left
 * @st: borrows
 */
void reply_statfs(fuse_req_t req, const struct statvfs *st);

/**
 * reply_from_fd() - contents that stand in a file
 * @fd: borrows
 * @offset: bytes
 * @length: bytes; fewer are sent when the file ends before
 */
void reply_from_fd(fuse_req_t req, int fd, uint64_t offset, size_t length);

/**
 * reply_offset() - an offset, or an error
 * @offset: bytes, or a negative errno
 */
void reply_offset(fuse_req_t req, int64_t offset);

/**
 * reply_ioctl() - the struct of an ioctl, or an error
 * @result: 0 or a negative errno
 * @data: borrows
 */
void reply_ioctl(fuse_req_t req, int result, const void *data, size_t size);

/**
 * entry_fill() - what the kernel is told about an inode
 * @inode: borrows
 * @entry: filled in
 * Context: takes the inode's lock.
 */
void entry_fill(struct inode *inode, struct fuse_entry_param *entry);
