/* SPDX-License-Identifier: MIT */
/*
 * storm work|check|report -d DIRECTORY -m FD [-s SEED] [-i INDEX] [-t THREADS] [-k FD] [-w FAULT]
 *	[-f]
 *
 *	work	be worker INDEX with THREADS lanes until the storm stops
 *	check	be the checker, which reads what was sealed
 *	report	print the counts; exit status 1 if the storm has failed
 *
 * -f says that the daemon has few descriptors. -m is the memory that all processes share (a memfd),
 * -k the socket to the checker. A worker may be killed at any time and started anew with the same
 * INDEX once it is gone.
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "storm.h"

struct storm *storm;
_Thread_local volatile sig_atomic_t bus_errors;
struct options options = { .socket = -1, .threads = 1 };

static const char *const count_names[NR_COUNTS] = {
	[COUNT_OPERATIONS] = "operations", [COUNT_REFUSED] = "refused",
	[COUNT_PAGES_WRITTEN] = "pages_written", [COUNT_STORES] = "stores",
	[COUNT_SEALS] = "seals", [COUNT_HANDOVERS] = "handovers", [COUNT_BUSY] = "busy",
	[COUNT_INTERRUPTED] = "interrupted", [COUNT_PINS] = "pins",
	[COUNT_REFERENCES] = "references", [COUNT_TOLD] = "told", [COUNT_FOUND] = "found",
	[COUNT_DIGESTS] = "digests", [COUNT_LEDGERS] = "ledgers", [COUNT_REOPENS] = "reopens",
	[COUNT_UNTOLD] = "untold",
};

static const struct {
	const char *name;
	void (*run)(struct lane *lane);
	unsigned weight;
} operations[] = {
	{ "ledger_write", ledger_write, 20 },
	{ "ledger_store", ledger_store, 14 },
	{ "ledger_zero", ledger_zero, 5 },
	{ "ledger_copy", ledger_copy, 6 },
	{ "ledger_register", ledger_register, 4 },
	{ "ledger_read", ledger_read, 14 },
	{ "ledger_tail", ledger_tail, 6 },
	{ "wild_write", wild_write, 8 },
	{ "wild_append", wild_append, 3 },
	{ "wild_truncate", wild_truncate, 4 },
	{ "wild_allocate", wild_allocate, 5 },
	{ "wild_store", wild_store, 8 },
	{ "wild_copy", wild_copy, 4 },
	{ "wild_splice", wild_splice, 4 },
	{ "wild_read", wild_read, 6 },
	{ "seal_by_ioctl", seal_by_ioctl, 12 },
	{ "seal_by_handover", seal_by_handover, 5 },
	{ "seal_by_xattr", seal_by_xattr, 4 },
	{ "seal_small", seal_small, 2 },
	{ "pin_some", pin_some, 10 },
	{ "pin_break", pin_break, 2 },
	{ "ask", ask, 4 },
	{ "name_make", name_make, 6 },
	{ "name_move", name_move, 5 },
	{ "name_remove", name_remove, 4 },
	{ "name_list", name_list, 3 },
	{ "name_anonymous", name_anonymous, 4 },
	{ "name_attributes", name_attributes, 6 },
	{ "name_lock", name_lock, 3 },
};

void fail(const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	dprintf(STDERR_FILENO, "FAILED: process %d, worker %u, seed %" PRIu64 ": %s\n", getpid(),
		options.index, options.seed, text);
	atomic_store(&storm->failed, true);
	atomic_store(&storm->stop, true);
}

void refused(struct lane *lane, const char *what, int error, const int *usual)
{
	count(COUNT_REFUSED);
	if (error == ENOENT || error == EPERM || error == EINTR || lacks_descriptors(error))
		return;
	for (; *usual; usual++)
		if (*usual == error)
			return;
	fail("lane %u, %s: %s of %s: %s", lane->number, lane->operation, what, lane->name,
	     strerrorname_np(error));
}

void lane_pause(struct lane *lane, unsigned us)
{
	struct timespec pause = { .tv_nsec = 1000 * (long)lane_below(lane, us) };

	nanosleep(&pause, NULL);
}

const char *lane_file(struct lane *lane, unsigned number)
{
	if (number < LEDGER_FILES)
		snprintf(lane->name, sizeof(lane->name), "%s/ledger-%u", options.directory, number);
	else
		snprintf(lane->name, sizeof(lane->name), "%s/wild-%u", options.directory,
			 number - LEDGER_FILES);
	return lane->name;
}

int lane_open(struct lane *lane, unsigned number, int flags)
{
	int fd = open(lane_file(lane, number), flags | O_CLOEXEC);

	if (fd < 0)
		REFUSED(lane, "open");
	return fd;
}

int open_again(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

/* A store where there is no file any more, or no memory for it: let it go into the void. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
	void *page = (void *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1));

	(void)number;
	(void)context;
	bus_errors++;
	if (mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		abort();
}

static void on_alarm(int number)
{
	(void)number;
}

static void *lane_run(void *data)
{
	struct lane *lane = data;
	unsigned total = 0;
	size_t i;

	for (i = 0; i < sizeof(operations) / sizeof(*operations); i++)
		total += operations[i].weight;
	for (unsigned n = 0; n < 100; n++)
		lane_random(lane);
	while (!atomic_load(&storm->stop)) {
		unsigned dice = lane_below(lane, total);

		for (i = 0; dice >= operations[i].weight; i++)
			dice -= operations[i].weight;
		lane->operation = operations[i].name;
		operations[i].run(lane);
		count(COUNT_OPERATIONS);
		lane_pause(lane, 1500);
	}
	return NULL;
}

static void lane_prepare(struct lane *lane, unsigned number)
{
	size_t size = (size_t)FILE_PAGES_MAX * PAGE;

	lane->number = number;
	lane->random = (options.seed * 1000003 + number) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	lane->operation = "start";
	lane->buffer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	snprintf(lane->name, sizeof(lane->name), "%s", options.directory);
	lane->scratch = open(options.directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (lane->buffer == MAP_FAILED)
		fail("no memory");
	else if (lane->scratch < 0 && errno != ENOSPC && !lacks_descriptors(errno))
		fail("O_TMPFILE: %s", strerror(errno));
}

static int work(void)
{
	struct lane lanes[LANES_MAX];
	pthread_t threads[LANES_MAX];

	setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 3); /* the checker goes first */
	for (unsigned i = 0; i < options.threads; i++)
		lane_prepare(&lanes[i], options.index * options.threads + i);
	for (unsigned i = 0; i < options.threads; i++)
		if (pthread_create(&threads[i], NULL, lane_run, &lanes[i])) {
			fail("no thread");
			return 1;
		}
	for (unsigned i = 0; i < options.threads; i++)
		pthread_join(threads[i], NULL);
	return atomic_load(&storm->failed);
}

