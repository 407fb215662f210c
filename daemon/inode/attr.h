/* SPDX-License-Identifier: MIT */
/*
 * What stat() shows of an inode, and how it is changed.
 */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "inode/inode.h"

/* Seconds that the kernel may keep names, and attributes that only we can change. */
#define CACHE_LONG 31536000.0

/* Seconds that it may keep attributes of a file that clients can change behind our back. */
#define CACHE_SHORT 1.0

/* What attr_change() is to change. */
enum {
	ATTR_MODE = 1 << 0,
	ATTR_UID = 1 << 1,
	ATTR_GID = 1 << 2,
	ATTR_SIZE = 1 << 3,
	ATTR_ATIME = 1 << 4,
	ATTR_MTIME = 1 << 5,
	ATTR_KILL_PRIV = 1 << 6, /* as a write by somebody without privilege does */
	ATTR_KILL_SGID = 1 << 7, /* and who is not in the file's group either */
};

/**
 * attr_get() - the attributes
 * @st: filled in
 * Context: takes the inode's lock.
 * Return: seconds for which the kernel may keep them.
 */
double attr_get(struct inode *inode, struct stat *st);

/**
 * attr_get_locked() - the attributes
 * @st: filled in
 * Context: the inode's lock.
 * Return: seconds for which the kernel may keep them.
 */
double attr_get_locked(struct inode *inode, struct stat *st);

/**
 * attr_change() - chmod, chown, truncate, utimens, all of it or nothing
 * @what: ATTR_*
 * @new: values; ctime becomes now
 * Context: takes the inode's lock; may sleep.
 * Return: 0; -EPERM (a seal refuses); -EDQUOT (of the new owner); -EISDIR, -EINVAL, -EFBIG, -ENOMEM
 * (size).
 */
int attr_change(struct inode *inode, unsigned what, const struct stat *new);

/**
 * attr_touch_locked() - contents or entries have changed: mtime and ctime are now
 * Context: the inode's lock.
 */
void attr_touch_locked(struct inode *inode);

/**
 * attr_touch_ctime_locked() - attributes have changed
 * Context: the inode's lock.
 */
void attr_touch_ctime_locked(struct inode *inode);

/**
 * attr_accessed() - contents or entries were read: atime, by the rule of relatime
 * Context: takes the inode's lock when there is something to change.
 */
void attr_accessed(struct inode *inode);

/**
 * attr_written() - the daemon has written contents
 * @kill: ATTR_KILL_*, or 0 when the writer is privileged
 * Context: takes the inode's lock.
 */
void attr_written(struct inode *inode, unsigned kill);

/**
 * attr_mode_without() - a mode without the bits that would give its file's privilege away
 * @kill: ATTR_KILL_*, or 0
 * Context: any.
 * Return: the new mode.
 */
mode_t attr_mode_without(mode_t mode, unsigned kill);

/**
 * attr_sync_memory_locked() - take over the memory's times, and how much it takes
 * @baseline: the memory was just made, its times say nothing yet
 * Context: the inode's lock.
 */
void attr_sync_memory_locked(struct inode *inode, bool baseline);
