/* SPDX-License-Identifier: MIT */
/*
 * Locks of the name space.
 *
 * An operation on one directory holds its lock; a child's lock is taken inside it, one child at a
 * time. Only a rename needs two directories, and only one rename runs at a time (rename_lock), so
 * that nobody else moves directories while it looks who is whose ancestor. It locks an ancestor
 * before a descendant, which is the order of parent and child everywhere, and unrelated directories
 * by number.
 *
 * The names of an inode are entries of any directories; its own lock guards the list. Who wants to
 * know a path takes rename_lock, so that nothing above moves meanwhile, and one inode's lock at a
 * time.
 */
#include "inode/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h> /* RENAME_* */
#include <string.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "inode/attr.h"

/* What tmpfs adds to the size of a directory for each entry. */
#define ENTRY_SIZE 20

static pthread_mutex_t rename_lock = PTHREAD_MUTEX_INITIALIZER;

/* It is a name of its inode from here on. */
static void entry_attach(struct entry *entry, struct inode *dir)
{
	struct inode *inode = entry->inode;

	entry->dir = dir->ino;
	scoped_mutex(&inode->lock);
	list_add_tail(&inode->names, &entry->of_inode);
}

static void entry_detach(struct entry *entry)
{
	struct inode *inode = entry->inode;

	scoped_mutex(&inode->lock);
	list_del(&entry->of_inode);
}

static void entry_free(struct entry *entry)
{
	inode_put(entry->inode);
	g_free(entry);
}

static void entry_drop(gpointer data)
{
	entry_detach(data);
	entry_free(data);
}

static struct entry *entry_new(const char *name, struct inode *inode)
{
	size_t bytes = strlen(name) + 1;
	struct entry *entry = g_malloc(sizeof(*entry) + bytes);

	memcpy(entry->name, name, bytes);
	inode_get(inode);
	entry->inode = inode;
	list_init(&entry->of_inode);
	return entry;
}

struct directory *directory_new(uint64_t parent)
{
	struct directory *directory = g_new0(struct directory, 1);

	directory->by_name = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, entry_drop);
	xarray_init(&directory->by_cookie);
	directory->next_cookie = COOKIE_FIRST;
	directory->parent = parent;
	return directory;
}

void directory_free(struct directory *directory)
{
	if (!directory)
		return;
	g_hash_table_destroy(directory->by_name);
	xarray_destroy(&directory->by_cookie);
	g_free(directory);
}

uint64_t directory_size(const struct directory *directory)
{
	return (uint64_t)(g_hash_table_size(directory->by_name) + 2) * ENTRY_SIZE;
}

/* May @dir have an entry of this name at all? */
static int directory_check_name(const struct inode *dir, const char *name)
{
	if (!inode_is_dir(dir))
		return -ENOTDIR;
	return strlen(name) > NAME_BYTES_MAX ? -ENAMETOOLONG : 0;
}

static struct entry *directory_entry_locked(struct inode *dir, const char *name)
{
	lock_assert_held(&dir->lock);
	return g_hash_table_lookup(dir->directory->by_name, name);
}

/* The part of an insertion that can fail. */
static int directory_store_cookie_locked(struct inode *dir, struct entry *entry)
{
	struct directory *directory = dir->directory;
	int result;

	lock_assert_held(&dir->lock);
	entry->cookie = directory->next_cookie;
	xarray_lock(&directory->by_cookie);
	result = xarray_store_locked(&directory->by_cookie, entry->cookie, 0, entry);
	xarray_unlock(&directory->by_cookie);
	if (result == 0)
		directory->next_cookie++;
	return result;
}

static void directory_erase_cookie_locked(struct inode *dir, struct entry *entry)
{
	struct directory *directory = dir->directory;

	lock_assert_held(&dir->lock);
	xarray_lock(&directory->by_cookie);
	xarray_erase_locked(&directory->by_cookie, entry->cookie);
	xarray_unlock(&directory->by_cookie);
}

/* Return: the entry, the caller's now. */
static struct entry *directory_take_locked(struct inode *dir, struct entry *entry)
{
	lock_assert_held(&dir->lock);
	g_hash_table_steal(dir->directory->by_name, entry->name);
	directory_erase_cookie_locked(dir, entry);
	return entry;
}

int directory_find(struct inode *dir, const char *name, struct inode **inode)
{
	int result = directory_check_name(dir, name);
	struct entry *entry;

	if (result)
		return result;
	scoped_mutex(&dir->lock);
	entry = directory_entry_locked(dir, name);
	if (!entry)
		return -ENOENT;
	inode_get(entry->inode);
	*inode = entry->inode;
	return 0;
}

