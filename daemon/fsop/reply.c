/* SPDX-License-Identifier: MIT */
#include "fsop/reply.h"

#include <errno.h>

#define SPACE_TRIES 5
#define SPACE_PAUSE_US 1000

struct filesystem *request_filesystem(fuse_req_t req)
{
	struct filesystem *fs = fuse_req_userdata(req);

	atomic_fetch_add_explicit(&fs->stats.requests, 1, memory_order_relaxed);
	filesystem_wait_settled(fs);
	return fs;
}

struct filesystem *request_filesystem_async(fuse_req_t req)
{
	struct filesystem *fs = request_filesystem(req);

	atomic_fetch_add_explicit(&fs->stats.requests_async, 1, memory_order_relaxed);
	return fs;
}

struct caller request_caller(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct caller){
		.uid = ctx->uid,
		.gid = ctx->gid,
		.pid = ctx->pid,
		.umask = ctx->umask,
	};
}

bool request_in_group(fuse_req_t req, gid_t gid)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	g_autofree gid_t *groups = NULL;
	int count;

	if (ctx->uid == 0 || ctx->gid == gid)
		return true;
	count = fuse_req_getgroups(req, 0, NULL);
	if (count <= 0)
		return false;
	groups = g_new(gid_t, count);
	count = MIN(fuse_req_getgroups(req, count, groups), count);
	for (int i = 0; i < count; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

unsigned request_kill(fuse_req_t req, struct inode *inode)
{
	mode_t mode;
	gid_t gid;

	pthread_mutex_lock(&inode->lock);
	mode = inode->mode;
	gid = inode->gid;
	pthread_mutex_unlock(&inode->lock);
	if ((mode & (S_ISGID | S_IXGRP)) == S_ISGID && !request_in_group(req, gid))
		return ATTR_KILL_PRIV | ATTR_KILL_SGID;
	return ATTR_KILL_PRIV;
}

unsigned request_kill_unless_root(fuse_req_t req, struct inode *inode)
{
	return fuse_req_ctx(req)->uid ? request_kill(req, inode) : 0;
}

void request_put_aside(struct filesystem *fs)
{
	atomic_fetch_add_explicit(&fs->stats.put_aside, 1, memory_order_relaxed);
}

void request_answered(struct filesystem *fs)
{
	atomic_fetch_sub_explicit(&fs->stats.put_aside, 1, memory_order_release);
}

bool space_may_come(int result, unsigned *tries)
{
	if ((result != -ENOSPC && result != -EDQUOT) || *tries >= SPACE_TRIES)
		return false;
	*tries += 1;
	g_usleep(SPACE_PAUSE_US);
	return true;
}

void reply_result(fuse_req_t req, int result)
{
	fuse_reply_err(req, -result);
}

void reply_none(fuse_req_t req)
{
	fuse_reply_none(req);
}

void entry_fill(struct inode *inode, struct fuse_entry_param *entry)
{
	*entry = (struct fuse_entry_param){
		.ino = inode->ino,
		.generation = 1,
		.entry_timeout = CACHE_LONG,
	};
	entry->attr_timeout = attr_get(inode, &entry->attr);
}

void reply_entry(fuse_req_t req, int result, struct inode *inode)
{
	struct fuse_entry_param entry;

	if (result) {
		reply_result(req, result);
		inode_put(inode);
		return;
	}
	entry_fill(inode, &entry);
	if (fuse_reply_entry(req, &entry))
		inode_put(inode);
}

void reply_no_entry(fuse_req_t req)
{
	const struct fuse_entry_param entry = { .entry_timeout = CACHE_LONG };

	fuse_reply_entry(req, &entry);
}

static struct fuse_file_info handle_file_info(const struct handle *handle)
{
	struct fuse_file_info fi = { .fh = handle->id, .noflush = 1 };

	switch (handle->mode) {
	case HANDLE_PASSTHROUGH:
		fi.backing_id = handle->inode->backing;
		break;
	case HANDLE_DIRECT:
		fi.direct_io = 1;
		fi.parallel_direct_writes = 1;
		break;
	case HANDLE_CACHED:
		fi.keep_cache = handle->keep_cache;
		break;
	}
	return fi;
}

void reply_create(fuse_req_t req, struct inode *inode, struct handle *handle)
{
	struct fuse_file_info fi = handle_file_info(handle);
	struct fuse_entry_param entry;

	entry_fill(inode, &entry);
	if (fuse_reply_create(req, &entry, &fi)) {
		handle_close(handle);
		inode_put(inode);
	}
}

void reply_open(fuse_req_t req, struct handle *handle)
{
	struct fuse_file_info fi = handle_file_info(handle);

	if (fuse_reply_open(req, &fi))
		handle_close(handle);
}

void reply_attr(fuse_req_t req, struct inode *inode)
{
	struct stat st;
	double timeout = attr_get(inode, &st);

	fuse_reply_attr(req, &st, timeout);
}

void reply_count(fuse_req_t req, ssize_t count)
{
	if (count < 0)
		reply_result(req, count);
	else
		fuse_reply_write(req, count);
}

void reply_sized(fuse_req_t req, ssize_t result, const void *data, size_t asked)
{
	if (result < 0)
		reply_result(req, result);
	else if (!asked)
		fuse_reply_xattr(req, result);
	else if ((size_t)result > asked)
		reply_result(req, -ERANGE);
	else
		reply_bytes(req, data, result);
}

void reply_bytes(fuse_req_t req, const void *data, size_t size)
{
	fuse_reply_buf(req, data, size);
}

void reply_from_fd(fuse_req_t req, int fd, uint64_t offset, size_t length)
{
	struct fuse_bufvec contents = FUSE_BUFVEC_INIT(length);

	contents.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	contents.buf[0].fd = fd;
	contents.buf[0].pos = offset;
	fuse_reply_data(req, &contents, 0);
}

void reply_offset(fuse_req_t req, int64_t offset)
{
	if (offset < 0)
		reply_result(req, offset);
	else
		fuse_reply_lseek(req, offset);
}

void reply_ioctl(fuse_req_t req, int result, const void *data, size_t size)
{
	if (result)
		reply_result(req, result);
	else
		fuse_reply_ioctl(req, 0, data, size);
}
