/* SPDX-License-Identifier: MIT */
/* Descriptors of idle memories are parked, and come back with the contents that they had. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "memory/memory.h"
#include "memory/parking.h"

#define COUNT 1000
#define LIMIT 200

static struct memory memories[COUNT];

static unsigned descriptors(void)
{
	g_autoptr(GDir) dir = g_dir_open("/proc/self/fd", 0, NULL);
	unsigned count = 0;

	while (g_dir_read_name(dir))
		count++;
	return count;
}

static void fill(unsigned number)
{
	struct memory *memory = &memories[number];

	g_assert_cmpint(memory_hold(memory), ==, 0);
	g_assert_cmpint(pwrite(memory_require(memory), &number, sizeof(number), number), ==,
			sizeof(number));
	memory_release(memory);
}

static void check(unsigned number)
{
	struct memory *memory = &memories[number];
	unsigned value = 0;

	g_assert_cmpint(memory_hold(memory), ==, 0);
	g_assert_cmpint(pread(memory_require(memory), &value, sizeof(value), number), ==,
			sizeof(value));
	g_assert_cmpuint(value, ==, number);
	memory_release(memory);
}

static void fill_all(void)
{
	parking_set_limit(LIMIT);
	for (unsigned i = 0; i < COUNT; i++) {
		memory_init(&memories[i]);
		fill(i);
	}
}

static void destroy_all(void)
{
	for (unsigned i = 0; i < COUNT; i++)
		memory_destroy(&memories[i]);
	g_assert_cmpuint(parking_parked(), ==, 0);
}

/* The first memory makes the reserve. */
static unsigned descriptors_with_reserve(void)
{
	memory_init(&memories[0]);
	fill(0);
	memory_destroy(&memories[0]);
	return descriptors();
}

static void test_park(void)
{
	unsigned before = descriptors_with_reserve();
	struct stat st;

	fill_all();
	g_assert_cmpuint(parking_parked(), >=, COUNT - LIMIT - 64);
	g_assert_cmpuint(descriptors(), <, before + LIMIT + COUNT / 64 + 1);
	for (unsigned i = 0; i < COUNT; i++) {
		memory_stat(&memories[i], &st);
		g_assert_cmpint(st.st_size, ==, i + sizeof(i));
	}
	for (unsigned i = 0; i < COUNT; i++)
		check(i);
	for (unsigned i = 0; i < COUNT; i += 7)
		check(COUNT - 1 - i);
	g_assert_cmpuint(descriptors(), <, before + LIMIT + 2 * 64 + COUNT / 64 + 1);
	destroy_all();
	g_assert_cmpuint(descriptors(), ==, before);
}

static void test_held_stay(void)
{
	fill_all();
	g_assert_cmpint(memory_hold(&memories[0]), ==, 0);
	g_assert_cmpint(atomic_load(&memories[0].fd), >=, 0);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 1; i < COUNT; i++)
			check(i);
	g_assert_cmpint(atomic_load(&memories[0].fd), >=, 0);
	memory_release(&memories[0]);
	destroy_all();
}

static void test_seals_and_changes(void)
{
	fill_all();
	for (unsigned i = 0; i < COUNT; i += 3) {
		g_assert_cmpint(memory_resize(&memories[i], 1 << 20), ==, 0);
		g_assert_cmpint(memory_add_seals(&memories[i], F_SEAL_WRITE), ==, 0);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		g_assert_cmpuint(memory_seals(&memories[i]), ==, i % 3 ? 0 : F_SEAL_WRITE);
		check(i);
	}
	destroy_all();
}

/* No descriptor is left, not even for a socket: the reserve is there for that. */
static void test_reserve(void)
{
	struct rlimit old, few;
	unsigned made = 0;

	parking_set_limit(COUNT * 2);
	getrlimit(RLIMIT_NOFILE, &old);
	few = old;
	few.rlim_cur = descriptors() + LIMIT;
	g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &few), ==, 0);
	for (; made < COUNT; made++) {
		memory_init(&memories[made]);
		fill(made);
	}
	g_assert_cmpuint(parking_parked(), >, COUNT - LIMIT - 64);
	for (unsigned i = 0; i < COUNT; i++)
		check(i);
	setrlimit(RLIMIT_NOFILE, &old);
	destroy_all();
}

/* No descriptor is left, and none can be won: what is open is held. */
struct shortage {
	struct rlimit old;
	int spare[4096];
	unsigned count;
};

static void shortage_begin(struct shortage *shortage)
{
	struct rlimit few;

	shortage->count = 0;
	getrlimit(RLIMIT_NOFILE, &shortage->old);
	few = shortage->old;
	few.rlim_cur = descriptors() + 100;
	g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &few), ==, 0);
	for (unsigned i = 0; i < COUNT; i++)
		if (atomic_load(&memories[i].fd) >= 0)
			memory_hold(&memories[i]);
	while (shortage->count < G_N_ELEMENTS(shortage->spare) &&
	       (shortage->spare[shortage->count] = dup(0)) >= 0)
		shortage->count++;
}

