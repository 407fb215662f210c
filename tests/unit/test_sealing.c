/* SPDX-License-Identifier: MIT */
/*
 * Who gets a seal, when, and who is told: real memory and real threads, below callbacks of our own.
 */
#include "seal/sealing.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"
#include "cache/mapping_pins.h"

#define PAGE PAGE_BYTES
#define PATIENCE_MS 30000
#define CONTENT (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)

/* A file as the rooms above know it, and what they were told. */
struct file {
	struct seal_engine engine;
	struct reservation budget;
	struct mapping mapping;
	pthread_mutex_t lock;
	struct sealing sealing;
	atomic_int refs;
	atomic_int granted;
	atomic_uint granted_seals;
	atomic_int stale;
	mode_t mode;
	atomic_bool mapped;
	/* What asks the memory, or /proc, stops here while it is shut. */
	atomic_bool gate_shut;
	atomic_bool at_gate;
};

static struct file *file_of(struct sealing *sealing)
{
	return container_of(sealing, struct file, sealing);
}

static void file_get(struct sealing *sealing)
{
	atomic_fetch_add(&file_of(sealing)->refs, 1);
}

static void assert_unlocked(struct file *file)
{
	/* Others may hold it, but not for long. */
	pthread_mutex_lock(&file->lock);
	pthread_mutex_unlock(&file->lock);
}

static void file_put(struct sealing *sealing)
{
	g_assert_cmpint(atomic_fetch_sub(&file_of(sealing)->refs, 1), >, 0);
}

static void file_granted(struct sealing *sealing, unsigned added)
{
	struct file *file = file_of(sealing);

	assert_unlocked(file);
	g_assert_cmpuint(sealing_current(sealing) & added, ==, added);
	g_assert_cmpuint(atomic_fetch_or(&file->granted_seals, added) & added, ==, 0);
	atomic_fetch_add(&file->granted, 1);
}

static void wait_until_open(struct file *file)
{
	int64_t end = clock_now_ms() + PATIENCE_MS;

	if (!atomic_load(&file->gate_shut))
		return;
	atomic_store(&file->at_gate, true);
	while (atomic_load(&file->gate_shut)) {
		g_assert_cmpint(clock_now_ms(), <, end);
		g_usleep(200);
	}
	atomic_store(&file->at_gate, false);
}

static void file_attr_stale(struct sealing *sealing)
{
	struct file *file = file_of(sealing);

	assert_unlocked(file);
	atomic_fetch_add(&file->stale, 1);
	wait_until_open(file);
}

static bool file_mapped(struct sealing *sealing)
{
	struct file *file = file_of(sealing);

	assert_unlocked(file);
	wait_until_open(file);
	return atomic_load(&file->mapped);
}

static mode_t file_mode_locked(struct sealing *sealing)
{
	lock_assert_held(sealing->lock);
	return file_of(sealing)->mode;
}

static const struct sealing_ops file_ops = {
	.get = file_get,
	.put = file_put,
	.granted = file_granted,
	.attr_stale = file_attr_stale,
	.mapped = file_mapped,
	.mode_locked = file_mode_locked,
};

static void setup_limited(struct file *file, bool shared, uint64_t limit_pages)
{
	memset(file, 0, sizeof(*file));
	pthread_mutex_init(&file->lock, NULL);
	reservation_init(&file->budget, limit_pages);
	g_assert_cmpint(mapping_init(&file->mapping, &file->budget, shared), ==, 0);
	g_assert_cmpint(mapping_truncate(&file->mapping, 16 * PAGE), ==, 0);
	file->mode = S_IFREG | 0644;
	sealing_init(&file->sealing, &file->lock, &file->mapping, &file->engine, &file_ops);
	file->sealing.exposed = shared;
	/* Last: ThreadSanitizer does not look into GLib, but knows what was before a thread. */
	g_assert_cmpint(seal_engine_start(&file->engine, sealing_run), ==, 0);
}

static void setup(struct file *file, bool shared)
{
	setup_limited(file, shared, 0);
}

static void wait_for_waiting(struct file *file, unsigned count)
{
	int64_t end = clock_now_ms() + PATIENCE_MS;

	while (atomic_load(&file->engine.unanswered) != count) {
		g_assert_cmpint(clock_now_ms(), <, end);
		g_usleep(200);
	}
}

static void teardown(struct file *file)
{
	g_assert_true(list_empty(&file->sealing.requests));
	g_assert_true(list_empty(&file->sealing.admissions));
	wait_for_waiting(file, 0);
	seal_engine_stop(&file->engine);
	g_assert_cmpint(file->refs, ==, 0);
	while (file->mapping.writable < 0)
		mapping_allow_writable(&file->mapping);
	mapping_destroy(&file->mapping);
	pthread_mutex_destroy(&file->lock);
}

/* A request, and how it ended. */
struct waiter {
	struct seal_request request;
	struct file *file;
	atomic_int calls;
	atomic_int result;
	pthread_t thread; /* who said so */
};

static void waiter_done(struct seal_request *request, int result)
{
	struct waiter *waiter = container_of(request, struct waiter, request);

	assert_unlocked(waiter->file);
	atomic_store(&waiter->result, result);
	waiter->thread = pthread_self();
	atomic_fetch_add(&waiter->calls, 1);
}

static int waiter_start(struct waiter *waiter, struct file *file)
{
	waiter->file = file;
	waiter->request.done = waiter_done;
	return seal_submit(&file->sealing, &waiter->request);
}

