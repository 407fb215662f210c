/* SPDX-License-Identifier: MIT */
#include "session/notifier.h"

#include <errno.h>

#include "base/handover.h"
#include "inode/sealed.h"

/**
 * struct notice - pages to be dropped; @ino 0 ends the thread
 */
struct notice {
	uint64_t ino;
};

static gpointer notifier_run(gpointer data)
{
	struct notifier *notifier = data;

	for (;;) {
		g_autofree struct notice *notice =
			handover_take(g_async_queue_pop(notifier->queue));
		int result;

		if (!notice->ino)
			return NULL;
		result = fuse_lowlevel_notify_inval_inode(notifier->session, notice->ino, 0, 0);
		/* ENOENT: the kernel does not know the inode, so it caches nothing of it either. */
		if (result == 0 || result == -ENOENT)
			inode_cache_invalidated(notifier->fs, notice->ino);
	}
}

static void notifier_push(struct notifier *notifier, uint64_t ino)
{
	struct notice *notice = g_new(struct notice, 1);

	notice->ino = ino;
	handover_give(notice);
	g_async_queue_push(notifier->queue, notice);
}

int notifier_start(struct notifier *notifier, struct filesystem *fs, struct fuse_session *session)
{
	notifier->fs = fs;
	notifier->session = session;
	notifier->queue = g_async_queue_new_full(g_free);
	notifier->thread = g_thread_try_new("notifier", notifier_run, notifier, NULL);
	if (notifier->thread)
		return 0;
	g_async_queue_unref(notifier->queue);
	return -EAGAIN;
}

void notifier_stop(struct notifier *notifier)
{
	if (!notifier->thread)
		return;
	notifier_push(notifier, 0);
	g_thread_join(notifier->thread);
	g_async_queue_unref(notifier->queue);
	notifier->thread = NULL;
}

void notifier_invalidate(struct notifier *notifier, uint64_t ino, bool contents)
{
	if (contents)
		notifier_push(notifier, ino);
	else /* a negative offset spares the pages, and then the kernel waits for nothing */
		fuse_lowlevel_notify_inval_inode(notifier->session, ino, -1, 0);
}
