/* SPDX-License-Identifier: MIT */
/*
 * Sequences of requests. The first byte chooses the plane, each further one an operation, followed
 * by its arguments.
 *
 * Checked besides what sanitizers find: every request is answered once; what was written is there,
 * and reads are as long as they must be; what a seal forbids is refused, and what it promises holds
 * after every operation (kernel_check_seals()); nothing is left at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cachet/ioctl.h>

#include "base/log.h"
#include "fake_fuse.h"
#include "inode/handle.h"
#include "reader.h"

#define OPERATIONS_MAX 120
#define RUNS_OF_A_MOUNT 100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kernel kernel;
static struct reader in;

/*
 * --- arguments ---
 *
 * Each is taken in a statement of its own: in which order a compiler looks at the arguments of a
 * call is its own business, and an input must mean the same to all of them.
 */

static const char *name(void)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f", "", "." };
	static char text[300];
	unsigned which = take(&in, 1);

	if (which % 16 < 8)
		return names[which % 8];
	snprintf(text, sizeof(text), "%0*u", which % 16 == 8 ? (int)(which + 20) : 1, which);
	return text;
}

static struct kernel_node *node(void)
{
	unsigned which = take(&in, 1);

	for (unsigned i = 0; i < KERNEL_NODES; i++) {
		struct kernel_node *node = &kernel.nodes[(which + i) % KERNEL_NODES];

		if (node->lookups)
			return node;
	}
	return kernel_root(&kernel);
}

static struct kernel_handle *handle(void)
{
	unsigned which = take(&in, 1);

	for (unsigned i = 0; i < KERNEL_HANDLES; i++) {
		struct kernel_handle *handle = &kernel.handles[(which + i) % KERNEL_HANDLES];

		if (handle->open)
			return handle;
	}
	return NULL;
}

static struct kernel_node *node_of(const struct kernel_handle *handle)
{
	for (unsigned i = 0; i < KERNEL_NODES; i++)
		if (kernel.nodes[i].lookups && kernel.nodes[i].ino == handle->ino)
			return &kernel.nodes[i];
	return NULL;
}

/* Mostly small, sometimes at a border, rarely anything. */
static int64_t offset(void)
{
	unsigned kind = take(&in, 1);

	switch (kind % 8) {
	case 0:
		return take(&in, 8);
	case 1:
		return (int64_t)(take(&in, 1) << 21) - 1 + kind / 8;
	case 2:
	case 3:
		return take(&in, 1) * PAGE_BYTES;
	default:
		return take(&in, 2);
	}
}

static int open_flags(void)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR };
	unsigned bits = take(&in, 1);

	return modes[bits % 4] | (bits & 4 ? O_TRUNC : 0) | (bits & 8 ? O_APPEND : 0) |
	       (bits & 16 ? O_EXCL : 0);
}

static struct fuse_file_info file_info(const struct kernel_handle *handle)
{
	return (struct fuse_file_info){
		.fh = handle ? handle->fh : 0,
		.flags = handle ? handle->flags : 0,
	};
}

/* --- what must hold of an answer --- */

#define SEALS_WRITE (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)

/**
 * struct before - a file before a request about it
 */
struct before {
	struct inode *inode; /* borrows: the kernel knows it for as long as the request is under way */
	unsigned seals;
	uint64_t size;
};

static struct before before(const struct kernel_node *node)
{
	struct inode *inode = node ? inode_find(&kernel.fs, node->ino) : NULL;

	if (!inode || !inode_is_regular(inode))
		return (struct before){ 0 };
	return (struct before){
		.inode = inode,
		.seals = sealing_current(&inode->sealing),
		.size = mapping_size(&inode->mapping),
	};
}

static void check_written(const struct before *file, int64_t at, size_t length, char byte)
{
	int64_t count = kernel.result;
	char there;

	if (file->seals & SEALS_WRITE)
		require(count == -EPERM, "a sealed file was written to");
	require(count <= (int64_t)length, "more was written than was sent");
	if (file->seals & F_SEAL_GROW)
		require(count < 0 || at + count <= (int64_t)file->size, "a write passed the end");
	for (int64_t i = 0; i < count; i += count > 1 ? count - 1 : 1) {
		require(mapping_read(&file->inode->mapping, &there, 1, at + i) == 1, "a written byte");
		require(there == byte, "another byte than was written");
	}
}

