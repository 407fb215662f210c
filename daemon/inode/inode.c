/* SPDX-License-Identifier: MIT */
/*
 * The life of an inode.
 *
 * Names, lookups that the kernel has not forgotten, open handles, and work under way each hold a
 * reference. The last one to go frees the inode: contents, pins' leftovers and its number go with
 * it. A file without a name (O_TMPFILE, or unlinked and still open) lives by the kernel's
 * references alone. Numbers are never used twice. The table of inodes holds no reference: who finds
 * an inode there either knows that the kernel has one (inode_find), or takes one if there still is
 * any (inode_lookup); for the sake of the latter the memory is freed after an RCU grace period.
 */
#include "inode/inode.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "inode/acl.h"
#include "inode/attr.h"
#include "inode/directory.h"
#include "inode/handle.h"
#include "inode/sealed.h"

static int inode_init_regular(struct inode *inode)
{
	struct filesystem *fs = inode->fs;
	int result = mapping_init(&inode->mapping,
				  inode->user ? &inode->user->pages : &fs->budget,
				  fs->plane == CACHET_PLANE_KERNEL);

	if (result)
		return result;
	sealing_init(&inode->sealing, &inode->lock, &inode->mapping, &fs->seals,
		     &inode_sealing_ops);
	list_init(&inode->handles);
	return 0;
}

static void filesystem_give_inode(struct filesystem *fs, struct user *user)
{
	atomic_fetch_sub(&fs->stats.inodes, 1);
	user_give_inode(user);
}

static void inode_free_rcu(struct rcu_head *head)
{
	struct inode *inode = container_of(head, struct inode, rcu);

	pthread_mutex_destroy(&inode->lock);
	g_free(inode);
}

static void inode_destroy(struct inode *inode)
{
	struct filesystem *fs = inode->fs;

	xarray_lock(&fs->inodes);
	xarray_erase_locked(&fs->inodes, inode->ino);
	xarray_unlock(&fs->inodes);
	if (inode_is_dir(inode)) {
		directory_free(inode->directory);
	} else if (inode_is_link(inode)) {
		g_free(inode->target);
	} else if (inode_is_regular(inode)) {
		if (inode->backing)
			backing_close(fs->fuse_fd, inode->backing);
		mapping_destroy(&inode->mapping);
		atomic_fetch_sub(&fs->stats.memory_blocks, inode->memory_blocks);
	}
	if (inode->xattrs)
		g_hash_table_destroy(inode->xattrs);
	filesystem_give_inode(fs, inode->user);
	rcu_call(&inode->rcu, inode_free_rcu);
}

/* Count an inode against the limits, its owner's and the mount's. */
static int filesystem_take_inode(struct filesystem *fs, struct user *user)
{
	uint64_t limit = fs->config.nr_inodes;
	int result = user_take_inode(user);

	if (result)
		return result;
	if (atomic_fetch_add(&fs->stats.inodes, 1) < limit || !limit)
		return 0;
	filesystem_give_inode(fs, user);
	return -ENOSPC;
}

static int inode_publish(struct inode *inode)
{
	struct filesystem *fs = inode->fs;
	int result;

	inode->ino = atomic_fetch_add(&fs->next_ino, 1);
	xarray_lock(&fs->inodes);
	result = xarray_store_locked(&fs->inodes, inode->ino, 0, inode);
	xarray_unlock(&fs->inodes);
	return result;
}

static int inode_init_by_type(struct inode *inode, const struct inode *parent, const char *target)
{
	if (inode_is_regular(inode))
		return inode_init_regular(inode);
	if (inode_is_dir(inode))
		inode->directory = directory_new(parent ? parent->ino : FILESYSTEM_ROOT_INO);
	else if (inode_is_link(inode))
		inode->target = g_strdup(target);
	return 0;
}

static gid_t inode_inherit(struct inode *parent, gid_t gid, mode_t *mode)
{
	if (!parent)
		return gid;
	scoped_mutex(&parent->lock);
	if (!(parent->mode & S_ISGID))
		return gid;
	if (S_ISDIR(*mode))
		*mode |= S_ISGID;
	return parent->gid;
}

int inode_new(struct filesystem *fs, mode_t mode, dev_t rdev, const struct caller *caller,
	      struct inode *parent, const char *target, struct inode **out)
{
	struct user *user = user_find(&fs->users, caller->uid);
	struct inode *inode;
	int result = filesystem_take_inode(fs, user);

	if (result)
		return result;
	inode = g_new0(struct inode, 1);
	inode->fs = fs;
	inode->user = user;
	atomic_init(&inode->refs, 1);
	list_init(&inode->names);
	pthread_mutex_init(&inode->lock, NULL);
	inode->gid = inode_inherit(parent, caller->gid, &mode);
	inode->uid = caller->uid;
	inode->mode = mode;
	inode->type = mode & S_IFMT;
	if (parent && !S_ISLNK(mode))
		acl_inherit(inode, parent, caller->umask);
	inode->rdev = rdev;
	inode->atime = inode->mtime = inode->ctime = clock_file_time();
	result = inode_init_by_type(inode, parent, target);
	if (result) {
		filesystem_give_inode(fs, user);
		pthread_mutex_destroy(&inode->lock);
		g_free(inode);
		return result;
	}
	result = inode_publish(inode);
	if (result) {
		inode_put(inode);
		return result;
	}
	*out = inode;
	return 0;
}

void inode_get(struct inode *inode)
{
	atomic_fetch_add_explicit(&inode->refs, 1, memory_order_relaxed);
}

void inode_put_many(struct inode *inode, uint64_t count)
{
	if (atomic_fetch_sub_explicit(&inode->refs, count, memory_order_acq_rel) == count)
		inode_destroy(inode);
}

void inode_put(struct inode *inode)
{
	if (inode)
		inode_put_many(inode, 1);
}

struct inode *inode_find(struct filesystem *fs, uint64_t ino)
{
	struct inode *inode;

	rcu_read_lock();
	inode = xarray_load(&fs->inodes, ino);
	rcu_read_unlock();
	return inode;
}

struct inode *inode_lookup(struct filesystem *fs, uint64_t ino)
{
	struct inode *inode;
	uint_least64_t refs = 0;

	rcu_read_lock();
	inode = xarray_load(&fs->inodes, ino);
	if (inode)
		refs = atomic_load(&inode->refs);
	while (refs && !atomic_compare_exchange_weak(&inode->refs, &refs, refs + 1))
		;
	rcu_read_unlock();
	return refs ? inode : NULL;
}
