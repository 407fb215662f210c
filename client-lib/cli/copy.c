/* SPDX-License-Identifier: MIT */
/*
 * Plain read() and write() with a block that stays in the processor's cache: on tmpfs-backed files
 * this is as fast as sendfile(), and faster than a mapping on either side, whose page faults cost
 * more than the second copy. copy_file_range() between two file systems is no faster, and reaches
 * the daemon block by block.
 */
#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define BLOCK (1UL << 20)
#define ALIGNMENT 4096

static int write_block(struct copy *copy, const char *block, size_t length)
{
	while (length) {
		ssize_t count = write(copy->to, block, length);

		if (count < 0 && errno == EINTR && !*copy->stop)
			continue;
		if (count < 0)
			return -errno;
		block += count;
		length -= (size_t)count;
		copy->done += (uint64_t)count;
	}
	return 0;
}

/* Copy @length bytes, or until the source ends. Return: 1 at its end, 0, or a negative errno. */
static int copy_span(struct copy *copy, char *block, uint64_t length)
{
	while (length) {
		size_t wanted = length < BLOCK ? (size_t)length : BLOCK;
		ssize_t count;
		int result;

		if (*copy->stop)
			return -EINTR;
		count = read(copy->from, block, wanted);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0) {
			copy->at_source = true;
			return -errno;
		}
		if (count == 0)
			return 1;
		result = write_block(copy, block, (size_t)count);
		if (result)
			return result;
		length -= (uint64_t)count;
		copy->moved(copy->data, copy->done);
	}
	return 0;
}

/* Move both sides to the same place, behind a hole. */
static int copy_seek(struct copy *copy, off_t place)
{
	if (lseek(copy->from, place, SEEK_SET) < 0) {
		copy->at_source = true;
		return -errno;
	}
	if (lseek(copy->to, place, SEEK_SET) < 0)
		return -errno;
	copy->done = (uint64_t)place;
	return 0;
}

static int copy_with_holes(struct copy *copy, char *block)
{
	off_t data, hole = 0;

	while ((data = lseek(copy->from, hole, SEEK_DATA)) >= 0) {
		int result;

		hole = lseek(copy->from, data, SEEK_HOLE);
		if (hole < 0)
			hole = (off_t)copy->size;
		result = copy_seek(copy, data);
		if (result == 0)
			result = copy_span(copy, block, (uint64_t)(hole - data));
		if (result < 0)
			return result;
		if (result > 0)
			break; /* it became shorter */
	}
	/* No data any more: what is left is a hole. Any other error: there is no such call. */
	if (data < 0 && errno != ENXIO) {
		int result = copy_seek(copy, hole);

		return result ? result : copy_span(copy, block, UINT64_MAX);
	}
	data = lseek(copy->from, 0, SEEK_END);
	if (data >= 0 && (uint64_t)data > copy->done) {
		if (ftruncate(copy->to, data))
			return -errno;
		copy->done = (uint64_t)data;
	}
	return 0;
}

int copy_run(struct copy *copy)
{
	char *block = aligned_alloc(ALIGNMENT, BLOCK);
	int result;

	if (!block)
		return -ENOMEM;
	/* Files of /proc and the like say that they are empty. */
	if (copy->regular && copy->size)
		result = copy_with_holes(copy, block);
	else
		result = copy_span(copy, block, UINT64_MAX);
	free(block);
	return result < 0 ? result : 0;
}
