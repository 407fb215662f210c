/* SPDX-License-Identifier: MIT */
/*
 * open_race DIRECTORY SECONDS OPENERS SEALERS
 *
 * Processes open, map, read and close a few files in every way while others replace and seal them.
 * Whatever meets, nobody may see EIO, and a file that is known to be write-sealed can be mapped by
 * whoever opens it then. Prints what was done; exit status 1 for an errno that has no place here or
 * wrong contents.
 */
#include <stdbool.h>
#include <sys/stat.h>

#include "race.h"

#define FILES 6
#define FILE_SIZE (32 * 1024)
#define CONTENT_SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

enum { OPENS, READS, SHARED, NODEV, PRIVATE, REFUSED, SEALS, BUSY };

static const char *directory;

/* Every byte of a file is the same, so that a torn or mixed-up page shows. */
static void check_bytes(const char *what, const unsigned char *bytes, size_t length)
{
	for (size_t i = 1; i < length; i++) {
		if (bytes[i] != bytes[0]) {
			race_fail("%s: byte %zu is %#x, the first is %#x", what, i, bytes[i],
				  bytes[0]);
			return;
		}
	}
}

static void read_some(int fd, uint64_t dice)
{
	unsigned char buffer[8192];
	ssize_t count = pread(fd, buffer, sizeof(buffer), dice % (FILE_SIZE - sizeof(buffer)));

	if (count < 0)
		race_fail("read: %s", strerror(errno));
	else if (count == 0)
		race_fail("read: the file is empty");
	else
		check_bytes("read", buffer, count);
	race_count(READS);
}

static void map_some(int fd, int seals)
{
	unsigned char *view = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);

	if (view != MAP_FAILED) {
		check_bytes("shared mapping", view, FILE_SIZE);
		munmap(view, FILE_SIZE);
		race_count(SHARED);
	} else if (errno != ENODEV) {
		race_fail("shared mapping: %s", strerror(errno));
	} else {
		/* io=daemon, unless the file was sealed before it was opened. */
		race_count(NODEV);
		if (seals & F_SEAL_WRITE)
			race_fail("a sealed file cannot be mapped");
	}
}

/*
 * io=daemon: while a sealed file is open through the kernel, a handle from before the seal cannot
 * be mapped at all, not even privately; the kernel says ENODEV.
 */
static void map_private(int fd, int seals)
{
	unsigned char *view = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

	if (view == MAP_FAILED) {
		if (errno != ENODEV || (seals & F_SEAL_WRITE))
			race_fail("private mapping: %s", strerror(errno));
		race_count(NODEV);
		return;
	}
	check_bytes("private mapping", view, FILE_SIZE);
	memset(view, 1, 4096);
	munmap(view, FILE_SIZE);
	race_count(PRIVATE);
}

static void open_once(uint64_t dice)
{
	static const int modes[] = { O_RDONLY, O_RDONLY, O_RDWR, O_WRONLY };
	int flags = modes[dice % 4], fd, again, seals;
	char path[4096];
	struct stat st;

	snprintf(path, sizeof(path), "%s/open-%d", directory, (int)((dice >> 8) % FILES));
	fd = open(path, flags);
	if (fd < 0) {
		if (errno == EPERM && flags != O_RDONLY)
			race_count(REFUSED);
		else
			race_fail("open %s with flags %#x: %s", path, flags, strerror(errno));
		return;
	}
	race_count(OPENS);
	seals = race_get_seals(fd);
	if (seals < 0)
		race_fail("GET_SEALS: %s", strerror(-seals));
	if (fstat(fd, &st) < 0 || st.st_size != FILE_SIZE)
		race_fail("fstat: size %lld, %s", (long long)st.st_size, strerror(errno));
	if (flags != O_WRONLY) {
		if (dice & 0x10000)
			read_some(fd, dice >> 20);
		if (dice & 0x20000)
			map_some(fd, 0);
		if (dice & 0x40000)
			map_private(fd, 0);
	}
	/* A second handle of the very same file, while the first is open. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDONLY);
	if (again < 0) {
		race_fail("second open: %s", strerror(errno));
	} else {
		map_some(again, seals);
		map_private(again, seals);
		read_some(again, dice >> 24);
		close(again);
	}
	if (dice & 0x80000)
		race_pause((dice >> 40) % 300);
	close(fd);
}

static void opener(int number)
{
	uint64_t state = 1181783497276652981u + number * 104729;

	while (!race_over())
		open_once(race_random(&state));
}

static bool replace(int which, unsigned char byte, int number)
{
	unsigned char bytes[FILE_SIZE];
	char path[4096], temporary[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/open-%d", directory, which);
	snprintf(temporary, sizeof(temporary), "%s/new-%d", directory, number);
	memset(bytes, byte, sizeof(bytes));
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL, 0666);
	if (fd < 0 || write(fd, bytes, sizeof(bytes)) != FILE_SIZE) {
		race_fail("making %s: %s", temporary, strerror(errno));
		return false;
	}
	close(fd);
	if (rename(temporary, path) < 0) {
		race_fail("rename to %s: %s", path, strerror(errno));
		return false;
	}
	return true;
}

static void sealer(int number)
{
	uint64_t state = 7046029254386353131u + number * 15485863;
	char path[4096];

	while (!race_over()) {
		uint64_t dice = race_random(&state);
		int which = dice % FILES, fd, error;

		if (!replace(which, dice >> 8, number))
			return;
		race_pause((dice >> 16) % 400);
		snprintf(path, sizeof(path), "%s/open-%d", directory, which);
		fd = open(path, O_RDONLY);
		if (fd < 0) {
			race_fail("open %s: %s", path, strerror(errno));
			return;
		}
		error = race_add_seals(fd, CONTENT_SEALS,
				       dice & 0x10000000 ? CACHET_SEAL_NOWAIT : 0,
				       (dice >> 32) % 20);
		if (error == -EBUSY)
			race_count(BUSY);
		else if (error)
			race_fail("seal: %s", strerror(-error));
		else
			race_count(SEALS);
		close(fd);
		race_pause((dice >> 40) % 400);
	}
}

int main(int argc, char **argv)
{
	int openers, sealers;
	pid_t pids[64];

	if (argc != 5 || (openers = atoi(argv[3])) < 1 || (sealers = atoi(argv[4])) < 1 ||
	    openers + sealers > 64) {
		fprintf(stderr, "usage: open_race DIRECTORY SECONDS OPENERS SEALERS\n");
		return 2;
	}
	directory = argv[1];
	race_init();
	for (int i = 0; i < FILES; i++)
		if (!replace(i, i, 0))
			return 1;
	for (int i = 0; i < openers; i++)
		pids[i] = race_start(opener, i);
	for (int i = 0; i < sealers; i++)
		pids[openers + i] = race_start(sealer, i);
	for (double end = race_now() + atof(argv[2]); race_now() < end && !race_over();)
		race_pause(10000);
	atomic_store(&race->stop, true);
	if (race_finish(pids, openers + sealers))
		return 1;
	printf("opens=%lu reads=%lu shared=%lu nodev=%lu private=%lu refused=%lu granted=%lu "
	       "busy=%lu\n",
	       race->counters[OPENS], race->counters[READS], race->counters[SHARED],
	       race->counters[NODEV], race->counters[PRIVATE], race->counters[REFUSED],
	       race->counters[SEALS], race->counters[BUSY]);
	return 0;
}
