/* SPDX-License-Identifier: MIT */
/* Who wants to write, or has prepared a hand-over, while a seal is in its last step. */
#include "sealing_fixture.h"

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

/* A reference that nobody explains, for as long as the pipe is open. */
static void put_page_into_pipe(struct file *file, int pipes[2])
{
	loff_t offset = 0;

	g_assert_cmpint(mapping_write(&file->mapping, "x", 1, 0), ==, 1);
	g_assert_cmpint(pipe(pipes), ==, 0);
	g_assert_cmpint(splice(mapping_fd(&file->mapping), &offset, pipes[1], NULL, 1, 0), ==, 1);
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
	int pipes[2], result;

	setup(&file, true);
	put_page_into_pipe(&file, pipes);
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

/* Through handle 8 that of handle 7, the only writer, is prepared; then somebody else comes. */
static void setup_prepared(struct file *file, struct writer *ours, struct arrival *arrival)
{
	setup(file, true);
	add_writer(file, ours, 7);
	g_assert_cmpint(hand_over(file, SEAL_PREPARE, 7, 8), ==, 0);
	arrival_init(arrival);
	g_assert_cmpint(admit(file, &arrival->admission), ==, -EINPROGRESS);
}

/* COMMIT waits for the RELEASE that is on its way; when it does not come all is as before. */
static void test_commit_waits(void)
{
	struct arrival arrival;
	struct file file;
	struct waiter waiter;
	struct writer ours;

	setup_prepared(&file, &ours, &arrival);
	g_assert_cmpint(hand_over(&file, SEAL_COMMIT, 7, 8), ==, -EBUSY);
	arrival_wait(&arrival);
	assert_untouched(&file);

	g_assert_cmpint(hand_over(&file, SEAL_PREPARE, 7, 8), ==, 0);
	g_assert_cmpint(hand_over_start(&waiter, &file, SEAL_COMMIT, 7, 8, 10000), ==,
			-EINPROGRESS);
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

	setup_prepared(&file, &ours, &arrival);
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

	setup_prepared(&file, &ours, &arrival);
	arrival_wait(&arrival);
	g_assert_cmpint(clock_now_ms() - start, >=, SEAL_PREPARED_MS);
	g_assert_cmpint(hand_over(&file, SEAL_COMMIT, 7, 8), ==, -EINVAL);
	assert_untouched(&file);
	remove_writer(&file, &ours);
	teardown(&file);
}

/* One hand-over after another is prepared, and nobody commits: who arrives is let in in between. */
static void test_no_prepare_overtakes(void)
{
	struct arrival arrival;
	struct file file;
	struct waiter waiter;
	struct writer ours;

	setup_prepared(&file, &ours, &arrival);
	g_assert_cmpint(hand_over_start(&waiter, &file, SEAL_PREPARE, 7, 9, -1), ==, -EINPROGRESS);
	pthread_mutex_lock(&file.lock);
	file.sealing.prepared_until = clock_now_ms();
	sealing_wake_locked(&file.sealing);
	pthread_mutex_unlock(&file.lock);
	wait_until(atomic_load(&waiter.calls));
	g_assert_cmpint(arrival.resumed, ==, 1);
	g_assert_cmpint(waiter_wait(&waiter), ==, 0);
	g_assert_cmpint(abort_handover(&file, 9), ==, 0);
	remove_writer(&file, &ours);
	teardown(&file);
}

#define STUBBORN 5

/*
 * So many ask again and again for what the memory refuses each time, after a while, that one of
 * them is always due. Who arrives, and who gives up, is answered all the same.
 */
static void test_stubborn(void)
{
	struct waiter waiters[STUBBORN];
	struct arrival arrival;
	struct file file;
	int pipes[2], result;

	setup(&file, true);
	put_page_into_pipe(&file, pipes);
	for (unsigned i = 0; i < STUBBORN; i++)
		g_assert_cmpint(submit(&waiters[i], &file, F_SEAL_WRITE, -1), ==, -EINPROGRESS);
	arrival_init(&arrival);
	do {
		result = admit(&file, &arrival.admission);
	} while (result == 0);
	g_assert_cmpint(result, ==, -EINPROGRESS);
	arrival_wait(&arrival);
	for (unsigned i = 0; i < STUBBORN; i++) {
		seal_interrupt(&file.sealing, &waiters[i].request);
		g_assert_cmpint(waiter_wait(&waiters[i]), ==, -EINTR);
	}
	close(pipes[0]);
	close(pipes[1]);
	assert_untouched(&file);
	teardown(&file);
}

#define BUSY_FILES 20

/* Files whose memory is known to be slow to answer, more than there are threads; then another. */
static void test_busy_files(void)
{
	static struct file files[BUSY_FILES], other;
	static struct waiter waiters[BUSY_FILES];
	struct writer writers[BUSY_FILES];

	for (unsigned i = 0; i < BUSY_FILES; i++) {
		setup(&files[i], true);
		files[i].sealing.engine = &files[0].engine;
		files[i].sealing.memory_busy = true;
		add_writer(&files[i], &writers[i], 7);
		shut_gate(&files[i]);
		g_assert_cmpint(hand_over_start(&waiters[i], &files[i], SEAL_PREPARE, 7, 8, -1),
				==, -EINPROGRESS);
	}
	wait_at_gate(&files[0]);
	setup(&other, true);
	other.sealing.engine = &files[0].engine;
	g_assert_cmpint(seal(&other, F_SEAL_WRITE, -1), ==, 0);
	for (unsigned i = 0; i < BUSY_FILES; i++)
		open_gate(&files[i]);
	for (unsigned i = 0; i < BUSY_FILES; i++) {
		g_assert_cmpint(waiter_wait(&waiters[i]), ==, 0);
		g_assert_cmpint(abort_handover(&files[i], 8), ==, 0);
		remove_writer(&files[i], &writers[i]);
	}
	wait_until(!atomic_load(&other.refs));
	teardown(&other);
	for (unsigned i = BUSY_FILES; i-- > 0;) {
		wait_until(!atomic_load(&files[i].refs));
		teardown(&files[i]);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	/* No pool inherits another one's threads: see setup_limited(). */
	g_thread_pool_set_max_unused_threads(0);
	g_test_add_func("/admission/admission", test_admission);
	g_test_add_func("/admission/admission-after-failure", test_admission_after_failure);
	g_test_add_func("/admission/handover", test_handover);
	g_test_add_func("/admission/commit-waits", test_commit_waits);
	g_test_add_func("/admission/abort", test_abort);
	g_test_add_func("/admission/expiry", test_expiry);
	g_test_add_func("/admission/no-prepare-overtakes", test_no_prepare_overtakes);
	g_test_add_func("/admission/stubborn", test_stubborn);
	g_test_add_func("/admission/busy-files", test_busy_files);
	return g_test_run();
}