static int directory_add_entry_locked(struct inode *dir, struct entry *entry)
{
	struct inode *inode = entry->inode;
	int result;

	lock_assert_held(&dir->lock);
	if (!dir->directory->parent)
		return -ENOENT;
	if (directory_entry_locked(dir, entry->name))
		return -EEXIST;
	result = directory_store_cookie_locked(dir, entry);
	if (result)
		return result;
	g_hash_table_insert(dir->directory->by_name, entry->name, entry);
	entry->dir = dir->ino;
	pthread_mutex_lock(&inode->lock);
	list_add_tail(&inode->names, &entry->of_inode);
	if (inode_is_dir(inode)) {
		inode->nlink = 2;
		dir->nlink++;
	} else {
		inode->nlink++;
	}
	attr_touch_ctime_locked(inode);
	pthread_mutex_unlock(&inode->lock);
	attr_touch_locked(dir);
	return 0;
}

int directory_add(struct inode *dir, const char *name, struct inode *inode)
{
	int result = directory_check_name(dir, name);
	struct entry *entry;

	if (result)
		return result;
	entry = entry_new(name, inode);
	pthread_mutex_lock(&dir->lock);
	result = directory_add_entry_locked(dir, entry);
	pthread_mutex_unlock(&dir->lock);
	if (result)
		entry_free(entry);
	return result;
}

/* May @inode lose its name in @dir to a directory (@want_dir) or to something else? */
static int inode_check_replaceable(struct inode *inode, bool want_dir)
{
	if (want_dir && !inode_is_dir(inode))
		return -ENOTDIR;
	if (!want_dir && inode_is_dir(inode))
		return -EISDIR;
	if (!want_dir)
		return 0;
	scoped_mutex(&inode->lock);
	return g_hash_table_size(inode->directory->by_name) ? -ENOTEMPTY : 0;
}

/* The last step of a removal: fails only if a directory was filled meanwhile. */
static int entry_unlink_locked_dir(struct inode *dir, struct entry *entry)
{
	struct inode *inode = entry->inode;

	scoped_mutex(&inode->lock);
	if (inode_is_dir(inode)) {
		if (g_hash_table_size(inode->directory->by_name))
			return -ENOTEMPTY;
		inode->directory->parent = 0;
		inode->nlink = 0;
		dir->nlink--;
	} else {
		inode->nlink--;
	}
	list_del(&entry->of_inode);
	attr_touch_ctime_locked(inode);
	return 0;
}

int directory_remove(struct inode *dir, const char *name, bool rmdir)
{
	int result = directory_check_name(dir, name);
	struct entry *entry;

	if (result)
		return result;
	pthread_mutex_lock(&dir->lock);
	entry = directory_entry_locked(dir, name);
	result = entry ? inode_check_replaceable(entry->inode, rmdir) : -ENOENT;
	if (result == 0)
		result = entry_unlink_locked_dir(dir, entry);
	if (result == 0) {
		directory_take_locked(dir, entry);
		attr_touch_locked(dir);
	}
	pthread_mutex_unlock(&dir->lock);
	if (result == 0)
		entry_free(entry); /* may free the inode, which no lock may be held for */
	return result;
}

static uint64_t directory_parent(struct inode *dir)
{
	scoped_mutex(&dir->lock);
	return dir->directory->parent;
}

/* Is @ancestor above @dir, or @dir itself? The caller holds rename_lock. */
static bool directory_is_above(struct inode *ancestor, struct inode *dir)
{
	struct filesystem *fs = dir->fs;
	uint64_t ino = dir->ino;

	while (ino && ino != ancestor->ino && ino != FILESYSTEM_ROOT_INO) {
		auto_inode inode = inode_lookup(fs, ino);

		ino = inode ? directory_parent(inode) : 0;
	}
	return ino == ancestor->ino;
}

static void directory_lock_two(struct inode *a, struct inode *b)
{
	if (a == b) {
		pthread_mutex_lock(&a->lock);
		return;
	}
	if (directory_is_above(b, a) || (!directory_is_above(a, b) && b->ino < a->ino)) {
		struct inode *first = b;

		b = a;
		a = first;
	}
	pthread_mutex_lock(&a->lock);
	pthread_mutex_lock(&b->lock);
}

static void directory_unlock_two(struct inode *a, struct inode *b)
{
	pthread_mutex_unlock(&a->lock);
	if (a != b)
		pthread_mutex_unlock(&b->lock);
}

/* A directory that came to another parent counts there. */
static void inode_moved(struct inode *inode, struct inode *from_dir, struct inode *to_dir)
{
	scoped_mutex(&inode->lock);
	if (inode_is_dir(inode) && from_dir != to_dir) {
		inode->directory->parent = to_dir->ino;
		from_dir->nlink--;
		to_dir->nlink++;
	}
	attr_touch_ctime_locked(inode);
}

