/* SPDX-License-Identifier: MIT */
/* What is stored of an inode besides names and contents: attributes, extended ones, ACLs. */
#include "inode_fixture.h"

#include <fcntl.h>
#include <sys/xattr.h>

#include "inode/acl.h"
#include "inode/attr.h"
#include "inode/xattr.h"

static void test_times_and_size(void)
{
	struct filesystem fs;
	struct inode *root, *file;
	struct stat before, after;

	setup(&fs);
	root = fs.root;
	attr_get(root, &before);
	g_assert_cmpint(before.st_size, ==, 40);
	file = make_file(root, "file");
	attr_get(root, &after);
	g_assert_cmpint(after.st_size, ==, 60);
	g_assert_true(after.st_mtim.tv_sec > before.st_mtim.tv_sec ||
		      after.st_mtim.tv_nsec > before.st_mtim.tv_nsec);
	attr_get(file, &before);
	g_assert_cmpint(directory_rename(root, "file", root, "new", 0, NULL), ==, 0);
	attr_get(file, &after);
	g_assert_cmpint(after.st_mtim.tv_nsec, ==, before.st_mtim.tv_nsec);
	g_assert_true(after.st_ctim.tv_sec > before.st_ctim.tv_sec ||
		      after.st_ctim.tv_nsec > before.st_ctim.tv_nsec);
	/* What fails touches nothing. */
	attr_get(root, &before);
	g_assert_cmpint(directory_add(root, "new", file), ==, -EEXIST);
	g_assert_cmpint(directory_remove(root, "new", true), ==, -ENOTDIR);
	attr_get(root, &after);
	g_assert_cmpmem(&before, sizeof(before), &after, sizeof(after));
	teardown(&fs);
}

/*
 * Kernels before 6.13 give a change of the memory the time of the last tick, which may be the very
 * time that the memory bore when utimens() came.
 */
static void test_change_in_the_tick_of_utimens(void)
{
	const struct stat old = { .st_atim.tv_sec = 1000, .st_mtim.tv_sec = 2000 };
	struct filesystem fs;
	struct inode *file;
	struct stat memory, st;
	int fd;

	setup(&fs);
	fs.plane = CACHET_PLANE_KERNEL;
	file = make_file(fs.root, "file");
	g_assert_true(file->mapping.shared);
	fd = mapping_fd(&file->mapping);
	g_assert_cmpint(pwrite(fd, "x", 1, 0), ==, 1);
	g_assert_cmpint(fstat(fd, &memory), ==, 0);
	st = old;
	g_assert_cmpint(attr_change(file, ATTR_ATIME | ATTR_MTIME, &st), ==, 0);
	attr_get(file, &st);
	g_assert_cmpint(st.st_atim.tv_sec, ==, 1000);
	g_assert_cmpint(st.st_mtim.tv_sec, ==, 2000);
	/* What a store does then. */
	g_assert_cmpint(futimens(fd, (struct timespec[]){ memory.st_atim, memory.st_mtim }), ==, 0);
	attr_get(file, &st);
	g_assert_cmpint(st.st_atim.tv_sec, >=, memory.st_atim.tv_sec);
	g_assert_cmpint(st.st_mtim.tv_sec, >=, memory.st_mtim.tv_sec);
	teardown(&fs);
}

