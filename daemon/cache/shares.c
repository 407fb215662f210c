/* SPDX-License-Identifier: MIT */
#include "cache/shares.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>

#include "base/alloc.h"

/**
 * struct share - what one user has; there while that is not 0
 */
struct share {
	struct list link;
	uid_t uid;
	uint64_t taken;
};

void shares_init(struct shares *shares, uint64_t places, uid_t owner)
{
	shares->places = places;
	shares->taken = 0;
	shares->owner = owner;
	for (unsigned i = 0; i < SHARES_BUCKETS; i++)
		list_init(&shares->users[i]);
}

static bool shares_limit(const struct shares *shares, uid_t uid)
{
	return uid != 0 && uid != shares->owner;
}

static struct list *shares_bucket(struct shares *shares, uid_t uid)
{
	return &shares->users[uid % SHARES_BUCKETS];
}

static struct share *shares_find(struct shares *shares, uid_t uid)
{
	struct share *share;

	list_for_each(share, shares_bucket(shares, uid), link)
		if (share->uid == uid)
			return share;
	return NULL;
}

int shares_take(struct shares *shares, uid_t uid, uint64_t count)
{
	uint64_t left = shares->places - shares->taken;
	struct share *share;

	if (count > left)
		return -ENOBUFS;
	if (shares_limit(shares, uid)) {
		share = shares_find(shares, uid);
		if ((share ? share->taken : 0) + count > left - count)
			return -EDQUOT;
		if (!share) {
			share = mem_zalloc(sizeof(*share));
			if (!share)
				return -ENOMEM;
			share->uid = uid;
			list_add_tail(shares_bucket(shares, uid), &share->link);
		}
		share->taken += count;
	}
	shares->taken += count;
	return 0;
}

void shares_give(struct shares *shares, uid_t uid, uint64_t count)
{
	struct share *share;

	assert(shares->taken >= count);
	shares->taken -= count;
	if (!shares_limit(shares, uid))
		return;
	share = shares_find(shares, uid);
	assert(share && share->taken >= count);
	share->taken -= count;
	if (share->taken)
		return;
	list_del(&share->link);
	mem_free(share);
}
