/* SPDX-License-Identifier: MIT */
/*
 * The entries of a directory: by name for lookups, by cookie for readdir(). directory.c begins with
 * the locks of a rename.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "inode/inode.h"

#define NAME_BYTES_MAX 255

/* Cookies of readdir(): "." and ".." come first. */
enum {
	COOKIE_DOT = 1,
	COOKIE_DOT_DOT = 2,
	COOKIE_FIRST = 3,
};

/**
 * struct entry - one name
 * @inode: holds a reference
 * @of_inode: in the names of @inode, guarded by its lock
 * @dir:    number of the directory that it is in
 * @cookie: grows with time and is never reused in its directory, so that readdir() is stable
 */
struct entry {
	struct inode *inode;
	struct list of_inode;
	uint64_t dir;
	uint64_t cookie;
	char name[];
};

/**
 * struct directory - entries, guarded by the lock of the inode that owns it
 * @parent: of "..": its number; 0 once the directory was removed
 */
struct directory {
	GHashTable *by_name;
	struct xarray by_cookie;
	uint64_t next_cookie;
	uint64_t parent;
};

/**
 * directory_new() - no entries
 * @parent: number of the directory that this one is in
 * Context: any.
 * Return: returns a reference.
 */
struct directory *directory_new(uint64_t parent);

/**
 * directory_free() - drop all entries
 * @directory: takes; may be NULL
 * Context: no lock is held; puts inodes.
 */
void directory_free(struct directory *directory);

/**
 * directory_size() - st_size of a directory, as tmpfs counts it
 * Context: the inode's lock.
 * Return: bytes.
 */
uint64_t directory_size(const struct directory *directory);

/**
 * directory_find() - the inode of a name
 * @dir: a directory
 * @inode: out: returns a reference
 * Context: takes the directory's lock.
 * Return: 0; -ENOTDIR, -ENAMETOOLONG, -ENOENT.
 */
int directory_find(struct inode *dir, const char *name, struct inode **inode);

/**
 * directory_add() - give a node a name
 * @inode: borrows; a reference is taken for the name
 * Context: takes the locks of both.
 * Return: 0; -EEXIST, -ENAMETOOLONG, -ENOTDIR; -ENOENT (@dir was removed); -ENOMEM.
 */
int directory_add(struct inode *dir, const char *name, struct inode *inode);

/**
 * directory_remove() - take a name away
 * @rmdir: it must be an empty directory; else it must be none
 * Context: takes the locks of both.
 * Return: 0; -ENOENT, -ENOTDIR, -EISDIR, -ENOTEMPTY, -ENAMETOOLONG.
 */
int directory_remove(struct inode *dir, const char *name, bool rmdir);

/**
 * directory_rename() - move a name
 * @flags: 0, RENAME_NOREPLACE or RENAME_EXCHANGE
 * @whiteout: borrows a node without a name; a reference is taken for the old name, unless names are
 *            exchanged; NULL: leave nothing there
 * Context: takes the locks of all concerned, and the filesystem-wide lock of renames.
 * Return: 0; -ENOENT, -EEXIST, -ENOTDIR, -EISDIR, -ENOTEMPTY, -EINVAL (into itself; flags),
 * -ENAMETOOLONG, -ENOMEM.
 */
int directory_rename(struct inode *from_dir, const char *from, struct inode *to_dir,
		     const char *to, unsigned flags, struct inode *whiteout);

/**
 * directory_next() - the entry after a cookie
 * @dir: a directory
 * @cookie: in: where the reader is, 0 at the beginning; out: cookie of the entry
 * @name: out: NAME_BYTES_MAX + 1 bytes
 * @inode: out: returns a reference; NULL for ".." of a removed directory
 * Context: takes the directory's lock.
 * Return: true; false at the end.
 */
bool directory_next(struct inode *dir, uint64_t *cookie, char *name, struct inode **inode);

/**
 * struct listed - what a listing says of an entry
 * @name: borrowed until the visit ends
 * @ino:  0: ".." of a removed directory
 * @type: S_IFREG and the like
 */
struct listed {
	const char *name;
	uint64_t ino;
	mode_t type;
	uint64_t cookie;
};

/**
 * directory_list() - visit the entries after a cookie
 * @dir: a directory
 * @cookie: where the reader is, 0 at the beginning
 * @visit: called with the directory's lock held; must not sleep; returns false to end the listing
 * @data: for @visit
 *
 * For whoever wants no more than this: no reference is taken for each entry.
 * Context: takes the directory's lock.
 */
void directory_list(struct inode *dir, uint64_t cookie,
		    bool (*visit)(const struct listed *listed, void *data), void *data);

/**
 * inode_path() - how an inode is called, from the root of the mount on
 * @path: filled in: "/" and names, as they are at the moment; "" for the root
 * @size: bytes of @path
 * Context: takes the filesystem-wide lock of renames, and locks of inodes; no lock is held. Time in
 * proportion to the depth.
 * Return: 0; -ENOENT (it has no name); -ENAMETOOLONG.
 */
int inode_path(struct inode *inode, char *path, size_t size);
