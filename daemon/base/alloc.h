/* SPDX-License-Identifier: MIT */
/*
 * Allocation that may fail, for the rooms in which running out of memory is an error that is
 * returned. Tests can make the n-th allocation fail and count what is still alive.
 */
#pragma once

#include <stddef.h>

/**
 * mem_alloc() - allocate memory of undefined contents
 * @size: bytes
 * Context: any thread.
 * Return: returns a reference to the memory, or NULL.
 */
void *mem_alloc(size_t size);

/**
 * mem_zalloc() - allocate zeroed memory
 * @size: bytes
 * Context: any thread.
 * Return: returns a reference to the memory, or NULL.
 */
void *mem_zalloc(size_t size);

/**
 * mem_free() - free what mem_alloc() or mem_zalloc() gave
 * @memory: takes; may be NULL
 * Context: any thread.
 */
void mem_free(void *memory);

/**
 * mem_test_begin() - start to count, and choose an allocation that fails
 * @fail_at: 1 makes the next allocation fail, 2 the one after it; 0 none
 *
 * Only for tests: from here on every allocation is counted.
 * Context: no other thread allocates at the moment.
 */
void mem_test_begin(unsigned long fail_at);

/**
 * mem_test_begin_from() - the same, and all that follow the chosen allocation fail, too
 * @fail_from: as mem_test_begin()'s @fail_at
 *
 * Context: as mem_test_begin().
 */
void mem_test_begin_from(unsigned long fail_from);

/**
 * mem_test_end() - stop to count
 * @failed: set to whether the chosen allocation was reached; may be NULL
 * Context: no other thread allocates at the moment.
 * Return: allocations since mem_test_begin() that have not been freed.
 */
long mem_test_end(int *failed);
