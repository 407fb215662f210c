/* SPDX-License-Identifier: MIT */
#include "ring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Every architecture but alpha has these numbers. */
#ifndef __NR_io_uring_setup
#define __NR_io_uring_setup 425
#define __NR_io_uring_enter 426
#define __NR_io_uring_register 427
#endif

static long ring_call(long result)
{
	return result < 0 ? -errno : result;
}

static int ring_register_empty(const struct ring *ring, unsigned buffers)
{
	struct io_uring_rsrc_register table = {
		.nr = buffers,
		.flags = IORING_RSRC_REGISTER_SPARSE,
	};

	return (int)ring_call(syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS2,
				      &table, sizeof(table)));
}

/* Return: NULL where mmap() fails. */
static void *ring_map(const struct ring *ring, size_t size, uint64_t offset)
{
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
			  (off_t)offset);

	return base == MAP_FAILED ? NULL : base;
}

static int ring_map_all(struct ring *ring, const struct io_uring_params *params)
{
	size_t submissions = params->sq_off.array + params->sq_entries * sizeof(unsigned);
	size_t completions = params->cq_off.cqes +
			     params->cq_entries * sizeof(struct io_uring_cqe);
	char *base;

	ring->rings_size = submissions > completions ? submissions : completions;
	ring->sqes_size = params->sq_entries * sizeof(struct io_uring_sqe);
	ring->rings = ring_map(ring, ring->rings_size, IORING_OFF_SQ_RING);
	if (!ring->rings)
		return -errno;
	ring->sqes = ring_map(ring, ring->sqes_size, IORING_OFF_SQES);
	if (!ring->sqes)
		return -errno;
	base = ring->rings;
	ring->sq_tail = (unsigned *)(base + params->sq_off.tail);
	ring->sq_array = (unsigned *)(base + params->sq_off.array);
	ring->sq_mask = params->sq_entries - 1;
	ring->cq_head = (unsigned *)(base + params->cq_off.head);
	ring->cq_tail = (unsigned *)(base + params->cq_off.tail);
	ring->cq_mask = params->cq_entries - 1;
	ring->cqes = (struct io_uring_cqe *)(base + params->cq_off.cqes);
	return 0;
}

int ring_begin(struct ring *ring, unsigned entries, unsigned buffers)
{
	struct io_uring_params params = { 0 };
	int result;

	*ring = (struct ring){ .fd = -1 };
	ring->fd = (int)ring_call(syscall(__NR_io_uring_setup, entries, &params));
	if (ring->fd < 0)
		return ring->fd;
	/* Both rings in one map since Linux 5.4; a mount of io=kernel is on 6.9 or later. */
	result = params.features & IORING_FEAT_SINGLE_MMAP ? ring_map_all(ring, &params) : -ENOSYS;
	if (result == 0)
		result = ring_register_empty(ring, buffers);
	if (result)
		ring_end(ring);
	return result;
}

void ring_end(struct ring *ring)
{
	if (ring->fd < 0)
		return;
	if (ring->sqes)
		munmap(ring->sqes, ring->sqes_size);
	if (ring->rings)
		munmap(ring->rings, ring->rings_size);
	close(ring->fd);
	*ring = (struct ring){ .fd = -1 };
}

int ring_set_buffer(struct ring *ring, unsigned slot, void *base, size_t length)
{
	struct iovec buffer = { .iov_base = base, .iov_len = length };
	struct io_uring_rsrc_update2 update = {
		.offset = slot,
		.data = (uint64_t)(uintptr_t)&buffer,
		.nr = 1,
	};
	long result = ring_call(syscall(__NR_io_uring_register, ring->fd,
					IORING_REGISTER_BUFFERS_UPDATE, &update, sizeof(update)));

	return result < 0 ? (int)result : 0;
}

void ring_read(struct ring *ring, int fd, unsigned slot, void *base, unsigned length,
	       uint64_t offset, uint64_t data)
{
	/* The kernel only reads the tail, so a plain look at it will do. */
	unsigned tail = *ring->sq_tail;
	unsigned index = tail & ring->sq_mask;

	ring->sqes[index] = (struct io_uring_sqe){
		.opcode = IORING_OP_READ_FIXED,
		.fd = fd,
		.off = offset,
		.addr = (uint64_t)(uintptr_t)base,
		.len = length,
		.buf_index = (uint16_t)slot,
		.user_data = data,
	};
	ring->sq_array[index] = index;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	ring->queued++;
}

int ring_submit(struct ring *ring, unsigned least)
{
	long count = ring_call(syscall(__NR_io_uring_enter, ring->fd, ring->queued, least,
				       least ? IORING_ENTER_GETEVENTS : 0, NULL, 0));

	if (count < 0)
		return (int)count;
	ring->queued -= (unsigned)count;
	return 0;
}

int ring_next(struct ring *ring, uint64_t *data, int *result)
{
	unsigned head = *ring->cq_head;
	const struct io_uring_cqe *cqe;

	if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
		return 0;
	cqe = &ring->cqes[head & ring->cq_mask];
	*data = cqe->user_data;
	*result = cqe->res;
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return 1;
}
