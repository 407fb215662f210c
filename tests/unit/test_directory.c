/* SPDX-License-Identifier: MIT */
/* Names, what a rename does to them, and what is stored of a node: attributes and extended ones. */
#include "inode/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h> /* RENAME_* */
#include <string.h>
#include <sys/xattr.h>

#include "base/clock.h"
#include "inode/acl.h"
#include "inode/attr.h"
#include "inode/xattr.h"

static const struct caller maker = { .uid = 1000, .gid = 100, .umask = 022 };

static void no_invalidation(struct filesystem *fs, uint64_t ino, bool contents)
{
	(void)fs;
	(void)ino;
	(void)contents;
}

static void setup(struct filesystem *fs)
{
	const struct filesystem_config config = { .root_mode = 01777, .seal_timeout_ms = 150 };

	memset(fs, 0, sizeof(*fs));
	g_assert_cmpint(filesystem_start(fs, &config), ==, 0);
	fs->plane = CACHET_PLANE_DAEMON;
	fs->invalidate = no_invalidation;
}

/* As after an unmount: what has a name, or is used, is given back. */
static void teardown(struct filesystem *fs)
{
	filesystem_stop(fs);
	g_assert_cmpuint(fs->stats.inodes, ==, 0);
}

/* A node with a name, and no reference but that. Return: borrows it. */
static struct inode *make(struct inode *dir, const char *name, mode_t mode)
{
	struct inode *inode;

	g_assert_cmpint(inode_new(dir->fs, mode, 0, &maker, dir, NULL, &inode), ==, 0);
	g_assert_cmpint(directory_add(dir, name, inode), ==, 0);
	inode_put(inode);
	return inode;
}

static struct inode *make_file(struct inode *dir, const char *name)
{
	return make(dir, name, S_IFREG | 0644);
}

static struct inode *make_dir(struct inode *dir, const char *name)
{
	return make(dir, name, S_IFDIR | 0755);
}

/* Return: borrows what a name stands for; NULL when there is no such name. */
static struct inode *find(struct inode *dir, const char *name)
{
	struct inode *inode = NULL;
	int result = directory_find(dir, name, &inode);

	g_assert_true(result == 0 || result == -ENOENT);
	inode_put(inode);
	return inode;
}

static uint64_t parent_of(struct inode *dir)
{
	char name[NAME_BYTES_MAX + 1];
	uint64_t cookie = COOKIE_DOT, ino;
	struct inode *parent;

	g_assert_true(directory_next(dir, &cookie, name, &parent));
	g_assert_cmpstr(name, ==, "..");
	g_assert_cmpuint(cookie, ==, COOKIE_DOT_DOT);
	ino = parent ? parent->ino : 0;
	inode_put(parent);
	return ino;
}

static int rename_flags(struct inode *from_dir, const char *from, struct inode *to_dir,
			const char *to, unsigned flags)
{
	return directory_rename(from_dir, from, to_dir, to, flags, NULL);
}

static int rename_to(struct inode *from_dir, const char *from, struct inode *to_dir, const char *to)
{
	return rename_flags(from_dir, from, to_dir, to, 0);
}

/* Return: borrows; "" when the inode has no name. */
static const char *path_of(struct inode *inode)
{
	static char path[512];
	int result = inode_path(inode, path, sizeof(path));

	g_assert_true(result == 0 || result == -ENOENT);
	return result ? "" : path;
}

