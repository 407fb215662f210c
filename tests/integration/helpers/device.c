/* SPDX-License-Identifier: MIT */
/*
 * device: writes into a file's memory without end, as a NIC or a GPU does by DMA.
 *
 *	device [--pin] [--pages N] FILE SOURCE
 *
 * FILE is mapped shared and registered with an io_uring of our own; then it is unmapped and closed,
 * as the pages are all that a device has. With --pin (for files that cannot be mapped before their
 * seal) the daemon is asked to pin FILE, and the device writes through its descriptor.
 *
 * SOURCE is made if it is not there: BLOCKS pages, each full of its own number, read with O_DIRECT
 * where the file system can. Each turn of the device reads blocks of SOURCE into pages of FILE.
 *
 * Answers on stdout, a line each: "ready direct|buffered" after the first turn that left no page
 * out; commands on stdin: "turns" is answered by "turns NUMBER"; "stop" (or the end of stdin) ends
 * the turns, lets go of the pages and is answered by "stopped" and, for each page, the number of
 * the block that was read into it last. With --pin "poke" tries a write after that: "poke ERRNO".
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cachet/ioctl.h>
#include <liburing.h>

#define PAGE 4096u
#define BLOCKS 256u
#define DEPTH 32u

struct device {
	struct io_uring ring;
	int file;
	int source;
	bool direct;
	bool pin;
	uint64_t pin_id;
	char *buffer;		/* registered: the file itself, or with --pin one turn's pages */
	unsigned pages;
	uint64_t *last;		/* by page: the block that is in it */
	unsigned long turns;
};

static _Noreturn void fail(const char *what, int error)
{
	fprintf(stderr, "device: %s: %s\n", what, strerror(error));
	printf("error %d\n", error);
	exit(1);
}

static void source_open(struct device *device, const char *path)
{
	uint64_t page[PAGE / sizeof(uint64_t)];
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	for (uint64_t block = 0; fd >= 0 && block < BLOCKS; block++) {
		for (size_t i = 0; i < PAGE / sizeof(page[0]); i++)
			page[i] = block;
		if (write(fd, page, PAGE) != PAGE)
			fail(path, errno);
	}
	if (fd >= 0 && (fsync(fd) || close(fd)))
		fail(path, errno);
	device->source = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	device->direct = device->source >= 0;
	if (!device->direct)
		device->source = open(path, O_RDONLY | O_CLOEXEC);
	if (device->source < 0)
		fail(path, errno);
}

static void device_register(struct device *device, size_t length)
{
	struct iovec iov = { device->buffer, length };
	int error = io_uring_register_buffers(&device->ring, &iov, 1);

	if (error)
		fail("io_uring_register_buffers", -error);
}

/* The memory of the file is the registered buffer; nothing else of it is kept. */
static void device_attach(struct device *device)
{
	size_t length = (size_t)device->pages * PAGE;

	device->buffer = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, device->file, 0);
	if (device->buffer == MAP_FAILED)
		fail("mmap", errno);
	device_register(device, length);
	munmap(device->buffer, length);
	close(device->file);
	device->file = -1;
}

