/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing. An open for writing that meets a seal in its last step is put aside, as a
 * struct open_request, and goes on when the outcome is known; nothing waits.
 */
#include <errno.h>
#include <fcntl.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/handover.h"
#include "base/list.h"
#include "fsop/ops.h"
#include "fsop/reply.h"
#include "inode/directory.h"

/**
 * struct open_request - one open under way
 * @inode: borrowed from the kernel's lookup
 */
struct open_request {
	struct admission admission;
	fuse_req_t req;
	struct inode *inode;
	struct caller caller;
	int flags;
	unsigned kill;
	struct request_clock clock;
};

static void open_request_run(struct open_request *open);

static void open_request_resume(struct admission *admission)
{
	open_request_run(container_of(admission, struct open_request, admission));
}

static gboolean open_request_retry(gpointer data)
{
	open_request_run(handover_take(data));
	return G_SOURCE_REMOVE;
}

static void open_request_retry_later(struct open_request *open)
{
	GSource *source = seal_engine_call_at(&open->inode->fs->seals,
					      clock_now_ms() + HANDLE_RETRY_MS, open_request_retry,
					      open, NULL);

	g_source_unref(source);
}

/* Takes @open. */
static void open_request_run(struct open_request *open)
{
	struct filesystem *fs = open->inode->fs;
	struct handle *handle = NULL;
	int result = handle_open(open->inode, open->flags, &open->caller, open->kill,
				 &open->admission, &handle);

	if (result == -EINPROGRESS)
		return; /* and may be gone already */
	if (result == -EAGAIN) {
		open_request_retry_later(open);
		return;
	}
	request_stop_clock(fs, &open->clock);
	if (result)
		reply_result(open->req, result);
	else
		reply_open(open->req, handle);
	g_free(open);
	request_answered(fs);
}

static void open_request_start(fuse_req_t req, struct inode *inode, const struct fuse_file_info *fi)
{
	struct open_request *open = g_new0(struct open_request, 1);

	list_init(&open->admission.link);
	open->admission.resume = open_request_resume;
	open->req = req;
	open->inode = inode;
	open->caller = request_caller(req);
	open->flags = fi->flags;
	open->kill = fi->flags & O_TRUNC ? request_kill_as_told(req, inode, fi) : 0;
	open->clock = request_put_aside(inode->fs);
	open_request_run(open);
}

void fsop_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct inode *inode = inode_find(request_filesystem(req, CACHET_REQUEST_OPEN), ino);

	if (inode && inode_is_regular(inode))
		open_request_start(req, inode, fi);
	else
		reply_result(req, inode ? -EINVAL : -ESTALE);
}

/* A new file that is open and has no name yet. Nothing can hinder that open. */
static int make_open_file(fuse_req_t req, struct inode *dir, mode_t mode,
			  const struct fuse_file_info *fi, struct inode **inode,
			  struct handle **handle)
{
	struct caller caller = request_caller(req);
	int result = request_make_inode(req, dir, S_IFREG | (mode & 07777), 0, NULL, inode);

	if (result)
		return result;
	result = handle_open(*inode, fi->flags & ~(O_TRUNC | O_CREAT | O_EXCL), &caller, 0, NULL,
			     handle);
	if (result)
		inode_put(take_ptr(*inode));
	return result;
}

void fsop_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		 struct fuse_file_info *fi)
{
	struct inode *dir = inode_find(request_filesystem(req, CACHET_REQUEST_CREATE), parent);
	struct inode *inode = NULL;
	struct handle *handle = NULL;
	int result = dir ? make_open_file(req, dir, mode, fi, &inode, &handle) : -ESTALE;

	if (result == 0)
		result = directory_add(dir, name, inode);
	if (result == 0) {
		reply_create(req, inode, handle);
		return;
	}
	handle_close(handle);
	inode_put(inode);
	/*
	 * The name was made since the kernel looked. Nobody has checked whether the caller may open
	 * that file: the kernel does not for what is created. It looks and checks again.
	 */
	if (result == -EEXIST && !(fi->flags & O_EXCL))
		result = -ESTALE;
	reply_result(req, result);
}

void fsop_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	struct inode *dir = inode_find(request_filesystem(req, CACHET_REQUEST_TMPFILE), parent);
	struct inode *inode = NULL;
	struct handle *handle = NULL;
	int result = dir ? make_open_file(req, dir, mode, fi, &inode, &handle) : -ESTALE;

	if (result)
		reply_result(req, result);
	else
		reply_create(req, inode, handle);
}

void fsop_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_RELEASE);
	struct handle *handle = handle_find(fs, fi->fh);

	(void)ino;
	handle_close(handle);
	reply_result(req, 0);
}