/* Whatever becomes of its names: an inode knows one of them, or that it has none. */
static void test_paths(void)
{
	struct filesystem fs;
	struct inode *root, *a, *b, *file, *other, *whiteout;

	setup(&fs);
	root = fs.root;
	g_assert_cmpstr(path_of(root), ==, "");
	a = make_dir(root, "a");
	b = make_dir(a, "b");
	file = make_file(b, "file");
	inode_get(file);
	g_assert_cmpstr(path_of(file), ==, "/a/b/file");
	g_assert_cmpstr(path_of(b), ==, "/a/b");

	g_assert_cmpint(rename_to(a, "b", root, "c"), ==, 0);
	g_assert_cmpstr(path_of(file), ==, "/c/file");
	g_assert_cmpint(directory_add(a, "link", file), ==, 0);
	g_assert_cmpint(directory_add(a, "link", file), ==, -EEXIST);
	g_assert_cmpint(directory_remove(b, "file", false), ==, 0);
	g_assert_cmpstr(path_of(file), ==, "/a/link");

	other = make_file(root, "other");
	inode_get(other);
	g_assert_cmpint(rename_flags(a, "link", root, "other", RENAME_EXCHANGE), ==, 0);
	g_assert_cmpstr(path_of(file), ==, "/other");
	g_assert_cmpstr(path_of(other), ==, "/a/link");
	g_assert_cmpint(rename_flags(a, "link", root, "other", RENAME_NOREPLACE), ==, -EEXIST);
	g_assert_cmpint(rename_to(a, "link", root, "other"), ==, 0);
	g_assert_cmpstr(path_of(file), ==, "");
	g_assert_cmpstr(path_of(other), ==, "/other");

	g_assert_cmpint(inode_new(&fs, S_IFCHR, 0, &maker, root, NULL, &whiteout), ==, 0);
	g_assert_cmpstr(path_of(whiteout), ==, "");
	g_assert_cmpint(directory_rename(root, "other", a, "moved", 0, whiteout), ==, 0);
	g_assert_cmpstr(path_of(other), ==, "/a/moved");
	g_assert_cmpstr(path_of(whiteout), ==, "/other");
	g_assert_cmpint(directory_remove(root, "other", false), ==, 0);
	g_assert_cmpstr(path_of(whiteout), ==, "");

	/* The end finds a file with names in two directories, and one that is in use. */
	g_assert_cmpint(directory_add(b, "again", other), ==, 0);
	g_assert_cmpint(directory_add(root, "again", other), ==, 0);
	inode_put(whiteout);
	inode_put(file);
	inode_put(other);
	teardown(&fs);
}

static void test_long_paths(void)
{
	char path[16];
	struct filesystem fs;
	struct inode *dir, *file;

	setup(&fs);
	dir = make_dir(fs.root, "1234567");
	file = make_file(dir, "9abcde");
	g_assert_cmpint(inode_path(file, path, 16), ==, 0);
	g_assert_cmpstr(path, ==, "/1234567/9abcde");
	for (size_t size = 1; size < 16; size++)
		g_assert_cmpint(inode_path(file, path, size), ==, -ENAMETOOLONG);
	teardown(&fs);
}

static void test_names(void)
{
	char longest[NAME_BYTES_MAX + 1], too_long[NAME_BYTES_MAX + 2];
	struct filesystem fs;
	struct inode *root, *file, *found;

	setup(&fs);
	root = fs.root;
	memset(longest, 'n', NAME_BYTES_MAX);
	longest[NAME_BYTES_MAX] = '\0';
	memset(too_long, 'n', NAME_BYTES_MAX + 1);
	too_long[NAME_BYTES_MAX + 1] = '\0';

	file = make_file(root, longest);
	g_assert_true(find(root, longest) == file);
	g_assert_cmpint(directory_add(root, longest, file), ==, -EEXIST);
	g_assert_cmpint(directory_add(root, too_long, file), ==, -ENAMETOOLONG);
	g_assert_cmpint(directory_find(root, too_long, &found), ==, -ENAMETOOLONG);
	g_assert_cmpint(directory_remove(root, too_long, false), ==, -ENAMETOOLONG);
	g_assert_cmpint(rename_to(root, longest, root, too_long), ==, -ENAMETOOLONG);
	g_assert_cmpint(rename_to(root, too_long, root, "a"), ==, -ENAMETOOLONG);
	g_assert_cmpint(rename_to(root, longest, root, "a"), ==, 0);
	g_assert_cmpint(rename_to(root, "a", root, longest), ==, 0);
	g_assert_cmpuint(file->nlink, ==, 1);

	/* A file is no directory, whatever is asked of it. */
	g_assert_cmpint(directory_find(file, "x", &found), ==, -ENOTDIR);
	g_assert_cmpint(directory_add(file, "x", file), ==, -ENOTDIR);
	g_assert_cmpint(directory_remove(file, "x", false), ==, -ENOTDIR);
	g_assert_cmpint(rename_to(file, "x", root, "x"), ==, -ENOTDIR);
	g_assert_cmpint(rename_to(root, longest, file, "x"), ==, -ENOTDIR);
	g_assert_cmpint(directory_remove(root, longest, true), ==, -ENOTDIR);
	g_assert_cmpint(directory_remove(root, longest, false), ==, 0);
	g_assert_cmpint(directory_remove(root, longest, false), ==, -ENOENT);
	g_assert_null(find(root, longest));
	teardown(&fs);
}

