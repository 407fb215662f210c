/* SPDX-License-Identifier: MIT */
/* Requests, and what the daemon calls: libfuse, /dev/fuse, a machine. */
#include "fake_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cleanup.h"

#define MACHINE_BYTES (32u << 20)

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

struct kernel *kernel_current;
static pthread_mutex_t interrupt_lock = PTHREAD_MUTEX_INITIALIZER;
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
			.open = true,
			.fh = fi->fh,
			.ino = ino,
			.flags = flags,
			.backing = fi->backing_id,
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
	unsigned nodes = 0, handles = 0, requests = 0, open;

	for (unsigned i = 0; i < KERNEL_NODES; i++)
		nodes += !kernel->nodes[i].lookups;
	for (unsigned i = 0; i < KERNEL_HANDLES; i++)
		handles += !kernel->handles[i].open;
	for (unsigned i = 0; i < KERNEL_REQUESTS; i++)
		requests += !kernel->requests[i];
	open = KERNEL_REQUESTS - requests;
	return requests && nodes > open && handles > open;
}

void kernel_caller(uid_t uid, gid_t gid)
{
	caller = (struct fuse_ctx){ .uid = uid, .gid = gid, .pid = getpid(), .umask = 022 };
}

struct fuse_req *kernel_request(struct kernel *kernel, struct kernel_node *node,
				struct kernel_node *other, struct kernel_handle *handle,
				int flags, bool lost)
{
	scoped_mutex(&kernel->lock);
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
	scoped_mutex(&kernel->lock);

	kernel->result = req && req->done ? req->result : KERNEL_WAITS;
	if (req)
		req->returned = true;
	for (unsigned i = 0; i < KERNEL_REQUESTS; i++) {
		struct fuse_req *waiting = kernel->requests[i];

		if (waiting && waiting->done && waiting->returned) {
			request_end(waiting);
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

	pthread_mutex_lock(&kernel->lock);
	req = kernel->requests[index % KERNEL_REQUESTS];
	if (req && !req->done) {
		function = req->interrupt;
		data = req->interrupt_data;
	}
	pthread_mutex_unlock(&kernel->lock);
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
	scoped_mutex(&req->kernel->lock);

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
	pthread_mutex_lock(&req->kernel->lock);
	req->interrupt = function;
	req->interrupt_data = data;
	pthread_mutex_unlock(&req->kernel->lock);
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
	scoped_mutex(&req->kernel->lock);

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
	scoped_mutex(&req->kernel->lock);
	int result = answer_entry(req, entry);

	return result ? result : answer_open(req, fi);
}

int fuse_reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
	scoped_mutex(&req->kernel->lock);
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
		scoped_mutex(&req->kernel->lock);
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
	struct kernel *kernel = kernel_current;

	scoped_mutex(&kernel->lock);
	for (int id = 1; id < KERNEL_BACKINGS; id++) {
		if (kernel->backings[id] < 0) {
			kernel->backings[id] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
			require(kernel->backings[id] >= 0, "a backing file that is none");
			return id;
		}
	}
	errno = EMFILE;
	return -1;
}

/* The kernel keeps the file for as long as handles use it; here a handle's own duplicate does. */
static int device_backing_close(uint32_t id)
{
	struct kernel *kernel = kernel_current;

	scoped_mutex(&kernel->lock);
	require(id && id < KERNEL_BACKINGS && kernel->backings[id] >= 0,
		"a backing id closed twice");
	for (unsigned i = 0; i < KERNEL_HANDLES; i++) {
		const struct kernel_handle *handle = &kernel->handles[i];

		require(!handle->open || handle->backing != (int)id || !handle->fh,
			"a backing id closed under a handle");
	}
	close(kernel->backings[id]);
	kernel->backings[id] = -1;
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
	if (fd != KERNEL_FUSE_FD)
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
