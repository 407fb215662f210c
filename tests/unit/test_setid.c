/* SPDX-License-Identifier: MIT */
/*
 * Who loses the set-id bits of a file by writing to it or truncating it: as the kernel says where it
 * says so, and by who asks where it does not (before Linux 5.12, or with an old libfuse).
 */
#include <fcntl.h>
#include <glib.h>

#include "../fuzz/fake_fuse.h"
#include "inode/inode.h"

#define USER 1000
/* Without the group's x bit only a stranger to the group, which is root's, loses setgid. */
#define MODE (S_ISUID | S_ISGID | 0745)

/* The write or the open by @uid, @told: and the kernel says that the bits have to go. */
struct attempt {
	bool negotiated;
	uid_t uid;
	bool told;
	bool dropped;
};

static const struct attempt attempts[] = {
	{ true, USER, true, true },   { true, USER, false, false }, { true, 0, true, true },
	{ true, 0, false, false },    { false, USER, false, true }, { false, 0, false, false },
};

static struct kernel kernel;

static void file_make(const struct attempt *attempt, struct fuse_file_info *fi)
{
	struct fuse_req *req = kernel_request(&kernel, kernel_root(&kernel), NULL, NULL, fi->flags,
					      false);

	kernel.ops->create(req, FILESYSTEM_ROOT_INO, "a", MODE, fi);
	kernel_sent(&kernel, req);
	for (unsigned i = 0; i < KERNEL_HANDLES; i++)
		if (kernel.handles[i].open)
			fi->fh = kernel.handles[i].fh;
	if (attempt->negotiated)
		kernel.fs.features |= CACHET_FEATURE_KILLPRIV_V2;
	else
		kernel.fs.features &= ~CACHET_FEATURE_KILLPRIV_V2;
	fi->kill_suidgid = attempt->told;
	kernel_caller(attempt->uid, attempt->uid);
}

static struct kernel_node *file_node(void)
{
	for (unsigned i = 1; i < KERNEL_NODES; i++)
		if (kernel.nodes[i].lookups)
			return &kernel.nodes[i];
	g_assert_not_reached();
}

static void check_mode(const struct attempt *attempt)
{
	struct inode *inode = inode_find(&kernel.fs, file_node()->ino);
	mode_t left = attempt->uid ? 0745 : S_ISGID | 0745;

	g_assert_cmpuint(inode->mode & 07777, ==, attempt->dropped ? left : MODE);
	kernel_caller(0, 0);
	kernel_reset(&kernel);
}

static void write_bytes(struct fuse_file_info *fi)
{
	struct fuse_bufvec data = FUSE_BUFVEC_INIT(3);
	struct fuse_req *req = kernel_request(&kernel, file_node(), NULL, NULL, 0, false);

	data.buf[0].mem = (void *)"abc";
	kernel.ops->write_buf(req, file_node()->ino, &data, 0, fi);
	kernel_sent(&kernel, req);
}

static void open_again(struct fuse_file_info *fi, int flags)
{
	struct fuse_file_info other = { .flags = flags, .kill_suidgid = fi->kill_suidgid };
	struct fuse_req *req = kernel_request(&kernel, file_node(), NULL, NULL, flags, false);

	kernel.ops->open(req, file_node()->ino, &other);
	kernel_sent(&kernel, req);
}

static void test_write(void)
{
	for (size_t i = 0; i < G_N_ELEMENTS(attempts); i++) {
		struct fuse_file_info fi = { .flags = O_RDWR | O_CREAT };

		file_make(&attempts[i], &fi);
		write_bytes(&fi);
		check_mode(&attempts[i]);
	}
}

static void test_truncating_open(void)
{
	for (size_t i = 0; i < G_N_ELEMENTS(attempts); i++) {
		struct fuse_file_info fi = { .flags = O_RDWR | O_CREAT };

		file_make(&attempts[i], &fi);
		open_again(&fi, O_WRONLY | O_TRUNC);
		check_mode(&attempts[i]);
	}
}

static void test_truncate(void)
{
	for (size_t i = 0; i < G_N_ELEMENTS(attempts); i++) {
		struct fuse_file_info fi = { .flags = O_RDWR | O_CREAT };
		struct stat attr = { .st_size = 1 };
		struct fuse_req *req;
		int to_set = FUSE_SET_ATTR_SIZE;

		if (attempts[i].told)
			to_set |= FUSE_SET_ATTR_KILL_SUID;
		file_make(&attempts[i], &fi);
		req = kernel_request(&kernel, file_node(), NULL, NULL, 0, false);
		kernel.ops->setattr(req, file_node()->ino, &attr, to_set, NULL);
		kernel_sent(&kernel, req);
		check_mode(&attempts[i]);
	}
}

/* An open that truncates nothing leaves the bits alone, whoever asks. */
static void test_plain_open(void)
{
	for (size_t i = 0; i < G_N_ELEMENTS(attempts); i++) {
		struct attempt attempt = attempts[i];
		struct fuse_file_info fi = { .flags = O_RDWR | O_CREAT };

		attempt.told = attempt.dropped = false;
		file_make(&attempt, &fi);
		open_again(&fi, O_RDWR);
		check_mode(&attempt);
	}
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	kernel_start(&kernel, CACHET_PLANE_DAEMON, false);
	g_test_add_func("/setid/write", test_write);
	g_test_add_func("/setid/truncating-open", test_truncating_open);
	g_test_add_func("/setid/truncate", test_truncate);
	g_test_add_func("/setid/plain-open", test_plain_open);
	result = g_test_run();
	kernel_stop(&kernel);
	return result;
}