static void test_links(void)
{
	struct filesystem fs;
	struct inode *root, *a, *b, *file;

	setup(&fs);
	root = fs.root;
	g_assert_cmpuint(root->nlink, ==, 2);
	a = make_dir(root, "a");
	b = make_dir(a, "b");
	g_assert_cmpuint(root->nlink, ==, 3);
	g_assert_cmpuint(a->nlink, ==, 3);
	g_assert_cmpuint(b->nlink, ==, 2);
	file = make_file(root, "file");
	g_assert_cmpint(directory_add(b, "again", file), ==, 0);
	g_assert_cmpuint(file->nlink, ==, 2);
	g_assert_cmpuint(b->nlink, ==, 2);

	/* Two names of one file: nothing happens, and both stay. */
	g_assert_cmpint(rename_to(root, "file", b, "again"), ==, 0);
	g_assert_true(find(root, "file") == file);
	g_assert_true(find(b, "again") == file);
	g_assert_cmpint(rename_to(root, "file", root, "file"), ==, 0);
	g_assert_cmpuint(file->nlink, ==, 2);

	g_assert_cmpint(directory_remove(a, "b", true), ==, -ENOTEMPTY);
	g_assert_cmpint(directory_remove(a, "b", false), ==, -EISDIR);
	inode_get(file);
	g_assert_cmpint(directory_remove(b, "again", false), ==, 0);
	g_assert_cmpint(directory_remove(root, "file", false), ==, 0);
	g_assert_cmpuint(file->nlink, ==, 0);
	inode_put(file);
	inode_get(b);
	g_assert_cmpint(directory_remove(a, "b", true), ==, 0);
	g_assert_cmpuint(a->nlink, ==, 2);
	g_assert_cmpuint(b->nlink, ==, 0);
	/* Nothing can be made in what is gone. */
	g_assert_cmpuint(parent_of(b), ==, 0);
	g_assert_cmpint(directory_add(b, "late", a), ==, -ENOENT);
	g_assert_cmpint(rename_to(root, "a", b, "late"), ==, -ENOENT);
	inode_put(b);
	g_assert_cmpuint(fs.stats.inodes, ==, 2);
	teardown(&fs);
}

static void test_rename_into_itself(void)
{
	struct filesystem fs;
	struct inode *root, *a, *b, *c;

	setup(&fs);
	root = fs.root;
	a = make_dir(root, "a");
	b = make_dir(a, "b");
	c = make_dir(b, "c");
	g_assert_cmpint(rename_to(root, "a", a, "x"), ==, -EINVAL);
	g_assert_cmpint(rename_to(root, "a", b, "x"), ==, -EINVAL);
	g_assert_cmpint(rename_to(root, "a", c, "x"), ==, -EINVAL);
	g_assert_cmpint(rename_to(a, "b", c, "x"), ==, -EINVAL);
	g_assert_cmpint(rename_flags(root, "a", b, "c", RENAME_EXCHANGE), ==, -EINVAL);
	g_assert_cmpint(rename_flags(b, "c", root, "a", RENAME_EXCHANGE), ==, -EINVAL);
	/* Onto one's ancestor: it is not empty. */
	g_assert_cmpint(rename_to(b, "c", root, "a"), ==, -ENOTEMPTY);
	g_assert_cmpint(rename_to(a, "b", root, "a"), ==, -ENOTEMPTY);
	g_assert_cmpint(rename_flags(a, "b", root, "a", RENAME_NOREPLACE), ==, -EEXIST);
	g_assert_cmpuint(parent_of(c), ==, b->ino);

	/* Up is allowed, and down somewhere else. */
	g_assert_cmpint(rename_to(b, "c", root, "c"), ==, 0);
	g_assert_cmpuint(parent_of(c), ==, root->ino);
	g_assert_cmpint(rename_to(root, "a", c, "a"), ==, 0);
	g_assert_cmpuint(parent_of(a), ==, c->ino);
	g_assert_cmpint(rename_to(root, "c", b, "c"), ==, -EINVAL);
	g_assert_cmpuint(root->nlink, ==, 3);
	g_assert_cmpuint(c->nlink, ==, 3);
	g_assert_cmpuint(b->nlink, ==, 2);
	teardown(&fs);
}

