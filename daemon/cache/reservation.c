/* SPDX-License-Identifier: MIT */
#include "cache/reservation.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <time.h>

#define SPACE_TRIES 5
#define SPACE_PAUSE_NS 1000000

void reservation_init(struct reservation *budget, uint64_t limit)
{
	atomic_init(&budget->used, 0);
	atomic_init(&budget->huge, 0);
	budget->limit = limit;
	budget->parent = NULL;
}

void reservation_init_below(struct reservation *budget, uint64_t limit, struct reservation *parent)
{
	reservation_init(budget, limit);
	budget->parent = parent;
}

/* One level. Return: pages taken, from 0 to @pages. */
static uint64_t budget_take_some(struct reservation *budget, uint64_t pages)
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

/* One level. */
static void budget_give(struct reservation *budget, uint64_t pages)
{
	uint64_t before = atomic_fetch_sub(&budget->used, pages);

	assert(before >= pages);
	(void)before;
}

/* One level. */
static bool budget_take(struct reservation *budget, uint64_t pages)
{
	uint64_t used = atomic_load_explicit(&budget->used, memory_order_relaxed);

	do {
		uint64_t limit = budget->limit ? budget->limit : UINT64_MAX;

		if (pages > limit || used > limit - pages)
			return false;
	} while (!atomic_compare_exchange_weak(&budget->used, &used, used + pages));
	return true;
}

uint64_t reservation_take_some(struct reservation *budget, uint64_t pages)
{
	uint64_t taken = budget_take_some(budget, pages);

	if (budget->parent && taken) {
		uint64_t granted = reservation_take_some(budget->parent, taken);

		budget_give(budget, taken - granted);
		taken = granted;
	}
	return taken;
}

int reservation_take(struct reservation *budget, uint64_t pages)
{
	int result = 0;

	if (!budget_take(budget, pages))
		return budget->parent ? -EDQUOT : -ENOSPC;
	if (budget->parent)
		result = reservation_take(budget->parent, pages);
	if (result)
		budget_give(budget, pages);
	return result;
}

void reservation_force(struct reservation *budget, uint64_t pages)
{
	for (; budget; budget = budget->parent)
		atomic_fetch_add(&budget->used, pages);
}

void reservation_give(struct reservation *budget, uint64_t pages)
{
	for (; budget; budget = budget->parent)
		budget_give(budget, pages);
}

int reservation_move(struct reservation *from, struct reservation *to, uint64_t pages,
		     uint64_t huge, bool force)
{
	if (force)
		atomic_fetch_add(&to->used, pages);
	else if (!budget_take(to, pages))
		return -EDQUOT;
	budget_give(from, pages);
	atomic_fetch_add(&to->huge, huge);
	atomic_fetch_sub(&from->huge, huge);
	return 0;
}

int reservation_error(const struct reservation *budget)
{
	if (budget->parent && budget->limit && atomic_load(&budget->used) >= budget->limit)
		return -EDQUOT;
	return -ENOSPC;
}

bool space_may_come(int result, unsigned *tries)
{
	if ((result != -ENOSPC && result != -EDQUOT) || *tries >= SPACE_TRIES)
		return false;
	*tries += 1;
	nanosleep(&(struct timespec){ .tv_nsec = SPACE_PAUSE_NS }, NULL);
	return true;
}

void reservation_count_huge(struct reservation *budget, uint64_t pages)
{
	for (; budget; budget = budget->parent)
		atomic_fetch_add_explicit(&budget->huge, pages, memory_order_relaxed);
}