static void check_read(const struct before *file, int64_t at, size_t length)
{
	uint64_t rest = (uint64_t)at < file->size ? file->size - (uint64_t)at : 0;

	require(kernel.result < 0 || (uint64_t)kernel.result == (rest < length ? rest : length),
		"a read is too long or too short");
}

static void check_allocated(const struct before *file, int mode, int64_t at, int64_t length)
{
	if (kernel.result)
		return;
	require(!(file->seals & SEALS_WRITE) ||
			!(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)),
		"a hole in a sealed file");
	require(!(file->seals & F_SEAL_GROW) || mode & FALLOC_FL_PUNCH_HOLE ||
			(uint64_t)(at + length) <= file->size,
		"pages past the end of a file that may not grow");
	require(mode & FALLOC_FL_KEEP_SIZE ||
			mapping_size(&file->inode->mapping) >= (uint64_t)(at + length),
		"an allocation that did not move the end");
}

static void check_copied(const struct before *from, int64_t from_at, const struct before *to,
			 int64_t to_at)
{
	int64_t count = kernel.result;
	char source, copy;

	require(count <= 0 || !(to->seals & SEALS_WRITE), "a copy into a sealed file");
	if (count <= 0 || from->inode == to->inode)
		return;
	for (int64_t i = 0; i < count; i += count > 1 ? count - 1 : 1) {
		require(mapping_read(&from->inode->mapping, &source, 1, from_at + i) == 1 &&
				mapping_read(&to->inode->mapping, &copy, 1, to_at + i) == 1,
			"a copied byte");
		require(source == copy, "another byte than was copied");
	}
}

static void check_set(const struct before *file, int what, int64_t size)
{
	if (kernel.result || !file->inode || !(what & FUSE_SET_ATTR_SIZE))
		return;
	require(mapping_size(&file->inode->mapping) == (uint64_t)size, "another size than was set");
	require(!(file->seals & F_SEAL_SHRINK) || (uint64_t)size >= file->size, "a file was cut");
	require(!(file->seals & F_SEAL_GROW) || (uint64_t)size <= file->size, "a file was extended");
}

static void check_opened(const struct before *file, int flags)
{
	require(kernel.result || !(file->seals & SEALS_WRITE) || (flags & O_ACCMODE) == O_RDONLY,
		"a sealed file was opened for writing");
}

/* --- operations --- */

#define SEND(req, call)                       \
	do {                                  \
		struct fuse_req *req_ = (req);\
		if (!req_)                    \
			return;               \
		struct fuse_req *r = req_;    \
		call;                         \
		kernel_sent(&kernel, req_);   \
	} while (0)

static struct fuse_req *about(struct kernel_node *node, struct kernel_node *other)
{
	return kernel_request(&kernel, node, other, NULL, 0, take(&in, 1) == 255);
}

static void do_names(unsigned operation)
{
	struct kernel_node *dir = node(), *to = node();
	const struct fuse_lowlevel_ops *ops = kernel.ops;
	const char *second;
	char first[300];

	g_strlcpy(first, name(), sizeof(first));
	switch (operation) {
	case 0:
		SEND(about(dir, NULL), ops->lookup(r, dir->ino, first));
		break;
	case 1:
		SEND(about(dir, NULL), ops->mknod(r, dir->ino, first, S_IFREG | take(&in, 2) % 010000, 0));
		break;
	case 2:
		SEND(about(dir, NULL), ops->mkdir(r, dir->ino, first, take(&in, 2) % 010000));
		break;
	case 3:
		SEND(about(dir, NULL), ops->symlink(r, name(), dir->ino, first));
		break;
	case 4:
		SEND(about(to, dir), ops->link(r, to->ino, dir->ino, first));
		break;
	case 5:
		SEND(about(dir, NULL), ops->unlink(r, dir->ino, first));
		break;
	case 6:
		SEND(about(dir, NULL), ops->rmdir(r, dir->ino, first));
		break;
	default:
		SEND(about(dir, to), {
			second = name();
			ops->rename(r, dir->ino, first, to->ino, second, take(&in, 1) % 4);
		});
	}
}