static void test_rename_replaces(void)
{
	struct filesystem fs;
	struct inode *root, *empty, *full, *file, *other, *dir;

	setup(&fs);
	root = fs.root;
	dir = make_dir(root, "dir");
	empty = make_dir(root, "empty");
	full = make_dir(root, "full");
	make_file(full, "inside");
	file = make_file(root, "file");
	other = make_file(root, "other");
	g_assert_cmpint(rename_to(root, "dir", root, "full"), ==, -ENOTEMPTY);
	g_assert_cmpint(rename_to(root, "dir", root, "file"), ==, -ENOTDIR);
	g_assert_cmpint(rename_to(root, "file", root, "empty"), ==, -EISDIR);
	g_assert_cmpint(rename_to(root, "none", root, "file"), ==, -ENOENT);
	g_assert_cmpint(rename_flags(root, "file", root, "other", RENAME_NOREPLACE), ==,
			-EEXIST);
	g_assert_cmpint(rename_flags(root, "none", root, "new", RENAME_NOREPLACE), ==, -ENOENT);
	g_assert_cmpint(rename_flags(root, "file", root, "new", 1 << 10), ==, -EINVAL);
	g_assert_cmpint(rename_flags(root, "file", root, "other",
					 RENAME_NOREPLACE | RENAME_EXCHANGE), ==, -EINVAL);
	g_assert_true(find(root, "file") == file && find(root, "other") == other);
	g_assert_cmpuint(root->nlink, ==, 5);
	g_assert_cmpuint(fs.stats.inodes, ==, 7);

	inode_get(empty);
	g_assert_cmpint(rename_to(root, "dir", root, "empty"), ==, 0);
	g_assert_true(find(root, "empty") == dir);
	g_assert_null(find(root, "dir"));
	g_assert_cmpuint(empty->nlink, ==, 0);
	g_assert_cmpuint(root->nlink, ==, 4);
	inode_put(empty);
	inode_get(other);
	g_assert_cmpint(rename_to(root, "file", root, "other"), ==, 0);
	g_assert_true(find(root, "other") == file);
	g_assert_cmpuint(other->nlink, ==, 0);
	g_assert_cmpuint(file->nlink, ==, 1);
	inode_put(other);
	g_assert_cmpuint(fs.stats.inodes, ==, 5);
	g_assert_cmpint(rename_flags(root, "other", full, "new", RENAME_NOREPLACE), ==, 0);
	g_assert_true(find(full, "new") == file);
	teardown(&fs);
}

static void test_exchange(void)
{
	struct filesystem fs;
	struct inode *root, *a, *b, *file, *inner;

	setup(&fs);
	root = fs.root;
	a = make_dir(root, "a");
	b = make_dir(root, "b");
	inner = make_dir(a, "inner");
	file = make_file(b, "file");
	g_assert_cmpint(rename_flags(a, "inner", b, "none", RENAME_EXCHANGE), ==, -ENOENT);
	g_assert_cmpint(rename_flags(a, "none", b, "file", RENAME_EXCHANGE), ==, -ENOENT);
	g_assert_cmpint(rename_flags(a, "inner", b, "file", RENAME_EXCHANGE), ==, 0);
	g_assert_true(find(a, "inner") == file);
	g_assert_true(find(b, "file") == inner);
	g_assert_cmpuint(parent_of(inner), ==, b->ino);
	g_assert_cmpuint(a->nlink, ==, 2);
	g_assert_cmpuint(b->nlink, ==, 3);
	g_assert_cmpuint(file->nlink, ==, 1);
	g_assert_cmpuint(inner->nlink, ==, 2);
	g_assert_cmpint(rename_flags(root, "a", root, "b", RENAME_EXCHANGE), ==, 0);
	g_assert_true(find(root, "a") == b);
	g_assert_cmpuint(root->nlink, ==, 4);
	teardown(&fs);
}

/* What directory_list() says, of as many as are wanted. */
struct listing {
	GString *letters;
	GArray *listed;
	unsigned wanted;
};

static bool listing_visit(const struct listed *listed, void *data)
{
	struct listing *listing = data;

	g_string_append_c(listing->letters, listed->name[0]);
	g_array_append_val(listing->listed, *listed);
	return --listing->wanted;
}

