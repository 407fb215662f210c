/* SPDX-License-Identifier: MIT */
/*
 * Read-copy-update: readers take no lock; who takes something out of their reach frees it after a
 * grace period, when every read-side section that might still see it has ended.
 *
 * The flavour is liburcu-bp. The threads that read are made by libfuse, which knows nothing of RCU,
 * and bp is the flavour that registers a thread at its first read-side section and forgets it when
 * the thread ends. That costs nothing that could be measured: lock and unlock together take 1.4 to
 * 1.9 ns, with the default flavour (memb) 2.4 ns, and with mb, whose readers execute fences where
 * those two rely on membarrier(2), 47 to 51 ns. Nothing but this header knows the flavour.
 *
 * Callbacks run in liburcu's own thread, which starts with rcu_start() or the first rcu_call(): a
 * process that forks to become a daemon does so before.
 *
 * ThreadSanitizer cannot look into liburcu. It is told the two things that a grace period promises:
 * what a reader did before rcu_read_unlock(), and what was done before rcu_call(), happens before
 * the callback. Nothing more, so that a reader without rcu_read_lock() is found.
 */
#pragma once

#ifdef CACHET_TSAN
#include <sanitizer/tsan_interface.h>
#include <semaphore.h>
#include <stdlib.h>
#elif !defined(_LGPL_SOURCE) && !defined(__SANITIZE_ADDRESS__)
/* Not in sanitised builds: readers' records lie less aligned than the inline functions promise. */
#define _LGPL_SOURCE /* inline rcu_read_lock(); its authors allow that to everybody */
#endif
#include <urcu/urcu-bp.h>

#undef rcu_dereference

#ifdef CACHET_TSAN
/* One for the process: its address is all that counts. */
__attribute__((weak)) char rcu_tsan_readers;
#endif

/**
 * rcu_dereference() - load a pointer that others may change at any moment
 * @pointer: the variable
 * Context: RCU read-side section for as long as the result is used, or the lock that changes take.
 */
#define rcu_dereference(pointer) __atomic_load_n(&(pointer), __ATOMIC_ACQUIRE)

/**
 * rcu_assign() - store a pointer that readers may follow from now on
 * @pointer: the variable
 * @value: what it points to is initialised before
 * Context: the lock that changes of @pointer take.
 */
#define rcu_assign(pointer, value) __atomic_store_n(&(pointer), (value), __ATOMIC_RELEASE)

/**
 * rcu_read_lock() - begin a read-side section
 * Context: any thread; never blocks; nests.
 */
static inline void rcu_read_lock(void)
{
	urcu_bp_read_lock();
}

/**
 * rcu_start() - start the thread of the callbacks, instead of with the first rcu_call()
 *
 * liburcu ends the process when it cannot: better before anybody depends on it.
 * Context: once, by a process that will not fork any more. Sleeps.
 */
static inline void rcu_start(void)
{
	urcu_bp_get_default_call_rcu_data();
	rcu_read_lock(); /* the table of readers, too */
	urcu_bp_read_unlock();
}

/**
 * rcu_read_unlock() - end a read-side section
 * Context: the thread that began it.
 */
static inline void rcu_read_unlock(void)
{
#ifdef CACHET_TSAN
	__tsan_release(&rcu_tsan_readers);
#endif
	urcu_bp_read_unlock();
}

#ifdef CACHET_TSAN
struct rcu_tsan_call {
	struct rcu_head rcu;
	struct rcu_head *head;
	void (*func)(struct rcu_head *head);
};

static inline void rcu_tsan_run(struct rcu_head *rcu)
{
	struct rcu_tsan_call *call = caa_container_of(rcu, struct rcu_tsan_call, rcu);

	__tsan_acquire(&rcu_tsan_readers);
	__tsan_acquire(call);
	call->func(call->head);
	free(call);
}
#endif

/**
 * rcu_call() - call a function after a grace period
 * @head: takes; a member of what is to be freed
 * @func: called once, in another thread, with @head
 *
 * Callbacks may come in any order.
 * Context: any; never waits for readers.
 */
static inline void rcu_call(struct rcu_head *head, void (*func)(struct rcu_head *head))
{
#ifdef CACHET_TSAN
	struct rcu_tsan_call *call = malloc(sizeof(*call));

	if (!call)
		abort();
	call->head = head;
	call->func = func;
	__tsan_release(call);
	urcu_bp_call_rcu(&call->rcu, rcu_tsan_run);
#else
	urcu_bp_call_rcu(head, func);
#endif
}

#ifdef CACHET_TSAN
struct rcu_tsan_barrier {
	struct rcu_head rcu;
	sem_t done;
};

static inline void rcu_tsan_reached(struct rcu_head *rcu)
{
	sem_post(&caa_container_of(rcu, struct rcu_tsan_barrier, rcu)->done);
}
#endif

/**
 * rcu_barrier() - wait until every callback given to rcu_call() so far has run
 *
 * For shutdown and for tests that count what is alive.
 * Context: sleeps. No read-side section, not in a callback, no lock that a callback takes.
 */
static inline void rcu_barrier(void)
{
#ifdef CACHET_TSAN
	/* liburcu's own frees memory in what looks like a race; there is one queue, in order. */
	struct rcu_tsan_barrier barrier;

	sem_init(&barrier.done, 0, 0);
	rcu_call(&barrier.rcu, rcu_tsan_reached);
	while (sem_wait(&barrier.done) < 0)
		;
	sem_destroy(&barrier.done);
#else
	urcu_bp_barrier();
#endif
}
