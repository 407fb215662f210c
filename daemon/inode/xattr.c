/* SPDX-License-Identifier: MIT */
#include "inode/xattr.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "inode/attr.h"

static size_t xattr_cost(const char *name, size_t size)
{
	return strlen(name) + 1 + size;
}

GBytes *xattr_find_locked(struct inode *inode, const char *name)
{
	lock_assert_held(&inode->lock);
	return inode->xattrs ? g_hash_table_lookup(inode->xattrs, name) : NULL;
}

int xattr_set_locked(struct inode *inode, const char *name, const void *value, size_t size,
		     int flags)
{
	lock_assert_held(&inode->lock);
	if (size > XATTR_VALUE_MAX)
		return -E2BIG;
	if (strlen(name) > XATTR_NAME_MAX)
		return -ERANGE;
	GBytes *old = xattr_find_locked(inode, name);
	size_t bytes = inode->xattr_bytes + xattr_cost(name, size);

	if (old && (flags & XATTR_CREATE))
		return -EEXIST;
	if (!old && (flags & XATTR_REPLACE))
		return -ENODATA;
	if (old)
		bytes -= xattr_cost(name, g_bytes_get_size(old));
	if (bytes > XATTR_INODE_MAX)
		return -ENOSPC;
	if (!inode->xattrs)
		inode->xattrs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
						      (GDestroyNotify)g_bytes_unref);
	g_hash_table_replace(inode->xattrs, g_strdup(name), g_bytes_new(value, size));
	inode->xattr_bytes = bytes;
	return 0;
}

int xattr_set(struct inode *inode, const char *name, const void *value, size_t size, int flags)
{
	scoped_mutex(&inode->lock);
	int result = xattr_set_locked(inode, name, value, size, flags);

	if (result == 0)
		attr_touch_ctime_locked(inode);
	return result;
}

ssize_t xattr_get(struct inode *inode, const char *name, void *value, size_t size)
{
	const void *data;
	gsize bytes;

	scoped_mutex(&inode->lock);
	GBytes *found = xattr_find_locked(inode, name);

	if (!found)
		return -ENODATA;
	data = g_bytes_get_data(found, &bytes);
	if (!size)
		return bytes;
	if (bytes > size)
		return -ERANGE;
	if (bytes)
		memcpy(value, data, bytes);
	return bytes;
}

ssize_t xattr_list(struct inode *inode, bool trusted, char *list, size_t size)
{
	GHashTableIter iter;
	gpointer name;
	size_t used = 0;

	scoped_mutex(&inode->lock);
	if (!inode->xattrs)
		return 0;
	g_hash_table_iter_init(&iter, inode->xattrs);
	while (g_hash_table_iter_next(&iter, &name, NULL)) {
		size_t bytes = strlen(name) + 1;

		if (!trusted && g_str_has_prefix(name, "trusted."))
			continue;
		if (size && used + bytes > size)
			return -ERANGE;
		if (size)
			memcpy(list + used, name, bytes);
		used += bytes;
	}
	return used;
}

int xattr_remove_locked(struct inode *inode, const char *name)
{
	GBytes *old = xattr_find_locked(inode, name);

	lock_assert_held(&inode->lock);
	if (!old)
		return -ENODATA;
	inode->xattr_bytes -= xattr_cost(name, g_bytes_get_size(old));
	g_hash_table_remove(inode->xattrs, name);
	return 0;
}

void xattr_drop_capability_locked(struct inode *inode)
{
	lock_assert_held(&inode->lock);
	if (inode->xattrs)
		xattr_remove_locked(inode, XATTR_CAPABILITY);
}

int xattr_remove(struct inode *inode, const char *name)
{
	scoped_mutex(&inode->lock);
	int result = xattr_remove_locked(inode, name);

	if (result == 0)
		attr_touch_ctime_locked(inode);
	return result;
}
