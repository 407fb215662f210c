/* SPDX-License-Identifier: MIT */
/* A mount's inodes without a mount: nodes with names, on which nobody waits. */
#pragma once

#include "inode/directory.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

static const struct caller maker = { .uid = 1000, .gid = 100, .umask = 022 };

static inline void no_invalidation(struct filesystem *fs, uint64_t ino, bool contents)
{
	(void)fs;
	(void)ino;
	(void)contents;
}

static inline void setup(struct filesystem *fs)
{
	const struct filesystem_config config = { .root_mode = 01777, .seal_timeout_ms = 150 };

	memset(fs, 0, sizeof(*fs));
	g_assert_cmpint(filesystem_start(fs, &config), ==, 0);
	fs->plane = CACHET_PLANE_DAEMON;
	fs->invalidate = no_invalidation;
}

/* As after an unmount: what has a name, or is used, is given back. */
static inline void teardown(struct filesystem *fs)
{
	filesystem_stop(fs);
	g_assert_cmpuint(fs->stats.inodes, ==, 0);
}

/* A node with a name, and no reference but that. Return: borrows it. */
static inline struct inode *make(struct inode *dir, const char *name, mode_t mode)
{
	struct inode *inode;

	g_assert_cmpint(inode_new(dir->fs, mode, 0, &maker, dir, NULL, &inode), ==, 0);
	g_assert_cmpint(directory_add(dir, name, inode), ==, 0);
	inode_put(inode);
	return inode;
}

static inline struct inode *make_file(struct inode *dir, const char *name)
{
	return make(dir, name, S_IFREG | 0644);
}

static inline struct inode *make_dir(struct inode *dir, const char *name)
{
	return make(dir, name, S_IFDIR | 0755);
}
