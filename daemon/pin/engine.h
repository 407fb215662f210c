/* SPDX-License-Identifier: MIT */
/*
 * The pin engine: one io_uring whose table of registered buffers holds pages at their place, as a
 * device under DMA would. engine.c begins with how, and with what the kernel promises.
 */
#pragma once

#include <stdint.h>

#include "memory/memory.h"

struct pin_engine;
struct pin_slots;

#define PIN_SLOT_BYTES (UINT64_C(1) << 30) /* most that one registered buffer covers */
#define PIN_SLOTS_MAX 16384u		   /* most that one io_uring registers */

/**
 * pin_engine_new() - set up the ring and its table; on a lazy kernel also a thread that flushes it
 * @error: out: 0; -EOPNOTSUPP (io_uring is missing, forbidden, or too old to tell when a buffer is
 *         gone: before Linux 5.13); -ENOMEM; -EMFILE
 *
 * Where the kernel or a limit refuses a table of PIN_SLOTS_MAX slots, a smaller one is made.
 * Context: after the daemon's last fork(), since buffers belong to the process. Sleeps.
 * Return: returns a reference to the engine, or NULL.
 */
struct pin_engine *pin_engine_new(int *error);

/**
 * pin_engine_new_sized() - pin_engine_new() with a table of chosen size
 * @slots: at least 1, at most PIN_SLOTS_MAX
 * @error: out: as pin_engine_new()
 * Context: as pin_engine_new().
 * Return: returns a reference to the engine, or NULL.
 */
struct pin_engine *pin_engine_new_sized(unsigned slots, int *error);

/**
 * pin_engine_free() - end of pin_engine_new()
 * @engine: takes; may be NULL
 *
 * Everything was given to pin_engine_release() before; what is still on its way out is waited for.
 * Context: sleeps; not from a done() callback.
 */
void pin_engine_free(struct pin_engine *engine);

/**
 * pin_engine_make_lazy() - for tests: treat the kernel as one before 6.4
 * @engine: borrows
 * Context: before the first release.
 * Return: 0; -ENOMEM (no thread).
 */
int pin_engine_make_lazy(struct pin_engine *engine);

/**
 * pin_engine_slots() - size of the table
 * @engine: borrows
 * Context: any.
 * Return: slots, free ones and others.
 */
unsigned pin_engine_slots(const struct pin_engine *engine);

/**
 * pin_engine_used() - how much of the table is in use
 * @engine: borrows
 * Context: any; a snapshot.
 * Return: slots that are taken, those on their way out included.
 */
unsigned pin_engine_used(struct pin_engine *engine);

/**
 * pin_engine_register() - take long-term pins on a range of a file's memory
 * @engine: borrows
 * @memory: borrows; the range is allocated and inside the file
 * @offset: bytes, page-aligned
 * @length: bytes, a multiple of the page size, not 0
 * @out: returns a reference to what pin_engine_release() wants
 *
 * Maps the range writable for the time of the call, so that the memory refuses a write seal
 * meanwhile; the pins refuse it afterwards. All or nothing: on error nothing is pinned any more
 * when the call returns.
 * Context: sleeps, in proportion to the length; thread-safe; not from a done() callback.
 * Return: 0; -ENOBUFS (the table is full); -ENOMEM (no memory, or RLIMIT_MEMLOCK: logged once);
 * -EPERM (the memory is sealed against writing); -EFAULT (the range passes the end); -EMFILE.
 */
int pin_engine_register(struct pin_engine *engine, struct memory *memory, uint64_t offset,
			uint64_t length, struct pin_slots **out);

/**
 * pin_engine_release() - let go of a range
 * @engine: borrows
 * @slots: takes
 * @done: called once, without locks of the engine, when the kernel has let go of every page: before
 *        this returns, or, on a kernel before 6.4, on the engine's own thread. May be NULL. It may
 *        release other slots, but must neither register nor free.
 * @data: for @done
 * Context: may sleep for as long as another thread registers; does not allocate and cannot fail.
 * The caller holds no lock that @done takes.
 */
void pin_engine_release(struct pin_engine *engine, struct pin_slots *slots,
			void (*done)(void *data), void *data);

/**
 * pin_engine_release_wait() - let go of a range and wait until the kernel has
 * @engine: borrows
 * @slots: takes
 * Context: sleeps; not from a done() callback. Does not allocate and cannot fail.
 */
void pin_engine_release_wait(struct pin_engine *engine, struct pin_slots *slots);