static void test_attr(void)
{
	struct filesystem fs;
	struct inode *root, *file, *dir;
	struct stat st = { 0 };

	setup(&fs);
	root = fs.root;
	file = make(root, "file", S_IFREG | 0666);
	dir = make_dir(root, "dir");
	attr_get(file, &st);
	g_assert_cmpuint(st.st_mode, ==, S_IFREG | 0644); /* by the umask */
	g_assert_cmpuint(st.st_uid, ==, 1000);
	g_assert_cmpuint(st.st_gid, ==, 100);

	st = (struct stat){ .st_mode = S_IFDIR | 06755, .st_size = 5000, .st_uid = 7, .st_gid = 8 };
	g_assert_cmpint(attr_change(file, ATTR_MODE | ATTR_SIZE, &st), ==, 0);
	attr_get(file, &st);
	g_assert_cmpuint(st.st_mode, ==, S_IFREG | 06755); /* the type is no mode */
	g_assert_cmpint(st.st_size, ==, 5000);
	st = (struct stat){ .st_uid = 7, .st_gid = 8 };
	g_assert_cmpint(attr_change(file, ATTR_UID | ATTR_GID, &st), ==, 0);
	attr_get(file, &st);
	g_assert_cmpuint(st.st_mode, ==, S_IFREG | 0755); /* a new owner */
	g_assert_cmpuint(st.st_uid, ==, 7);
	g_assert_cmpuint(st.st_gid, ==, 8);

	/* All or nothing. */
	st = (struct stat){ .st_mode = 0600, .st_size = -1 };
	g_assert_cmpint(attr_change(file, ATTR_MODE | ATTR_SIZE, &st), ==, -EINVAL);
	st.st_size = 0;
	g_assert_cmpint(attr_change(dir, ATTR_MODE | ATTR_SIZE, &st), ==, -EISDIR);
	g_assert_cmpint(mapping_add_seals(&file->mapping, F_SEAL_SHRINK), ==, 0);
	g_assert_cmpint(attr_change(file, ATTR_MODE | ATTR_SIZE, &st), ==, -EPERM);
	attr_get(file, &st);
	g_assert_cmpuint(st.st_mode, ==, S_IFREG | 0755);
	g_assert_cmpint(st.st_size, ==, 5000);
	attr_get(dir, &st);
	g_assert_cmpuint(st.st_mode, ==, S_IFDIR | 0755);

	g_assert_cmpuint(attr_mode_without(06755, 0), ==, 06755);
	g_assert_cmpuint(attr_mode_without(06755, ATTR_KILL_PRIV), ==, 0755);
	g_assert_cmpuint(attr_mode_without(06745, ATTR_KILL_PRIV), ==, 02745);
	g_assert_cmpuint(attr_mode_without(06745, ATTR_KILL_PRIV | ATTR_KILL_SGID), ==, 0745);
	teardown(&fs);
}

/* A new owner and a new size in one request: what cannot be charged, or cut, changes nothing. */
static void test_attr_charges(void)
{
	struct filesystem fs;
	struct inode *file, *other;
	struct stat st = { .st_uid = 7, .st_size = 0 };
	const char page[PAGE_BYTES] = "contents";
	struct user *from, *to;

	setup(&fs);
	fs.users.pages_max = 3;
	fs.users.inodes_max = 2;
	fs.users.by_uid = g_hash_table_new_full(NULL, NULL, NULL, g_free);
	file = make_file(fs.root, "file");
	other = make_file(fs.root, "other");
	from = user_find(&fs.users, maker.uid);
	to = user_find(&fs.users, 7);
	g_assert_cmpint(mapping_write(&file->mapping, page, sizeof(page), 0), ==, sizeof(page));
	g_assert_cmpint(mapping_write(&file->mapping, page, sizeof(page), PAGE_BYTES), ==,
			sizeof(page));
	g_assert_cmpint(mapping_write(&other->mapping, page, sizeof(page), 0), ==, sizeof(page));
	g_assert_cmpint(attr_change(other, ATTR_UID, &st), ==, 0);

	/* Two pages more than one are too many for him while he may have two. */
	to->pages.limit = 2;
	g_assert_cmpint(attr_change(file, ATTR_UID | ATTR_SIZE, &st), ==, -EDQUOT);
	g_assert_cmpuint(mapping_size(&file->mapping), ==, 2 * PAGE_BYTES);
	g_assert_cmpuint(to->inodes, ==, 1);
	to->pages.limit = 3;
	g_assert_cmpint(mapping_add_seals(&file->mapping, F_SEAL_SHRINK), ==, 0);
	g_assert_cmpint(attr_change(file, ATTR_UID | ATTR_SIZE, &st), ==, -EPERM);
	g_assert_cmpuint(file->uid, ==, maker.uid);
	g_assert_true(file->user == from);
	g_assert_cmpuint(from->pages.used, ==, 2);
	g_assert_cmpuint(from->inodes, ==, 1);
	g_assert_cmpuint(to->pages.used, ==, 1);
	g_assert_cmpuint(to->inodes, ==, 1);
	g_assert_cmpuint(fs.budget.used, ==, 3);

	st.st_size = PAGE_BYTES * 5;
	g_assert_cmpint(attr_change(file, ATTR_UID | ATTR_SIZE, &st), ==, 0);
	g_assert_cmpuint(mapping_size(&file->mapping), ==, PAGE_BYTES * 5);
	g_assert_cmpuint(from->pages.used, ==, 0);
	g_assert_cmpuint(from->inodes, ==, 0);
	g_assert_cmpuint(to->pages.used, ==, 3);
	g_assert_cmpuint(to->inodes, ==, 2);
	teardown(&fs);
}

