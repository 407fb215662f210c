/* SPDX-License-Identifier: MIT */
/*
 * The funnel: every answer to the kernel goes through here, exactly one for each request. It stops
 * the request's clock (request.h), unless whoever answers had taken that along.
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
#include <sys/statvfs.h>

#include "fsop/request.h"
#include "inode/handle.h"

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
