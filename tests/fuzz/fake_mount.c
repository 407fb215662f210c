/* SPDX-License-Identifier: MIT */
/* The life of a mount without a kernel: it begins, is emptied and ends; and its seals are kept. */
#include "fake_fuse.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "inode/directory.h"
#include "inode/sealed.h"
#include "session/ops.h"

/* Of a sealed file, what is looked at. */
#define DIGEST_BYTES ((uint64_t)256 << 10)

/* The notifier's part: it tells the daemon later, from a thread without locks. */
static void invalidate(struct filesystem *fs, uint64_t ino, bool contents)
{
	struct kernel *kernel = container_of(fs, struct kernel, fs);

	scoped_mutex(&kernel->lock);
	if (contents && kernel->nr_stale < KERNEL_NODES)
		kernel->stale[kernel->nr_stale++] = ino;
}

static void kernel_drop_stale(struct kernel *kernel)
{
	for (;;) {
		uint64_t ino;

		pthread_mutex_lock(&kernel->lock);
		ino = kernel->nr_stale ? kernel->stale[--kernel->nr_stale] : 0;
		pthread_mutex_unlock(&kernel->lock);
		if (!ino)
			return;
		inode_cache_invalidated(&kernel->fs, ino);
	}
}

static unsigned threads_of_process(void)
{
	struct dirent **tasks = NULL;
	int count = scandir("/proc/self/task", &tasks, NULL, NULL);

	for (int i = 0; i < count; i++)
		free(tasks[i]);
	free(tasks);
	return count > 2 ? (unsigned)count - 2 : 0;
}

/*
 * GLib does not wait until the threads of a pool are really gone, and LeakSanitizer takes what one
 * of them is about to free for leaked.
 */
static void await_threads(unsigned others)
{
	/* liburcu's, which stays, may have come. */
	for (unsigned tries = 0; tries < 4000 && threads_of_process() > others + 1; tries++)
		usleep(500);
}

void kernel_start(struct kernel *kernel, enum cachet_plane plane, bool passthrough)
{
	const struct filesystem_config config = {
		.pages = 2048, .nr_inodes = 40, .root_mode = 01777, .seal_timeout_ms = 5,
	};
	struct fuse_conn_info conn = { .proto_minor = 40 };

	memset(kernel, 0, sizeof(*kernel));
	pthread_mutex_init(&kernel->lock, NULL);
	kernel->other_threads = threads_of_process();
	for (unsigned i = 0; i < KERNEL_BACKINGS; i++)
		kernel->backings[i] = -1;
	kernel_current = kernel;
	kernel->ops = session_operations();
	require(filesystem_start(&kernel->fs, &config) == 0, "start");
	kernel->fs.invalidate = invalidate;
	kernel->fs.fuse_fd = KERNEL_FUSE_FD;
	kernel->ops->init(&kernel->fs, &conn);
	kernel->fs.plane = plane;
	if (passthrough)
		kernel->fs.features |= CACHET_FEATURE_PASSTHROUGH;
	filesystem_settled(&kernel->fs);
	kernel->nodes[0] = (struct kernel_node){ .ino = FILESYSTEM_ROOT_INO, .lookups = 1 };
	kernel_caller(0, 0);
}

static void kernel_unmap(struct kernel *kernel)
{
	for (unsigned i = 0; i < KERNEL_HANDLES; i++)
		if (kernel->handles[i].map)
			munmap(kernel->handles[i].map, PAGE_BYTES);
}

/* Every client goes away. */
static void kernel_end_clients(struct kernel *kernel)
{
	kernel_check_seals(kernel);
	kernel_unmap(kernel);
	filesystem_interrupt(&kernel->fs, -1);
	kernel_sent(kernel, NULL);
	for (unsigned i = 0; i < KERNEL_REQUESTS; i++)
		require(!kernel->requests[i], "a request was not answered");
	kernel_drop_stale(kernel);
}

static void remove_all(struct inode *dir)
{
	uint64_t cookie = 0;
	char name[NAME_BYTES_MAX + 1];
	struct inode *inode;

	while (directory_next(dir, &cookie, name, &inode)) {
		bool is_dir = inode && inode_is_dir(inode);

		if (cookie >= COOKIE_FIRST) {
			if (is_dir)
				remove_all(inode);
			require(directory_remove(dir, name, is_dir) == 0,
				"a name cannot be removed");
		}
		inode_put(inode);
	}
}

static void kernel_release_all(struct kernel *kernel)
{
	for (unsigned i = 0; i < KERNEL_HANDLES; i++) {
		struct kernel_handle *handle = &kernel->handles[i];
		struct fuse_file_info fi = { .fh = handle->fh };
		struct fuse_req *req;
		uint64_t ino = handle->ino;

		if (!handle->open)
			continue;
		*handle = (struct kernel_handle){ .open = false };
		req = kernel_request(kernel, NULL, NULL, NULL, 0, false);
		kernel->ops->release(req, ino, &fi);
		kernel_sent(kernel, req);
	}
}

static void kernel_forget_all(struct kernel *kernel)
{
	for (unsigned i = 1; i < KERNEL_NODES; i++) {
		struct kernel_node node = kernel->nodes[i];
		struct fuse_req *req;

		kernel->nodes[i] = (struct kernel_node){ 0 };
		if (!node.lookups)
			continue;
		req = kernel_request(kernel, NULL, NULL, NULL, 0, false);
		kernel->ops->forget(req, node.ino, node.lookups);
		kernel_sent(kernel, req);
	}
}

