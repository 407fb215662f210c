/* SPDX-License-Identifier: MIT */
#include "cache/reservation.h"

#include <assert.h>
#include <errno.h>

void reservation_init(struct reservation *budget, uint64_t limit)
{
	atomic_init(&budget->used, 0);
	atomic_init(&budget->huge, 0);
	budget->limit = limit;
}

uint64_t reservation_take_some(struct reservation *budget, uint64_t pages)
{
	uint64_t used = atomic_load_explicit(&budget->used, memory_order_relaxed);
	uint64_t taken;

	do {
		uint64_t limit = budget->limit ? budget->limit : UINT64_MAX;
		uint64_t left = used < limit ? limit - used : 0;

		taken = pages < left ? pages : left;
		if (taken == 0)
			return 0;
	} while (!atomic_compare_exchange_weak(&budget->used, &used, used + taken));
	return taken;
}

int reservation_take(struct reservation *budget, uint64_t pages)
{
	uint64_t used = atomic_load_explicit(&budget->used, memory_order_relaxed);

	do {
		uint64_t limit = budget->limit ? budget->limit : UINT64_MAX;

		if (pages > limit || used > limit - pages)
			return -ENOSPC;
	} while (!atomic_compare_exchange_weak(&budget->used, &used, used + pages));
	return 0;
}

void reservation_force(struct reservation *budget, uint64_t pages)
{
	atomic_fetch_add(&budget->used, pages);
}

void reservation_give(struct reservation *budget, uint64_t pages)
{
	uint64_t before = atomic_fetch_sub(&budget->used, pages);

	assert(before >= pages);
	(void)before;
}
