/* SPDX-License-Identifier: MIT */
/*
 * Times of a file that clients write without us (io=kernel) are the memory's. It may be given other
 * ones by utimens(), so the inode keeps the time that counts, and beside it the memory's time that
 * it has already seen: when the memory's differs, there was a write that we did not see.
 */
#include "inode/attr.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/lock.h"
#include "inode/acl.h"
#include "inode/directory.h"
#include "inode/xattr.h"

#define RELATIME_SECONDS (24 * 60 * 60)
#define TICK_NS_MAX INT64_C(10000000)

static bool time_before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

static bool time_equal(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/*
 * The memory's clock may be up to a tick behind ours: then a write that came after our last change
 * would bear an earlier time than that.
 */
static struct timespec time_after_tick(const struct timespec *time, const struct timespec *last)
{
	struct timespec after = *last;
	int64_t behind = (last->tv_sec - time->tv_sec) * INT64_C(1000000000) +
			 (last->tv_nsec - time->tv_nsec);

	if (behind < 0 || behind > TICK_NS_MAX)
		return *time;
	if (++after.tv_nsec == 1000000000)
		after = (struct timespec){ .tv_sec = after.tv_sec + 1 };
	return after;
}

static void attr_take_memory_mtime_locked(struct inode *inode, const struct timespec *mtime)
{
	lock_assert_held(&inode->lock);
	if (time_equal(mtime, &inode->memory_mtime) || !mtime->tv_sec)
		return;
	inode->memory_mtime = *mtime;
	inode->mtime = time_after_tick(mtime, &inode->ctime);
	atomic_store_explicit(&inode->atime_until, 0, memory_order_relaxed);
	if (time_before(&inode->ctime, &inode->mtime))
		inode->ctime = inode->mtime;
}

/*
 * Does a read at this time leave atime alone? By the rule of relatime, reads count when contents
 * have changed since the last one that did, or once a day.
 */
static bool attr_atime_stays_locked(struct inode *inode, const struct timespec *now)
{
	const struct filesystem_config *config = &inode->fs->config;

	lock_assert_held(&inode->lock);
	if (config->noatime || (config->nodiratime && inode_is_dir(inode)))
		return true;
	return time_before(&inode->mtime, &inode->atime) &&
	       time_before(&inode->ctime, &inode->atime) &&
	       now->tv_sec - RELATIME_SECONDS < inode->atime.tv_sec;
}

/* The memory's own time moves with every read and mapping. */
static void attr_take_memory_atime_locked(struct inode *inode, const struct timespec *atime)
{
	lock_assert_held(&inode->lock);
	if (time_equal(atime, &inode->memory_atime) || !atime->tv_sec)
		return;
	inode->memory_atime = *atime;
	if (!attr_atime_stays_locked(inode, atime))
		inode->atime = *atime;
}

/*
 * Before Linux 6.13 the memory's clock moves only with the tick: a store right after utimens() can
 * give the memory the very time that it had before, and would not be seen.
 */
static void attr_forget_memory_times_locked(struct inode *inode)
{
	lock_assert_held(&inode->lock);
	if (inode_is_regular(inode) && mapping_clear_times(&inode->mapping) == 0)
		inode->memory_mtime = inode->memory_atime = (struct timespec){ 0 };
}

static void attr_count_blocks_locked(struct inode *inode, uint64_t blocks)
{
	lock_assert_held(&inode->lock);
	atomic_fetch_add_explicit(&inode->fs->stats.memory_blocks, blocks - inode->memory_blocks,
				  memory_order_relaxed);
	inode->memory_blocks = blocks;
}

void attr_sync_memory_locked(struct inode *inode, bool baseline)
{
	uint64_t size, blocks;
	struct timespec mtime, atime;

	lock_assert_held(&inode->lock);
	if (!inode->mapping.shared)
		return;
	mapping_stat_times(&inode->mapping, &size, &blocks, &mtime, &atime);
	attr_count_blocks_locked(inode, blocks);
	if (baseline) {
		inode->memory_mtime = mtime;
		inode->memory_atime = atime;
		return;
	}
	attr_take_memory_mtime_locked(inode, &mtime);
	attr_take_memory_atime_locked(inode, &atime);
}

static double attr_cacheable_locked(struct inode *inode)
{
	lock_assert_held(&inode->lock);
	if (!inode_is_regular(inode) || (sealing_current(&inode->sealing) & F_SEAL_WRITE))
		return CACHE_LONG;
	/* The kernel drops its attributes at a write, not at a store to a shared mapping. */
	return inode->was_writable ? CACHE_SHORT : CACHE_LONG;
}

double attr_get_locked(struct inode *inode, struct stat *st)
{
	lock_assert_held(&inode->lock);
	*st = (struct stat){
		.st_ino = inode->ino,
		.st_mode = inode->mode,
		.st_nlink = inode->nlink,
		.st_uid = inode->uid,
		.st_gid = inode->gid,
		.st_rdev = inode->rdev,
		.st_blksize = PAGE_BYTES,
	};
	if (inode_is_regular(inode)) {
		struct timespec mtime, atime;
		uint64_t size, blocks;

		mapping_stat_times(&inode->mapping, &size, &blocks, &mtime, &atime);
		if (inode->mapping.shared) {
			attr_take_memory_mtime_locked(inode, &mtime);
			attr_take_memory_atime_locked(inode, &atime);
			attr_count_blocks_locked(inode, blocks);
		}
		st->st_size = size;
		st->st_blocks = blocks;
	} else if (inode_is_dir(inode)) {
		st->st_size = directory_size(inode->directory);
	} else if (inode_is_link(inode)) {
		st->st_size = strlen(inode->target);
	}
	st->st_atim = inode->atime;
	st->st_mtim = inode->mtime;
	st->st_ctim = inode->ctime;
	return attr_cacheable_locked(inode);
}

double attr_get(struct inode *inode, struct stat *st)
{
	scoped_mutex(&inode->lock);
	return attr_get_locked(inode, st);
}

void attr_touch_ctime_locked(struct inode *inode)
{
	lock_assert_held(&inode->lock);
	inode->ctime = clock_file_time();
	atomic_store_explicit(&inode->atime_until, 0, memory_order_relaxed);
}

void attr_touch_locked(struct inode *inode)
{
	attr_touch_ctime_locked(inode);
	inode->mtime = inode->ctime;
}

void attr_accessed(struct inode *inode)
{
	struct timespec now = clock_file_time();

	if (now.tv_sec < atomic_load_explicit(&inode->atime_until, memory_order_relaxed))
		return;
	scoped_mutex(&inode->lock);
	if (!attr_atime_stays_locked(inode, &now))
		inode->atime = now;
	atomic_store_explicit(&inode->atime_until, now.tv_sec + RELATIME_SECONDS,
			      memory_order_relaxed);
}

/*
 * setgid without group execution is not a privilege, it once asked for mandatory locking: it stays
 * unless a stranger to the group writes.
 */
mode_t attr_mode_without(mode_t mode, unsigned kill)
{
	if (kill & ATTR_KILL_PRIV)
		mode &= mode & S_IXGRP ? ~(S_ISUID | S_ISGID) : ~S_ISUID;
	return kill & ATTR_KILL_SGID ? mode & ~S_ISGID : mode;
}

void attr_written(struct inode *inode, unsigned kill)
{
	scoped_mutex(&inode->lock);
	xattr_drop_capability_locked(inode);
	inode->mode = attr_mode_without(inode->mode, kill);
	attr_touch_locked(inode);
}

static mode_t attr_new_mode(const struct inode *inode, unsigned what, const struct stat *new)
{
	mode_t mode = inode->mode;

	if (what & ATTR_MODE)
		mode = (mode & S_IFMT) | (new->st_mode & 07777);
	mode = attr_mode_without(mode, what);
	/* A new owner must not be impersonated by what the old one made. */
	if ((what & (ATTR_UID | ATTR_GID)) && !(what & ATTR_MODE) && !S_ISDIR(mode))
		mode = attr_mode_without(mode, ATTR_KILL_PRIV);
	return mode;
}

/* What a file takes counts for its owner; the node for both until attr_charge_end_locked(). */
static int attr_charge_begin_locked(struct inode *inode, struct user *user)
{
	int result = 0;

	lock_assert_held(&inode->lock);
	if (user == inode->user)
		return 0;
	result = user_take_inode(user);
	if (result == 0 && inode_is_regular(inode)) {
		result = mapping_set_budget(&inode->mapping, &user->pages, false);
		if (result)
			user_give_inode(user);
	}
	return result;
}

/* @result: what became of the rest of the change; unless it is 0, all counts as before. */
static void attr_charge_end_locked(struct inode *inode, struct user *user, int result)
{
	lock_assert_held(&inode->lock);
	if (user == inode->user)
		return;
	if (result) {
		if (inode_is_regular(inode))
			mapping_set_budget(&inode->mapping, &inode->user->pages, true);
		user_give_inode(user);
		return;
	}
	user_give_inode(inode->user);
	inode->user = user;
}

static int attr_change_size_locked(struct inode *inode, off_t size)
{
	int result = size < 0 ? -EINVAL : mapping_truncate(&inode->mapping, size);

	lock_assert_held(&inode->lock);
	if (result)
		return result;
	sealing_wake_locked(&inode->sealing); /* pins may have been cut off */
	attr_sync_memory_locked(inode, false);
	attr_touch_locked(inode);
	return 0;
}

int attr_change(struct inode *inode, unsigned what, const struct stat *new)
{
	scoped_mutex(&inode->lock);
	mode_t mode = attr_new_mode(inode, what, new);
	struct user *user = what & ATTR_UID ? user_find(&inode->fs->users, new->st_uid)
					    : inode->user;
	int result = 0;

	if ((what & ATTR_SIZE) && !inode_is_regular(inode))
		return inode_is_dir(inode) ? -EISDIR : -EINVAL;
	if (inode_is_regular(inode))
		result = sealing_check_mode_locked(&inode->sealing, inode->mode, mode);
	if (result == 0)
		result = attr_charge_begin_locked(inode, user);
	if (result)
		return result;
	/* Bytes that were cut off would not come back: the size is the last that can fail. */
	if (what & ATTR_SIZE)
		result = attr_change_size_locked(inode, new->st_size);
	else if (inode_is_regular(inode))
		attr_sync_memory_locked(inode, false);
	attr_charge_end_locked(inode, user, result);
	if (result)
		return result;
	if (what & (ATTR_SIZE | ATTR_UID | ATTR_GID | ATTR_KILL_PRIV))
		xattr_drop_capability_locked(inode);
	inode->mode = mode;
	if (what & ATTR_MODE) {
		acl_mode_changed_locked(inode);
		if (inode_is_regular(inode))
			sealing_wake_locked(&inode->sealing);
	}
	if (what & ATTR_UID)
		inode->uid = new->st_uid;
	if (what & ATTR_GID)
		inode->gid = new->st_gid;
	attr_touch_ctime_locked(inode);
	if (what & ATTR_ATIME)
		inode->atime = new->st_atim;
	if (what & ATTR_MTIME)
		inode->mtime = new->st_mtim;
	if (what & (ATTR_ATIME | ATTR_MTIME))
		attr_forget_memory_times_locked(inode);
	return 0;
}
