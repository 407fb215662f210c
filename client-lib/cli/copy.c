/* SPDX-License-Identifier: MIT */
/*
 * What a disk has goes into the target's memory by itself, see direct.c; the rest, and what cannot,
 * by read() and write().
 *
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

#include "direct.h"

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

/* What has arrived when it went wrong is kept, and the rest is read and written. */
static int copy_directly(struct copy *copy, struct direct *direct, uint64_t begin, uint64_t end)
{
	int result = direct_copy(direct, copy, begin, end);

	if (result == 0)
		return 0;
	if (direct_busy(direct) || copy->direct == COPY_DIRECT_ALWAYS) {
		copy->not_direct = result != -EINTR;
		return result;
	}
	direct_end(direct);
	copy->at_source = false;
	return 0;
}

/*
 * Copy from @data to @hole.
 * Return: 1 when the source ended before, 0, or a negative errno.
 */
static int copy_data(struct copy *copy, struct direct *direct, char *block, uint64_t data,
		     uint64_t hole)
{
	int result;

	copy->done = data;
	if (direct->from >= 0) {
		result = copy_directly(copy, direct, data, hole);
		if (result)
			return result;
	}
	result = copy_seek(copy, (off_t)copy->done);
	return result ? result : copy_span(copy, block, hole - copy->done);
}

static int copy_with_holes(struct copy *copy, struct direct *direct, char *block)
{
	bool lengthened = direct->from >= 0;
	off_t data, hole = 0;

	while ((data = lseek(copy->from, hole, SEEK_DATA)) >= 0) {
		int result;

		hole = lseek(copy->from, data, SEEK_HOLE);
		if (hole < 0)
			hole = (off_t)copy->size;
		if (hole < data)
			break; /* it became shorter */
		result = copy_data(copy, direct, block, (uint64_t)data, (uint64_t)hole);
		if (result < 0)
			return result;
		if (result > 0)
			break;
	}
	/* No data any more: what is left is a hole. Any other error: there is no such call. */
	if (data < 0 && errno != ENXIO) {
		int result = copy_seek(copy, hole);

		return result ? result : copy_span(copy, block, UINT64_MAX);
	}
	data = lseek(copy->from, 0, SEEK_END);
	if (data >= 0 && (uint64_t)data > copy->done)
		copy->done = (uint64_t)data;
	else if (!lengthened)
		return 0;
	return ftruncate(copy->to, (off_t)copy->done) ? -errno : 0;
}

/* Return: 0; whether it is open then is another question; or a negative errno. */
static int copy_begin_direct(struct copy *copy, struct direct *direct)
{
	bool always = copy->direct == COPY_DIRECT_ALWAYS;
	int result;

	if (copy->direct == COPY_DIRECT_NEVER)
		return 0;
	if (copy->regular)
		result = direct_begin(direct, copy->from, copy->to, copy->size, always);
	else
		result = -EINVAL;
	copy->not_direct = always && result;
	return always ? result : 0;
}

int copy_run(struct copy *copy)
{
	char *block = aligned_alloc(ALIGNMENT, BLOCK);
	struct direct direct = DIRECT_CLOSED;
	int result;

	if (!block)
		return -ENOMEM;
	result = copy_begin_direct(copy, &direct);
	/* Files of /proc and the like say that they are empty. */
	if (result == 0 && copy->regular && copy->size)
		result = copy_with_holes(copy, &direct, block);
	else if (result == 0)
		result = copy_span(copy, block, UINT64_MAX);
	direct_end(&direct);
	free(block);
	return result < 0 ? result : 0;
}