static void directory_exchange_locked(struct inode *from_dir, struct entry *from,
				      struct inode *to_dir, struct entry *to)
{
	struct inode *moved = from->inode;

	lock_assert_held(&from_dir->lock);
	lock_assert_held(&to_dir->lock);
	entry_detach(from);
	entry_detach(to);
	from->inode = to->inode;
	to->inode = moved;
	entry_attach(from, from_dir);
	entry_attach(to, to_dir);
	inode_moved(to->inode, from_dir, to_dir);
	inode_moved(from->inode, to_dir, from_dir);
	attr_touch_locked(from_dir);
	attr_touch_locked(to_dir);
}

/* The name stays, for a device that says "nothing here". What it was has another name by now. */
static void entry_set_whiteout(struct entry *entry, struct inode *whiteout)
{
	scoped_mutex(&whiteout->lock);
	whiteout->nlink++;
	inode_get(whiteout);
	inode_put(entry->inode);
	entry->inode = whiteout;
}

/*
 * Return: 0 or a negative errno; @old and @replaced are what the caller frees once the locks are
 * dropped.
 */
static int directory_move_locked(struct inode *from_dir, struct entry *from, struct inode *to_dir,
				 const char *to_name, struct entry *to, struct inode *whiteout,
				 struct entry **old, struct entry **replaced)
{
	struct inode *inode = from->inode;
	struct entry *fresh = entry_new(to_name, inode);
	int result = to ? inode_check_replaceable(to->inode, inode_is_dir(inode)) : 0;

	lock_assert_held(&from_dir->lock);
	lock_assert_held(&to_dir->lock);
	if (result == 0)
		result = directory_store_cookie_locked(to_dir, fresh);
	if (result) {
		*old = fresh;
		return result;
	}
	if (to) {
		result = entry_unlink_locked_dir(to_dir, to);
		if (result) {
			directory_erase_cookie_locked(to_dir, fresh);
			*old = fresh;
			return result;
		}
		*replaced = directory_take_locked(to_dir, to);
	}
	g_hash_table_insert(to_dir->directory->by_name, fresh->name, fresh);
	entry_attach(fresh, to_dir);
	entry_detach(from);
	if (whiteout) {
		entry_set_whiteout(from, whiteout);
		entry_attach(from, from_dir);
	} else {
		*old = directory_take_locked(from_dir, from);
	}
	inode_moved(inode, from_dir, to_dir);
	attr_touch_locked(from_dir);
	attr_touch_locked(to_dir);
	return 0;
}

static int directory_rename_locked(struct inode *from_dir, const char *from_name,
				   struct inode *to_dir, const char *to_name, unsigned flags,
				   struct inode *whiteout, struct entry **old,
				   struct entry **replaced)
{
	struct entry *from = directory_entry_locked(from_dir, from_name);
	struct entry *to = directory_entry_locked(to_dir, to_name);

