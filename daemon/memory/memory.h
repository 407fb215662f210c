/* SPDX-License-Identifier: MIT */
/*
 * A memfd: the only room that makes one. Made when first needed, so that an empty file costs no
 * descriptor. While nobody holds a memory its descriptors may be parked (parking.h), so that a file
 * that is not in use costs none either.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/list.h"

struct parked_group;

/**
 * struct memory - memory of one file
 * @fd: read-write descriptor, -1 before memory_require()
 * @fd_readonly: read-only reopen, made when first needed: its mappings do not count as writable
 * @holds: while above 0 descriptors stay; the rest is parking.c's
 */
struct memory {
	atomic_int fd;
	atomic_int fd_readonly;
	atomic_uint holds;
	struct list idle;
	struct parked_group *parked;
	unsigned parked_slot;
};

/**
 * memory_init() - no memory yet
 * Context: before anybody else sees it.
 */
void memory_init(struct memory *memory);

/**
 * memory_destroy() - close the descriptors; pages live on while somebody maps or pins them
 * Context: nobody else uses it any more; may sleep.
 */
void memory_destroy(struct memory *memory);

/**
 * memory_hold() - descriptors stay open until memory_release()
 *
 * Whoever keeps a descriptor for longer than a call holds the memory. The calls below do so
 * themselves.
 * Context: may sleep; thread-safe.
 * Return: 0; -EMFILE, -ENFILE, -ENOMEM when parked descriptors cannot be brought back.
 */
int memory_hold(struct memory *memory);

/**
 * memory_release() - the end of memory_hold()
 * Context: may sleep; thread-safe.
 */
void memory_release(struct memory *memory);

/**
 * memory_require() - the read-write descriptor; makes the memfd at the first call
 * Context: may sleep; thread-safe. Who uses the descriptor holds the memory.
 * Return: a descriptor that stays the memory's own, -ENOMEM, -EMFILE, -ENFILE.
 */
int memory_require(struct memory *memory);

/**
 * memory_require_readonly() - a read-only descriptor of the same memory
 * Context: may sleep; thread-safe.
 * Return: a descriptor that stays the memory's own, as memory_require(), or -ENOENT where there is
 * no /proc.
 */
int memory_require_readonly(struct memory *memory);

/**
 * memory_map() - map a window
 * @offset: bytes, page-aligned
 * @length: bytes
 * @writable: through the read-write descriptor; else through the read-only one
 * @window: out: returns a reference to the mapping, for memory_unmap()
 * Context: may sleep; thread-safe.
 * Return: 0, -ENOMEM, -EPERM (sealed), -EMFILE.
 */
int memory_map(struct memory *memory, uint64_t offset, size_t length, bool writable, void **window);

/**
 * memory_unmap() - the end of memory_map()
 * @window: takes
 * @length: bytes, as mapped
 * Context: may sleep.
 */
void memory_unmap(void *window, size_t length);

/**
 * memory_stat() - fstat() of the memfd; zeroes when there is none yet
 * Context: may sleep; thread-safe.
 */
void memory_stat(struct memory *memory, struct stat *st);

/**
 * memory_clear_times() - times of change and of access that no change and no access gives: zero
 * Context: may sleep; thread-safe.
 * Return: 0, also when there is no memory yet; -EMFILE, -ENFILE, -ENOMEM.
 */
int memory_clear_times(struct memory *memory);

/**
 * memory_resize() - set the size
 * @size: bytes
 * Context: may sleep; thread-safe.
 * Return: 0, -EPERM (sealed), -EFBIG, -ENOMEM.
 */
int memory_resize(struct memory *memory, uint64_t size);

/**
 * memory_allocate() - allocate the holes of a range; does not change the size
 *
 * The kernel's own memfds have no limit: a length that can never be satisfied is refused before the
 * machine runs out of memory over it. Pages that were allocated and never written count as holes
 * for memory_seek().
 * Context: sleeps.
 * Return: 0, -ENOSPC, -ENOMEM, -EPERM (past the end of a file sealed against growing).
 */
int memory_allocate(struct memory *memory, uint64_t offset, uint64_t length);

/**
 * memory_plausible_bytes() - more than this cannot be allocated on this machine
 * Context: any.
 * Return: bytes of RAM and swap together.
 */
uint64_t memory_plausible_bytes(void);

/**
 * memory_punch() - make a range a hole; partial pages are zeroed
 * @offset: bytes
 * @length: bytes
 * Context: may sleep; thread-safe.
 * Return: 0, -EPERM (sealed), -ENOMEM.
 */
int memory_punch(struct memory *memory, uint64_t offset, uint64_t length);

/**
 * memory_seek() - SEEK_DATA or SEEK_HOLE
 * Context: may sleep; thread-safe.
 * Return: bytes, -ENXIO, -EINVAL.
 */
int64_t memory_seek(struct memory *memory, uint64_t offset, int whence);

/**
 * memory_add_seals() - F_ADD_SEALS
 * Context: sleeps for about 165 ms when pages have references that nobody explains.
 * Return: 0, -EBUSY, -EPERM, -ENOMEM, -EMFILE.
 */
int memory_add_seals(struct memory *memory, unsigned seals);

/**
 * memory_seals() - F_GET_SEALS less those that every memfd of ours is born with
 * Context: may sleep; thread-safe.
 * Return: F_SEAL_*; 0 when there is no memfd, or its parked descriptor cannot be brought back.
 */
unsigned memory_seals(struct memory *memory);

/**
 * memory_collapse() - make a range huge
 * @offset: bytes, a multiple of 2 MiB
 * @length: bytes, a multiple of 2 MiB
 * Context: sleeps.
 * Return: 0; -EINVAL (kernel cannot), -EAGAIN, -EBUSY, -ENOMEM (this range not, now).
 */
int memory_collapse(struct memory *memory, uint64_t offset, uint64_t length);
