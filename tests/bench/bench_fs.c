/* SPDX-License-Identifier: MIT */
/*
 * Measures file systems side by side. For tools/bench, which mounts them and prints what comes out.
 *
 *	bench_fs [-r ROUNDS] [-t MILLISECONDS] [-n FILES] [-m MIB] [-f REGEX] NAME=KIND:DIRECTORY...
 *	bench_fs -l
 *
 * KIND is plain, cachet (files that can be sealed), sealed (the same, and data are read from sealed
 * files only), memfd, relay or broker (these three use no directory). In each round every measure
 * is taken of every subject in turn, the first subject being another one each time, so that what
 * disturbs the machine disturbs all. A line of JSON for each measure and subject: nanoseconds of
 * each round, per operation; 1 MiB operations are operations, too. MIB is the largest size for
 * seals and pins. -f measures only what a regular expression finds, -l lists what there is.
 *
 * What a subject cannot do is left out. A measure that fails ends the program.
 */
#include "bench_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cachet/ioctl.h>

#define DATA_BYTES (16 * MIB)

/* How long sealed files of data may take to become huge; where they cannot, that is no fault. */
#define COLLAPSE_PATIENCE_MS 2000

static struct subject subjects[SUBJECTS_MAX];
static unsigned nr_subjects;
static const char *current = "";
static double results[SUBJECTS_MAX][ROUNDS_MAX];

struct settings settings = { .rounds = 9, .slice_ms = 100, .files = 2000, .huge = 1024 * MIB };

void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "bench_fs: %s: %s: %s\n", current, what, strerror(errno));
	exit(1);
}

double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

const char *path_of(const struct subject *subject, const char *name, unsigned number)
{
	static __thread char path[400];

	snprintf(path, sizeof(path), "%s/%s%u", subject->dir, name, number);
	return path;
}

int seal_memory(int fd)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK);
}

int seal_file(int fd)
{
	struct cachet_seals args = {
		.size = sizeof(args), .seals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK,
		.timeout_ms = 5000,
	};
	int result;

	/* A ring that this thread used may still have work for it, which interrupts like a signal. */
	do
		result = ioctl(fd, CACHET_IOC_ADD_SEALS, &args);
	while (result < 0 && errno == EINTR);
	return result;
}

int make_memfd(void)
{
	int fd = memfd_create("bench", MFD_ALLOW_SEALING | MFD_CLOEXEC);

	must(fd >= 0, "memfd_create");
	return fd;
}

void fill_file(int fd, size_t size)
{
	for (size_t at = 0; at < size; at += MIB) {
		size_t length = size - at < MIB ? size - at : MIB;

		must(pwrite(fd, settings.buffer, length, at) == (ssize_t)length, "fill a file");
	}
}

