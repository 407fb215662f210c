/* SPDX-License-Identifier: MIT */
/*
 * /proc/PID/maps shows a mapping made through passthrough under the device and number of the file
 * on the mount. Whether a mapping that is read-only now may become writable stands in
 * /proc/PID/smaps alone, which is slow, as it looks at every page; so it is read only for a process
 * that has a shared mapping of the file which is not writable at the moment.
 *
 * Since 6.11 the kernel can be asked for the next mapping that is shared and has a file, which most
 * processes have none of; where it cannot, the text is read, which takes four times as long.
 */
#include "seal/procmaps.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"

/* From Linux 6.11; headers of older systems do not have them. */
struct maps_query {
	uint64_t size;
	uint64_t flags;
	uint64_t address;
	uint64_t start;
	uint64_t end;
	uint64_t vma_flags;
	uint64_t page_size;
	uint64_t offset;
	uint64_t ino;
	uint32_t major;
	uint32_t minor;
	uint32_t name_size;
	uint32_t build_id_size;
	uint64_t name;
	uint64_t build_id;
};
#define MAPS_QUERY _IOWR('f', 17, struct maps_query)
#define MAPS_QUERY_WRITABLE 0x02
#define MAPS_QUERY_SHARED 0x08
#define MAPS_QUERY_OR_NEXT 0x10
#define MAPS_QUERY_OF_FILE 0x20

struct maps_line {
	struct procmap map;
	bool shared, writable;
	dev_t device;
	uint64_t ino;
};

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
	auto_file file = NULL;
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

/* A scan for the mappings of one file. */
struct maps_scan {
	dev_t device;
	uint64_t ino;
	bool (*visit)(const struct procmap *map, void *data);
	void *data;
};

/* Return: false when no more is wanted. */
static bool maps_scan_found(const struct maps_scan *scan, const struct procmap *map, bool writable)
{
	if (!writable && !smaps_may_write(map->pid, map->start))
		return true;
	return scan->visit(map, scan->data);
}

/* Return: 1; 0 when no more is wanted; -ENOTTY when the kernel cannot be asked like this. */
static int process_query(pid_t pid, int fd, const struct maps_scan *scan)
{
	struct maps_query query = {
		.size = sizeof(query),
		.flags = MAPS_QUERY_OR_NEXT | MAPS_QUERY_SHARED | MAPS_QUERY_OF_FILE,
	};

	while (ioctl(fd, MAPS_QUERY, &query) == 0) {
		struct procmap map = {
			.pid = pid,
			.start = query.start,
			.length = query.end - query.start,
			.offset = query.offset,
		};

		if (query.ino == scan->ino && makedev(query.major, query.minor) == scan->device &&
		    !maps_scan_found(scan, &map, query.vma_flags & MAPS_QUERY_WRITABLE))
			return 0;
		query.address = query.end;
	}
	/* ENOENT: there is none any more; ESRCH: the process has ended, or is the kernel's. */
	return errno == ENOTTY ? -ENOTTY : 1;
}

/* Return: false when no more is wanted. */
static bool process_scan(pid_t pid, const struct maps_scan *scan)
{
	char path[64];
	auto_file file = NULL;
	auto_free char *text = NULL;
	size_t size = 0;
	int fd, result;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	result = process_query(pid, fd, scan);
	if (result == -ENOTTY)
		file = fdopen(fd, "r");
	if (!file) {
		close(fd);
		return result != 0;
	}
	while (file && getline(&text, &size, file) > 0) {
		struct maps_line line;

		if (!maps_parse(text, &line) || !line.shared || line.ino != scan->ino ||
		    line.device != scan->device)
			continue;
		line.map.pid = pid;
		if (!maps_scan_found(scan, &line.map, line.writable))
			return false;
	}
	return true;
}

int procmaps_scan(dev_t device, uint64_t ino, bool (*visit)(const struct procmap *, void *),
		  void *data)
{
	const struct maps_scan scan = { device, ino, visit, data };
	auto_dir proc = opendir("/proc");
	struct dirent *entry;

	if (!proc)
		return -EPERM;
	while ((entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    !process_scan(atoi(entry->d_name), &scan))
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
	auto_file file = NULL;
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
