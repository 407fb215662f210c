/* SPDX-License-Identifier: MIT */
/*
 * Whose io_uring may hold pages of a file: what /proc tells of registered buffers.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/**
 * struct procring - one registered buffer
 * @start:  address in the process that it was registered from
 * @length: bytes
 * @offset: in the file, when @mapped
 * @mapped: the process still maps the file there. Otherwise nothing is mapped there any more: the
 *          buffer may be of this file, or of another one.
 */
struct procring {
	pid_t pid;
	uint64_t start;
	uint64_t length;
	uint64_t offset;
	bool mapped;
};

/**
 * procrings_buffer() - read a line that follows "UserBufs:"
 * @line: of /proc/PID/fdinfo/FD
 * @start: out: address
 * @length: out: bytes
 *
 * A table of buffers may have thousands of free slots.
 * Context: any.
 * Return: true for a buffer; false for a free slot, or what is no slot.
 */
bool procrings_buffer(const char *line, uint64_t *start, uint64_t *length);

/**
 * procrings_scan() - visit the registered buffers that may hold pages of a file
 * @device: of the mount
 * @ino: of the file
 * @visit: called for each
 * @data: for @visit
 *
 * Processes that this one may not look into are left out, as are its own rings.
 * Context: sleeps; time in proportion to the descriptors of all processes.
 */
void procrings_scan(dev_t device, uint64_t ino, void (*visit)(const struct procring *, void *),
		    void *data);
