/* SPDX-License-Identifier: MIT */
/* The pin engine: are the pins real, do they end, and does every refusal leave nothing behind? */
#include "pin/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cachet/ioctl.h>

#include "base/alloc.h"
#include "base/clock.h"

#define PAGE ((uint64_t)4096)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define NOBODY 65534

/* A release that can be waited for. */
struct release {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned done;
};

#define RELEASE_INIT { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 }

static void release_done(void *data)
{
	struct release *release = data;

	pthread_mutex_lock(&release->lock);
	release->done++;
	pthread_cond_broadcast(&release->changed);
	pthread_mutex_unlock(&release->lock);
}

static void release_wait(struct release *release, unsigned count)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 30;
	pthread_mutex_lock(&release->lock);
	while (release->done < count)
		g_assert_cmpint(pthread_cond_timedwait(&release->changed, &release->lock, &end),
				==, 0);
	pthread_mutex_unlock(&release->lock);
}

static void release_and_wait(struct pin_engine *engine, struct pin_slots *slots)
{
	struct release release = RELEASE_INIT;

	pin_engine_release(engine, slots, release_done, &release);
	release_wait(&release, 1);
}

static bool lazy; /* the engine is to think so of its kernel */

static struct pin_engine *engine_or_skip(void)
{
	int error = 1;
	struct pin_engine *engine = pin_engine_new(&error);

	if (!engine && error == -EOPNOTSUPP)
		g_test_skip("no io_uring with tagged buffers here");
	else
		g_assert_nonnull(engine);
	if (engine && lazy)
		g_assert_cmpint(pin_engine_make_lazy(engine), ==, 0);
	return engine;
}

/* May we lock so much? A normal user's limit is most often 8 MiB, for all processes together. */
static bool may_lock(uint64_t bytes)
{
	struct rlimit limit;

	g_assert_cmpint(getrlimit(RLIMIT_MEMLOCK, &limit), ==, 0);
	if (geteuid() == 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= 2 * bytes)
		return true;
	g_test_skip("RLIMIT_MEMLOCK is too small");
	return false;
}

static void memory_make(struct memory *memory, uint64_t size)
{
	memory_init(memory);
	g_assert_cmpint(memory_require(memory), >=, 0);
	g_assert_cmpint(memory_resize(memory, size), ==, 0);
}

static int memory_seal_write(struct memory *memory)
{
	return fcntl(memory_require(memory), F_ADD_SEALS, F_SEAL_WRITE) ? -errno : 0;
}

static bool vmstat(uint64_t *pinned)
{
	char line[128];
	uint64_t value, acquired = 0, released = 0;
	int found = 0;
	FILE *file;
	int fd = open("/proc/sys/vm/stat_refresh", O_RDONLY);

	/* Folds what each processor counted on its own into the sums. */
	if (fd < 0)
		return false;
	if (read(fd, line, sizeof(line)) < 0) {
		close(fd);
		return false;
	}
	close(fd);
	file = fopen("/proc/vmstat", "r");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "nr_foll_pin_acquired %" SCNu64, &value) == 1)
			acquired = value, found++;
		else if (sscanf(line, "nr_foll_pin_released %" SCNu64, &value) == 1)
			released = value, found++;
	}
	fclose(file);
	*pinned = acquired - released;
	return found == 2;
}

