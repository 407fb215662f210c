/* SPDX-License-Identifier: MIT */
#include "fake_fuse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "inode/directory.h"
#include "inode/handle.h"
#include "session/ops.h"

/* Stands for /dev/fuse; no such descriptor exists. */
#define FUSE_FD 1000000

#define MACHINE_BYTES (32u << 20)

/* Of a sealed file, what is looked at. */
#define DIGEST_BYTES ((uint64_t)256 << 10)

struct fuse_req {
	struct kernel *kernel;
	struct fuse_ctx ctx;
	struct kernel_node *node, *other;
	struct kernel_handle *handle;
	int flags;
	bool lost;
	bool returned;
	bool done;
	bool opened;
	uint64_t entry; /* number of the node that the answer brought */
	int64_t result;
	struct fuse_file_info file;
	fuse_interrupt_func_t interrupt;
	void *interrupt_data;
};

/* Answers come from threads of the daemon, too. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t interrupt_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kernel *current;
static struct fuse_ctx caller;

static void fail(const char *what)
{
	fprintf(stderr, "the daemon is wrong: %s\n", what);
	abort();
}

void require(bool holds, const char *what)
{
	if (!holds)
		fail(what);
}

/* --- nodes and handles --- */

static struct kernel_node *node_find(struct kernel *kernel, uint64_t ino)
{
	for (unsigned i = 0; i < KERNEL_NODES; i++)
		if (kernel->nodes[i].lookups && kernel->nodes[i].ino == ino)
			return &kernel->nodes[i];
	return NULL;
}

static struct kernel_node *node_looked_up(struct kernel *kernel, uint64_t ino)
{
	struct kernel_node *node = node_find(kernel, ino);

	for (unsigned i = 0; !node && i < KERNEL_NODES; i++) {
		if (!kernel->nodes[i].lookups) {
			node = &kernel->nodes[i];
			*node = (struct kernel_node){ .ino = ino };
		}
	}
	if (node && node->ino != FILESYSTEM_ROOT_INO)
		node->lookups++;
	return node;
}

static void handle_opened(struct kernel *kernel, uint64_t ino, int flags,
			  const struct fuse_file_info *fi)
{
	require(fi->backing_id >= 0 && fi->backing_id < KERNEL_BACKINGS, "backing id");
	require(!fi->backing_id || kernel->backings[fi->backing_id] >= 0, "backing id in use");
	for (unsigned i = 0; i < KERNEL_HANDLES; i++) {
		struct kernel_handle *handle = &kernel->handles[i];

		if (handle->open)
			continue;
		*handle = (struct kernel_handle){
			.open = true, .fh = fi->fh, .ino = ino, .flags = flags, .backing = fi->backing_id,
		};
		node_find(kernel, ino)->used++;
		return;
	}
	fail("more handles than were opened");
}

struct kernel_node *kernel_root(struct kernel *kernel)
{
	return &kernel->nodes[0];
}

/* --- requests --- */

static bool room_for_answers(struct kernel *kernel)
{
	unsigned nodes = 0, handles = 0, requests = 0;

	for (unsigned i = 0; i < KERNEL_NODES; i++)
		nodes += !kernel->nodes[i].lookups;
	for (unsigned i = 0; i < KERNEL_HANDLES; i++)
		handles += !kernel->handles[i].open;
	for (unsigned i = 0; i < KERNEL_REQUESTS; i++)
		requests += !kernel->requests[i];
	return requests && nodes > KERNEL_REQUESTS - requests && handles > KERNEL_REQUESTS - requests;
}

void kernel_caller(uid_t uid, gid_t gid)
{
	caller = (struct fuse_ctx){ .uid = uid, .gid = gid, .pid = getpid(), .umask = 022 };
}

struct fuse_req *kernel_request(struct kernel *kernel, struct kernel_node *node,
				struct kernel_node *other, struct kernel_handle *handle,
				int flags, bool lost)
{
	scoped_mutex(&lock);
	struct fuse_req *req;

	if (!room_for_answers(kernel))
		return NULL;
	kernel->sent++;
	req = calloc(1, sizeof(*req));
	*req = (struct fuse_req){
		.kernel = kernel, .ctx = caller, .node = node, .other = other, .handle = handle,
		.flags = flags, .lost = lost,
	};
	if (node)
		node->used++;
	if (other)
		other->used++;
	if (handle)
		handle->used++;
	for (unsigned i = 0; i < KERNEL_REQUESTS; i++) {
		if (!kernel->requests[i]) {
			kernel->requests[i] = req;
			break;
		}
	}
	return req;
}

