/* SPDX-License-Identifier: MIT */
/*
 * The seals of one file: what is set, who hinders more, and who waits for it. sealing.c begins with
 * the protocol.
 */
#pragma once

#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "cache/mapping.h"
#include "seal/engine.h"
#include "seal/rules.h"

/* How long NOWAIT, and the xattr form, wait for a RELEASE that is on its way. */
#define SEAL_GRACE_MS 10

/* Where the engine limits who waits: so many more may be under way, for SEAL_GRACE_MS. */
#define SEAL_CROWD_MAX 4

/* How long PREPARE holds off new writers when COMMIT does not come. */
#define SEAL_PREPARED_MS 2000

struct sealing;

/**
 * struct sealing_ops - what this room calls upwards
 * @get:     keep the file alive
 * @put:     the end of @get; no locks are held
 * @granted: seals were added; no locks are held
 * @attr_stale: holes were filled, or seals are about to be seen; no locks are held
 * @mapped:  is the memory mapped shared and writable, as far as anybody can see? Sleeps, no locks
 *           are held.
 * @mode_locked: the mode of the file; the lock is held
 */
struct sealing_ops {
	void (*get)(struct sealing *sealing);
	void (*put)(struct sealing *sealing);
	void (*granted)(struct sealing *sealing, unsigned added);
	void (*attr_stale)(struct sealing *sealing);
	bool (*mapped)(struct sealing *sealing);
	mode_t (*mode_locked)(struct sealing *sealing);
};

/**
 * struct writer - a handle that hinders a write seal, because it could map the memory writable
 * @handle: its number
 * @pid:    of the process that opened it
 */
struct writer {
	struct list link;
	uint64_t handle;
	pid_t pid;
	uid_t uid;
	int64_t since_ms;
};

/**
 * struct admission - somebody who wants to write and waits for the outcome of a seal's last step
 * @resume: called once, without locks: ask again
 */
struct admission {
	struct list link;
	void (*resume)(struct admission *admission);
};

enum seal_verb {
	SEAL_ADD,
	SEAL_PREPARE,
	SEAL_COMMIT,
};

/**
 * struct seal_request - one who wants seals
 * @verb:   what is wanted
 * @seals:  F_SEAL_*, as asked: what EXEC implies depends on the mode of the moment
 * @populate: allocate the holes before anything is sealed
 * @deadline_ms: of clock_now_ms(); negative is never
 * @handle: PREPARE, COMMIT: the handle that is handed over
 * @owner:  PREPARE, COMMIT: the handle that the call came through
 * @caller: thread that may have a signal of which nobody tells us, see procsignals.h; 0: they do
 * @done:   called once, without locks, when seal_submit() said -EINPROGRESS
 *
 * The rest is private. The submitter owns the request, and must not free it before @done.
 */
struct seal_request {
	enum seal_verb verb;
	unsigned seals;
	bool populate;
	int64_t deadline_ms;
	uint64_t handle;
	uint64_t owner;
	pid_t caller;
	void (*done)(struct seal_request *request, int result);

	struct list link;
	bool crowded;
	bool interrupted;
	bool signalled;
	bool waited;
	int64_t since_ns;
	int64_t look_ms;
	int64_t retry_ms;
	unsigned backoff_ms;
	int result;
};

/**
 * struct sealing - see above; fields are guarded by @lock
 * @lock:    borrows the inode's lock
 * @mapping: borrows
 * @engine:  borrows
 * @seals:   F_SEAL_* that are set; may be read without the lock
 * @denied:  writers are denied for good (WRITE or FUTURE_WRITE is set)
 * @asking:  the memory is being asked; new writers wait in @admissions
 * @asked:   F_SEAL_* that it is being asked for
 * @running: sealing_run() is queued or runs
 * @rerun:   ... and something happened meanwhile
 * @exposed: a client could map the memory or put its pages into a pipe, and may still have them
 * @memory_busy: the memory had references that we know nothing of when it was asked last
 * @requests: who waits, struct seal_request
 * @writers: struct writer
 * @prepared_handle: a hand-over is under way (0: none), for @prepared_owner, until @prepared_until
 */
