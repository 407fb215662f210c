/* SPDX-License-Identifier: MIT */
/*
 * The thread that tells the kernel what it did not ask for. A notification may wait for requests to
 * end, so no FUSE worker may send one.
 */
#pragma once

#include <fuse_lowlevel.h>
#include <glib.h>

#include "inode/filesystem.h"

struct notifier {
	struct filesystem *fs;
	struct fuse_session *session;
	GAsyncQueue *queue;
	GThread *thread;
};

/**
 * notifier_start() - start the thread
 * @fs: borrows
 * @session: borrows
 * Context: once.
 * Return: 0, -EAGAIN (no thread).
 */
int notifier_start(struct notifier *notifier, struct filesystem *fs, struct fuse_session *session);

/**
 * notifier_stop() - end the thread; what was not yet told is dropped
 * Context: sleeps until the thread has ended; no lock is held.
 */
void notifier_stop(struct notifier *notifier);

/**
 * notifier_invalidate() - the kernel shall drop what it caches of a file
 * @ino: its number
 * @contents: its pages, too, not its attributes alone
 * Context: any; does not wait for the kernel. Attributes are dropped on return; of pages
 * inode_cache_invalidated() will tell.
 */
void notifier_invalidate(struct notifier *notifier, uint64_t ino, bool contents);