/* What an answer brought becomes known here, in the thread that sends requests. */
static void request_end(struct fuse_req *req)
{
	if (req->entry)
		require(node_looked_up(req->kernel, req->entry), "room for a node");
	if (req->opened)
		handle_opened(req->kernel, req->entry ? req->entry : req->node->ino, req->flags,
			      &req->file);
	if (req->node)
		req->node->used--;
	if (req->other)
		req->other->used--;
	if (req->handle)
		req->handle->used--;
	free(req);
}

void kernel_sent(struct kernel *kernel, struct fuse_req *req)
{
	scoped_mutex(&lock);

	kernel->result = req && req->done ? req->result : KERNEL_WAITS;
	if (req)
		req->returned = true;
	for (unsigned i = 0; i < KERNEL_REQUESTS; i++) {
		if (kernel->requests[i] && kernel->requests[i]->done && kernel->requests[i]->returned) {
			request_end(kernel->requests[i]);
			kernel->requests[i] = NULL;
		}
	}
}

/*
 * Not under the lock of the answers: the answer to an interrupted request may come at once. As in
 * libfuse, fuse_req_interrupt_func() waits for it, so that a request is not freed under it.
 */
void kernel_interrupt(struct kernel *kernel, unsigned index)
{
	scoped_mutex(&interrupt_lock);
	struct fuse_req *req;
	fuse_interrupt_func_t function = NULL;
	void *data = NULL;

	pthread_mutex_lock(&lock);
	req = kernel->requests[index % KERNEL_REQUESTS];
	if (req && !req->done) {
		function = req->interrupt;
		data = req->interrupt_data;
	}
	pthread_mutex_unlock(&lock);
	if (function)
		function(req, data);
}

/* Return: 0, or what libfuse says when the client does not wait any more. */
static int answer(struct fuse_req *req, int64_t result)
{
	require(!req->done, "a request was answered twice");
	req->done = true;
	req->result = result;
	return req->lost ? -ENOENT : 0;
}

static int answer_alone(struct fuse_req *req, int64_t result)
{
	scoped_mutex(&lock);

	return answer(req, result);
}

/* --- what the daemon calls --- */

void *fuse_req_userdata(fuse_req_t req)
{
	return &req->kernel->fs;
}

const struct fuse_ctx *fuse_req_ctx(fuse_req_t req)
{
	return &req->ctx;
}

int fuse_req_getgroups(fuse_req_t req, int size, gid_t list[])
{
	(void)req;
	if (size)
		list[0] = 100;
	return 1;
}

void fuse_req_interrupt_func(fuse_req_t req, fuse_interrupt_func_t function, void *data)
{
	if (!function)
		pthread_mutex_lock(&interrupt_lock);
	pthread_mutex_lock(&lock);
	req->interrupt = function;
	req->interrupt_data = data;
	pthread_mutex_unlock(&lock);
	if (!function)
		pthread_mutex_unlock(&interrupt_lock);
}

int fuse_reply_err(fuse_req_t req, int error)
{
	require(error >= 0 && error < 4096, "an error that is none");
	return answer_alone(req, -error);
}

void fuse_reply_none(fuse_req_t req)
{
	answer_alone(req, 0);
}

static int answer_entry(struct fuse_req *req, const struct fuse_entry_param *entry)
{
	int result = answer(req, 0);

	if (result == 0 && entry->ino) {
		require(entry->attr.st_ino == entry->ino, "numbers of a node");
		req->entry = entry->ino;
	}
	return result;
}

int fuse_reply_entry(fuse_req_t req, const struct fuse_entry_param *entry)
{
	scoped_mutex(&lock);

	return answer_entry(req, entry);
}

static int answer_open(struct fuse_req *req, const struct fuse_file_info *fi)
{
	req->opened = true;
	req->file = *fi;
	return 0;
}

