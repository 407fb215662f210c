/* SPDX-License-Identifier: MIT */
/*
 * How pages are pinned.
 *
 * A buffer that is registered with an io_uring is pinned for the long term (FOLL_PIN|FOLL_LONGTERM)
 * from registration until its slot is cleared, whether or not anybody maps it any more and whether
 * or not any request uses it. That is what a device driver does to pages under DMA, and it needs no
 * device and no privilege. So the engine never issues a request on its ring: the table of buffers
 * is all that it wants, and completions are all that it gets.
 *
 * A slot goes through this:
 *
 *	free -> registered (with the tag slot + 1) -> cleared -> its tag arrives -> free
 *
 * and is not reused before the tag has come, so a tag always tells of the slot's present life.
 * There are at least as many places in the completion queue as slots, so no completion is ever
 * lost.
 *
 * The completion is posted, and the pages are dropped, inside the call that clears the slot.
 * Whoever clears slots reaps their tags himself, under the lock "clearing", and needs no other
 * thread.
 *
 * Before Linux 6.4 a cleared slot goes to a list after an RCU grace period, and the list is worked
 * off a second later; but at once when somebody gives up a table of files. The engine notices such
 * a kernel when it starts, calls it lazy, and has a thread then that does so whenever slots were
 * cleared, until all their tags have come. There the tag may come a moment before the pages are
 * free. That does no harm: the memory looks for references by itself, and more than once, before it
 * refuses a seal.
 *
 * Locks: "clearing", then "lock". Neither is held while a callback runs.
 */
#include "pin/engine.h"

#include <errno.h>
#include <liburing.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/thread.h"

#define ENGINE_SLOTS_MIN 64u   /* a smaller table is not worth having */
#define ENGINE_BATCH 64u       /* completions read at once */
#define ENGINE_RETRY_MS 10     /* between attempts to clear a slot */
#define ENGINE_GRACE_MS 30     /* longer than a grace period most often takes */
#define ENGINE_STOP UINT64_MAX /* user_data of the request that ends the thread */
#define ENGINE_FLUSH (UINT64_MAX - 1) /* and of the one that makes it flush */

/**
 * struct pin_engine
 * @thread:   where the kernel is lazy
 * @clearing: held while slots are cleared and, unless the kernel is lazy, until their tags are
 *            reaped; and to submit a request
 * @lazy:     the kernel is in no hurry to clear a slot; constant
 * @flushing: a request to flush is on its way to the thread
 * @leaving:  slots that are cleared, or about to be, and whose tags have not been reaped
 * @lock:     guards everything below
 * @changed:  a slot became free
 * @free:     stack of free slots
 * @owners:   by slot: what it is registered for
 */
struct pin_engine {
	struct io_uring ring;
	unsigned nr_slots;
	pthread_t thread;
	atomic_bool limit_logged;
	bool lazy;
	atomic_bool flushing;
	atomic_uint leaving;
	pthread_mutex_t clearing;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned nr_free;
	unsigned *free;
	struct pin_slots **owners;
};

/**
 * struct pin_slots - the slots of one range
 * @nr_left: slots whose tag has not come; under the engine's lock
 */
struct pin_slots {
	unsigned nr;
	unsigned nr_left;
	void (*done)(void *data);
	void *data;
	unsigned slot[];
};

static int engine_update(struct pin_engine *engine, unsigned slot, void *base, size_t length,
			 uint64_t tag)
{
	struct iovec iovec = { .iov_base = base, .iov_len = length };
	__u64 tag64 = tag;
	int ret = io_uring_register_buffers_update_tag(&engine->ring, slot, &iovec, &tag64, 1);

	if (ret == -EAGAIN)
		return -ENOMEM;
	return ret == 1 ? 0 : ret < 0 ? ret : -EFAULT;
}

static void engine_clear_slot(struct pin_engine *engine, unsigned slot)
{
	bool logged = false;
	int ret;

	while ((ret = engine_update(engine, slot, NULL, 0, 0))) {
		if (!logged)
			log_warning("letting go of a pin failed, trying again: %s",
				    g_strerror(-ret));
		logged = true;
		nanosleep(&(struct timespec){ .tv_nsec = ENGINE_RETRY_MS * 1000000L }, NULL);
	}
}

/* Linux 5.13 to 5.18 have no sparse tables, but accept a table of empty buffers. */
static int engine_register_empty(struct io_uring *ring, unsigned slots)
{
	struct iovec *iovecs = mem_zalloc(slots * sizeof(*iovecs));
	__u64 *tags = mem_zalloc(slots * sizeof(*tags));
	int ret = -ENOMEM;

	if (iovecs && tags)
		ret = io_uring_register_buffers_tags(ring, iovecs, tags, slots);
	mem_free(tags);
	mem_free(iovecs);
	return ret;
}