static int64_t in_ms(int64_t timeout)
{
	return timeout < 0 ? -1 : clock_now_ms() + timeout;
}

static int submit(struct waiter *waiter, struct file *file, unsigned seals, int64_t timeout)
{
	memset(waiter, 0, sizeof(*waiter));
	waiter->request.seals = seals;
	waiter->request.deadline_ms = in_ms(timeout);
	return waiter_start(waiter, file);
}

static int waiter_wait(struct waiter *waiter)
{
	int64_t end = clock_now_ms() + PATIENCE_MS;

	while (!atomic_load(&waiter->calls)) {
		g_assert_cmpint(clock_now_ms(), <, end);
		g_usleep(200);
	}
	/* One that came twice would come soon. */
	g_usleep(1000);
	g_assert_cmpint(waiter->calls, ==, 1);
	return waiter->result;
}

/* The whole of it. */
static int seal(struct file *file, unsigned seals, int64_t timeout)
{
	struct waiter waiter;
	int result = submit(&waiter, file, seals, timeout);

	if (result != -EINPROGRESS) {
		g_assert_cmpint(waiter.calls, ==, 0);
		return result;
	}
	return waiter_wait(&waiter);
}

static void add_writer(struct file *file, struct writer *writer, uint64_t handle)
{
	*writer = (struct writer){ .handle = handle };
	pthread_mutex_lock(&file->lock);
	g_assert_cmpint(sealing_admit_writer_locked(&file->sealing, NULL), ==, 0);
	sealing_add_writer_locked(&file->sealing, writer);
	pthread_mutex_unlock(&file->lock);
}

static void remove_writer(struct file *file, struct writer *writer)
{
	pthread_mutex_lock(&file->lock);
	sealing_remove_writer_locked(&file->sealing, writer);
	pthread_mutex_unlock(&file->lock);
}

static int admit(struct file *file, struct admission *admission)
{
	int result;

	pthread_mutex_lock(&file->lock);
	result = sealing_admit_writer_locked(&file->sealing, admission);
	pthread_mutex_unlock(&file->lock);
	return result;
}

static void shut_gate(struct file *file)
{
	atomic_store(&file->gate_shut, true);
}

static void wait_at_gate(struct file *file)
{
	int64_t end = clock_now_ms() + PATIENCE_MS;

	while (!atomic_load(&file->at_gate)) {
		g_assert_cmpint(clock_now_ms(), <, end);
		g_usleep(200);
	}
}

static void open_gate(struct file *file)
{
	atomic_store(&file->gate_shut, false);
}

/* Nobody may write, and nobody has noticed that anybody asked. */
static void assert_untouched(struct file *file)
{
	g_assert_cmpuint(sealing_current(&file->sealing), ==, 0);
	g_assert_cmpint(file->granted, ==, 0);
	g_assert_cmpint(file->mapping.writable, >=, 0);
	g_assert_cmpint(admit(file, NULL), ==, 0);
	g_assert_cmpint(mapping_write(&file->mapping, "x", 1, 0), ==, 1);
}

static void test_granted(void)
{
	for (int shared = 0; shared < 2; shared++) {
		struct file file;

		setup(&file, shared);
		g_assert_cmpint(seal(&file, F_SEAL_GROW, 1000), ==, 0);
		g_assert_cmpuint(sealing_current(&file.sealing), ==, F_SEAL_GROW);
		g_assert_cmpint(mapping_truncate(&file.mapping, 17 * PAGE), ==, -EPERM);
		g_assert_cmpint(admit(&file, NULL), ==, 0);
		g_assert_cmpint(seal(&file, 0, 1000), ==, 0);
		g_assert_cmpint(seal(&file, F_SEAL_WRITE | F_SEAL_GROW, 1000), ==, 0);
		g_assert_cmpuint(sealing_current(&file.sealing), ==, F_SEAL_WRITE | F_SEAL_GROW);
		g_assert_cmpuint(file.granted_seals, ==, F_SEAL_WRITE | F_SEAL_GROW);
		g_assert_cmpint(file.granted, ==, 2);
		g_assert_cmpint(mapping_write(&file.mapping, "x", 1, 0), ==, -EPERM);
		g_assert_cmpint(admit(&file, NULL), ==, -EPERM);
		g_assert_cmpint(seal(&file, F_SEAL_SEAL, 1000), ==, 0);
		g_assert_cmpint(seal(&file, F_SEAL_SHRINK, 1000), ==, -EPERM);
		g_assert_cmpint(seal(&file, 0, 1000), ==, -EPERM);
		g_assert_cmpuint(file.engine.granted, ==, 4);
		g_assert_cmpuint(file.engine.refused, ==, 2);
		g_assert_cmpuint(file.engine.waited, ==, 0);
		teardown(&file);
	}
}

/* Where the memory's answer cannot take long, nobody else is asked to help. */
static void test_at_once(void)
{
	struct file file;
	struct waiter waiter;

	setup(&file, false);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, 0), ==, -EINPROGRESS);
	g_assert_cmpint(waiter.calls, ==, 1);
	g_assert_cmpint(waiter.result, ==, 0);
	teardown(&file);

	/* Shared, but nobody ever had it open who could keep a reference. */
	setup(&file, true);
	file.sealing.exposed = false;
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, 0), ==, -EINPROGRESS);
	g_assert_cmpint(waiter.calls, ==, 1);
	g_assert_cmpint(waiter.result, ==, 0);
	teardown(&file);
}

