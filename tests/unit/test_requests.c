/* SPDX-License-Identifier: MIT */
/*
 * Requests that a kernel does not send, or only when two clients meet: about inodes that are gone,
 * of the wrong kind, with arguments that mean nothing. Each is refused with the right error and
 * changes nothing. The other side of libfuse is that of the fuzz targets.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/falloc.h>
#include <stdio.h> /* RENAME_* */
#include <sys/xattr.h>

#include <cachet/ioctl.h>

#include "../fuzz/fake_fuse.h"
#include "inode/handle.h"

#define GONE 4711

static struct kernel kernel;

/* Send a request. Value: what it was answered. */
#define SENT(call)                                                                      \
	({                                                                              \
		struct fuse_req *r = kernel_request(&kernel, NULL, NULL, NULL, 0, false); \
											\
		g_assert_nonnull(r);                                                    \
		kernel.ops->call;                                                       \
		kernel_sent(&kernel, r);                                                \
		kernel.result;                                                          \
	})

#define REFUSED(error, call) g_assert_cmpint(SENT(call), ==, -(error))

/* Makes a node and returns its number; nodes are known in the order in which they were made. */
static fuse_ino_t make(const char *name, mode_t mode)
{
	unsigned next = 0;

	while (kernel.nodes[next].lookups)
		next++;
	g_assert_cmpint(SENT(mknod(r, FUSE_ROOT_ID, name, mode, 0)), ==, 0);
	return kernel.nodes[next].ino;
}

static fuse_ino_t make_dir(const char *name)
{
	unsigned next = 0;

	while (kernel.nodes[next].lookups)
		next++;
	g_assert_cmpint(SENT(mkdir(r, FUSE_ROOT_ID, name, 0755)), ==, 0);
	return kernel.nodes[next].ino;
}

static struct mapping *contents(fuse_ino_t ino)
{
	return &inode_find(&kernel.fs, ino)->mapping;
}

static void test_gone(void)
{
	struct fuse_bufvec data = FUSE_BUFVEC_INIT(1);
	struct fuse_file_info fi = { 0 };
	struct stat st = { 0 };
	struct cachet_seals seals = { .size = sizeof(seals) };
	fuse_ino_t file, dir = FUSE_ROOT_ID;

	kernel_start(&kernel, CACHET_PLANE_DAEMON, true);
	file = make("file", S_IFREG | 0644);
	data.buf[0].mem = (char[]){ "x" };
	REFUSED(ESTALE, lookup(r, GONE, "name"));
	REFUSED(ESTALE, getattr(r, GONE, NULL));
	REFUSED(ESTALE, setattr(r, GONE, &st, FUSE_SET_ATTR_MODE, NULL));
	REFUSED(ESTALE, readlink(r, GONE));
	REFUSED(ESTALE, mknod(r, GONE, "name", S_IFREG, 0));
	REFUSED(ESTALE, mkdir(r, GONE, "name", 0));
	REFUSED(ESTALE, symlink(r, "target", GONE, "name"));
	REFUSED(ESTALE, link(r, GONE, dir, "name"));
	REFUSED(ESTALE, link(r, file, GONE, "name"));
	REFUSED(ESTALE, unlink(r, GONE, "name"));
	REFUSED(ESTALE, rmdir(r, GONE, "name"));
	REFUSED(ESTALE, rename(r, GONE, "file", dir, "name", 0));
	REFUSED(ESTALE, rename(r, dir, "file", GONE, "name", 0));
	REFUSED(ESTALE, open(r, GONE, &fi));
	REFUSED(ESTALE, create(r, GONE, "name", 0600, &fi));
	REFUSED(ESTALE, tmpfile(r, GONE, 0600, &fi));
	REFUSED(ESTALE, read(r, GONE, 1, 0, &fi));
	REFUSED(ESTALE, write_buf(r, GONE, &data, 0, &fi));
	REFUSED(ESTALE, fallocate(r, GONE, 0, 0, 1, &fi));
	REFUSED(ESTALE, lseek(r, GONE, 0, SEEK_DATA, &fi));
	REFUSED(ESTALE, copy_file_range(r, GONE, 0, &fi, file, 0, &fi, 1, 0));
	REFUSED(ESTALE, copy_file_range(r, file, 0, &fi, GONE, 0, &fi, 1, 0));
	REFUSED(ESTALE, readdir(r, GONE, 4096, 0, &fi));
	REFUSED(ESTALE, readdirplus(r, GONE, 4096, 0, &fi));
	REFUSED(ESTALE, setxattr(r, GONE, "user.a", "b", 1, 0));
	REFUSED(ESTALE, getxattr(r, GONE, "user.a", 1));
	REFUSED(ESTALE, listxattr(r, GONE, 1));
	REFUSED(ESTALE, removexattr(r, GONE, "user.a"));
	REFUSED(ESTALE, ioctl(r, GONE, CACHET_IOC_GET_SEALS, NULL, &fi, 0, &seals, sizeof(seals),
			      sizeof(seals)));
	kernel_reset(&kernel);
	kernel_stop(&kernel);
}