static int engine_open_ring(struct io_uring *ring, unsigned slots)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
		.cq_entries = slots + ENGINE_BATCH,
	};
	int ret = io_uring_queue_init_params(4, ring, &params);

	if (ret == -ENOMEM || ret == -EMFILE || ret == -ENFILE)
		return ret;
	if (ret)
		return -EOPNOTSUPP;
	if (!(params.features & IORING_FEAT_RSRC_TAGS))
		ret = -EOPNOTSUPP;
	else if (io_uring_register_buffers_sparse(ring, slots))
		ret = engine_register_empty(ring, slots);
	if (ret)
		io_uring_queue_exit(ring);
	return ret == 0 || ret == -EOPNOTSUPP ? ret : -ENOMEM;
}

/* A grace period. The system call has none to wait for where there is one processor. */
static void engine_wait_for_grace(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) ||
	    sysconf(_SC_NPROCESSORS_ONLN) == 1)
		nanosleep(&(struct timespec){ .tv_nsec = ENGINE_GRACE_MS * 1000000L }, NULL);
}

/*
 * Returns when the slots that were cleared before have most likely taken effect: the grace period
 * may have been longer.
 */
static bool engine_flush(struct io_uring *ring)
{
	const int none = -1;
	int ret;

	engine_wait_for_grace();
	ret = io_uring_register_files(ring, &none, 1);
	if (!ret)
		ret = io_uring_unregister_files(ring);
	if (ret)
		log_warning("pins may end a second late: %s", g_strerror(-ret));
	return !ret;
}

/* Pin a page of our own and see whether letting it go takes effect at once. */
static bool engine_probe_lazy(struct pin_engine *engine)
{
	static char page[4096] __attribute__((aligned(4096)));
	struct io_uring_cqe *cqe;

	if (engine_update(engine, 0, page, sizeof(page), 1))
		return false;
	engine_clear_slot(engine, 0);
	if (!io_uring_peek_cqe(&engine->ring, &cqe)) {
		io_uring_cqe_seen(&engine->ring, cqe);
		return false;
	}
	engine_flush(&engine->ring);
	while (io_uring_wait_cqe(&engine->ring, &cqe) == -EINTR)
		;
	io_uring_cqe_seen(&engine->ring, cqe);
	return true;
}

static void engine_submit(struct pin_engine *engine, uint64_t what)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&engine->ring);

	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data64(sqe, what);
	while (io_uring_submit(&engine->ring) < 0)
		nanosleep(&(struct timespec){ .tv_nsec = ENGINE_RETRY_MS * 1000000L }, NULL);
}

/* Under "clearing". */
static void engine_ask_for_flush(struct pin_engine *engine)
{
	if (!atomic_exchange(&engine->flushing, true))
		engine_submit(engine, ENGINE_FLUSH);
}

/* Its tag has come: give the slot back, and tell whoever waits for all of a range. */
static void engine_complete(struct pin_engine *engine, unsigned slot)
{
	struct pin_slots *slots;
	bool last;

	pthread_mutex_lock(&engine->lock);
	slots = engine->owners[slot];
	engine->owners[slot] = NULL;
	engine->free[engine->nr_free++] = slot;
	last = --slots->nr_left == 0;
	atomic_fetch_sub(&engine->leaving, 1);
	pthread_cond_broadcast(&engine->changed);
	pthread_mutex_unlock(&engine->lock);
	if (!last)
		return;
	if (slots->done)
		slots->done(slots->data);
	mem_free(slots);
}

static void *engine_thread(void *data)
{
	struct pin_engine *engine = data;
	struct io_uring_cqe *cqes[ENGINE_BATCH];
	uint64_t tags[ENGINE_BATCH];
	bool stop = false;

	while (!stop) {
		bool flush = false;
		struct io_uring_cqe *cqe;
		int ret = io_uring_wait_cqe(&engine->ring, &cqe);
		unsigned count;

		if (ret == -EINTR || ret == -EAGAIN)
			continue;
		if (ret < 0) {
			log_error("waiting for released pins failed: %s", g_strerror(-ret));
			break;
		}
		count = io_uring_peek_batch_cqe(&engine->ring, cqes, ENGINE_BATCH);
		for (unsigned i = 0; i < count; i++)
			tags[i] = io_uring_cqe_get_data64(cqes[i]);
		io_uring_cq_advance(&engine->ring, count);

		for (unsigned i = 0; i < count; i++)
			flush |= tags[i] == ENGINE_FLUSH;
		/* What is cleared from here on asks for another flush. */
		if (flush)
			atomic_store(&engine->flushing, false);
		/* A tag may be posted before its pages go, by a call that has not returned yet. */
		pthread_mutex_lock(&engine->clearing);
		pthread_mutex_unlock(&engine->clearing);
		for (unsigned i = 0; i < count; i++) {
			if (tags[i] == ENGINE_STOP)
				stop = true;
			else if (tags[i] != ENGINE_FLUSH)
				engine_complete(engine, (unsigned)(tags[i] - 1));
		}
		/* What this does not bring about now wants it once more. */
		if (flush && atomic_load(&engine->leaving) && engine_flush(&engine->ring)) {
			pthread_mutex_lock(&engine->clearing);
			engine_ask_for_flush(engine);
			pthread_mutex_unlock(&engine->clearing);
		}
	}
	return NULL;
}

