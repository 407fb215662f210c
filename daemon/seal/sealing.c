/* SPDX-License-Identifier: MIT */
/*
 * How a write seal is granted.
 *
 * A seal that keeps writers out (WRITE, FUTURE_WRITE) can be set once nobody is left who could
 * write without asking. Three kinds of these are known to us: handles that can map the memory
 * writable (writers; io=kernel only), pins, and whoever had a hand-over prepared. What we cannot
 * see (mappings that outlived their handle, references that clients' own rings or pipes hold) is
 * known to the memory, which can be asked, and which may take 165 ms to answer "busy".
 *
 * Who asks for seals becomes a struct seal_request in sealing->requests. sealing_run() goes through
 * them, on one thread at a time per file:
 *
 *	hindered by writers or pins  -> stays; looked at again when one of them goes (_wake_locked)
 *	not hindered                 -> the last step: writers are denied, new ones wait in
 *	                                sealing->admissions, the lock is dropped, memory is asked
 *	                                yes  -> seals are set, writers stay denied for good
 *	                                busy -> writers are allowed again; next try after a back-off
 *	deadline has passed          -> EBUSY
 *	interrupted                  -> EINTR
 *
 * So nothing is polled but what only the memory knows, and no thread waits: the timer calls
 * sealing_run() at the next deadline. It runs on the engine's pool, as asking may sleep. When
 * nobody else waits it runs at once on the submitter's thread where asking is over soon: no such
 * seal is asked for, or the file is of moderate size and nobody can have a reference, as clients
 * cannot reach the memory, or it never was exposed, that is nobody ever had it open but for writing
 * only. And where the transport has workers to spare one of them, never more, may ask and sleep.
 *
 * What EXEC implies depends on the mode, which may change while a request waits: it is worked out
 * each time that the request is looked at, and the x bits stay as they are while the memory is
 * asked.
 *
 * The hand-over (PREPARE, COMMIT) exchanges the caller's own read-write descriptor. PREPARE is
 * granted when that handle is the only writer and no pin and no visible mapping is left; from then
 * on new writers wait, until COMMIT ends, the preparing handle closes or SEAL_PREPARED_MS are over.
 * COMMIT is an ADD for which the release of that handle is on its way.
 *
 * No lock is held while the memory is asked, while holes are filled, or over a callback.
 */
#include "seal/sealing.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/handover.h"
#include "base/lock.h"
#include "seal/procsignals.h"

#define BACKOFF_FIRST_MS 10
#define BACKOFF_LAST_MS 250
#define NS_PER_MS 1000000

/* The memory looks at each of its pages, which takes it half a millisecond for so many bytes. */
#define QUICK_BYTES (UINT64_C(64) << 20)

/* How often a caller is looked at whose signals may be lost. */
#define LOOK_MS 100

void sealing_init(struct sealing *sealing, pthread_mutex_t *lock, struct mapping *mapping,
		  struct seal_engine *engine, const struct sealing_ops *ops)
{
	*sealing = (struct sealing){
		.lock = lock,
		.mapping = mapping,
		.engine = engine,
		.ops = ops,
	};
	list_init(&sealing->requests);
	list_init(&sealing->admissions);
	list_init(&sealing->writers);
}

unsigned sealing_current(struct sealing *sealing)
{
	return atomic_load_explicit(&sealing->seals, memory_order_acquire);
}

/* Somebody else runs the requests of this file soon. */
static void sealing_kick_locked(struct sealing *sealing)
{
	lock_assert_held(sealing->lock);
	if (sealing->running) {
		sealing->rerun = true;
		return;
	}
	sealing->running = true;
	sealing->ops->get(sealing);
	seal_engine_push(sealing->engine, sealing, sealing->memory_busy);
}

static bool sealing_prepared_locked(struct sealing *sealing)
{
	lock_assert_held(sealing->lock);
	return sealing->prepared_handle && clock_now_ms() < sealing->prepared_until;
}

static void sealing_forget_prepared_locked(struct sealing *sealing)
{
	lock_assert_held(sealing->lock);
	sealing->prepared_handle = 0;
	sealing->prepared_owner = 0;
}

static struct writer *sealing_find_writer_locked(struct sealing *sealing, uint64_t handle)
{
	struct writer *writer;

	lock_assert_held(sealing->lock);
	list_for_each(writer, &sealing->writers, link)
		if (writer->handle == handle)
			return writer;
	return NULL;
}