/* Others may pin at the same moment, so one exact round out of many is what is asked for. */
static void test_real(void)
{
	const uint64_t pages = 7777;
	struct pin_engine *engine = engine_or_skip();
	struct memory memory;
	uint64_t before = 0, held = 0, after = 0;
	bool exact = false;

	if (!engine)
		return;
	if (!vmstat(&before)) {
		g_test_skip("/proc/vmstat has no exact pin counts for us");
		pin_engine_free(engine);
		return;
	}
	memory_make(&memory, pages * PAGE);
	/* Others, such as another run of this, may pin meanwhile: one exact round is enough. */
	for (int i = 0; i < 150 && !exact; i++) {
		struct pin_slots *slots;

		g_usleep((gulong)g_test_rand_int_range(0, i ? 200000 : 1));
		g_assert_true(vmstat(&before));
		g_assert_cmpint(pin_engine_register(engine, &memory, 0, pages * PAGE, &slots),
				==, 0);
		g_assert_true(vmstat(&held));
		release_and_wait(engine, slots);
		g_assert_true(vmstat(&after));
		exact = held - before == pages && after == before;
	}
	g_test_message("before %" PRIu64 ", held %" PRIu64 ", after %" PRIu64, before, held, after);
	g_assert_true(exact);
	memory_destroy(&memory);
	pin_engine_free(engine);
}

static void test_blocks_seal(void)
{
	struct pin_engine *engine = engine_or_skip();
	int64_t fastest = INT64_MAX;

	if (!engine)
		return;
	for (int i = 0; i < 8; i++) {
		struct pin_slots *first, *second;
		struct memory memory;
		int64_t start, took;

		memory_make(&memory, 64 * PAGE);
		g_assert_cmpint(pin_engine_register(engine, &memory, 0, 4 * PAGE, &first), ==, 0);
		g_assert_cmpint(pin_engine_register(engine, &memory, PAGE, 8 * PAGE, &second),
				==, 0);
		if (i == 0)
			g_assert_cmpint(memory_seal_write(&memory), ==, -EBUSY);
		release_and_wait(engine, first);
		if (i == 0)
			g_assert_cmpint(memory_seal_write(&memory), ==, -EBUSY);
		release_and_wait(engine, second);
		start = clock_now_ms();
		g_assert_cmpint(memory_seal_write(&memory), ==, 0);
		took = clock_now_ms() - start;
		fastest = MIN(fastest, took);
		g_assert_cmpint(pin_engine_register(engine, &memory, 0, PAGE, &first), ==, -EPERM);
		g_assert_cmpuint(pin_engine_used(engine), ==, 0);
		memory_destroy(&memory);
	}
	/* The kernel looks again after 5 ms at the earliest when it finds a reference. */
	g_assert_cmpint(fastest, <, 5);
	pin_engine_free(engine);
}

/* The pages outlive the descriptor, and what the pin keeps is what was there. */
static void test_outlives_memory(void)
{
	struct pin_engine *engine = engine_or_skip();
	struct pin_slots *slots;
	struct memory memory;

	if (!engine)
		return;
	memory_make(&memory, 16 * PAGE);
	g_assert_cmpint(pin_engine_register(engine, &memory, 0, 16 * PAGE, &slots), ==, 0);
	memory_destroy(&memory);
	g_assert_cmpuint(pin_engine_used(engine), ==, 1);
	release_and_wait(engine, slots);
	g_assert_cmpuint(pin_engine_used(engine), ==, 0);
	pin_engine_free(engine);
}

static void test_full_table(void)
{
	struct pin_engine *engine = may_lock(64 * MIB) ? engine_or_skip() : NULL;
	struct release release = RELEASE_INIT;
	struct pin_slots **slots, *more;
	struct memory memory;
	unsigned nr;

	if (!engine)
		return;
	nr = pin_engine_slots(engine);
	g_test_message("%u slots", nr);
	if (geteuid() == 0)
		g_assert_cmpuint(nr, ==, 16384);
	slots = g_new0(struct pin_slots *, nr);
	memory_make(&memory, nr * PAGE);
	for (int round = 0; round < 2; round++) {
		for (unsigned i = 0; i < nr; i++)
			g_assert_cmpint(pin_engine_register(engine, &memory, i * PAGE, PAGE,
							    &slots[i]), ==, 0);
		g_assert_cmpuint(pin_engine_used(engine), ==, nr);
		g_assert_cmpint(pin_engine_register(engine, &memory, 0, PAGE, &more), ==, -ENOBUFS);
		for (unsigned i = 0; i < nr; i++)
			pin_engine_release(engine, slots[i], release_done, &release);
		release_wait(&release, nr * (round + 1));
		g_assert_cmpuint(pin_engine_used(engine), ==, 0);
	}
	g_assert_cmpint(memory_seal_write(&memory), ==, 0);
	g_free(slots);
	memory_destroy(&memory);
	pin_engine_free(engine);
}

