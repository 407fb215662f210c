/* SPDX-License-Identifier: MIT */
#include "fsop/request.h"

#include <errno.h>

#include "base/clock.h"
#include "fsop/libfuse.h"

/* The clock of the request that this thread works for; none (0) once it was answered or taken. */
static __thread struct request_clock running;

struct filesystem *request_filesystem(fuse_req_t req, enum cachet_request kind)
{
	struct filesystem *fs = fuse_req_userdata(req);

	running.kind = kind;
	running.began_ns = clock_now_ns();
	filesystem_wait_settled(fs);
	return fs;
}

void request_wants(enum cachet_request kind)
{
	running.kind = kind;
}

struct request_clock request_take_clock(void)
{
	struct request_clock clock = running;

	running.began_ns = 0;
	return clock;
}

void request_stop_clock(struct filesystem *fs, const struct request_clock *clock)
{
	int64_t took_ns = clock_now_ns() - clock->began_ns;

	tally_add(fs->tally, COUNT_REQUESTS, 1);
	if (clock->kind == CACHET_REQUEST_RELEASE || clock->kind == CACHET_REQUEST_FORGET)
		tally_add(fs->tally, COUNT_REQUESTS_ASYNC, 1);
	tally_record(fs->tally, clock->kind, took_ns);
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

/* Without KILLPRIV_V2 the kernel leaves the bits of what it does not cache to us, unsaid. */
unsigned request_kill_as_told(fuse_req_t req, struct inode *inode, const struct fuse_file_info *fi)
{
	if (!(inode->fs->features & CACHET_FEATURE_KILLPRIV_V2))
		return request_kill_unless_root(req, inode);
	return file_info_kills_priv(fi) ? request_kill(req, inode) : 0;
}

struct request_clock request_put_aside(struct filesystem *fs)
{
	atomic_fetch_add_explicit(&fs->stats.put_aside, 1, memory_order_relaxed);
	return request_take_clock();
}

void request_answered(struct filesystem *fs)
{
	atomic_fetch_sub_explicit(&fs->stats.put_aside, 1, memory_order_release);
}

int request_make_inode(fuse_req_t req, struct inode *dir, mode_t mode, dev_t rdev,
		       const char *target, struct inode **inode)
{
	struct caller caller = request_caller(req);
	unsigned tries = 0;
	int result;

	do
		result = inode_new(dir->fs, mode, rdev, &caller, dir, target, inode);
	while (space_may_come(result, &tries));
	return result;
}
