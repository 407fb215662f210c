/* SPDX-License-Identifier: MIT */
/*
 * Operations that change which pages a file has: truncate, allocate, punch, zero, populate.
 *
 * All of them hold the invalidate lock exclusively, first do what can fail (split large folios at
 * the ends of the range, charge the budget, allocate), then what cannot.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cache/mapping_internal.h"

#define POPULATE_PAGES (UINT64_C(64) << (20 - PAGE_SHIFT)) /* at one time */

static bool mapping_is_sealed(struct mapping *mapping, unsigned seals)
{
	return atomic_load(&mapping->seals) & seals;
}

int mapping_truncate(struct mapping *mapping, uint64_t size)
{
	uint64_t old_size;
	int rc;

	if (size > MAPPING_SIZE_MAX)
		return -EFBIG;
	scoped_write(&mapping->invalidate);
	old_size = mapping_size(mapping);
	if (size == old_size)
		return 0;
	if (mapping_is_sealed(mapping, size < old_size ? F_SEAL_SHRINK : F_SEAL_GROW))
		return -EPERM;
	if (size < old_size) {
		rc = mapping_split_at(mapping, page_after(size));
		if (rc < 0)
			return rc;
	}
	rc = memory_resize(&mapping->memory, size);
	if (rc < 0)
		return rc;
	atomic_store_explicit(&mapping->size, size, memory_order_release);
	if (size < old_size)
		mapping_erase_folios(mapping, page_after(size), UINT64_MAX);
	return 0;
}

int mapping_fill(struct mapping *mapping, uint64_t first, uint64_t last)
{
	uint64_t pages = last - first + 1, size, bytes, end;
	int rc = 0;

	/* What was written needs no question to the kernel about each page. */
	if (mapping_is_filled(mapping, first, last))
		return mapping->shared ?
			       mapping_add_folios(mapping, first, last, CHARGE_FORCE, &end) :
			       0;
	/* Before so many folios are made. */
	if (pages > page_of(memory_plausible_bytes()))
		return -ENOSPC;
	/* A file that may not grow refuses even the rest of the page that its end is in. */
	size = mapping_size(mapping);
	bytes = (page_after(size) == last + 1 ? size : (last + 1) << PAGE_SHIFT) -
		(first << PAGE_SHIFT);
	if (!mapping->shared)
		rc = mapping_add_folios(mapping, first, last, CHARGE_ALL, &end);
	if (rc == 0)
		rc = memory_allocate(&mapping->memory, first << PAGE_SHIFT, bytes);
	if (rc == 0 && mapping->shared)
		rc = mapping_add_folios(mapping, first, last, CHARGE_FORCE, &end);
	if (rc < 0) {
		mapping_prune(mapping, first, last);
		return rc;
	}
	mapping_set_flag(mapping, first, last, FOLIO_ALLOCATED);
	return 0;
}

int mapping_allocate(struct mapping *mapping, uint64_t offset, uint64_t length, bool keep_size)
{
	uint64_t size;
	int rc;

	if (length == 0)
		return -EINVAL;
	if (offset > MAPPING_SIZE_MAX || length > MAPPING_SIZE_MAX - offset)
		return -EFBIG;
	scoped_write(&mapping->invalidate);
	size = mapping_size(mapping);
	if (offset + length > size && mapping_is_sealed(mapping, F_SEAL_GROW))
		return -EPERM;
	rc = mapping_fill(mapping, page_of(offset), page_of(offset + length - 1));
	if (rc < 0 || keep_size || offset + length <= size)
		return rc;
	rc = memory_resize(&mapping->memory, offset + length);
	if (rc < 0)
		return rc;
	atomic_store_explicit(&mapping->size, offset + length, memory_order_release);
	return 0;
}

/*
 * Folios of a range that was punched leave the tree, with one exception: a pinned page that is part
 * of a huge page of the memory cannot be cut off. The memory still has it, zeroed, and its pin
 * reaches the file as before.
 */
static void mapping_erase_punched(struct mapping *mapping, uint64_t first, uint64_t end)
{
	if (!xarray_marked(&mapping->folios, (enum xarray_mark)FOLIO_MARK_PINNED)) {
		mapping_erase_folios(mapping, first, end - 1);
		return;
	}
	while (first < end) {
		struct memory *memory = &mapping->memory;
		int64_t data = memory_seek(memory, first << PAGE_SHIFT, SEEK_DATA);
		int64_t hole = data < 0 ? -1 : memory_seek(memory, (uint64_t)data, SEEK_HOLE);
		uint64_t stop = data < 0 || page_of((uint64_t)data) > end ? end
									  : page_of((uint64_t)data);

		if (stop > first)
			mapping_erase_folios(mapping, first, stop - 1);
		first = hole > data ? page_after((uint64_t)hole) : end;
	}
}