int fuse_reply_create(fuse_req_t req, const struct fuse_entry_param *entry,
		      const struct fuse_file_info *fi)
{
	scoped_mutex(&lock);
	int result = answer_entry(req, entry);

	return result ? result : answer_open(req, fi);
}

int fuse_reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
	scoped_mutex(&lock);
	int result = answer(req, 0);

	return result ? result : answer_open(req, fi);
}

int fuse_reply_attr(fuse_req_t req, const struct stat *st, double timeout)
{
	require(timeout >= 0 && st->st_size >= 0, "attributes");
	return answer_alone(req, 0);
}

int fuse_reply_readlink(fuse_req_t req, const char *target)
{
	require(strlen(target) < 4096, "target of a link");
	return answer_alone(req, 0);
}

int fuse_reply_write(fuse_req_t req, size_t count)
{
	return answer_alone(req, (int64_t)count);
}

/* Every byte is read, so that memory that is not ours is found. */
static volatile unsigned char sink;

static void look_at(const void *data, size_t size)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < size; i++)
		sink ^= bytes[i];
}

int fuse_reply_buf(fuse_req_t req, const char *data, size_t size)
{
	look_at(data, size);
	return answer_alone(req, (int64_t)size);
}

int fuse_reply_iov(fuse_req_t req, const struct iovec *pieces, int count)
{
	int64_t size = 0;

	for (int i = 0; i < count; i++) {
		look_at(pieces[i].iov_base, pieces[i].iov_len);
		size += (int64_t)pieces[i].iov_len;
	}
	return answer_alone(req, size);
}

int fuse_reply_data(fuse_req_t req, struct fuse_bufvec *data, enum fuse_buf_copy_flags flags)
{
	char buffer[4096];

	(void)flags;
	require(data->count == 1 && (data->buf[0].flags & FUSE_BUF_IS_FD), "data of a reply");
	require(pread(data->buf[0].fd, buffer, sizeof(buffer), data->buf[0].pos) >= 0,
		"a descriptor");
	return answer_alone(req, (int64_t)data->buf[0].size);
}

int fuse_reply_statfs(fuse_req_t req, const struct statvfs *st)
{
	require(st->f_bfree <= st->f_blocks && st->f_ffree <= st->f_files, "figures of the mount");
	return answer_alone(req, 0);
}

int fuse_reply_xattr(fuse_req_t req, size_t count)
{
	require(count <= 65536, "size of an attribute");
	return answer_alone(req, (int64_t)count);
}

int fuse_reply_lseek(fuse_req_t req, off_t offset)
{
	require(offset >= 0, "an offset");
	return answer_alone(req, offset);
}

int fuse_reply_ioctl(fuse_req_t req, int result, const void *data, size_t size)
{
	look_at(data, size);
	return answer_alone(req, result);
}

size_t fuse_add_direntry(fuse_req_t req, char *buffer, size_t size, const char *name,
			 const struct stat *st, off_t offset)
{
	size_t bytes = (24 + strlen(name) + 7) & ~(size_t)7;

	(void)req;
	(void)st;
	(void)offset;
	if (bytes <= size)
		memset(buffer, 1, bytes);
	return bytes;
}

size_t fuse_add_direntry_plus(fuse_req_t req, char *buffer, size_t size, const char *name,
			      const struct fuse_entry_param *entry, off_t offset)
{
	size_t bytes = (152 + strlen(name) + 7) & ~(size_t)7;

	(void)offset;
	if (bytes > size)
		return bytes;
	memset(buffer, 1, bytes);
	if (entry->ino) {
		scoped_mutex(&lock);
		require(node_looked_up(req->kernel, entry->ino), "room for a node");
	}
	return bytes;
}

size_t fuse_buf_size(const struct fuse_bufvec *data)
{
	return data->buf[0].size;
}

ssize_t fuse_buf_copy(struct fuse_bufvec *to, struct fuse_bufvec *from,
		      enum fuse_buf_copy_flags flags)
{
	size_t size = from->buf[0].size < to->buf[0].size ? from->buf[0].size : to->buf[0].size;
	ssize_t copied;