/* The seals that a request still wants, by the mode that the file has now. */
static unsigned request_wanted_locked(struct sealing *sealing, struct seal_request *request)
{
	lock_assert_held(sealing->lock);
	return seal_rules_expand(request->seals, sealing->ops->mode_locked(sealing)) &
	       ~sealing_current(sealing);
}

/* Return: 1 when writers or pins are in the way, 0 when none are, or how the request ends. */
static int request_hindered_locked(struct sealing *sealing, struct seal_request *request)
{
	unsigned current = sealing_current(sealing);
	unsigned wanted = request_wanted_locked(sealing, request);
	unsigned writers_allowed = 0;

	lock_assert_held(sealing->lock);
	if (current & F_SEAL_SEAL)
		return -EPERM;
	if (request->verb == SEAL_COMMIT && (sealing->prepared_owner != request->owner ||
					     sealing->prepared_handle != request->handle))
		return -EINVAL;
	if (request->verb == SEAL_PREPARE) {
		if (!sealing_find_writer_locked(sealing, request->handle))
			return -EINVAL;
		if (sealing_prepared_locked(sealing))
			return 1;
		writers_allowed = 1;
	}
	if (!(wanted & SEALS_NO_WRITER))
		return 0;
	if (sealing->nr_writers > writers_allowed)
		return 1;
	return (wanted & F_SEAL_WRITE) && mapping_may_be_pinned(sealing->mapping);
}

static void request_finish_locked(struct sealing *sealing, struct seal_request *request, int result,
				  struct list *finished)
{
	struct seal_engine *engine = sealing->engine;

	lock_assert_held(sealing->lock);
	if (request->verb == SEAL_COMMIT)
		sealing_forget_prepared_locked(sealing);
	if (request->verb != SEAL_PREPARE)
		atomic_fetch_add(result == 0 ? &engine->granted : &engine->refused, 1);
	if (request->waited) {
		atomic_fetch_add(&engine->waited, 1);
		histogram_add_shared(&engine->waits, clock_now_ns() - request->since_ns, NS_PER_MS);
	}
	atomic_fetch_sub(&engine->waiting, 1);
	request->result = result;
	list_del(&request->link);
	list_add_tail(finished, &request->link);
}

static bool request_expired(struct seal_request *request, int64_t now)
{
	return request->deadline_ms >= 0 && now >= request->deadline_ms;
}

/* A signal that is pending twice in a row is one that the caller cannot take while it waits. */
static bool request_given_up(struct seal_request *request, int64_t now)
{
	bool pending;

	if (request->interrupted || !request->caller || now < request->look_ms)
		return request->interrupted;
	pending = procsignals_pending(request->caller);
	request->interrupted = pending && request->signalled;
	request->signalled = pending;
	request->look_ms = now + LOOK_MS;
	return request->interrupted;
}

/* Whoever was held off by one hand-over comes before the next one. */
static bool request_lets_pass_locked(struct sealing *sealing, struct seal_request *request)
{
	lock_assert_held(sealing->lock);
	return request->verb == SEAL_PREPARE && !list_empty(&sealing->admissions);
}

/* Ends what must end, and finds a request whose last step can be tried now. */
static struct seal_request *sealing_next_ready_locked(struct sealing *sealing,
						      struct list *finished)
{
	struct seal_request *request, *ahead;
	int64_t now = clock_now_ms();

	lock_assert_held(sealing->lock);
	list_for_each_safe(request, ahead, &sealing->requests, link) {
		int hindered = request_hindered_locked(sealing, request);
		bool expired = request_expired(request, now);
		bool asked = request->retry_ms != 0;

		/* However late this is: whoever is hindered has waited. */
		request->waited = request->waited || hindered > 0 || asked;
		if (request_given_up(request, now))
			request_finish_locked(sealing, request, -EINTR, finished);
		else if (hindered < 0)
			request_finish_locked(sealing, request, hindered, finished);
		else if (expired && (hindered || asked))
			request_finish_locked(sealing, request,
					      request->crowded ? -EAGAIN : -EBUSY, finished);
		else if (!hindered && request->retry_ms <= now &&
			 !request_lets_pass_locked(sealing, request))
			return request;
	}
	return NULL;
}