/* The daemon holds the memory; what is read goes through a buffer of our own. */
static void device_attach_by_pin(struct device *device)
{
	struct cachet_pin pin = {
		.size = sizeof(pin),
		.length = (uint64_t)device->pages * PAGE,
		.label = "device",
	};

	if (ioctl(device->file, CACHET_IOC_PIN, &pin))
		fail("CACHET_IOC_PIN", errno);
	device->pin_id = pin.id;
	device->buffer = mmap(NULL, DEPTH * PAGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (device->buffer == MAP_FAILED)
		fail("mmap", errno);
	device_register(device, DEPTH * PAGE);
}

static void device_detach(struct device *device)
{
	struct cachet_unpin unpin = { .size = sizeof(unpin), .id = device->pin_id };
	int error = io_uring_unregister_buffers(&device->ring);

	if (error)
		fail("io_uring_unregister_buffers", -error);
	if (device->pin && ioctl(device->file, CACHET_IOC_UNPIN, &unpin))
		fail("CACHET_IOC_UNPIN", errno);
}

static void device_wait(struct device *device, unsigned count, const char *what)
{
	int error = io_uring_submit_and_wait(&device->ring, count);

	if (error < 0)
		fail("io_uring_submit", -error);
	for (unsigned i = 0; i < count; i++) {
		struct io_uring_cqe *cqe;

		error = io_uring_wait_cqe(&device->ring, &cqe);
		if (error)
			fail("io_uring_wait_cqe", -error);
		if (cqe->res != (int)PAGE)
			fail(what, cqe->res < 0 ? -cqe->res : EIO);
		io_uring_cqe_seen(&device->ring, cqe);
	}
}

/* Blocks of the source into some pages, all at once. */
static void device_turn(struct device *device)
{
	unsigned count = device->pages < DEPTH ? device->pages : DEPTH;
	unsigned first = (unsigned)(device->turns * count % device->pages);
	uint64_t base = (uint64_t)random();

	for (unsigned i = 0; i < count; i++) {
		unsigned page = (first + i) % device->pages;
		uint64_t block = (base + i * 7) % BLOCKS;
		unsigned place = device->pin ? i : page;

		io_uring_prep_read_fixed(io_uring_get_sqe(&device->ring), device->source,
					 device->buffer + (size_t)place * PAGE, PAGE, block * PAGE,
					 0);
		device->last[page] = block;
	}
	device_wait(device, count, "READ_FIXED");
	for (unsigned i = 0; device->pin && i < count; i++)
		io_uring_prep_write_fixed(io_uring_get_sqe(&device->ring), device->file,
					  device->buffer + (size_t)i * PAGE, PAGE,
					  (uint64_t)((first + i) % device->pages) * PAGE, 0);
	if (device->pin)
		device_wait(device, count, "WRITE_FIXED");
	device->turns++;
}

static bool command_waits(void)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };

	return poll(&in, 1, 0) > 0;
}

static void device_run(struct device *device)
{
	char line[64];

	for (;;) {
		device_turn(device);
		if (device->turns * DEPTH >= device->pages &&
		    (device->turns - 1) * DEPTH < device->pages)
			printf("ready %s\n", device->direct ? "direct" : "buffered");
		if (!command_waits())
			continue;
		if (!fgets(line, sizeof(line), stdin) || !strcmp(line, "stop\n"))
			return;
		if (!strcmp(line, "turns\n"))
			printf("turns %lu\n", device->turns);
	}
}

static void device_report(struct device *device)
{
	printf("stopped");
	for (unsigned page = 0; page < device->pages; page++)
		printf(" %llu", (unsigned long long)device->last[page]);
	printf("\n");
}

static void options_parse(struct device *device, int argc, char **argv)
{
	for (int i = 1; i < argc - 2; i++) {
		if (!strcmp(argv[i], "--pin"))
			device->pin = true;
		else if (!strcmp(argv[i], "--pages") && i + 1 < argc - 2)
			device->pages = (unsigned)atoi(argv[++i]);
		else
			fail(argv[i], EINVAL);
	}
	if (argc < 3 || device->pages == 0)
		fail("device [--pin] [--pages N] FILE SOURCE", EINVAL);
}

int main(int argc, char **argv)
{
	struct device device = { .pages = 64 };
	char line[64];
	int error;

	setvbuf(stdout, NULL, _IOLBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0);
	options_parse(&device, argc, argv);
	device.last = calloc(device.pages, sizeof(device.last[0]));
	error = io_uring_queue_init(DEPTH, &device.ring, 0);
	if (error || !device.last)
		fail("io_uring_queue_init", error ? -error : ENOMEM);
	device.file = open(argv[argc - 2], O_RDWR | O_CLOEXEC);
	if (device.file < 0)
		fail(argv[argc - 2], errno);
	source_open(&device, argv[argc - 1]);
	if (device.pin)
		device_attach_by_pin(&device);
	else
		device_attach(&device);
	device_run(&device);
	device_detach(&device);
	device_report(&device);
	while (device.pin && fgets(line, sizeof(line), stdin))
		if (!strcmp(line, "poke\n"))
			printf("poke %d\n", pwrite(device.file, "late", 4, 0) < 0 ? errno : 0);
	io_uring_queue_exit(&device.ring);
	free(device.last);
	return 0;
}