static void test_xattr(void)
{
	char value[16], long_name[XATTR_NAME_MAX + 2];
	g_autofree char *large = g_malloc0(XATTR_VALUE_MAX + 1);
	struct filesystem fs;
	struct inode *file;

	setup(&fs);
	file = make_file(fs.root, "file");
	g_assert_cmpint(xattr_get(file, "user.a", value, sizeof(value)), ==, -ENODATA);
	g_assert_cmpint(xattr_list(file, true, NULL, 0), ==, 0);
	g_assert_cmpint(xattr_remove(file, "user.a"), ==, -ENODATA);
	g_assert_cmpint(xattr_set(file, "user.a", "x", 1, XATTR_REPLACE), ==, -ENODATA);
	g_assert_cmpint(xattr_set(file, XATTR_CAPABILITY, "c", 1, 0), ==, 0);
	attr_written(file, 0);
	g_assert_cmpint(xattr_get(file, XATTR_CAPABILITY, value, sizeof(value)), ==, -ENODATA);
	g_assert_cmpint(xattr_set(file, "user.a", "one", 3, XATTR_CREATE), ==, 0);
	g_assert_cmpint(xattr_set(file, "user.a", "two", 3, XATTR_CREATE), ==, -EEXIST);
	g_assert_cmpint(xattr_get(file, "user.a", NULL, 0), ==, 3);
	g_assert_cmpint(xattr_get(file, "user.a", value, 2), ==, -ERANGE);
	g_assert_cmpint(xattr_get(file, "user.a", value, 3), ==, 3);
	g_assert_cmpmem(value, 3, "one", 3);
	g_assert_cmpint(xattr_set(file, "user.a", NULL, 0, XATTR_REPLACE), ==, 0);
	g_assert_cmpint(xattr_get(file, "user.a", value, sizeof(value)), ==, 0);
	g_assert_cmpint(xattr_set(file, "trusted.b", "x", 1, 0), ==, 0);
	g_assert_cmpint(xattr_list(file, false, NULL, 0), ==, 7);
	g_assert_cmpint(xattr_list(file, true, NULL, 0), ==, 17);
	g_assert_cmpint(xattr_list(file, true, value, 16), ==, -ERANGE);
	g_assert_cmpint(xattr_list(file, false, value, 7), ==, 7);
	g_assert_cmpstr(value, ==, "user.a");

	memset(long_name, 'n', sizeof(long_name) - 1);
	long_name[XATTR_NAME_MAX + 1] = '\0';
	g_assert_cmpint(xattr_set(file, long_name, "x", 1, 0), ==, -ERANGE);
	long_name[XATTR_NAME_MAX] = '\0';
	g_assert_cmpint(xattr_set(file, long_name, "x", 1, 0), ==, 0);
	g_assert_cmpint(xattr_set(file, "user.l", large, XATTR_VALUE_MAX + 1, 0), ==, -E2BIG);
	g_assert_cmpint(xattr_set(file, "user.l", large, XATTR_VALUE_MAX, 0), ==, 0);
	/* The same again takes no more room; another one does not fit. */
	for (unsigned i = 0; i < 10; i++)
		g_assert_cmpint(xattr_set(file, "user.l", large, XATTR_VALUE_MAX, 0), ==, 0);
	g_assert_cmpint(xattr_set(file, "user.m", large, XATTR_VALUE_MAX, 0), ==, -ENOSPC);
	g_assert_cmpint(xattr_get(file, "user.m", NULL, 0), ==, -ENODATA);
	g_assert_cmpint(xattr_remove(file, "user.l"), ==, 0);
	g_assert_cmpint(xattr_set(file, "user.m", large, XATTR_VALUE_MAX, 0), ==, 0);
	g_assert_cmpint(xattr_remove(file, "user.m"), ==, 0);
	g_assert_cmpint(xattr_remove(file, long_name), ==, 0);
	g_assert_cmpint(xattr_remove(file, "trusted.b"), ==, 0);
	g_assert_cmpint(xattr_remove(file, "user.a"), ==, 0);
	g_assert_cmpuint(file->xattr_bytes, ==, 0);
	teardown(&fs);
}