	lock_assert_held(&from_dir->lock);
	lock_assert_held(&to_dir->lock);
	if (!from || (!to && (flags & RENAME_EXCHANGE)))
		return -ENOENT;
	if (to && (flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (!to_dir->directory->parent)
		return -ENOENT;
	if (to && to->inode == from->inode)
		return 0; /* two names of one file: rename() does nothing */
	if (flags & RENAME_EXCHANGE) {
		directory_exchange_locked(from_dir, from, to_dir, to);
		return 0;
	}
	return directory_move_locked(from_dir, from, to_dir, to_name, to, whiteout, old, replaced);
}

/* Would a directory come below itself? */
static int directory_check_loop(struct inode *dir, const char *name, struct inode *to_dir)
{
	auto_inode inode = NULL;

	if (directory_find(dir, name, &inode) || !inode_is_dir(inode))
		return 0; /* missing names are found out later, under the locks */
	return directory_is_above(inode, to_dir) ? -EINVAL : 0;
}

/* What is to be replaced, or exchanged, is above what moves. Return: a negative errno. */
static int directory_refuse_above(struct inode *dir, const char *name, unsigned flags)
{
	auto_inode inode = NULL;
	int result = directory_find(dir, name, &inode);

	if (result)
		return result;
	if (flags & RENAME_EXCHANGE)
		return -EINVAL;
	return flags & RENAME_NOREPLACE ? -EEXIST : -ENOTEMPTY;
}

int directory_rename(struct inode *from_dir, const char *from, struct inode *to_dir,
		     const char *to, unsigned flags, struct inode *whiteout)
{
	struct entry *old = NULL, *replaced = NULL;
	int result;

	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
	    flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	result = directory_check_name(from_dir, from);
	if (result == 0)
		result = directory_check_name(to_dir, to);
	if (result)
		return result;
	scoped_mutex(&rename_lock);
	result = directory_check_loop(from_dir, from, to_dir);
	if (result == 0 && directory_check_loop(to_dir, to, from_dir))
		result = directory_refuse_above(from_dir, from, flags);
	if (result)
		return result;
	directory_lock_two(from_dir, to_dir);
	result = directory_rename_locked(from_dir, from, to_dir, to, flags, whiteout, &old,
					 &replaced);
	directory_unlock_two(from_dir, to_dir);
	if (old)
		entry_free(old);
	if (replaced)
		entry_free(replaced);
	return result;
}

static struct entry *directory_entry_after_locked(struct inode *dir, uint64_t cookie)
{
	struct directory *directory = dir->directory;
	uint64_t index = MAX(cookie + 1, COOKIE_FIRST);
	struct entry *entry;

	lock_assert_held(&dir->lock);
	xarray_lock(&directory->by_cookie);
	entry = xarray_find(&directory->by_cookie, &index, XARRAY_INDEX_MAX, XARRAY_PRESENT, NULL);
	xarray_unlock(&directory->by_cookie);
	return entry;
}

bool directory_next(struct inode *dir, uint64_t *cookie, char *name, struct inode **inode)
{
	struct entry *entry;

	if (*cookie < COOKIE_DOT_DOT) {
		uint64_t ino = *cookie < COOKIE_DOT ? dir->ino : directory_parent(dir);

		strcpy(name, *cookie < COOKIE_DOT ? "." : "..");
		*cookie += 1;
		*inode = ino ? inode_lookup(dir->fs, ino) : NULL;
		return true;
	}
	scoped_mutex(&dir->lock);
	entry = *cookie < UINT64_MAX ? directory_entry_after_locked(dir, *cookie) : NULL;
	if (!entry)
		return false;
	*cookie = entry->cookie;
	strcpy(name, entry->name);
	inode_get(entry->inode);
	*inode = entry->inode;
	return true;
}

void directory_list(struct inode *dir, uint64_t cookie,
		    bool (*visit)(const struct listed *listed, void *data), void *data)
{
	uint64_t index = MAX(cookie < UINT64_MAX ? cookie + 1 : cookie, COOKIE_FIRST);
	struct listed dot = { ".", dir->ino, S_IFDIR, COOKIE_DOT };
	struct listed dot_dot = { "..", directory_parent(dir), S_IFDIR, COOKIE_DOT_DOT };
	struct entry *entry;
	unsigned order;

	scoped_mutex(&dir->lock);
	if (cookie < COOKIE_DOT && !visit(&dot, data))
		return;
	if (cookie < COOKIE_DOT_DOT && !visit(&dot_dot, data))
		return;
	if (cookie == UINT64_MAX)
		return;
	xarray_lock(&dir->directory->by_cookie);
	xarray_for_each(&dir->directory->by_cookie, index, XARRAY_INDEX_MAX, XARRAY_PRESENT, order,
			entry) {
		struct listed listed = { entry->name, entry->inode->ino, entry->inode->type,
					 entry->cookie };

		if (!visit(&listed, data))
			break;
	}
	xarray_unlock(&dir->directory->by_cookie);
}

/* One of the names of an inode. Return: a reference to the directory that it is in, or NULL. */
static struct inode *inode_one_name(struct inode *inode, char *name)
{
	uint64_t dir = 0;

	pthread_mutex_lock(&inode->lock);
	if (!list_empty(&inode->names)) {
		struct entry *entry = list_first(&inode->names, struct entry, of_inode);

		strcpy(name, entry->name);
		dir = entry->dir;
	}
	pthread_mutex_unlock(&inode->lock);
	return dir ? inode_lookup(inode->fs, dir) : NULL;
}

int inode_path(struct inode *inode, char *path, size_t size)
{
	char name[NAME_BYTES_MAX + 1] = "";
	size_t at = size - 1;
	int result = 0;

	path[at] = '\0';
	inode_get(inode);
	scoped_mutex(&rename_lock);
	while (inode && inode->ino != FILESYSTEM_ROOT_INO && result == 0) {
		struct inode *dir = inode_one_name(inode, name);
		size_t length = strlen(name);

		if (!dir) {
			result = -ENOENT;
		} else if (at < length + 1) {
			result = -ENAMETOOLONG;
		} else {
			at -= length;
			memcpy(path + at, name, length);
			path[--at] = '/';
		}
		inode_put(inode);
		inode = dir;
	}
	inode_put(inode);
	memmove(path, path + at, size - at);
	return result;
}
