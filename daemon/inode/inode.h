/* SPDX-License-Identifier: MIT */
/*
 * An inode: one file, directory or other node of the mount. inode.c begins with its life.
 */
#pragma once

#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "base/rcu.h"
#include "cache/mapping.h"
#include "inode/filesystem.h"
#include "seal/sealing.h"

struct directory;

#define PAST_WRITERS 16u

/**
 * struct inode - see above
 * @refs:   names, the kernel's lookups, open handles, and whoever works with it right now
 * @type:   S_IFREG and the like; never changes, while @mode, which has it too, needs the lock
 * @lock:   guards everything below but @mapping, which guards itself
 * @atime_until: second up to which a read need not change @atime; may be read without the lock
 * @backing: passthrough: the kernel's id of the memory; 0: none yet
 * @names: its entries in directories, see directory.h
 * @memory_mtime: the memory's own time of change that is already in @mtime
 * @memory_atime: the memory's own time of access that is already in @atime, or too early for it
 * @past_writers: processes that had opened closed handles that hindered seals; the last ones of
 *           @nr_past_writers
 * @resizer: thread whose change of size the kernel may not have finished, begun at @resized_ms
 *           through the handle of the number @resize_handle, or without one (0); -1: unseen
 * @memory_blocks: of 512 bytes, that the mount's figure contains; io=kernel
 * @was_writable: a handle that could map the memory writable has been open
 * @cache_clean: the kernel caches no page of before the write seal
 * @mapping, @sealing, @handles: regular files
 * @directory: directories
 * @target: symbolic links
 */
struct inode {
	struct filesystem *fs;
	uint64_t ino;
	atomic_uint_least64_t refs;
	mode_t type;
	pthread_mutex_t lock;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct list names;
	struct user *user; /* whom it counts for; NULL without limits by owner */
	dev_t rdev;
	unsigned nlink;
	struct timespec atime, mtime, ctime;
	atomic_int_least64_t atime_until;
	GHashTable *xattrs; /* NULL when there are none */
	size_t xattr_bytes;
	struct rcu_head rcu;
	union {
		struct directory *directory;
		char *target;
		struct {
			struct mapping mapping;
			struct sealing sealing;
			struct list handles;
			unsigned nr_handles;
			int backing;
			struct timespec memory_mtime, memory_atime;
			uint64_t memory_blocks;
			pid_t past_writers[PAST_WRITERS];
			unsigned nr_past_writers;
			pid_t resizer;
			uint64_t resize_handle;
			int64_t resized_ms;
			bool was_writable;
			bool cache_clean;
		};
	};
};

/**
 * struct caller - who asks
 * @pid: of the thread
 */
struct caller {
	uid_t uid;
	gid_t gid;
	pid_t pid;
	mode_t umask; /* of requests that make something */
};

/**
 * inode_new() - a node without a name
 * @mode: type and permissions, before the umask or a default ACL of @parent
 * @caller: becomes the owner
 * @parent: directory that it will be in; its setgid bit is inherited; NULL for the root
 * @target: of a symbolic link, else NULL
 * @inode: out: returns a reference
 * Context: may sleep; takes the parent's lock.
 * Return: 0; -ENOSPC (limit of inodes), -EDQUOT (the owner's); -ENOMEM.
 */
int inode_new(struct filesystem *fs, mode_t mode, dev_t rdev, const struct caller *caller,
	      struct inode *parent, const char *target, struct inode **inode);

/**
 * inode_get() - one more reference
 * Context: any.
 */
void inode_get(struct inode *inode);

/**
 * inode_put() - one reference less; the last one frees the inode
 * @inode: takes; may be NULL
 * Context: no lock of this inode is held.
 */
void inode_put(struct inode *inode);

/**
 * inode_put_many() - several references less
 * @count: not 0
 * Context: as inode_put().
 */
void inode_put_many(struct inode *inode, uint64_t count);

/**
 * inode_find() - the inode of a number that the kernel knows
 *
 * The kernel holds a lookup reference for as long as it has a request about the inode under way, so
 * that the result stays alive until the reply.
 * Context: any.
 * Return: borrows the inode; NULL when the kernel made a number up.
 */
struct inode *inode_find(struct filesystem *fs, uint64_t ino);

/**
 * inode_lookup() - the inode of a number that may be on its way out
 * Context: any.
 * Return: returns a reference; NULL when it is gone.
 */
struct inode *inode_lookup(struct filesystem *fs, uint64_t ino);

/**
 * inode_is_regular() - has it contents?
 * Context: any.
 */
static inline bool inode_is_regular(const struct inode *inode)
{
	return S_ISREG(inode->type);
}

/**
 * inode_is_dir() - has it entries?
 * Context: any.
 */
static inline bool inode_is_dir(const struct inode *inode)
{
	return S_ISDIR(inode->type);
}

/**
 * inode_is_link() - is it a symbolic link?
 * Context: any.
 */
static inline bool inode_is_link(const struct inode *inode)
{
	return S_ISLNK(inode->type);
}

static inline void inode_put_scoped(struct inode **inode)
{
	inode_put(*inode);
}

/* A reference that goes with its scope. */
#define auto_inode at_end(inode_put_scoped) struct inode *
