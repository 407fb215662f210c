/* SPDX-License-Identifier: MIT */
/* The command line: what each option sets, and what is refused with which words. */
#include "session/command_line.h"

#include <glib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "cache/mapping.h"

#define ARGS_MAX 16

/* What "cachetd ..." makes of words, which are separated by blanks. */
static bool parse(struct options *options, const char *words, GError **error)
{
	g_autofree char *line = g_strconcat("cachetd ", words, NULL);
	g_auto(GStrv) split = g_strsplit(line, " ", -1);
	char *argv[ARGS_MAX + 1] = { NULL };
	int argc = 0;

	/* GLib takes words out of the array, so it gets a copy of it. */
	for (; split[argc]; argc++) {
		g_assert_cmpint(argc, <, ARGS_MAX);
		argv[argc] = split[argc];
	}
	return command_line_parse(options, argc, argv, error);
}

static void parse_good(struct options *options, const char *words)
{
	g_autoptr(GError) error = NULL;
	bool ok = parse(options, words, &error);

	g_assert_no_error(error);
	g_assert_true(ok);
}

/* Return: the message. */
static char *refused(const char *words)
{
	g_autoptr(GError) error = NULL;
	struct options options;
	bool ok = parse(&options, words, &error);

	if (ok)
		g_test_message("accepted: %s", words);
	g_assert_false(ok);
	g_assert_nonnull(error);
	g_assert_true(error->domain == G_OPTION_ERROR);
	options_clear(&options);
	return g_strdup(error->message);
}

static void assert_refused(const char *words, const char *because)
{
	g_autofree char *message = refused(words);

	if (!strstr(message, because))
		g_test_message("%s: %s", words, message);
	g_assert_nonnull(strstr(message, because));
}

static void test_defaults(void)
{
	struct options options;

	parse_good(&options, "/mnt");
	g_assert_cmpstr(options.mountpoint, ==, "/mnt");
	g_assert_false(options.foreground);
	g_assert_false(options.debug);
	g_assert_false(options.help);
	g_assert_false(options.version);
	g_assert_false(options.io_uring);
	g_assert_true(options.allow_other == (geteuid() == 0));
	g_assert_true(options.default_permissions);
	g_assert_cmpint(options.io, ==, IO_AUTO);
	g_assert_cmpuint(options.mount->len, ==, 0);
	g_assert_cmpuint(options.filesystem.pages, ==, 0);
	g_assert_cmpuint(options.filesystem.nr_inodes, ==, 0);
	g_assert_cmpuint(options.filesystem.user_pages, ==, 0);
	g_assert_cmpuint(options.filesystem.user_inodes, ==, 0);
	g_assert_cmpuint(options.filesystem.root_uid, ==, geteuid());
	g_assert_cmpuint(options.filesystem.root_gid, ==, getegid());
	g_assert_cmpuint(options.filesystem.root_mode, ==, 01777);
	g_assert_cmpint(options.filesystem.seal_timeout_ms, ==, 150);
	options_clear(&options);
	options_clear(&options); /* twice does no harm */
}

static void test_words(void)
{
	static const struct {
		const char *words;
		bool foreground, debug, help, version;
	} cases[] = {
		{ "-f /m", true, false, false, false },
		{ "/m --foreground", true, false, false, false },
		{ "-d /m", true, true, false, false },
		{ "--debug /m", true, true, false, false },
		{ "-fd /m", true, true, false, false },
		{ "-h", false, false, true, false },
		{ "--help", false, false, true, false },
		{ "-V", false, false, false, true },
		{ "--version -f", true, false, false, true },
		{ "-h -o nonsense", false, false, true, false },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		struct options options;

		parse_good(&options, cases[i].words);
		g_assert_true(options.foreground == cases[i].foreground);
		g_assert_true(options.debug == cases[i].debug);
		g_assert_true(options.help == cases[i].help);
		g_assert_true(options.version == cases[i].version);
		options_clear(&options);
	}
	assert_refused("", "which mount point");
	assert_refused("-f", "which mount point");
	assert_refused("/a /b", "\"/b\"");
	assert_refused("--nonsense /m", "nonsense");
	assert_refused("/m -o", "-o");
}