static void do_forget(void)
{
	struct kernel_node *gone = node();
	uint64_t lookups = gone->lookups;

	if (gone->ino == FILESYSTEM_ROOT_INO || gone->used)
		return;
	SEND(about(NULL, NULL), {
		gone->lookups = 0;
		kernel.ops->forget(r, gone->ino, lookups);
	});
}

static void do_attributes(unsigned operation)
{
	struct kernel_node *of = node();
	struct stat st = { .st_mode = take(&in, 2) };
	struct fuse_file_info fi = { 0 };
	struct before file = before(of);
	bool plus;
	int what;

	st.st_uid = take(&in, 1);
	st.st_gid = take(&in, 1);
	st.st_size = offset();

	switch (operation) {
	case 0:
		SEND(about(of, NULL), kernel.ops->getattr(r, of->ino, NULL));
		break;
	case 1:
		what = take(&in, 2);
		SEND(about(of, NULL), kernel.ops->setattr(r, of->ino, &st, what, NULL));
		check_set(&file, what, st.st_size);
		break;
	case 2:
		SEND(about(of, NULL), kernel.ops->readlink(r, of->ino));
		break;
	case 3:
		SEND(about(of, NULL), kernel.ops->statfs(r, of->ino));
		break;
	default:
		SEND(about(of, NULL), {
			plus = !(take(&in, 1) & 1);
			what = 40 + take(&in, 2) % 1500;
			(plus ? kernel.ops->readdirplus : kernel.ops->readdir)(r, of->ino, what,
									       take(&in, 1), &fi);
		});
	}
}

static void do_open(unsigned operation)
{
	struct kernel_node *of = node();
	int flags = open_flags();
	struct fuse_file_info fi = { .flags = flags };
	bool lost = take(&in, 1) == 255;
	struct fuse_req *req = kernel_request(&kernel, of, NULL, NULL, flags, lost);

	if (operation == 0) {
		struct before file = before(of);

		SEND(req, kernel.ops->open(r, of->ino, &fi));
		check_opened(&file, flags);
	} else if (operation == 1)
		SEND(req, {
			const char *fresh = name();

			kernel.ops->create(r, of->ino, fresh, take(&in, 2) % 010000, &fi);
		});
	else
		SEND(req, kernel.ops->tmpfile(r, of->ino, take(&in, 2) % 010000, &fi));
}

static void do_release(void)
{
	struct kernel_handle *closed = handle();
	struct kernel_node *of = closed ? node_of(closed) : NULL;
	struct fuse_file_info fi = file_info(closed);

	if (!closed || closed->used)
		return;
	if (closed->map)
		munmap(closed->map, PAGE_BYTES);
	SEND(kernel_request(&kernel, of, NULL, NULL, 0, false), {
		*closed = (struct kernel_handle){ .open = false };
		kernel.ops->release(r, of->ino, &fi);
		of->used--;
	});
}

