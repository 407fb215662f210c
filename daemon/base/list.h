/* SPDX-License-Identifier: MIT */
/*
 * A doubly linked list whose links live in the members. An empty list, and a member that is on no
 * list, point to themselves, so list_del() of an idle member does nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *prev;
};

#define LIST_INIT(name) { &(name), &(name) }

#define container_of(pointer, type, member) \
	((type *)((char *)(pointer) - offsetof(type, member)))

static inline void list_init(struct list *list)
{
	list->next = list->prev = list;
}

static inline bool list_empty(const struct list *list)
{
	return list->next == list;
}

static inline void list_add_tail(struct list *list, struct list *member)
{
	member->prev = list->prev;
	member->next = list;
	list->prev->next = member;
	list->prev = member;
}

static inline void list_del(struct list *member)
{
	member->prev->next = member->next;
	member->next->prev = member->prev;
	list_init(member);
}

/* Move all members of @from to the end of @to. */
static inline void list_splice(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_first(list, type, member) container_of((list)->next, type, member)

#define list_for_each(cursor, list, member)                                            \
	for (cursor = container_of((list)->next, __typeof__(*cursor), member);         \
	     &cursor->member != (list);                                                \
	     cursor = container_of(cursor->member.next, __typeof__(*cursor), member))

/* The body may delete and free @cursor. */
#define list_for_each_safe(cursor, ahead, list, member)                                \
	for (cursor = container_of((list)->next, __typeof__(*cursor), member),         \
	    ahead = container_of(cursor->member.next, __typeof__(*cursor), member);    \
	     &cursor->member != (list);                                                \
	     cursor = ahead, ahead = container_of(ahead->member.next, __typeof__(*cursor), member))