static void test_cycles(void)
{
	struct pin_engine *engine = engine_or_skip();
	struct release release = RELEASE_INIT;
	struct memory memory;

	if (!engine)
		return;
	memory_make(&memory, 64 * PAGE);
	for (unsigned i = 0; i < 10000; i++) {
		struct pin_slots *slots;
		uint64_t first = i % 61;

		g_assert_cmpint(pin_engine_register(engine, &memory, first * PAGE,
						    (1 + i % 3) * PAGE, &slots), ==, 0);
		pin_engine_release(engine, slots, release_done, &release);
		if (i % 100 == 0)
			release_wait(&release, i + 1);
	}
	release_wait(&release, 10000);
	g_assert_cmpuint(release.done, ==, 10000);
	g_assert_cmpuint(pin_engine_used(engine), ==, 0);
	g_assert_cmpint(memory_seal_write(&memory), ==, 0);
	memory_destroy(&memory);
	pin_engine_free(engine);
}

static void test_large(void)
{
	struct pin_engine *engine = may_lock(2 * GIB) ? engine_or_skip() : NULL;
	int error;
	struct pin_engine *small;
	struct pin_slots *slots;
	struct memory memory;

	if (!engine)
		return;
	memory_make(&memory, GIB + 2 * MIB);
	small = pin_engine_new_sized(1, &error);
	g_assert_nonnull(small);
	g_assert_cmpint(pin_engine_register(small, &memory, 0, GIB + 2 * MIB, &slots), ==,
			-ENOBUFS);
	g_assert_cmpint(pin_engine_register(small, &memory, 0, PAGE, &slots), ==, 0);
	release_and_wait(small, slots);
	pin_engine_free(small);

	g_assert_cmpint(pin_engine_register(engine, &memory, 0, GIB + 2 * MIB, &slots), ==, 0);
	g_assert_cmpuint(pin_engine_used(engine), ==, 2);
	g_assert_cmpint(memory_seal_write(&memory), ==, -EBUSY);
	release_and_wait(engine, slots);
	g_assert_cmpuint(pin_engine_used(engine), ==, 0);

	/* The first slot can be had and the second cannot: nothing stays pinned. */
	g_assert_cmpint(pin_engine_register(engine, &memory, 0, GIB + 2 * MIB + PAGE, &slots), ==,
			-EFAULT);
	g_assert_cmpuint(pin_engine_used(engine), ==, 0);
	g_assert_cmpint(memory_seal_write(&memory), ==, 0);
	memory_destroy(&memory);
	pin_engine_free(engine);
}

static void test_no_memory(void)
{
	int error = 0, failed = 1;
	struct memory memory;

	memory_make(&memory, 4 * PAGE);
	for (unsigned long n = 1; failed; n++) {
		struct pin_engine *engine;
		struct pin_slots *slots;

		g_assert_cmpuint(n, <, 20);
		mem_test_begin(n);
		engine = pin_engine_new(&error);
		if (!engine) {
			g_assert_cmpint(mem_test_end(&failed), ==, 0);
			if (error == -EOPNOTSUPP) {
				g_test_skip("no io_uring with tagged buffers here");
				break;
			}
			g_assert_cmpint(error, ==, -ENOMEM);
			g_assert_true(failed);
			continue;
		}
		g_assert_cmpint(error, ==, 0);
		error = pin_engine_register(engine, &memory, 0, PAGE, &slots);
		if (error)
			g_assert_cmpint(error, ==, -ENOMEM);
		else
			release_and_wait(engine, slots);
		g_assert_cmpuint(pin_engine_used(engine), ==, 0);
		pin_engine_free(engine);
		g_assert_cmpint(mem_test_end(&failed), ==, 0);
	}
	g_assert_cmpint(memory_seal_write(&memory), ==, 0);
	memory_destroy(&memory);
}

