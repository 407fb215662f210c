/* SPDX-License-Identifier: MIT */
/*
 * Measures file systems side by side. For tools/bench, which mounts them and prints what comes out.
 *
 *	bench_fs ROUNDS MILLISECONDS FILES HUGE NAME=KIND:DIRECTORY...
 *
 * KIND is plain, cachet (files that can be sealed), sealed (the same, and data are read from sealed
 * files only) or memfd (no directory is used). In each round every measure is taken of every subject
 * in turn, the first subject being another one each time, so that what disturbs the machine disturbs
 * all. A line of JSON for each measure and subject: nanoseconds of each round, per operation; 1 MiB
 * operations are operations, too. HUGE is the largest size in MiB for seals and pins.
 *
 * What a subject cannot do is left out. A measure that fails ends the program.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cachet/ioctl.h>

#define PAGE 4096
#define MIB ((size_t)1 << 20)
#define ROUNDS_MAX 101
#define SUBJECTS_MAX 32

enum kind { PLAIN = 1, CACHET = 2, SEALED = 4, MEMFD = 8 };

struct subject {
	char name[64];
	char dir[256];
	enum kind kind;
	char data[400]; /* path of the file of data */
	int memfd;	/* or its memory */
	size_t data_size;
};

struct measure {
	const char *name;
	unsigned kinds;
	/* Nanoseconds per operation. */
	double (*run)(struct subject *subject, const struct measure *measure);
	size_t size;
	unsigned threads;
	bool write, random;
	unsigned pins;
};

static struct subject subjects[SUBJECTS_MAX];
static unsigned nr_subjects;
static unsigned rounds, slice_ms, nr_files;
static size_t huge;
static double results[SUBJECTS_MAX][ROUNDS_MAX];
static char *buffer;

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "bench_fs: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static const char *path_of(const struct subject *subject, const char *name, unsigned number)
{
	static __thread char path[400];

	snprintf(path, sizeof(path), "%s/%s%u", subject->dir, name, number);
	return path;
}

/* --- seals --- */

static int seal_memory(int fd)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK);
}

static int seal_file(int fd)
{
	struct cachet_seals args = {
		.size = sizeof(args), .seals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK,
		.timeout_ms = 5000,
	};

	return ioctl(fd, CACHET_IOC_ADD_SEALS, &args);
}

