/* SPDX-License-Identifier: MIT */
/*
 * Bytes go in and out.
 *
 * The bytes themselves are moved by the caller, between mapping_write_begin() and
 * mapping_write_end(), straight from where they are into the memory. Before that the pages are
 * reserved and announced as folios, so that running out of budget or of memory for them is known
 * before a byte has moved. Afterwards what was not written after all is taken back.
 *
 * The frequent case, 4 KiB onto a page that exists and is dirty already, costs the lock (shared),
 * one lookup and one look at the folio's flags.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/rcu.h"
#include "cache/mapping_internal.h"

#define COPY_CHUNK (UINT64_C(1) << 20)
#define COPY_BUFFER (64u << 10)

ssize_t mapping_read_begin(struct mapping *mapping, uint64_t offset, size_t length, int *fd)
{
	uint64_t size = mapping_size(mapping);

	*fd = -1;
	if (offset >= size || length == 0)
		return 0;
	if (length > size - offset)
		length = size - offset;
	if (length > SSIZE_MAX)
		length = SSIZE_MAX & ~(PAGE_BYTES - 1);
	if (!mapping->shared) {
		uint64_t index = page_of(offset);

		rcu_read_lock();
		bool hole = !xarray_find(&mapping->folios, &index, page_of(offset + length - 1),
					 XARRAY_PRESENT, NULL);
		rcu_read_unlock();
		if (hole)
			return (ssize_t)length;
	}
	*fd = atomic_load_explicit(&mapping->memory.fd, memory_order_acquire);
	return (ssize_t)length;
}

/* Until @length bytes have moved, the file ends, or an error comes, which counts if it is first. */
static ssize_t move_fully(int fd, void *buffer, size_t length, uint64_t offset, bool out)
{
	size_t done = 0;

	while (done < length) {
		char *at = (char *)buffer + done;
		off_t place = (off_t)(offset + done);
		ssize_t n = out ? pwrite(fd, at, length - done, place)
				: pread(fd, at, length - done, place);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && done == 0)
			return -errno;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static ssize_t read_fully(int fd, void *buffer, size_t length, uint64_t offset)
{
	return move_fully(fd, buffer, length, offset, false);
}

static ssize_t write_fully(int fd, const void *buffer, size_t length, uint64_t offset)
{
	return move_fully(fd, (void *)buffer, length, offset, true);
}

ssize_t mapping_read(struct mapping *mapping, void *buffer, size_t length, uint64_t offset)
{
	int fd;
	ssize_t n = mapping_read_begin(mapping, offset, length, &fd);

	if (n <= 0)
		return n;
	if (fd >= 0)
		return read_fully(fd, buffer, (size_t)n, offset);
	memset(buffer, 0, (size_t)n);
	return n;
}

/* Seals and limits, with the end of the file held in place. Cuts write->length. */
static int mapping_write_check(struct mapping *mapping, struct mapping_write *write)
{
	unsigned seals = atomic_load_explicit(&mapping->seals, memory_order_relaxed);

	if (seals & SEALS_WRITE)
		return -EPERM;
	if (write->length == 0)
		return 0;
	if (write->offset >= MAPPING_SIZE_MAX)
		return -EFBIG;
	if (write->length > MAPPING_SIZE_MAX - write->offset)
		write->length = MAPPING_SIZE_MAX - write->offset;
	if (write->length > SSIZE_MAX)
		write->length = SSIZE_MAX & ~(PAGE_BYTES - 1);
	if (seals & F_SEAL_GROW) {
		if (write->offset >= write->old_size)
			return -EPERM;
		if (write->length > write->old_size - write->offset)
			write->length = write->old_size - write->offset;
	}
	return 0;
}

/* Pages and folios for the range. Cuts write->length to what the budget allows. */
static int mapping_write_prepare(struct mapping *mapping, struct mapping_write *write)
{
	uint64_t first = page_of(write->offset), last, end;
	int rc;

	if (mapping->shared || write->length == 0)
		return 0;
	last = page_of(write->offset + write->length - 1);
	if (mapping_has_folios(mapping, first, last, &write->folio))
		return 0;
	rc = mapping_add_folios(mapping, first, last, CHARGE_SOME, &end);
	if (rc < 0)
		return rc;
	if (end <= last)
		write->length = (end << PAGE_SHIFT) - write->offset;
	return 0;
}

/* Pages were announced in vain; the lock is held as @write says, and is held no more afterwards. */
static void mapping_write_undo(struct mapping *mapping, struct mapping_write *write, uint64_t from,
			       uint64_t last)
{
	if (!write->exclusive) {
		pthread_rwlock_unlock(&mapping->invalidate);
		pthread_rwlock_wrlock(&mapping->invalidate);
	}
	if (!mapping->shared) {
		struct stat st;
		uint64_t size = atomic_load(&mapping->size);

		memory_stat(&mapping->memory, &st);
		if ((uint64_t)st.st_size > size)
			memory_resize(&mapping->memory, size);
		mapping_prune(mapping, from, last);
	}
	pthread_rwlock_unlock(&mapping->invalidate);
}

/* The lock, exclusively where the write moves the end of the file. */
static void mapping_write_lock(struct mapping *mapping, struct mapping_write *write, bool append)
{
	if (!append) {
		pthread_rwlock_rdlock(&mapping->invalidate);
		write->old_size = mapping_size(mapping);
		/* The end of a shared mapping moves behind our back anyway. */
		if (mapping->shared || (write->offset <= write->old_size &&
					write->length <= write->old_size - write->offset))
			return;
		pthread_rwlock_unlock(&mapping->invalidate);
	}
	write->exclusive = true;
	pthread_rwlock_wrlock(&mapping->invalidate);
	write->old_size = mapping_size(mapping);
	if (append)
		write->offset = write->old_size;
}

int mapping_write_begin(struct mapping *mapping, struct mapping_write *write, uint64_t offset,
			size_t length, bool append)
{
	int fd = mapping_fd(mapping);
	int rc;

	if (fd < 0)
		return fd;
	*write = (struct mapping_write){ .fd = fd, .offset = offset, .length = length };
	mapping_write_lock(mapping, write, append);
	rc = mapping_write_check(mapping, write);
	if (rc < 0) {
		pthread_rwlock_unlock(&mapping->invalidate);
		return rc;
	}
	rc = mapping_write_prepare(mapping, write);
	if (rc < 0)
		mapping_write_undo(mapping, write, page_of(write->offset),
				   page_of(write->offset + write->length - 1));
	return rc;
}

ssize_t mapping_write_end(struct mapping *mapping, struct mapping_write *write, ssize_t copied)
{
	size_t done = copied > 0 ? (size_t)copied : 0;
	uint64_t end;

	if (done > write->length)
		done = write->length;
	end = write->offset + done;
	if (!mapping->shared && done) {
		if (write->exclusive && end > write->old_size)
			atomic_store_explicit(&mapping->size, end, memory_order_release);
		if (!write->folio || !folio_test(write->folio, FOLIO_DIRTY))
			mapping_mark_dirty(mapping, page_of(write->offset), page_of(end - 1));
	}
	if (done == write->length)
		pthread_rwlock_unlock(&mapping->invalidate);
	else
		mapping_write_undo(mapping, write, done ? page_after(end) : page_of(end),
				   page_of(write->offset + write->length - 1));
	return copied;
}

ssize_t mapping_write(struct mapping *mapping, const void *buffer, size_t length, uint64_t offset)
{
	struct mapping_write write;
	int rc = mapping_write_begin(mapping, &write, offset, length, false);

	if (rc < 0)
		return rc;
	return mapping_write_end(mapping, &write,
				 write_fully(write.fd, buffer, write.length, write.offset));
}

/* Move bytes between two descriptors of memory, in the kernel if it can. */
static ssize_t copy_bytes(int from, uint64_t from_offset, int to, uint64_t to_offset, size_t length)
{
	char buffer[COPY_BUFFER];
	size_t done = 0;

	while (done < length) {
		off_t in = (off_t)(from_offset + done), out = (off_t)(to_offset + done);
		ssize_t n = -1;

		if (from >= 0)
			n = copy_file_range(from, &in, to, &out, length - done, 0);
		if (n < 0) {
			size_t part = length - done < COPY_BUFFER ? length - done : COPY_BUFFER;

			n = (ssize_t)part;
			if (from < 0)
				memset(buffer, 0, part);
			else
				n = read_fully(from, buffer, part, from_offset + done);
			if (n > 0)
				n = write_fully(to, buffer, (size_t)n, to_offset + done);
		}
		if (n < 0 && done == 0)
			return n;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t mapping_copy_range(struct mapping *from, uint64_t from_offset, struct mapping *to,
			   uint64_t to_offset, size_t length)
{
	uint64_t size = mapping_size(from);
	ssize_t done = 0;

	if (to_offset >= MAPPING_SIZE_MAX && length)
		return -EFBIG;
	/* Where the source ends now: within one file the copy itself may move the end. */
	if (from_offset >= size)
		return 0;
	if (length > size - from_offset)
		length = size - from_offset;
	if (from == to && from_offset < to_offset + length && to_offset < from_offset + length)
		return -EINVAL;

	while ((size_t)done < length) {
		struct mapping_write write;
		size_t part = length - (size_t)done;
		int fd, rc;
		/* Before the lock is taken: this looks at the file that the lock may belong to. */
		ssize_t n = mapping_read_begin(from, from_offset + (size_t)done,
					       part < COPY_CHUNK ? part : COPY_CHUNK, &fd);

		if (n <= 0)
			return done ? done : n;
		rc = mapping_write_begin(to, &write, to_offset + (size_t)done, (size_t)n, false);
		if (rc < 0)
			return done ? done : rc;
		n = copy_bytes(fd, from_offset + (size_t)done, write.fd, write.offset,
			       write.length);
		n = mapping_write_end(to, &write, n);
		if (n <= 0)
			return done ? done : n;
		done += n;
		if ((size_t)n < write.length)
			break;
	}
	return done;
}