static void request_retry_later(struct seal_request *request)
{
	request->backoff_ms = request->backoff_ms ? MIN(request->backoff_ms * 2, BACKOFF_LAST_MS)
						  : BACKOFF_FIRST_MS;
	request->retry_ms = clock_now_ms() + request->backoff_ms;
}

/* The last step of ADD and COMMIT. Return: 0, -EBUSY (try again), another negative errno. */
static int sealing_ask_locked(struct sealing *sealing, unsigned wanted)
{
	bool deny = (wanted & SEALS_NO_WRITER) && !sealing->denied;
	int result;

	lock_assert_held(sealing->lock);
	if (deny && mapping_deny_writable(sealing->mapping))
		return -EBUSY;
	sealing->asking = true;
	sealing->asked = wanted;
	pthread_mutex_unlock(sealing->lock);
	result = mapping_add_seals(sealing->mapping, wanted & SEALS_OF_MEMORY);
	/* The size is final now, and nobody knows yet: the moment to forget older ones. */
	if (result == 0)
		sealing->ops->attr_stale(sealing);
	pthread_mutex_lock(sealing->lock);
	sealing->asking = false;
	sealing->asked = 0;
	sealing->memory_busy = result == -EBUSY;
	if (result == 0) {
		atomic_fetch_or_explicit(&sealing->seals, wanted, memory_order_release);
		sealing->denied = sealing->denied || deny;
	} else if (deny) {
		mapping_allow_writable(sealing->mapping);
	}
	return result;
}

/* The last step of PREPARE: is the memory mapped where /proc shows it? */
static int sealing_prepare_locked(struct sealing *sealing, struct seal_request *request)
{
	bool mapped = false;

	lock_assert_held(sealing->lock);
	sealing->asking = true;
	if (request_wanted_locked(sealing, request) & F_SEAL_WRITE) {
		pthread_mutex_unlock(sealing->lock);
		mapped = sealing->ops->mapped(sealing);
		pthread_mutex_lock(sealing->lock);
	}
	sealing->asking = false;
	/* Releases need no admission, so the writers may have become fewer, not more. */
	if (mapped || request_hindered_locked(sealing, request))
		return -EBUSY;
	sealing->prepared_handle = request->handle;
	sealing->prepared_owner = request->owner;
	sealing->prepared_until = clock_now_ms() + SEAL_PREPARED_MS;
	return 0;
}

static void sealing_try_locked(struct sealing *sealing, struct seal_request *request,
			       struct list *finished, unsigned *added)
{
	unsigned tries = 0;
	int result;

	lock_assert_held(sealing->lock);
	if (request->populate) {
		request->populate = false;
		pthread_mutex_unlock(sealing->lock);
		do
			result = mapping_populate(sealing->mapping, 0,
						  mapping_size(sealing->mapping));
		while (space_may_come(result, &tries));
		sealing->ops->attr_stale(sealing);
		pthread_mutex_lock(sealing->lock);
		if (result)
			request_finish_locked(sealing, request, result, finished);
		return; /* all may be different now: look again */
	}
	if (request->verb == SEAL_PREPARE) {
		result = sealing_prepare_locked(sealing, request);
	} else {
		unsigned wanted = request_wanted_locked(sealing, request);

		result = sealing_ask_locked(sealing, wanted);
		if (result == 0)
			*added |= wanted;
	}
	if (result == -EBUSY)
		request_retry_later(request);
	else
		request_finish_locked(sealing, request, result, finished);
}

static gboolean sealing_on_timer(gpointer data)
{
	struct sealing *sealing = handover_take(data);

	pthread_mutex_lock(sealing->lock);
	sealing_kick_locked(sealing);
	pthread_mutex_unlock(sealing->lock);
	return G_SOURCE_REMOVE;
}

static void sealing_timer_released(gpointer data)
{
	struct sealing *sealing = handover_take(data);

	sealing->ops->put(sealing);
}

static void earlier(int64_t *at, int64_t candidate)
{
	if (candidate >= 0 && (*at < 0 || candidate < *at))
		*at = candidate;
}