/* A file of some size that is filled, or memory; open for reading and writing. */
static int make_filled(struct subject *subject, const char *name, size_t size)
{
	int fd;

	if (subject->kind == MEMFD) {
		fd = memfd_create("bench", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	} else {
		unlink(path_of(subject, name, 0));
		fd = open(path_of(subject, name, 0), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	}
	must(fd >= 0, "make a file");
	for (size_t at = 0; at < size; at += MIB) {
		size_t length = size - at < MIB ? size - at : MIB;

		must(pwrite(fd, buffer, length, at) == (ssize_t)length, "fill a file");
	}
	return fd;
}

static int reopen(const struct subject *subject, int fd)
{
	char path[64];
	int reader;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	reader = subject->kind == MEMFD ? dup(fd) : open(path, O_RDONLY | O_CLOEXEC);
	must(reader >= 0, "open again for reading");
	return reader;
}

static void make_data(struct subject *subject, size_t size)
{
	int fd = make_filled(subject, "data", size);

	subject->data_size = size;
	snprintf(subject->data, sizeof(subject->data), "%s", path_of(subject, "data", 0));
	subject->memfd = subject->kind == MEMFD ? fd : -1;
	if (subject->kind == SEALED) {
		int reader = reopen(subject, fd);

		close(fd);
		must(seal_file(reader) == 0, "seal the file of data");
		close(reader);
	} else if (subject->kind != MEMFD) {
		close(fd);
	}
}

static int open_data(struct subject *subject, int flags)
{
	int fd = subject->kind == MEMFD ? dup(subject->memfd) : open(subject->data, flags | O_CLOEXEC);

	must(fd >= 0, "open the file of data");
	return fd;
}

/* --- names --- */

static double run_round_trip(struct subject *subject, const struct measure *measure)
{
	struct statfs st;
	double begin = now();

	for (unsigned i = 0; i < nr_files; i++)
		must(statfs(subject->dir, &st) == 0, "statfs");
	return (now() - begin) / nr_files;
}

static double run_create(struct subject *subject, const struct measure *measure)
{
	double begin = now();

	for (unsigned i = 0; i < nr_files; i++) {
		int fd = open(path_of(subject, "c", i), O_WRONLY | O_CREAT | O_EXCL, 0600);

		must(fd >= 0 && write(fd, buffer, PAGE) == PAGE && close(fd) == 0, "create");
	}
	return (now() - begin) / nr_files;
}

static double run_stat(struct subject *subject, const struct measure *measure)
{
	struct stat st;
	double begin = now();

	for (unsigned i = 0; i < nr_files; i++)
		must(stat(path_of(subject, "c", i % 16), &st) == 0, "stat");
	return (now() - begin) / nr_files;
}

static double run_open_read(struct subject *subject, const struct measure *measure)
{
	char page[PAGE];
	double begin = now();

	for (unsigned i = 0; i < nr_files; i++) {
		int fd = open(subject->kind == SEALED ? subject->data : path_of(subject, "c", i),
			      O_RDONLY);

		must(fd >= 0 && read(fd, page, PAGE) == PAGE && close(fd) == 0, "open and read");
	}
	return (now() - begin) / nr_files;
}

static double run_unlink(struct subject *subject, const struct measure *measure)
{
	double begin = now();

	for (unsigned i = 0; i < nr_files; i++)
		must(unlink(path_of(subject, "c", i)) == 0, "unlink");
	return (now() - begin) / nr_files;
}

#define NAMES 10000

static double run_readdir(struct subject *subject, const struct measure *measure)
{
	const char *path = path_of(subject, "many", 0);
	unsigned count = 0;
	double begin;
	DIR *dir;

	if (mkdir(path, 0700) == 0) {
		for (unsigned i = 0; i < NAMES; i++) {
			char name[512];
			int fd;

			snprintf(name, sizeof(name), "%s/many0/name-%05u", subject->dir, i);
			fd = open(name, O_WRONLY | O_CREAT, 0600);
			must(fd >= 0 && close(fd) == 0, "make a name");
		}
	}
	/* A name that changes makes the kernel ask anew. */
	close(open(path_of(subject, "many0/x", 0), O_WRONLY | O_CREAT, 0600));
	unlink(path_of(subject, "many0/x", 0));
	begin = now();
	dir = opendir(path_of(subject, "many", 0));
	must(dir, "opendir");
	while (readdir(dir))
		count++;
	closedir(dir);
	must(count >= NAMES, "all names");
	return (now() - begin) / count;
}

/* --- data --- */

struct worker {
	pthread_t thread;
	struct subject *subject;
	const struct measure *measure;
	unsigned number;
	double operations;
};

static void *work(void *data)
{
	struct worker *worker = data;
	const struct measure *measure = worker->measure;
	size_t places = worker->subject->data_size / measure->size;
	int fd = open_data(worker->subject, measure->write ? O_RDWR : O_RDONLY);
	char *mine = aligned_alloc(PAGE, measure->size);
	uint64_t random = worker->number * UINT64_C(0x9e3779b97f4a7c15) + 1;
	double end = now() + slice_ms * 1e6;
	size_t place = worker->number * places / measure->threads;
	unsigned many = measure->size > PAGE ? 1 : 16;

	memset(mine, 7, measure->size);
	do {
		for (unsigned i = 0; i < many; i++) {
			ssize_t moved;
			off_t at;

			random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			place = measure->random ? (random >> 33) % places : (place + 1) % places;
			at = place * measure->size;
			moved = measure->write ? pwrite(fd, mine, measure->size, at)
					       : pread(fd, mine, measure->size, at);
			must(moved == (ssize_t)measure->size, "read or write");
			worker->operations++;
		}
	} while (now() < end);
	close(fd);
	free(mine);
	return NULL;
}

static double run_data(struct subject *subject, const struct measure *measure)
{
	struct worker workers[4];
	double operations = 0, begin = now();

	for (unsigned i = 0; i < measure->threads; i++) {
		workers[i] = (struct worker){ .subject = subject, .measure = measure, .number = i };
		must(!pthread_create(&workers[i].thread, NULL, work, &workers[i]), "a thread");
	}
	for (unsigned i = 0; i < measure->threads; i++) {
		pthread_join(workers[i].thread, NULL);
		operations += workers[i].operations;
	}
	return (now() - begin) / operations;
}

static sigjmp_buf bus_error;

static void on_bus_error(int number)
{
	siglongjmp(bus_error, number);
}

/* Per page: touched for the first time in a new mapping, or read again through it. */
static double run_map(struct subject *subject, const struct measure *measure)
{
	int fd = open_data(subject, O_RDONLY);
	size_t size = subject->data_size;
	volatile unsigned char *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	const volatile uint64_t *words = (const volatile uint64_t *)map;
	double begin = now(), first, scan;

	close(fd);
	if (map == MAP_FAILED)
		return -1; /* io=daemon, not sealed */
	/* memfs_ll of libfuse 3.18 maps files, but cannot be read so. Nobody else is forgiven. */
	if (subject->kind == PLAIN && sigsetjmp(bus_error, 1)) {
		munmap((void *)map, size);
		return -1;
	}
	signal(SIGBUS, subject->kind == PLAIN ? on_bus_error : SIG_DFL);
	for (size_t at = 0; at < size; at += PAGE)
		(void)map[at];
	first = now();
	for (size_t i = 0; i < size / sizeof(*words); i++)
		(void)words[i];
	scan = now();
	munmap((void *)map, size);
	return (measure->random ? first - begin : scan - first) / (size / PAGE);
}

static double run_truncate(struct subject *subject, const struct measure *measure)
{
	int fd = make_filled(subject, "t", PAGE);
	double begin = now();

	for (unsigned i = 0; i < nr_files; i++)
		must(ftruncate(fd, i & 1 ? PAGE : MIB) == 0, "truncate");
	begin = (now() - begin) / nr_files;
	close(fd);
	return begin;
}

/* --- seals and pins --- */

static int pin(int fd, size_t size, uint64_t *id)
{
	struct cachet_pin args = { .size = sizeof(args), .length = size };
	int result = ioctl(fd, CACHET_IOC_PIN, &args);

	*id = args.id;
	return result;
}

/*
 * A seal through a descriptor for reading, nobody else has the file open. With pins: their owner
 * closes the file at the beginning, and the seal waits until they have gone.
 */
static double run_seal(struct subject *subject, const struct measure *measure)
{
	int fd, reader, result;
	uint64_t id;
	double begin;

	if (measure->size > huge || (measure->pins && subject->kind == MEMFD))
		return -1;
	fd = make_filled(subject, "s", measure->size);
	for (unsigned i = 0; i < measure->pins; i++)
		if (pin(fd, PAGE, &id))
			return -1;
	reader = reopen(subject, fd);
	if (!measure->pins) {
		struct cachet_stat st = { .size = sizeof(st) };

		/* close() does not wait; the seal shall not have to either. */
		close(fd);
		while (subject->kind != MEMFD && ioctl(reader, CACHET_IOC_STAT, &st) == 0 &&
		       st.file_handles > 1)
			usleep(100);
	}
	begin = now();
	if (measure->pins)
		close(fd);
	result = subject->kind == MEMFD ? seal_memory(reader) : seal_file(reader);
	begin = now() - begin;
	must(result == 0, "seal");
	close(reader);
	if (subject->kind != MEMFD)
		unlink(path_of(subject, "s", 0));
	return begin;
}

static double register_buffers(int fd, size_t size)
{
	struct iovec piece = { .iov_len = size };
	struct io_uring ring;
	double begin;

	must(io_uring_queue_init(2, &ring, 0) == 0, "io_uring");
	piece.iov_base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(piece.iov_base != MAP_FAILED, "map");
	begin = now();
	must(io_uring_register_buffers(&ring, &piece, 1) == 0, "register buffers");
	must(io_uring_unregister_buffers(&ring) == 0, "unregister buffers");
	begin = now() - begin;
	munmap(piece.iov_base, size);
	io_uring_queue_exit(&ring);
	return begin;
}

/* Pin and unpin; of memory: io_uring_register_buffers() itself, and back. */
static double run_pin(struct subject *subject, const struct measure *measure)
{
	struct cachet_unpin args = { .size = sizeof(args) };
	double begin, took = -1;
	uint64_t id;
	int fd;

	if (measure->size > huge)
		return -1;
	fd = make_filled(subject, "p", measure->size);
	if (subject->kind == MEMFD) {
		took = register_buffers(fd, measure->size);
	} else {
		begin = now();
		if (pin(fd, measure->size, &id) == 0) {
			args.id = id;
			must(ioctl(fd, CACHET_IOC_UNPIN, &args) == 0, "unpin");
			took = now() - begin;
		}
		unlink(path_of(subject, "p", 0));
	}
	close(fd);
	return took;
}

/* --- publish --- */

static void send_fd(int socket, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 }, byte = 'x';
	struct iovec piece = { &byte, 1 };
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
	struct cmsghdr *header;

	if (fd >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(int));
	}
	must(sendmsg(socket, &message, 0) == 1, "send");
}

