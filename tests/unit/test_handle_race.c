/* SPDX-License-Identifier: MIT */
/* A handle that is closed while somebody names it, a file that goes while it is opened. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>

#include <cachet/ioctl.h>

#include "../fuzz/fake_fuse.h"
#include "inode/handle.h"

#define OPENS 20000
#define STRANGER 1000

struct opener {
	struct inode *inode;
	atomic_uint_least64_t handle; /* number of one that was open a moment ago */
	atomic_bool done;
};

static void *open_and_close(void *data)
{
	const struct caller caller = { .uid = 0 };
	struct opener *opener = data;

	for (unsigned i = 0; i < OPENS; i++) {
		struct handle *handle;

		g_assert_cmpint(handle_open(opener->inode, O_RDWR, &caller, 0, NULL, &handle), ==,
				0);
		atomic_store(&opener->handle, handle->id);
		for (volatile unsigned spins = 0; spins < i % 4096; spins++)
			;
		handle_close(handle);
	}
	atomic_store(&opener->done, true);
	return NULL;
}

/*
 * A stranger asks for a hand-over of somebody else's handle, which no request keeps open: it may be
 * closed at the same time. That it is not looked at once it is freed is what the sanitizers see.
 */
static void test_handover_meets_close(void)
{
	static struct kernel kernel;
	struct cachet_seals seals = {
		.size = sizeof(seals),
		.seals = F_SEAL_WRITE,
		.flags = CACHET_SEAL_PREPARE,
	};
	struct fuse_file_info fi = { 0 };
	struct opener opener = { 0 };
	struct fuse_req *req;
	pthread_t thread;

	kernel_start(&kernel, CACHET_PLANE_DAEMON, true);
	req = kernel_request(&kernel, NULL, NULL, NULL, 0, false);
	kernel.ops->mknod(req, FUSE_ROOT_ID, "file", S_IFREG | 0644, 0);
	kernel_sent(&kernel, req);
	opener.inode = inode_find(&kernel.fs, kernel.nodes[1].ino);
	kernel_caller(STRANGER, STRANGER);
	g_assert_cmpint(pthread_create(&thread, NULL, open_and_close, &opener), ==, 0);
	while (!atomic_load(&opener.done)) {
		seals.handle = atomic_load(&opener.handle);
		req = kernel_request(&kernel, NULL, NULL, NULL, 0, false);
		kernel.ops->ioctl(req, opener.inode->ino, CACHET_IOC_ADD_SEALS, NULL, &fi, 0,
				  &seals, sizeof(seals), sizeof(seals));
		kernel_sent(&kernel, req);
		g_assert_cmpint(kernel.result, ==, -EPERM);
	}
	pthread_join(thread, NULL);
	kernel_reset(&kernel);
	kernel_stop(&kernel);
}

struct arrival {
	struct inode *inode;
	struct admission admission;
	atomic_bool resumed;
	int result;
};

static void arrival_resumed(struct admission *admission)
{
	atomic_store(&container_of(admission, struct arrival, admission)->resumed, true);
}

static void *arrive(void *data)
{
	const struct caller caller = { .uid = 0 };
	struct arrival *arrival = data;
	struct handle *handle;

	arrival->result = handle_open(arrival->inode, O_RDWR, &caller, 0, &arrival->admission,
				      &handle);
	return NULL;
}

/* In a thread of its own, as the order is: the lock of a file first, then that of the table. */
struct barrier {
	struct xarray *handles;
	atomic_bool closed, opened;
};

static void *barrier_hold(void *data)
{
	struct barrier *barrier = data;

	xarray_lock(barrier->handles);
	atomic_store(&barrier->closed, true);
	while (!atomic_load(&barrier->opened))
		g_usleep(100);
	xarray_unlock(barrier->handles);
	return NULL;
}

static bool arrival_waits(struct inode *inode)
{
	scoped_mutex(&inode->lock);
	return !list_empty(&inode->sealing.admissions);
}

/*
 * Who is put aside may be resumed and answered, and its file closed, removed and forgotten, before
 * the thread that has put it aside returns. That one is held up at the table of handles.
 */
static void test_put_aside_meets_forget(void)
{
	static struct kernel kernel;
	struct filesystem *fs = &kernel.fs;
	struct arrival arrival = { .admission.resume = arrival_resumed };
	struct barrier barrier = { .handles = &fs->handles };
	const struct caller maker = { .uid = 0 };
	pthread_t thread, holder;
	uint64_t ino;

	kernel_start(&kernel, CACHET_PLANE_KERNEL, true);
	g_assert_cmpint(inode_new(fs, S_IFREG | 0600, 0, &maker, fs->root, NULL, &arrival.inode),
			==, 0);
	ino = arrival.inode->ino;
	list_init(&arrival.admission.link);
	pthread_mutex_lock(&arrival.inode->lock);
	arrival.inode->sealing.prepared_handle = arrival.inode->sealing.prepared_owner = 1;
	arrival.inode->sealing.prepared_until = INT64_MAX;
	g_assert_cmpint(pthread_create(&thread, NULL, arrive, &arrival), ==, 0);
	while (!atomic_load(&fs->stats.handles))
		g_usleep(100);
	g_assert_cmpint(pthread_create(&holder, NULL, barrier_hold, &barrier), ==, 0);
	while (!atomic_load(&barrier.closed))
		g_usleep(100);
	pthread_mutex_unlock(&arrival.inode->lock);
	while (!arrival_waits(arrival.inode))
		g_usleep(100);
	pthread_mutex_lock(&arrival.inode->lock);
	g_assert_cmpint(sealing_abort_locked(&arrival.inode->sealing, 1), ==, 0);
	pthread_mutex_unlock(&arrival.inode->lock);
	while (!atomic_load(&arrival.resumed))
		g_usleep(100);
	inode_put(arrival.inode); /* the kernel's lookup, which was the last reference but one */
	rcu_barrier();
	arrival.inode = inode_lookup(fs, ino);
	g_assert_nonnull(arrival.inode);
	inode_put(arrival.inode);
	atomic_store(&barrier.opened, true);
	pthread_join(holder, NULL);
	pthread_join(thread, NULL);
	g_assert_cmpint(arrival.result, ==, -EINPROGRESS);
	kernel_reset(&kernel);
	kernel_stop(&kernel);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/handle/handover-meets-close", test_handover_meets_close);
	g_test_add_func("/handle/put-aside-meets-forget", test_put_aside_meets_forget);
	return g_test_run();
}
