/* SPDX-License-Identifier: MIT */
/*
 * An ACL has entries for the owner, the group and the others, which are the mode's; it may have
 * some for named users and groups, and then it has a mask, which limits those and the group, and
 * which is what the mode shows as the group's permissions. An ACL with three entries is just a
 * mode, and is not stored. A default ACL belongs to a directory; what is made there gets it,
 * limited by the mode that the maker asked for, and a directory gets it as its own default, too.
 *
 * They are stored as attributes, in the form that the kernel uses: a version, then entries by tag.
 */
#include "inode/acl.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "inode/attr.h"
#include "inode/xattr.h"

#define ACL_VERSION 2

enum {
	ACL_USER_OBJ = 0x01,
	ACL_USER = 0x02,
	ACL_GROUP_OBJ = 0x04,
	ACL_GROUP = 0x08,
	ACL_MASK = 0x10,
	ACL_OTHER = 0x20,
};

/* As in the attribute; all little-endian. */
struct acl_entry {
	uint16_t tag;
	uint16_t bits;
	uint32_t id;
};

struct acl {
	uint32_t version;
	struct acl_entry entries[];
};

bool acl_is_name(const char *name)
{
	return strcmp(name, ACL_XATTR_ACCESS) == 0 || strcmp(name, ACL_XATTR_DEFAULT) == 0;
}

static unsigned acl_count(size_t size)
{
	return (size - sizeof(struct acl)) / sizeof(struct acl_entry);
}

/* The first entry of a tag, or NULL. */
static struct acl_entry *acl_find(struct acl *acl, unsigned count, unsigned tag)
{
	for (unsigned i = 0; i < count; i++)
		if (le16toh(acl->entries[i].tag) == tag)
			return &acl->entries[i];
	return NULL;
}

/* The kernel has checked more than this already; it shall not be able to make us stumble. */
static bool acl_is_valid(struct acl *acl, size_t size)
{
	unsigned count;

	if (size < sizeof(*acl) || (size - sizeof(*acl)) % sizeof(struct acl_entry) ||
	    le32toh(acl->version) != ACL_VERSION)
		return false;
	count = acl_count(size);
	for (unsigned i = 0; i < count; i++)
		if (le16toh(acl->entries[i].bits) > 7)
			return false;
	return acl_find(acl, count, ACL_USER_OBJ) && acl_find(acl, count, ACL_GROUP_OBJ) &&
	       acl_find(acl, count, ACL_OTHER) && (count == 3 || acl_find(acl, count, ACL_MASK));
}

/* The entry that stands for the group's bits of the mode. */
static struct acl_entry *acl_group_class(struct acl *acl, unsigned count)
{
	struct acl_entry *mask = acl_find(acl, count, ACL_MASK);

	return mask ? mask : acl_find(acl, count, ACL_GROUP_OBJ);
}

static mode_t acl_mode(struct acl *acl, unsigned count)
{
	return le16toh(acl_find(acl, count, ACL_USER_OBJ)->bits) << 6 |
	       le16toh(acl_group_class(acl, count)->bits) << 3 |
	       le16toh(acl_find(acl, count, ACL_OTHER)->bits);
}

/* The entries of the three classes become the mode's, or, with @limit, lose what the mode lacks. */
static void acl_apply_mode(struct acl *acl, unsigned count, mode_t mode, bool limit)
{
	struct acl_entry *classes[] = {
		acl_find(acl, count, ACL_OTHER),
		acl_group_class(acl, count),
		acl_find(acl, count, ACL_USER_OBJ),
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(classes); i++) {
		unsigned bits = mode >> 3 * i & 7;

		if (limit)
			bits &= le16toh(classes[i]->bits);
		classes[i]->bits = htole16(bits);
	}
}

/* A copy of a stored ACL. Return: NULL when there is none. */
static struct acl *acl_copy_locked(struct inode *inode, const char *name, size_t *size)
{
	GBytes *bytes = xattr_find_locked(inode, name);

	lock_assert_held(&inode->lock);
	if (!bytes)
		return NULL;
	*size = g_bytes_get_size(bytes);
	return g_memdup2(g_bytes_get_data(bytes, NULL), *size);
}

static int acl_set_access_locked(struct inode *inode, struct acl *acl, size_t size, unsigned kill)
{
	unsigned count = acl_count(size);
	mode_t mode = (inode->mode & ~0777) | acl_mode(acl, count);
	int result = 0;

	lock_assert_held(&inode->lock);
	if (kill & ATTR_KILL_SGID)
		mode &= ~S_ISGID;
	if (inode_is_regular(inode))
		result = sealing_check_mode_locked(&inode->sealing, inode->mode, mode);
	if (result)
		return result;
	if (count > 3)
		result = xattr_set_locked(inode, ACL_XATTR_ACCESS, acl, size, 0);
	else
		xattr_remove_locked(inode, ACL_XATTR_ACCESS);
	if (result)
		return result;
	inode->mode = mode;
	if (inode_is_regular(inode))
		sealing_wake_locked(&inode->sealing);
	return 0;
}

int acl_set(struct inode *inode, const char *name, const void *value, size_t size, unsigned kill)
{
	g_autofree struct acl *acl = g_memdup2(value, size);
	int result;

	if (!acl_is_valid(acl, size))
		return -EINVAL;
	scoped_mutex(&inode->lock);
	if (strcmp(name, ACL_XATTR_ACCESS) == 0)
		result = acl_set_access_locked(inode, acl, size, kill);
	else
		result = inode_is_dir(inode) ? xattr_set_locked(inode, name, acl, size, 0)
					     : -EACCES;
	if (result == 0)
		attr_touch_ctime_locked(inode);
	return result;
}

void acl_mode_changed_locked(struct inode *inode)
{
	g_autofree struct acl *acl = NULL;
	size_t size;

	lock_assert_held(&inode->lock);
	acl = acl_copy_locked(inode, ACL_XATTR_ACCESS, &size);
	if (!acl)
		return;
	acl_apply_mode(acl, acl_count(size), inode->mode, false);
	xattr_set_locked(inode, ACL_XATTR_ACCESS, acl, size, 0); /* of the same size: cannot fail */
}

void acl_inherit(struct inode *inode, struct inode *parent, mode_t umask)
{
	g_autofree struct acl *acl = NULL;
	size_t size = 0;

	pthread_mutex_lock(&parent->lock);
	acl = acl_copy_locked(parent, ACL_XATTR_DEFAULT, &size);
	pthread_mutex_unlock(&parent->lock);
	if (!acl) {
		inode->mode &= ~(umask & 0777);
		return;
	}
	scoped_mutex(&inode->lock);
	if (inode_is_dir(inode))
		xattr_set_locked(inode, ACL_XATTR_DEFAULT, acl, size, 0);
	acl_apply_mode(acl, acl_count(size), inode->mode, true);
	inode->mode = (inode->mode & ~0777) | acl_mode(acl, acl_count(size));
	if (acl_count(size) > 3)
		xattr_set_locked(inode, ACL_XATTR_ACCESS, acl, size, 0);
}