static bool kernel_is_empty(struct kernel *kernel)
{
	struct filesystem *fs = &kernel->fs;
	struct pin_stat pins;

	pin_table_stat(fs->pins, &pins);
	return atomic_load(&fs->budget.used) == 0 && atomic_load(&fs->stats.inodes) == 1 &&
	       atomic_load(&fs->stats.handles) == 0 && pins.pins + pins.resident == 0;
}

static void describe_rest(struct kernel *kernel)
{
	struct filesystem *fs = &kernel->fs;
	struct pin_stat pins;

	pin_table_stat(fs->pins, &pins);
	fprintf(stderr, "left: %llu pages, %llu inodes, %llu handles, %llu + %llu pins\n",
		(unsigned long long)atomic_load(&fs->budget.used),
		(unsigned long long)atomic_load(&fs->stats.inodes),
		(unsigned long long)atomic_load(&fs->stats.handles),
		(unsigned long long)pins.pins, (unsigned long long)pins.resident);
}

void kernel_reset(struct kernel *kernel)
{
	struct pin_stat pins;

	kernel_end_clients(kernel);
	kernel_release_all(kernel);
	kernel_forget_all(kernel);
	remove_all(kernel->fs.root);
	/* Threads of the daemon may still let go of something. */
	for (unsigned tries = 0; !kernel_is_empty(kernel); tries++) {
		if (tries == 20000)
			describe_rest(kernel);
		require(tries < 20000, "something is left of an empty mount");
		usleep(500);
	}
	for (unsigned i = 0; i < KERNEL_BACKINGS; i++)
		require(kernel->backings[i] < 0, "a backing id is left");
	require(tally_counter(kernel->fs.tally, COUNT_REQUESTS) == kernel->sent,
		"requests are not counted as they were sent");
	pin_table_stat(kernel->fs.pins, &pins);
	kernel->pins = pins.granted;
	kernel->runs++;
	kernel_caller(0, 0);
}

void kernel_stop(struct kernel *kernel)
{
	kernel_end_clients(kernel);
	/* No request comes any more, so that handles mean nothing; the daemon drops them itself. */
	for (unsigned i = 0; i < KERNEL_HANDLES; i++)
		kernel->handles[i].open = false;
	filesystem_stop(&kernel->fs);
	require(atomic_load(&kernel->fs.budget.used) == 0, "pages are left");
	require(atomic_load(&kernel->fs.stats.inodes) == 0, "inodes are left");
	require(atomic_load(&kernel->fs.stats.handles) == 0, "handles are left");
	for (unsigned i = 0; i < KERNEL_BACKINGS; i++)
		require(kernel->backings[i] < 0, "a backing id is left");
	await_threads(kernel->other_threads);
}

/* --- sealed files --- */

static uint64_t digest(struct inode *inode)
{
	uint64_t size = mapping_size(&inode->mapping), hash = UINT64_C(0xcbf29ce484222325) ^ size;
	uint64_t length = size < DIGEST_BYTES ? size : DIGEST_BYTES;
	unsigned char buffer[16384];

	for (uint64_t offset = 0; offset < length; offset += sizeof(buffer)) {
		ssize_t got = mapping_read(&inode->mapping, buffer, sizeof(buffer), offset);

		require(got >= 0, "a sealed file cannot be read");
		for (ssize_t i = 0; i < got; i++)
			hash = (hash ^ buffer[i]) * UINT64_C(0x100000001b3);
	}
	return hash;
}

/* Who can still write to a file that is sealed against it? */
static void check_writers(struct kernel *kernel, struct inode *inode, unsigned seals)
{
	for (unsigned i = 0; i < KERNEL_HANDLES; i++) {
		struct kernel_handle *handle = &kernel->handles[i];

		if (!handle->open || handle->ino != inode->ino)
			continue;
		require(!handle->backing || (handle->flags & O_ACCMODE) != O_RDWR,
			"the kernel would map a sealed file writable through this handle");
		require(!handle->map || !(seals & F_SEAL_WRITE),
			"a sealed file is mapped writable");
	}
	require(!(seals & F_SEAL_WRITE) || !pin_table_blocking(kernel->fs.pins, &inode->mapping),
		"a sealed file is pinned");
}

static void check_node(struct kernel *kernel, struct kernel_node *node, struct inode *inode)
{
	const unsigned all = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK;
	unsigned seals = sealing_current(&inode->sealing);
	uint64_t size = mapping_size(&inode->mapping);

	require((node->seals & ~seals) == 0, "a seal is gone");
	require(!(node->seals & F_SEAL_SEAL) || seals == node->seals, "a seal came after the last");
	require(!(node->seals & F_SEAL_SHRINK) || size >= node->size, "a file shrank");
	require(!(node->seals & F_SEAL_GROW) || size <= node->size, "a file grew");
	require(!(node->seals & F_SEAL_EXEC) || !((inode->mode ^ node->mode) & 0111),
		"an x bit changed");
	if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		check_writers(kernel, inode, seals);
	if ((node->seals & all) == all)
		require(node->digest == digest(inode), "a sealed file has changed");
	else if ((seals & all) == all)
		node->digest = digest(inode);
	node->seals = seals;
	node->size = size;
	node->mode = inode->mode;
}

void kernel_check_seals(struct kernel *kernel)
{
	kernel_drop_stale(kernel);
	for (unsigned i = 0; i < KERNEL_NODES; i++) {
		struct kernel_node *node = &kernel->nodes[i];
		struct inode *inode = node->lookups ? inode_find(&kernel->fs, node->ino) : NULL;

		require(!node->lookups || inode, "a node that is known is gone");
		if (inode && inode_is_regular(inode))
			check_node(kernel, node, inode);
	}
}