/* The caller holds a reference beside the timer's, so that cancelling it never frees the file. */
static void sealing_arm_timer_locked(struct sealing *sealing)
{
	struct seal_request *request;
	int64_t at = -1;

	lock_assert_held(sealing->lock);
	list_for_each(request, &sealing->requests, link) {
		earlier(&at, request->deadline_ms);
		if (request->retry_ms)
			earlier(&at, request->retry_ms);
		if (request->caller)
			earlier(&at, request->look_ms);
	}
	if (sealing->prepared_handle)
		earlier(&at, sealing->prepared_until);
	if (at == sealing->timer_at && sealing->timer)
		return;
	seal_engine_cancel(take_ptr(sealing->timer));
	sealing->timer_at = at;
	if (at < 0)
		return;
	sealing->ops->get(sealing);
	sealing->timer = seal_engine_call_at(sealing->engine, at, sealing_on_timer, sealing,
					     sealing_timer_released);
}

static void seal_requests_done(struct seal_engine *engine, struct list *finished)
{
	while (!list_empty(finished)) {
		struct seal_request *request = list_first(finished, struct seal_request, link);

		list_del(&request->link);
		request->done(request, request->result);
		atomic_fetch_sub(&engine->unanswered, 1);
	}
}

static void admissions_resume(struct list *admissions)
{
	while (!list_empty(admissions)) {
		struct admission *admission = list_first(admissions, struct admission, link);

		list_del(&admission->link);
		admission->resume(admission);
	}
}

/*
 * Who runs this has set sealing->running; it is clear at the end. A thread that is @borrowed for
 * one request leaves what comes meanwhile, which may take long, to the pool.
 */
static void sealing_work_locked(struct sealing *sealing, bool borrowed)
{
	lock_assert_held(sealing->lock);
	for (bool first = true;; first = false) {
		struct list finished = LIST_INIT(finished);
		struct list resumed = LIST_INIT(resumed);
		struct seal_request *request;
		unsigned added = 0;

		if (borrowed && !first && !list_empty(&sealing->requests)) {
			sealing->ops->get(sealing);
			seal_engine_push(sealing->engine, sealing, sealing->memory_busy);
			return;
		}
		sealing->rerun = false;
		/* One at a time: nobody who is done, or arrived meanwhile, waits for the others. */
		request = sealing_next_ready_locked(sealing, &finished);
		if (request)
			sealing_try_locked(sealing, request, &finished, &added);
		if (sealing->prepared_handle && !sealing_prepared_locked(sealing))
			sealing_forget_prepared_locked(sealing);
		if (!sealing->prepared_handle)
			list_splice(&resumed, &sealing->admissions);
		if ((!request || borrowed) && list_empty(&finished) && list_empty(&resumed) &&
		    !sealing->rerun)
			break;
		pthread_mutex_unlock(sealing->lock);
		if (added)
			sealing->ops->granted(sealing, added);
		seal_requests_done(sealing->engine, &finished);
		admissions_resume(&resumed);
		pthread_mutex_lock(sealing->lock);
	}
	sealing_arm_timer_locked(sealing);
	sealing->running = false;
}

void sealing_run(struct sealing *sealing)
{
	pthread_mutex_lock(sealing->lock);
	sealing_work_locked(sealing, false);
	pthread_mutex_unlock(sealing->lock);
	sealing->ops->put(sealing);
}

static bool request_is_quick_locked(struct sealing *sealing, struct seal_request *request)
{
	lock_assert_held(sealing->lock);
	if (request->verb != SEAL_ADD || request->populate)
		return false;
	if (!(request_wanted_locked(sealing, request) & SEALS_NO_WRITER))
		return true;
	return (!sealing->mapping->shared || !sealing->exposed) &&
	       mapping_size(sealing->mapping) <= QUICK_BYTES;
}

/* May it be asked for on this thread all the same? Then seal_engine_spare_done() follows. */
static bool request_may_sleep_here_locked(struct sealing *sealing, struct seal_request *request)
{
	lock_assert_held(sealing->lock);
	return request->verb == SEAL_ADD && !request->populate && !sealing->memory_busy &&
	       seal_engine_spare_take(sealing->engine);
}

/*
 * Where only so many may wait, those beyond get the time that a RELEASE takes: whoever hinders all
 * the others for ever, on a file of his own, shall not keep everybody else from sealing.
 */
static bool request_fits(struct seal_request *request, struct seal_engine *engine)
{
	unsigned unanswered = atomic_load(&engine->unanswered);
	int64_t soon = clock_now_ms() + SEAL_GRACE_MS;

	if (!engine->max_waiting || unanswered < engine->max_waiting)
		return true;
	if (unanswered >= engine->max_waiting + SEAL_CROWD_MAX)
		return false;
	if (request->deadline_ms < 0 || request->deadline_ms > soon) {
		request->deadline_ms = soon;
		request->crowded = true;
	}
	return true;
}