static int report(void)
{
	for (int i = 0; i < NR_COUNTS; i++)
		printf("%s=%" PRIu64 "\n", count_names[i],
		       (uint64_t)atomic_load(&storm->counts[i]));
	return atomic_load(&storm->failed);
}

static int usage(void)
{
	fprintf(stderr, "usage: storm work|check|report -d DIRECTORY -m FD [-s SEED] [-i INDEX] "
			"[-t THREADS] [-k FD] [-w FAULT] [-f]\n");
	return 2;
}

int main(int argc, char **argv)
{
	const struct sigaction bus_error = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
	const char *verb = argc > 1 ? argv[1] : "";
	struct rlimit limit;
	int option, memory = -1;

	optind = 2;
	while ((option = getopt(argc, argv, "d:m:s:i:t:k:w:f")) != -1) {
		switch (option) {
		case 'd':
			options.directory = optarg;
			break;
		case 'm':
			memory = atoi(optarg);
			break;
		case 's':
			options.seed = strtoull(optarg, NULL, 0);
			break;
		case 'i':
			options.index = atoi(optarg);
			break;
		case 't':
			options.threads = atoi(optarg);
			break;
		case 'k':
			options.socket = atoi(optarg);
			break;
		case 'f':
			options.few = true;
			break;
		case 'w':
			options.wrong = *optarg;
			break;
		default:
			return usage();
		}
	}
	if (!options.directory || strlen(options.directory) > 300 || !options.threads ||
	    (options.index + 1) * options.threads > LANES_MAX)
		return usage();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (ftruncate(memory, sizeof(*storm)) < 0) {
		perror("storm: shared memory");
		return 2;
	}
	storm = mmap(NULL, sizeof(*storm), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (storm == MAP_FAILED) {
		perror("storm: shared memory");
		return 2;
	}
	sigaction(SIGBUS, &bus_error, NULL);
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	if (!strcmp(verb, "work"))
		return work();
	if (!strcmp(verb, "check"))
		return checker_main();
	return strcmp(verb, "report") ? usage() : report();
}
