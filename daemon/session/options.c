/* SPDX-License-Identifier: MIT */
#include "session/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define SEAL_TIMEOUT_DEFAULT_MS 150
#define ROOT_MODE_DEFAULT 01777

void options_init(struct options *options)
{
	bool root = geteuid() == 0;

	*options = (struct options){
		.allow_other = root,
		.default_permissions = true,
		.io = IO_AUTO,
		.mount = g_ptr_array_new_with_free_func(g_free),
		.filesystem = {
			.root_uid = geteuid(),
			.root_gid = getegid(),
			.root_mode = ROOT_MODE_DEFAULT,
			.seal_timeout_ms = SEAL_TIMEOUT_DEFAULT_MS,
		},
	};
}

void options_clear(struct options *options)
{
	g_free(options->mountpoint);
	if (options->mount)
		g_ptr_array_unref(options->mount);
	memset(options, 0, sizeof(*options));
}

static bool bad_value(GError **error, const char *key, const char *value, const char *expected)
{
	g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
		    "option %s: \"%s\" is not %s", key, value ? value : "", expected);
	return false;
}

static bool parse_number(const char *key, const char *value, int base, guint64 max, guint64 *number,
			 GError **error)
{
	if (value && g_ascii_string_to_unsigned(value, base, 0, max, number, NULL))
		return true;
	return bad_value(error, key, value, base == 8 ? "an octal mode" : "a number in range");
}

/* A number with k, m, g or t behind it. */
static bool parse_scaled(const char *key, const char *value, guint64 *number, GError **error)
{
	static const char suffixes[] = "kmgt";
	g_autofree char *digits = g_strdup(value ? value : "");
	size_t length = strlen(digits);
	const char *suffix = length ? strchr(suffixes, g_ascii_tolower(digits[length - 1])) : NULL;
	unsigned shift = suffix ? 10 * (unsigned)(suffix - suffixes + 1) : 0;

	if (suffix)
		digits[length - 1] = '\0';
	if (!g_ascii_string_to_unsigned(digits, 10, 1, G_MAXINT64 >> shift, number, NULL))
		return bad_value(error, key, value, "a number above 0, with k, m or g");
	*number <<= shift;
	return true;
}

