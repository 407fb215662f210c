/* SPDX-License-Identifier: MIT */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* Read-mostly, so that allocations outside tests touch no shared cache line that changes. */
static atomic_bool counting;
static atomic_long live;
static atomic_ulong countdown;
static atomic_bool reached;
static atomic_bool lasting;

static bool mem_must_fail(void)
{
	if (!atomic_load_explicit(&counting, memory_order_relaxed))
		return false;
	unsigned long left = atomic_load(&countdown);

	while (left && !atomic_compare_exchange_weak(&countdown, &left, left - 1))
		;
	if (left != 1)
		return atomic_load(&lasting) && atomic_load(&reached);
	atomic_store(&reached, true);
	return true;
}

static void *mem_count(void *memory)
{
	if (memory && atomic_load_explicit(&counting, memory_order_relaxed))
		atomic_fetch_add(&live, 1);
	return memory;
}

void *mem_alloc(size_t size)
{
	return mem_must_fail() ? NULL : mem_count(malloc(size));
}

void *mem_zalloc(size_t size)
{
	return mem_must_fail() ? NULL : mem_count(calloc(1, size));
}

void mem_free(void *memory)
{
	if (memory && atomic_load_explicit(&counting, memory_order_relaxed))
		atomic_fetch_sub(&live, 1);
	free(memory);
}

void mem_test_begin(unsigned long fail_at)
{
	atomic_store(&live, 0);
	atomic_store(&countdown, fail_at);
	atomic_store(&reached, false);
	atomic_store(&lasting, false);
	atomic_store(&counting, true);
}

void mem_test_begin_from(unsigned long fail_from)
{
	mem_test_begin(fail_from);
	atomic_store(&lasting, true);
}

long mem_test_end(int *failed)
{
	atomic_store(&counting, false);
	if (failed)
		*failed = atomic_load(&reached);
	return atomic_load(&live);
}