/* Read on from a cookie, into the names' first letters; both ways of reading say the same. */
static char *list_after(struct inode *dir, uint64_t *cookie, unsigned count)
{
	GString *letters = g_string_new(NULL);
	struct listing listing = { g_string_new(NULL), g_array_new(FALSE, FALSE,
								  sizeof(struct listed)), count };
	char name[NAME_BYTES_MAX + 1];
	struct inode *inode;

	if (count)
		directory_list(dir, *cookie, listing_visit, &listing);
	while (count-- && directory_next(dir, cookie, name, &inode)) {
		const struct listed *listed =
			&g_array_index(listing.listed, struct listed, letters->len);

		g_assert_cmpuint(letters->len, <, listing.listed->len);
		g_assert_cmpuint(listed->cookie, ==, *cookie);
		g_assert_cmpuint(listed->ino, ==, inode ? inode->ino : 0);
		g_assert_cmpuint(listed->type, ==, inode ? inode->type : S_IFDIR);
		g_string_append_c(letters, name[0]);
		inode_put(inode);
	}
	g_assert_cmpstr(letters->str, ==, listing.letters->str);
	g_string_free(listing.letters, TRUE);
	g_array_free(listing.listed, TRUE);
	return g_string_free(letters, FALSE);
}

static void assert_list(struct inode *dir, uint64_t *cookie, unsigned count, const char *expected)
{
	g_autofree char *got = list_after(dir, cookie, count);

	g_assert_cmpstr(got, ==, expected);
}

/* Who reads sees each name that stays exactly once, whatever comes and goes. */
static void test_cookies(void)
{
	struct filesystem fs;
	struct inode *root;
	uint64_t cookie = 0, end;

	setup(&fs);
	root = fs.root;
	for (char letter = 'a'; letter <= 'f'; letter++)
		make_file(root, (char[]){ letter, '\0' });
	assert_list(root, &cookie, 4, "..ab");
	g_assert_cmpint(directory_remove(root, "b", false), ==, 0); /* where the reader is */
	g_assert_cmpint(directory_remove(root, "c", false), ==, 0);
	g_assert_cmpint(directory_remove(root, "a", false), ==, 0);
	make_file(root, "a"); /* a new one, and told as such */
	assert_list(root, &cookie, 2, "de");
	g_assert_cmpint(rename_to(root, "d", root, "x"), ==, 0);
	assert_list(root, &cookie, 100, "fax");
	end = cookie;
	assert_list(root, &cookie, 100, "");
	g_assert_cmpuint(cookie, ==, end);
	make_file(root, "g");
	assert_list(root, &cookie, 100, "g");
	/* From the middle again, and from beyond everything. */
	cookie = COOKIE_DOT_DOT;
	assert_list(root, &cookie, 100, "efaxg");
	cookie = UINT64_MAX;
	assert_list(root, &cookie, 100, "");
	cookie = INT64_MAX;
	assert_list(root, &cookie, 100, "");
	teardown(&fs);
}

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
	g_assert_cmpint(rename_to(root, "file", root, "new"), ==, 0);
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

/*
 * Renames, within and between directories that are moved themselves, against lookups, listings,
 * links and removals. A name that is only ever moved is never lost and never there twice.
 */

/*
 * Directories are locked from the root on, and a rename changes who is below whom, which looks like
 * an inversion to ThreadSanitizer. A real one would hang.
 */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "detect_deadlocks=0";
}

#define STORM_DIRS 4 /* and the root, which they begin in */
#define STORM_PLACES (STORM_DIRS + 1)
#define STORM_MS 2000

struct storm {
	struct inode *places[STORM_PLACES];
	unsigned seed;
	unsigned done;
};

static atomic_bool storm_over;

static void *storm_rename(void *data)
{
	struct storm *storm = data;

	while (!atomic_load(&storm_over)) {
		unsigned random = rand_r(&storm->seed);
		struct inode *from = storm->places[random % STORM_PLACES];
		struct inode *to = storm->places[random / 8 % STORM_PLACES];
		bool nest = random / 64 % 8 == 0;
		char name[] = { 'a' + random / 4096 % STORM_DIRS, '\0' };
		/* A directory under its own name, to any place; or the file that all look for. */
		int result = nest ? rename_to(from, name, to, name)
				  : rename_flags(from, "file", to, "file",
						     random / 512 % 4 ? RENAME_NOREPLACE : 0);

		g_assert_true(result == 0 || result == -ENOENT || result == -EINVAL ||
			      result == -EEXIST);
		storm->done += result == 0 && from != to;
	}
	return NULL;
}