static void shortage_end(struct shortage *shortage)
{
	for (unsigned i = 0; i < shortage->count; i++)
		close(shortage->spare[i]);
	setrlimit(RLIMIT_NOFILE, &shortage->old);
	for (unsigned i = 0; i < COUNT; i++)
		if (atomic_load(&memories[i].holds))
			memory_release(&memories[i]);
}

/* Too few descriptors for a group: an error, and nothing is lost. */
static void test_no_descriptors(void)
{
	struct shortage shortage;
	unsigned refused = 0;

	fill_all();
	shortage_begin(&shortage);
	for (unsigned i = 0; i < COUNT; i++)
		if (atomic_load(&memories[i].fd) < 0) {
			g_assert_cmpint(memory_hold(&memories[i]), ==, -EMFILE);
			refused++;
		}
	g_assert_cmpuint(refused, >, 100);
	shortage_end(&shortage);
	for (unsigned i = 0; i < COUNT; i++)
		check(i);
	destroy_all();
}

/*
 * Memories that end where they are: all of a group, whose socket goes with them, and some of
 * others, whose neighbours come back later.
 */
static void test_end_parked(void)
{
	unsigned before = descriptors_with_reserve(), count = 0;
	struct shortage shortage;
	bool ended[COUNT] = { false };
	unsigned long parked;

	fill_all();
	shortage_begin(&shortage);
	parked = parking_parked();
	for (unsigned i = 0; i < COUNT; i++)
		if (atomic_load(&memories[i].fd) < 0 && (i < 256 || i % 3 == 0)) {
			memory_destroy(&memories[i]);
			memory_init(&memories[i]);
			ended[i] = true;
			count++;
		}
	g_assert_cmpuint(count, >, 300);
	g_assert_cmpuint(parking_parked(), ==, parked - count);
	shortage_end(&shortage);
	for (unsigned i = 0; i < COUNT; i++)
		if (!ended[i])
			check(i);
	/* Nor does what was begun in its place get the descriptor of what has ended. */
	for (unsigned i = 0; i < COUNT; i++)
		if (ended[i])
			g_assert_cmpint(atomic_load(&memories[i].fd), ==, -1);
	destroy_all();
	g_assert_cmpuint(descriptors(), ==, before);
}

/* As many descriptors in flight as a user may have. */
static void fill_flight(int socket, unsigned count)
{
	char control[CMSG_SPACE(200 * sizeof(int))] = { 0 };
	char zero = 0;
	struct iovec byte = { &zero, 1 };
	struct msghdr message = {
		.msg_iov = &byte,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(count * sizeof(int)),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(count * sizeof(int));
	for (unsigned i = 0; i < count; i++)
		memcpy(CMSG_DATA(header) + i * sizeof(int), &(int){ 0 }, sizeof(int));
	g_assert_cmpint(sendmsg(socket, &message, 0), ==, 1);
}

/* No descriptor, and none may be in flight: who wants one is told the former. */
static void test_no_flight(void)
{
	const struct rlimit few = { 100, 100 };
	int pair[2], spare[100];
	unsigned count = 0;

	if (!g_test_subprocess()) {
		g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
		g_test_trap_assert_passed();
		return;
	}
	g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &few), ==, 0);
	if (geteuid() == 0)
		g_assert_cmpint(setresuid(65534, 65534, 65534), ==, 0);
	prctl(PR_SET_DUMPABLE, 1); /* for LeakSanitizer */
	memory_init(&memories[0]);
	memory_init(&memories[1]);
	fill(0); /* idle: it could make room */
	g_assert_cmpint(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), ==, 0);
	fill_flight(pair[0], few.rlim_cur + 1);
	while (count < G_N_ELEMENTS(spare) && (spare[count] = dup(0)) >= 0)
		count++;
	g_assert_false(parking_make_room());
	g_assert_cmpint(memory_hold(&memories[1]), ==, 0);
	g_assert_cmpint(memory_require(&memories[1]), ==, -EMFILE);
	memory_release(&memories[1]);
	for (unsigned i = 0; i < count; i++)
		close(spare[i]);
	check(0);
	memory_destroy(&memories[0]);
	memory_destroy(&memories[1]);
}

static void *check_many(void *data)
{
	GRand *random = g_rand_new_with_seed(GPOINTER_TO_UINT(data));

	for (unsigned i = 0; i < 3000; i++)
		check(g_rand_int_range(random, 0, COUNT));
	g_rand_free(random);
	return NULL;
}

static void test_threads(void)
{
	pthread_t threads[4];

	fill_all();
	for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
		pthread_create(&threads[i], NULL, check_many, GUINT_TO_POINTER(i + 1));
	for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
		pthread_join(threads[i], NULL);
	destroy_all();
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/parking/park", test_park);
	g_test_add_func("/parking/held_stay", test_held_stay);
	g_test_add_func("/parking/seals_and_changes", test_seals_and_changes);
	g_test_add_func("/parking/reserve", test_reserve);
	g_test_add_func("/parking/no_descriptors", test_no_descriptors);
	g_test_add_func("/parking/end_parked", test_end_parked);
	g_test_add_func("/parking/no_flight", test_no_flight);
	g_test_add_func("/parking/threads", test_threads);
	return g_test_run();
}
