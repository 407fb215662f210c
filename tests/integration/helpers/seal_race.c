/* SPDX-License-Identifier: MIT */
/*
 * seal_race DIRECTORY SECONDS ATTACKERS
 *
 * One process makes files and asks for write seals again and again while others open the file for
 * writing, map it, store into the mapping before and after closing, and let go at random times.
 * From the moment a seal is granted the bytes must stay as they are: they are compared at once,
 * for a while, and once more at the end. Prints what was done; exit status 1 when a byte changed or
 * somebody got an errno that has no place here.
 */
#include <stdbool.h>

#include "race.h"

#define FILE_SIZE (64 * 1024)
#define KEPT 24

enum { OPENS, MAPS, STORES, WRITES, REFUSED, GRANTED, BUSY, ROUNDS };

static const char *directory;

/* Which file is attacked now; the name is made of it. */
static _Atomic unsigned long *current;
static atomic_bool *hold_off;

static void name_of(char *path, size_t size, unsigned long number)
{
	snprintf(path, size, "%s/race-%lu", directory, number);
}

static uint64_t sum(const unsigned char *bytes, size_t length)
{
	uint64_t value = 1469598103934665603u;

	for (size_t i = 0; i < length; i++)
		value = (value ^ bytes[i]) * 1099511628211u;
	return value;
}

static uint64_t sum_of(const char *path)
{
	static unsigned char buffer[FILE_SIZE];
	int fd = open(path, O_RDONLY);
	ssize_t count;
	void *view;
	uint64_t by_read, by_map;

	if (fd < 0) {
		race_fail("open %s for reading: %s", path, strerror(errno));
		return 0;
	}
	count = pread(fd, buffer, sizeof(buffer), 0);
	if (count != FILE_SIZE)
		race_fail("read of %s: %zd, %s", path, count, strerror(errno));
	by_read = sum(buffer, FILE_SIZE);
	view = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	if (view == MAP_FAILED) {
		race_fail("mapping of sealed %s: %s", path, strerror(errno));
	} else {
		by_map = sum(view, FILE_SIZE);
		if (by_map != by_read)
			race_fail("%s differs between read and mapping", path);
		munmap(view, FILE_SIZE);
	}
	close(fd);
	return by_read;
}

static void store(unsigned char *view, uint64_t *state, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t random = race_random(state);

		((volatile unsigned char *)view)[random % FILE_SIZE] = random >> 32;
	}
	race_count(STORES);
}

static void attack_once(uint64_t *state)
{
	char path[4096];
	uint64_t dice = race_random(state);
	unsigned char *view = MAP_FAILED;
	int fd;

	name_of(path, sizeof(path), atomic_load(current));
	fd = open(path, dice & 1 ? O_RDWR : O_RDWR | O_APPEND | O_NONBLOCK);
	if (fd < 0) {
		if (errno != EPERM && errno != ENOENT)
			race_fail("open of %s for writing: %s", path, strerror(errno));
		race_count(REFUSED);
		return;
	}
	race_count(OPENS);
	if (dice & 2) {
		if (pwrite(fd, &dice, sizeof(dice), dice % (FILE_SIZE - 8)) < 0 && errno != EPERM)
			race_fail("write to %s: %s", path, strerror(errno));
		race_count(WRITES);
	}
	if (dice & 4) {
		view = mmap(NULL, FILE_SIZE, dice & 8 ? PROT_READ | PROT_WRITE : PROT_READ,
			    MAP_SHARED, fd, 0);
		if (view == MAP_FAILED && errno != EPERM && errno != EACCES && errno != ENODEV)
			race_fail("mapping of %s: %s", path, strerror(errno));
	}
	if (dice & 16)
		close(fd);
	if (view != MAP_FAILED) {
		race_count(MAPS);
		if (!(dice & 8) && mprotect(view, FILE_SIZE, PROT_READ | PROT_WRITE) < 0) {
			if (errno != EACCES && errno != EPERM)
				race_fail("mprotect of %s: %s", path, strerror(errno));
		} else {
			store(view, state, 1 + (dice >> 8) % 200);
			if (dice & 32)
				race_pause((dice >> 16) % 700);
			store(view, state, 1 + (dice >> 24) % 50);
		}
		munmap(view, FILE_SIZE);
	}
	if (!(dice & 16)) {
		if (dice & 64)
			race_pause((dice >> 16) % 500);
		close(fd);
	}
}

