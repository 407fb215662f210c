/* SPDX-License-Identifier: MIT */
/*
 * What follows from seals for an inode: what the kernel caches of it, and pages that are made huge.
 */
#pragma once

#include <stdint.h>

#include "inode/inode.h"

/* What sealing asks of the inode of a regular file. */
extern const struct sealing_ops inode_sealing_ops;

/**
 * inode_collapse() - make the pages of a sealed file huge, unless nobody uses it any more
 * @data: takes; handed over, see base/handover.h
 * @user_data: borrows the filesystem
 * Context: for pool_new(); sleeps.
 */
void inode_collapse(void *data, void *user_data);

/**
 * inode_attr_stale() - what the kernel knows of size and blocks may be wrong
 *
 * The daemon has filled holes by itself; or seals are about to be seen, and whoever sees them must
 * not get a size from before a truncation whose reply the kernel has not looked at yet.
 * Context: any.
 */
void inode_attr_stale(struct inode *inode);

/**
 * inode_cache_invalidated() - the kernel has dropped what it cached before the seal
 * @ino: its number
 * Context: no lock is held.
 */
void inode_cache_invalidated(struct filesystem *fs, uint64_t ino);