	(void)flags;
	copied = pwrite(to->buf[0].fd, from->buf[0].mem, size, to->buf[0].pos);
	return copied < 0 ? -errno : copied;
}

bool fuse_set_feature_flag(struct fuse_conn_info *conn, uint64_t flag)
{
	(void)conn;
	(void)flag;
	return true;
}

void fuse_unset_feature_flag(struct fuse_conn_info *conn, uint64_t flag)
{
	(void)conn;
	(void)flag;
}

bool fuse_get_feature_flag(struct fuse_conn_info *conn, uint64_t flag)
{
	(void)conn;
	(void)flag;
	return true;
}

/* --- /dev/fuse --- */

#define BACKING_OPEN _IOW(229, 1, struct { int32_t fd; uint32_t flags; uint64_t padding; })
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

static int device_backing_open(int fd)
{
	scoped_mutex(&lock);

	for (int id = 1; id < KERNEL_BACKINGS; id++) {
		if (current->backings[id] < 0) {
			current->backings[id] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
			require(current->backings[id] >= 0, "a backing file that is none");
			return id;
		}
	}
	errno = EMFILE;
	return -1;
}

/* The kernel keeps the file for as long as handles use it; so does a handle's own duplicate here. */
static int device_backing_close(uint32_t id)
{
	scoped_mutex(&lock);

	require(id && id < KERNEL_BACKINGS && current->backings[id] >= 0, "a backing id closed twice");
	for (unsigned i = 0; i < KERNEL_HANDLES; i++)
		require(!current->handles[i].open || current->handles[i].backing != (int)id ||
				!current->handles[i].fh,
			"a backing id closed under a handle");
	close(current->backings[id]);
	current->backings[id] = -1;
	return 0;
}

int ioctl(int fd, unsigned long request, ...);

int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	void *argument;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (fd != FUSE_FD)
		return syscall(SYS_ioctl, fd, request, argument);
	if (request == BACKING_OPEN)
		return device_backing_open(*(int32_t *)argument);
	require(request == BACKING_CLOSE, "an ioctl that /dev/fuse does not have");
	return device_backing_close(*(uint32_t *)argument);
}

/*
 * liburcu's thread sleeps 10 ms before each grace period, and what a sequence leaves is counted
 * after one: a sleep that is shorter makes some sequences ten times as fast.
 */
int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	const struct timespec moment = { .tv_nsec = 100000 };

	if (count)
		return syscall(SYS_poll, fds, count, timeout_ms);
	nanosleep(&moment, NULL);
	return 0;
}

/* A small machine: what an io=kernel file may allocate is limited by nothing else. */
int sysinfo(struct sysinfo *info)
{
	*info = (struct sysinfo){ .totalram = MACHINE_BYTES, .mem_unit = 1 };
	return 0;
}

/* --- the mount --- */

/* The notifier's part: it tells the daemon later, from a thread without locks. */
static void invalidate(struct filesystem *fs, uint64_t ino, bool contents)
{
	scoped_mutex(&lock);

	(void)fs;
	if (contents && current->nr_stale < KERNEL_NODES)
		current->stale[current->nr_stale++] = ino;
}

static void kernel_drop_stale(struct kernel *kernel)
{
	for (;;) {
		uint64_t ino;

		pthread_mutex_lock(&lock);
		ino = kernel->nr_stale ? kernel->stale[--kernel->nr_stale] : 0;
		pthread_mutex_unlock(&lock);
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
 * GLib does not wait until the threads of a pool are really gone, and LeakSanitizer takes what one of
 * them is about to free for leaked.
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
	kernel->other_threads = threads_of_process();
	for (unsigned i = 0; i < KERNEL_BACKINGS; i++)
		kernel->backings[i] = -1;
	current = kernel;
	kernel->ops = session_operations();
	require(filesystem_start(&kernel->fs, &config) == 0, "start");
	kernel->fs.invalidate = invalidate;
	kernel->fs.fuse_fd = FUSE_FD;
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
			require(directory_remove(dir, name, is_dir) == 0, "a name cannot be removed");
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
		require(!handle->map || !(seals & F_SEAL_WRITE), "a sealed file is mapped writable");
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