/* Somebody may keep a reference: one thread may ask, and sleep, if there is one to spare. */
static void test_spare(void)
{
	struct file file;
	struct waiter waiter;

	setup(&file, true);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, 1000), ==, -EINPROGRESS);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	g_assert_false(pthread_equal(waiter.thread, pthread_self()));
	teardown(&file);

	setup(&file, true);
	atomic_store(&file.engine.spare, true);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_GROW | F_SEAL_WRITE, 0), ==, -EINPROGRESS);
	g_assert_cmpint(waiter.calls, ==, 1);
	g_assert_cmpint(waiter.result, ==, 0);
	g_assert_true(pthread_equal(waiter.thread, pthread_self()));
	g_assert_true(file.engine.spare);
	teardown(&file);

	/* It is asking elsewhere. */
	setup(&file, true);
	g_assert_false(seal_engine_spare_take(&file.engine));
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, 1000), ==, -EINPROGRESS);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	g_assert_false(pthread_equal(waiter.thread, pthread_self()));
	g_assert_false(file.engine.spare);
	teardown(&file);
}

struct borrowed {
	struct file file;
	struct waiter waiter;
};

static void *borrowed_seal(void *data)
{
	struct borrowed *borrowed = data;

	g_assert_cmpint(submit(&borrowed->waiter, &borrowed->file, F_SEAL_WRITE, 5000), ==,
			-EINPROGRESS);
	g_assert_cmpint(borrowed->waiter.calls, ==, 1);
	return NULL;
}

/* A thread that asks for itself does not stay for what others want meanwhile. */
static void test_borrowed(void)
{
	struct borrowed borrowed;
	struct waiter other;
	pthread_t thread;

	setup(&borrowed.file, false);
	shut_gate(&borrowed.file);
	pthread_create(&thread, NULL, borrowed_seal, &borrowed);
	wait_at_gate(&borrowed.file);
	memset(&other, 0, sizeof(other));
	other.request.seals = F_SEAL_GROW;
	other.request.populate = true;
	other.request.deadline_ms = -1;
	g_assert_cmpint(waiter_start(&other, &borrowed.file), ==, -EINPROGRESS);
	open_gate(&borrowed.file);
	g_assert_cmpint(waiter_wait(&other), ==, 0);
	pthread_join(thread, NULL);
	g_assert_cmpint(borrowed.waiter.result, ==, 0);
	g_assert_true(pthread_equal(borrowed.waiter.thread, thread));
	g_assert_false(pthread_equal(other.thread, thread));
	g_assert_cmpuint(sealing_current(&borrowed.file.sealing), ==, F_SEAL_WRITE | F_SEAL_GROW);
	teardown(&borrowed.file);
}

static void test_woken_by_release(void)
{
	struct file file;
	struct waiter waiter;
	struct writer writers[3];

	setup(&file, true);
	for (unsigned i = 0; i < 3; i++)
		add_writer(&file, &writers[i], i + 1);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	/* Seals that writers do not hinder overtake it. */
	g_assert_cmpint(seal(&file, F_SEAL_SHRINK, 0), ==, 0);
	for (unsigned i = 0; i < 3; i++) {
		g_usleep(3000);
		g_assert_cmpint(waiter.calls, ==, 0);
		remove_writer(&file, &writers[i]);
	}
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	g_assert_cmpuint(file.engine.waited, ==, 1);
	g_assert_cmpuint(sealing_current(&file.sealing), ==, F_SEAL_WRITE | F_SEAL_SHRINK);
	teardown(&file);
}

/* New writers may come while a request waits, and it waits for them, too. */
static void test_prolonged(void)
{
	struct file file;
	struct waiter waiter;
	struct writer writers[20];

	setup(&file, true);
	add_writer(&file, &writers[0], 1);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_FUTURE_WRITE, -1), ==, -EINPROGRESS);
	for (unsigned i = 1; i < G_N_ELEMENTS(writers); i++) {
		add_writer(&file, &writers[i], i + 1);
		remove_writer(&file, &writers[i - 1]);
	}
	g_usleep(5000);
	g_assert_cmpint(waiter.calls, ==, 0);
	remove_writer(&file, &writers[G_N_ELEMENTS(writers) - 1]);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	teardown(&file);
}

static void test_woken_by_unpin(void)
{
	struct file file;
	struct waiter waiter;
	struct mapping_pins *pins;

	setup(&file, true);
	g_assert_cmpint(mapping_pin_range(&file.mapping, 0, PAGE, &pins), ==, 0);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	g_usleep(3000);
	g_assert_cmpint(waiter.calls, ==, 0);
	/* A pin that is held is no reason against FUTURE_WRITE. */
	g_assert_cmpint(seal(&file, F_SEAL_FUTURE_WRITE, 0), ==, 0);
	mapping_unpin_range(&file.mapping, pins);
	g_assert_cmpint(waiter.calls, ==, 0);
	pthread_mutex_lock(&file.lock);
	sealing_wake_locked(&file.sealing);
	pthread_mutex_unlock(&file.lock);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	teardown(&file);
}

static void test_deadline(void)
{
	static const int64_t timeouts[] = { 0, SEAL_GRACE_MS, 60, 150 };
	struct file file;
	struct writer writer;

	setup(&file, true);
	add_writer(&file, &writer, 1);
	for (unsigned i = 0; i < G_N_ELEMENTS(timeouts); i++) {
		int64_t start = clock_now_ms();

		g_assert_cmpint(seal(&file, CONTENT, timeouts[i]), ==, -EBUSY);
		g_assert_cmpint(clock_now_ms() - start, >=, timeouts[i]);
		assert_untouched(&file);
	}
	g_assert_cmpuint(file.engine.refused, ==, G_N_ELEMENTS(timeouts));
	g_assert_cmpuint(file.engine.granted, ==, 0);
	remove_writer(&file, &writer);
	g_assert_cmpint(seal(&file, CONTENT, 0), ==, 0);
	teardown(&file);
}

