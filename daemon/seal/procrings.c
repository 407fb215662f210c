/* SPDX-License-Identifier: MIT */
/*
 * /proc/PID/fdinfo/FD of an io_uring has a line "UserBufs: N" and then, for each buffer, its
 * number, the address that it was registered from, and its length. A free slot has "<none>", or
 * on Linux 6.12 and before the last address there is. The pages stay pinned when the
 * process unmaps them, and then the address is all that is left; so a buffer whose address maps
 * nothing is suspect, one whose address maps something else is not.
 *
 * The kernel does not wait for the ring's lock: while its process submits requests it leaves the
 * buffers out. They are asked for a few times then; a submission that blocks lasts longer.
 */
#include "seal/procrings.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "seal/procmaps.h"

#define RING_LINK "anon_inode:[io_uring]"
#define RING_TRIES 10
#define RING_RETRY_MS 1

struct scan {
	dev_t device;
	uint64_t ino;
	pid_t pid;
	void (*visit)(const struct procring *, void *);
	void *data;
};

static void buffer_scan(struct scan *scan, uint64_t start, uint64_t length)
{
	struct procring ring = { .pid = scan->pid, .start = start, .length = length };
	struct procmap map;

	switch (procmaps_look(scan->pid, start, length, scan->device, scan->ino, &map)) {
	case PROCMAPS_FILE:
		ring.mapped = true;
		ring.offset = map.offset + (start > map.start ? start - map.start : 0);
		break;
	case PROCMAPS_OTHER:
		return;
	case PROCMAPS_NOTHING:
		break;
	}
	scan->visit(&ring, scan->data);
}

bool procrings_buffer(const char *line, uint64_t *start, uint64_t *length)
{
	return sscanf(line, " %*u: %" SCNx64 "/%" SCNu64, start, length) == 2 &&
	       *start <= INT64_MAX;
}

/* Return: false when the kernel has told nothing, because somebody had the ring's lock. */
static bool ring_scan(struct scan *scan, const char *fd)
{
	char path[64];
	auto_file file = NULL;
	auto_free char *text = NULL;
	size_t size = 0;
	unsigned left = 0;
	bool told;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%.16s", scan->pid, fd);
	file = fopen(path, "re");
	told = !file;
	while (file && getline(&text, &size, file) > 0) {
		uint64_t start, length;
		unsigned number;

		if (sscanf(text, "UserBufs: %u", &left) == 1) {
			told = !left;
		} else if (left) {
			if (sscanf(text, " %u:", &number) != 1)
				break;
			told = true;
			if (procrings_buffer(text, &start, &length))
				buffer_scan(scan, start, length);
			left--;
		}
	}
	return told;
}

static void ring_scan_patiently(struct scan *scan, const char *fd)
{
	for (unsigned tries = 0; !ring_scan(scan, fd) && tries < RING_TRIES; tries++)
		nanosleep(&(struct timespec){ .tv_nsec = RING_RETRY_MS * 1000000L }, NULL);
}

static void process_scan(struct scan *scan)
{
	char path[64];
	auto_dir fds = NULL;
	struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%d/fd", scan->pid);
	fds = opendir(path);
	while (fds && (entry = readdir(fds))) {
		char target[sizeof(RING_LINK)];
		ssize_t length = readlinkat(dirfd(fds), entry->d_name, target, sizeof(target));

		if (length == (ssize_t)strlen(RING_LINK) && !memcmp(target, RING_LINK, length))
			ring_scan_patiently(scan, entry->d_name);
	}
}

void procrings_scan(dev_t device, uint64_t ino, void (*visit)(const struct procring *, void *),
		    void *data)
{
	struct scan scan = { .device = device, .ino = ino, .visit = visit, .data = data };
	auto_dir proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		scan.pid = atoi(entry->d_name);
		if (scan.pid != getpid())
			process_scan(&scan);
	}
}