struct worker {
	struct pin_engine *engine;
	struct memory *memory;
	struct release release;
	unsigned refused;
};

static void *worker_run(void *data)
{
	struct worker *worker = data;

	for (unsigned i = 0; i < 400; i++) {
		struct pin_slots *slots;
		int ret = pin_engine_register(worker->engine, worker->memory, (i % 16) * PAGE, PAGE,
					      &slots);

		if (ret) {
			g_assert_cmpint(ret, ==, -ENOBUFS);
			worker->refused++;
			release_done(&worker->release);
			continue;
		}
		pin_engine_release(worker->engine, slots, release_done, &worker->release);
	}
	release_wait(&worker->release, 400);
	return NULL;
}

static void test_threads(void)
{
	struct worker workers[4];
	pthread_t threads[4];
	struct memory memory;
	int error;
	struct pin_engine *engine = pin_engine_new_sized(3, &error);

	if (!engine) {
		g_test_skip("no io_uring with tagged buffers here");
		return;
	}
	if (lazy)
		g_assert_cmpint(pin_engine_make_lazy(engine), ==, 0);
	memory_make(&memory, 16 * PAGE);
	for (int i = 0; i < 4; i++) {
		workers[i] = (struct worker){ engine, &memory, RELEASE_INIT, 0 };
		pthread_create(&threads[i], NULL, worker_run, &workers[i]);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	g_assert_cmpuint(pin_engine_used(engine), ==, 0);
	pin_engine_free(engine);
	g_assert_cmpint(memory_seal_write(&memory), ==, 0);
	memory_destroy(&memory);
}

/* free() waits for what is on its way out, and calls done() before it returns. */
static void test_free_waits(void)
{
	struct pin_engine *engine = may_lock(64 * MIB) ? engine_or_skip() : NULL;
	struct release release = RELEASE_INIT;
	struct memory memory;

	if (!engine)
		return;
	memory_make(&memory, 512 * PAGE);
	for (int i = 0; i < 32; i++) {
		struct pin_slots *slots;

		g_assert_cmpint(pin_engine_register(engine, &memory, 0, 512 * PAGE, &slots), ==, 0);
		pin_engine_release(engine, slots, release_done, &release);
	}
	pin_engine_free(engine);
	g_assert_cmpuint(release.done, ==, 32);
	g_assert_cmpint(memory_seal_write(&memory), ==, 0);
	memory_destroy(&memory);
}

static void test_lazy(gconstpointer data)
{
	void (*test)(void) = data;

	lazy = true;
	test();
	lazy = false;
}

static void become_nobody(void)
{
	if (geteuid() != 0)
		return;
	g_assert_cmpint(setresgid(NOBODY, NOBODY, NOBODY), ==, 0);
	g_assert_cmpint(setresuid(NOBODY, NOBODY, NOBODY), ==, 0);
}

/* Without CAP_IPC_LOCK pins count against RLIMIT_MEMLOCK, those of all processes of the user. */
static void test_unprivileged(void)
{
	struct rlimit limit = { 8 * MIB, 8 * MIB };
	struct pin_engine *engine;
	struct pin_slots *slots, *big;
	struct memory memory;

	if (!g_test_subprocess()) {
		g_test_trap_subprocess(NULL, 60 * G_USEC_PER_SEC, G_TEST_SUBPROCESS_DEFAULT);
		g_test_trap_assert_passed();
		if (!g_test_trap_has_passed())
			return;
		g_test_trap_assert_stderr("*refused to pin 65536 KiB*RLIMIT_MEMLOCK*8192 KiB*");
		return;
	}
	g_assert_cmpint(setrlimit(RLIMIT_MEMLOCK, &limit), ==, 0);
	become_nobody();
	engine = engine_or_skip();
	if (!engine) {
		g_printerr("refused to pin 65536 KiB: nothing RLIMIT_MEMLOCK at all 8192 KiB\n");
		return;
	}
	memory_make(&memory, 64 * MIB);
	for (int i = 0; i < 3; i++) {
		g_assert_cmpint(pin_engine_register(engine, &memory, 0, MIB, &slots), ==, 0);
		if (i == 0)
			g_assert_cmpint(memory_seal_write(&memory), ==, -EBUSY);
		g_assert_cmpint(pin_engine_register(engine, &memory, 0, 64 * MIB, &big), ==,
				-ENOMEM);
		g_assert_cmpuint(pin_engine_used(engine), ==, 1);
		release_and_wait(engine, slots);
	}
	g_assert_cmpint(memory_seal_write(&memory), ==, 0);
	memory_destroy(&memory);
	pin_engine_free(engine);
}

static void forbid_io_uring(unsigned result)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | result),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { G_N_ELEMENTS(code), code };

	g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
	g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), ==, 0);
}