static void test_kinds(void)
{
	struct fuse_bufvec data = FUSE_BUFVEC_INIT(1);
	struct fuse_file_info fi = { 0 };
	fuse_ino_t file, dir;

	kernel_start(&kernel, CACHET_PLANE_DAEMON, true);
	file = make("file", S_IFREG | 0644);
	dir = make_dir("dir");
	data.buf[0].mem = (char[]){ "x" };
	REFUSED(EINVAL, readlink(r, file));
	REFUSED(EINVAL, open(r, dir, &fi));
	REFUSED(EINVAL, read(r, dir, 1, 0, &fi));
	REFUSED(EINVAL, write_buf(r, dir, &data, 0, &fi));
	REFUSED(EINVAL, fallocate(r, dir, 0, 0, 1, &fi));
	REFUSED(EINVAL, lseek(r, dir, 0, SEEK_HOLE, &fi));
	REFUSED(EINVAL, copy_file_range(r, dir, 0, &fi, file, 0, &fi, 1, 0));
	REFUSED(ENOTDIR, readdir(r, file, 4096, 0, &fi));
	REFUSED(ENOTDIR, readdirplus(r, file, 4096, 0, &fi));
	REFUSED(EPERM, link(r, dir, FUSE_ROOT_ID, "name"));
	kernel_reset(&kernel);
	kernel_stop(&kernel);
}

static void test_arguments(void)
{
	struct fuse_file_info fi = { 0 };
	fuse_ino_t file, dir = FUSE_ROOT_ID;
	char target[4097], name[258];
	struct mapping *mapping;
	char byte;

	kernel_start(&kernel, CACHET_PLANE_DAEMON, true);
	file = make("file", S_IFREG | 0644);
	mapping = contents(file);
	g_assert_cmpint(mapping_write(mapping, "contents", 8, 0), ==, 8);
	memset(target, 't', sizeof(target));
	target[sizeof(target) - 1] = '\0';
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	REFUSED(ENAMETOOLONG, symlink(r, target, dir, "name"));
	REFUSED(ENAMETOOLONG, mkdir(r, dir, name, 0755));
	REFUSED(ENAMETOOLONG, lookup(r, dir, name));
	REFUSED(EINVAL, rename(r, dir, "file", dir, "name", RENAME_NOREPLACE | RENAME_EXCHANGE));
	REFUSED(EINVAL, rename(r, dir, "file", dir, "name", 1u << 30));
	REFUSED(EINVAL, fallocate(r, file, 0, -1, 1, &fi));
	REFUSED(EINVAL, fallocate(r, file, 0, 0, 0, &fi));
	REFUSED(EFBIG, fallocate(r, file, 0, INT64_MAX, 1, &fi));
	REFUSED(EOPNOTSUPP, fallocate(r, file, FALLOC_FL_PUNCH_HOLE, 0, 1, &fi));
	REFUSED(EOPNOTSUPP, fallocate(r, file, FALLOC_FL_COLLAPSE_RANGE, 0, 4096, &fi));
	REFUSED(EINVAL, lseek(r, file, 0, SEEK_SET, &fi));
	REFUSED(ENXIO, lseek(r, file, -1, SEEK_DATA, &fi));
	REFUSED(EINVAL, copy_file_range(r, file, 0, &fi, file, 4096, &fi, 1, 1));
	REFUSED(EINVAL, copy_file_range(r, file, -1, &fi, file, 4096, &fi, 1, 0));
	REFUSED(EINVAL, copy_file_range(r, file, 0, &fi, file, -1, &fi, 1, 0));
	REFUSED(EEXIST, setxattr(r, file, "user.cachet.seals", "write", 5, XATTR_CREATE));
	REFUSED(EINVAL, setxattr(r, file, "user.cachet.seals", "wrote", 5, 0));
	REFUSED(ENODATA, getxattr(r, file, "user.cachet.nonsense", 100));
	REFUSED(EOPNOTSUPP, getxattr(r, file, "system.nonsense", 100));
	REFUSED(EOPNOTSUPP, setxattr(r, file, "system.nonsense", "", 0, 0));
	REFUSED(EPERM, removexattr(r, file, "user.cachet.seals"));
	REFUSED(ENOTTY, ioctl(r, file, 0x5401, NULL, &fi, 0, NULL, 0, 0));
	g_assert_cmpuint(mapping_size(mapping), ==, 8);
	g_assert_cmpint(mapping_read(mapping, &byte, 1, 0), ==, 1);
	g_assert_cmpint(byte, ==, 'c');
	g_assert_cmpuint(sealing_current(&inode_find(&kernel.fs, file)->sealing), ==, 0);
	kernel_reset(&kernel);
	kernel_stop(&kernel);
}

/*
 * The name exists, which the kernel does not know. It checks no permissions where it creates, so what
 * is there is not opened: it is told to look again.
 */
