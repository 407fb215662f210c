/* SPDX-License-Identifier: MIT */
/* Names: making, linking, moving and removing them. */
#include <errno.h>
#include <limits.h>
#include <linux/fs.h>
#include <string.h>

#include "fsop/ops.h"
#include "fsop/reply.h"
#include "inode/directory.h"

/* Make a node and give it a name. The reply takes over the reference of the maker. */
static void make_node(fuse_req_t req, enum cachet_request kind, fuse_ino_t parent, const char *name,
		      mode_t mode, dev_t rdev, const char *target)
{
	struct inode *dir = inode_find(request_filesystem(req, kind), parent);
	struct inode *inode = NULL;
	int result = dir ? request_make_inode(req, dir, mode, rdev, target, &inode) : -ESTALE;

	if (result == 0)
		result = directory_add(dir, name, inode);
	reply_entry(req, result, inode);
}

void fsop_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	make_node(req, CACHET_REQUEST_MKNOD, parent, name, mode, rdev, NULL);
}

void fsop_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make_node(req, CACHET_REQUEST_MKDIR, parent, name, S_IFDIR | (mode & 07777), 0, NULL);
}

void fsop_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	if (strlen(target) >= PATH_MAX) {
		request_filesystem(req, CACHET_REQUEST_SYMLINK);
		reply_result(req, -ENAMETOOLONG);
		return;
	}
	make_node(req, CACHET_REQUEST_SYMLINK, parent, name, S_IFLNK | 0777, 0, target);
}

void fsop_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_LINK);
	struct inode *inode = inode_find(fs, ino);
	struct inode *dir = inode_find(fs, parent);
	int result = inode && dir ? 0 : -ESTALE;

	if (result == 0 && inode_is_dir(inode))
		result = -EPERM;
	if (result == 0)
		result = directory_add(dir, name, inode);
	if (result == 0)
		inode_get(inode);
	reply_entry(req, result, result ? NULL : inode);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, bool rmdir)
{
	enum cachet_request kind = rmdir ? CACHET_REQUEST_RMDIR : CACHET_REQUEST_UNLINK;
	struct inode *dir = inode_find(request_filesystem(req, kind), parent);

	reply_result(req, dir ? directory_remove(dir, name, rmdir) : -ESTALE);
}

void fsop_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, false);
}

void fsop_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, true);
}

/* What overlayfs leaves where a name was that its lower layer still has. */
static int make_whiteout(fuse_req_t req, struct inode *dir, struct inode **whiteout)
{
	return request_make_inode(req, dir, S_IFCHR, 0, NULL, whiteout);
}

void fsop_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		 const char *new_name, unsigned flags)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_RENAME);
	struct inode *from = inode_find(fs, parent);
	struct inode *to = inode_find(fs, new_parent);
	auto_inode whiteout = NULL;
	int result = from && to ? 0 : -ESTALE;

	if (result == 0 && (flags & RENAME_WHITEOUT)) {
		result = flags & RENAME_EXCHANGE ? -EINVAL : make_whiteout(req, from, &whiteout);
		flags &= ~RENAME_WHITEOUT;
	}
	if (result == 0)
		result = directory_rename(from, name, to, new_name, flags, whiteout);
	reply_result(req, result);
}
