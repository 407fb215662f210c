/* SPDX-License-Identifier: MIT */
/*
 * Random operations on one file, against a copy in memory.
 *
 *	exercise [-s SEED] [-n OPERATIONS] [-t SECONDS] [-g GENERATION] [-u] [-z] [-v] DIRECTORY
 *
 * Every operation is done to the file and to the copy; what is read must be what the copy holds,
 * and so must size and holes. After GENERATION operations the file is compared whole, sealed (-u:
 * left unsealed, for file systems that have no seals), attacked, compared again and replaced by a
 * new one. -z: this file system has no FALLOC_FL_ZERO_RANGE. The seed is printed and makes a run
 * again what it was; so do the last operations before a difference. Exit status: 0 no difference,
 * 1 a difference, 2 usage or a call that failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define SIZE_MAX_BYTES (1u << 20)
#define PAGE 4096u
#define HISTORY 64
#define SEAL_TRIES 2000

static struct {
	uint64_t random;
	uint64_t seed;
	uint64_t done;
	char path[4096];
	int fd;
	bool append;
	bool can_map; /* shared mappings of unsealed files */
	bool no_seals;
	bool no_zero_range;
	bool verbose;
	size_t size;
	unsigned char copy[SIZE_MAX_BYTES];
	unsigned char buffer[SIZE_MAX_BYTES];
	char history[HISTORY][96];
} run;

static uint64_t next_random(void)
{
	run.random ^= run.random << 13;
	run.random ^= run.random >> 7;
	run.random ^= run.random << 17;
	return run.random * UINT64_C(0x2545f4914f6cdd1d) >> 11;
}

static size_t below(size_t bound)
{
	return bound ? next_random() % bound : 0;
}

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
	char *line = run.history[run.done % HISTORY];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(run.history[0]), format, args);
	va_end(args);
	if (run.verbose)
		printf("%" PRIu64 " %s\n", run.done, line);
}

__attribute__((noreturn)) static void give_up(int status)
{
	uint64_t first = run.done >= HISTORY ? run.done - HISTORY + 1 : 0;

	for (uint64_t i = first; i <= run.done; i++)
		fprintf(stderr, "exercise: %" PRIu64 " %s\n", i, run.history[i % HISTORY]);
	fprintf(stderr, "exercise: again by: -s %" PRIu64 " -n %" PRIu64 "\n", run.seed, run.done + 1);
	exit(status);
}

__attribute__((format(printf, 1, 2), noreturn)) static void differs(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "exercise: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	give_up(1);
}

__attribute__((noreturn)) static void failed(const char *what)
{
	fprintf(stderr, "exercise: %s: %s\n", what, strerror(errno));
	give_up(2);
}

static void compare(const unsigned char *got, size_t offset, size_t length, const char *how)
{
	if (memcmp(got, run.copy + offset, length) == 0)
		return;
	for (size_t i = 0; i < length; i++)
		if (got[i] != run.copy[offset + i])
			differs("%s: byte %zu is %02x, expected %02x", how, offset + i, got[i],
				run.copy[offset + i]);
}

static void check_size(void)
{
	struct stat st;

	if (fstat(run.fd, &st) < 0)
		failed("fstat");
	if ((size_t)st.st_size != run.size)
		differs("size is %lld, expected %zu", (long long)st.st_size, run.size);
}

/* A range of the file: small, of pages, or large; often at the edge of a page. */
static void choose(size_t limit, size_t *offset, size_t *length)
{
	static const size_t lengths[] = { 1, 64, PAGE, 4 * PAGE, 16 * PAGE, 64 * PAGE };

	*offset = below(limit);
	*length = 1 + below(lengths[below(6)]);
	if (below(3) == 0)
		*offset &= ~(size_t)(PAGE - 1);
	if (below(3) == 0)
		*length = (*length + PAGE - 1) & ~(size_t)(PAGE - 1);
	if (*offset + *length > limit)
		*length = limit - *offset;
}

static void fill(unsigned char *bytes, size_t length)
{
	unsigned char value = next_random();

	for (size_t i = 0; i < length; i++)
		bytes[i] = value + i * 7 + (i >> 8);
}

