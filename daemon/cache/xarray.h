/* SPDX-License-Identifier: MIT */
/*
 * A sparse array of pointers with 64-bit indices: a radix tree with marks.
 *
 * An entry covers 2^order indices, aligned to its size; every index in it finds it. Three marks can
 * be set on an entry. Lookups need no lock, only an RCU read-side section around the lookup and the
 * use of what it found; stores take the tree's lock. See xarray.c for how and why.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Slots of a node are 2^XARRAY_SLOT_BITS; tests build tall trees with small nodes. */
#ifndef XARRAY_SLOT_BITS
#define XARRAY_SLOT_BITS 6
#endif

#define XARRAY_INDEX_MAX UINT64_MAX

enum xarray_mark {
	XARRAY_MARK_0,
	XARRAY_MARK_1,
	XARRAY_MARK_2,
	XARRAY_MARKS,
	XARRAY_PRESENT = XARRAY_MARKS, /* for searches: any entry */
};

struct xarray {
	pthread_mutex_t lock;
	void *head; /* private, read under RCU */
	unsigned marks; /* private: marks on the entry in head when that is no node */
};

/**
 * xarray_init() - make an empty tree
 * @xa: the tree
 * Context: any.
 */
void xarray_init(struct xarray *xa);

/**
 * xarray_destroy() - free the nodes; the entries are the caller's
 * @xa: the tree; nobody else uses it any more
 * Context: may sleep. Freed nodes go through RCU.
 */
void xarray_destroy(struct xarray *xa);

/**
 * xarray_lock() - take the tree's lock
 * @xa: the tree
 * Context: may sleep.
 */
void xarray_lock(struct xarray *xa);

/**
 * xarray_unlock() - release the tree's lock
 * @xa: the tree
 */
void xarray_unlock(struct xarray *xa);

/**
 * xarray_load() - the entry at an index
 * @xa: the tree
 * @index: any index that the entry covers
 * Context: RCU read-side section, or the tree's lock. Lock-free, never sleeps.
 * Return: *borrows* the entry, NULL when there is none.
 */
void *xarray_load(struct xarray *xa, uint64_t index);

/**
 * xarray_empty() - is there no entry at all?
 * @xa: the tree
 * Context: any.
 */
bool xarray_empty(struct xarray *xa);

/**
 * xarray_store_locked() - put an entry where nothing is
 * @xa: the tree
 * @index: first index, aligned to 2^order
 * @order: the entry covers 2^order indices
 * @entry: not NULL, aligned to at least 4 bytes
 * Context: the tree's lock. Allocates.
 * Return: 0; -EEXIST when any index of the range has an entry; -ENOMEM; -EINVAL (misaligned).
 * Nothing changed on error.
 */
int xarray_store_locked(struct xarray *xa, uint64_t index, unsigned order, void *entry);

/**
 * xarray_replace_locked() - put one entry in the place of all entries of its range
 * @xa: the tree
 * @index: first index, aligned to 2^order
 * @order: the entry covers 2^order indices; no entry now there may reach out of the range
 * @entry: not NULL
 *
 * Nodes below are retired: lookups see either the old entries or the new one, never a hole. Marks of
 * the new entry are clear.
 * Context: the tree's lock. Allocates only if the range was not represented before.
 * Return: 0, -ENOMEM, -EINVAL (misaligned, or an entry reaches out). Nothing changed on error.
 */
int xarray_replace_locked(struct xarray *xa, uint64_t index, unsigned order, void *entry);

/**
 * xarray_erase_locked() - take an entry out
 * @xa: the tree
 * @index: any index that the entry covers
 * Context: the tree's lock. Does not allocate.
 * Return: the entry that was there, or NULL.
 */
void *xarray_erase_locked(struct xarray *xa, uint64_t index);

/**
 * xarray_split_locked() - replace one large entry by smaller ones
 * @xa: the tree
 * @index: any index that the entry covers
 * @order: of the new entries, less than that of the old one
 * @make: called for each new entry in ascending order with its first index; returns the new entry,
 *        which must not be NULL (what make() must allocate is allocated before)
 * @data: for @make
 *
 * The new entries inherit the old one's marks. Lookups see either the old entry or the new one of
 * their index.
 * Context: the tree's lock. Allocates.
 * Return: 0, -ENOENT, -EINVAL, -ENOMEM. Nothing changed, and @make was not called, on error.
 */
int xarray_split_locked(struct xarray *xa, uint64_t index, unsigned order,
			void *(*make)(uint64_t index, void *data), void *data);

/**
 * xarray_find() - the first entry at or after an index
 * @xa: the tree
 * @index: in: where to start; out: the first index of the entry found
 * @last: do not look beyond this index
 * @mark: only entries with this mark, or XARRAY_PRESENT
 * @order: out: order of the entry; may be NULL
 *
 * An entry that covers @index but begins before it is found; @index is then moved back to its
 * beginning. To go on, start at *index + (1 << *order), minding the wrap at the end.
 * Context: RCU read-side section, or the tree's lock. Takes time proportional to the height for
 * what is marked, not to what is present.
 * Return: *borrows* the entry, NULL when there is none.
 */
void *xarray_find(struct xarray *xa, uint64_t *index, uint64_t last, enum xarray_mark mark,
		  unsigned *order);

/**
 * xarray_get_mark() - has the entry this mark?
 * @xa: the tree
 * @index: any index that the entry covers
 * @mark: the mark
 * Context: RCU read-side section, or the tree's lock.
 */
bool xarray_get_mark(struct xarray *xa, uint64_t index, enum xarray_mark mark);

/**
 * xarray_set_mark_locked() - set a mark on the entry; nothing happens when there is no entry
 * @xa: the tree
 * @index: any index that the entry covers
 * @mark: the mark
 * Context: the tree's lock.
 */
void xarray_set_mark_locked(struct xarray *xa, uint64_t index, enum xarray_mark mark);

/**
 * xarray_clear_mark_locked() - clear a mark of the entry
 * @xa: the tree
 * @index: any index that the entry covers
 * @mark: the mark
 * Context: the tree's lock.
 */
void xarray_clear_mark_locked(struct xarray *xa, uint64_t index, enum xarray_mark mark);

/**
 * xarray_marked() - is any entry of the tree marked?
 * @xa: the tree
 * @mark: the mark
 * Context: any; a snapshot unless the tree's lock is held.
 */
bool xarray_marked(struct xarray *xa, enum xarray_mark mark);

/**
 * xarray_for_each() - all entries of a range in ascending order
 * @xa: the tree
 * @index: uint64_t variable: first index of the entry (set by the caller to where to start)
 * @last: last index of the range
 * @mark: enum xarray_mark
 * @order: unsigned variable: order of the entry
 * @entry: pointer variable
 *
 * The body may erase the entry when it holds the lock.
 */
#define xarray_for_each(xa, index, last, mark, order, entry)                              \
	for (bool __more = true;                                                          \
	     __more && ((entry) = xarray_find((xa), &(index), (last), (mark), &(order))); \
	     __more = xarray_step(&(index), (order), (last)))

static inline bool xarray_step(uint64_t *index, unsigned order, uint64_t last)
{
	uint64_t end = order < 64 ? *index + ((UINT64_C(1) << order) - 1) : UINT64_MAX;

	if (end >= last)
		return false;
	*index = end + 1;
	return true;
}