/* A deadline that has passed is no reason to refuse what can be had without waiting. */
static void test_late_but_free(void)
{
	struct file file;

	setup(&file, true);
	g_assert_cmpint(seal(&file, F_SEAL_WRITE, 0), ==, 0);
	teardown(&file);
}

/* A writer whose RELEASE is on its way does not make NOWAIT fail. */
static void test_grace(void)
{
	struct file file;
	struct waiter waiter;
	struct writer writer;

	setup(&file, true);
	add_writer(&file, &writer, 1);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, 2000), ==, -EINPROGRESS);
	remove_writer(&file, &writer);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	teardown(&file);
}

/* A mapping that outlived its handle: only the memory knows, and it is asked again. */
static void test_memory_knows(void)
{
	struct file file;
	struct waiter waiter;
	void *view;

	setup(&file, true);
	view = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, mapping_fd(&file.mapping), 0);
	g_assert_true(view != MAP_FAILED);
	g_assert_cmpint(seal(&file, F_SEAL_WRITE, 30), ==, -EBUSY);
	g_assert_true(file.sealing.memory_busy);
	assert_untouched(&file);
	g_assert_cmpint(seal(&file, F_SEAL_FUTURE_WRITE, 0), ==, 0);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	g_usleep(30000);
	g_assert_cmpint(waiter.calls, ==, 0);
	munmap(view, PAGE);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	g_assert_false(file.sealing.memory_busy);
	teardown(&file);
}

static void interrupt(struct file *file, struct waiter *waiter)
{
	seal_interrupt(&file->sealing, &waiter->request);
}

static void test_interrupted(void)
{
	struct file file;
	struct waiter first, second, early;
	struct writer writer;

	setup(&file, true);
	add_writer(&file, &writer, 1);
	g_assert_cmpint(submit(&first, &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	g_assert_cmpint(submit(&second, &file, F_SEAL_WRITE, 10000), ==, -EINPROGRESS);
	interrupt(&file, &first);
	g_assert_cmpint(waiter_wait(&first), ==, -EINTR);
	g_assert_cmpint(second.calls, ==, 0);
	interrupt(&file, &second);
	interrupt(&file, &second);
	g_assert_cmpint(waiter_wait(&second), ==, -EINTR);
	remove_writer(&file, &writer);

	/* The interruption may be faster than the request, and counts though nobody hinders. */
	memset(&early, 0, sizeof(early));
	early.request.seals = F_SEAL_WRITE;
	early.request.deadline_ms = -1;
	interrupt(&file, &early);
	g_assert_cmpint(waiter_start(&early, &file), ==, -EINPROGRESS);
	g_assert_cmpint(waiter_wait(&early), ==, -EINTR);
	assert_untouched(&file);
	teardown(&file);
}

/* In the last step it is too late: granted is granted. */
static void test_interrupted_late(void)
{
	struct file file;
	struct waiter waiter;

	setup(&file, true);
	shut_gate(&file);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	wait_at_gate(&file);
	interrupt(&file, &waiter);
	g_usleep(1000);
	g_assert_cmpint(waiter.calls, ==, 0);
	open_gate(&file);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	g_assert_cmpuint(sealing_current(&file.sealing), ==, F_SEAL_WRITE);
	teardown(&file);
}

#define MANY 200

static void test_many(void)
{
	static struct waiter waiters[MANY];
	struct file file;
	struct writer writer;

	setup(&file, true);
	add_writer(&file, &writer, 1);
	for (unsigned i = 0; i < MANY; i++)
		g_assert_cmpint(submit(&waiters[i], &file,
				       i % 2 ? F_SEAL_WRITE : F_SEAL_WRITE | F_SEAL_GROW,
				       i % 3 ? -1 : 20000), ==, -EINPROGRESS);
	g_assert_cmpuint(file.engine.waiting, ==, MANY);
	/* Who comes last wants that nobody comes after it: all of them came before. */
	remove_writer(&file, &writer);
	for (unsigned i = 0; i < MANY; i++)
		g_assert_cmpint(waiter_wait(&waiters[i]), ==, 0);
	g_assert_cmpuint(file.engine.granted, ==, MANY);
	g_assert_cmpint(file.granted, ==, 1);
	teardown(&file);
}

/* SEAL shuts the door behind it: who waited is refused. */
static void test_seal_ends_waiting(void)
{
	struct file file;
	struct waiter waiter;
	struct writer writer;

	setup(&file, true);
	add_writer(&file, &writer, 1);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	g_assert_cmpint(seal(&file, F_SEAL_SEAL, 1000), ==, 0);
	g_assert_cmpint(waiter_wait(&waiter), ==, -EPERM);
	g_assert_cmpuint(sealing_current(&file.sealing), ==, F_SEAL_SEAL);
	remove_writer(&file, &writer);
	g_assert_cmpint(admit(&file, NULL), ==, 0);
	teardown(&file);
}

struct arrival {
	struct admission admission;
	atomic_int resumed;
};

static void arrival_resume(struct admission *admission)
{
	atomic_fetch_add(&container_of(admission, struct arrival, admission)->resumed, 1);
}

static void arrival_init(struct arrival *arrival)
{
	memset(arrival, 0, sizeof(*arrival));
	list_init(&arrival->admission.link);
	arrival->admission.resume = arrival_resume;
}

static void arrival_wait(struct arrival *arrival)
{
	int64_t end = clock_now_ms() + PATIENCE_MS;

	while (!atomic_load(&arrival->resumed)) {
		g_assert_cmpint(clock_now_ms(), <, end);
		g_usleep(200);
	}
	g_usleep(1000);
	g_assert_cmpint(arrival->resumed, ==, 1);
}

static void test_admission(void)
{
	struct arrival arrivals[5];
	struct file file;
	struct waiter waiter;

	setup(&file, true);
	shut_gate(&file);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	wait_at_gate(&file);
	for (unsigned i = 0; i < G_N_ELEMENTS(arrivals); i++) {
		arrival_init(&arrivals[i]);
		g_assert_cmpint(admit(&file, &arrivals[i].admission), ==, -EINPROGRESS);
	}
	g_assert_cmpint(admit(&file, NULL), ==, -EINPROGRESS);
	g_usleep(3000);
	for (unsigned i = 0; i < G_N_ELEMENTS(arrivals); i++)
		g_assert_cmpint(arrivals[i].resumed, ==, 0);
	open_gate(&file);
	for (unsigned i = 0; i < G_N_ELEMENTS(arrivals); i++)
		arrival_wait(&arrivals[i]);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	g_assert_cmpint(admit(&file, &arrivals[0].admission), ==, -EPERM);
	teardown(&file);
}

/*
 * The last step fails: a page that is in a pipe has a reference that nobody explains, for which the
 * memory waits by itself. Who arrived meanwhile may write.
 */
static void test_admission_after_failure(void)
{
	struct arrival arrival;
	struct file file;
	struct waiter waiter;
	loff_t offset = 0;
	int pipes[2], result;

	setup(&file, true);
	g_assert_cmpint(mapping_write(&file.mapping, "x", 1, 0), ==, 1);
	g_assert_cmpint(pipe(pipes), ==, 0);
	g_assert_cmpint(splice(mapping_fd(&file.mapping), &offset, pipes[1], NULL, 1, 0), ==, 1);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, 50), ==, -EINPROGRESS);
	arrival_init(&arrival);
	do {
		result = admit(&file, &arrival.admission);
	} while (result == 0 && !atomic_load(&waiter.calls));
	g_assert_cmpint(result, ==, -EINPROGRESS);
	arrival_wait(&arrival);
	g_assert_cmpint(waiter_wait(&waiter), ==, -EBUSY);
	assert_untouched(&file);
	close(pipes[0]);
	close(pipes[1]);
	g_assert_cmpint(seal(&file, F_SEAL_WRITE, 1000), ==, 0);
	teardown(&file);
}