/* What lies between the end and a place beyond becomes zeroes. */
static void copy_grow(size_t size)
{
	if (size > run.size) {
		memset(run.copy + run.size, 0, size - run.size);
		run.size = size;
	}
}

static void do_write(void)
{
	size_t offset, length;
	ssize_t written;

	choose(SIZE_MAX_BYTES, &offset, &length);
	if (run.append) {
		offset = run.size;
		if (offset + length > SIZE_MAX_BYTES)
			length = SIZE_MAX_BYTES - offset;
		if (!length)
			return;
	}
	fill(run.buffer, length);
	note("write %zu+%zu%s", offset, length, run.append ? " append" : "");
	if (below(4)) {
		written = pwrite(run.fd, run.buffer, length, offset);
	} else {
		struct iovec pieces[2] = {
			{ .iov_base = run.buffer, .iov_len = length / 3 },
			{ .iov_base = run.buffer + length / 3, .iov_len = length - length / 3 },
		};

		written = pwritev(run.fd, pieces, 2, offset);
	}
	if (written != (ssize_t)length)
		failed("write");
	copy_grow(offset + length);
	memcpy(run.copy + offset, run.buffer, length);
}

static void do_read(void)
{
	size_t offset, length, want;
	ssize_t got;

	choose(SIZE_MAX_BYTES, &offset, &length);
	want = offset >= run.size ? 0 : run.size - offset < length ? run.size - offset : length;
	note("read %zu+%zu", offset, length);
	got = pread(run.fd, run.buffer, length, offset);
	if (got < 0)
		failed("read");
	if ((size_t)got != want)
		differs("read gave %zd bytes, expected %zu", got, want);
	compare(run.buffer, offset, want, "read");
}

static void do_truncate(void)
{
	size_t size = below(4) ? below(SIZE_MAX_BYTES) : below(2) ? 0 : run.size;

	note("truncate to %zu", size);
	if ((below(2) ? ftruncate(run.fd, size) : truncate(run.path, size)) < 0)
		failed("truncate");
	copy_grow(size);
	run.size = size;
}

static void do_fallocate(int mode, const char *what)
{
	bool keep = mode & FALLOC_FL_KEEP_SIZE;
	size_t offset, length, end;

	choose(SIZE_MAX_BYTES, &offset, &length);
	if (!length)
		return;
	note("%s %zu+%zu%s", what, offset, length, keep ? " keeping the size" : "");
	if (fallocate(run.fd, mode, offset, length) < 0) {
		if (errno == EOPNOTSUPP && run.no_zero_range && (mode & FALLOC_FL_ZERO_RANGE))
			return;
		failed(what);
	}
	if (!keep)
		copy_grow(offset + length);
	end = offset + length < run.size ? offset + length : run.size;
	if ((mode & ~FALLOC_FL_KEEP_SIZE) && offset < end)
		memset(run.copy + offset, 0, end - offset);
}

static void do_map(bool write)
{
	size_t offset, length, start, span;
	unsigned char *view;

	if (!run.size)
		return;
	choose(run.size, &offset, &length);
	start = offset & ~(size_t)(PAGE - 1);
	span = offset + length - start;
	note("map %zu+%zu for %s", offset, length, write ? "writing" : "reading");
	view = mmap(NULL, span, write ? PROT_READ | PROT_WRITE : PROT_READ,
		    run.can_map ? MAP_SHARED : MAP_PRIVATE, run.fd, start);
	if (view == MAP_FAILED)
		failed("mmap");
	if (write) {
		fill(run.copy + offset, length);
		memcpy(view + (offset - start), run.copy + offset, length);
	} else {
		compare(view + (offset - start), offset, length, "mapping");
	}
	munmap(view, span);
}

static void do_map_write(void)
{
	if (run.can_map)
		do_map(true);
	else
		do_write();
}

static void do_map_read(void)
{
	do_map(false);
}