int mapping_punch(struct mapping *mapping, uint64_t offset, uint64_t length)
{
	uint64_t first, end;
	int rc;

	if (!range_clamp(offset, &length))
		return 0;
	first = page_after(offset);
	end = page_of(offset + length);
	scoped_write(&mapping->invalidate);
	if (mapping_is_sealed(mapping, SEALS_WRITE))
		return -EPERM;
	if (first < end) {
		rc = mapping_split_at(mapping, first);
		if (rc == 0)
			rc = mapping_split_at(mapping, end);
		if (rc < 0)
			return rc;
	}
	rc = memory_punch(&mapping->memory, offset, length);
	if (rc < 0)
		return rc;
	if (first < end)
		mapping_erase_punched(mapping, first, end);
	return 0;
}

/* Overwrite what is data in a range of the memory. */
static int mapping_zero_data(struct mapping *mapping, uint64_t offset, uint64_t end)
{
	static const char zeroes[256 << 10];
	int fd = mapping_fd(mapping);

	while (offset < end) {
		int64_t data = memory_seek(&mapping->memory, offset, SEEK_DATA);
		int64_t hole;
		size_t length;
		ssize_t n;

		if (data < 0 || (uint64_t)data >= end)
			break;
		hole = memory_seek(&mapping->memory, (uint64_t)data, SEEK_HOLE);
		if (hole <= data)
			break;
		length = ((uint64_t)hole < end ? (uint64_t)hole : end) - (uint64_t)data;
		n = pwrite(fd, zeroes, length < sizeof(zeroes) ? length : sizeof(zeroes), data);
		if (n < 0 && errno != EINTR)
			return -errno;
		offset = (uint64_t)data + (n > 0 ? (size_t)n : 0);
	}
	return 0;
}

int mapping_zero(struct mapping *mapping, uint64_t offset, uint64_t length, bool keep_size)
{
	uint64_t size, end;
	int rc;

	if (length == 0)
		return -EINVAL;
	if (offset > MAPPING_SIZE_MAX || length > MAPPING_SIZE_MAX - offset)
		return -EFBIG;
	end = offset + length;
	scoped_write(&mapping->invalidate);
	size = mapping_size(mapping);
	if (mapping_is_sealed(mapping, SEALS_WRITE) ||
	    (end > size && mapping_is_sealed(mapping, F_SEAL_GROW)))
		return -EPERM;
	rc = mapping_fill(mapping, page_of(offset), page_of(end - 1));
	if (rc < 0)
		return rc;
	rc = mapping_zero_data(mapping, offset, end < size ? end : size);
	if (rc < 0 || keep_size || end <= size)
		return rc;
	rc = memory_resize(&mapping->memory, end);
	if (rc < 0)
		return rc;
	atomic_store_explicit(&mapping->size, end, memory_order_release);
	return 0;
}

/* Fill some of a range, and say in @page where to go on. */
static int mapping_populate_some(struct mapping *mapping, uint64_t *page, uint64_t end)
{
	uint64_t last, unused;
	int64_t hole = -1;
	int rc;

	scoped_write(&mapping->invalidate);
	/* The end may have moved while the lock was free. */
	if (end > page_after(mapping_size(mapping)))
		end = page_after(mapping_size(mapping));
	if (*page >= end) {
		*page = UINT64_MAX;
		return 0;
	}
	/* However much of a shared file was written: one question tells. */
	if (mapping->shared)
		hole = memory_seek(&mapping->memory, *page << PAGE_SHIFT, SEEK_HOLE);
	if (hole > 0 && page_after((uint64_t)hole) > *page) {
		last = page_after((uint64_t)hole) < end ? page_after((uint64_t)hole) - 1 : end - 1;
		rc = mapping_add_folios(mapping, *page, last, CHARGE_FORCE, &unused);
	} else {
		last = end - *page > POPULATE_PAGES ? *page + POPULATE_PAGES - 1 : end - 1;
		rc = mapping_fill(mapping, *page, last);
	}
	*page = last + 1;
	return rc;
}

int mapping_populate(struct mapping *mapping, uint64_t offset, uint64_t length)
{
	uint64_t page, end, size = mapping_size(mapping);
	int rc = 0;

	if (!range_clamp(offset, &length))
		return 0;
	page = page_of(offset);
	end = page_after(offset + length);
	if (offset + length > size)
		end = page_after(size);
	if (page < end && end - page > page_of(memory_plausible_bytes()))
		return -ENOSPC;
	while (rc == 0 && page < end)
		rc = mapping_populate_some(mapping, &page, end);
	return rc;
}

int64_t mapping_seek(struct mapping *mapping, uint64_t offset, int whence)
{
	return memory_seek(&mapping->memory, offset, whence);
}
