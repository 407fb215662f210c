/* SPDX-License-Identifier: MIT */
/*
 * /proc/PID/maps shows a mapping made through passthrough under the device and number of the file
 * on the mount. Whether a mapping that is read-only now may become writable stands in
 * /proc/PID/smaps alone, which is slow, as it looks at every page; so it is read only for a process
 * that has a shared mapping of the file which is not writable at the moment.
 *
 * Since 6.11 the kernel can be asked for the next mapping that is shared and has a file, which most
 * processes have none of; where it cannot, the text is read, which takes four times as long.
 *
 * All of this is read in a struct proclook, as it may never end.
 */
#include "seal/procmaps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <glib.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "seal/proclook.h"

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

/**
 * struct maps_look - a look for the mappings of one file
 * @pids:  of the processes; borrows
 * @begin: the first of them
 * @one:   one mapping is enough
 * @found: struct procmap of each; under @look's lock
 */
struct maps_look {
	struct proclook look;
	dev_t device;
	uint64_t ino;
	GArray *pids;
	unsigned begin;
	bool one;
	GArray *found;
};

/* The flag "mw" (may write) of the mapping at an address. */
static bool smaps_may_write(struct maps_look *maps, pid_t pid, uint64_t start)
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

		proclook_progress(&maps->look);
		if (maps_parse(text, &line))
			ours = line.map.start == start;
		else if (ours && strncmp(text, "VmFlags:", 8) == 0)
			return strstr(text, " mw") != NULL;
	}
	return false;
}

/* Return: false when no more is wanted. */
static bool maps_look_found(struct maps_look *maps, const struct procmap *map, bool writable)
{
	if (!writable && !smaps_may_write(maps, map->pid, map->start))
		return true;
	if (!proclook_enter(&maps->look))
		return false;
	g_array_append_val(maps->found, *map);
	proclook_leave(&maps->look);
	return !maps->one;
}

/* Return: 1; 0 when no more is wanted; -ENOTTY when the kernel cannot be asked like this. */
static int process_query(pid_t pid, int fd, struct maps_look *maps)
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

		proclook_progress(&maps->look);
		if (query.ino == maps->ino && makedev(query.major, query.minor) == maps->device &&
		    !maps_look_found(maps, &map, query.vma_flags & MAPS_QUERY_WRITABLE))
			return 0;
		query.address = query.end;
	}
	/* ENOENT: there is none any more; ESRCH: the process has ended, or is the kernel's. */
	return errno == ENOTTY ? -ENOTTY : 1;
}

/* Return: false when no more is wanted. */
static bool process_scan(pid_t pid, struct maps_look *maps)
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
	result = process_query(pid, fd, maps);
	if (result == -ENOTTY)
		file = fdopen(fd, "r");
	if (!file) {
		close(fd);
		return result != 0;
	}
	while (file && getline(&text, &size, file) > 0) {
		struct maps_line line;

		proclook_progress(&maps->look);
		if (!maps_parse(text, &line) || !line.shared || line.ino != maps->ino ||
		    line.device != maps->device)
			continue;
		line.map.pid = pid;
		if (!maps_look_found(maps, &line.map, line.writable))
			return false;
	}
	return true;
}

static void maps_look_run(struct proclook *look)
{
	struct maps_look *maps = container_of(look, struct maps_look, look);

	for (unsigned i = maps->begin; i < maps->pids->len; i++) {
		pid_t pid = g_array_index(maps->pids, pid_t, i);

		if (proclook_at(look, pid, i) && !process_scan(pid, maps))
			break;
	}
}

static void maps_look_free(struct proclook *look)
{
	struct maps_look *maps = container_of(look, struct maps_look, look);

	g_array_unref(maps->pids);
	g_array_unref(maps->found);
	g_free(maps);
}

static struct maps_look *maps_look_new(dev_t device, uint64_t ino, GArray *pids, unsigned begin,
				       bool one)
{
	struct maps_look *maps = g_new0(struct maps_look, 1);

	maps->look.run = maps_look_run;
	maps->look.free = maps_look_free;
	maps->device = device;
	maps->ino = ino;
	maps->pids = g_array_ref(pids);
	maps->begin = begin;
	maps->one = one;
	maps->found = g_array_new(FALSE, FALSE, sizeof(struct procmap));
	proclook_init(&maps->look);
	return maps;
}