static void do_copy(void)
{
	size_t from, to, length;
	off_t in, out;
	ssize_t copied;

	if (run.append || run.size < 2)
		return;
	choose(run.size, &from, &length);
	to = below(SIZE_MAX_BYTES - length);
	if (from < to + length && to < from + length)
		return;
	in = from;
	out = to;
	note("copy %zu+%zu to %zu", from, length, to);
	copied = copy_file_range(run.fd, &in, run.fd, &out, length, 0);
	if (copied < 0)
		failed("copy_file_range");
	if (copied == 0 || (size_t)copied > length)
		differs("copied %zd of %zu bytes", copied, length);
	copy_grow(to + copied);
	memmove(run.copy + to, run.copy + from, copied);
}

/* What is said to be a hole must read as zeroes. */
static void do_seek(void)
{
	off_t offset = below(run.size), data, hole;

	if (!run.size)
		return;
	note("seek from %lld", (long long)offset);
	data = lseek(run.fd, offset, SEEK_DATA);
	if (data < 0 && errno != ENXIO)
		failed("SEEK_DATA");
	if (data < 0)
		data = run.size;
	if (data < offset || (size_t)data > run.size)
		differs("SEEK_DATA from %lld gave %lld", (long long)offset, (long long)data);
	for (off_t i = offset; i < data; i++)
		if (run.copy[i])
			differs("SEEK_DATA from %lld passed the byte at %lld", (long long)offset,
				(long long)i);
	hole = lseek(run.fd, offset, SEEK_HOLE);
	if (hole < offset || (size_t)hole > run.size)
		differs("SEEK_HOLE from %lld gave %lld", (long long)offset, (long long)hole);
}