static void test_unavailable(gconstpointer data)
{
	struct pin_engine *engine;
	int error = 0;

	if (!g_test_subprocess()) {
		g_test_trap_subprocess(NULL, 60 * G_USEC_PER_SEC, G_TEST_SUBPROCESS_DEFAULT);
		g_test_trap_assert_passed();
		return;
	}
	forbid_io_uring(GPOINTER_TO_UINT(data));
	engine = pin_engine_new(&error);
	g_assert_null(engine);
	g_assert_cmpint(error, ==, -EOPNOTSUPP);
}

static void test_no_descriptor(void)
{
	struct rlimit old, none;
	struct pin_engine *engine = engine_or_skip();
	int error = 0;

	if (!engine)
		return;
	pin_engine_free(engine);
	g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &old), ==, 0);
	none = old;
	none.rlim_cur = 3;
	g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
	engine = pin_engine_new(&error);
	g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &old), ==, 0);
	g_assert_null(engine);
	g_assert_cmpint(error, ==, -EMFILE);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	/* A refusal by a limit is worth a warning, not worth dying. */
	g_log_set_always_fatal(G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL);
	g_test_add_func("/pin/engine/real", test_real);
	g_test_add_func("/pin/engine/blocks-seal", test_blocks_seal);
	g_test_add_func("/pin/engine/outlives-memory", test_outlives_memory);
	g_test_add_func("/pin/engine/full-table", test_full_table);
	g_test_add_func("/pin/engine/cycles", test_cycles);
	g_test_add_func("/pin/engine/large", test_large);
	g_test_add_func("/pin/engine/no-memory", test_no_memory);
	g_test_add_func("/pin/engine/threads", test_threads);
	g_test_add_func("/pin/engine/free-waits", test_free_waits);
	g_test_add_data_func("/pin/engine/lazy/real", test_real, test_lazy);
	g_test_add_data_func("/pin/engine/lazy/blocks-seal", test_blocks_seal, test_lazy);
	g_test_add_data_func("/pin/engine/lazy/full-table", test_full_table, test_lazy);
	g_test_add_data_func("/pin/engine/lazy/cycles", test_cycles, test_lazy);
	g_test_add_data_func("/pin/engine/lazy/threads", test_threads, test_lazy);
	g_test_add_data_func("/pin/engine/lazy/free-waits", test_free_waits, test_lazy);
	g_test_add_func("/pin/engine/unprivileged", test_unprivileged);
	g_test_add_data_func("/pin/engine/forbidden", GUINT_TO_POINTER(EPERM), test_unavailable);
	g_test_add_data_func("/pin/engine/missing", GUINT_TO_POINTER(ENOSYS), test_unavailable);
	g_test_add_func("/pin/engine/no-descriptor", test_no_descriptor);
	return g_test_run();
}
