/* SPDX-License-Identifier: MIT */
/*
 * A heap of times at which something falls due. It belongs to whoever embeds it, and has no lock.
 *
 * Context: the lock of whoever embeds it; never sleeps.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * struct deadline - a time, embedded in what falls due then
 * @at_ms: of clock_now_ms()
 * @place: private: index in the heap plus one, 0 when not in it
 */
struct deadline {
	int64_t at_ms;
	size_t place;
};

/**
 * struct deadlines - the heap
 * @heap: the earliest is first
 */
struct deadlines {
	struct deadline **heap;
	size_t count;
	size_t capacity;
};

/**
 * deadlines_destroy() - free the heap; what was in it is the caller's
 */
void deadlines_destroy(struct deadlines *deadlines);

/**
 * deadlines_reserve() - make room, so that deadlines_add() cannot fail
 * @count: deadlines that the heap must be able to hold in all
 * Return: 0, -ENOMEM.
 */
int deadlines_reserve(struct deadlines *deadlines, size_t count);

/**
 * deadlines_add() - add one; room was reserved
 * @deadline: borrows until it is removed; @at_ms is set and not changed meanwhile
 * Return: is it the earliest now?
 */
bool deadlines_add(struct deadlines *deadlines, struct deadline *deadline);

/**
 * deadlines_remove() - take one out; nothing happens when it is not in the heap
 */
void deadlines_remove(struct deadlines *deadlines, struct deadline *deadline);

/**
 * deadlines_first() - the earliest
 * Return: *borrows* it, NULL when there is none.
 */
struct deadline *deadlines_first(struct deadlines *deadlines);
