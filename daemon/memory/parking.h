/* SPDX-License-Identifier: MIT */
/*
 * Descriptors of memories that nobody uses, put aside where they do not count. parking.c begins
 * with how.
 */
#pragma once

#include <stdbool.h>

#include "memory/memory.h"

/**
 * parking_set_limit() - how many descriptors memories may have open before idle ones are parked
 * @descriptors: 0: half of RLIMIT_NOFILE, as it is without a call
 * Context: before memories are used.
 */
void parking_set_limit(unsigned descriptors);

/**
 * parking_count() - count a memory's descriptors that were opened or closed
 * @descriptors: positive or negative
 * Context: any.
 */
void parking_count(int descriptors);

/**
 * parking_make_room() - park idle memories although the limit is not met: there is no descriptor
 * left
 * Context: may sleep; no lock of a memory is held.
 * Return: true when some were parked, and it is worth another try.
 */
bool parking_make_room(void);

/**
 * parking_hold() - the part of memory_hold() for a memory that is idle or parked
 * Context: may sleep.
 * Return: as memory_hold().
 */
int parking_hold(struct memory *memory);

/**
 * parking_stat() - what fstat() said when a memory was parked, or a hold
 * @st: filled in for a parked memory
 * Context: any.
 * Return: true with @st; false when the memory is not parked, and held now.
 */
bool parking_stat(struct memory *memory, struct stat *st);

/**
 * parking_release() - the part of memory_release() for the last user
 * Context: may sleep.
 */
void parking_release(struct memory *memory);

/**
 * parking_forget() - a memory ends: it is no longer idle nor parked
 *
 * Where its descriptor cannot be taken back, for want of descriptors, its pages are given back when
 * the others of its group are.
 * Context: may sleep; nobody holds the memory.
 */
void parking_forget(struct memory *memory);

/**
 * parking_parked() - how many memories are parked now
 * Context: any.
 * Return: memories.
 */
unsigned long parking_parked(void);
