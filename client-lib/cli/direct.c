/* SPDX-License-Identifier: MIT */
/*
 * The source is read with O_DIRECT into the target's own pages: a window of the target is mapped
 * and registered with an io_uring, which pins its pages, and the disk writes into them. No byte
 * passes through the processor or the page cache, and the source does not push other files out of
 * that.
 *
 * A pin like that, a writable map and a handle open for reading and writing are all that the
 * writers rule forbids, so none of them outlives direct_end(). The target is opened a second time
 * for it: the descriptor of the caller stays one that cannot map and does not stand in the way of a
 * seal.
 *
 * The processor has work all the same: the pages of a window are allocated, zeroed and pinned. So
 * there are two windows, and one is made while the disk fills the other.
 */
#include "direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cachet/cachet.h>

#define WINDOW (16UL << 20)
#define SMALLEST_WINDOW (256UL << 10)
#define BLOCK (1UL << 20)
#define READS (WINDOW / BLOCK * DIRECT_WINDOWS)
/* Below this size the ring costs more than it saves. */
#define LEAST (1UL << 20)

#ifndef __NR_cachestat
#define __NR_cachestat 451 /* on every architecture, since Linux 6.5 */
#endif

/* Is most of the source in memory? From there it is copied faster than read from a disk. */
static bool is_in_memory(int fd, uint64_t size)
{
	struct { uint64_t offset, length; } range = { 0, 0 };
	struct { uint64_t cached, dirty, writeback, evicted, recently_evicted; } pages = { 0 };

	/* Of a passthrough file the kernel finds no pages: they are the backing file's. */
	if (cachet_get_seals(fd) >= 0)
		return true;
	if (syscall(__NR_cachestat, fd, &range, &pages, 0))
		return false;
	return pages.cached * (uint64_t)sysconf(_SC_PAGESIZE) >= size / 2;
}

static int reopen(int fd, int flags)
{
	char path[32];
	int result;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	result = open(path, flags | O_CLOEXEC);
	return result < 0 ? -errno : result;
}

/* Offsets, lengths and addresses are multiples of pages, and of what the file system asks for. */
static uint64_t alignment_of(int fd)
{
	uint64_t alignment = (uint64_t)sysconf(_SC_PAGESIZE);
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN)) {
		if (stx.stx_dio_offset_align > alignment)
			alignment = stx.stx_dio_offset_align;
		if (stx.stx_dio_mem_align > alignment)
			alignment = stx.stx_dio_mem_align;
	}
#else
	(void)fd;
#endif
	return alignment;
}

/* Only io=kernel maps what is not sealed. */
static int try_map(int fd)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (base == MAP_FAILED)
		return -errno;
	munmap(base, size);
	return 0;
}

int direct_begin(struct direct *direct, int from, int to, uint64_t size, bool always)
{
	int result;

	if (!always && (size < LEAST || is_in_memory(from, size)))
		return -EOPNOTSUPP;
	direct->window = WINDOW;
	direct->from = reopen(from, O_RDONLY | O_DIRECT);
	result = direct->from;
	if (result >= 0) {
		direct->alignment = alignment_of(direct->from);
		direct->to = reopen(to, O_RDWR);
		result = direct->to < 0 ? direct->to : try_map(direct->to);
	}
	if (result == 0 && direct->alignment > SMALLEST_WINDOW)
		result = -EINVAL;
	if (result == 0)
		result = ring_begin(&direct->ring, READS, DIRECT_WINDOWS);
	if (result)
		direct_end(direct);
	return result;
}

void direct_end(struct direct *direct)
{
	ring_end(&direct->ring);
	for (unsigned i = 0; i < DIRECT_WINDOWS; i++)
		if (direct->windows[i].base)
			munmap(direct->windows[i].base, (size_t)direct->windows[i].length);
	if (direct->from >= 0)
		close(direct->from);
	if (direct->to >= 0)
		close(direct->to);
	*direct = (struct direct)DIRECT_CLOSED;
}

bool direct_busy(const struct direct *direct)
{
	for (unsigned i = 0; i < DIRECT_WINDOWS; i++)
		if (direct->windows[i].reads)
			return true;
	return false;
}

static int window_close(struct direct *direct, unsigned slot)
{
	struct direct_window *window = &direct->windows[slot];
	int result = ring_set_buffer(&direct->ring, slot, NULL, 0);

	munmap(window->base, (size_t)window->length);
	window->base = NULL;
	return result;
}

