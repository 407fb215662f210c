/* SPDX-License-Identifier: MIT */
/*
 * Attributes that are stored: name and value, as given.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "inode/inode.h"

/* As in Linux: one value, and all names of an inode. */
#define XATTR_VALUE_MAX 65536
#define XATTR_NAME_MAX 255

/* Capabilities of a program; whoever writes it takes them away, root too. */
#define XATTR_CAPABILITY "security.capability"

/* What all attributes of one inode may take, since they are the daemon's own memory. */
#define XATTR_INODE_MAX (128 * 1024)

/**
 * xattr_set() - store an attribute
 * @flags: XATTR_CREATE, XATTR_REPLACE or 0
 * Context: takes the inode's lock.
 * Return: 0; -EEXIST, -ENODATA (flags); -E2BIG, -ERANGE (sizes); -ENOSPC (all of the inode's).
 */
int xattr_set(struct inode *inode, const char *name, const void *value, size_t size, int flags);

/**
 * xattr_find_locked() - the value of an attribute
 * Context: the inode's lock.
 * Return: borrows the value; NULL when there is none.
 */
GBytes *xattr_find_locked(struct inode *inode, const char *name);

/**
 * xattr_set_locked() - store an attribute, without a new ctime
 * Context: the inode's lock.
 * Return: as xattr_set().
 */
int xattr_set_locked(struct inode *inode, const char *name, const void *value, size_t size,
		     int flags);

/**
 * xattr_remove_locked() - drop an attribute, without a new ctime
 * Context: the inode's lock.
 * Return: 0; -ENODATA.
 */
int xattr_remove_locked(struct inode *inode, const char *name);

/**
 * xattr_drop_capability_locked() - contents or owner have changed: the file has no capabilities
 * Context: the inode's lock.
 */
void xattr_drop_capability_locked(struct inode *inode);

/**
 * xattr_get() - read an attribute
 * @value: borrows; may be NULL when @size is 0, which asks for the size
 * Context: takes the inode's lock.
 * Return: bytes of the value; -ENODATA; -ERANGE (@size is too small).
 */
ssize_t xattr_get(struct inode *inode, const char *name, void *value, size_t size);

/**
 * xattr_list() - names, each with its NUL
 * @list: borrows; may be NULL when @size is 0, which asks for the size
 * @trusted: those that begin with "trusted.", too
 * Context: takes the inode's lock.
 * Return: bytes; -ERANGE (@size is too small).
 */
ssize_t xattr_list(struct inode *inode, bool trusted, char *list, size_t size);

/**
 * xattr_remove() - drop an attribute
 * Context: takes the inode's lock.
 * Return: 0; -ENODATA.
 */
int xattr_remove(struct inode *inode, const char *name);