int seal_submit(struct sealing *sealing, struct seal_request *request)
{
	struct seal_engine *engine = sealing->engine;
	bool idle, at_once, spare = false;
	int hindered;

	list_init(&request->link);
	request->since_ns = clock_now_ns();
	if (request->caller)
		request->look_ms = clock_now_ms() + LOOK_MS;
	pthread_mutex_lock(sealing->lock);
	hindered = request_hindered_locked(sealing, request);
	if (hindered >= 0 && !request_fits(request, engine))
		hindered = -EAGAIN;
	if (hindered < 0) {
		if (request->verb != SEAL_PREPARE)
			atomic_fetch_add(&engine->refused, 1);
		pthread_mutex_unlock(sealing->lock);
		return hindered;
	}
	atomic_fetch_add(&engine->waiting, 1);
	atomic_fetch_add(&engine->unanswered, 1);
	/* Who waits already may have to be asked for, which may sleep. */
	idle = !sealing->running && list_empty(&sealing->requests);
	at_once = idle && request_is_quick_locked(sealing, request);
	if (idle && !at_once && hindered == 0)
		at_once = spare = request_may_sleep_here_locked(sealing, request);
	list_add_tail(&sealing->requests, &request->link);
	/* Once the request is answered, nothing but this keeps the file. */
	sealing->ops->get(sealing);
	if (at_once) {
		sealing->running = true;
		sealing_work_locked(sealing, true);
	} else {
		sealing_kick_locked(sealing);
	}
	pthread_mutex_unlock(sealing->lock);
	if (spare)
		seal_engine_spare_done(engine);
	sealing->ops->put(sealing);
	return -EINPROGRESS;
}

void seal_interrupt(struct sealing *sealing, struct seal_request *request)
{
	pthread_mutex_lock(sealing->lock);
	request->interrupted = true;
	sealing_kick_locked(sealing);
	pthread_mutex_unlock(sealing->lock);
}

int sealing_admit_writer_locked(struct sealing *sealing, struct admission *admission)
{
	lock_assert_held(sealing->lock);
	if (sealing_current(sealing) & SEALS_NO_WRITER)
		return -EPERM;
	if (!sealing->asking && !sealing_prepared_locked(sealing))
		return 0;
	if (admission)
		list_add_tail(&sealing->admissions, &admission->link);
	return -EINPROGRESS;
}

int sealing_check_mode_locked(struct sealing *sealing, mode_t old_mode, mode_t new_mode)
{
	lock_assert_held(sealing->lock);
	return seal_rules_check_mode(sealing_current(sealing) | sealing->asked, old_mode, new_mode);
}

void sealing_expose_locked(struct sealing *sealing)
{
	lock_assert_held(sealing->lock);
	sealing->exposed = true;
}

void sealing_add_writer_locked(struct sealing *sealing, struct writer *writer)
{
	lock_assert_held(sealing->lock);
	if (mapping_map_writable(sealing->mapping))
		g_assert_not_reached(); /* writers are denied only while nobody is admitted */
	writer->since_ms = clock_now_ms();
	list_add_tail(&sealing->writers, &writer->link);
	sealing->nr_writers++;
}

void sealing_remove_writer_locked(struct sealing *sealing, struct writer *writer)
{
	lock_assert_held(sealing->lock);
	list_del(&writer->link);
	sealing->nr_writers--;
	mapping_unmap_writable(sealing->mapping);
	sealing_wake_locked(sealing);
}

void sealing_wake_locked(struct sealing *sealing)
{
	lock_assert_held(sealing->lock);
	if (!list_empty(&sealing->requests))
		sealing_kick_locked(sealing);
}

int sealing_abort_locked(struct sealing *sealing, uint64_t owner)
{
	lock_assert_held(sealing->lock);
	if (!owner || sealing->prepared_owner != owner)
		return -EINVAL;
	sealing_forget_prepared_locked(sealing);
	sealing_kick_locked(sealing);
	return 0;
}

void sealing_interrupt_all(struct sealing *sealing)
{
	struct seal_request *request;

	pthread_mutex_lock(sealing->lock);
	list_for_each(request, &sealing->requests, link)
		request->interrupted = true;
	sealing_forget_prepared_locked(sealing);
	sealing_kick_locked(sealing);
	pthread_mutex_unlock(sealing->lock);
}
