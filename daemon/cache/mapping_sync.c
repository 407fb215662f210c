/* SPDX-License-Identifier: MIT */
/*
 * Clients of an io=kernel mount write the memory of a file without us. When the tree must be right,
 * for pins and collapse, it is compared with the memory: data becomes folios, holes lose them.
 *
 * Clients go on meanwhile. What is found was true at some moment since the call; who needs more
 * (the write seal) has denied writers before.
 */
#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cache/mapping_internal.h"

int mapping_sync_locked(struct mapping *mapping, uint64_t first, uint64_t last)
{
	uint64_t page = first, end;

	if (!mapping->shared)
		return 0;
	if (last > PAGES_LAST)
		last = PAGES_LAST;
	mapping_prune(mapping, first, last);
	while (page <= last) {
		int64_t data = memory_seek(&mapping->memory, page << PAGE_SHIFT, SEEK_DATA);
		int64_t hole;
		uint64_t data_last;
		int rc;

		if (data < 0 || page_of((uint64_t)data) > last)
			break;
		hole = memory_seek(&mapping->memory, (uint64_t)data, SEEK_HOLE);
		if (hole <= data)
			break;
		data_last = page_of((uint64_t)hole - 1);
		if (data_last > last)
			data_last = last;
		rc = mapping_add_folios(mapping, page_of((uint64_t)data), data_last, CHARGE_FORCE,
					&end);
		if (rc < 0)
			return rc;
		page = data_last + 1;
	}
	return 0;
}

int mapping_sync_from_memory(struct mapping *mapping, uint64_t offset, uint64_t length)
{
	if (!mapping->shared || !range_clamp(offset, &length))
		return 0;
	scoped_write(&mapping->invalidate);
	return mapping_sync_locked(mapping, page_of(offset), page_of(offset + length - 1));
}
