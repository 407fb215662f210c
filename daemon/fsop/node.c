/* SPDX-License-Identifier: MIT */
/* Nodes by number: lookups, attributes, what the file system has left. */
#include <errno.h>
#include <sys/sysinfo.h>

#include "base/clock.h"
#include "fsop/ops.h"
#include "fsop/reply.h"
#include "inode/directory.h"
#include "inode/handle.h"

void fsop_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inode *dir = inode_find(request_filesystem(req, CACHET_REQUEST_LOOKUP), parent);
	struct inode *inode = NULL;
	int result = dir ? directory_find(dir, name, &inode) : -ESTALE;

	if (result == -ENOENT)
		reply_no_entry(req);
	else
		reply_entry(req, result, inode);
}

static void inode_forget(struct filesystem *fs, fuse_ino_t ino, uint64_t count)
{
	struct inode *inode = ino == FILESYSTEM_ROOT_INO ? NULL : inode_find(fs, ino);

	if (inode && count)
		inode_put_many(inode, count);
}

void fsop_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	inode_forget(request_filesystem(req, CACHET_REQUEST_FORGET), ino, count);
	reply_none(req);
}

void fsop_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_FORGET);

	for (size_t i = 0; i < count; i++)
		inode_forget(fs, forgets[i].ino, forgets[i].nlookup);
	reply_none(req);
}

void fsop_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_GETATTR);
	struct inode *inode = inode_find(fs, ino);

	if (fi)
		handle_saw_request(handle_find(fs, fi->fh));
	if (inode)
		reply_attr(req, inode);
	else
		reply_result(req, -ESTALE);
}

/* libfuse's names for what is to change, in ours. */
static unsigned setattr_what(int to_set)
{
	static const struct {
		int theirs;
		unsigned ours;
	} names[] = {
		{ FUSE_SET_ATTR_MODE, ATTR_MODE },
		{ FUSE_SET_ATTR_UID, ATTR_UID },
		{ FUSE_SET_ATTR_GID, ATTR_GID },
		{ FUSE_SET_ATTR_SIZE, ATTR_SIZE },
		{ FUSE_SET_ATTR_ATIME, ATTR_ATIME },
		{ FUSE_SET_ATTR_MTIME, ATTR_MTIME },
		{ FUSE_SET_ATTR_ATIME_NOW, ATTR_ATIME },
		{ FUSE_SET_ATTR_MTIME_NOW, ATTR_MTIME },
		/* The protocol has one bit for both, and it stands where libfuse has setuid. */
		{ FUSE_SET_ATTR_KILL_SUID, ATTR_KILL_PRIV },
	};
	unsigned what = 0;

	for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
		if (to_set & names[i].theirs)
			what |= names[i].ours;
	return what;
}

void fsop_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		  struct fuse_file_info *fi)
{
	struct inode *inode = inode_find(request_filesystem(req, CACHET_REQUEST_SETATTR), ino);
	struct timespec now = clock_file_time();
	unsigned what = setattr_what(to_set);
	int result;

	(void)fi;
	/* Nothing to set is chown() to nobody, or a write past us: only set-id bits go. */
	if (!to_set && inode && !inode_is_dir(inode))
		what = ATTR_KILL_PRIV;
	if (inode && (what & ATTR_KILL_PRIV))
		what |= request_kill(req, inode);
	/* Else the kernel sends a mode with the size, less what a stranger to the group loses. */
	if (inode && (what & ATTR_SIZE) && !(inode->fs->features & CACHET_FEATURE_KILLPRIV_V2))
		what |= request_kill_unless_root(req, inode);
	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		attr->st_atim = now;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		attr->st_mtim = now;
	if (inode && inode_is_regular(inode) && (what & ATTR_SIZE))
		inode_resize_begins(inode, request_caller(req).pid, 0);
	result = inode ? attr_change(inode, what, attr) : -ESTALE;
	if (result)
		reply_result(req, result);
	else
		reply_attr(req, inode);
}

void fsop_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct inode *inode = inode_find(request_filesystem(req, CACHET_REQUEST_READLINK), ino);

	if (!inode || !inode_is_link(inode)) {
		reply_result(req, inode ? -EINVAL : -ESTALE);
		return;
	}
	attr_accessed(inode);
	/* Once it is answered, the kernel may forget the link before we have looked up again. */
	inode_get(inode);
	reply_link(req, inode->target);
	inode_put(inode);
}

/* Without a limit of its own a mount can use what memory the machine has. */
static void statfs_fill_blocks(struct filesystem *fs, struct statvfs *st)
{
	uint64_t used = atomic_load(&fs->budget.used);
	uint64_t limit = fs->config.pages;
	struct sysinfo machine;

	if (limit) {
		st->f_blocks = limit;
		st->f_bfree = limit > used ? limit - used : 0;
	} else if (sysinfo(&machine) == 0) {
		st->f_blocks = (uint64_t)machine.totalram * machine.mem_unit / PAGE_BYTES;
		st->f_bfree = (uint64_t)machine.freeram * machine.mem_unit / PAGE_BYTES;
	}
	st->f_bavail = st->f_bfree;
}

void fsop_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_STATFS);
	uint64_t inodes = atomic_load(&fs->stats.inodes);
	uint64_t limit = fs->config.nr_inodes ? fs->config.nr_inodes : INT64_MAX;
	struct statvfs st = {
		.f_bsize = PAGE_BYTES,
		.f_frsize = PAGE_BYTES,
		.f_files = limit,
		.f_ffree = limit > inodes ? limit - inodes : 0,
		.f_namemax = NAME_BYTES_MAX,
	};

	(void)ino;
	st.f_favail = st.f_ffree;
	statfs_fill_blocks(fs, &st);
	reply_statfs(req, &st);
}
