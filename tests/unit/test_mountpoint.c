/* SPDX-License-Identifier: MIT */
/* Which directories can be mounted on, and by which path. Mounts themselves: integration tests. */
#include "session/mountpoint.h"

#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

struct fixture {
	char *directory;
	char *before;
};

static void setup(struct fixture *fixture)
{
	g_autofree char *made = g_dir_make_tmp("cachet mountpoint.XXXXXX", NULL);

	g_assert_nonnull(made);
	fixture->before = g_get_current_dir();
	g_assert_cmpint(chdir(made), ==, 0);
	fixture->directory = g_get_current_dir();
	g_assert_cmpint(g_mkdir("dir", 0755), ==, 0);
	g_assert_true(g_file_set_contents("file", "x", 1, NULL));
	g_assert_cmpint(symlink("dir", "link"), ==, 0);
	g_assert_cmpint(symlink("nowhere", "dangling"), ==, 0);
	g_assert_cmpint(symlink("loop", "loop"), ==, 0);
}

static void teardown(struct fixture *fixture)
{
	g_unlink("loop");
	g_unlink("dangling");
	g_unlink("link");
	g_unlink("file");
	g_rmdir("dir");
	g_assert_cmpint(chdir(fixture->before), ==, 0);
	g_assert_cmpint(g_rmdir(fixture->directory), ==, 0);
	g_free(fixture->directory);
	g_free(fixture->before);
}

static void test_good(void)
{
	static const char *const names[] = { "dir", "./dir", "dir/", "link", "link/", "dir/../link",
					     "../%s/dir//" };
	struct fixture fixture;

	setup(&fixture);
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		g_autofree char *base = g_path_get_basename(fixture.directory);
		g_auto(GStrv) parts = g_strsplit(names[i], "%s", -1);
		g_autofree char *name = g_strjoinv(base, parts);
		g_autofree char *expected = g_build_filename(fixture.directory, "dir", NULL);
		g_autoptr(GError) error = NULL;
		g_autofree char *path = mountpoint_prepare(name, &error);

		g_assert_no_error(error);
		g_assert_cmpstr(path, ==, expected);
		g_assert_cmpuint(mountpoint_device(path), ==, 0);
	}
	teardown(&fixture);
}

static void test_bad(void)
{
	static const struct {
		const char *name, *why;
	} cases[] = {
		{ "none", "No such file" },	    { "none/below", "No such file" },
		{ "dangling", "No such file" },	    { "file", "Not a directory" },
		{ "file/below", "Not a directory" }, { "loop", "Too many levels" },
	};
	struct fixture fixture;

	setup(&fixture);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) error = NULL;

		g_assert_null(mountpoint_prepare(cases[i].name, &error));
		g_assert_nonnull(error);
		g_test_message("%s", error->message);
		g_assert_nonnull(strstr(error->message, cases[i].why));
		g_assert_nonnull(strstr(error->message, cases[i].name));
	}
	teardown(&fixture);
}

/* Mounts of others are none of ours. */
static void test_device(void)
{
	g_assert_cmpuint(mountpoint_device("/"), ==, 0);
	g_assert_cmpuint(mountpoint_device("/proc"), ==, 0);
	g_assert_cmpuint(mountpoint_device("/nowhere"), ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/mountpoint/good", test_good);
	g_test_add_func("/mountpoint/bad", test_bad);
	g_test_add_func("/mountpoint/device", test_device);
	return g_test_run();
}
