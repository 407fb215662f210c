/* SPDX-License-Identifier: MIT */
/*
 * What the first touch of a page through a fresh shared mapping costs: a sealed file on a mount of
 * cachet, once its memory has been made huge, against a file of the same size on tmpfs.
 *
 *	bench_touch MOUNT [TMPFS [MIB]]
 *
 * Each round maps both files afresh, one after the other, reads one byte of every page and unmaps.
 * Printed are medians of all rounds, in nanoseconds for each page of 4 KiB. With --json they come
 * as one JSON object.
 */
#include <cachet/ioctl.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define ROUNDS 31
#define PATIENCE_MS 60000

static void die(const char *what)
{
	fprintf(stderr, "bench_touch: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void make_file(const char *path, size_t size)
{
	static char block[1 << 20];
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);

	if (fd < 0)
		die(path);
	for (size_t done = 0; done < size; done += sizeof(block)) {
		memset(block, (int)(done >> 20) + 1, sizeof(block));
		if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block))
			die(path);
	}
	close(fd);
}

static uint64_t huge_pages(int fd)
{
	struct cachet_stat st = { .size = sizeof(st) };

	if (ioctl(fd, CACHET_IOC_STAT, &st) < 0)
		die("CACHET_IOC_STAT");
	return st.file_pages_huge;
}

/* Seal it, and wait until all of its memory is huge. Returns how long that took. */
static double seal_file(const char *path, size_t size)
{
	struct cachet_seals seals = {
		.size = sizeof(seals),
		.seals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK,
		.timeout_ms = CACHET_TIMEOUT_DEFAULT,
	};
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	double begin = now_ns();

	if (fd < 0)
		die(path);
	if (ioctl(fd, CACHET_IOC_ADD_SEALS, &seals) < 0)
		die("CACHET_IOC_ADD_SEALS");
	while (huge_pages(fd) < size / PAGE) {
		if (now_ns() - begin > PATIENCE_MS * 1e6) {
			fprintf(stderr, "bench_touch: only %llu of %zu pages became huge\n",
				(unsigned long long)huge_pages(fd), size / PAGE);
			exit(1);
		}
		usleep(10000);
	}
	begin = now_ns() - begin;
	close(fd);
	return begin;
}

static double touch(int fd, size_t size)
{
	volatile unsigned char sum = 0;
	unsigned char *window = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	double begin;

	if (window == MAP_FAILED)
		die("mmap");
	begin = now_ns();
	for (size_t offset = 0; offset < size; offset += PAGE)
		sum += window[offset];
	begin = now_ns() - begin;
	munmap(window, size);
	return begin / ((double)size / PAGE);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *values)
{
	qsort(values, ROUNDS, sizeof(values[0]), compare);
	return values[ROUNDS / 2];
}

int main(int argc, char **argv)
{
	bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
	double cachet[ROUNDS], tmpfs[ROUNDS], collapse_ns;
	char path[4096], reference[4096];
	size_t size;
	int fd, fd_reference;

	argc -= json;
	argv += json;
	if (argc < 2 || argc > 4) {
		fprintf(stderr, "usage: bench_touch [--json] MOUNT [TMPFS [MIB]]\n");
		return 2;
	}
	size = (argc > 3 ? strtoul(argv[3], NULL, 10) : 256) << 20;
	if (size == 0 || size % (2u << 20)) {
		fprintf(stderr, "bench_touch: the size must be an even number of MiB\n");
		return 2;
	}
	snprintf(path, sizeof(path), "%s/bench_touch.%d", argv[1], (int)getpid());
	snprintf(reference, sizeof(reference), "%s/bench_touch.%d", argc > 2 ? argv[2] : "/dev/shm",
		 (int)getpid());
	make_file(path, size);
	make_file(reference, size);
	collapse_ns = seal_file(path, size);

	fd = open(path, O_RDONLY | O_CLOEXEC);
	fd_reference = open(reference, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_reference < 0)
		die("open");
	unlink(path);
	unlink(reference);
	for (int i = 0; i < ROUNDS; i++) {
		tmpfs[i] = touch(fd_reference, size);
		cachet[i] = touch(fd, size);
	}
	if (json)
		printf("{\"mib\": %zu, \"tmpfs_ns\": %.1f, \"cachet_ns\": %.1f, \"ratio\": %.2f, "
		       "\"seal_and_collapse_ms\": %.0f}\n",
		       size >> 20, median(tmpfs), median(cachet), median(tmpfs) / median(cachet),
		       collapse_ns / 1e6);
	else
		printf("%zu MiB, %d rounds, medians for each page of 4 KiB:\n"
		       "  tmpfs                %7.1f ns\n"
		       "  sealed, collapsed    %7.1f ns   %.1f times cheaper\n"
		       "sealed and collapsed in %.0f ms\n",
		       size >> 20, ROUNDS, median(tmpfs), median(cachet),
		       median(tmpfs) / median(cachet), collapse_ns / 1e6);
	return 0;
}