static void attacker(int number)
{
	uint64_t state = 88172645463325252u + number * 7919;

	while (!race_over()) {
		if (atomic_load(hold_off))
			race_pause(200);
		else
			attack_once(&state);
		/* Gaps in which a seal can succeed. */
		race_pause(race_random(&state) % 900);
	}
}

static void make_file(unsigned long number)
{
	static unsigned char bytes[FILE_SIZE];
	uint64_t state = number * 2654435761u + 1;
	char path[4096];
	int fd;

	for (size_t i = 0; i < FILE_SIZE; i++)
		bytes[i] = race_random(&state);
	name_of(path, sizeof(path), number);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
	if (fd < 0 || write(fd, bytes, FILE_SIZE) != FILE_SIZE)
		race_fail("making %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Asks until the seal is granted; returns false when the race is over. */
static bool seal_file(const char *path, uint64_t *state)
{
	int fd = open(path, O_RDONLY);
	bool granted = false;

	for (int tries = 0; fd >= 0 && !granted; tries++) {
		uint64_t dice = race_random(state);
		int error = 0;

		if (tries > 150) {
			/* The attackers never leave a gap: ask them to, and it must go. */
			atomic_store(hold_off, true);
			error = race_add_seals(fd, F_SEAL_WRITE | F_SEAL_SHRINK, 0, 10000);
			if (error)
				race_fail("seal without attackers: %s", strerror(-error));
			atomic_store(hold_off, false);
		} else {
			error = race_add_seals(fd, F_SEAL_WRITE | F_SEAL_SHRINK,
					       dice & 1 ? CACHET_SEAL_NOWAIT : 0,
					       (dice >> 8) % 30);
		}
		if (error == -EBUSY)
			race_count(BUSY);
		else if (error)
			race_fail("seal of %s: %s", path, strerror(-error));
		if (atomic_load(&race->failed))
			break;
		granted = !error;
		if (!granted)
			race_pause((dice >> 16) % 300);
	}
	if (fd < 0)
		race_fail("open of %s: %s", path, strerror(errno));
	else
		close(fd);
	return granted;
}

static void sealer(double seconds)
{
	uint64_t sums[KEPT], state = 42;
	unsigned long number = 0;
	double end = race_now() + seconds;
	char path[4096];

	while (race_now() < end && !atomic_load(&race->failed)) {
		number++;
		if (number > KEPT) {
			name_of(path, sizeof(path), number - KEPT);
			if (sum_of(path) != sums[number % KEPT])
				race_fail("%s has changed in the end", path);
			unlink(path);
		}
		make_file(number);
		atomic_store(current, number);
		race_pause(race_random(&state) % 2000);
		name_of(path, sizeof(path), number);
		if (!seal_file(path, &state))
			break;
		sums[number % KEPT] = sum_of(path);
		race_count(GRANTED);
		for (int i = 0; i < 5; i++) {
			race_pause(400);
			if (sum_of(path) != sums[number % KEPT])
				race_fail("%s has changed after its seal was granted", path);
		}
		race_count(ROUNDS);
	}
	atomic_store(&race->stop, true);
	for (unsigned long n = number > KEPT ? number - KEPT + 1 : 1; n <= number; n++) {
		name_of(path, sizeof(path), n);
		if (!atomic_load(&race->failed) && sum_of(path) != sums[n % KEPT])
			race_fail("%s has changed at the end of the race", path);
	}
}

int main(int argc, char **argv)
{
	pid_t pids[32];
	int attackers;

	if (argc != 4 || (attackers = atoi(argv[3])) < 1 || attackers > 32) {
		fprintf(stderr, "usage: seal_race DIRECTORY SECONDS ATTACKERS\n");
		return 2;
	}
	directory = argv[1];
	race_init();
	current = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (current == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	hold_off = (atomic_bool *)(current + 64);
	for (int i = 0; i < attackers; i++)
		pids[i] = race_start(attacker, i);
	sealer(atof(argv[2]));
	if (race_finish(pids, attackers))
		return 1;
	printf("opens=%lu maps=%lu stores=%lu writes=%lu refused=%lu granted=%lu busy=%lu\n",
	       race->counters[OPENS], race->counters[MAPS], race->counters[STORES],
	       race->counters[WRITES], race->counters[REFUSED], race->counters[GRANTED],
	       race->counters[BUSY]);
	return 0;
}
