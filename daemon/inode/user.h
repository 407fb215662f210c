/* SPDX-License-Identifier: MIT */
/*
 * Limits by owner: how many pages and inodes the files of one user take. Root's have no limit.
 */
#pragma once

#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/reservation.h"

/**
 * struct user - what the files of one owner take
 * @pages: its parent is the mount's budget
 */
struct user {
	struct reservation pages;
	atomic_uint_least64_t inodes;
	uint64_t inodes_max; /* 0 is none */
};

/**
 * struct user_table - all users who ever owned a file of the mount, by number
 * @by_uid: NULL when the mount has no limits by owner
 */
struct user_table {
	pthread_mutex_t lock;
	GHashTable *by_uid;
	struct reservation *mount;
	uint64_t pages_max;
	uint64_t inodes_max;
};

/**
 * user_table_init() - nobody owns anything yet
 * @mount: borrows the mount's budget
 * @pages_max: of each user, 0 is none
 * @inodes_max: of each user, 0 is none
 * Context: nobody else knows the table yet.
 */
void user_table_init(struct user_table *table, struct reservation *mount, uint64_t pages_max,
		     uint64_t inodes_max);

/**
 * user_table_destroy() - no inode is left
 * Context: nobody else uses the table any more.
 */
void user_table_destroy(struct user_table *table);

/**
 * user_find() - what is counted for an owner
 * Context: takes the table's lock; the caller may hold an inode's.
 * Return: borrows, for as long as the table lives; NULL when there are no limits by owner.
 */
struct user *user_find(struct user_table *table, uid_t uid);

/**
 * user_take_inode() - one more inode
 * @user: may be NULL
 * Context: any.
 * Return: 0, -EDQUOT.
 */
int user_take_inode(struct user *user);

/**
 * user_give_inode() - one inode less
 * @user: may be NULL
 * Context: any.
 */
void user_give_inode(struct user *user);