static bool receive_fd(int socket, int *fd)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec piece = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control,
		.msg_controllen = sizeof(control),
	};

	if (recvmsg(socket, &message, 0) != 1)
		return false;
	*fd = -1;
	if (CMSG_FIRSTHDR(&message))
		memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	return true;
}

static void consume(struct subject *subject, int socket, size_t size)
{
	struct cachet_seals seals = { .size = sizeof(seals) };
	volatile unsigned char *map;
	int fd;

	while (receive_fd(socket, &fd)) {
		if (fd < 0)
			fd = open(path_of(subject, "published", 0), O_RDONLY);
		if (subject->kind == MEMFD)
			seals.seals = fcntl(fd, F_GET_SEALS);
		else
			must(ioctl(fd, CACHET_IOC_GET_SEALS, &seals) == 0, "get seals");
		must(seals.seals & F_SEAL_WRITE, "sealed");
		map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
		must(map != MAP_FAILED, "map what was published");
		for (size_t at = 0; at < size; at += PAGE)
			(void)map[at];
		munmap((void *)map, size);
		close(fd);
		send_fd(socket, -1);
	}
	_exit(0);
}

static void publish(struct subject *subject, int socket, size_t size)
{
	int fd = make_filled(subject, "new", size), reader = reopen(subject, fd), answer;

	if (subject->kind == MEMFD) {
		must(seal_memory(fd) == 0, "seal");
		send_fd(socket, fd);
		close(fd);
	} else {
		close(fd);
		must(seal_file(reader) == 0, "seal");
		must(rename(path_of(subject, "new", 0), strdupa(path_of(subject, "published", 0))) == 0,
		     "rename");
		send_fd(socket, -1);
	}
	must(receive_fd(socket, &answer), "answer");
	close(reader);
}