/* Map and pin @length bytes of the target, and queue the reads that fill them. */
static int window_open(struct direct *direct, unsigned slot, uint64_t offset, uint64_t length)
{
	struct direct_window *window = &direct->windows[slot];
	char *base = mmap(NULL, (size_t)length, PROT_READ | PROT_WRITE, MAP_SHARED, direct->to,
			  (off_t)offset);
	int result;

	if (base == MAP_FAILED)
		return -errno;
	result = ring_set_buffer(&direct->ring, slot, base, (size_t)length);
	if (result) {
		munmap(base, (size_t)length);
		return result;
	}
	*window = (struct direct_window){ .base = base, .offset = offset, .length = length };
	for (uint64_t at = 0; at < length; at += BLOCK) {
		unsigned part = (unsigned)(length - at < BLOCK ? length - at : BLOCK);

		/* Offsets are whole pages: there is room for the number of the window. */
		ring_read(&direct->ring, direct->from, slot, base + at, part, offset + at,
			  (offset + at) | slot);
		window->reads++;
	}
	return 0;
}

/* As window_open(), with as much as may be locked. Return: bytes, 0: later; or a negative errno. */
static int64_t window_open_some(struct direct *direct, unsigned slot, uint64_t offset, uint64_t end)
{
	for (;;) {
		uint64_t length = end - offset < direct->window ? end - offset : direct->window;
		int result = window_open(direct, slot, offset, length);

		if (result == 0)
			return (int64_t)length;
		if (result != -ENOMEM)
			return result;
		/* The other window may have all that may be locked. */
		if (direct_busy(direct))
			return 0;
		direct->window /= 2;
		if (direct->window < SMALLEST_WINDOW)
			return -ENOMEM;
	}
}

/* A read has ended. Return: bytes that arrived. */
static uint64_t direct_ended(struct direct *direct, uint64_t data, int result)
{
	struct direct_window *window = &direct->windows[data % DIRECT_WINDOWS];
	uint64_t offset = data - data % DIRECT_WINDOWS;
	uint64_t wanted = window->offset + window->length - offset;
	uint64_t arrived = result < 0 ? 0 : (uint64_t)result;

	window->reads--;
	if (result < 0 && !direct->error)
		direct->error = result;
	/* A block that is not whole is read again in another way: on FUSE file systems without
	 * FUSE_ASYNC_DIO the kernel answers more than there is, by reading the same bytes twice. */
	if (arrived < (wanted < BLOCK ? wanted : BLOCK) && offset < direct->end)
		direct->end = offset;
	return arrived;
}

/* Wait for the end of one read at least. Return: 0, -EINTR, or another negative errno. */
static int direct_wait(struct direct *direct, struct copy *copy)
{
	uint64_t data;
	int result;

	do {
		if (*copy->stop)
			return -EINTR;
		result = ring_submit(&direct->ring, 1);
	} while (result == -EINTR || result == -EAGAIN);
	while (result == 0 && ring_next(&direct->ring, &data, &result)) {
		copy->done += direct_ended(direct, data, result);
		result = 0;
	}
	copy->moved(copy->data, copy->done);
	return result;
}

/* Close the windows that are full, and open them anew from *@next on unless @full. */
static int direct_turn(struct direct *direct, uint64_t *next, bool full)
{
	for (unsigned i = 0; i < DIRECT_WINDOWS; i++) {
		struct direct_window *window = &direct->windows[i];
		int64_t opened;
		int result = window->base && !window->reads ? window_close(direct, i) : 0;

		if (result)
			return result;
		if (window->base || full || *next >= direct->end)
			continue;
		opened = window_open_some(direct, i, *next, direct->end);
		if (opened < 0)
			return (int)opened;
		if (opened == 0)
			return 0;
		*next += (uint64_t)opened;
		/* It starts at once; what the kernel does not take is told again by the wait. */
		(void)ring_submit(&direct->ring, 0);
	}
	return 0;
}

/* Keep both windows busy up to direct->end, which a read that is short lowers. */
static int direct_run(struct direct *direct, struct copy *copy, uint64_t next)
{
	int result = direct_turn(direct, &next, false);

	while (direct_busy(direct)) {
		int waited = direct_wait(direct, copy);
		int turned;

		if (waited)
			return waited;
		turned = direct_turn(direct, &next, result != 0);
		result = result ? result : turned;
	}
	if (next < direct->end)
		direct->end = next;
	return result;
}

int direct_copy(struct direct *direct, struct copy *copy, uint64_t begin, uint64_t end)
{
	int result;

	if (end > direct->length) {
		if (ftruncate(direct->to, (off_t)end))
			return -errno;
		direct->length = end;
	}
	begin -= begin % direct->alignment;
	end -= end % direct->alignment;
	direct->end = end;
	direct->error = 0;
	copy->done = begin;
	if (begin >= end)
		return 0;
	result = direct_run(direct, copy, begin);
	copy->done = direct->end;
	if (result == 0 && direct->error) {
		copy->at_source = true;
		result = direct->error;
	}
	return result;
}