/* Where the kernel is lazy. */
static int engine_start_thread(struct pin_engine *engine)
{
	int ret = thread_start(&engine->thread, NULL, engine_thread, engine);

	if (!ret)
		pthread_setname_np(engine->thread, "cachet-pins");
	return ret ? -ENOMEM : 0;
}

static void engine_destroy(struct pin_engine *engine)
{
	io_uring_queue_exit(&engine->ring);
	pthread_cond_destroy(&engine->changed);
	pthread_mutex_destroy(&engine->lock);
	pthread_mutex_destroy(&engine->clearing);
	mem_free(engine->owners);
	mem_free(engine->free);
	mem_free(engine);
}

struct pin_engine *pin_engine_new_sized(unsigned slots, int *error)
{
	struct pin_engine *engine = mem_zalloc(sizeof(*engine));

	*error = engine ? 0 : -ENOMEM;
	if (!engine)
		return NULL;
	for (;; slots /= 2) {
		*error = engine_open_ring(&engine->ring, slots);
		if (*error != -ENOMEM || slots / 2 < ENGINE_SLOTS_MIN)
			break;
	}
	if (*error) {
		mem_free(engine);
		return NULL;
	}
	pthread_mutex_init(&engine->clearing, NULL);
	pthread_mutex_init(&engine->lock, NULL);
	pthread_cond_init(&engine->changed, NULL);
	engine->nr_slots = engine->nr_free = slots;
	engine->free = mem_alloc(slots * sizeof(*engine->free));
	engine->owners = mem_zalloc(slots * sizeof(struct pin_slots *));
	if (engine->free && engine->owners) {
		for (unsigned i = 0; i < slots; i++)
			engine->free[i] = slots - 1 - i;
		engine->lazy = engine_probe_lazy(engine);
		*error = engine->lazy ? engine_start_thread(engine) : 0;
	} else {
		*error = -ENOMEM;
	}
	if (*error) {
		engine_destroy(engine);
		return NULL;
	}
	return engine;
}

struct pin_engine *pin_engine_new(int *error)
{
	return pin_engine_new_sized(PIN_SLOTS_MAX, error);
}

void pin_engine_free(struct pin_engine *engine)
{
	if (!engine)
		return;
	pthread_mutex_lock(&engine->lock);
	while (engine->nr_free != engine->nr_slots)
		pthread_cond_wait(&engine->changed, &engine->lock);
	pthread_mutex_unlock(&engine->lock);
	if (engine->lazy) {
		engine_submit(engine, ENGINE_STOP);
		pthread_join(engine->thread, NULL);
	}
	engine_destroy(engine);
}

int pin_engine_make_lazy(struct pin_engine *engine)
{
	int ret = engine->lazy ? 0 : engine_start_thread(engine);

	engine->lazy = !ret;
	return ret;
}

unsigned pin_engine_slots(const struct pin_engine *engine)
{
	return engine->nr_slots;
}

unsigned pin_engine_used(struct pin_engine *engine)
{
	scoped_mutex(&engine->lock);
	return engine->nr_slots - engine->nr_free;
}

/* -ENOMEM of a registration is most often a limit, and the limit has a name. */
static void engine_explain(struct pin_engine *engine, uint64_t length)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return;
	if (atomic_exchange(&engine->limit_logged, true))
		return;
	log_warning("the kernel refused to pin %llu KiB: without CAP_IPC_LOCK all pins together "
		    "may lock no more than RLIMIT_MEMLOCK, which is %llu KiB here (ulimit -l, "
		    "LimitMEMLOCK=)",
		    (unsigned long long)(length >> 10), (unsigned long long)(limit.rlim_cur >> 10));
}