/* Create, fill, seal and name, until another process has opened, checked, mapped and touched it. */
static double run_publish(struct subject *subject, const struct measure *measure)
{
	unsigned count = measure->size > MIB ? 2 : 20;
	double begin;
	int ends[2];
	pid_t child;

	if (measure->size > huge)
		return -1;
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
	child = fork();
	if (child == 0) {
		close(ends[0]);
		consume(subject, ends[1], measure->size);
	}
	close(ends[1]);
	begin = now();
	for (unsigned i = 0; i < count; i++)
		publish(subject, ends[0], measure->size);
	begin = (now() - begin) / count;
	close(ends[0]);
	waitpid(child, NULL, 0);
	return begin;
}

/* --- all of it --- */

#define FILES (PLAIN | CACHET)
#define SEALABLE (CACHET | MEMFD)
#define DATA(text, bytes, count, writes, randomly)                                              \
	{ .name = text, .kinds = writes ? FILES | MEMFD : FILES | MEMFD | SEALED, .run = run_data, \
	  .size = bytes, .threads = count, .write = writes, .random = randomly }

static const struct measure measures[] = {
	{ "empty round trip (statfs)", FILES, run_round_trip },
	{ "create, write 4K, close", FILES, run_create },
	{ "stat", FILES, run_stat },
	{ "open, read 4K, close", FILES | SEALED, run_open_read },
	{ "unlink", FILES, run_unlink },
	{ "readdir of 10,000, per name", FILES, run_readdir },
	{ "truncate", FILES | MEMFD, run_truncate },
	DATA("read 4K, sequential", PAGE, 1, false, false),
	DATA("read 4K, random", PAGE, 1, false, true),
	DATA("read 4K, random, 4 threads", PAGE, 4, false, true),
	DATA("read 1M, sequential", MIB, 1, false, false),
	DATA("read 1M, random", MIB, 1, false, true),
	DATA("read 1M, sequential, 4 threads", MIB, 4, false, false),
	DATA("write 4K, sequential", PAGE, 1, true, false),
	DATA("write 4K, random", PAGE, 1, true, true),
	DATA("write 4K, random, 4 threads", PAGE, 4, true, true),
	DATA("write 1M, sequential", MIB, 1, true, false),
	DATA("write 1M, random", MIB, 1, true, true),
	DATA("write 1M, sequential, 4 threads", MIB, 4, true, false),
	{ "map: first touch of a page", FILES | MEMFD | SEALED, run_map, .random = true },
	{ "map: scan of a page", FILES | MEMFD | SEALED, run_map },
	{ "seal 4 KiB", SEALABLE, run_seal, .size = PAGE },
	{ "seal 1 MiB", SEALABLE, run_seal, .size = MIB },
	{ "seal 64 MiB", SEALABLE, run_seal, .size = 64 * MIB },
	{ "seal 1 GiB", SEALABLE, run_seal, .size = 1024 * MIB },
	{ "seal 1 MiB, 1 pin goes", CACHET, run_seal, .size = MIB, .pins = 1 },
	{ "seal 1 MiB, 1000 pins go", CACHET, run_seal, .size = MIB, .pins = 1000 },
	{ "pin and unpin 4 KiB", SEALABLE, run_pin, .size = PAGE },
	{ "pin and unpin 64 MiB", SEALABLE, run_pin, .size = 64 * MIB },
	{ "pin and unpin 1 GiB", SEALABLE, run_pin, .size = 1024 * MIB },
	{ "publish to mapped, 4 KiB", SEALABLE, run_publish, .size = PAGE },
	{ "publish to mapped, 1 MiB", SEALABLE, run_publish, .size = MIB },
	{ "publish to mapped, 64 MiB", SEALABLE, run_publish, .size = 64 * MIB },
};