/* The value of a short option may follow at once, and after flags. */
static void test_attached_values(void)
{
	static const char *const cases[] = {
		"/m -onr_inodes=7", "-onr_inodes=7 /m",     "-fonr_inodes=7 /m", "-fo nr_inodes=7 /m",
		"-dfo nr_inodes=7 /m", "-onr_inodes=7 -- /m", "-fo nr_inodes=3 -onr_inodes=7 /m",
		"--options nr_inodes=7 /m", "--options=nr_inodes=7 /m", "-c/dev/null -onr_inodes=7 /m",
		"-fc /dev/null -onr_inodes=7 /m", "--config /dev/null -onr_inodes=7 /m",
	};
	struct options options;

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		parse_good(&options, cases[i]);
		g_assert_cmpuint(options.filesystem.nr_inodes, ==, 7);
		g_assert_cmpstr(options.mountpoint, ==, "/m");
		options_clear(&options);
	}
	/* What is no option is left as it is. */
	parse_good(&options, "-o ro -- -oro");
	g_assert_cmpstr(options.mountpoint, ==, "-oro");
	options_clear(&options);
	assert_refused("-o -oro /m", "\"-oro\"");
	assert_refused("-xoro /m", "-xoro");
	assert_refused("-o", "-o");
}

static void test_valued(void)
{
	struct options options;

	parse_good(&options, "/m -o io=daemon,size=8k,nr_inodes=12 -o uid=7,gid=8,mode=750 "
			     "-o usersize=1m,userinodes=2k -o seal_timeout=0,io_uring");
	g_assert_cmpint(options.io, ==, IO_DAEMON);
	g_assert_cmpuint(options.filesystem.pages, ==, 8192 / PAGE_BYTES);
	g_assert_cmpuint(options.filesystem.nr_inodes, ==, 12);
	g_assert_cmpuint(options.filesystem.root_uid, ==, 7);
	g_assert_cmpuint(options.filesystem.root_gid, ==, 8);
	g_assert_cmpuint(options.filesystem.root_mode, ==, 0750);
	g_assert_cmpuint(options.filesystem.user_pages, ==, (1 << 20) / PAGE_BYTES);
	g_assert_cmpuint(options.filesystem.user_inodes, ==, 2048);
	g_assert_cmpint(options.filesystem.seal_timeout_ms, ==, 0);
	g_assert_true(options.io_uring);
	options_clear(&options);

	/* The last word counts. */
	parse_good(&options, "/m -o io=daemon,io=kernel -o io=auto,mode=0,mode=7777");
	g_assert_cmpint(options.io, ==, IO_AUTO);
	g_assert_cmpuint(options.filesystem.root_mode, ==, 07777);
	options_clear(&options);
	parse_good(&options, "/m -o io=kernel,,seal_timeout=2147483647,");
	g_assert_cmpint(options.io, ==, IO_KERNEL);
	g_assert_cmpint(options.filesystem.seal_timeout_ms, ==, G_MAXINT32);
	options_clear(&options);
}

static void test_sizes(void)
{
	static const struct {
		const char *text;
		guint64 bytes;
	} sizes[] = {
		{ "1", 1 },
		{ "4096", 4096 },
		{ "4097", 4097 },
		{ "1k", 1 << 10 },
		{ "3K", 3 << 10 },
		{ "5m", 5 << 20 },
		{ "5M", 5 << 20 },
		{ "2g", G_GUINT64_CONSTANT(2) << 30 },
		{ "7G", G_GUINT64_CONSTANT(7) << 30 },
		{ "1t", G_GUINT64_CONSTANT(1) << 40 },
		{ "8388607t", G_GUINT64_CONSTANT(8388607) << 40 },
		{ "9223372036854775807", G_MAXINT64 },
	};
	struct sysinfo machine;
	guint64 memory;

	for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
		g_autofree char *words = g_strdup_printf("/m -o size=%s,nr_inodes=%s",
							 sizes[i].text, sizes[i].text);
		struct options options;

		parse_good(&options, words);
		g_assert_cmpuint(options.filesystem.pages, ==,
				 sizes[i].bytes / PAGE_BYTES + (sizes[i].bytes % PAGE_BYTES != 0));
		g_assert_cmpuint(options.filesystem.nr_inodes, ==, sizes[i].bytes);
		options_clear(&options);
	}
	g_assert_cmpint(sysinfo(&machine), ==, 0);
	memory = (guint64)machine.totalram * machine.mem_unit;
	for (unsigned percent = 1; percent <= 100; percent++) {
		g_autofree char *words = g_strdup_printf("/m -o size=%u%%", percent);
		struct options options;
		double share;

		parse_good(&options, words);
		share = (double)options.filesystem.pages * PAGE_BYTES / memory;
		g_assert_cmpfloat_with_epsilon(share, percent / 100., 1e-4);
		options_clear(&options);
	}
}

