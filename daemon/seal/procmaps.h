/* SPDX-License-Identifier: MIT */
/*
 * Who maps a file shared and could write to it: what /proc tells. The kernel itself only says that
 * somebody does.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/**
 * struct procmap - one shared mapping that is, or may become, writable
 * @start:  address in the process
 * @length: bytes
 * @offset: of its first byte in the file
 */
struct procmap {
	pid_t pid;
	uint64_t start;
	uint64_t length;
	uint64_t offset;
};

/**
 * procmaps_scan() - visit the mappings of a file
 * @device: of the mount
 * @ino: of the file
 * @visit: returns false to end the scan
 * @data: for @visit
 *
 * Processes that this one may not look into are left out, as are mappings that come and go, and
 * processes whose map is locked for LOOK_PATIENCE_MS (seal/proclook.h).
 * Context: sleeps; time in proportion to the mappings of all processes.
 * Return: 0; -EPERM (there is no /proc).
 */
int procmaps_scan(dev_t device, uint64_t ino, bool (*visit)(const struct procmap *, void *),
		  void *data);

/**
 * procmaps_any_writable() - is there such a mapping?
 * Context: as procmaps_scan().
 * Return: true when one was found.
 */
bool procmaps_any_writable(dev_t device, uint64_t ino);

enum procmaps_found {
	PROCMAPS_NOTHING, /* nothing is mapped there, or we may not, or cannot, look */
	PROCMAPS_FILE,	  /* the file, at least in part */
	PROCMAPS_OTHER,	  /* something else */
};

/**
 * procmaps_look() - what does a process map at a range of addresses?
 * @pid: the process
 * @start: address
 * @length: bytes
 * @device: of the mount
 * @ino: of the file
 * @map: out: the first mapping of the file in the range, when that was found
 * Context: sleeps.
 * Return: what was found.
 */
enum procmaps_found procmaps_look(pid_t pid, uint64_t start, uint64_t length, dev_t device,
				  uint64_t ino, struct procmap *map);