static void do_data(unsigned operation)
{
	static char bytes[70000];
	struct kernel_handle *through = handle(), *to = handle();
	struct kernel_node *of = through ? node_of(through) : NULL;
	struct fuse_file_info fi = file_info(through), fi_to = file_info(to);
	int64_t at = offset();
	size_t length = take(&in, 2);
	struct fuse_bufvec data = FUSE_BUFVEC_INIT(length);
	struct before file = before(of), target = before(to ? node_of(to) : NULL);
	struct fuse_req *req;
	int64_t more;
	int mode;

	if (!through)
		return;
	req = kernel_request(&kernel, of, operation == 4 ? node_of(to) : NULL, through, 0, false);
	if (operation == 0 && !through->backing && at >= 0) {
		SEND(req, kernel.ops->read(r, of->ino, length, at, &fi));
		check_read(&file, at, length);
	} else if (operation == 1 && !through->backing && at >= 0 && (through->flags & O_ACCMODE)) {
		memset(bytes, take(&in, 1), sizeof(bytes));
		data.buf[0].mem = bytes;
		SEND(req, kernel.ops->write_buf(r, of->ino, &data, at, &fi));
		if (length && !(through->flags & O_APPEND))
			check_written(&file, at, length, bytes[0]);
	} else if (operation == 2) {
		mode = take(&in, 1);
		more = offset();
		SEND(req, kernel.ops->fallocate(r, of->ino, mode, at, more, &fi));
		check_allocated(&file, mode, at, more);
	} else if (operation == 3) {
		SEND(req, kernel.ops->lseek(r, of->ino, at, take(&in, 1) % 6, &fi));
	} else if (operation == 4) {
		more = offset();
		SEND(req, kernel.ops->copy_file_range(r, of->ino, at, &fi, to->ino, more, &fi_to,
						      length, 0));
		check_copied(&file, at, &target, more);
	} else if (req) {
		kernel.sent--; /* the kernel asks no such thing */
		SEND(req, fuse_reply_err(r, EINVAL));
	}
}

/* What a client does by itself, through passthrough. */
static void do_memory(void)
{
	struct kernel_handle *through = handle();
	char byte = take(&in, 1);
	int fd;

	if (!through || !through->backing)
		return;
	fd = kernel.backings[through->backing];
	if (through->map) {
		munmap(through->map, PAGE_BYTES);
		through->map = NULL;
	} else if ((through->flags & O_ACCMODE) && (byte & 1)) {
		if (pwrite(fd, &byte, 1, take(&in, 3) % (8 << 20)) < 0 && errno != EPERM)
			abort();
	} else if ((through->flags & O_ACCMODE) == O_RDWR) {
		void *map = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		through->map = map == MAP_FAILED ? NULL : map;
	}
}

static void do_xattr(unsigned operation)
{
	static const char *const names[] = {
		"user.cachet.seals", "user.cachet.seals", "user.cachet.pins", "user.cachet.holders",
		"user.a", "trusted.b", "system.posix_acl_access", "system.posix_acl_default",
	};
	struct kernel_node *of = node();
	const char *attribute = names[take(&in, 1) % 8];
	char value[256];
	size_t size = take_bytes(&in, value, take(&in, 1));

	if (operation == 0)
		SEND(about(of, NULL), kernel.ops->setxattr(r, of->ino, attribute, value, size,
							   take(&in, 1) % 3));
	else if (operation == 1)
		SEND(about(of, NULL), kernel.ops->getxattr(r, of->ino, attribute, take(&in, 2)));
	else if (operation == 2)
		SEND(about(of, NULL), kernel.ops->listxattr(r, of->ino, take(&in, 1)));
	else
		SEND(about(of, NULL), kernel.ops->removexattr(r, of->ino, attribute));
}

static void send_ioctl(struct kernel_handle *through, unsigned command, const void *argument,
		       size_t size)
{
	struct kernel_node *of = through ? node_of(through) : kernel_root(&kernel);
	struct fuse_file_info fi = file_info(through);

	SEND(kernel_request(&kernel, of, NULL, through, 0, take(&in, 1) == 255),
	     kernel.ops->ioctl(r, of->ino, command, NULL, &fi, 0, argument, size, size));
}

static void do_seal(void)
{
	static const unsigned flags[] = {
		0, 0, CACHET_SEAL_NOWAIT, CACHET_SEAL_POPULATE, CACHET_SEAL_PREPARE,
		CACHET_SEAL_COMMIT, CACHET_SEAL_ABORT, CACHET_SEAL_FORCE,
	};
	struct kernel_handle *through = handle(), *handed = handle();
	struct cachet_seals args = { .size = sizeof(args), .seals = take(&in, 1) };

	args.flags = flags[take(&in, 1) % 8];
	args.timeout_ms = (int)(take(&in, 1) % 16) - 3;
	if (args.flags & (CACHET_SEAL_PREPARE | CACHET_SEAL_COMMIT | CACHET_SEAL_ABORT))
		args.handle = handed ? handed->fh : 0;
	if (through)
		send_ioctl(through, CACHET_IOC_ADD_SEALS, &args, sizeof(args));
}

