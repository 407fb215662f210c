/* SPDX-License-Identifier: MIT */
/* Copying bytes into a file of a mount. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/**
 * enum copy_direct - may the disk write into the target's memory by itself?
 *
 * AUTO: where that is possible and faster; ALWAYS: else refuse; NEVER: read() and write().
 */
enum copy_direct {
	COPY_DIRECT_AUTO,
	COPY_DIRECT_ALWAYS,
	COPY_DIRECT_NEVER,
};

/**
 * struct copy - one copy
 * @from:    borrows a descriptor
 * @to:      borrows a descriptor of an empty file, open for writing
 * @size:    of @from in bytes if it is a regular file
 * @regular: @from is a regular file: its holes are not copied
 * @direct:  how it is copied
 * @stop:    borrows; checked between two blocks: not 0 ends the copy with -EINTR
 * @moved:   called now and then with the bytes so far
 * @at_source: out: reading failed, not writing
 * @not_direct: out: refused because of COPY_DIRECT_ALWAYS
 * @done:    out: bytes, holes included
 */
struct copy {
	int from;
	int to;
	uint64_t size;
	bool regular;
	enum copy_direct direct;
	const volatile int *stop;
	void (*moved)(void *data, uint64_t bytes);
	void *data;
	bool at_source;
	bool not_direct;
	uint64_t done;
};

/**
 * copy_run() - copy until the end of the source
 *
 * The file may be left half-filled.
 * Return: 0 or a negative errno.
 */
int copy_run(struct copy *copy);