/* A size in bytes, or in per cent of the machine's memory. Becomes pages, rounded up. */
static bool parse_size(const char *key, const char *value, guint64 *pages, GError **error)
{
	guint64 bytes;

	if (value && g_str_has_suffix(value, "%")) {
		g_autofree char *digits = g_strndup(value, strlen(value) - 1);
		struct sysinfo machine;

		if (!g_ascii_string_to_unsigned(digits, 10, 1, 100, &bytes, NULL) ||
		    sysinfo(&machine))
			return bad_value(error, key, value, "a percentage from 1% to 100%");
		bytes = (guint64)machine.totalram * machine.mem_unit / 100 * bytes;
	} else if (!parse_scaled(key, value, &bytes, error)) {
		return false;
	}
	*pages = (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
	return true;
}

static bool parse_io(struct options *options, const char *value, GError **error)
{
	static const char *const names[] = {
		[IO_AUTO] = "auto",
		[IO_KERNEL] = "kernel",
		[IO_DAEMON] = "daemon",
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
		if (g_strcmp0(value, names[i]) == 0) {
			options->io = i;
			return true;
		}
	}
	return bad_value(error, "io", value, "auto, kernel or daemon");
}

static bool parse_valued(struct options *options, const char *key, const char *value, bool *known,
			 GError **error)
{
	struct filesystem_config *fs = &options->filesystem;
	guint64 number = 0;
	bool ok = true;

	*known = true;
	if (g_str_equal(key, "io"))
		return parse_io(options, value, error);
	if (g_str_equal(key, "size"))
		return parse_size(key, value, &fs->pages, error);
	if (g_str_equal(key, "nr_inodes"))
		return parse_scaled(key, value, &fs->nr_inodes, error);
	if (g_str_equal(key, "usersize"))
		return parse_size(key, value, &fs->user_pages, error);
	if (g_str_equal(key, "userinodes"))
		return parse_scaled(key, value, &fs->user_inodes, error);
	if (g_str_equal(key, "uid")) {
		ok = parse_number(key, value, 10, G_MAXUINT32 - 1, &number, error);
		fs->root_uid = number;
	} else if (g_str_equal(key, "gid")) {
		ok = parse_number(key, value, 10, G_MAXUINT32 - 1, &number, error);
		fs->root_gid = number;
	} else if (g_str_equal(key, "mode")) {
		ok = parse_number(key, value, 8, 07777, &number, error);
		fs->root_mode = number;
	} else if (g_str_equal(key, "seal_timeout")) {
		ok = parse_number(key, value, 10, G_MAXINT32, &number, error);
		fs->seal_timeout_ms = number;
	} else {
		*known = false;
	}
	return ok;
}

static bool parse_switch(struct options *options, const char *key)
{
	struct {
		const char *name;
		bool *value;
	} switches[] = {
		{ "io_uring", &options->io_uring },
		{ "allow_other", &options->allow_other },
		{ "default_permissions", &options->default_permissions },
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(switches); i++) {
		bool on = g_str_equal(key, switches[i].name);

		if (on || (g_str_has_prefix(key, "no") && g_str_equal(key + 2, switches[i].name))) {
			*switches[i].value = on;
			return true;
		}
	}
	return false;
}

/* The kernel leaves the times of access to us. */
static void take_atime(struct filesystem_config *fs, const char *key)
{
	fs->noatime = fs->noatime || g_str_equal(key, "noatime");
	fs->nodiratime = fs->nodiratime || g_str_equal(key, "nodiratime");
}

/* Options that any mount may have: for libfuse, or for who reads /etc/fstab. */
static bool parse_common(struct options *options, const char *text, const char *key)
{
	static const char *const passed[] = {
		"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "noatime",
		"nodiratime", "nosymfollow", "sync", "async", "dirsync", "fsname", "auto_unmount",
	};
	static const char *const ignored[] = {
		"defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group",
		"nofail", "_netdev", "atime", "diratime", "relatime", "norelatime", "strictatime",
		"nostrictatime", "lazytime", "nolazytime", "symfollow", "silent", "loud",
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(passed); i++) {
		if (g_str_equal(key, passed[i]) && !strchr(text, ',')) {
			g_ptr_array_add(options->mount, g_strdup(text));
			take_atime(&options->filesystem, key);
			return true;
		}
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(ignored); i++)
		if (g_str_equal(key, ignored[i]))
			return true;
	return g_ascii_strncasecmp(key, "x-", 2) == 0 || g_str_has_prefix(key, "comment");
}

bool options_parse_one(struct options *options, const char *text, GError **error)
{
	const char *equals = strchr(text, '=');
	g_autofree char *key = g_strndup(text, equals ? (gsize)(equals - text) : strlen(text));
	bool known;

	if (!parse_valued(options, key, equals ? equals + 1 : NULL, &known, error))
		return false;
	if (known || (!equals && parse_switch(options, key)) || parse_common(options, text, key))
		return true;
	g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_UNKNOWN_OPTION, "unknown option \"%s\"",
		    text);
	return false;
}

bool options_parse_list(struct options *options, const char *text, GError **error)
{
	g_auto(GStrv) parts = g_strsplit(text, ",", -1);

	for (char **part = parts; *part; part++)
		if (**part && !options_parse_one(options, *part, error))
			return false;
	return true;
}

bool options_check(const struct options *options, GError **error)
{
	if (!options->mountpoint) {
		g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED, "which mount point?");
		return false;
	}
	if (options->io == IO_KERNEL &&
	    (options->filesystem.pages || options->filesystem.user_pages)) {
		g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
			    "%s= cannot be enforced with io=kernel, where clients fill the memory "
			    "without asking; use io=daemon, or a memory cgroup",
			    options->filesystem.pages ? "size" : "usersize");
		return false;
	}
	return true;
}