/* Return: pid_t of all processes, or NULL when there is no /proc. */
static GArray *all_processes(void)
{
	auto_dir proc = opendir("/proc");
	struct dirent *entry;
	GArray *pids;

	if (!proc)
		return NULL;
	pids = g_array_new(FALSE, FALSE, sizeof(pid_t));
	while ((entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0)
			g_array_append_val(pids, pid);
	}
	return pids;
}

/* Appends what it finds to @found. Return: 0 at the end, or where to go on after who was lost. */
static unsigned collect_mappings(dev_t device, uint64_t ino, GArray *pids, unsigned begin, bool one,
				 GArray *found)
{
	struct maps_look *maps = maps_look_new(device, ino, pids, begin, one);
	/* Who locks one process may have locked a hundred. */
	unsigned patience_ms = begin ? LOOK_PATIENCE_MS / 20 : LOOK_PATIENCE_MS;
	bool lost = !proclook_run(&maps->look, patience_ms) && maps->look.given_up;
	unsigned next = lost ? maps->look.place + 1 : 0;

	g_array_append_vals(found, maps->found->data, maps->found->len);
	proclook_put(&maps->look);
	return next;
}

/* Return: struct procmap of the mappings, or of one of them; NULL when there is no /proc. */
static GArray *find_mappings(dev_t device, uint64_t ino, bool one)
{
	g_autoptr(GArray) pids = all_processes();
	GArray *found;
	unsigned next = 0;

	if (!pids)
		return NULL;
	found = g_array_new(FALSE, FALSE, sizeof(struct procmap));
	do
		next = collect_mappings(device, ino, pids, next, one, found);
	while (next && !(one && found->len));
	return found;
}

int procmaps_scan(dev_t device, uint64_t ino, bool (*visit)(const struct procmap *, void *),
		  void *data)
{
	g_autoptr(GArray) found = find_mappings(device, ino, false);

	if (!found)
		return -EPERM;
	for (unsigned i = 0; i < found->len; i++)
		if (!visit(&g_array_index(found, struct procmap, i), data))
			break;
	return 0;
}

bool procmaps_any_writable(dev_t device, uint64_t ino)
{
	g_autoptr(GArray) found = find_mappings(device, ino, true);

	return found && found->len;
}

/**
 * struct range_look - a look at what a process maps at a range of addresses
 * @found: under @look's lock, as is @map
 */
struct range_look {
	struct proclook look;
	pid_t pid;
	uint64_t start;
	uint64_t length;
	dev_t device;
	uint64_t ino;
	enum procmaps_found found;
	struct procmap map;
};

static enum procmaps_found range_look_read(struct range_look *range, struct procmap *map)
{
	char path[64];
	auto_file file = NULL;
	auto_free char *text = NULL;
	size_t size = 0;
	enum procmaps_found found = PROCMAPS_NOTHING;

	snprintf(path, sizeof(path), "/proc/%d/maps", range->pid);
	file = fopen(path, "re");
	while (file && getline(&text, &size, file) > 0) {
		struct maps_line line;

		proclook_progress(&range->look);
		if (!maps_parse(text, &line) || line.map.start + line.map.length <= range->start)
			continue;
		if (line.map.start >= range->start + range->length)
			break;
		found = PROCMAPS_OTHER;
		if (line.shared && line.ino == range->ino && line.device == range->device) {
			*map = line.map;
			map->pid = range->pid;
			return PROCMAPS_FILE;
		}
	}
	return found;
}

static void range_look_run(struct proclook *look)
{
	struct range_look *range = container_of(look, struct range_look, look);
	enum procmaps_found found;
	struct procmap map = { 0 };

	if (!proclook_at(look, range->pid, 0))
		return;
	found = range_look_read(range, &map);
	if (!proclook_enter(look))
		return;
	range->found = found;
	range->map = map;
	proclook_leave(look);
}

static void range_look_free(struct proclook *look)
{
	g_free(container_of(look, struct range_look, look));
}

enum procmaps_found procmaps_look(pid_t pid, uint64_t start, uint64_t length, dev_t device,
				  uint64_t ino, struct procmap *map)
{
	struct range_look *range = g_new0(struct range_look, 1);
	enum procmaps_found found;

	range->look.run = range_look_run;
	range->look.free = range_look_free;
	range->pid = pid;
	range->start = start;
	range->length = length;
	range->device = device;
	range->ino = ino;
	range->found = PROCMAPS_NOTHING;
	proclook_init(&range->look);
	proclook_run(&range->look, LOOK_PATIENCE_MS);
	found = range->found;
	*map = range->map;
	proclook_put(&range->look);
	return found;
}
