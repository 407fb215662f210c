/* SPDX-License-Identifier: MIT */
/* Reading and writing, and mappings. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench_fs.h"

struct worker {
	pthread_t thread;
	struct subject *subject;
	const struct measure *measure;
	unsigned number;
	double operations;
	bool cut_short;
};

static int open_data(struct subject *subject, int flags)
{
	int fd = subject->kind == MEMFD ? dup(subject->memfd) : open(subject->data, flags | O_CLOEXEC);

	must(fd >= 0, "open the file of data");
	return fd;
}

static void *work(void *data)
{
	struct worker *worker = data;
	const struct measure *measure = worker->measure;
	size_t places = worker->subject->data_size / measure->size;
	int fd = open_data(worker->subject, measure->write ? O_RDWR : O_RDONLY);
	char *mine = aligned_alloc(PAGE, measure->size);
	uint64_t random = worker->number * UINT64_C(0x9e3779b97f4a7c15) + 1;
	double end = now() + settings.slice_ms * 1e6;
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
			/* memfs_ll of libfuse 3.18 does that over io_uring. Nobody else is forgiven. */
			if (moved >= 0 && worker->subject->kind == PLAIN)
				worker->cut_short |= moved < (ssize_t)measure->size;
			else
				must(moved == (ssize_t)measure->size, "read or write");
			worker->operations++;
		}
	} while (now() < end && !worker->cut_short);
	close(fd);
	free(mine);
	return NULL;
}

double run_data(struct subject *subject, const struct measure *measure)
{
	struct worker workers[4];
	double operations = 0, begin = now();
	bool cut_short = false;

	for (unsigned i = 0; i < measure->threads; i++) {
		workers[i] = (struct worker){ .subject = subject, .measure = measure, .number = i };
		must(!pthread_create(&workers[i].thread, NULL, work, &workers[i]), "a thread");
	}
	for (unsigned i = 0; i < measure->threads; i++) {
		pthread_join(workers[i].thread, NULL);
		operations += workers[i].operations;
		cut_short = cut_short || workers[i].cut_short;
	}
	return cut_short ? -1 : (now() - begin) / operations;
}

static sigjmp_buf bus_error;

static void on_bus_error(int number)
{
	siglongjmp(bus_error, number);
}

/* Per page: touched for the first time in a new mapping, or read again through it. */
double run_map(struct subject *subject, const struct measure *measure)
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