static int handover(struct waiter *waiter, struct file *file, enum seal_verb verb, uint64_t handle,
		    uint64_t owner, int64_t timeout)
{
	int result;

	memset(waiter, 0, sizeof(*waiter));
	waiter->request.verb = verb;
	waiter->request.seals = F_SEAL_WRITE;
	waiter->request.handle = handle;
	waiter->request.owner = owner;
	waiter->request.deadline_ms = in_ms(timeout);
	result = waiter_start(waiter, file);
	return result == -EINPROGRESS ? waiter_wait(waiter) : result;
}

static int hand_over(struct file *file, enum seal_verb verb, uint64_t handle, uint64_t owner)
{
	struct waiter waiter;

	return handover(&waiter, file, verb, handle, owner, 20);
}

static int abort_handover(struct file *file, uint64_t owner)
{
	int result;

	pthread_mutex_lock(&file->lock);
	result = sealing_abort_locked(&file->sealing, owner);
	pthread_mutex_unlock(&file->lock);
	return result;
}

static void test_handover(void)
{
	struct arrival arrival;
	struct file file;
	struct writer ours, other;

	setup(&file, true);
	arrival_init(&arrival);
	g_assert_cmpint(hand_over(&file, SEAL_PREPARE, 7, 8), ==, -EINVAL);
	g_assert_cmpint(hand_over(&file, SEAL_COMMIT, 7, 8), ==, -EINVAL);
	g_assert_cmpint(abort_handover(&file, 8), ==, -EINVAL);
	g_assert_cmpint(abort_handover(&file, 0), ==, -EINVAL);
	add_writer(&file, &ours, 7);
	add_writer(&file, &other, 9);
	g_assert_cmpint(hand_over(&file, SEAL_PREPARE, 7, 8), ==, -EBUSY);
	remove_writer(&file, &other);
	atomic_store(&file.mapped, true);
	g_assert_cmpint(hand_over(&file, SEAL_PREPARE, 7, 8), ==, -EBUSY);
	assert_untouched(&file);

	atomic_store(&file.mapped, false);
	g_assert_cmpint(hand_over(&file, SEAL_PREPARE, 7, 8), ==, 0);
	g_assert_cmpint(admit(&file, &arrival.admission), ==, -EINPROGRESS);
	g_assert_cmpint(hand_over(&file, SEAL_PREPARE, 7, 9), ==, -EBUSY);
	g_assert_cmpint(hand_over(&file, SEAL_COMMIT, 7, 9), ==, -EINVAL);
	g_assert_cmpint(hand_over(&file, SEAL_COMMIT, 6, 8), ==, -EINVAL);
	g_assert_cmpint(abort_handover(&file, 9), ==, -EINVAL);
	g_assert_cmpint(arrival.resumed, ==, 0);
	g_assert_cmpuint(sealing_current(&file.sealing), ==, 0);
	remove_writer(&file, &ours);
	g_assert_cmpint(hand_over(&file, SEAL_COMMIT, 7, 8), ==, 0);
	arrival_wait(&arrival);
	g_assert_cmpint(admit(&file, NULL), ==, -EPERM);
	g_assert_cmpint(hand_over(&file, SEAL_COMMIT, 7, 8), ==, -EINVAL);
	teardown(&file);
}

