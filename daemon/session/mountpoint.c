/* SPDX-License-Identifier: MIT */
#include "session/mountpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

/* An absolute path that needs nothing of the directory itself, which may be a dead mount. */
static char *mountpoint_absolute(const char *path)
{
	g_autofree char *whole = g_canonicalize_filename(path, NULL);
	g_autofree char *parent = g_path_get_dirname(whole);
	g_autofree char *name = g_path_get_basename(whole);
	auto_free char *real = realpath(whole, NULL);

	if (real)
		return g_strdup(real);
	real = realpath(parent, NULL);
	return real ? g_build_filename(real, name, NULL) : g_steal_pointer(&whole);
}

/* As root by ourselves, else with the help of fusermount3, which checks whose mount it is. */
static bool mountpoint_detach(const char *path)
{
	const char *argv[] = { "fusermount3", "-u", "-z", "--", path, NULL };
	int status;

	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return true;
	return g_spawn_sync(NULL, (char **)argv, NULL,
			    G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL, NULL,
			    &status, NULL) &&
	       status == 0;
}

char *mountpoint_prepare(const char *path, GError **error)
{
	g_autofree char *absolute = mountpoint_absolute(path);
	struct stat st;
	int failed = stat(absolute, &st) ? errno : 0;

	if (failed == ENOTCONN || failed == ECONNABORTED) {
		log_warning("%s: the daemon of this mount is dead; unmounting it", absolute);
		if (!mountpoint_detach(absolute)) {
			g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED,
				    "%s: a dead mount is in the way and cannot be removed; try "
				    "\"umount -l %s\" as root",
				    absolute, absolute);
			return NULL;
		}
		failed = stat(absolute, &st) ? errno : 0;
	}
	if (failed || !S_ISDIR(st.st_mode)) {
		g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED, "%s: %s", absolute,
			    g_strerror(failed ? failed : ENOTDIR));
		return NULL;
	}
	return g_steal_pointer(&absolute);
}

/* Paths in mountinfo have blanks and the like as octal escapes. */
static bool mountinfo_is(const char *escaped, const char *path)
{
	g_autofree char *plain = g_strcompress(escaped);

	return g_str_equal(plain, path);
}

dev_t mountpoint_device(const char *path)
{
	g_autofree char *text = NULL;
	g_auto(GStrv) lines = NULL;
	dev_t device = 0;

	if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
		return 0;
	lines = g_strsplit(text, "\n", -1);
	for (char **line = lines; *line; line++) {
		g_auto(GStrv) fields = g_strsplit(*line, " ", 6);
		unsigned major, minor;

		if (g_strv_length(fields) < 5 || !mountinfo_is(fields[4], path) ||
		    sscanf(fields[2], "%u:%u", &major, &minor) != 2)
			continue;
		device = makedev(major, minor); /* the last one is on top */
	}
	return device;
}
