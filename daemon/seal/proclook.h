/* SPDX-License-Identifier: MIT */
/*
 * Looks into other processes, which may never end. /proc/PID/maps and smaps wait for the lock of
 * the process's map, and whoever likes keeps that for ever: a page fault on a file system of his
 * own that never answers is enough. A thread that waits for it ends with the process or with the
 * daemon, not before.
 *
 * So a look runs on a thread of its own, and is given up when it makes no progress. Its thread goes
 * on to wait, but touches nothing any more that others look at; and until it ends, the process that
 * it is lost to is not looked at again. So a process costs one thread at most, and all of them
 * together LOOKS_LOST_MAX.
 *
 *	begun -> done                              the caller takes what was found
 *	      -> given up -> (the process lets go) what was found until then is the caller's
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#define LOOK_PATIENCE_MS 2000
#define LOOKS_LOST_MAX 64u

/**
 * struct proclook - a look under way; what it is about begins with this
 * @run: looks; calls proclook_at() before each process, and changes what the caller takes only
 *       while proclook_enter() lets it
 * @free: called when neither caller nor thread need it any more
 * @progress: something was read
 * @lock: guards the rest, and what the caller takes
 * @place: of the process that is looked at, as @run counts them
 */
struct proclook {
	void (*run)(struct proclook *look);
	void (*free)(struct proclook *look);
	atomic_ulong progress;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned refs;
	pid_t pid;
	unsigned place;
	bool done;
	bool given_up;
};

/**
 * proclook_init() - begin of what proclook_put() ends
 * @look: zeroed, but for @run and @free
 * Context: any. The caller has the only reference.
 */
void proclook_init(struct proclook *look);

/**
 * proclook_put() - the caller is done
 * @look: takes; may be NULL
 * Context: any.
 */
void proclook_put(struct proclook *look);

/**
 * proclook_run() - look, for as long as that gets on
 * @look: borrows
 * @patience_ms: how long it may make no progress
 *
 * Where no thread can be had it runs on this one, however long that takes.
 * Context: sleeps; no lock is held.
 * Return: true: done. false: given up at @pid and @place, or, with @given_up clear, not even begun,
 * as LOOKS_LOST_MAX threads are lost already.
 */
bool proclook_run(struct proclook *look, unsigned patience_ms);

/**
 * proclook_at() - for run(): the next process
 * @place: for the caller, if it is given up here
 * Context: on the look's thread.
 * Return: false: leave it out.
 */
bool proclook_at(struct proclook *look, pid_t pid, unsigned place);

/**
 * proclook_progress() - for run(): something was read
 * Context: on the look's thread.
 */
void proclook_progress(struct proclook *look);

/**
 * proclook_enter() - for run(): something was found
 * Context: on the look's thread.
 * Return: true with @lock held, for proclook_leave(); false: given up, nobody wants it any more.
 */
bool proclook_enter(struct proclook *look);

/**
 * proclook_leave() - end of proclook_enter()
 * Context: on the look's thread.
 */
void proclook_leave(struct proclook *look);
