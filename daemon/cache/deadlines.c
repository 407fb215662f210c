/* SPDX-License-Identifier: MIT */
#include "cache/deadlines.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"

#define CAPACITY_MIN 16u

void deadlines_destroy(struct deadlines *deadlines)
{
	mem_free(deadlines->heap);
	*deadlines = (struct deadlines){ 0 };
}

int deadlines_reserve(struct deadlines *deadlines, size_t count)
{
	size_t capacity = deadlines->capacity ? deadlines->capacity : CAPACITY_MIN;
	struct deadline **heap;

	if (count <= deadlines->capacity)
		return 0;
	while (capacity < count)
		capacity *= 2;
	heap = mem_alloc(capacity * sizeof(struct deadline *));
	if (!heap)
		return -ENOMEM;
	if (deadlines->count)
		memcpy(heap, deadlines->heap, deadlines->count * sizeof(struct deadline *));
	mem_free(deadlines->heap);
	deadlines->heap = heap;
	deadlines->capacity = capacity;
	return 0;
}

static void deadlines_put_at(struct deadlines *deadlines, size_t index, struct deadline *deadline)
{
	deadlines->heap[index] = deadline;
	deadline->place = index + 1;
}

static void deadlines_move_up(struct deadlines *deadlines, size_t index, struct deadline *deadline)
{
	while (index) {
		size_t parent = (index - 1) / 2;

		if (deadlines->heap[parent]->at_ms <= deadline->at_ms)
			break;
		deadlines_put_at(deadlines, index, deadlines->heap[parent]);
		index = parent;
	}
	deadlines_put_at(deadlines, index, deadline);
}

static void deadlines_move_down(struct deadlines *deadlines, size_t index,
				struct deadline *deadline)
{
	for (size_t child; (child = 2 * index + 1) < deadlines->count; index = child) {
		struct deadline **heap = deadlines->heap;

		if (child + 1 < deadlines->count && heap[child + 1]->at_ms < heap[child]->at_ms)
			child++;
		if (deadline->at_ms <= heap[child]->at_ms)
			break;
		deadlines_put_at(deadlines, index, heap[child]);
	}
	deadlines_put_at(deadlines, index, deadline);
}

bool deadlines_add(struct deadlines *deadlines, struct deadline *deadline)
{
	assert(!deadline->place && deadlines->count < deadlines->capacity);
	deadlines_move_up(deadlines, deadlines->count++, deadline);
	return deadline->place == 1;
}

void deadlines_remove(struct deadlines *deadlines, struct deadline *deadline)
{
	struct deadline *last;
	size_t index = deadline->place - 1;

	if (!deadline->place)
		return;
	deadline->place = 0;
	last = deadlines->heap[--deadlines->count];
	if (last == deadline)
		return;
	if (index && deadlines->heap[(index - 1) / 2]->at_ms > last->at_ms)
		deadlines_move_up(deadlines, index, last);
	else
		deadlines_move_down(deadlines, index, last);
}

struct deadline *deadlines_first(struct deadlines *deadlines)
{
	return deadlines->count ? deadlines->heap[0] : NULL;
}