/* Take the slots that a range wants from the stack, all or none. */
static int engine_take_slots(struct pin_engine *engine, uint64_t length, struct pin_slots **out)
{
	uint64_t nr = (length + PIN_SLOT_BYTES - 1) / PIN_SLOT_BYTES;
	struct pin_slots *slots;

	if (nr > engine->nr_slots)
		return -ENOBUFS;
	slots = mem_zalloc(sizeof(*slots) + nr * sizeof(slots->slot[0]));
	if (!slots)
		return -ENOMEM;
	scoped_mutex(&engine->lock);
	if (nr > engine->nr_free) {
		mem_free(slots);
		return -ENOBUFS;
	}
	slots->nr = (unsigned)nr;
	for (unsigned i = 0; i < nr; i++) {
		slots->slot[i] = engine->free[--engine->nr_free];
		engine->owners[slots->slot[i]] = slots;
	}
	*out = slots;
	return 0;
}

/* Give back those slots at the end that were taken but never registered. */
static void engine_return_slots(struct pin_engine *engine, struct pin_slots *slots,
				unsigned nr_used)
{
	scoped_mutex(&engine->lock);
	while (slots->nr > nr_used) {
		unsigned slot = slots->slot[--slots->nr];

		engine->owners[slot] = NULL;
		engine->free[engine->nr_free++] = slot;
	}
	pthread_cond_broadcast(&engine->changed);
}

static void engine_undo(struct pin_engine *engine, struct pin_slots *slots, unsigned nr_registered)
{
	engine_return_slots(engine, slots, nr_registered);
	if (nr_registered)
		pin_engine_release_wait(engine, slots);
	else
		mem_free(slots);
}

/*
 * Pages are there, so this maps them sixteen at a time, ready to be written. Registration would
 * fault in each of them for writing by itself. Linux 5.14; before, it just takes longer.
 */
static void engine_prefault(void *window, uint64_t length)
{
	(void)madvise(window, length, MADV_POPULATE_READ);
}

int pin_engine_register(struct pin_engine *engine, struct memory *memory, uint64_t offset,
			uint64_t length, struct pin_slots **out)
{
	struct pin_slots *slots = NULL;
	void *window;
	unsigned done = 0;
	int ret = engine_take_slots(engine, length, &slots);

	if (ret)
		return ret;
	ret = memory_map(memory, offset, length, true, &window);
	if (ret) {
		engine_undo(engine, slots, 0);
		return ret;
	}
	engine_prefault(window, length);
	for (; !ret && done < slots->nr; done += !ret) {
		uint64_t from = done * PIN_SLOT_BYTES;
		uint64_t bytes = length - from < PIN_SLOT_BYTES ? length - from : PIN_SLOT_BYTES;
		unsigned slot = slots->slot[done];

		ret = engine_update(engine, slot, (char *)window + from, bytes, slot + UINT64_C(1));
	}
	memory_unmap(window, length);
	if (ret) {
		engine_undo(engine, slots, done);
		if (ret == -ENOMEM)
			engine_explain(engine, length);
		return ret;
	}
	slots->nr_left = slots->nr;
	*out = slots;
	return 0;
}

/* Under "clearing" there are no tags on their way but those of the slots just cleared. */
static void engine_reap(struct pin_engine *engine, unsigned nr)
{
	struct io_uring_cqe *cqe;

	while (nr) {
		if (io_uring_wait_cqe(&engine->ring, &cqe))
			continue;
		io_uring_cqe_seen(&engine->ring, cqe);
		nr--;
	}
}

void pin_engine_release(struct pin_engine *engine, struct pin_slots *slots,
			void (*done)(void *data), void *data)
{
	unsigned nr = slots->nr;
	bool lazy = engine->lazy;

	slots->nr_left = nr;
	slots->done = done;
	slots->data = data;
	pthread_mutex_lock(&engine->clearing);
	atomic_fetch_add(&engine->leaving, nr);
	for (unsigned i = 0; i < nr; i++)
		engine_clear_slot(engine, slots->slot[i]);
	if (!lazy)
		engine_reap(engine, nr);
	else
		engine_ask_for_flush(engine);
	/* From here on a lazy kernel's slots may go. */
	pthread_mutex_unlock(&engine->clearing);
	for (unsigned i = 0; !lazy && i < nr; i++)
		engine_complete(engine, slots->slot[i]);
}

struct engine_wait {
	struct pin_engine *engine;
	bool done;
};

static void engine_wait_over(void *data)
{
	struct engine_wait *wait = data;

	scoped_mutex(&wait->engine->lock);
	wait->done = true;
	pthread_cond_broadcast(&wait->engine->changed);
}

void pin_engine_release_wait(struct pin_engine *engine, struct pin_slots *slots)
{
	struct engine_wait wait = { .engine = engine };

	pin_engine_release(engine, slots, engine_wait_over, &wait);
	scoped_mutex(&engine->lock);
	while (!wait.done)
		pthread_cond_wait(&engine->changed, &engine->lock);
}
