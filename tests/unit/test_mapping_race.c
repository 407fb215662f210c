/* SPDX-License-Identifier: MIT */
/*
 * Readers that take no lock, against everything that changes a file below them.
 *
 * Each word of a file says where it belongs. A reader may find it in any version, or zero, or
 * behind the end of the file; it may never find it at another place. What a lookup finds covers the
 * page that was looked up.
 *
 * Nobody promises whole words: the kernel copies with byte instructions, and a bare memfd tears a
 * word some times in a million reads (more often where a hypervisor stops processors). So each
 * byte stands for itself: it is of this place, of any version, or zero.
 *
 * Two seconds; CACHET_TEST_SLOW=1 makes it thirty for each test.
 */
#include "mapping_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define RACE_BYTES (3 * HUGE_BYTES)
#define RACE_READ (64u << 10)
#define RACE_READERS 2

struct race {
	struct file file;
	atomic_bool stop;
	atomic_ulong reads, lookups, changes, collapsed;
};

static int64_t race_duration_ms(void)
{
	return getenv("CACHET_TEST_SLOW") ? 30000 : 1000;
}

/*
 * Five bytes of place above three of version. No byte of a place is ever zero, so that a byte of
 * another place is never taken for one that was cut away.
 */
static uint64_t race_word(uint64_t offset, uint64_t version)
{
	uint64_t place = 0;

	for (unsigned i = 0; i < 5; i++)
		place |= (0x80 | (offset >> 7 * i & 0x7f)) << 8 * i;
	return place << 24 | (version & 0xffffff);
}

static void race_make(uint64_t *words, uint64_t offset, size_t bytes, uint64_t version)
{
	for (size_t i = 0; i < bytes / 8; i++)
		words[i] = race_word(offset + i * 8, version);
}

static bool race_word_belongs(uint64_t word, uint64_t offset)
{
	uint64_t expected = race_word(offset, 0) >> 24;

	for (word >>= 24; word; word >>= 8, expected >>= 8)
		if ((word & 0xff) && (word & 0xff) != (expected & 0xff))
			return false;
	return true;
}

static void race_verify(const uint64_t *words, uint64_t offset, size_t bytes)
{
	for (size_t i = 0; i < bytes / 8; i++)
		if (!race_word_belongs(words[i], offset + i * 8))
			g_error("at byte %" G_GUINT64_FORMAT ": %" G_GINT64_MODIFIER "x",
				offset + i * 8, words[i]);
}

static void *race_reader(void *data)
{
	struct race *race = data;
	GRand *dice = g_rand_new();
	uint64_t *words = g_malloc(RACE_READ);

	while (!atomic_load(&race->stop)) {
		uint64_t offset = g_rand_int(dice) % RACE_BYTES & ~UINT64_C(7);
		size_t bytes = 8 + (g_rand_int(dice) % (RACE_READ - 8) & ~7u);
		ssize_t n = mapping_read(&race->file.mapping, words, bytes, offset);

		g_assert_cmpint(n, >=, 0);
		race_verify(words, offset, (size_t)n);
		atomic_fetch_add(&race->reads, 1);
		for (unsigned i = 0; i < 50; i++) {
			uint64_t page = g_rand_int(dice) % (RACE_BYTES / PAGE);
			struct folio *folio = mapping_get_folio(&race->file.mapping, page, "race");

			if (!folio)
				continue;
			g_assert_cmpuint(folio->index, <=, page);
			g_assert_cmpuint(folio_end(folio), >, page);
			g_assert_cmpint(folio_state(folio), !=, FOLIO_NEW);
			folio_put(folio, "race");
			atomic_fetch_add(&race->lookups, 1);
		}
	}
	g_free(words);
	g_rand_free(dice);
	return NULL;
}

static void *race_writer(void *data)
{
	struct race *race = data;
	GRand *dice = g_rand_new();
	uint64_t *words = g_malloc(RACE_BYTES);

	for (uint64_t version = 1; !atomic_load(&race->stop); version++) {
		uint64_t offset = g_rand_int(dice) % RACE_BYTES & ~UINT64_C(7);
		size_t most = g_rand_int(dice) % 8 ? RACE_READ : RACE_BYTES;
		size_t bytes = 8 + (g_rand_int(dice) % (most - 8) & ~(size_t)7);

		if (g_rand_int(dice) % 8 == 0)
			offset &= ~(HUGE_BYTES - 1);
		if (bytes > RACE_BYTES - offset)
			bytes = RACE_BYTES - offset;
		race_make(words, offset, bytes, version);
		g_assert_cmpint(mapping_write(&race->file.mapping, words, bytes, offset), ==,
				(ssize_t)bytes);
		atomic_fetch_add(&race->changes, 1);
	}
	g_free(words);
	g_rand_free(dice);
	return NULL;
}