struct sealing {
	pthread_mutex_t *lock;
	struct mapping *mapping;
	struct seal_engine *engine;
	const struct sealing_ops *ops;
	atomic_uint seals;
	bool denied;
	bool asking;
	unsigned asked;
	bool running;
	bool rerun;
	bool exposed;
	bool memory_busy;
	unsigned nr_writers;
	struct list requests;
	struct list admissions;
	struct list writers;
	uint64_t prepared_handle;
	uint64_t prepared_owner;
	int64_t prepared_until;
	GSource *timer;
	int64_t timer_at;
};

/**
 * sealing_init() - no seals, no writers
 * @lock: borrows
 * @mapping: borrows
 * @engine: borrows
 * @ops: borrows
 * Context: nobody else knows the file yet.
 */
void sealing_init(struct sealing *sealing, pthread_mutex_t *lock, struct mapping *mapping,
		  struct seal_engine *engine, const struct sealing_ops *ops);

/**
 * sealing_current() - the seals that are set
 * Context: any; a snapshot unless the lock is held.
 * Return: F_SEAL_*.
 */
unsigned sealing_current(struct sealing *sealing);

/**
 * seal_submit() - add seals, now or later
 * @request: borrows until @done was called, or this returned something else than -EINPROGRESS
 * Context: takes the lock; does not sleep for long.
 * Return: -EINPROGRESS: @done will be called, perhaps before this returns. 0; -EPERM (SEAL is set);
 * -EINVAL (no such hand-over); -EAGAIN (too many requests wait; @done may say that, too).
 */
int seal_submit(struct sealing *sealing, struct seal_request *request);

/**
 * seal_interrupt() - the caller does not want to wait any longer
 * @request: is known to be alive; it ends with -EINTR unless it is granted at this very moment
 * Context: takes the lock; does not sleep.
 */
void seal_interrupt(struct sealing *sealing, struct seal_request *request);

/**
 * sealing_admit_writer_locked() - may somebody begin to write without asking us?
 * @admission: takes it when the answer must wait for the outcome of a seal; may be NULL
 * Context: the lock.
 * Return: 0; -EPERM (sealed); -EINPROGRESS (@admission will be resumed).
 */
int sealing_admit_writer_locked(struct sealing *sealing, struct admission *admission);

/**
 * sealing_check_mode_locked() - may the mode change like this?
 *
 * A change that EXEC forbids is refused while EXEC is being set, too, as what it implies was
 * decided by the mode of before.
 * Context: the lock; when the mode has changed, sealing_wake_locked() follows under it.
 * Return: 0; -EPERM.
 */
int sealing_check_mode_locked(struct sealing *sealing, mode_t old_mode, mode_t new_mode);

/**
 * sealing_expose_locked() - there will be a handle that is not for writing only
 *
 * Whoever has one can keep references to the memory that no handle tells of.
 * Context: the lock.
 */
void sealing_expose_locked(struct sealing *sealing);

/**
 * sealing_add_writer_locked() - a handle that can map the memory writable is open
 * @writer: borrows until sealing_remove_writer_locked()
 * Context: the lock; the caller was admitted under it.
 */
void sealing_add_writer_locked(struct sealing *sealing, struct writer *writer);

/**
 * sealing_remove_writer_locked() - the handle is closed; who waits for that is woken
 * @writer: gives back
 * Context: the lock.
 */
void sealing_remove_writer_locked(struct sealing *sealing, struct writer *writer);

/**
 * sealing_wake_locked() - something that hindered a seal has gone: look again
 * Context: the lock.
 */
void sealing_wake_locked(struct sealing *sealing);

/**
 * sealing_abort_locked() - forget a hand-over
 * @owner: the handle that prepared it
 * Context: the lock.
 * Return: 0; -EINVAL (there is none of this owner).
 */
int sealing_abort_locked(struct sealing *sealing, uint64_t owner);

/**
 * sealing_run() - do what can be done for those who wait
 * @sealing: takes a reference
 * Context: the engine's pool; sleeps.
 */
void sealing_run(struct sealing *sealing);

/**
 * sealing_interrupt_all() - end everybody who waits, because the mount ends
 * Context: takes the lock; does not sleep.
 */
void sealing_interrupt_all(struct sealing *sealing);
