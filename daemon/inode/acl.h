/* SPDX-License-Identifier: MIT */
/*
 * POSIX access control lists. The kernel asks for them and decides by them; what follows from one
 * for the mode, and the other way round, is up to us. acl.c begins with the rules.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "inode/inode.h"

#define ACL_XATTR_ACCESS "system.posix_acl_access"
#define ACL_XATTR_DEFAULT "system.posix_acl_default"

/**
 * acl_is_name() - is this the name of an attribute that holds an ACL?
 * Context: any.
 */
bool acl_is_name(const char *name);

/**
 * acl_set() - store an ACL
 * @name: ACL_XATTR_ACCESS, which changes the mode, too, or ACL_XATTR_DEFAULT
 * @value: borrows; as the kernel writes it
 * @kill: ATTR_KILL_SGID when the caller is not in the file's group
 * Context: takes the inode's lock.
 * Return: 0; -EINVAL; -EACCES (default ACL of no directory); -EPERM (F_SEAL_EXEC); as xattr_set().
 */
int acl_set(struct inode *inode, const char *name, const void *value, size_t size, unsigned kill);

/**
 * acl_mode_changed_locked() - make the access ACL follow the mode
 * Context: the inode's lock.
 */
void acl_mode_changed_locked(struct inode *inode);

/**
 * acl_inherit() - what a new inode takes over from the directory that it is made in
 * @inode: nobody else knows it yet; its mode is what the caller asked for, without the umask
 * @parent: borrows
 * @umask: the caller's; not applied where the directory has a default ACL
 * Context: takes the parent's lock.
 */
void acl_inherit(struct inode *inode, struct inode *parent, mode_t umask);