/* COMMIT waits for the RELEASE that is on its way; when it does not come all is as before. */
static void test_commit_waits(void)
{
	struct arrival arrival;
	struct file file;
	struct waiter waiter;
	struct writer ours;

	setup(&file, true);
	arrival_init(&arrival);
	add_writer(&file, &ours, 7);
	g_assert_cmpint(hand_over(&file, SEAL_PREPARE, 7, 8), ==, 0);
	g_assert_cmpint(admit(&file, &arrival.admission), ==, -EINPROGRESS);
	g_assert_cmpint(hand_over(&file, SEAL_COMMIT, 7, 8), ==, -EBUSY);
	arrival_wait(&arrival);
	assert_untouched(&file);

	g_assert_cmpint(hand_over(&file, SEAL_PREPARE, 7, 8), ==, 0);
	memset(&waiter, 0, sizeof(waiter));
	waiter.request.verb = SEAL_COMMIT;
	waiter.request.seals = F_SEAL_WRITE;
	waiter.request.handle = 7;
	waiter.request.owner = 8;
	waiter.request.deadline_ms = in_ms(10000);
	g_assert_cmpint(waiter_start(&waiter, &file), ==, -EINPROGRESS);
	g_usleep(2000);
	remove_writer(&file, &ours);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	teardown(&file);
}

static void test_abort(void)
{
	struct arrival arrival;
	struct file file;
	struct writer ours;

	setup(&file, true);
	arrival_init(&arrival);
	add_writer(&file, &ours, 7);
	g_assert_cmpint(hand_over(&file, SEAL_PREPARE, 7, 8), ==, 0);
	g_assert_cmpint(admit(&file, &arrival.admission), ==, -EINPROGRESS);
	g_assert_cmpint(abort_handover(&file, 8), ==, 0);
	arrival_wait(&arrival);
	g_assert_cmpint(abort_handover(&file, 8), ==, -EINVAL);
	g_assert_cmpint(hand_over(&file, SEAL_COMMIT, 7, 8), ==, -EINVAL);
	remove_writer(&file, &ours);
	assert_untouched(&file);
	teardown(&file);
}

static void test_expiry(void)
{
	struct arrival arrival;
	struct file file;
	struct writer ours;
	int64_t start = clock_now_ms();

	setup(&file, true);
	arrival_init(&arrival);
	add_writer(&file, &ours, 7);
	g_assert_cmpint(hand_over(&file, SEAL_PREPARE, 7, 8), ==, 0);
	g_assert_cmpint(admit(&file, &arrival.admission), ==, -EINPROGRESS);
	arrival_wait(&arrival);
	g_assert_cmpint(clock_now_ms() - start, >=, SEAL_PREPARED_MS);
	g_assert_cmpint(hand_over(&file, SEAL_COMMIT, 7, 8), ==, -EINVAL);
	assert_untouched(&file);
	remove_writer(&file, &ours);
	teardown(&file);
}

