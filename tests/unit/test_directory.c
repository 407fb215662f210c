/* SPDX-License-Identifier: MIT */
/* Names, and what a rename does to them. */
#include "inode_fixture.h"

#include <stdio.h> /* RENAME_* */

#include "inode/attr.h"

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

/*
 * Directories are locked from the root on, and a rename changes who is below whom, which looks like
 * an inversion to ThreadSanitizer. A real one would hang.
 */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "detect_deadlocks=0";
}

/*
 * Renames, within and between directories that are moved themselves, against lookups, listings,
 * links and removals. A name that is only ever moved is never lost and never there twice.
 */
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
	g_test_add_func("/directory/storm", test_storm);
	return g_test_run();
}
