/* SPDX-License-Identifier: MIT */
/* Who gets a seal, when, and who is told. */
#include "sealing_fixture.h"

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

/* Where the memory's answer cannot take long, nobody else is asked to help; else somebody is. */
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

	/* So many pages may take the memory long to look at. */
	setup(&file, false);
	g_assert_cmpint(mapping_truncate(&file.mapping, UINT64_C(1) << 30), ==, 0);
	g_assert_cmpint(submit(&waiter, &file, F_SEAL_WRITE, 1000), ==, -EINPROGRESS);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	g_assert_false(pthread_equal(waiter.thread, pthread_self()));
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
	g_test_add_func("/sealing/too-many", test_too_many);
	g_test_add_func("/sealing/populate", test_populate);
	g_test_add_func("/sealing/denied-for-good", test_denied_for_good);
	g_test_add_func("/sealing/interrupt-all", test_interrupt_all);
	g_test_add_func("/sealing/exec-follows-mode", test_exec_follows_mode);
	g_test_add_func("/sealing/exec-while-asking", test_exec_while_asking);
	g_test_add_func("/sealing/storm", test_storm);
	return g_test_run();
}