static void test_bad_values(void)
{
	static const char *const numbers[] = {
		"", "0", "-1", "+1", "1.5", "k", "0k", "1kk", "1p", "k1", "0x10", "1e3", "1%%", "%",
		"9223372036854775808", "18446744073709551616", "8388608t", "8796093022208m",
		"9007199254740992k", "8589934592g", "99999999999999999999999k",
	};
	static const char *const percents[] = { "0%", "101%", "-5%", "1.5%", "%", "5%%", "5k%",
						"18446744073709551617%" };
	static const char *const others[] = {
		"io", "io=", "io=Kernel", "io=both", "io=autokernel",
		"uid", "uid=", "uid=-1", "uid=root", "uid=4294967295", "uid=1k",
		"gid", "gid=", "gid=-1", "gid=4294967295", "gid=99999999999999999999",
		"mode", "mode=", "mode=8", "mode=10000", "mode=-1", "mode=rwx", "mode=0o777",
		"seal_timeout", "seal_timeout=", "seal_timeout=-1", "seal_timeout=2147483648",
		"seal_timeout=1s",
	};

	for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
		static const char *const keys[] = { "size", "nr_inodes", "usersize", "userinodes" };

		for (size_t k = 0; k < G_N_ELEMENTS(keys); k++) {
			g_autofree char *words = g_strdup_printf("/m -o %s=%s", keys[k],
								 numbers[i]);

			assert_refused(words, keys[k]);
		}
	}
	for (size_t i = 0; i < G_N_ELEMENTS(percents); i++) {
		g_autofree char *size = g_strdup_printf("/m -o size=%s", percents[i]);
		g_autofree char *inodes = g_strdup_printf("/m -o nr_inodes=%s", percents[i]);

		assert_refused(size, "size");
		assert_refused(inodes, "nr_inodes");
	}
	for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
		g_autofree char *words = g_strdup_printf("/m -o %s", others[i]);
		g_autofree char *key = g_strndup(others[i], strcspn(others[i], "="));

		assert_refused(words, key);
	}
	assert_refused("/m -o size", "size");
	assert_refused("/m -o nr_inodes", "nr_inodes");
	/* One bad word spoils the others, wherever it stands. */
	assert_refused("/m -o io=daemon,mode=9,size=1m", "mode");
}

static void test_switches(void)
{
	struct options options;

	parse_good(&options, "/m -o io_uring,allow_other,default_permissions");
	g_assert_true(options.io_uring);
	g_assert_true(options.allow_other);
	g_assert_true(options.default_permissions);
	options_clear(&options);
	parse_good(&options, "/m -o noio_uring,noallow_other,nodefault_permissions");
	g_assert_false(options.io_uring);
	g_assert_false(options.allow_other);
	g_assert_false(options.default_permissions);
	options_clear(&options);
	parse_good(&options, "/m -o io_uring,noio_uring,noallow_other,allow_other");
	g_assert_false(options.io_uring);
	g_assert_true(options.allow_other);
	options_clear(&options);
	assert_refused("/m -o io_uring=1", "unknown");
	assert_refused("/m -o noio_uring=yes", "unknown");
	assert_refused("/m -o nonoio_uring", "unknown");
	assert_refused("/m -o no", "unknown");
	assert_refused("/m -o nosize=1", "unknown");
}