static void *race_cutter(void *data)
{
	struct race *race = data;
	struct mapping *mapping = &race->file.mapping;
	GRand *dice = g_rand_new();

	while (!atomic_load(&race->stop)) {
		/* Multiples of a word, so that no word is cut in two. */
		uint64_t offset = g_rand_int(dice) % RACE_BYTES & ~UINT64_C(7);
		uint64_t bytes = 8 + (g_rand_int(dice) % (RACE_BYTES / 4) & ~7u);
		struct mapping_pins *pins;
		struct mapping_write write;

		switch (g_rand_int(dice) % 8) {
		case 0:
			g_assert_cmpint(mapping_truncate(mapping, offset), ==, 0);
			break;
		case 1:
			g_assert_cmpint(mapping_truncate(mapping, RACE_BYTES), ==, 0);
			break;
		case 2:
			g_assert_cmpint(mapping_zero(mapping, offset, bytes, true), ==, 0);
			break;
		case 3:
			if (mapping_pin_range(mapping, offset, bytes, &pins) == 0) {
				g_usleep(100);
				mapping_unpin_range(mapping, pins);
			}
			break;
		case 4:
			g_assert_cmpint(mapping_populate(mapping, offset, bytes), ==, 0);
			break;
		case 5:
			/* A write that is broken off takes its pages back, others' stay. */
			g_assert_cmpint(mapping_write_begin(mapping, &write, offset, bytes, false),
					==, 0);
			mapping_write_end(mapping, &write, -EIO);
			break;
		default:
			g_assert_cmpint(mapping_punch(mapping, offset, bytes), ==, 0);
		}
		atomic_fetch_add(&race->changes, 1);
	}
	g_rand_free(dice);
	return NULL;
}

static void *race_waiter(void *data)
{
	struct race *race = data;

	while (!atomic_load(&race->stop)) {
		mapping_wait_for_pins(&race->file.mapping, clock_now_ms() + 2);
		g_usleep(500);
	}
	return NULL;
}

static void test_change(void)
{
	static void *(*const roles[])(void *data) = {
		race_reader, race_reader, race_writer, race_writer, race_cutter, race_waiter,
	};
	struct race race = { .stop = false };
	pthread_t threads[G_N_ELEMENTS(roles)];

	file_open(&race.file, 0, false);
	for (size_t i = 0; i < G_N_ELEMENTS(roles); i++)
		g_assert_cmpint(pthread_create(&threads[i], NULL, roles[i], &race), ==, 0);
	g_usleep((gulong)race_duration_ms() * 1000);
	atomic_store(&race.stop, true);
	for (size_t i = 0; i < G_N_ELEMENTS(roles); i++)
		pthread_join(threads[i], NULL);
	g_test_message("%lu reads, %lu lookups, %lu changes", race.reads, race.lookups,
		       race.changes);
	g_assert_cmpuint(race.reads, >, 0);
	g_assert_cmpuint(race.changes, >, 0);
	g_assert_false(mapping_may_be_pinned(&race.file.mapping));
	g_assert_cmpuint(atomic_load(&race.file.budget.used), ==,
			 file_count(&race.file, XARRAY_PRESENT));
	/* Whatever pins kept beyond a cut goes when all of it is cut. */
	g_assert_cmpint(mapping_truncate(&race.file.mapping, 0), ==, 0);
	file_check(&race.file);
	file_close(&race.file);
}

static void *race_collapser(void *data)
{
	struct race *race = data;

	while (!atomic_load(&race->stop)) {
		long huge = mapping_collapse_range(&race->file.mapping, 0, UINT64_MAX, NULL, NULL);

		g_assert_cmpint(huge, >=, -EINVAL);
		if (huge > 0)
			atomic_fetch_add(&race->collapsed, (unsigned long)huge);
		/* The lock is not fair among those who want it exclusively. */
		g_usleep(200);
	}
	return NULL;
}

/* One sealed file: readers and lookups, while it is collapsed, cut, grown and collapsed again. */
static void race_round(struct race *race, GRand *dice)
{
	pthread_t threads[RACE_READERS + 1];
	uint64_t words[PAGE / 8];

	atomic_store(&race->stop, false);
	file_open(&race->file, 0, false);
	for (uint64_t page = RACE_BYTES / PAGE; page-- > 0;) {
		race_make(words, page * PAGE, PAGE, 1);
		g_assert_cmpint(mapping_write(&race->file.mapping, words, PAGE, page * PAGE), ==,
				(ssize_t)PAGE);
	}
	g_assert_cmpint(mapping_add_seals(&race->file.mapping, F_SEAL_WRITE), ==, 0);
	for (unsigned i = 0; i < RACE_READERS; i++)
		g_assert_cmpint(pthread_create(&threads[i], NULL, race_reader, race), ==, 0);
	g_assert_cmpint(pthread_create(&threads[RACE_READERS], NULL, race_collapser, race), ==, 0);
	for (unsigned i = 0; i < 6; i++) {
		uint64_t size = g_rand_int(dice) % RACE_BYTES & ~UINT64_C(7);

		g_usleep(g_rand_int(dice) % 4000);
		g_assert_cmpint(mapping_truncate(&race->file.mapping, size), ==, 0);
		g_assert_cmpint(mapping_truncate(&race->file.mapping, RACE_BYTES), ==, 0);
		g_assert_cmpint(mapping_populate(&race->file.mapping, 0, UINT64_MAX), ==, 0);
		atomic_fetch_add(&race->changes, 1);
	}
	g_usleep(2000);
	atomic_store(&race->stop, true);
	for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
		pthread_join(threads[i], NULL);
	file_check(&race->file);
	file_close(&race->file);
}