static void test_too_many(void)
{
	struct file file;
	struct waiter waiters[3];
	struct writer writer;

	setup(&file, true);
	file.engine.max_waiting = 2;
	add_writer(&file, &writer, 1);
	g_assert_cmpint(submit(&waiters[0], &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	g_assert_cmpint(submit(&waiters[1], &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	/* What must wait does so for a moment, what need not is granted. */
	g_assert_cmpint(submit(&waiters[2], &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	g_assert_cmpint(waiter_wait(&waiters[2]), ==, -EAGAIN);
	g_assert_cmpint(submit(&waiters[2], &file, F_SEAL_WRITE, SEAL_GRACE_MS), ==, -EINPROGRESS);
	g_assert_cmpint(waiter_wait(&waiters[2]), ==, -EBUSY);
	g_assert_cmpint(submit(&waiters[2], &file, F_SEAL_GROW, -1), ==, -EINPROGRESS);
	g_assert_cmpint(waiter_wait(&waiters[2]), ==, 0);
	atomic_fetch_add(&file.engine.unanswered, SEAL_CROWD_MAX);
	g_assert_cmpint(submit(&waiters[2], &file, F_SEAL_WRITE, -1), ==, -EAGAIN);
	g_assert_cmpint(waiters[2].calls, ==, 0);
	atomic_fetch_sub(&file.engine.unanswered, SEAL_CROWD_MAX);
	interrupt(&file, &waiters[0]);
	g_assert_cmpint(waiter_wait(&waiters[0]), ==, -EINTR);
	wait_for_waiting(&file, 1);
	g_assert_cmpint(submit(&waiters[2], &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	remove_writer(&file, &writer);
	g_assert_cmpint(waiter_wait(&waiters[1]), ==, 0);
	g_assert_cmpint(waiter_wait(&waiters[2]), ==, 0);
	teardown(&file);
}

static void test_populate(void)
{
	for (int room = 0; room < 2; room++) {
		struct file file;
		struct waiter waiter = { 0 };
		uint64_t size, blocks;
		struct timespec mtime;

		setup_limited(&file, false, room ? 16 : 15);
		waiter.request.seals = CONTENT;
		waiter.request.populate = true;
		waiter.request.deadline_ms = in_ms(1000);
		g_assert_cmpint(waiter_start(&waiter, &file), ==, -EINPROGRESS);
		g_assert_cmpint(waiter_wait(&waiter), ==, room ? 0 : -ENOSPC);
		g_assert_cmpint(file.stale, >, 0);
		mapping_stat(&file.mapping, &size, &blocks, &mtime);
		if (room) {
			g_assert_cmpuint(sealing_current(&file.sealing), ==, CONTENT);
			g_assert_cmpuint(blocks, ==, 16 * PAGE / 512);
		} else {
			g_assert_cmpuint(sealing_current(&file.sealing), ==, 0);
			g_assert_cmpint(admit(&file, NULL), ==, 0);
			g_assert_cmpint(file.granted, ==, 0);
		}
		teardown(&file);
	}
}

static void test_denied_for_good(void)
{
	struct file file;

	setup(&file, true);
	g_assert_cmpint(seal(&file, F_SEAL_FUTURE_WRITE, 1000), ==, 0);
	g_assert_cmpint(mapping_map_writable(&file.mapping), ==, -EPERM);
	g_assert_cmpint(admit(&file, NULL), ==, -EPERM);
	g_assert_cmpint(file.mapping.writable, ==, -1);
	g_assert_cmpint(seal(&file, F_SEAL_WRITE, 1000), ==, 0);
	g_assert_cmpint(seal(&file, F_SEAL_WRITE | F_SEAL_FUTURE_WRITE, 1000), ==, 0);
	g_assert_cmpint(file.mapping.writable, ==, -1);
	g_assert_cmpint(mapping_map_writable(&file.mapping), ==, -EPERM);
	teardown(&file);
}

static void test_interrupt_all(void)
{
	struct arrival arrival;
	struct file file;
	struct waiter waiters[20];
	struct writer writers[2];

	setup(&file, true);
	sealing_interrupt_all(&file.sealing); /* nobody waits */
	arrival_init(&arrival);
	add_writer(&file, &writers[0], 1);
	g_assert_cmpint(hand_over(&file, SEAL_PREPARE, 1, 8), ==, 0);
	g_assert_cmpint(admit(&file, &arrival.admission), ==, -EINPROGRESS);
	for (unsigned i = 0; i < G_N_ELEMENTS(waiters); i++)
		g_assert_cmpint(submit(&waiters[i], &file, F_SEAL_WRITE, i % 2 ? -1 : 20000), ==,
				-EINPROGRESS);
	sealing_interrupt_all(&file.sealing);
	for (unsigned i = 0; i < G_N_ELEMENTS(waiters); i++)
		g_assert_cmpint(waiter_wait(&waiters[i]), ==, -EINTR);
	arrival_wait(&arrival);
	assert_untouched(&file);
	remove_writer(&file, &writers[0]);
	teardown(&file);
}

static int set_mode(struct file *file, mode_t mode)
{
	int result;

	pthread_mutex_lock(&file->lock);
	result = sealing_check_mode_locked(&file->sealing, file->mode, S_IFREG | mode);
	if (result == 0) {
		file->mode = S_IFREG | mode;
		sealing_wake_locked(&file->sealing);
	}
	pthread_mutex_unlock(&file->lock);
	return result;
}

/* What EXEC implies is decided by the mode at the time of the grant, not of the request. */
static void test_exec_follows_mode(void)
{
	struct file file;
	struct waiter waiter;
	struct writer writer;

	setup(&file, true);
	add_writer(&file, &writer, 1);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_EXEC | F_SEAL_FUTURE_WRITE, -1), ==,
			-EINPROGRESS);
	g_usleep(2000);
	g_assert_cmpint(set_mode(&file, 0755), ==, 0);
	remove_writer(&file, &writer);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	g_assert_cmpuint(sealing_current(&file.sealing), ==, F_SEAL_EXEC | CONTENT);
	g_assert_cmpuint(file.granted_seals, ==, F_SEAL_EXEC | CONTENT);
	g_assert_cmpint(set_mode(&file, 0644), ==, -EPERM);
	teardown(&file);

	/* The other way round: nothing hinders any more. */
	setup(&file, true);
	file.mode = S_IFREG | 0755;
	add_writer(&file, &writer, 1);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_EXEC, -1), ==, -EINPROGRESS);
	g_usleep(2000);
	g_assert_cmpint(waiter.calls, ==, 0);
	g_assert_cmpint(set_mode(&file, 0644), ==, 0);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	g_assert_cmpuint(sealing_current(&file.sealing), ==, F_SEAL_EXEC);
	g_assert_cmpint(set_mode(&file, 0600), ==, 0);
	g_assert_cmpint(set_mode(&file, 0700), ==, -EPERM);
	remove_writer(&file, &writer);
	teardown(&file);
}

static void test_exec_while_asking(void)
{
	struct file file;
	struct waiter waiter;

	setup(&file, true);
	shut_gate(&file);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_EXEC | F_SEAL_FUTURE_WRITE, -1), ==,
			-EINPROGRESS);
	wait_at_gate(&file);
	g_assert_cmpuint(sealing_current(&file.sealing), ==, 0);
	g_assert_cmpint(set_mode(&file, 0744), ==, -EPERM);
	g_assert_cmpint(set_mode(&file, 0400), ==, 0);
	open_gate(&file);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	g_assert_cmpuint(sealing_current(&file.sealing), ==, F_SEAL_EXEC | F_SEAL_FUTURE_WRITE);
	teardown(&file);

	/* Other seals have nothing to do with the mode. */
	setup(&file, true);
	shut_gate(&file);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_FUTURE_WRITE, -1), ==,
			-EINPROGRESS);
	wait_at_gate(&file);
	g_assert_cmpint(set_mode(&file, 0744), ==, 0);
	open_gate(&file);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	teardown(&file);
}

