/* SPDX-License-Identifier: MIT */
/*
 * A number of places that users share: none of them can take all.
 *
 * Whoever asks may have no more places than are free after he got them: one user alone half of
 * them, two a third each, and so on, so that there is always something left for the next. Root,
 * and the user that the daemon runs as, may take all. It belongs to whoever embeds it, and has no
 * lock.
 *
 * Context: the lock of whoever embeds it; never sleeps.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"

#define SHARES_BUCKETS 64u

/**
 * struct shares - who has how many places
 * @places: all there are
 * @taken:  by all users together
 * @owner:  user that is not limited, as root is not
 * @users:  those who are limited and have any, by number
 */
struct shares {
	uint64_t places;
	uint64_t taken;
	uid_t owner;
	struct list users[SHARES_BUCKETS];
};

/**
 * shares_init() - all places are free
 * @places: how many there are
 * @owner: user that is not limited
 */
void shares_init(struct shares *shares, uint64_t places, uid_t owner);

/**
 * shares_take() - give a user places
 * @count: not 0
 * Return: 0; -ENOBUFS (so many are not free), -EDQUOT (he has too many), -ENOMEM; nothing is taken
 * then.
 */
int shares_take(struct shares *shares, uid_t uid, uint64_t count);

/**
 * shares_give() - a user gives places back
 * @count: as it was taken
 */
void shares_give(struct shares *shares, uid_t uid, uint64_t count);