static void test_common(void)
{
	static const char *const passed[] = { "ro", "nosuid", "nodev", "noatime", "fsname=models",
					      "auto_unmount", "nodiratime", "nosymfollow" };
	struct options options;

	parse_good(&options, "/m -o ro,defaults,nosuid,noauto,user,nodev,x-systemd.automount "
			     "-o nofail,_netdev,noatime,fsname=models,comment=hello,auto_unmount,"
			     "nodiratime,nosymfollow,atime,lazytime,silent,X-mount.mkdir,group");
	g_assert_cmpuint(options.mount->len, ==, G_N_ELEMENTS(passed));
	for (unsigned i = 0; i < G_N_ELEMENTS(passed); i++)
		g_assert_cmpstr(g_ptr_array_index(options.mount, i), ==, passed[i]);
	options_clear(&options);
	/* Nobody may slip an option to libfuse that we do not know. */
	assert_refused("/m -o subtype=ext4", "unknown");
	assert_refused("/m -o max_read=1", "unknown");
	assert_refused("/m -o RO", "unknown");
	assert_refused("/m -o io", "io");
	assert_refused("/m -o =1", "unknown");
}

static void test_limits_need_daemon(void)
{
	struct options options;

	assert_refused("/m -o io=kernel,size=1m", "size=");
	assert_refused("/m -o size=1m -o io=kernel", "io=daemon");
	assert_refused("/m -o io=kernel,usersize=1m", "usersize=");
	parse_good(&options, "/m -o io=kernel,nr_inodes=5,userinodes=2");
	options_clear(&options);
	parse_good(&options, "/m -o size=1m,io=auto");
	options_clear(&options);
}

/* The list may come from elsewhere, on top of what was parsed. */
static void test_list(void)
{
	g_autoptr(GError) error = NULL;
	struct options options;

	parse_good(&options, "/m -o mode=700");
	g_assert_true(options_parse_list(&options, "", &error));
	g_assert_true(options_parse_list(&options, ",,uid=5,", &error));
	g_assert_no_error(error);
	g_assert_cmpuint(options.filesystem.root_mode, ==, 0700);
	g_assert_cmpuint(options.filesystem.root_uid, ==, 5);
	g_assert_false(options_parse_list(&options, "uid=6,nonsense", &error));
	g_assert_error(error, G_OPTION_ERROR, G_OPTION_ERROR_UNKNOWN_OPTION);
	options_clear(&options);
}

/* One from the key file may have a comma, which would make two of it for libfuse. */
static void test_one(void)
{
	g_autoptr(GError) error = NULL;
	struct options options;

	parse_good(&options, "/m");
	g_assert_true(options_parse_one(&options, "fsname=models", &error));
	g_assert_no_error(error);
	g_assert_false(options_parse_one(&options, "fsname=models,max_read=1", &error));
	g_assert_error(error, G_OPTION_ERROR, G_OPTION_ERROR_UNKNOWN_OPTION);
	g_assert_cmpuint(options.mount->len, ==, 1);
	options_clear(&options);
}

static void test_usage(void)
{
	static const char *const names[] = {
		"io=",  "size=", "nr_inodes=",    "usersize=", "userinodes=", "uid=",
		"gid=", "mode=", "seal_timeout=", "io_uring",  "allow_other", "default_permissions",
	};

	for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
		g_assert_nonnull(strstr(command_line_usage(), names[i]));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/options/defaults", test_defaults);
	g_test_add_func("/options/words", test_words);
	g_test_add_func("/options/attached-values", test_attached_values);
	g_test_add_func("/options/valued", test_valued);
	g_test_add_func("/options/sizes", test_sizes);
	g_test_add_func("/options/bad-values", test_bad_values);
	g_test_add_func("/options/switches", test_switches);
	g_test_add_func("/options/common", test_common);
	g_test_add_func("/options/limits-need-daemon", test_limits_need_daemon);
	g_test_add_func("/options/list", test_list);
	g_test_add_func("/options/one", test_one);
	g_test_add_func("/options/usage", test_usage);
	return g_test_run();
}
