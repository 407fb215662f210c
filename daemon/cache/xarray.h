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
#define XARRAY_ORDER_MAX 63

enum xarray_mark {
	XARRAY_MARK_0,
	XARRAY_MARK_1,
	XARRAY_MARK_2,
	XARRAY_MARKS,
	XARRAY_PRESENT = XARRAY_MARKS, /* for searches: any entry */
};

/* Entries are pointers to something aligned to this, as everything is that malloc() returns. */
#define XARRAY_ENTRY_ALIGN 16

struct xarray_node;

struct xarray {
	pthread_mutex_t lock;
	uintptr_t head;		/* private: the root node, read under RCU */
	unsigned long retired;	/* private: nodes that have left the tree so far */
};

/* Where an iteration is; private. */
struct xarray_cursor {
	const struct xarray_node *node; /* where the last entry was found, NULL: nowhere yet */
	uint64_t base;			/* first index of that node */
	unsigned long retired;		/* of the tree when the node was met */
	const uintptr_t *slot, *end;	/* of the node: the slots after that entry */
	uint64_t index;			/* of *slot */
	unsigned shift;			/* a slot covers 2^shift indices */
	bool more;
};
#define XARRAY_CURSOR_INIT { .more = true }

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
 * Context: the tree's lock.
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
 * @entry: not NULL, aligned to XARRAY_ENTRY_ALIGN
 * Context: the tree's lock. Allocates.
 * Return: 0; -EEXIST when any index of the range has an entry; -ENOMEM; -EINVAL (misaligned, or the
 * order is above XARRAY_ORDER_MAX).
 * Nothing changed on error.
 */
int xarray_store_locked(struct xarray *xa, uint64_t index, unsigned order, void *entry);

/**
 * xarray_replace_locked() - put one entry in the place of all entries of its range
 * @xa: the tree
 * @index: first index, aligned to 2^order
 * @order: the entry covers 2^order indices; no entry now there may reach out of the range
 * @entry: as for xarray_store_locked()
 *
 * Nodes below are retired: lookups see either the old entries or the new one, never a hole. Marks
 * of the new entry are clear.
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
 * their index. A split into more than 2^24 entries is refused as -ENOMEM.
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
 * Without the lock, an entry and its mark are not read at the same instant: a mark that is found
 * is to be rechecked under the lock by whoever acts on it. An entry that is there all the time is
 * never passed over, and so is one that is marked all the time.
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
 * xarray_next_slow() - private to xarray_next()
 * Context: as xarray_next().
 * Return: as xarray_next().
 */
void *xarray_next_slow(struct xarray *xa, struct xarray_cursor *cursor, uint64_t *index,
		       uint64_t last, enum xarray_mark mark, unsigned *order);

/**
 * xarray_next() - xarray_find() that remembers where it was
 * @cursor: XARRAY_CURSOR_INIT before the first call
 *
 * The rest is as for xarray_find(). Between two calls the tree may change in any way, and the lock
 * or the read-side section may be left and entered again.
 */
static inline void *xarray_next(struct xarray *xa, struct xarray_cursor *cursor, uint64_t *index,
				uint64_t last, enum xarray_mark mark, unsigned *order)
{
	/* Mostly it is in the next slot, and the node is still in the tree. */
	if (mark == XARRAY_PRESENT && cursor->slot < cursor->end && cursor->index == *index &&
	    cursor->retired == __atomic_load_n(&xa->retired, __ATOMIC_ACQUIRE) && *index <= last) {
		uintptr_t value = __atomic_load_n(cursor->slot, __ATOMIC_ACQUIRE);

		if (value && !(value & (XARRAY_ENTRY_ALIGN - 1))) {
			cursor->slot++;
			cursor->index += UINT64_C(1) << cursor->shift;
			if (order)
				*order = cursor->shift;
			return (void *)value;
		}
	}
	return xarray_next_slow(xa, cursor, index, last, mark, order);
}

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
#define xarray_for_each(xa, index, last, mark, order, entry)                                  \
	for (struct xarray_cursor __cursor = XARRAY_CURSOR_INIT;                              \
	     __cursor.more &&                                                                 \
	     ((entry) = xarray_next((xa), &__cursor, &(index), (last), (mark), &(order)));    \
	     __cursor.more = xarray_step(&(index), (order), (last)))

/* Moves an index behind the entry that begins there; false when that is beyond the last index. */
static inline bool xarray_step(uint64_t *index, unsigned order, uint64_t last)
{
	uint64_t end = *index + ((UINT64_C(1) << order) - 1);

	if (end >= last)
		return false;
	*index = end + 1;
	return true;
}
