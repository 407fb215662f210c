/* SPDX-License-Identifier: MIT */
/*
 * A budget of pages that many files share: what is used is counted, and cannot pass the limit. A
 * budget may be a part of a larger one, in which its pages count, too.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct reservation {
	atomic_uint_least64_t used; /* pages */
	atomic_uint_least64_t huge; /* of these in huge memory; kept by whoever uses them */
	uint64_t limit;		    /* pages; 0 is no limit */
	struct reservation *parent; /* borrowed; NULL for the largest */
};

/**
 * reservation_init() - an unused budget
 * @limit: pages; 0 is no limit
 * Context: before anybody else sees it.
 */
void reservation_init(struct reservation *budget, uint64_t limit);

/**
 * reservation_init_below() - an unused budget that is a part of a larger one
 * @limit: pages; 0 is no limit of its own
 * @parent: borrows
 * Context: before anybody else sees it.
 */
void reservation_init_below(struct reservation *budget, uint64_t limit, struct reservation *parent);

/**
 * reservation_move() - let pages count in another part of the same larger budget
 * @huge: how many of them are huge
 * @force: whatever the limit of @to
 * Context: any; lock-free.
 * Return: 0, -EDQUOT with nothing moved.
 */
int reservation_move(struct reservation *from, struct reservation *to, uint64_t pages,
		     uint64_t huge, bool force);

/**
 * reservation_take() - use pages of the budget
 * @pages: how many
 * Context: any; lock-free.
 * Return: 0; -ENOSPC, -EDQUOT (a part is used up) with nothing taken.
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
 * reservation_error() - why a budget has no page left
 * Context: any; lock-free.
 * Return: -EDQUOT when the part is used up, else -ENOSPC.
 */
int reservation_error(const struct reservation *budget);

/**
 * space_may_come() - is it worth another try?
 * @result: of an operation that needs pages or an inode
 * @tries: how often it was tried, 0 at first
 *
 * close() returns before we hear of it, and so does unlink() before the kernel lets go of the
 * inode: what a client has just given up may be on its way back. Waits a moment.
 * Context: sleeps; no lock is held.
 * Return: true when space was lacking, and the operation should be tried again.
 */
bool space_may_come(int result, unsigned *tries);

/**
 * reservation_count_huge() - pages have become huge, or are no longer
 * @pages: how many; may be negative, in two's complement
 * Context: any; lock-free.
 */
void reservation_count_huge(struct reservation *budget, uint64_t pages);

/**
 * reservation_give() - give pages back
 * @pages: how many, not more than were taken
 * Context: any; lock-free.
 */
void reservation_give(struct reservation *budget, uint64_t pages);