static void do_pin(unsigned operation)
{
	struct kernel_handle *through = handle();
	struct cachet_pin pin = { .size = sizeof(pin), .flags = take(&in, 1) % 3, .label = "fuzz" };
	struct cachet_unpin unpin = { .size = sizeof(unpin) };

	pin.offset = offset();
	pin.length = take(&in, 2);
	pin.ttl_ms = take(&in, 1) % 8;
	unpin.id = kernel.pins + take(&in, 1) % 8;
	if (!through)
		return;
	if (operation)
		send_ioctl(through, CACHET_IOC_PIN, &pin, sizeof(pin));
	else
		send_ioctl(through, CACHET_IOC_UNPIN, &unpin, sizeof(unpin));
}

static void do_ioctl(void)
{
	unsigned command = take(&in, 1) % 10 | CACHET_IOC_MAGIC << 8 | 3u << 30;
	char argument[256];
	size_t size = take_bytes(&in, argument, take(&in, 1));
	/* Exactly as long as the kernel's, so that a byte too much is found. */
	char *exact = g_memdup2(argument, size);

	send_ioctl(take(&in, 1) & 1 ? handle() : NULL, command, exact, size);
	g_free(exact);
}

static void do_list(void)
{
	struct kernel_handle *through = handle();
	union {
		struct cachet_pin_list pins;
		struct cachet_holder_list holders;
		struct cachet_stat stat;
	} args = { .pins.cursor = take(&in, 1) };

	if (!through)
		return;
	args.pins.size = sizeof(args.pins);
	send_ioctl(through, CACHET_IOC_PIN_LIST, &args, sizeof(args.pins));
	args.pins.size = sizeof(args.stat);
	send_ioctl(through, CACHET_IOC_STAT, &args, sizeof(args.stat));
}

static void do_caller(void)
{
	unsigned uid;

	kernel_interrupt(&kernel, take(&in, 1));
	uid = take(&in, 1) % 2;
	kernel_caller(uid, take(&in, 1) % 2);
}

static void operation(unsigned which)
{
	switch (which % 32) {
	case 0 ... 7:
		do_names(which % 32);
		break;
	case 8:
		do_forget();
		break;
	case 9 ... 13:
		do_attributes(which % 32 - 9);
		break;
	case 14 ... 16:
		do_open(which % 32 - 14);
		break;
	case 17:
		do_release();
		break;
	case 18 ... 22:
		do_data(which % 32 - 18);
		break;
	case 23:
		do_memory();
		break;
	case 24:
		do_xattr(take(&in, 1) % 4);
		break;
	case 25 ... 26:
		do_seal();
		break;
	case 27 ... 28:
		do_pin(which % 32 - 27);
		break;
	case 29:
		do_ioctl();
		break;
	case 30:
		do_list();
		break;
	default:
		do_caller();
	}
}

/* To start and end a mount takes long, so the next sequence takes it over, emptied. */
static void mount_for(unsigned mode)
{
	enum cachet_plane plane = mode & 1 ? CACHET_PLANE_KERNEL : CACHET_PLANE_DAEMON;
	bool passthrough = mode & 3;

	if (kernel.ops && kernel.runs < RUNS_OF_A_MOUNT && kernel.fs.plane == plane &&
	    filesystem_passthrough(&kernel.fs) == passthrough)
		return;
	if (kernel.ops)
		kernel_stop(&kernel);
	kernel_start(&kernel, plane, passthrough);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned mode;

	in = (struct reader){ data, size };
	mode = take(&in, 1);
	signal(SIGXFSZ, SIG_IGN);
	mount_for(mode);
	for (unsigned i = 0; i < OPERATIONS_MAX && in.left; i++) {
		operation(take(&in, 1));
		kernel_check_seals(&kernel);
	}
	kernel_reset(&kernel);
	return 0;
}