#define NR_MEASURES (sizeof(measures) / sizeof(measures[0]))

static void print(const struct measure *measure)
{
	for (unsigned s = 0; s < nr_subjects; s++) {
		if (!(measure->kinds & subjects[s].kind) || results[s][0] < 0)
			continue;
		printf("{\"measure\": \"%s\", \"subject\": \"%s\", \"ns\": [", measure->name,
		       subjects[s].name);
		for (unsigned r = 0; r < rounds; r++)
			printf("%s%.1f", r ? ", " : "", results[s][r]);
		puts("]}");
	}
	fflush(stdout);
}

/* Measures that need each other's files: round by round through all of them for one subject. */
static void run_group(unsigned first, unsigned count)
{
	static double group[8][SUBJECTS_MAX][ROUNDS_MAX];

	for (unsigned r = 0; r < rounds; r++) {
		for (unsigned i = 0; i < nr_subjects; i++) {
			unsigned s = (i + r) % nr_subjects;

			for (unsigned m = 0; m < count; m++) {
				const struct measure *measure = &measures[first + m];

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

static void parse_subject(const char *text)
{
	static const struct {
		const char *name;
		enum kind kind;
	} kinds[] = { { "plain", PLAIN }, { "cachet", CACHET }, { "sealed", SEALED }, { "memfd", MEMFD } };
	struct subject *subject = &subjects[nr_subjects++];
	char kind[16];

	errno = EINVAL;
	must(nr_subjects < SUBJECTS_MAX &&
		     sscanf(text, "%63[^=]=%15[^:]:%255s", subject->name, kind, subject->dir) >= 2,
	     text);
	for (unsigned i = 0; i < 4; i++)
		if (strcmp(kind, kinds[i].name) == 0)
			subject->kind = kinds[i].kind;
	must(subject->kind, text);
}

int main(int argc, char **argv)
{
	if (argc < 6) {
		fprintf(stderr, "usage: bench_fs ROUNDS MILLISECONDS FILES HUGE NAME=KIND:DIRECTORY...\n");
		return 2;
	}
	rounds = atoi(argv[1]);
	slice_ms = atoi(argv[2]);
	nr_files = atoi(argv[3]);
	huge = atoi(argv[4]) * MIB;
	errno = EINVAL;
	must(rounds && rounds <= ROUNDS_MAX && slice_ms && nr_files >= 16, "arguments");
	for (int i = 5; i < argc; i++)
		parse_subject(argv[i]);
	buffer = aligned_alloc(PAGE, MIB);
	memset(buffer, 42, MIB);
	for (unsigned s = 0; s < nr_subjects; s++)
		make_data(&subjects[s], 16 * MIB);
	for (unsigned m = 0; m < NR_MEASURES; m++) {
		unsigned count = measures[m].run == run_create ? 4 : 1;

		run_group(m, count);
		m += count - 1;
	}
	return 0;
}
