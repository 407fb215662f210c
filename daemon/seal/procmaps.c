/* SPDX-License-Identifier: MIT */
/*
 * /proc/PID/maps shows a mapping made through passthrough under the device and number of the file
 * on the mount. Whether a mapping that is read-only now may become writable stands in
 * /proc/PID/smaps alone, which is slow, as it looks at every page; so it is read only for a process
 * that has a shared mapping of the file which is not writable at the moment.
 */
#include "seal/procmaps.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"

struct maps_line {
	struct procmap map;
	bool shared, writable;
	dev_t device;
	uint64_t ino;
};

static void close_file(FILE **file)
{
	if (*file)
		fclose(*file);
}

static void close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static bool maps_parse(const char *text, struct maps_line *line)
{
	uint64_t end;
	char perms[8];
	unsigned major, minor;

	if (sscanf(text, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %x:%x %" SCNu64,
		   &line->map.start, &end, perms, &line->map.offset, &major, &minor,
		   &line->ino) != 7)
		return false;
	line->map.length = end - line->map.start;
	line->shared = perms[3] == 's';
	line->writable = perms[1] == 'w';
	line->device = makedev(major, minor);
	return true;
}

/* The flag "mw" (may write) of the mapping at an address. */
static bool smaps_may_write(pid_t pid, uint64_t start)
{
	char path[64];
	at_end(close_file) FILE *file = NULL;
	auto_free char *text = NULL;
	size_t size = 0;
	bool ours = false;

	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	file = fopen(path, "re");
	while (file && getline(&text, &size, file) > 0) {
		struct maps_line line;

		if (maps_parse(text, &line))
			ours = line.map.start == start;
		else if (ours && strncmp(text, "VmFlags:", 8) == 0)
			return strstr(text, " mw") != NULL;
	}
	return false;
}

/* Return: false when @visit wants no more. */
static bool process_scan(pid_t pid, dev_t device, uint64_t ino,
			 bool (*visit)(const struct procmap *, void *), void *data)
{
	char path[64];
	at_end(close_file) FILE *file = NULL;
	auto_free char *text = NULL;
	size_t size = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	file = fopen(path, "re");
	while (file && getline(&text, &size, file) > 0) {
		struct maps_line line;

		if (!maps_parse(text, &line) || !line.shared || line.ino != ino ||
		    line.device != device)
			continue;
		line.map.pid = pid;
		if (!line.writable && !smaps_may_write(pid, line.map.start))
			continue;
		if (!visit(&line.map, data))
			return false;
	}
	return true;
}

int procmaps_scan(dev_t device, uint64_t ino, bool (*visit)(const struct procmap *, void *),
		  void *data)
{
	at_end(close_dir) DIR *proc = opendir("/proc");
	struct dirent *entry;

	if (!proc)
		return -EPERM;
	while ((entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    !process_scan(atoi(entry->d_name), device, ino, visit, data))
			break;
	return 0;
}

static bool found_one(const struct procmap *map, void *data)
{
	(void)map;
	*(bool *)data = true;
	return false;
}

bool procmaps_any_writable(dev_t device, uint64_t ino)
{
	bool found = false;

	procmaps_scan(device, ino, found_one, &found);
	return found;
}

enum procmaps_found procmaps_look(pid_t pid, uint64_t start, uint64_t length, dev_t device,
				  uint64_t ino, struct procmap *map)
{
	char path[64];
	at_end(close_file) FILE *file = NULL;
	auto_free char *text = NULL;
	size_t size = 0;
	enum procmaps_found found = PROCMAPS_NOTHING;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	file = fopen(path, "re");
	while (file && getline(&text, &size, file) > 0) {
		struct maps_line line;

		if (!maps_parse(text, &line) || line.map.start + line.map.length <= start)
			continue;
		if (line.map.start >= start + length)
			break;
		found = PROCMAPS_OTHER;
		if (line.shared && line.ino == ino && line.device == device) {
			*map = line.map;
			map->pid = pid;
			return PROCMAPS_FILE;
		}
	}
	return found;
}