/* What the kernel would not let pass; and what follows from an ACL for the mode. */
struct acl_bytes {
	uint32_t version;
	struct {
		uint16_t tag, bits;
		uint32_t id;
	} entries[5];
};

#define ACL_BYTES(entries) (4 + 8 * (size_t)(entries))

static int set_acl(struct inode *inode, struct acl_bytes acl, size_t size)
{
	acl.version = GUINT32_TO_LE(acl.version);
	for (unsigned i = 0; i < G_N_ELEMENTS(acl.entries); i++) {
		acl.entries[i].tag = GUINT16_TO_LE(acl.entries[i].tag);
		acl.entries[i].bits = GUINT16_TO_LE(acl.entries[i].bits);
		acl.entries[i].id = GUINT32_TO_LE(acl.entries[i].id);
	}
	return acl_set(inode, ACL_XATTR_ACCESS, &acl, size, 0);
}

static void test_acl(void)
{
	const struct acl_bytes full = {
		.version = 2,
		.entries = { { 1, 6, -1 }, { 2, 7, 1000 }, { 4, 4, -1 }, { 16, 5, -1 }, { 32, 0, -1 } },
	};
	struct acl_bytes minimal = {
		.version = 2, .entries = { { 1, 6, -1 }, { 4, 4, -1 }, { 32, 0, -1 } },
	}, bad;
	struct filesystem fs;
	struct inode *file;

	setup(&fs);
	file = make_file(fs.root, "file");
	for (size_t size = 0; size < ACL_BYTES(3); size++)
		g_assert_cmpint(set_acl(file, minimal, size), ==, -EINVAL);
	g_assert_cmpint(set_acl(file, full, ACL_BYTES(4)), ==, -EINVAL); /* no entry for others */
	bad = full;
	bad.version = 1;
	g_assert_cmpint(set_acl(file, bad, ACL_BYTES(5)), ==, -EINVAL);
	bad = full;
	bad.entries[1].bits = 8;
	g_assert_cmpint(set_acl(file, bad, ACL_BYTES(5)), ==, -EINVAL);
	bad = full;
	bad.entries[3].tag = 8; /* no mask */
	g_assert_cmpint(set_acl(file, bad, ACL_BYTES(5)), ==, -EINVAL);
	g_assert_cmpint(acl_set(file, ACL_XATTR_DEFAULT, &full, ACL_BYTES(5), 0), ==, -EACCES);
	g_assert_cmpuint(file->mode, ==, S_IFREG | 0644);
	g_assert_cmpint(xattr_get(file, ACL_XATTR_ACCESS, NULL, 0), ==, -ENODATA);

	g_assert_cmpint(set_acl(file, full, ACL_BYTES(5)), ==, 0);
	g_assert_cmpuint(file->mode, ==, S_IFREG | 0650);
	g_assert_cmpint(xattr_get(file, ACL_XATTR_ACCESS, NULL, 0), ==, ACL_BYTES(5));
	g_assert_cmpint(set_acl(file, minimal, ACL_BYTES(3)), ==, 0);
	g_assert_cmpuint(file->mode, ==, S_IFREG | 0640);
	g_assert_cmpint(xattr_get(file, ACL_XATTR_ACCESS, NULL, 0), ==, -ENODATA);
	teardown(&fs);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	/* That there is no io_uring for pins is worth a warning, not worth dying. */
	g_log_set_always_fatal(G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL);
	g_test_add_func("/attr/times-and-size", test_times_and_size);
	g_test_add_func("/attr/change-in-the-tick-of-utimens",
			test_change_in_the_tick_of_utimens);
	g_test_add_func("/attr/change", test_attr);
	g_test_add_func("/attr/charges", test_attr_charges);
	g_test_add_func("/attr/xattr", test_xattr);
	g_test_add_func("/attr/acl", test_acl);
	return g_test_run();
}
