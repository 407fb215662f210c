/* SPDX-License-Identifier: MIT */
/* Seals and pins, and what a memfd and an io_uring take for the same. */
#include <fcntl.h>
#include <liburing.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cachet/cachet.h>
#include <cachet/ioctl.h>

#include "bench_fs.h"

#define REPETITIONS_MAX 100
#define SEALS (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK)

/* How often in one round: what is short is shorter when it is not done once in a while only. */
static unsigned repetitions(size_t size)
{
	return size <= PAGE ? REPETITIONS_MAX : size <= MIB ? 20 : size <= 64 * MIB ? 3 : 1;
}

static int pin(int fd, size_t offset, size_t size, uint64_t *id)
{
	struct cachet_pin args = { .size = sizeof(args), .offset = offset, .length = size };
	int result = ioctl(fd, CACHET_IOC_PIN, &args);

	*id = args.id;
	return result;
}

/* close() does not wait; the seal shall not have to either. */
static void wait_for_release(const struct subject *subject, int reader)
{
	struct cachet_stat st = { .size = sizeof(st) };

	while (subject->kind != MEMFD && ioctl(reader, CACHET_IOC_STAT, &st) == 0 &&
	       st.file_handles > 1)
		usleep(100);
}

/* Many buffers of a page each, registered with a ring. */
static void *register_pages(struct io_uring *ring, int fd, size_t size, unsigned count)
{
	static struct iovec pieces[1024];
	char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	must(map != MAP_FAILED, "map");
	must(io_uring_queue_init(2, ring, 0) == 0, "io_uring");
	for (unsigned i = 0; i < count; i++)
		pieces[i] = (struct iovec){ map + (size_t)i * PAGE % size, PAGE };
	must(io_uring_register_buffers(ring, pieces, count) == 0, "register buffers");
	munmap(map, size);
	return map;
}

/*
 * With pins: they belong to a handle, or are buffers of a ring. Their owner lets go of all of them,
 * and the seal waits until they have gone. The time begins before their owner lets go.
 */
static double seal_as_pins_go(struct subject *subject, const struct measure *measure, int fd,
			      int reader)
{
	struct io_uring ring;
	double begin;
	uint64_t id;
	int result;

	if (subject->kind == MEMFD) {
		register_pages(&ring, fd, measure->size, measure->pins);
		begin = now();
		must(io_uring_unregister_buffers(&ring) == 0, "unregister buffers");
		close(fd);
		result = seal_memory(reader);
		begin = now() - begin;
		io_uring_queue_exit(&ring);
	} else {
		for (unsigned i = 0; i < measure->pins; i++)
			if (pin(fd, (size_t)i * PAGE % measure->size, PAGE, &id)) {
				close(fd);
				return -1;
			}
		begin = now();
		close(fd);
		result = seal_file(reader);
		begin = now() - begin;
	}
	must(result == 0, "seal as pins go");
	return begin;
}

static double seal_one_as_pins_go(struct subject *subject, const struct measure *measure)
{
	int fd = make_filled(subject, "s", measure->size);
	int reader = reopen(subject, fd);
	double took = seal_as_pins_go(subject, measure, fd, reader);

	if (subject->kind != MEMFD)
		unlink(path_of(subject, "s", 0));
	close(reader);
	return took;
}

/* Through a descriptor for reading; nobody else has the file open. One after the other. */
double run_seal(struct subject *subject, const struct measure *measure)
{
	unsigned count = repetitions(measure->size);
	int readers[REPETITIONS_MAX];
	double begin, took;

	if (measure->size > settings.huge)
		return -1;
	if (measure->pins)
		return seal_one_as_pins_go(subject, measure);
	for (unsigned i = 0; i < count; i++) {
		int fd = make_filled(subject, "s", measure->size);

		readers[i] = reopen(subject, fd);
		close(fd);
		wait_for_release(subject, readers[i]);
	}
	begin = now();
	for (unsigned i = 0; i < count; i++)
		must((subject->kind == MEMFD ? seal_memory : seal_file)(readers[i]) == 0, "seal");
	took = now() - begin;
	for (unsigned i = 0; i < count; i++)
		close(readers[i]);
	if (subject->kind != MEMFD)
		unlink(path_of(subject, "s", 0));
	return took / count;
}

/* Through the library, with a descriptor for reading and writing: it is handed over. */
double run_handover(struct subject *subject, const struct measure *measure)
{
	unsigned count = repetitions(measure->size);
	double took = 0;

	if (measure->size > settings.huge)
		return -1;
	for (unsigned i = 0; i < count; i++) {
		int fd = make_filled(subject, "h", measure->size);
		double begin = now();
		int result = subject->kind == MEMFD ? seal_memory(fd) : cachet_add_seals(fd, SEALS);

		took += now() - begin;
		must(result == 0, "seal by hand-over");
		close(fd);
	}
	if (subject->kind != MEMFD)
		unlink(path_of(subject, "h", 0));
	return took / count;
}

/* As who pins for once: what is mapped for it is mapped anew. */
static double register_buffers(int fd, size_t size, unsigned count)
{
	struct iovec piece = { .iov_len = size };
	struct io_uring ring;
	double took = 0;

	must(io_uring_queue_init(2, &ring, 0) == 0, "io_uring");
	for (unsigned i = 0; i < count; i++) {
		double begin;

		piece.iov_base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		must(piece.iov_base != MAP_FAILED, "map");
		begin = now();
		must(io_uring_register_buffers(&ring, &piece, 1) == 0, "register buffers");
		must(io_uring_unregister_buffers(&ring) == 0, "unregister buffers");
		took += now() - begin;
		munmap(piece.iov_base, size);
	}
	io_uring_queue_exit(&ring);
	return took;
}

static double pin_and_unpin(int fd, size_t size, unsigned count)
{
	struct cachet_unpin args = { .size = sizeof(args) };
	double begin = now();
	uint64_t id;

	for (unsigned i = 0; i < count; i++) {
		must(pin(fd, 0, size, &id) == 0, "pin");
		args.id = id;
		must(ioctl(fd, CACHET_IOC_UNPIN, &args) == 0, "unpin");
	}
	return now() - begin;
}

/* Pin and unpin; of memory: io_uring_register_buffers() itself, and back. */
double run_pin(struct subject *subject, const struct measure *measure)
{
	unsigned count = repetitions(measure->size);
	double took;
	int fd;

	if (measure->size > settings.huge)
		return -1;
	fd = make_filled(subject, "p", measure->size);
	took = subject->kind == MEMFD ? register_buffers(fd, measure->size, count)
				      : pin_and_unpin(fd, measure->size, count);
	if (subject->kind != MEMFD)
		unlink(path_of(subject, "p", 0));
	close(fd);
	return took / count;
}
