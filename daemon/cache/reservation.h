/* SPDX-License-Identifier: MIT */
/*
 * A budget of pages that many files share: what is used is counted, and cannot pass the limit.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct reservation {
	atomic_uint_least64_t used; /* pages */
	atomic_uint_least64_t huge; /* of these in huge memory; kept by whoever uses them */
	uint64_t limit;		    /* pages; 0 is no limit */
};

/**
 * reservation_init() - an unused budget
 * @limit: pages; 0 is no limit
 */
void reservation_init(struct reservation *budget, uint64_t limit);

/**
 * reservation_take() - use pages of the budget
 * @pages: how many
 * Context: any; lock-free.
 * Return: 0, -ENOSPC with nothing taken.
 */
int reservation_take(struct reservation *budget, uint64_t pages);

/**
 * reservation_take_some() - use as many pages of the budget as there are
 * @pages: how many would be liked
 * Context: any; lock-free.
 * Return: pages taken, from 0 to @pages.
 */
uint64_t reservation_take_some(struct reservation *budget, uint64_t pages);

/**
 * reservation_force() - use pages that exist already, beyond the limit if it must be
 * @pages: how many
 * Context: any; lock-free.
 */
void reservation_force(struct reservation *budget, uint64_t pages);

/**
 * reservation_give() - give pages back
 * @pages: how many, not more than were taken
 * Context: any; lock-free.
 */
void reservation_give(struct reservation *budget, uint64_t pages);