/* Everybody at once, file after file: whoever asks is told once; a sealed file has no writer. */
struct storm {
	struct file *file;
	atomic_bool stop;
	atomic_int deferred, resumed;
};

struct storm_arrival {
	struct admission admission;
	struct storm *storm;
};

static void storm_resume(struct admission *admission)
{
	struct storm_arrival *arrival = container_of(admission, struct storm_arrival, admission);

	atomic_fetch_add(&arrival->storm->resumed, 1);
	g_free(arrival);
}

static void *storm_write(void *data)
{
	struct storm *storm = data;
	struct file *file = storm->file;

	while (!atomic_load(&storm->stop)) {
		struct storm_arrival *arrival = g_new0(struct storm_arrival, 1);
		struct writer writer = { .handle = 1 };
		int result;

		list_init(&arrival->admission.link);
		arrival->admission.resume = storm_resume;
		arrival->storm = storm;
		pthread_mutex_lock(&file->lock);
		result = sealing_admit_writer_locked(&file->sealing, &arrival->admission);
		if (result == 0)
			sealing_add_writer_locked(&file->sealing, &writer);
		if (result == -EINPROGRESS)
			atomic_fetch_add(&storm->deferred, 1);
		pthread_mutex_unlock(&file->lock);
		if (result != -EINPROGRESS)
			g_free(arrival);
		g_usleep(20);
		if (result == 0) {
			g_assert_cmpuint(sealing_current(&file->sealing) & F_SEAL_WRITE, ==, 0);
			remove_writer(file, &writer);
		}
		if (result == -EPERM)
			return NULL;
	}
	return NULL;
}

static void *storm_seal(void *data)
{
	struct storm *storm = data;

	for (unsigned i = 0; i < 40 && !atomic_load(&storm->stop); i++) {
		struct waiter waiter;
		int result;

		g_assert_cmpint(submit(&waiter, storm->file, F_SEAL_WRITE, i % 8), ==,
				-EINPROGRESS);
		if (i % 3 == 0)
			interrupt(storm->file, &waiter);
		result = waiter_wait(&waiter);
		g_assert_true(result == 0 || result == -EBUSY || result == -EINTR);
		if (result == 0)
			break;
	}
	return NULL;
}

static void storm_once(void)
{
	struct file file;
	struct storm storm = { .file = &file };
	pthread_t threads[4];

	setup(&file, true);
	for (unsigned i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, i < 2 ? storm_write : storm_seal, &storm);
	pthread_join(threads[2], NULL);
	pthread_join(threads[3], NULL);
	atomic_store(&storm.stop, true);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	g_assert_cmpint(seal(&file, F_SEAL_WRITE, -1), ==, 0);
	g_assert_cmpuint(file.sealing.nr_writers, ==, 0);
	teardown(&file);
	g_assert_cmpint(storm.deferred, ==, storm.resumed);
}

static void test_storm(void)
{
	int64_t end = clock_now_ms() + 1000;

	do
		storm_once();
	while (clock_now_ms() < end);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	/* No pool inherits another one's threads: see setup_limited(). */
	g_thread_pool_set_max_unused_threads(0);
	g_test_add_func("/sealing/granted", test_granted);
	g_test_add_func("/sealing/at-once", test_at_once);
	g_test_add_func("/sealing/spare", test_spare);
	g_test_add_func("/sealing/borrowed", test_borrowed);
	g_test_add_func("/sealing/woken-by-release", test_woken_by_release);
	g_test_add_func("/sealing/prolonged", test_prolonged);
	g_test_add_func("/sealing/woken-by-unpin", test_woken_by_unpin);
	g_test_add_func("/sealing/deadline", test_deadline);
	g_test_add_func("/sealing/late-but-free", test_late_but_free);
	g_test_add_func("/sealing/grace", test_grace);
	g_test_add_func("/sealing/memory-knows", test_memory_knows);
	g_test_add_func("/sealing/interrupted", test_interrupted);
	g_test_add_func("/sealing/interrupted-late", test_interrupted_late);
	g_test_add_func("/sealing/many", test_many);
	g_test_add_func("/sealing/seal-ends-waiting", test_seal_ends_waiting);
	g_test_add_func("/sealing/admission", test_admission);
	g_test_add_func("/sealing/admission-after-failure", test_admission_after_failure);
	g_test_add_func("/sealing/handover", test_handover);
	g_test_add_func("/sealing/commit-waits", test_commit_waits);
	g_test_add_func("/sealing/abort", test_abort);
	g_test_add_func("/sealing/expiry", test_expiry);
	g_test_add_func("/sealing/too-many", test_too_many);
	g_test_add_func("/sealing/populate", test_populate);
	g_test_add_func("/sealing/denied-for-good", test_denied_for_good);
	g_test_add_func("/sealing/interrupt-all", test_interrupt_all);
	g_test_add_func("/sealing/exec-follows-mode", test_exec_follows_mode);
	g_test_add_func("/sealing/exec-while-asking", test_exec_while_asking);
	g_test_add_func("/sealing/storm", test_storm);
	return g_test_run();
}