static void test_collapse(void)
{
	struct race race = { .stop = false };
	int64_t end = clock_now_ms() + race_duration_ms();
	GRand *dice = g_rand_new();

	do
		race_round(&race, dice);
	while (clock_now_ms() < end);
	g_test_message("%lu reads, %lu lookups, %lu cuts, %lu ranges found or made huge",
		       race.reads, race.lookups, race.changes, race.collapsed);
	g_assert_cmpuint(race.reads, >, 0);
	g_rand_free(dice);
}

/* Writers and cutters until a seal stops them: from then on nothing changes. */
static void *race_sealed_writer(void *data)
{
	struct race *race = data;
	GRand *dice = g_rand_new();
	uint64_t *words = g_malloc(RACE_READ);

	while (!atomic_load(&race->stop)) {
		uint64_t offset = g_rand_int(dice) % RACE_BYTES & ~UINT64_C(7);
		size_t bytes = 8 + (g_rand_int(dice) % (RACE_READ - 8) & ~7u);
		ssize_t n;

		race_make(words, offset, bytes, 2);
		n = mapping_write(&race->file.mapping, words, bytes, offset);
		g_assert_true(n == (ssize_t)bytes || n == -EPERM);
		if (g_rand_int(dice) % 8 == 0) {
			int rc = mapping_punch(&race->file.mapping, offset, bytes);

			g_assert_true(rc == 0 || rc == -EPERM);
		}
		atomic_fetch_add(&race->changes, 1);
	}
	g_free(words);
	g_rand_free(dice);
	return NULL;
}

static void race_seal_round(struct race *race, GRand *dice)
{
	pthread_t threads[3];
	char *sealed, *later;
	size_t size;
	int rc;

	atomic_store(&race->stop, false);
	file_open(&race->file, 0, false);
	for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
		g_assert_cmpint(pthread_create(&threads[i], NULL, race_sealed_writer, race), ==, 0);
	g_usleep(g_rand_int(dice) % 10000);
	/* Busy when the kernel met a page just while it was written. */
	while ((rc = mapping_add_seals(&race->file.mapping, F_SEAL_WRITE)) == -EBUSY)
		atomic_fetch_add(&race->lookups, 1);
	g_assert_cmpint(rc, ==, 0);
	size = file_contents(&race->file, &sealed);
	g_usleep(2000);
	g_assert_cmpuint(file_contents(&race->file, &later), ==, size);
	g_assert_cmpmem(sealed, size, later, size);
	atomic_store(&race->stop, true);
	for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
		pthread_join(threads[i], NULL);
	race_verify((uint64_t *)later, 0, size);
	g_free(later);
	g_assert_cmpuint(file_contents(&race->file, &later), ==, size);
	g_assert_cmpmem(sealed, size, later, size);
	g_free(later);
	g_free(sealed);
	file_check(&race->file);
	file_close(&race->file);
}

static void test_seal(void)
{
	struct race race = { .stop = false };
	int64_t end = clock_now_ms() + race_duration_ms() / 2;
	GRand *dice = g_rand_new();

	do
		race_seal_round(&race, dice);
	while (clock_now_ms() < end);
	g_test_message("%lu changes, seal busy %lu times", race.changes, race.lookups);
	g_rand_free(dice);
}

/* Many ask for the descriptors at once: they are made once. */
static void *race_fd(void *data)
{
	struct race *race = data;
	int fd = mapping_fd(&race->file.mapping);
	int fd_readonly = memory_require_readonly(&race->file.mapping.memory);

	g_assert_cmpint(fd, ==, mapping_fd(&race->file.mapping));
	g_assert_cmpint(fd_readonly, ==, memory_require_readonly(&race->file.mapping.memory));
	g_assert_cmpint(fcntl(fd, F_GETFL) & O_ACCMODE, ==, O_RDWR);
	g_assert_cmpint(fcntl(fd_readonly, F_GETFL) & O_ACCMODE, ==, O_RDONLY);
	return NULL;
}

static void test_descriptors(void)
{
	int before = dup(0), after;

	close(before);
	for (unsigned round = 0; round < 50; round++) {
		struct race race = { .stop = false };
		pthread_t threads[4];

		file_open(&race.file, 0, false);
		for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
			g_assert_cmpint(pthread_create(&threads[i], NULL, race_fd, &race), ==, 0);
		for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
			pthread_join(threads[i], NULL);
		file_close(&race.file);
	}
	/* The lowest free descriptor is what it was: none leaked. */
	after = dup(0);
	g_assert_cmpint(after, ==, before);
	close(after);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_data_func("/race/change", (gconstpointer)test_change, without_leaks);
	g_test_add_data_func("/race/collapse", (gconstpointer)test_collapse, without_leaks);
	g_test_add_data_func("/race/seal", (gconstpointer)test_seal, without_leaks);
	g_test_add_data_func("/race/descriptors", (gconstpointer)test_descriptors, without_leaks);
	return g_test_run();
}
