/* SPDX-License-Identifier: MIT */
#include "inode/user.h"

#include <errno.h>

#include "base/cleanup.h"

void user_table_init(struct user_table *table, struct reservation *mount, uint64_t pages_max,
		     uint64_t inodes_max)
{
	pthread_mutex_init(&table->lock, NULL);
	table->mount = mount;
	table->pages_max = pages_max;
	table->inodes_max = inodes_max;
	if (pages_max || inodes_max)
		table->by_uid = g_hash_table_new_full(NULL, NULL, NULL, g_free);
}

void user_table_destroy(struct user_table *table)
{
	if (table->by_uid)
		g_hash_table_destroy(table->by_uid);
	table->by_uid = NULL;
	pthread_mutex_destroy(&table->lock);
}

struct user *user_find(struct user_table *table, uid_t uid)
{
	struct user *user;

	if (!table->by_uid)
		return NULL;
	scoped_mutex(&table->lock);
	user = g_hash_table_lookup(table->by_uid, GUINT_TO_POINTER(uid));
	if (!user) {
		user = g_new0(struct user, 1);
		reservation_init_below(&user->pages, uid ? table->pages_max : 0, table->mount);
		user->inodes_max = uid ? table->inodes_max : 0;
		g_hash_table_insert(table->by_uid, GUINT_TO_POINTER(uid), user);
	}
	return user;
}

int user_take_inode(struct user *user)
{
	if (!user || atomic_fetch_add(&user->inodes, 1) < user->inodes_max || !user->inodes_max)
		return 0;
	atomic_fetch_sub(&user->inodes, 1);
	return -EDQUOT;
}

void user_give_inode(struct user *user)
{
	if (user)
		atomic_fetch_sub(&user->inodes, 1);
}
