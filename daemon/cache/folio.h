/* SPDX-License-Identifier: MIT */
/*
 * A folio: 2^order pages of a file's memory that the cache handles as one, and the count of who
 * uses them. folio.c begins with the states of a folio and the rules of its counts.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct mapping;

#define PAGE_SHIFT 12
#define PAGE_BYTES (UINT64_C(1) << PAGE_SHIFT)

#define FOLIO_PIN_BIAS 1024u /* references that a pin of a small folio counts as */
#define FOLIO_ORDER_HUGE 9u  /* 2 MiB */

/* Marks of the tree that holds a mapping's folios. */
enum folio_mark {
	FOLIO_MARK_DIRTY,
	FOLIO_MARK_WRITEBACK,
	FOLIO_MARK_PINNED,
};

enum folio_state {
	FOLIO_NEW,	/* made, not yet in a tree */
	FOLIO_CACHED,	/* in the tree of its mapping */
	FOLIO_FROZEN,	/* in the tree, references taken away for a replacement */
	FOLIO_DETACHED,	/* cut off by truncate, punch or collapse; lives for its holders */
};