static void do_splice(void)
{
	size_t offset, length, want, got = 0;
	int pipe_fds[2];
	loff_t in;

	choose(SIZE_MAX_BYTES, &offset, &length);
	if (length > 16 * PAGE)
		length = 16 * PAGE;
	want = offset >= run.size ? 0 : run.size - offset < length ? run.size - offset : length;
	note("splice %zu+%zu", offset, length);
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		failed("pipe");
	in = offset;
	while (got < want) {
		ssize_t moved = splice(run.fd, &in, pipe_fds[1], NULL, want - got, 0);
		ssize_t taken;

		if (moved <= 0)
			differs("splice gave %zd at %zu of %zu", moved, got, want);
		for (ssize_t done = 0; done < moved; done += taken) {
			taken = read(pipe_fds[0], run.buffer + got + done, moved - done);
			if (taken <= 0)
				failed("read of a pipe");
		}
		got += moved;
	}
	compare(run.buffer, offset, want, "splice");
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void open_file(int flags)
{
	run.fd = open(run.path, O_RDWR | O_CLOEXEC | flags, 0600);
	if (run.fd < 0)
		failed("open");
	run.append = flags & O_APPEND;
}

static void do_reopen(void)
{
	int flags = below(3) ? 0 : O_APPEND;

	note("reopen%s", flags ? " for appending" : "");
	close(run.fd);
	open_file(flags);
}

static void do_sync(void)
{
	note("fsync");
	if ((below(2) ? fsync(run.fd) : fdatasync(run.fd)) < 0)
		failed("fsync");
}

static void one_operation(void)
{
	static const int keep = FALLOC_FL_KEEP_SIZE;

	note("nothing");
	switch (below(20)) {
	case 0 ... 4:
		do_write();
		break;
	case 5 ... 7:
		do_read();
		break;
	case 8:
		do_truncate();
		break;
	case 9:
		do_fallocate(FALLOC_FL_PUNCH_HOLE | keep, "punch");
		break;
	case 10:
		do_fallocate(FALLOC_FL_ZERO_RANGE | (below(2) ? keep : 0), "zero");
		break;
	case 11:
		do_fallocate(below(2) ? keep : 0, "allocate");
		break;
	case 12 ... 13:
		do_map_write();
		break;
	case 14 ... 15:
		do_map_read();
		break;
	case 16:
		do_copy();
		break;
	case 17:
		do_seek();
		break;
	case 18:
		do_splice();
		break;
	default:
		below(8) ? do_reopen() : do_sync();
	}
	check_size();
	run.done++;
}

static void compare_all(const char *how)
{
	size_t done = 0;

	while (done < run.size) {
		ssize_t got = pread(run.fd, run.buffer + done, run.size - done, done);

		if (got <= 0)
			differs("%s: read gave %zd at %zu of %zu", how, got, done, run.size);
		done += got;
	}
	compare(run.buffer, 0, run.size, how);
	check_size();
}

/* RELEASE may still be on its way when close() returns. */
static void seal(void)
{
	static const char seals[] = "seal,shrink,grow,write";
	const struct timespec pause = { .tv_nsec = 1000000 };

	for (int i = 0; i < SEAL_TRIES; i++) {
		if (setxattr(run.path, "user.cachet.seals", seals, sizeof(seals) - 1, 0) == 0)
			return;
		if (errno != EBUSY)
			break;
		nanosleep(&pause, NULL);
	}
	failed("seal");
}

static void must_fail(int result, const char *what)
{
	if (result >= 0 || errno != EPERM)
		differs("%s of a sealed file: %s", what, result < 0 ? strerror(errno) : "went through");
}

static void end_generation(void)
{
	int old = -1;

	note("end of a generation");
	compare_all("at the end");
	close(run.fd);
	if (!run.no_seals) {
		old = open(run.path, O_WRONLY | O_CLOEXEC);
		if (old < 0)
			failed("open");
		seal();
		must_fail(pwrite(old, "x", 1, 0), "write");
		must_fail(ftruncate(old, run.size + 1), "truncation");
		must_fail(fallocate(old, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), "punch");
		must_fail(open(run.path, O_RDWR), "open for writing");
		close(old);
	}
	run.fd = open(run.path, O_RDONLY | O_CLOEXEC);
	if (run.fd < 0)
		failed("open");
	compare_all("once sealed");
	if (run.size && !run.no_seals) {
		void *view = mmap(NULL, run.size, PROT_READ, MAP_SHARED, run.fd, 0);

		if (view == MAP_FAILED)
			failed("mmap of a sealed file");
		compare(view, 0, run.size, "sealed mapping");
		munmap(view, run.size);
	}
	close(run.fd);
	if (unlink(run.path) < 0)
		failed("unlink");
}

static void begin_generation(void)
{
	void *view;

	run.size = 0;
	open_file(O_CREAT | O_EXCL);
	if (ftruncate(run.fd, 1) < 0)
		failed("truncate");
	view = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, run.fd, 0);
	if (view == MAP_FAILED && errno != ENODEV)
		failed("mmap");
	run.can_map = view != MAP_FAILED;
	if (run.can_map)
		munmap(view, 1);
	if (ftruncate(run.fd, 0) < 0)
		failed("truncate");
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	uint64_t operations = 0, generation = 5000, generations = 0;
	double begin = seconds(), limit = 0;
	int option;

	run.seed = (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
	while ((option = getopt(argc, argv, "s:n:t:g:uvz")) != -1) {
		switch (option) {
		case 's':
			run.seed = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			operations = strtoull(optarg, NULL, 0);
			break;
		case 't':
			limit = strtod(optarg, NULL);
			break;
		case 'g':
			generation = strtoull(optarg, NULL, 0);
			break;
		case 'u':
			run.no_seals = true;
			run.no_zero_range = true; /* tmpfs has none */
			break;
		case 'z':
			run.no_zero_range = true;
			break;
		case 'v':
			run.verbose = true;
			break;
		default:
			return 2;
		}
	}
	if (optind + 1 != argc || !generation || (!operations && limit <= 0)) {
		fprintf(stderr, "usage: exercise [-s SEED] [-n OPERATIONS] [-t SECONDS] "
				"[-g GENERATION] [-u] [-z] [-v] DIRECTORY\n");
		return 2;
	}
	printf("exercise: seed %" PRIu64 "\n", run.seed);
	fflush(stdout);
	run.random = run.seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	snprintf(run.path, sizeof(run.path), "%s/exercise-%d", argv[optind], (int)getpid());
	while ((!operations || run.done < operations) && (limit <= 0 || seconds() - begin < limit)) {
		begin_generation();
		do
			one_operation();
		while (run.done % generation && (!operations || run.done < operations));
		end_generation();
		generations++;
	}
	printf("exercise: %" PRIu64 " operations in %" PRIu64 " generations, no difference, %.1f s\n",
	       run.done, generations, seconds() - begin);
	return 0;
}