static void test_create_meets_create(void)
{
	struct fuse_file_info exclusive = { .flags = O_RDWR | O_CREAT | O_EXCL };
	struct fuse_file_info open = { .flags = O_RDWR | O_CREAT };

	kernel_start(&kernel, CACHET_PLANE_KERNEL, true);
	make("file", S_IFREG | 0600);
	make_dir("dir");
	kernel_caller(1000, 1000);
	REFUSED(EEXIST, create(r, FUSE_ROOT_ID, "file", 0600, &exclusive));
	REFUSED(EEXIST, create(r, FUSE_ROOT_ID, "dir", 0600, &exclusive));
	REFUSED(ESTALE, create(r, FUSE_ROOT_ID, "file", 0600, &open));
	REFUSED(ESTALE, create(r, FUSE_ROOT_ID, "dir", 0600, &open));
	kernel_caller(0, 0);
	g_assert_cmpuint(atomic_load(&kernel.fs.stats.handles), ==, 0);
	g_assert_cmpuint(atomic_load(&kernel.fs.stats.inodes), ==, 3);
	kernel_reset(&kernel);
	kernel_stop(&kernel);
}

static atomic_bool space_comes;

/* Of the daemon, too: what waits for space gets it meanwhile. */
int nanosleep(const struct timespec *time, struct timespec *left)
{
	if (atomic_exchange(&space_comes, false))
		reservation_give(&kernel.fs.budget, kernel.fs.budget.limit - 1);
	return clock_nanosleep(CLOCK_MONOTONIC, 0, time, left);
}

/* All but the page of the source is in use, and its end is on its way. */
static void use_up_space(void)
{
	g_assert_cmpuint(atomic_load(&kernel.fs.budget.used), ==, 1);
	g_assert_cmpint(reservation_take(&kernel.fs.budget, kernel.fs.budget.limit - 1), ==, 0);
	atomic_store(&space_comes, true);
}

static void give_up_pages(fuse_ino_t file)
{
	g_assert_false(atomic_load(&space_comes));
	g_assert_cmpint(mapping_truncate(contents(file), 0), ==, 0);
	g_assert_cmpint(mapping_truncate(contents(file), PAGE_BYTES), ==, 0);
}

/* What needs pages waits a moment for those that a close or an unlink has just given up. */
static void test_space_that_comes(void)
{
	struct cachet_seals seals = {
		.size = sizeof(seals),
		.seals = F_SEAL_GROW,
		.flags = CACHET_SEAL_POPULATE,
		.timeout_ms = CACHET_TIMEOUT_DEFAULT,
	};
	struct cachet_pin pin = {
		.size = sizeof(pin), .length = PAGE_BYTES, .flags = CACHET_PIN_RESIDENT,
	};
	struct fuse_bufvec data = FUSE_BUFVEC_INIT(1);
	struct fuse_file_info fi = { .flags = O_RDWR };
	fuse_ino_t source, file;

	kernel_start(&kernel, CACHET_PLANE_DAEMON, true);
	kernel.fs.budget.limit = 4;
	source = make("source", S_IFREG | 0644);
	g_assert_cmpint(SENT(create(r, FUSE_ROOT_ID, "file", 0600, &fi)), ==, 0);
	file = kernel.handles[0].ino;
	fi.fh = kernel.handles[0].fh;
	g_assert_cmpint(mapping_write(contents(source), "x", 1, 0), ==, 1);
	g_assert_cmpint(mapping_truncate(contents(file), PAGE_BYTES), ==, 0);

	use_up_space();
	data.buf[0].mem = (char[]){ "x" };
	g_assert_cmpint(SENT(write_buf(r, file, &data, 0, &fi)), ==, 1);
	give_up_pages(file);
	use_up_space();
	g_assert_cmpint(SENT(fallocate(r, file, 0, 0, 1, &fi)), ==, 0);
	give_up_pages(file);
	use_up_space();
	g_assert_cmpint(SENT(copy_file_range(r, source, 0, &fi, file, 0, &fi, 1, 0)), ==, 1);
	give_up_pages(file);
	use_up_space();
	g_assert_cmpint(SENT(ioctl(r, file, CACHET_IOC_PIN, NULL, &fi, 0, &pin, sizeof(pin),
				   sizeof(pin))), ==, 0);
	give_up_pages(file);
	use_up_space();
	SENT(ioctl(r, file, CACHET_IOC_ADD_SEALS, NULL, &fi, 0, &seals, sizeof(seals),
		   sizeof(seals)));
	while (!atomic_load(&kernel.fs.seals.granted) && !atomic_load(&kernel.fs.seals.refused))
		g_usleep(1000);
	g_assert_cmpuint(atomic_load(&kernel.fs.seals.granted), ==, 1);
	g_assert_cmpuint(mapping_size(contents(file)), ==, PAGE_BYTES);
	kernel_reset(&kernel);
	kernel_stop(&kernel);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/requests/gone", test_gone);
	g_test_add_func("/requests/kinds", test_kinds);
	g_test_add_func("/requests/arguments", test_arguments);
	g_test_add_func("/requests/create-meets-create", test_create_meets_create);
	g_test_add_func("/requests/space-that-comes", test_space_that_comes);
	return g_test_run();
}