int make_filled(struct subject *subject, const char *name, size_t size)
{
	int fd;

	if (subject->kind == MEMFD) {
		fd = make_memfd();
	} else {
		unlink(path_of(subject, name, 0));
		fd = open(path_of(subject, name, 0), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	}
	must(fd >= 0, "make a file");
	fill_file(fd, size);
	return fd;
}

int reopen(const struct subject *subject, int fd)
{
	char path[64];
	int reader;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	reader = subject->kind == MEMFD ? dup(fd) : open(path, O_RDONLY | O_CLOEXEC);
	must(reader >= 0, "open again for reading");
	return reader;
}

static void wait_until_huge(int fd, size_t size)
{
	struct cachet_stat st = { .size = sizeof(st) };

	for (unsigned i = 0; i < COLLAPSE_PATIENCE_MS / 10; i++) {
		if (ioctl(fd, CACHET_IOC_STAT, &st) || st.file_pages_huge >= size / PAGE)
			return;
		usleep(10000);
	}
}

void make_data(struct subject *subject, size_t size)
{
	int fd;

	if (subject->kind & (RELAY | BROKER))
		return;
	fd = make_filled(subject, "data", size);
	subject->data_size = size;
	snprintf(subject->data, sizeof(subject->data), "%s", path_of(subject, "data", 0));
	subject->memfd = subject->kind == MEMFD ? fd : -1;
	if (subject->kind == SEALED) {
		int reader = reopen(subject, fd);

		close(fd);
		must(seal_file(reader) == 0, "seal the file of data");
		wait_until_huge(reader, size);
		close(reader);
	} else if (subject->kind != MEMFD) {
		close(fd);
	}
}

#define FILES (PLAIN | CACHET)
#define SEALABLE (CACHET | MEMFD)
#define DATA(text, bytes, count, writes, randomly)                                              \
	{ .name = text, .kinds = writes ? FILES | MEMFD : FILES | MEMFD | SEALED, .run = run_data, \
	  .size = bytes, .threads = count, .write = writes, .random = randomly }
#define PUBLISH(text, bytes, readers)                                                       \
	{ .name = text, .kinds = CACHET | ANY_MEMFD, .run = run_publish, .size = bytes, \
	  .threads = readers }

static const struct measure measures[] = {
	{ "empty round trip (statfs)", FILES, run_round_trip },
	{ "create, write 4K, close", FILES, run_create },
	{ "stat", FILES, run_stat },
	{ "open, read 4K, close", FILES | SEALED, run_open_read },
	{ "unlink", FILES, run_unlink },
	{ "readdir of 10,000, per name", FILES, run_readdir },
	{ "truncate", FILES | MEMFD, run_truncate },
	DATA("read 4K, sequential", PAGE, 1, false, false),
	DATA("read 4K, sequential, 4 threads", PAGE, 4, false, false),
	DATA("read 4K, random", PAGE, 1, false, true),
	DATA("read 4K, random, 4 threads", PAGE, 4, false, true),
	DATA("read 1M, sequential", MIB, 1, false, false),
	DATA("read 1M, sequential, 4 threads", MIB, 4, false, false),
	DATA("read 1M, random", MIB, 1, false, true),
	DATA("read 1M, random, 4 threads", MIB, 4, false, true),
	DATA("write 4K, sequential", PAGE, 1, true, false),
	DATA("write 4K, sequential, 4 threads", PAGE, 4, true, false),
	DATA("write 4K, random", PAGE, 1, true, true),
	DATA("write 4K, random, 4 threads", PAGE, 4, true, true),
	DATA("write 1M, sequential", MIB, 1, true, false),
	DATA("write 1M, sequential, 4 threads", MIB, 4, true, false),
	DATA("write 1M, random", MIB, 1, true, true),
	DATA("write 1M, random, 4 threads", MIB, 4, true, true),
	{ "map: first touch of a page", FILES | MEMFD | SEALED, run_map, .random = true },
	{ "map: scan of a page", FILES | MEMFD | SEALED, run_map },
	{ "seal 4 KiB", SEALABLE, run_seal, .size = PAGE },
	{ "seal 1 MiB", SEALABLE, run_seal, .size = MIB },
	{ "seal 64 MiB", SEALABLE, run_seal, .size = 64 * MIB },
	{ "seal 1 GiB", SEALABLE, run_seal, .size = 1024 * MIB },
	{ "seal 4 KiB, 1 pin goes", SEALABLE, run_seal, .size = PAGE, .pins = 1 },
	{ "seal 1 MiB, 1 pin goes", SEALABLE, run_seal, .size = MIB, .pins = 1 },
	{ "seal 64 MiB, 1 pin goes", SEALABLE, run_seal, .size = 64 * MIB, .pins = 1 },
	{ "seal 1 GiB, 1 pin goes", SEALABLE, run_seal, .size = 1024 * MIB, .pins = 1 },
	{ "seal 4 KiB, 1000 pins go", SEALABLE, run_seal, .size = PAGE, .pins = 1000 },
	{ "seal 1 MiB, 1000 pins go", SEALABLE, run_seal, .size = MIB, .pins = 1000 },
	{ "seal 64 MiB, 1000 pins go", SEALABLE, run_seal, .size = 64 * MIB, .pins = 1000 },
	{ "seal 1 GiB, 1000 pins go", SEALABLE, run_seal, .size = 1024 * MIB, .pins = 1000 },
	{ "seal 4 KiB by hand-over", SEALABLE, run_handover, .size = PAGE },
	{ "seal 64 MiB by hand-over", SEALABLE, run_handover, .size = 64 * MIB },
	{ "pin and unpin 4 KiB", SEALABLE, run_pin, .size = PAGE },
	{ "pin and unpin 64 MiB", SEALABLE, run_pin, .size = 64 * MIB },
	{ "pin and unpin 1 GiB", SEALABLE, run_pin, .size = 1024 * MIB },
	PUBLISH("publish to mapped, 4 KiB", PAGE, 1),
	PUBLISH("publish to mapped, 4 KiB, 4 readers", PAGE, 4),
	PUBLISH("publish to mapped, 1 MiB", MIB, 1),
	PUBLISH("publish to mapped, 1 MiB, 4 readers", MIB, 4),
	PUBLISH("publish to mapped, 64 MiB", 64 * MIB, 1),
	PUBLISH("publish to mapped, 64 MiB, 4 readers", 64 * MIB, 4),
};

#define NR_MEASURES (sizeof(measures) / sizeof(measures[0]))
#define GROUP_MAX 4

/*
 * A client of one thread stays on one processor, each round on another one. Left alone the scheduler
 * moves it away from the daemon's thread that answers it, or does not, for a second or for none, and
 * a round trip takes 10 or 50 us as it happens. Clients of several threads or processes roam.
 */
static void settle(const struct measure *measure, unsigned round)
{
	static cpu_set_t all;
	cpu_set_t one;
	unsigned nth;
	int cpu = 0;

	if (!CPU_COUNT(&all))
		must(sched_getaffinity(0, sizeof(all), &all) == 0, "processors");
	nth = round % CPU_COUNT(&all);
	while (!CPU_ISSET(cpu, &all) || nth--)
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	must(sched_setaffinity(0, sizeof(one), measure->threads > 1 || measure->run == run_publish
						       ? &all : &one) == 0, "processor");
}

static void print(const struct measure *measure)
{
	for (unsigned s = 0; s < nr_subjects; s++) {
		bool all = true;

		for (unsigned r = 0; r < settings.rounds; r++)
			all = all && results[s][r] > 0;
		if (!all || !(measure->kinds & subjects[s].kind))
			continue;
		printf("{\"measure\": \"%s\", \"subject\": \"%s\", \"ns\": [", measure->name,
		       subjects[s].name);
		for (unsigned r = 0; r < settings.rounds; r++)
			printf("%s%.*f", r ? ", " : "",
			       results[s][r] < 1000 ? 1 : 0, results[s][r]);
		puts("]}");
	}
	fflush(stdout);
}

/* Measures that need each other's files: round by round through all of them for one subject. */
static void run_group(unsigned first, unsigned count)
{
	static double group[GROUP_MAX][SUBJECTS_MAX][ROUNDS_MAX];

	for (unsigned r = 0; r < settings.rounds; r++) {
		for (unsigned i = 0; i < nr_subjects; i++) {
			unsigned s = (i + r) % nr_subjects;

			current = subjects[s].name;
			for (unsigned m = 0; m < count; m++) {
				const struct measure *measure = &measures[first + m];

				settle(measure, r);
				if (measure->kinds & subjects[s].kind)
					group[m][s][r] = measure->run(&subjects[s], measure);
			}
		}
	}
	for (unsigned m = 0; m < count; m++) {
		memcpy(results, group[m], sizeof(results));
		print(&measures[first + m]);
	}
}

static void run_all(const regex_t *wanted)
{
	for (unsigned m = 0; m < NR_MEASURES;) {
		unsigned count = measures[m].run == run_create ? GROUP_MAX : 1;
		bool found = false;

		for (unsigned i = m; i < m + count; i++)
			found = found || regexec(wanted, measures[i].name, 0, NULL, 0) == 0;
		if (found)
			run_group(m, count);
		m += count;
	}
}

static void parse_subject(const char *text)
{
	static const struct {
		const char *name;
		enum kind kind;
	} kinds[] = {
		{ "plain", PLAIN }, { "cachet", CACHET }, { "sealed", SEALED },
		{ "memfd", MEMFD }, { "relay", RELAY }, { "broker", BROKER },
	};
	struct subject *subject = &subjects[nr_subjects++];
	char kind[16];

	errno = EINVAL;
	must(nr_subjects < SUBJECTS_MAX &&
		     sscanf(text, "%63[^=]=%15[^:]:%255s", subject->name, kind, subject->dir) >= 2,
	     text);
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kind, kinds[i].name) == 0)
			subject->kind = kinds[i].kind;
	must(subject->kind, text);
}