static void *storm_look(void *data)
{
	struct storm *storm = data;

	while (!atomic_load(&storm_over)) {
		struct inode *dir = storm->places[rand_r(&storm->seed) % STORM_PLACES];
		char name[NAME_BYTES_MAX + 1];
		uint64_t cookie = 0, last = 0;
		struct inode *inode;
		struct stat st;

		while (directory_next(dir, &cookie, name, &inode)) {
			g_assert_cmpuint(cookie, >, last);
			last = cookie;
			inode_put(inode);
		}
		if (directory_find(dir, "file", &inode) == 0) {
			attr_get(inode, &st);
			/* The name is taken before the count follows. */
			g_assert_cmpuint(st.st_nlink, <=, 2);
			inode_put(inode);
		}
		attr_get(dir, &st);
		g_assert_cmpuint(st.st_nlink, >=, 2);
		storm->done++;
	}
	return NULL;
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

static void *storm_make(void *data)
{
	struct storm *storm = data;

	while (!atomic_load(&storm_over)) {
		struct inode *dir = storm->places[rand_r(&storm->seed) % STORM_PLACES];
		struct inode *made;

		g_assert_cmpint(inode_new(dir->fs, S_IFDIR | 0755, 0, &maker, dir, NULL, &made), ==,
				0);
		g_assert_cmpint(directory_add(dir, "made", made), ==, 0);
		inode_put(made);
		g_assert_cmpint(directory_remove(dir, "made", true), ==, 0);
		storm->done++;
	}
	return NULL;
}

static void test_storm(void)
{
	static void *(*const work[])(void *) = {
		storm_rename, storm_rename, storm_look, storm_make,
	};
	struct storm storms[G_N_ELEMENTS(work)] = { 0 };
	pthread_t threads[G_N_ELEMENTS(work)];
	struct filesystem fs;
	struct inode *places[STORM_PLACES], *file;
	unsigned found = 0, placed = 0, links = 0;

	setup(&fs);
	for (unsigned i = 0; i < STORM_DIRS; i++)
		places[i] = make_dir(fs.root, (char[]){ 'a' + i, '\0' });
	places[STORM_DIRS] = fs.root;
	file = make_file(fs.root, "file");
	inode_get(file);
	atomic_store(&storm_over, false);
	for (unsigned i = 0; i < G_N_ELEMENTS(work); i++) {
		memcpy(storms[i].places, places, sizeof(places));
		storms[i].seed = g_test_rand_int();
		pthread_create(&threads[i], NULL, work[i], &storms[i]);
	}
	g_usleep(STORM_MS * 1000);
	atomic_store(&storm_over, true);
	for (unsigned i = 0; i < G_N_ELEMENTS(work); i++) {
		pthread_join(threads[i], NULL);
		g_test_message("%u", storms[i].done);
		g_assert_cmpuint(storms[i].done, >, 0);
	}
	for (unsigned i = 0; i < STORM_PLACES; i++) {
		found += find(places[i], "file") == file;
		links += places[i]->nlink - 2;
		for (unsigned j = 0; j < STORM_DIRS; j++) {
			if (find(places[i], (char[]){ 'a' + j, '\0' }) != places[j])
				continue;
			g_assert_cmpuint(parent_of(places[j]), ==, places[i]->ino);
			placed++;
		}
	}
	g_assert_cmpuint(found, ==, 1);
	g_assert_cmpuint(file->nlink, ==, 1);
	/* Each directory counts once, where it is. */
	g_assert_cmpuint(placed, ==, STORM_DIRS);
	g_assert_cmpuint(links, ==, STORM_DIRS);
	g_assert_cmpuint(fs.stats.inodes, ==, 1 + STORM_DIRS + 1);
	inode_put(file);
	teardown(&fs);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	/* That there is no io_uring for pins is worth a warning, not worth dying. */
	g_log_set_always_fatal(G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL);
	g_test_add_func("/directory/names", test_names);
	g_test_add_func("/directory/links", test_links);
	g_test_add_func("/directory/paths", test_paths);
	g_test_add_func("/directory/long-paths", test_long_paths);
	g_test_add_func("/directory/rename-into-itself", test_rename_into_itself);
	g_test_add_func("/directory/rename-replaces", test_rename_replaces);
	g_test_add_func("/directory/exchange", test_exchange);
	g_test_add_func("/directory/cookies", test_cookies);
	g_test_add_func("/directory/times-and-size", test_times_and_size);
	g_test_add_func("/directory/change-in-the-tick-of-utimens",
			test_change_in_the_tick_of_utimens);
	g_test_add_func("/directory/attr", test_attr);
	g_test_add_func("/directory/attr-charges", test_attr_charges);
	g_test_add_func("/directory/xattr", test_xattr);
	g_test_add_func("/directory/acl", test_acl);
	g_test_add_func("/directory/storm", test_storm);
	return g_test_run();
}
