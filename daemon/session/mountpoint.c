/* SPDX-License-Identifier: MIT */
#include "session/mountpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
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
			    G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL,
			    NULL, &status, NULL) &&
	       status == 0;
}

/* Paths in mountinfo have blanks and the like as octal escapes. */
static bool mountinfo_is(const char *escaped, const char *path)
{
	g_autofree char *plain = g_strcompress(escaped);

	return g_str_equal(plain, path);
}

/* Is the topmost mount at a path one of ours? */
static bool mountpoint_find(const char *path, dev_t *device)
{
	g_autofree char *text = NULL;
	g_auto(GStrv) lines = NULL;
	bool ours = false;

	if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
		return false;
	lines = g_strsplit(text, "\n", -1);
	for (char **line = lines; *line; line++) {
		g_auto(GStrv) fields = g_strsplit(*line, " ", 6);
		unsigned major, minor;

		if (g_strv_length(fields) < 6 || !mountinfo_is(fields[4], path) ||
		    sscanf(fields[2], "%u:%u", &major, &minor) != 2)
			continue;
		/* Later lines are mounts on top of earlier ones. */
		ours = strstr(fields[5], " - fuse.cachet ") != NULL;
		if (device)
			*device = makedev(major, minor);
	}
	return ours;
}

/*
 * What is the matter with the directory? A dead mount answers stat() from the kernel's cache; only
 * statfs() must ask the daemon.
 * Return: 0 or errno.
 */
static int mountpoint_check(const char *path)
{
	struct statvfs fs;
	struct stat st;

	if (stat(path, &st) || statvfs(path, &fs))
		return errno;
	return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
}

char *mountpoint_prepare(const char *path, GError **error)
{
	g_autofree char *absolute = mountpoint_absolute(path);
	int failed = mountpoint_check(absolute);

	if (failed == ENOTCONN || failed == ECONNABORTED) {
		log_warning("%s: the daemon of this mount is dead; unmounting it", absolute);
		if (!mountpoint_detach(absolute)) {
			g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED,
				    "%s: a dead mount is in the way and cannot be removed; try "
				    "\"umount -l %s\" as root",
				    absolute, absolute);
			return NULL;
		}
		failed = mountpoint_check(absolute);
	}
	if (failed) {
		g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED, "%s: %s", absolute,
			    g_strerror(failed));
		return NULL;
	}
	if (mountpoint_find(absolute, NULL)) {
		g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_EXIST,
			    "%s: another cachetd serves this mount point", absolute);
		return NULL;
	}
	return g_steal_pointer(&absolute);
}

dev_t mountpoint_device(const char *path)
{
	dev_t device = 0;

	return mountpoint_find(path, &device) ? device : 0;
}