static int usage(void)
{
	fprintf(stderr, "usage: bench_fs [-r ROUNDS] [-t MILLISECONDS] [-n FILES] [-m MIB] [-f REGEX] "
			"NAME=KIND:DIRECTORY...\n       bench_fs -l\n");
	return 2;
}

static int list(void)
{
	for (unsigned m = 0; m < NR_MEASURES; m++)
		puts(measures[m].name);
	return 0;
}

int main(int argc, char **argv)
{
	const char *expression = "";
	regex_t wanted;
	int option;

	while ((option = getopt(argc, argv, "r:t:n:m:f:l")) >= 0) {
		switch (option) {
		case 'r':
			settings.rounds = atoi(optarg);
			break;
		case 't':
			settings.slice_ms = atoi(optarg);
			break;
		case 'n':
			settings.files = atoi(optarg);
			break;
		case 'm':
			settings.huge = atoi(optarg) * MIB;
			break;
		case 'f':
			expression = optarg;
			break;
		case 'l':
			return list();
		default:
			return usage();
		}
	}
	if (optind == argc || !settings.rounds || settings.rounds > ROUNDS_MAX ||
	    !settings.slice_ms || settings.files < 40 ||
	    regcomp(&wanted, expression, REG_EXTENDED | REG_NOSUB))
		return usage();
	for (int i = optind; i < argc; i++)
		parse_subject(argv[i]);
	settings.buffer = aligned_alloc(PAGE, MIB);
	memset(settings.buffer, 42, MIB);
	for (unsigned s = 0; s < nr_subjects; s++) {
		current = subjects[s].name;
		make_data(&subjects[s], DATA_BYTES);
	}
	run_all(&wanted);
	regfree(&wanted);
	return 0;
}
